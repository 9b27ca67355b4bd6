"""Rows of every view against what their operands and steps must give, independently of what made them.

``tm.check`` computes prompt, completion and all other columns of a row, with Python integers; whatever differs is a
finding. Nothing else of the package is imported here: what is checked has no part in it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ..errors import quoted
from ..tm.check.closed import Problem
from ..tm.check.closed_composers import MAX_DIGITS, PROBLEMS, problem
from ..tm.check.text import difference, number, shown

INT64_MAX = 2**63 - 1
_CACHE = 20_000  # problems kept at a time: about 30 MB at 100 digits

_COMMON = ("task", "a", "b", "len_a", "len_b", "variant", "prompt", "completion", "instruction")
COLUMNS: dict[str, tuple[str, ...]] = {
    "one_step": (*_COMMON, "step", "n_steps", "state", "next_state", "call"),
    "full": (*_COMMON, "n_steps", "trace"),
    "aligner": (*_COMMON, "direction"),
    "raw": _COMMON,
    "scratchpad": _COMMON,
    "commands": _COMMON,
}
Row = Mapping[str, Any]
Columns = Mapping[str, Sequence[Any]]
Values = tuple[Any, ...]
Known = dict[tuple[str, str | None], Problem | str]


def known_tasks() -> tuple[str, ...]:
    """Return the tasks that are known in closed form."""
    return tuple(PROBLEMS)


def check_rows(
    task: str, view: str, dialect: str, columns: Columns, known: Known | None = None, *, common: bool = True
) -> list[tuple[int, str]]:
    """Check a batch of rows.

    Args:
        task: one of ``known_tasks()``.
        view: one of ``COLUMNS``.
        dialect: ``consistent`` or ``published``.
        columns: the view's columns as Python lists of equal length.
        known: kept by the caller between batches of one task, so that what depends on the operands alone
            (their tapes, the answer) is made once.
        common: check task, lengths and the types of texts too; False where the caller has, column by column.

    Returns:
        The index within the batch and a message for every row that is wrong.
    """
    expect, key, names = _VIEWS[view]
    problems = {} if known is None else known
    findings = []
    keys = columns[key] if key else columns["prompt"]
    rows = zip(columns["a"], columns["b"], keys, zip(*(columns[name] for name in names), strict=True), strict=True)
    for index, (a, b, step, found) in enumerate(rows):
        work = problems.get((a, b))
        if work is None:
            if len(problems) >= _CACHE:
                problems.clear()
            work = problems[a, b] = problem(task, a, b)
        expected = work if isinstance(work, str) else expect(work, dialect, step, found)
        if common and not isinstance(work, str):
            wrong = _common(task, {name: columns[name][index] for name in COLUMNS[view]})
            expected = wrong or expected
        if expected != found:
            told = expected if isinstance(expected, str) else _told(view, step, names, expected, found)
            findings.append((index, told))
    return findings


def count_transitions(view: str, columns: Columns) -> int:
    """Return how many transitions a batch's rows hold."""
    if view == "one_step":
        return len(columns["prompt"])
    if view == "full":
        return sum(len(trace or ()) for trace in columns["trace"])
    if view in ("scratchpad", "commands"):
        return sum(map(partial(_entries, view), columns["prompt"], columns["completion"]))
    return 0


def _told(view: str, step: object, names: Sequence[str], expected: Values, found: Values) -> str:
    """Say where a row first differs from what is expected."""
    name, right, there = next(each for each in zip(names, expected, found, strict=True) if each[1] != each[2])
    if isinstance(right, list) and isinstance(there, list):
        at = next(at for at, (one, other) in enumerate(zip(right, there, strict=True)) if one != other)
        name, right, there = f"{name}, entry {at}", right[at], there[at]
    elif view == "one_step" and name in ("prompt", "completion") and type(step) is int:
        name = f"{name} of step {step}"
    return _differs(name, right, there)


def _differs(name: str, expected: object, found: object) -> str:
    if isinstance(expected, str) and isinstance(found, str):
        if "\n" in expected or name.startswith(("prompt", "completion")):
            return f"{name}: {difference(expected, found)}"
    return f"{name}: expected {shown(expected)}, found {shown(found)}"


def _common(task: str, row: Row) -> str | None:
    """Check the columns that every view has; the operands are already known to be good."""
    for name, right in (("task", task), ("len_a", len(row["a"])), ("len_b", len(row["b"] or ""))):
        if type(row[name]) is not type(right) or row[name] != right:
            return _differs(name, right, row[name])
    for name in ("variant", "instruction", "prompt", "completion"):
        if not isinstance(row[name], str):
            return f"{name}: expected a text, found {quoted(row[name])}"
    return None


# ----------------------------------------------------------------------------------------------------------
# What each view must hold: the values of its columns, or what is wrong with the row


