"""What people type, parsed strictly: operands such as ``45321`` and expressions such as ``47819-12345=``.

A raw expression is operand, sign, operand, ``=``; operands are ASCII digits without leading zeros (0 is
``0``). The signs stand in the machines' own files; a machine without a sign (a helper) has no raw form.
"""

import re
from collections.abc import Sequence, Set
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
    _check_characters(text, _DIGITS, f"operand {name} holds", _OPERAND_RULE)
    _check_digits(text, 0, len(text), f"operand {name}")
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
    _check_characters(text, _DIGITS.union("=", *table), "the expression holds", allowed)
    a, sign, b, tail = re.fullmatch("([0-9]*)([^0-9]*)([0-9]*)(.*)", text).groups()  # type: ignore[union-attr]
    start_b = len(a + sign)
    _check_digits(text, 0, len(a), "operand a")
    if sign not in table:
        missing = sign in ("", "=")
        what = "the sign is missing" if missing else f"unknown sign {clip(sign)}{nearest(sign[:8], table)}"
        _fail(what, text, len(a), allowed)
    _check_digits(text, start_b, start_b + len(b), "operand b")
    if tail != "=" and (closed or tail):
        what = "the expression should end with '=' after operand b" if tail else "'=' is missing at the end"
        _fail(what, text, start_b + len(b) + (tail[:1] == "="), allowed)
    return table[sign], a, b


def _check_characters(text: str, known: Set[str], what: str, allowed: str) -> None:
    """Refuse the first character that is not known."""
    for column, character in enumerate(text):
        if character in known:
            continue
        named = f"the character {ascii(character)}"
        if character.isspace():
            named = f"the blank {ascii(character)}"
        elif character.isdecimal():
            named = f"{ascii(character)}, a digit of another script"
        _fail(f"{what} {named}", text, column, allowed)


def _check_digits(text: str, start: int, stop: int, name: str) -> None:
    """Refuse an empty, overlong or zero-led run of digits."""
    if start == stop:
        _fail(f"{name} is missing", text, start, _OPERAND_RULE)
    if stop - start > MAX_DIGITS:
        _fail(f"{name} has {stop - start:,} digits", text, start, _OPERAND_RULE)
    if text[start] == "0" and stop - start > 1:
        _fail(f"{name} has a leading zero", text, start, _OPERAND_RULE)


def _fail(what: str, text: str, column: int | None, allowed: str) -> NoReturn:
    where = clip(text) if column is None else f"column {column + 1} of {clip(text)}"
    raise UserError(what, where=where, allowed=allowed, next_step=_EXAMPLE)
