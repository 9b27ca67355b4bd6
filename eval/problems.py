"""From built rows to problems and the requests that a perfect model is asked, in columns: single steps, whole runs.

A whole run is rendered as the dataset is: all entries of many expressions at once, and each machine that is called as
another column of expressions. No transition is made in Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..pipelines.folder import Folder
from ..pipelines.verify_rows import Known
from ..schemas import part_schema
from ..tm import machine
from ..tm.columns import I64, Number, Operands
from ..tm.composer import Composer
from ..tm.instructions import instruction
from ..tm.render import RowGroup, Template, int_array, render, string_array
from .calls import BASE
from .dataset_rows import batches, choose_expressions, expression_keys, refused, wrong_row
from .tables import CLASS

MODES = ("one_step", "executor", "aligner_in", "aligner_out", "process")
SLIPS = "slips"  # entries that no correct run holds, where a dataset has them: asked for by name
RAW = "raw"  # the mode of the baseline: the base model alone, raw question to raw answer
WALKED = ("executor", "process")  # modes whose problems ask more than once
VIEWS = {"one_step": "one_step", "executor": "full", "process": "full", SLIPS: "slips", RAW: "raw"}
VIEWS |= {"aligner_in": "aligner", "aligner_out": "aligner"}  # the rows that a mode takes its problems from
DIRECTIONS = {"aligner_in": "in", "aligner_out": "out"}
STEPS = ("one_step", SLIPS)  # modes of single steps
OF_STEPS = ["step", "n_steps", "state", "next_state", "call"]  # columns of one_step
TOGETHER = 1 << 14  # entries of whole runs that are rendered at once, about
_TAPE = re.compile(r"(?:\|\d)+")

PROBLEMS = pa.schema([(name, part_schema("problems").field(name).type) for name in (*CLASS, "a", "b", "asked_step")])
REQUESTS = pa.schema([(name, pa.string()) for name in ("adapter", "task", "kind", "state", "prompt", "completion")])


@dataclass(frozen=True, eq=False)
class Problems:
    """Some problems: expressions in a mode, each right when all its requests are answered right.

    Args:
        table: the columns ``PROBLEMS``, one row a problem.
        starts: where each problem's requests begin in ``steps``, and the end, shape (problems + 1,).
        steps: rows of ``requests`` in the order in which they are made, one problem after the other.
        requests: the columns ``REQUESTS``, in the order in which they are first made. ``kind`` is executor, aligner_in,
            aligner_out or raw; ``task`` is the machine or task that the adapter is for; ``state`` is the machine's
            state in the prompt, null for aligners and raw questions.
    """

    table: pa.Table
    starts: I64
    steps: I64
    requests: pa.Table

    def __len__(self) -> int:
        return len(self.table)


def executor(task: str) -> str:
    """Return the name of a machine's adapter."""
    return f"executors/{task}"


def aligner(task: str) -> str:
    """Return the name of a task's aligner."""
    return f"aligners/{task}"


def instruction_of(adapter: str) -> str:
    """Return what stands before an adapter's prompts in the first stage of training."""
    kind, _, task = adapter.partition("/")
    return instruction(machine(task), "aligner" if kind == "aligners" else "one_step")


def needed(task: str, mode: str) -> frozenset[str]:
    """Return the names of the adapters that a task needs in a mode."""
    if mode == RAW:
        return frozenset()
    if mode in DIRECTIONS:
        return frozenset({aligner(task)})
    runs = {task} if mode in STEPS else _called(task)
    return frozenset(map(executor, runs)).union([aligner(task)] if mode == "process" else [])


def _called(task: str) -> frozenset[str]:
    """Return a task and those that its runs call."""
    found = machine(task)
    calls = found.calls if isinstance(found, Composer) else ()
    return frozenset({task}).union(*(_called(call.task) for call in calls))


