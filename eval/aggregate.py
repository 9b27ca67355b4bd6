"""From the answers to requests to the result tables: right problems, accuracy of classes, first failures."""

from __future__ import annotations

from collections.abc import Iterator
from os.path import commonprefix
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..pipelines.folder import Folder
from ..tm.columns import I64, Bool
from ..tm.render import int_array
from .limit import READ
from .problems import PROBLEMS, shards
from .results import ResultStore
from .shards import batches
from .tables import CLASS, CLASSES, RunTables, class_accuracy, key_column


def write_tables(tables: RunTables, store: ResultStore, folder: Folder) -> pa.Table:
    """Write the tables of a run whose requests are all judged, all but runs; return class_accuracy.

    The dataset's folder tells the classes that no problem was taken from.
    """
    failed = _failed(store)
    for adapter in store.adapters:
        part = adapter.replace("/", "-") or "base"
        tables.write_part("calls", part, _calls(store, adapter))
        tables.write_part("failures", part, _failures(store, adapter, failed))
    tables.write_part("problems", "problems", _problems(store))
    accuracy = class_accuracy(_outcomes(store), _classes(store, folder))
    tables.write_part("class_accuracy", CLASSES, [accuracy])
    return accuracy


def _judged(store: ResultStore) -> Iterator[tuple[int, I64, dict[str, NDArray[Any]]]]:
    """Yield the number of a problem, the requests that fail first, and what is to be told, of it and those behind it.

    A problem is right when all its requests are; ``step`` is the place of the first one that is not, -1 if none.
    """
    for first, starts, steps in store.steps():
        known, begins, num_calls = store.known[steps], starts[:-1], np.diff(starts)
        places = np.arange(len(steps)) - np.repeat(begins, num_calls)
        step = np.minimum.reduceat(np.where(known["correct"] == 1, len(steps), places), begins)
        step[step == len(steps)] = -1
        stripped = np.minimum.reduceat(known["stripped"], begins) == 1
        told = {"num_calls": num_calls, "step": step, "right": step < 0, "right_stripped": stripped}
        told["near_tie"] = np.maximum.reduceat(known["near_tie"], begins) == 1
        yield first, steps[begins + np.maximum(step, 0)], told


def _failed(store: ResultStore) -> dict[str, I64]:
    """Return the problems that are not right, sorted by the request that fails first."""
    found = []
    for first, requests, told in _judged(store):
        wrong = np.flatnonzero(~told["right"])
        found.append(np.stack([first + wrong, requests[wrong], told["step"][wrong], told["num_calls"][wrong]]))
    failed = np.concatenate([np.empty((4, 0), np.int64), *found], axis=1)
    failed = failed[:, np.argsort(failed[1], kind="stable")]
    return dict(zip(("problem", "request", "step", "num_calls"), failed, strict=True))


def _calls(store: ResultStore, adapter: str) -> Iterator[dict[str, pa.Array]]:
    for ids, requests in store.requests(adapter, store.known["correct"] >= 0):
        known = store.known[ids]
        wrong = known["correct"] == 0
        columns = dict(zip(requests.column_names, requests.columns, strict=True))
        columns["expected"] = columns.pop("completion")
        names = ("adapter", "prompt", "expected")
        keys = pc.binary_join_element_wise(*(columns[name].cast(pa.binary()) for name in names), b"\0")
        for name in names[1:]:
            columns[name] = pc.if_else(_flags(wrong), columns[name], pa.nulls(len(ids), pa.string()))
        yield {
            **columns,
            "call": int_array(ids),
            "key": key_column(keys.to_pylist()),
            **{name: int_array(known[name], known[name] > 0) for name in ("tokens", "completion_tokens")},
            "first_wrong_token": _token(known, wrong),
            "margin": int_array(known["margin"], ~np.isnan(known["margin"])),
            **{name: _flags(known[name] == 1) for name in ("correct", "decoded", "near_tie")},
            "text": pa.array(store.wrong_texts(ids), pa.string()),
        }


def _failures(store: ResultStore, adapter: str, failed: dict[str, I64]) -> Iterator[dict[str, pa.Array]]:
    wanted = np.zeros(store.num_requests, np.bool_)
    wanted[failed["request"]] = True
    for ids, requests in store.requests(adapter, wanted):
        low, high = np.searchsorted(failed["request"], [ids[0], ids[-1] + 1])
        rows = low + np.flatnonzero(np.isin(failed["request"][low:high], ids))
        rows = rows[np.argsort(failed["problem"][rows])]
        which = np.searchsorted(ids, failed["request"][rows])
        texts = pa.array(store.wrong_texts(ids), pa.string()).take(int_array(which))
        asked = requests.take(int_array(which))
        problems, known = store.problems_at(failed["problem"][rows]), store.known[ids[which]]
        pairs = zip(texts.to_pylist(), asked.column("completion").to_pylist(), strict=True)
        same = [None if text is None else len(commonprefix([text, expected])) for text, expected in pairs]
        yield {
            **{name: problems.column(name) for name in (*CLASS, "a", "b")},
            **{name: asked.column(name) for name in ("adapter", "kind", "state", "prompt")},
            **{name: int_array(failed[name][rows]) for name in ("step", "num_calls")},
            "call": int_array(ids[which]),
            "text": texts,
            "first_wrong_token": _token(known, known["correct"] >= 0),
            "expected": asked.column("completion"),
            "first_wrong_char": pa.array(same, pa.int64()),
        }


def _problems(store: ResultStore) -> Iterator[dict[str, pa.Array]]:
    for (_, problems), (_, _, told) in zip(store.problems(), _judged(store), strict=True):
        yield {
            **dict(zip(problems.column_names, problems.columns, strict=True)),
            "num_calls": int_array(told["num_calls"]),
            "first_wrong_step": int_array(told["step"], ~told["right"]),
            "correct": _flags(told["right"]),
            "correct_stripped": _flags(told["right_stripped"]),
        }


def _outcomes(store: ResultStore) -> pa.RecordBatchReader:
    names = ("right", "right_stripped", "near_tie")
    flags = [pa.field(name, pa.bool_()) for name in (*names, "final_right")]
    schema = pa.schema([*(PROBLEMS.field(name) for name in CLASS), *flags])

    def found() -> Iterator[pa.RecordBatch]:
        for (first, problems), (_, _, told) in zip(store.problems(), _judged(store), strict=True):
            final = store.finals[first : first + len(problems)]
            flags = [*(_flags(told[name]) for name in names), _flags(final == 1, final >= 0)]
            yield from pa.table([*problems.select(CLASS).columns, *flags], schema=schema).to_batches()

    return pa.RecordBatchReader.from_batches(schema, found())


def _flags(values: Bool, valid: Bool | None = None) -> pa.Array:
    return int_array(values.view(np.int8), valid).cast(pa.bool_())


def _token(known: NDArray[np.void], told: Bool) -> pa.Array:
    return int_array(known["first_wrong_token"], told & (known["first_wrong_token"] >= 0))


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
