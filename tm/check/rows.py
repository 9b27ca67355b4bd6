"""Check rows of every view against the format, independently of the machines that made them.

``check_rows`` is the bulk entry point of ``caef-data verify``: it re-executes each row's prompt
(``successor``), holds the prompt to the entry that its operands and step must give (``closed``), checks every
column, and calls the careful parser and executor only to say what is wrong with a row that differs.

Measured on one core, rows of 1..100 digits: 3-10 microseconds a one_step row, 2-4 a transition of a full row.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...errors import clip
from .closed import SIGNS, Problem
from .closed_composers import problem
from .execute import check_at, difference, shown
from .grammar import COMPOSERS, HALT, MACHINES, ParseError, parse
from .successor import successor_of

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
NEEDED: dict[str, tuple[str, ...]] = {  # what the fast verdicts look at, besides the columns that every view has
    "one_step": ("a", "b", "prompt", "completion", "step", "n_steps", "state", "next_state", "call"),
    "full": ("a", "b", "prompt", "completion", "n_steps", "trace"),
    "aligner": ("a", "b", "prompt", "completion", "direction"),
    **dict.fromkeys(("raw", "scratchpad", "commands"), ("a", "b", "prompt", "completion")),
}
# composer and the state it has entered -> the task of the machine that it calls there
_CALLS: dict[tuple[str, str], str] = {
    ("sub", "q1"): "reflection",
    ("sub", "q2"): "add",
    ("sub", "q3"): "add",
    ("sub", "q4"): "left_mask",
    ("mul", "q1"): "less_than",
    ("mul", "q2"): "add",
    ("mul", "q3"): "add",
    ("div", "q1"): "greater_than",
    ("div", "q2"): "add",
    ("div", "q3"): "add",
}
Row = Mapping[str, Any]
Known = dict[tuple[str, str | None], Problem | str]


def known_tasks() -> tuple[str, ...]:
    """Return the tasks that have a hand-written grammar."""
    return tuple(MACHINES)


def check_row(task: str, view: str, dialect: str, row: Row) -> str | None:
    """Check one row, a mapping with the view's columns; return None or what is wrong with it."""
    missing = [name for name in COLUMNS[view] if name not in row]
    if missing:
        return f"column {missing[0]!r} is missing"
    found = check_rows(task, view, dialect, {name: [row[name]] for name in COLUMNS[view]})
    return found[0][1] if found else None