def _one_step(work: Problem, dialect: str, step: object, found: Values) -> Values | str:
    total = work.n_steps
    if step is None:
        step = _far_step(work, found[1])
        if isinstance(step, str):
            return step
    if type(step) is not int:
        return f"step: expected an integer, found {shown(step)}"
    if not 0 <= step < total:
        return f"step {shown(step)} is not one of this run's {shown(total)} transitions"
    prompt, completion = work.prompt(step, dialect), work.completion(step, dialect)
    at = len(work.name) + 2
    after = completion[at : at + 2]
    shown_total = total if total <= INT64_MAX else None
    return shown_total, prompt, completion, prompt[at : at + 2], after, work.calls.get(after)


# mul's q1 with count k is step 3k - 2, div's q1 with output k is step 3k + 1, and so on
_AFTER = {"mul": {"q1": -2, "q2": -1, "q3": 0}, "div": {"q1": 1, "q2": 2, "q3": 0}}


def _far_step(work: Problem, prompt: object) -> int | str:
    """Return the step of a row that has none as it does not fit its column: from where the count must stand."""
    step = -1
    if isinstance(prompt, str) and work.task in _AFTER:
        start = len("MUL, q1, [HEAD1] [HEAD2] [COUNT]") + len(work.left) + len(work.right)
        middle = prompt.find(" [OUTPUT]", start)
        end = prompt.find("\n", middle)
        counted = (prompt[start:middle] if work.task == "mul" else prompt[middle + len(" [OUTPUT]") : end])[::-2]
        after = _AFTER[work.task].get(prompt[5:7])
        if 0 <= middle < end and after is not None and len(counted) <= 3 * MAX_DIGITS:
            step = 3 * number(counted) + after if counted.isascii() and counted.isdigit() else -1
    if step > INT64_MAX:
        return step
    if step >= 0:
        return f"step is null although {step}, as the prompt says, fits int64"
    return "step is null and the prompt does not say which it is"


def _run(work: Problem, dialect: str) -> list[str]:
    return [work.completion(step, dialect) for step in range(work.n_steps)]


def _full(work: Problem, dialect: str, _: object, found: Values) -> Values | str:
    trace, total = found[2], work.n_steps
    if type(trace) is not list or len(trace) != total:  # also keeps a lie from asking for an endless run
        return f"trace: expected {shown(total)} entries, found {len(trace) if type(trace) is list else quoted(trace)}"
    return total, work.initial, _run(work, dialect), work.halting


def _aligner(work: Problem, dialect: str, direction: object, found: Values) -> Values | str:
    if work.sign is None:
        return f"{work.task} has no raw form, so no aligner rows"
    if direction == "in":
        return work.question, work.initial
    if direction == "out":
        return work.halting, work.question + work.answer
    return f"direction: expected 'in' or 'out', found {quoted(direction)}"


def _raw(work: Problem, dialect: str, _: object, found: Values) -> Values | str:
    return f"{work.task} has no raw form" if work.sign is None else (work.question, work.answer)


def _whole(view: str) -> "Expect":
    def expect(work: Problem, dialect: str, _: object, found: Values) -> Values | str:
        count = _entries(view, *found)
        if count != work.n_steps:  # also keeps a lie from asking for an endless run
            return f"completion: expected the entries of {shown(work.n_steps)} transitions, found {count}"
        texts = [text.removesuffix("\n") + "\n" for text in _run(work, dialect)]
        if view == "commands":
            texts[:-1] = [text.split("\n", 2)[1] + "\n" for text in texts[:-1]]
        return work.initial, "".join(texts)

    return expect


def _entries(view: str, prompt: object, text: object) -> int:
    """Return how many transitions a scratchpad or a list of commands claims to hold, by its lines."""
    if not isinstance(text, str) or not isinstance(prompt, str):
        return 0
    lines = text.count("\n")
    if view == "commands":
        return lines - 1
    return (lines + 2) // 4 if prompt.startswith(("SUB,", "MUL,", "DIV,")) else lines // 2


Expect = Callable[[Problem, str, Any, Values], Values | str]
_TEXTS = ("prompt", "completion")
# view -> what it must hold, the column that chooses among the rows of an expression, the columns that are computed
_VIEWS: dict[str, tuple[Expect, str, tuple[str, ...]]] = {
    "one_step": (_one_step, "step", ("n_steps", "prompt", "completion", "state", "next_state", "call")),
    "full": (_full, "", ("n_steps", "prompt", "trace", "completion")),
    "aligner": (_aligner, "direction", _TEXTS),
    "raw": (_raw, "", _TEXTS),
    "scratchpad": (_whole("scratchpad"), "", _TEXTS),
    "commands": (_whole("commands"), "", _TEXTS),
}
