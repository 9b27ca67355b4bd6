"""From built rows to the calls that a perfect model is asked: single steps, whole runs, raw question to answer."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import UserError, clip
from ..pipelines.folder import shown
from ..pipelines.local_folder import LocalFolder
from ..pipelines.verify_rows import Known, check_rows, known_tasks
from ..tm import align_in, align_out, machine
from ..tm.check.closed_composers import problem
from ..tm.machine import HALT
from .calls import BASE
from .limit import choose_expressions, expression_keys
from .shards import batches, refused

MODES = ("one_step", "executor", "aligner_in", "aligner_out", "process")
RAW = "raw"  # the mode of the baseline: the base model alone, raw question to raw answer
VIEWS = {"one_step": "one_step", "executor": "full", "process": "full", RAW: "raw"}
VIEWS |= {"aligner_in": "aligner", "aligner_out": "aligner"}  # the rows that a mode takes its problems from
DIRECTIONS = {"aligner_in": "in", "aligner_out": "out"}
OF_STEPS = ["step", "n_steps", "state", "next_state", "call"]  # columns of one_step
_TAPE = re.compile(r"(?:\|\d)+")


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a problem.

    Args:
        kind: executor, aligner_in, aligner_out or raw.
        adapter: which adapter is asked.
        prompt: what it is asked.
        completion: what it must answer.
        state: the machine's state in the prompt; None for aligners.
    """

    kind: str
    adapter: str
    prompt: str
    completion: str
    state: str | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """One expression in one mode; right when all its calls are."""

    task: str
    mode: str
    split: str
    dialect: str
    variant: str
    a: str
    b: str | None
    len_a: int
    len_b: int
    steps: tuple[Step, ...]
    asked_step: int | None = None  # of one_step: the transition's index in its run


def executor(task: str) -> str:
    """Return the name of a machine's adapter."""
    return f"executors/{task}"


def aligner(task: str) -> str:
    """Return the name of a task's aligner."""
    return f"aligners/{task}"


def read_problems(folder: LocalFolder, task: str, mode: str, split: str, limit: int | None) -> Iterator[Problem]:
    """Yield the problems of a task in a mode, in the order of the rows.

    Args:
        folder: a built dataset.
        task: a task.
        mode: one of ``MODES``, or ``RAW``.
        split: train, test or stress.
        limit: those of so many expressions, at most (``limit.py``); None for all.

    Raises:
        UserError: the folder does not hold these rows.
    """
    chosen = None
    paths = shards(folder, task, mode, split)
    if limit is not None:
        chosen = choose_expressions(folder, task, split, limit).keys[VIEWS[mode]]
    own = folder.manifest()["tasks"][task]["settings"]["dialect"]
    dialect = own if mode == "one_step" else "consistent"
    for row in _rows(folder, paths, task, mode, own, chosen):
        keys = (str(row["variant"]), row["a"], row["b"], row["len_a"], row["len_b"])
        yield Problem(task, mode, split, dialect, *keys, tuple(_steps(task, mode, row)), row.get("step"))


def shards(folder: LocalFolder, task: str, mode: str, split: str) -> list[str]:
    """Return the paths of the shards that hold the problems of a task in a mode.

    Raises:
        UserError: the folder does not hold these rows; says how to build them.
    """
    config = f"{task}-{VIEWS[mode]}"
    held = folder.manifest()["configs"].get(config, {}).get(split)
    if held is None:
        raise UserError(
            f"the dataset has no {split} rows of {config}, which mode {mode} takes its problems from",
            where=shown(folder.name),
            next_step=f"build it with --task {task} --view {VIEWS[mode]} --split {split} into a folder of its own",
        )
    return [shard["path"] for shard in held["shards"]]


def _rows(
    folder: LocalFolder, paths: list[str], task: str, mode: str, dialect: str, chosen: pa.Array | None
) -> Iterator[dict[str, Any]]:
    columns = ["variant", "a", "b", "len_a", "len_b"]
    if mode in ("one_step", "aligner_in", "aligner_out", RAW):
        columns += ["prompt", "completion"]
    columns += OF_STEPS if mode == "one_step" else ["direction"] if mode in DIRECTIONS else []
    known: Known = {}
    for path in paths:
        for batch in batches(folder, path, columns):
            if chosen is not None:
                keys = expression_keys(batch.column("a"), batch.column("b"))
                batch = batch.filter(pc.is_in(keys, value_set=chosen))
            found = batch.to_pydict()
            if why := _wrong(task, VIEWS[mode], dialect, found, known):
                raise refused(folder, path, why)
            rows = (dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True))
            yield from (row for row in rows if row.get("direction") == DIRECTIONS.get(mode))


