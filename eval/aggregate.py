"""From the answers to requests to the result tables: right problems, accuracy of classes, first failures."""

from __future__ import annotations

from collections.abc import Iterator
from os.path import commonprefix
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..pipelines.folder import Folder
from ..tm.render import int_array
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
ANSWERED = """
SELECT id, number AS call, correct, tokens, completion_tokens,
    iif(correct, NULL, first_wrong_token) AS first_wrong_token, margin, decoded, near_tie, text
FROM requests WHERE id >= ? AND id < ? AND correct IS NOT NULL ORDER BY id
"""
FAILED = """
SELECT problem, request, step, num_calls, number AS call, text, first_wrong_token
FROM outcomes JOIN requests ON id = request WHERE request >= ? AND request < ? ORDER BY problem
"""
JUDGED = """
SELECT num_calls, step AS first_wrong_step, step IS NULL AS "right", right_stripped, near_tie, correct AS final_right
FROM outcomes LEFT JOIN finals USING (problem) WHERE problem >= ? AND problem < ? ORDER BY problem
"""


def write_tables(tables: RunTables, store: ResultStore, folder: Folder) -> pa.Table:
    """Write the tables of a run whose requests are all judged, all but runs; return class_accuracy.

    Args:
        tables: where they go.
        store: what is known.
        folder: the dataset, for the classes that no problem was taken from.
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


def _calls(store: ResultStore, adapter: str) -> Iterator[dict[str, Any]]:
    for number in store.batches(adapter):
        found = store.columns(ANSWERED, *store.span(number))
        ids = np.array(found.pop("id"), np.int64)
        if not len(ids):  # rollouts that fail ask no more
            continue
        batch = store.batch(number)
        asked = batch.table.take(int_array(ids - batch.first))
        flags = {name: _flags(found[name]) for name in ("correct", "decoded", "near_tie")}
        names = ("adapter", "prompt", "completion")
        told = pc.binary_join_element_wise(*(asked.column(name).cast(pa.binary()) for name in names), b"\0")
        texts = {"prompt": asked.column("prompt"), "expected": asked.column("completion")}
        nothing = pa.nulls(len(ids), pa.string())
        yield {
            **found,
            **flags,
            "key": [key_of(text) for text in told.to_pylist()],
            **{name: asked.column(name) for name in ("adapter", "task", "kind", "state")},
            **{name: pc.if_else(flags["correct"], nothing, column) for name, column in texts.items()},
        }


def _failures(store: ResultStore, adapter: str) -> Iterator[dict[str, Any]]:
    for number in store.batches(adapter):
        found = store.columns(FAILED, *store.span(number))
        requests, problems = (np.array(found.pop(name), np.int64) for name in ("request", "problem"))
        if not len(problems):
            continue
        batch, own = store.batch(number), store.problems_at(problems)
        asked = batch.table.take(int_array(requests - batch.first))
        both = zip(found["text"], asked.column("completion").to_pylist(), strict=True)
        yield {
            **found,
            **{name: own.column(name) for name in (*CLASS, "a", "b")},
            **{name: asked.column(name) for name in ("adapter", "kind", "state", "prompt")},
            "expected": asked.column("completion"),
            "first_wrong_char": [None if text is None else len(commonprefix([text, right])) for text, right in both],
        }


def _problems(store: ResultStore) -> Iterator[dict[str, Any]]:
    for first, table in store.problems():
        found = store.columns(JUDGED, first, first + len(table))
        yield {
            **{name: table.column(name) for name in table.column_names},
            "num_calls": found["num_calls"],
            "correct": _flags(found["right"]),
            "correct_stripped": _flags(found["right_stripped"]),
            "first_wrong_step": found["first_wrong_step"],
        }


def _outcomes(store: ResultStore) -> pa.RecordBatchReader:
    told = ("right", "right_stripped", "near_tie", "final_right")
    schema = pa.schema([*(PROBLEMS.field(name) for name in CLASS), *((name, pa.bool_()) for name in told)])

    def found() -> Iterator[pa.RecordBatch]:
        for first, table in store.problems():
            judged = store.columns(JUDGED, first, first + len(table))
            columns = [*table.select(CLASS).columns, *(_flags(judged[name]) for name in told)]
            yield from pa.table(columns, schema=schema).to_batches()

    return pa.RecordBatchReader.from_batches(schema, found())


def _flags(values: list[int | None]) -> pa.Array:
    return pa.array(values, pa.int8()).cast(pa.bool_())


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