def read_problems(folder: Folder, task: str, mode: str, split: str, limit: int | None) -> Iterator[Problems]:
    """Yield the problems of a task in a mode, in the order of the rows; none where the dataset has no such rows.

    Args:
        folder: a built dataset.
        task: a task.
        mode: one of ``MODES``, ``SLIPS`` or ``RAW``.
        split: train, test or stress.
        limit: those of so many expressions, at most (``dataset_rows.py``); None for all.

    Raises:
        UserError: the rows are not what the machine gives.
    """
    view, known = VIEWS[mode], Known()
    if split not in folder.manifest()["configs"].get(f"{task}-{view}", {}):
        return
    chosen = None if limit is None else choose_expressions(folder, task, split, limit).keys[view]
    dialect = folder.manifest()["tasks"][task]["settings"]["dialect"]
    columns = ["variant", "a", "b", "len_a", "len_b", *([] if mode in WALKED else ["prompt", "completion"])]
    columns += OF_STEPS if mode in STEPS else ["direction"] if mode in DIRECTIONS else []
    columns += ["slip"] * (mode == SLIPS)
    for path, batch in batches(folder, f"{task}-{view}", split, columns):
        if chosen is not None:
            batch = batch.filter(pc.is_in(expression_keys(batch.column("a"), batch.column("b")), chosen))
        if why := wrong_row(task, view, dialect, batch, known):
            raise refused(folder, path, why)
        if mode in DIRECTIONS:
            batch = batch.filter(pc.equal(batch.column("direction"), DIRECTIONS[mode]))
        rows = pa.Table.from_batches([batch])
        if mode in WALKED:
            yield from whole_runs(task, mode, split, rows)
        elif len(rows):
            yield _single(task, mode, split, rows, dialect)


def _described(rows: pa.Table, task: str, mode: str, split: str, dialect: str) -> pa.Table:
    """Return the columns ``PROBLEMS`` of rows; what the rows do not hold is null."""
    absent, columns = pa.nulls(len(rows)), dict(zip(rows.column_names, rows.columns, strict=True))
    columns.setdefault("asked_step", columns.get("step", absent))
    for name, value in (("task", task), ("mode", mode), ("split", split), ("dialect", dialect)):
        columns[name] = pa.repeat(value, len(rows))
    return pa.table([columns.get(name, absent) for name in PROBLEMS.names], PROBLEMS.names).cast(PROBLEMS)


def _single(task: str, mode: str, split: str, rows: pa.Table, dialect: str) -> Problems:
    """Return the problems of rows that are one request each."""
    adapter, kind, state = (BASE if mode == RAW else aligner(task)), mode, pa.nulls(len(rows))
    if mode in STEPS:
        adapter, kind, state = executor(task), "executor", rows.column("state")
    requests = _requests(adapter, task, kind, state, rows.column("prompt"), rows.column("completion"))
    table = _described(rows, task, mode, split, dialect if mode in STEPS else "consistent")
    return Problems(table, np.arange(len(rows) + 1), np.arange(len(rows)), requests)


def _requests(adapter: str, task: str, kind: str, state: Any, prompt: Any, completion: Any) -> pa.Table:
    columns = [*(pa.repeat(one, len(prompt)) for one in (adapter, task, kind)), state, prompt, completion]
    return pa.table([column.cast(pa.string()) for column in columns], schema=REQUESTS)


