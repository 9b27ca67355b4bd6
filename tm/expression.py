"""What people type, parsed strictly: operands such as ``45321`` and expressions such as ``47819-12345=``.

A raw expression is operand, sign, operand, ``=``; operands are ASCII digits without leading zeros (0 is
``0``). The signs stand in the machines' own files; a machine without a sign (a helper) has no raw form.
"""

from collections.abc import Sequence
from typing import NoReturn

from ..errors import UserError, clip, nearest
from .machine import MAX_DIGITS, machine, tasks

_DIGITS = frozenset("0123456789")  # str.isdigit() also accepts other scripts and superscripts
_OPERAND_RULE = f"digits 0-9 without leading zeros (zero is 0), at most {MAX_DIGITS:,} of them"
_EXAMPLE = 'caef-data show "47819-12345="'


def signs() -> dict[str, str]:
    """Return the sign of every operator and its task, as ``{"+": "add", ...}``."""
    return {sign: task for task in tasks() if (sign := machine(task).sign) is not None}


def parse_expression(text: str) -> tuple[str, str, str]:
    """Return (task, a, b) of an expression as people type it; the ``=`` of ``47819-12345=`` may be left out.

    Raises:
        UserError: anything else; says at which column (from 1) the text goes wrong.
    """
    return _parse(text, closed=False)


def parse_raw(text: str) -> tuple[str, str, str]:
    """Return (task, a, b) of the raw form of a problem, which ends in ``=``: ``47819-12345=``.

    Raises:
        UserError: anything else; says at which column (from 1) the text goes wrong.
    """
    return _parse(text, closed=True)


def parse_operand(text: str, name: str) -> str:
    """Return ``text`` if it is an operand; ``name`` (``a`` or ``b``) is for messages.

    Raises:
        UserError: other characters than ASCII digits, a leading zero, nothing at all, too many digits.
    """
    if not text:
        _fail(f"operand {name} is empty", text, None, _OPERAND_RULE)
    stop = _end_of_digits(text, 0)
    if stop < len(text):
        _fail(f"operand {name} holds {_describe(text[stop])}", text, stop, _OPERAND_RULE)
    _check_digits(text, 0, stop, f"operand {name}")
    return text


def parse_problem(words: Sequence[str], task: str | None = None) -> tuple[str, str, str | None]:
    """Return (task, a, b) of what stands on a command line: one expression, or a task and its operands.

    Args:
        words: ``["47819-12345="]`` without a task; ``["45321"]`` or ``["99", "7"]`` with one.
        task: a task's name; b is None where it has one operand.

    Raises:
        UserError: the wrong number of words, an unknown task, or one of the errors of the parsers above.
    """
    if task is None:
        if len(words) != 1:
            raise UserError(
                f"one expression is needed, {len(words)} words were given",
                allowed="an expression in quotes, or --task and its operands",
                next_step=f"{_EXAMPLE}, or caef-data show --task left_mask 45321",
            )
        return parse_expression(words[0])
    kind = machine(task)
    names = "a" if kind.unary else "ab"
    if len(words) != len(names):
        raise UserError(
            f"{task} takes {len(names)} operand{'s' * (len(names) > 1)}, {len(words)} were given",
            allowed=_OPERAND_RULE,
            next_step=f"caef-data show --task {task} {' '.join(kind.example[: len(names)])}",
        )
    found = [parse_operand(word, name) for word, name in zip(words, names, strict=True)]
    return task, found[0], found[1] if len(found) > 1 else None


def _parse(text: str, closed: bool) -> tuple[str, str, str]:
    table = signs()
    allowed = f"a, sign, b, '=' with sign one of {' '.join(table)}; a and b: {_OPERAND_RULE}"
    known = _DIGITS.union("=", *table)
    for column, character in enumerate(text):
        if character not in known:
            _fail(f"the expression holds {_describe(character)}", text, column, allowed)
    end_a = _end_of_digits(text, 0)
    _check_digits(text, 0, end_a, "operand a")
    start_b = end_a
    while start_b < len(text) and text[start_b] not in _DIGITS:
        start_b += 1
    sign = text[end_a:start_b]
    if sign not in table:
        what = f"unknown sign {clip(sign)}{nearest(sign[:8], table)}"
        if sign in ("", "="):
            what = "the sign is missing"
        _fail(what, text, end_a, allowed)
    end_b = _end_of_digits(text, start_b)
    _check_digits(text, start_b, end_b, "operand b")
    tail = text[end_b:]
    if tail != "=" and (closed or tail):
        what = "the expression should end with '=' after operand b" if tail else "'=' is missing at the end"
        _fail(what, text, end_b + (tail[:1] == "="), allowed)
    return table[sign], text[:end_a], text[start_b:end_b]


def _end_of_digits(text: str, start: int) -> int:
    stop = start
    while stop < len(text) and text[stop] in _DIGITS:
        stop += 1
    return stop


def _check_digits(text: str, start: int, stop: int, name: str) -> None:
    """Refuse an empty, overlong or zero-led run of digits."""
    if start == stop:
        _fail(f"{name} is missing", text, start, _OPERAND_RULE)
    if stop - start > MAX_DIGITS:
        _fail(f"{name} has {stop - start:,} digits", text, start, _OPERAND_RULE)
    if text[start] == "0" and stop - start > 1:
        _fail(f"{name} has a leading zero", text, start, _OPERAND_RULE)


def _describe(character: str) -> str:
    if character.isspace():
        return f"the blank {ascii(character)}"
    if character.isdecimal() and character not in _DIGITS:
        return f"{ascii(character)}, a digit of another script"
    return f"the character {ascii(character)}"


def _fail(what: str, text: str, column: int | None, allowed: str) -> NoReturn:
    where = clip(text) if column is None else f"column {column + 1} of {clip(text)}"
    raise UserError(what, where=where, allowed=allowed, next_step=_EXAMPLE)