def check_rows(
    task: str,
    view: str,
    dialect: str,
    columns: Mapping[str, Sequence[Any]],
    known: Known | None = None,
    *,
    common: bool = True,
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
    right = _RIGHT[view](task, dialect)
    problems = {} if known is None else known
    findings = []

    def row(index: int) -> Row:
        return {name: columns[name][index] for name in COLUMNS[view]}

    for index, values in enumerate(zip(*(columns[name] for name in NEEDED[view]), strict=True)):
        key = values[0], values[1]
        work = problems.get(key)
        if work is None:
            if len(problems) >= _CACHE:
                problems.clear()
            work = problems[key] = problem(task, *key)
        if isinstance(work, str):
            findings.append((index, work))
        elif (common and _common(task, row(index)) is not None) or not right(work, values):
            findings.append((index, _explain(task, view, dialect, work, row(index))))
    return findings


def count_transitions(view: str, columns: Mapping[str, Sequence[Any]]) -> int:
    """Return how many transitions a batch's rows hold: what verify re-executes."""
    if view == "one_step":
        return len(columns["prompt"])
    if view == "full":
        return sum(len(trace or ()) for trace in columns["trace"])
    if view in ("scratchpad", "commands"):
        return sum(
            _entries(view, prompt, text) for prompt, text in zip(columns["prompt"], columns["completion"], strict=True)
        )
    return 0


# ----------------------------------------------------------------------------------------------------------
# The fast verdicts. ``values`` are a row's columns in the order of NEEDED

Right = Callable[[Problem, tuple[Any, ...]], bool]


def _right_one_step(task: str, dialect: str) -> Right:
    successor, at = successor_of(task), len(MACHINES[task]) + 2
    calls = {state: call for (name, state), call in _CALLS.items() if name == task}

    def right(work: Problem, values: tuple[Any, ...]) -> bool:
        _, _, prompt, completion, step, n_steps, state, next_state, call = values
        total = work.n_steps
        if step is None:
            step = _locate(work, prompt)
            if step <= INT64_MAX:
                return False
        if type(step) is not int or not 0 <= step < total:
            return False
        if prompt != work.prompt(step, dialect) or completion != successor(prompt):
            return False
        after = completion[at : at + 2]
        return bool(
            n_steps == (total if total <= INT64_MAX else None)
            and state == prompt[at : at + 2]
            and next_state == after
            and call == calls.get(after)
        )

    return right


def _right_aligner(task: str, _: str) -> Right:
    def right(work: Problem, values: tuple[Any, ...]) -> bool:
        _, _, prompt, completion, direction = values
        if direction == "in":
            return bool(prompt == work.question and completion == work.initial)
        return bool(direction == "out" and prompt == work.halting and completion == work.question + work.answer)

    return right if task in SIGNS else _never


def _right_raw(task: str, _: str) -> Right:
    def right(work: Problem, values: tuple[Any, ...]) -> bool:
        _, _, prompt, completion = values
        return bool(prompt == work.question and completion == work.answer)

    return right if task in SIGNS else _never


def _never(work: Problem, values: tuple[Any, ...]) -> bool:
    return False


def _right_run(view: str) -> Callable[[str, str], Right]:
    def made(task: str, _: str) -> Right:
        wrong = _BODIES[view]

        def right(work: Problem, values: tuple[Any, ...]) -> bool:
            return wrong(work, dict(zip(NEEDED[view], values, strict=True))) is None

        return right

    return made


_RIGHT: dict[str, Callable[[str, str], Right]] = {
    "one_step": _right_one_step,
    "full": _right_run("full"),
    "aligner": _right_aligner,
    "raw": _right_raw,
    "scratchpad": _right_run("scratchpad"),
    "commands": _right_run("commands"),
}


def _locate(work: Problem, prompt: object) -> int:
    """Return the step of a mul or div prompt, from where its count must stand; -1 where it cannot be told."""
    if not isinstance(prompt, str) or work.task not in ("mul", "div"):
        return -1
    start = len("MUL, q1, [HEAD1] [HEAD2] [COUNT]") + len(work.left) + len(work.right)
    middle = prompt.find(" [OUTPUT]", start)
    end = prompt.find("\n", middle)
    counted = prompt[start:middle] if work.task == "mul" else prompt[middle + len(" [OUTPUT]") : end]
    try:
        return Problem.step_of(work.task, prompt[5:7], counted) if 0 <= middle < end else -1
    except ValueError:
        return -1


# ----------------------------------------------------------------------------------------------------------
# What is wrong with a row


def _explain(task: str, view: str, dialect: str, work: Problem, row: Row) -> str:
    wrong = _common(task, row)
    if wrong is None:
        wrong = _one_step(work, dialect, row) if view == "one_step" else _BODIES[view](work, row)
    return wrong or "the row differs from what its operands give"


def _value(name: str, expected: object, found: object) -> str | None:
    if type(expected) is type(found) and expected == found:
        return None
    return f"{name}: expected {shown(expected)}, found {shown(found)}"


def _text(name: str, expected: str, found: object) -> str | None:
    if expected == found:
        return None
    return f"{name}: {difference(expected, found)}" if isinstance(found, str) else _value(name, expected, found)


def _common(task: str, row: Row) -> str | None:
    """Check the columns that every view has; the operands are already known to be good."""
    b = row["b"]
    wrong = (
        _value("task", task, row["task"])
        or _value("len_a", len(row["a"]), row["len_a"])
        or _value("len_b", len(b or ""), row["len_b"])
    )
    for name in ("variant", "instruction", "prompt", "completion"):
        if wrong is None and not isinstance(row[name], str):
            wrong = f"{name}: expected a text, found {clip(row[name])}"
    return wrong


def _one_step(work: Problem, dialect: str, row: Row) -> str | None:
    total, step = work.n_steps, _step(work, row)
    wrong = _value("n_steps", total if total <= INT64_MAX else None, row["n_steps"])
    if wrong is not None or isinstance(step, str):
        return wrong or str(step)
    try:
        entry = parse(row["prompt"])
    except ParseError as error:
        return f"prompt: {error}"
    wrong = check_at(work, entry, row["prompt"], row["completion"], dialect, step)
    if wrong is not None:
        return wrong
    after = parse(row["completion"]).state
    return (
        _value("state", entry.state, row["state"])
        or _value("next_state", after, row["next_state"])
        or _value("call", _CALLS.get((work.task, after)), row["call"])
    )


def _step(work: Problem, row: Row) -> int | str:
    """Return the row's step, from its prompt where the column is null, or what is wrong with it."""
    step = row["step"]
    if step is None:
        step = _locate(work, row["prompt"])
        if step > INT64_MAX:
            return step
        if step >= 0:
            return f"step is null although {step}, as the prompt says, fits int64"
        return "step is null and the prompt does not say which it is"
    return step if type(step) is int else f"step: expected an integer, found {shown(step)}"


def _run(work: Problem) -> list[str]:
    """Return the completions of a whole run, each from the text before it."""
    successor, texts, text = successor_of(work.task), [], work.initial
    composed = MACHINES[work.task] in COMPOSERS
    for step in range(work.n_steps):
        text = successor(work.prompt(step, "consistent") if composed else text)
        texts.append(text)
    if texts[-1] != work.halting:
        texts[-1] = work.halting  # the two accounts disagree: no row can be right
    return texts


def _full(work: Problem, row: Row) -> str | None:
    trace, total = row["trace"], work.n_steps
    wrong = _value("n_steps", total, row["n_steps"]) or _text("prompt", work.initial, row["prompt"])
    if wrong is not None:
        return wrong
    if trace is None or len(trace) != total:
        return f"trace: expected {total} entries, found {clip(trace) if trace is None else len(trace)}"
    right = _run(work)
    if trace != right:
        for index, (expected, found) in enumerate(zip(right, trace, strict=True)):
            if expected != found:
                return _text(f"trace, entry {index}", expected, found)
    return _text("completion", work.halting, row["completion"])


def _entries(view: str, prompt: object, text: object) -> int:
    """Return how many transitions a scratchpad or a list of commands claims to hold, by its lines."""
    if not isinstance(text, str) or not isinstance(prompt, str):
        return 0
    lines = text.count("\n")
    if view == "commands":
        return lines - 1
    return (lines + 2) // 4 if prompt.startswith(("SUB,", "MUL,", "DIV,")) else lines // 2


def _scratchpad(work: Problem, row: Row) -> str | None:
    return _whole("scratchpad", work, row, lambda text: text if text.endswith("\n") else text + "\n")


def _commands(work: Problem, row: Row) -> str | None:
    return _whole("commands", work, row, _only_command)


def _only_command(text: str) -> str:
    if text.rstrip("\n").endswith(HALT):  # completions never quote a halting entry
        return text if text.endswith("\n") else text + "\n"
    return text.split("\n", 2)[1] + "\n"


def _whole(view: str, work: Problem, row: Row, shorten: Callable[[str], str]) -> str | None:
    wrong = _text("prompt", work.initial, row["prompt"])
    if wrong is not None:
        return wrong
    count = _entries(view, row["prompt"], row["completion"])
    if count != work.n_steps:  # also keeps a lie from asking for an endless run
        return f"completion: expected the entries of {shown(work.n_steps)} transitions, found {count}"
    return _text("completion", "".join(map(shorten, _run(work))), row["completion"])


def _aligner(work: Problem, row: Row) -> str | None:
    if work.task not in SIGNS:
        return f"{work.task} has no raw form, so no aligner rows"
    if row["direction"] == "in":
        prompt, completion = work.question, work.initial
    elif row["direction"] == "out":
        prompt, completion = work.halting, work.question + work.answer
    else:
        return f"direction: expected 'in' or 'out', found {clip(row['direction'])}"
    return _text("prompt", prompt, row["prompt"]) or _text("completion", completion, row["completion"])


def _raw(work: Problem, row: Row) -> str | None:
    if work.task not in SIGNS:
        return f"{work.task} has no raw form"
    return _text("prompt", work.question, row["prompt"]) or _text("completion", work.answer, row["completion"])


_BODIES: dict[str, Callable[[Problem, Row], str | None]] = {
    "full": _full,
    "aligner": _aligner,
    "raw": _raw,
    "scratchpad": _scratchpad,
    "commands": _commands,
}
