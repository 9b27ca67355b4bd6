"""Rows of a user's own machine, compared with what it says itself: producer and checker have the same author.

A machine with a ``decide`` is walked by the plain interpreter, command by command; the engine that made the rows has no
part in it.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from .. import tm
from ..errors import UserError, quoted
from .verify_rows import COLUMNS, Known


def check_by_machine(
    task: str, view: str, dialect: str, columns: Mapping[str, Sequence[Any]], known: Known, *, common: bool = True
) -> list[tuple[int, str]]:
    """Compare rows with the public functions of ``caef_data.tm``; the same signature as ``check_rows``."""
    names, findings = COLUMNS[view], []
    for index, values in enumerate(zip(*(columns[name] for name in names), strict=True)):
        row = dict(zip(names, values, strict=True))
        try:
            wrong = _by_machine(task, view, dialect, row)
        except (UserError, ValueError, IndexError) as error:
            wrong = f"{task} {quoted(row['a'])} {quoted(row['b'])}: {str(error).splitlines()[0]}"
        if wrong is not None:
            findings.append((index, wrong))
    return findings


def _by_machine(task: str, view: str, dialect: str, row: Mapping[str, Any]) -> str | None:
    a, b, found = row["a"], row["b"], tm.machine(task)
    expected: dict[str, object] = {"task": task, "len_a": len(a), "len_b": len(b or "")}
    if view == "one_step":
        run = _walked(found, a, b, dialect) if found.walks else None
        if run is None:
            step = tm.transition(task, a, b, row["step"], dialect=dialect)
        elif isinstance(row["step"], int) and 0 <= row["step"] < len(run):
            step = run[row["step"]]
            expected["n_steps"] = len(run)
        else:
            return f"step: expected one of 0 .. {len(run) - 1}, found {quoted(row['step'])}"
        expected |= {name: getattr(step, name) for name in ("prompt", "completion", "state", "next_state", "call")}
    elif view in ("aligner", "raw"):
        text, whole = tm.align_out(task, a, b)
        text = _walked(found, a, b, dialect)[-1].completion if found.walks else text
        question, _, answer = whole.rpartition("=")
        texts = (text, whole)
        if view == "raw" or row["direction"] != "out":
            texts = (question + "=", answer if view == "raw" else tm.align_in(question + "="))
        expected |= dict(zip(("prompt", "completion"), texts, strict=True))
    else:
        expected |= _runs(view, _walked(found, a, b, dialect))
    for name, value in expected.items():
        if row[name] != value:
            return f"{name}: expected {quoted(value)}, found {quoted(row[name])}"
    return None


@lru_cache(maxsize=256)
def _walked(found: tm.Machine, a: str, b: str | None, dialect: str) -> list[tm.Transition]:
    """Return the transitions of an expression."""
    return list(tm.transitions(found.name, a, b, dialect=dialect))


def _runs(view: str, steps: list[tm.Transition]) -> dict[str, object]:
    """Return the columns of a whole run's row."""
    texts = [step.completion for step in steps]
    ended = [text if text.endswith("\n") else text + "\n" for text in texts]
    columns: dict[str, object] = {"prompt": steps[0].prompt, "completion": texts[-1]}
    if view == "full":
        columns |= {"n_steps": len(texts), "trace": texts}
    elif view == "scratchpad":
        columns["completion"] = "".join(ended)
    else:
        columns["completion"] = "".join(text.split("\n")[1] + "\n" for text in texts[:-1]) + ended[-1]
    return columns
