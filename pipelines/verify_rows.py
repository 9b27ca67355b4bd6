"""Rows of every view against what their operands and steps must give, independently of what made them.

``tm.check`` computes prompt, completion and all other columns of a row, with Python integers; whatever differs is a
finding. Nothing else of the package is imported here: what is checked has no part in it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import UserError, quoted
from ..tm.check.entries import MAX_DIGITS, PROBLEMS, Problem, number, problem
from ..tm.check.slips import after_slip

INT64_MAX = 2**63 - 1
_CACHE = 20_000  # problems kept at a time: about 30 MB at 100 digits

Columns = Mapping[str, Sequence[Any]]
Values = tuple[Any, ...]
Known = dict[tuple[str, str | None], Problem | str]
ToProblem = Callable[[str, str, str | None], Problem | str]
Expect = Callable[[Problem, str, Any, Values], Values | str]


def known_tasks() -> tuple[str, ...]:
    """Return the tasks that are known in closed form."""
    return tuple(PROBLEMS)


def check_rows(
    task: str, view: str, dialect: str, columns: Columns, known: Known, problem: ToProblem = problem
) -> tuple[list[tuple[int, str]], int]:
    """Check what the rows of a batch hold of their operands.

    Args:
        task: one of ``known_tasks()``, unless ``problem`` knows another.
        view: one of the seven.
        dialect: ``consistent`` or ``published``.
        columns: the view's columns as Python lists of equal length.
        known: kept by the caller between batches of one task, so that what depends on the operands alone
            (their tapes, the answer) is made once.
        problem: makes the problem of a task and its operands, or says what is wrong with these.

    Returns:
        The index within the batch and a message for every row that is wrong, and how many transitions were checked.
    """
    expect, key, names = _VIEWS[view]
    findings, transitions, whole = [], 0, view in _RUNS
    keys = columns[key or "prompt"]
    rows = zip(columns["a"], columns["b"], keys, zip(*(columns[name] for name in names), strict=True), strict=True)
    for index, (a, b, step, found) in enumerate(rows):
        work = known.get((a, b))
        if work is None:
            if len(known) >= _CACHE:
                known.clear()
            work = known[a, b] = problem(task, a, b)
        if isinstance(work, str):
            findings.append((index, work))
            continue
        try:
            expected = expect(work, dialect, step, found)
        except UserError as error:  # of a machine that nothing else knows
            expected = error.what
        if expected != found:
            told = expected if isinstance(expected, str) else _difference(names, step, expected, found)
            findings.append((index, told))
        elif whole:
            transitions += work.n_steps
    return findings, len(keys) if view in ("one_step", "slips") else transitions


def _difference(names: Sequence[str], step: object, expected: Values, found: Values) -> str:
    """Say where a row first differs from what is expected."""
    name, right, there = next(each for each in zip(names, expected, found, strict=True) if each[1] != each[2])
    if isinstance(right, list):
        entry = next(at for at, (one, other) in enumerate(zip(right, there, strict=True)) if one != other)
        right, there = right[entry], there[entry]
        name = f"{name}, entry {entry}"
    elif type(step) is int and name in _TEXTS:
        name = f"{name} of step {step}"
    if not isinstance(right, str) or not isinstance(there, str) or name in ("state", "next_state", "call"):
        return f"{name}: expected {_shown(right)}, found {_shown(there)}"
    at = next((i for i, (x, y) in enumerate(zip(right, there, strict=False)) if x != y), min(len(right), len(there)))
    line, column = right.count("\n", 0, at) + 1, at - right.rfind("\n", 0, at)
    want, have = (quoted(text[at : at + 200], 30) if text[at:] else "the end of the text" for text in (right, there))
    return f"{name}: line {line}, column {column}: expected {want}, found {have}"


def _shown(value: object) -> str:
    if type(value) is int and abs(value) >= 10**30:
        return f"a number of {value.bit_length():,} bits"
    return quoted(value) if not isinstance(value, int) else str(value)


# ----------------------------------------------------------------------------------------------------------
# What each view must hold: the values of its columns, or what is wrong with the row


def _step(work: Problem, step: object, found: Values) -> int | str:
    """Return the step of a row, or what is wrong with it."""
    if step is None:
        step = _far_step(work, found[1])
        if step <= INT64_MAX:
            return "step is null, and the prompt does not say one that int64 cannot hold"
    if type(step) is not int:
        return f"step: expected an integer, found {_shown(step)}"
    if not 0 <= step < work.n_steps:
        return f"step {_shown(step)} is not one of this run's {_shown(work.n_steps)} transitions"
    return step


def _shown_total(work: Problem) -> int | None:
    return work.n_steps if work.n_steps <= INT64_MAX else None


def _one_step(work: Problem, dialect: str, step: object, found: Values) -> Values | str:
    at = _step(work, step, found)
    return at if isinstance(at, str) else (_shown_total(work), *work.columns(at, dialect))


def _slips(work: Problem, dialect: str, step: object, found: Values) -> Values | str:
    at = _step(work, step, found)
    if isinstance(at, str):
        return at
    texts = after_slip(str(found[-1]), work.prompt(at, dialect), str(found[1]))
    if isinstance(texts, str):
        return texts
    state = len(work.name) + 2
    now, then = (text[state : state + 2] for text in texts)
    return _shown_total(work), *texts, now, then, work.calls.get(then), found[-1]


# mul's q1 with count k is step 3k - 2, div's q1 with output k is step 3k + 1, and so on
_AFTER = {"mul": {"q1": -2, "q2": -1, "q3": 0}, "div": {"q1": 1, "q2": 2, "q3": 0}}


def _far_step(work: Problem, prompt: object) -> int:
    """Return the step that a prompt must be of, from where the count must stand; -1 where there is no count."""
    if not isinstance(prompt, str) or prompt[5:7] not in _AFTER.get(work.task, ()):
        return -1
    start = len("MUL, q1, [HEAD1] [HEAD2] [COUNT]") + len(work.left) + len(work.right)
    middle = prompt.find(" [OUTPUT]", start)
    counted = (
        prompt[start:middle] if work.task == "mul" else prompt[middle + len(" [OUTPUT]") : prompt.find("\n", middle)]
    )
    digits = counted[::-2]
    if middle < 0 or len(digits) > 3 * MAX_DIGITS or not (digits.isascii() and digits.isdigit()):
        return -1
    return 3 * number(digits) + _AFTER[work.task][prompt[5:7]]


def _run(work: Problem, dialect: str) -> list[str]:
    return [work.completion(step, dialect) for step in range(work.n_steps)]


def _full(work: Problem, dialect: str, _: object, found: Values) -> Values | str:
    trace, total = found[2], work.n_steps
    if type(trace) is not list or len(trace) != total:  # also keeps a lie from asking for an endless run
        return f"trace: expected {_shown(total)} entries, found {len(trace) if type(trace) is list else quoted(trace)}"
    return total, work.initial, _run(work, dialect), work.halting


def _joined(work: Problem, dialect: str, found: Values, *, whole: bool) -> Values | str:
    lines = found[1].count("\n") if isinstance(found[1], str) else 0
    if work.n_steps > lines:  # each transition has a line at least; a lie must not ask for an endless run
        return f"completion: expected the entries of {_shown(work.n_steps)} transitions, found {lines} lines"
    *texts, last = (text.removesuffix("\n") + "\n" for text in _run(work, dialect))
    texts = texts if whole else [text.split("\n", 2)[1] + "\n" for text in texts]
    return work.initial, "".join([*texts, last])


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


_TEXTS = ("prompt", "completion")
_RUNS = ("full", "scratchpad", "commands")
# view -> what it must hold, the column that chooses among the rows of an expression, the columns that are computed
_VIEWS: dict[str, tuple[Expect, str, tuple[str, ...]]] = {
    "one_step": (_one_step, "step", ("n_steps", "prompt", "completion", "state", "next_state", "call")),
    "slips": (_slips, "step", ("n_steps", "prompt", "completion", "state", "next_state", "call", "slip")),
    "full": (_full, "", ("n_steps", "prompt", "trace", "completion")),
    "aligner": (_aligner, "direction", _TEXTS),
    "raw": (_raw, "", _TEXTS),
    "scratchpad": (lambda work, dialect, _, found: _joined(work, dialect, found, whole=True), "", _TEXTS),
    "commands": (lambda work, dialect, _, found: _joined(work, dialect, found, whole=False), "", _TEXTS),
}
