"""From the answers to requests to the result tables: right problems, accuracy of classes, first failures."""

from __future__ import annotations

from collections.abc import Iterator
from os.path import commonprefix

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..pipelines.folder import Folder
from ..tm.columns import I64, Bool
from ..tm.render import int_array
from .dataset_rows import distinct_rows
from .problems import PROBLEMS, VIEWS
from .results import ResultStore
from .tables import CLASS, CLASSES, RunTables, class_accuracy, key_column

# A problem: the request that fails first, or its first one, and that one's place among its requests, -1 if none fails
VERDICT = np.dtype(
    [
        *[("request", "u4"), ("step", "i8"), ("num_calls", "i8")],
        *[(name, "?") for name in ("right", "right_stripped", "near_tie")],
    ]
)
Verdicts = NDArray[np.void]


def write_tables(tables: RunTables, store: ResultStore, folder: Folder) -> pa.Table:
    """Write the tables of a run whose requests are all judged, all but runs; return class_accuracy.

    The dataset's folder tells the classes that no problem was taken from.
    """
    verdicts = _judged(store)
    failed = np.flatnonzero(~verdicts["right"])
    failed = failed[np.argsort(verdicts["request"][failed], kind="stable")]
    for adapter in store.adapters:
        part = adapter.replace("/", "-") or "base"
        tables.write_part("calls", part, _calls(store, adapter))
        tables.write_part("failures", part, _failures(store, adapter, failed, verdicts))
    tables.write_part("problems", "problems", _problems(store, verdicts))
    accuracy = class_accuracy(_outcomes(store, verdicts), _classes(store, folder))
    tables.write_part("class_accuracy", CLASSES, [accuracy])
    return accuracy


def _judged(store: ResultStore) -> Verdicts:
    """Return what is to be told of each problem, rows of ``VERDICT``: it is right when all its requests are."""
    verdicts = np.empty(store.num_problems, VERDICT)
    for first, starts, steps in store.steps():
        told, known, begins = verdicts[first : first + len(starts) - 1], store.known[steps], starts[:-1]
        told["num_calls"] = np.diff(starts)
        places = np.arange(len(steps)) - np.repeat(begins, told["num_calls"])
        step = np.minimum.reduceat(np.where(known["correct"] == 1, len(steps), places), begins)
        told["right"] = step == len(steps)
        told["step"] = np.where(told["right"], -1, step)
        told["request"] = steps[begins + np.maximum(told["step"], 0)]
        told["right_stripped"] = np.minimum.reduceat(known["stripped"], begins) == 1
        told["near_tie"] = np.maximum.reduceat(known["near_tie"], begins) == 1
    return verdicts


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


def _failures(store: ResultStore, adapter: str, failed: I64, verdicts: Verdicts) -> Iterator[dict[str, pa.Array]]:
    """Yield failures at an adapter; ``failed`` are the numbers of the problems, sorted by the request that failed."""
    at = verdicts["request"][failed]
    wanted = np.zeros(store.num_requests, np.bool_)
    wanted[at] = True
    for ids, requests in store.requests(adapter, wanted):
        low, high = np.searchsorted(at, [ids[0], ids[-1] + 1])
        rows = np.sort(failed[low:high][np.isin(at[low:high], ids)])
        told = verdicts[rows]
        which = np.searchsorted(ids, told["request"])
        texts = pa.array(store.wrong_texts(ids), pa.string()).take(int_array(which))
        asked = requests.take(int_array(which))
        problems, known = store.problems_at(rows), store.known[ids[which]]
        pairs = zip(texts.to_pylist(), asked.column("completion").to_pylist(), strict=True)
        same = [None if text is None else len(commonprefix([text, expected])) for text, expected in pairs]
        yield {
            **{name: problems.column(name) for name in (*CLASS, "a", "b")},
            **{name: asked.column(name) for name in ("adapter", "kind", "state", "prompt")},
            **{name: int_array(told[name]) for name in ("step", "num_calls")},
            "call": int_array(ids[which]),
            "text": texts,
            "first_wrong_token": _token(known, known["correct"] >= 0),
            "expected": asked.column("completion"),
            "first_wrong_char": pa.array(same, pa.int64()),
        }


def _problems(store: ResultStore, verdicts: Verdicts) -> Iterator[dict[str, pa.Array]]:
    for first, problems in store.problems():
        told = verdicts[first : first + len(problems)]
        yield {
            **dict(zip(problems.column_names, problems.columns, strict=True)),
            "num_calls": int_array(told["num_calls"]),
            "first_wrong_step": int_array(told["step"], ~told["right"]),
            "correct": _flags(told["right"]),
            "correct_stripped": _flags(told["right_stripped"]),
        }


def _outcomes(store: ResultStore, verdicts: Verdicts) -> pa.RecordBatchReader:
    names = ("right", "right_stripped", "near_tie")
    flags = [pa.field(name, pa.bool_()) for name in (*names, "final_right")]
    schema = pa.schema([*(PROBLEMS.field(name) for name in CLASS), *flags])

    def found() -> Iterator[pa.RecordBatch]:
        for first, problems in store.problems():
            here = slice(first, first + len(problems))
            told, final = verdicts[here], store.finals[here]
            flags = [*(_flags(told[name]) for name in names), _flags(final == 1, final >= 0)]
            yield from pa.table([*problems.select(CLASS).columns, *flags], schema=schema).to_batches()

    return pa.RecordBatchReader.from_batches(schema, found())


def _flags(values: Bool, valid: Bool | None = None) -> pa.Array:
    return int_array(values.view(np.int8), valid).cast(pa.bool_())


def _token(known: NDArray[np.void], told: Bool) -> pa.Array:
    return int_array(known["first_wrong_token"], told & (known["first_wrong_token"] >= 0))


def _classes(store: ResultStore, folder: Folder) -> pa.Table:
    """Return the classes of the rows that the problems were taken from."""
    jobs = {tuple(table.column(name)[0].as_py() for name in CLASS[:4]) for _, table in store.problems()}  # of all rows
    frames = [pl.DataFrame(pa.schema([PROBLEMS.field(name) for name in CLASS]).empty_table())]
    for job in jobs:
        task, mode, split, _ = job
        classes = distinct_rows(folder, f"{task}-{VIEWS[mode]}", split, CLASS[4:])
        of_job = [pl.lit(value).alias(name) for name, value in zip(CLASS, job, strict=False)]
        frames.append(classes.select(*of_job, *CLASS[4:]))
    return pl.concat(frames).to_arrow()
