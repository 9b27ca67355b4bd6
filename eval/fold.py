"""From the results of calls to the result tables: right problems, accuracy of classes, first failures."""

from __future__ import annotations

from collections.abc import Iterator
from os.path import commonprefix
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..pipelines.local_folder import LocalFolder
from .agenda import PROBLEMS, WINDOW, Agenda, Window
from .evaluate import Bools, first_failing_places
from .kept import RIGHT, UNKNOWN, Kept
from .limit import READ
from .runs import shards
from .shards import batches
from .tables import CLASS, CLASSES, RunTables, call_key, class_accuracy


def write_tables(
    tables: RunTables, agenda: Agenda, kept: Kept, finals: npt.NDArray[np.int8] | None, folder: LocalFolder
) -> pa.Table:
    """Write the tables of a run whose calls are all judged, all but runs; return class_accuracy.

    Args:
        tables: where they go.
        agenda: the problems and calls.
        kept: the results of the calls.
        finals: of rollouts: whether each problem's last text was right; None otherwise.
        folder: the dataset, for the classes that no problem was taken from.
    """
    places = first_failing_places(agenda, kept.right)
    for adapter in agenda.adapters:
        tables.write_part("calls", _part(adapter), _calls(agenda, kept, adapter))
        tables.write_part("failures", _part(adapter), _failures(agenda, kept, adapter, places))
    stripped = first_failing_places(agenda, kept.stripped) < 0
    tables.write_part("problems", "problems", _problems(agenda, places, stripped))
    near = first_failing_places(agenda, ~kept.near_tie) >= 0
    accuracy = class_accuracy(_outcomes(agenda, places < 0, stripped, near, finals), _classes(agenda, folder))
    tables.write_part("class_accuracy", CLASSES, [accuracy])
    return accuracy


def _part(adapter: str) -> str:
    return adapter.replace("/", "-") or "base"


def _calls(agenda: Agenda, kept: Kept, adapter: str) -> Iterator[dict[str, Any]]:
    for window in agenda.windows(adapter):
        known = np.flatnonzero(kept.right[window.ids] != UNKNOWN)  # rollouts that fail ask no more
        if not len(known):
            continue
        texts = kept.texts_of(window.ids)
        ids = window.ids[known]
        right = kept.right[ids] == RIGHT
        calls = [window.calls[row] for row in known.tolist()]
        at, margin = kept.at[ids], kept.margin[ids]
        yield {
            "call": ids,
            "key": [call_key(adapter, call.prompt, call.completion) for call in calls],
            "adapter": [adapter] * len(ids),
            "task": [window.tasks[row] for row in known.tolist()],
            "kind": [window.kinds[row] for row in known.tolist()],
            "state": [window.states[row] for row in known.tolist()],
            "correct": right,
            "tokens": pa.array(kept.tokens[ids], mask=kept.tokens[ids] == 0),
            "completion_tokens": pa.array(kept.completion_tokens[ids], mask=kept.completion_tokens[ids] == 0),
            "first_wrong_token": pa.array(at, mask=(at < 0) | right),
            "margin": pa.array(margin, mask=np.isnan(margin)),
            "decoded": kept.decoded[ids],
            "near_tie": kept.near_tie[ids],
            "text": [None if good else texts.get(number) for number, good in zip(ids.tolist(), right, strict=True)],
            "prompt": [None if good else call.prompt for call, good in zip(calls, right, strict=True)],
            "expected": [None if good else call.completion for call, good in zip(calls, right, strict=True)],
        }


def _problems(agenda: Agenda, places: npt.NDArray[np.int64], stripped: Bools) -> Iterator[dict[str, Any]]:
    for start in range(0, agenda.num_problems, WINDOW):
        numbers = np.arange(start, min(start + WINDOW, agenda.num_problems))
        own, right = agenda.whole_problems(numbers), places[numbers] < 0
        yield {
            **{name: own.column(name) for name in own.column_names},
            "num_calls": agenda.starts[numbers + 1] - agenda.starts[numbers],
            "correct": right,
            "correct_stripped": stripped[numbers],
            "first_wrong_step": pa.array(places[numbers] - agenda.starts[numbers], mask=right),
        }


def _failures(agenda: Agenda, kept: Kept, adapter: str, places: npt.NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    failed = np.flatnonzero(places >= 0)
    first = agenda.flat[places[failed]]
    order = np.argsort(first, kind="stable")
    failed, first = failed[order], first[order]
    for window in agenda.windows(adapter):
        mine = np.flatnonzero(np.isin(first, window.ids))
        if len(mine):
            yield _failure_rows(agenda, kept, window, np.sort(failed[mine]), places)


def _failure_rows(
    agenda: Agenda, kept: Kept, window: Window, problems: npt.NDArray[np.int64], places: npt.NDArray[np.int64]
) -> dict[str, Any]:
    rows = {number: row for row, number in enumerate(window.ids.tolist())}
    texts = kept.texts_of(window.ids)
    numbers = agenda.flat[places[problems]].tolist()
    found = [rows[number] for number in numbers]
    calls = [window.calls[row] for row in found]
    answers = [texts.get(number) for number in numbers]
    kept_at = kept.at[numbers]
    own = agenda.whole_problems(problems)
    return {
        **{name: own.column(name) for name in (*CLASS, "a", "b")},
        "step": places[problems] - agenda.starts[problems],
        "num_calls": agenda.starts[problems + 1] - agenda.starts[problems],
        "call": numbers,
        "adapter": [call.adapter for call in calls],
        "kind": [window.kinds[row] for row in found],
        "state": [window.states[row] for row in found],
        "prompt": [call.prompt for call in calls],
        "expected": [call.completion for call in calls],
        "text": answers,
        "first_wrong_token": pa.array(kept_at, mask=kept_at < 0),
        "first_wrong_char": [
            None if text is None else len(commonprefix([text, call.completion]))
            for text, call in zip(answers, calls, strict=True)
        ],
    }


def _outcomes(
    agenda: Agenda, right: Bools, stripped: Bools, near: Bools, finals: npt.NDArray[np.int8] | None
) -> pa.Table:
    final = pa.nulls(agenda.num_problems, pa.bool_())
    if finals is not None:
        final = pa.array(finals == RIGHT, mask=finals == UNKNOWN)
    told = {"right": right, "right_stripped": stripped, "near_tie": near}
    columns = {**{name: pa.array(found) for name, found in told.items()}, "final_right": final}
    return pa.table({**dict(zip(agenda.problems.column_names, agenda.problems.columns, strict=True)), **columns})


def _classes(agenda: Agenda, folder: LocalFolder) -> pa.Table:
    """Return the classes of the rows that the problems were taken from."""
    jobs = agenda.problems.group_by(["task", "mode", "split", "dialect"]).aggregate([]).to_pylist()
    tables = [agenda.problems.slice(0, 0).cast(pa.schema([PROBLEMS.field(name) for name in CLASS]))]
    for job in jobs:
        names = ["variant", "len_a", "len_b"]
        found = pa.schema([("variant", pa.string()), ("len_a", pa.int16()), ("len_b", pa.int16())]).empty_table()
        for path in shards(folder, job["task"], job["mode"], job["split"]):
            for batch in batches(folder, path, names, READ):
                both = pa.concat_tables([found, pa.Table.from_batches([batch]).cast(found.schema)])
                found = both.group_by(names).aggregate([])
        columns = {name: pa.array([job[name]] * len(found), pa.string()) for name in job}
        columns |= {name: found.column(name) for name in names}
        tables.append(pa.table({name: columns[name] for name in CLASS}))
    return pa.concat_tables(tables)