def _wrong(task: str, view: str, dialect: str, columns: dict[str, list[Any]], known: Known) -> str | None:
    """Return what is wrong with a row of a batch, computed from integers as ``verify`` does; None if nothing is."""
    if task not in known_tasks():  # a machine of the user's own: nothing else tells what it answers
        return None
    for a, b, len_a, len_b in zip(*(columns[name] for name in ("a", "b", "len_a", "len_b")), strict=True):
        if view == "full" and isinstance(found := problem(task, a, b), str):
            return found
        if (len(a or ""), len(b or "")) != (len_a, len_b):
            return f"{clip(a)} and {clip(b)} have other lengths than {len_a} and {len_b}"
    findings = [] if view == "full" else check_rows(task, view, dialect, columns, known, common=False)
    return findings[0][1] if findings else None


def _steps(task: str, mode: str, row: dict[str, Any]) -> Iterator[Step]:
    if mode == "one_step":
        yield Step("executor", executor(task), row["prompt"], row["completion"], row["state"])
    elif mode == RAW:
        yield Step(RAW, BASE, row["prompt"], row["completion"])
    elif mode in ("aligner_in", "aligner_out"):
        yield Step(mode, aligner(task), row["prompt"], row["completion"])
    else:
        yield from steps_of(task, mode, row["a"], row["b"])


def steps_of(task: str, mode: str, a: str, b: str | None) -> Iterator[Step]:
    """Yield every call of an executor or process problem, as a perfect model is asked them."""
    x, y = int(a), int(b or 0)
    if mode == "process":
        raw = raw_question(task, a, b)
        yield Step("aligner_in", aligner(task), raw, align_in(raw))
    yield from reference(task, x, y)
    if mode == "process":
        yield Step("aligner_out", aligner(task), *align_out(task, x, y))


def raw_question(task: str, a: str, b: str | None) -> str:
    """Return the expression as people write it: ``12+9=``."""
    return f"{a}{machine(task).sign}{b}="


def reference(task: str, a: int, b: int) -> Iterator[Step]:
    """Yield every call of a run, those of called machines where they happen, as a perfect model is asked them."""
    for step in machine(task).transitions(a, b, "consistent"):
        yield Step("executor", executor(task), step.prompt, step.completion, step.state)
        if step.call is not None:
            yield from reference(step.call, *operands_of(step.completion.split("\n")[2]))


def operands_of(initial: str) -> tuple[int, int]:
    """Return the operands that a machine's initial state line holds; 0 for a second one that is not there."""
    found = [int(tape[::-1].replace("|", "")) for tape in _TAPE.findall(initial)]
    return found[0], found[1] if len(found) > 1 else 0


Walk = Generator[tuple[str, str], str, str | None]  # asks (adapter, prompt), is sent the answer, returns the last text


def walk(task: str, mode: str, prompt: str) -> Walk:
    """Run a problem on whatever a model answers: each step is asked about the model's own text.

    Args:
        task: the task.
        mode: executor (``prompt`` is the initial entry) or process (it is the raw question); the others ask once.
        prompt: the first prompt.

    Returns:
        The last text, or None where an answer could not be continued.
    """
    if mode == "executor":
        return (yield from _run(task, prompt))
    if mode == "process":
        entry = yield aligner(task), prompt
        halted = yield from _run(task, entry)
        return None if halted is None else (yield aligner(task), halted)
    raise ValueError(f"mode {mode} asks once")


def _run(task: str, entry: str) -> Generator[tuple[str, str], str, str | None]:
    """Run one machine from an entry to its halting entry; the caller bounds how often it is asked."""
    while True:
        answer = yield executor(task), entry
        lines = answer.split("\n")
        if len(lines) < 2:
            return None
        if lines[1] == HALT:
            return answer
        if "[CALL]" not in lines[1]:
            entry = answer
            continue
        called = lines[2].partition(",")[0].lower() if len(lines) == 4 else ""
        if not called:
            return None
        halted = yield from _run(called, f"{lines[2]}\n{lines[3]}\n")
        if halted is None:
            return None
        entry = f"{lines[0]}\n{lines[1]}\n{halted.removesuffix(chr(10))}\n"
