"""From the answers to requests to the result tables: right problems, accuracy of classes, first failures."""

from __future__ import annotations

from collections.abc import Iterator
from os.path import commonprefix

import pyarrow as pa
import pyarrow.compute as pc

from ..pipelines.folder import Folder
from .limit import READ
from .problems import PROBLEMS, shards
from .results import ResultStore
from .shards import batches
from .tables import CLASS, CLASSES, RunTables, class_accuracy, key_of

# Of each problem: the first of its requests that is not right, and whether it is right up to white space.
OUTCOMES = (
    """CREATE TABLE outcomes (
        problem INTEGER PRIMARY KEY, num_calls INTEGER, step INTEGER, right_stripped INTEGER, near_tie INTEGER,
        request INTEGER
    )""",
    """INSERT INTO outcomes SELECT problem, count(*), min(iif(correct IS 1, NULL, step)), min(stripped IS 1),
        max(near_tie IS 1), NULL
    FROM steps GROUP BY problem""",
    """UPDATE outcomes SET request = (
        SELECT request + outcomes.step - step FROM spans
        WHERE spans.problem = outcomes.problem AND step <= outcomes.step ORDER BY step DESC LIMIT 1
    ) WHERE step IS NOT NULL""",
    "CREATE INDEX failed ON outcomes (request) WHERE request IS NOT NULL",
)
CALLS = """
SELECT id, number AS call, correct, tokens, completion_tokens,
    iif(correct, NULL, first_wrong_token) AS first_wrong_token, margin, decoded, near_tie, text
FROM own WHERE correct IS NOT NULL
"""
FAILURES = """
SELECT problem, id, step, num_calls, number AS call, text, first_wrong_token
FROM own JOIN outcomes ON request = id ORDER BY problem
"""
JUDGED = """
SELECT num_calls, step AS first_wrong_step, step IS NULL AS "right", right_stripped, near_tie, correct AS final_right
FROM outcomes LEFT JOIN finals USING (problem) WHERE problem >= ? AND problem < ? ORDER BY problem
"""


def write_tables(tables: RunTables, store: ResultStore, folder: Folder) -> pa.Table:
    """Write the tables of a run whose requests are all judged, all but runs; return class_accuracy.

    The dataset's folder tells the classes that no problem was taken from.
    """
    store.execute("BEGIN")  # and no end: what is only for the tables need not stay
    for line in OUTCOMES:
        store.execute(line)
    for adapter in store.adapters:
        part = adapter.replace("/", "-") or "base"
        tables.write_part("calls", part, _calls(store, adapter))
        tables.write_part("failures", part, _failures(store, adapter))
    tables.write_part("problems", "problems", _problems(store))
    accuracy = class_accuracy(_outcomes(store), _classes(store, folder))
    tables.write_part("class_accuracy", CLASSES, [accuracy])
    return accuracy


def _calls(store: ResultStore, adapter: str) -> Iterator[dict[str, pa.ChunkedArray]]:
    for requests in store.requests(adapter, CALLS):
        columns = dict(zip(requests.column_names, requests.columns, strict=True))
        del columns["id"]
        columns["expected"] = columns.pop("completion")
        names = ("adapter", "prompt", "expected")
        told = pc.binary_join_element_wise(*(columns[name].cast(pa.binary()) for name in names), b"\0")
        columns["key"] = pa.array([key_of(text) for text in told.to_pylist()])
        for name in names[1:]:
            columns[name] = pc.if_else(columns["correct"].cast(pa.bool_()), pa.scalar(None, pa.string()), columns[name])
        yield columns


def _failures(store: ResultStore, adapter: str) -> Iterator[dict[str, pa.ChunkedArray]]:
    for requests in store.requests(adapter, FAILURES):
        problems = store.problems_at(requests.column("problem").to_numpy())
        texts = zip(*(requests.column(name).to_pylist() for name in ("text", "completion")), strict=True)
        same = [None if text is None else len(commonprefix([text, expected])) for text, expected in texts]
        names = ("step", "num_calls", "call", "text", "first_wrong_token", "adapter", "kind", "state", "prompt")
        yield {
            **{name: problems.column(name) for name in (*CLASS, "a", "b")},
            **{name: requests.column(name) for name in names},
            "expected": requests.column("completion"),
            "first_wrong_char": pa.array(same, pa.int64()),
        }


def _problems(store: ResultStore) -> Iterator[dict[str, pa.ChunkedArray]]:
    for first, problems in store.problems():
        judged = store.table(JUDGED, first, first + len(problems))
        yield {
            **dict(zip(problems.column_names, problems.columns, strict=True)),
            **{name: judged.column(name) for name in ("num_calls", "first_wrong_step")},
            "correct": judged.column("right"),
            "correct_stripped": judged.column("right_stripped"),
        }


def _outcomes(store: ResultStore) -> pa.RecordBatchReader:
    told = ("right", "right_stripped", "near_tie", "final_right")
    schema = pa.schema([*(PROBLEMS.field(name) for name in CLASS), *((name, pa.bool_()) for name in told)])

    def found() -> Iterator[pa.RecordBatch]:
        for first, problems in store.problems():
            judged = store.table(JUDGED, first, first + len(problems)).select(told)
            columns = [*problems.select(CLASS).columns, *judged.columns]
            yield from pa.table(columns, [*CLASS, *told]).cast(schema).to_batches()

    return pa.RecordBatchReader.from_batches(schema, found())


def _classes(store: ResultStore, folder: Folder) -> pa.Table:
    """Return the classes of the rows that the problems were taken from."""
    of_job, of_rows = list(CLASS[:4]), list(CLASS[4:])
    schema = pa.schema([PROBLEMS.field(name) for name in CLASS])
    held = [table.select(of_job).group_by(of_job).aggregate([]) for _, table in store.problems()]
    jobs = pa.concat_tables([schema.empty_table().select(of_job), *held]).group_by(of_job).aggregate([])
    tables = [schema.empty_table()]
    for job in jobs.to_pylist():
        found = tables[0].select(of_rows)
        for path in shards(folder, job["task"], job["mode"], job["split"]):
            for batch in batches(folder, path, of_rows, READ):
                both = pa.concat_tables([found, pa.Table.from_batches([batch]).cast(found.schema)])
                found = both.group_by(of_rows).aggregate([])
        told = [pa.repeat(job[name], len(found)) for name in of_job]
        tables.append(pa.table([*told, *(found.column(name) for name in of_rows)], schema=schema))
    return pa.concat_tables(tables)
