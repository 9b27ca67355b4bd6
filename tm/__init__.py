"""The machines: what they compute, their exact text, and their classes of expressions. No files, no network.

>>> from caef_data.tm import transitions
>>> next(transitions("add", 7, 5)).completion.splitlines()[0]
'ADD, q1,  [HEAD1]|7 [HEAD2]|5 [C]0 [OUTPUT]'
"""

import importlib
import pkgutil
from collections.abc import Iterator

from ..errors import UserError, quoted
from .machine import DIALECTS, VERSIONED, Dialect, Machine, Transition
from .registry import machine, tasks

# Every file of this folder is imported, and defining a machine registers it: there is no list to edit.
# These take a build's time, and are imported when they are used.
_WHEN_USED = ("entries", "score", "slips", "successor", "turing", "turing_engine", "words", "regular")
for _module in pkgutil.iter_modules(__path__):
    if _module.name not in _WHEN_USED:
        importlib.import_module(f".{_module.name}", __name__)

Operand = int | str


def operands(task: str, a: Operand, b: Operand | None = None) -> tuple[Machine, int, int]:
    """Return the machine of a task and its operands as integers.

    Raises:
        UserError: unknown task, an operand that is not a natural number, a missing or a superfluous operand, or a pair
            that is no expression of the task (``sub`` with a < b, ``mul`` and ``div`` with b = 0 ...).
    """
    found = machine(task)
    if (b is None) != found.unary:
        needs = "one operand" if found.unary else "two operands"
        raise UserError(f"{task} takes {needs}", next_step=f"caef-data show --task {task} {' '.join(found.example)}")
    x, y = found.operand("a", a), 0 if b is None else found.operand("b", b)
    why = found.domain_error(x, y)
    if why is not None:
        example = f"caef-data show --task {task} {' '.join(found.example)}"
        raise UserError(why, where=f"{task}: a = {quoted(x)}, b = {quoted(y)}", next_step=f"for example: {example}")
    return found, x, y


def known_dialect(dialect: str) -> Dialect:
    """Return a dialect by its name; raises UserError for another one."""
    for known in DIALECTS:
        if dialect == known:
            return known
    raise UserError(f"there is no dialect {quoted(dialect)}", allowed=", ".join(DIALECTS))


def transitions(
    task: str, a: Operand, b: Operand | None = None, *, dialect: str = "consistent"
) -> Iterator[Transition]:
    """Return the transitions of an expression in order, as objects with ``prompt`` and ``completion``.

    Raises:
        UserError: as ``operands``, or an unknown dialect.
    """
    found, x, y = operands(task, a, b)
    return found.transitions(x, y, known_dialect(dialect))


def transition(task: str, a: Operand, b: Operand | None, k: int, *, dialect: str = "consistent") -> Transition:
    """Return transition ``k`` (0-based) in closed form, also of runs that no computer could walk.

    Raises:
        UserError: as ``operands``, or ``k`` outside 0 .. number of transitions - 1.
    """
    found, x, y = operands(task, a, b)
    last = found.num_steps(x, y) - 1
    if isinstance(k, bool) or not isinstance(k, int) or not 0 <= k <= last:
        raise UserError(f"there is no transition {quoted(k)}", where=task, allowed=f"0 .. {quoted(last)}")
    return found.transition(x, y, k, known_dialect(dialect))


def align_in(raw: str) -> str:
    """Return the initial entry of a raw text such as ``1+2=``; raises UserError for any other text."""
    from .expression import parse_raw

    found, x, y = operands(*parse_raw(raw))
    return found.initial(x, y)


def align_out(task: str, a: Operand, b: Operand) -> tuple[str, str]:
    """Return the halting entry and the raw text with its result, such as ``1+2=3``.

    Raises:
        UserError: as ``operands``, or a task that has no raw text.
    """
    found, x, y = operands(task, a, b)
    if found.sign is None:
        raise UserError(f"{task} is a helper: it has no raw text and no aligner")
    return found.halted(x, y), f"{x}{found.sign}{y}={found.answer(x, y)}"


__all__ = ["DIALECTS", "VERSIONED", "Dialect", "Machine", "Transition", "align_in", "align_out", "known_dialect"]
__all__ += ["machine", "operands", "tasks", "transition", "transitions"]