def whole_runs(task: str, mode: str, split: str, rows: pa.Table) -> Iterator[Problems]:
    """Yield the problems of whole runs, as many at once as ``TOGETHER`` allows.

    Args:
        task: the task of all.
        mode: executor (initial to halting entry through every nested call) or process (raw question to raw answer).
        split: train, test or stress.
        rows: the columns a and b, decimal strings, and those of ``PROBLEMS`` that are known.
    """
    found = machine(task)
    a = found.column(rows.column("a").to_pylist())
    whole = Operands(a, None if found.unary else found.column(rows.column("b").to_pylist()))
    table = _described(rows, task, mode, split, "consistent")
    entries = found.batch(whole, "consistent").num_steps * (2 * a.width + 8 if found.composer else 1)
    ends = np.flatnonzero(np.diff(np.cumsum(entries) // TOGETHER, append=-1)) + 1
    for start, end in pairwise([0, *ends.tolist()]):
        yield _block(task, mode, table.slice(start, end - start), whole.rows(slice(start, end)))


def _pooled(pool: list[pa.Table], *columns: Any) -> I64:
    """Put requests into a pool; return their rows in it."""
    start = sum(map(len, pool))
    pool.append(_requests(*columns))
    return np.arange(start, start + len(pool[-1]))


def _block(task: str, mode: str, table: pa.Table, operands: Operands) -> Problems:
    pool: list[pa.Table] = []
    steps, starts = _runs(pool, task, operands)
    if mode == "process":
        found, num = machine(task), len(operands)
        batch, none = found.batch(operands, "consistent"), pa.nulls(num)
        question = pc.binary_join_element_wise(table.column("a"), found.sign, table.column("b"), "=", "")
        answer = render([RowGroup(batch.all, Template("{answer}"), {"answer": batch.answer()})], num)
        solved = pc.binary_join_element_wise(question, answer, "")
        first = _pooled(pool, aligner(task), task, "aligner_in", none, question, batch.initial())
        last = _pooled(pool, aligner(task), task, "aligner_out", none, batch.halted(), solved)
        steps = np.insert(steps, np.repeat(starts, 2)[1:-1], np.stack([first, last], axis=1).ravel())
        starts = starts + 2 * np.arange(num + 1)
    requests = pa.concat_tables(pool)
    rows, places = np.unique(steps, return_index=True)
    order = rows[np.argsort(places)]
    renumbered = np.empty(len(requests), np.int64)
    renumbered[order] = np.arange(len(order))
    if (np.diff(order) != 1).any():  # else they are in this order as they were rendered
        requests = requests.combine_chunks().take(int_array(order))
    return Problems(table, starts, renumbered[steps], requests)


def _runs(pool: list[pa.Table], task: str, operands: Operands) -> tuple[I64, I64]:
    """Render whole runs; return the rows of their requests in the pool, in order, and where each run begins."""
    batch = machine(task).batch(operands, "consistent")
    rows = batch.every()
    prompts, completions = batch.prompts(rows), batch.completions(rows)
    states = string_array(list(prompts.states)).take(int_array(prompts.state))
    own = _pooled(pool, executor(task), task, "executor", states, prompts.text, completions.text)
    lengths, nested = np.ones(len(own), np.int64), []
    for place, called in enumerate(completions.calls):
        here = np.flatnonzero(completions.call == place)
        if called is None or not len(here):
            continue
        asked = [operands_of(text.split("\n")[2]) for text in completions.text.take(int_array(here)).to_pylist()]
        pairs = {pair: number for number, pair in enumerate(dict.fromkeys(asked))}
        a, b = (Number.of(list(numbers)) for numbers in zip(*pairs, strict=True))
        steps, starts = _runs(pool, called, Operands(a, None if machine(called).unary else b))
        which = np.array([pairs[pair] for pair in asked])
        lengths[here] += np.diff(starts)[which]
        nested.append((here, steps, starts[which]))
    offsets = np.append(0, np.cumsum(lengths))
    flat = np.empty(offsets[-1], np.int64)
    flat[offsets[:-1]] = own
    for here, steps, begins in nested:
        counts = lengths[here] - 1
        inside = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        flat[np.repeat(offsets[here] + 1, counts) + inside] = steps[np.repeat(begins, counts) + inside]
    return flat, offsets[np.append(0, np.cumsum(batch.num_steps))]


def raw_question(task: str, a: str, b: str | None) -> str:
    """Return the expression as people write it: ``12+9=``."""
    return f"{a}{machine(task).sign}{b}="


def operands_of(initial: str) -> tuple[int, int]:
    """Return the operands that a machine's initial state line holds; 0 for a second one that is not there."""
    a, b = (*(int(tape[::-1].replace("|", "")) for tape in _TAPE.findall(initial)), 0)[:2]
    return a, b
