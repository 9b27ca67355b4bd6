"""What people type, parsed strictly: operands such as ``45321`` and expressions such as ``47819-12345=``.

A raw expression is operand, sign, operand, ``=``; operands are ASCII digits without leading zeros (0 is
``0``). The signs stand in the machines' own files; a machine without a sign (a helper) has no raw form.
"""

import re
from collections.abc import Set
from typing import NoReturn

from ..errors import UserError, did_you_mean, quoted
from .machine import MAX_DIGITS
from .registry import machine, tasks

_DIGITS = frozenset("0123456789")  # str.isdigit() also accepts other scripts and superscripts
OPERAND_RULE = f"digits 0-9 without leading zeros (zero is 0), at most {MAX_DIGITS:,} of them"
LOOKS_LIKE = {"\u00d7": "*", "\u00b7": "*", "\u22c5": "*", "\u2217": "*", "\u00f7": "//"}  # the signs of typography
LOOKS_LIKE |= dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-")
LOOKS_LIKE |= dict(zip("\uff0b\uff0d\uff0a\uff1c\uff1d\uff1e", "+-*<=>", strict=True))  # as wide as a Chinese letter
EXAMPLE = 'caef-data show "47819-12345="'


def signs() -> dict[str, str]:
    """Return the sign of every operator and its task, as ``{"+": "add", ...}``."""
    return {sign: task for task in tasks() if (sign := machine(task).sign)}


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
        _fail(f"operand {name} is empty", text, None, OPERAND_RULE)
    _check_characters(text, _DIGITS, f"operand {name} holds", OPERAND_RULE)
    _check_digits(text, 0, len(text), f"operand {name}")
    return text


def number_of(value: object, name: str) -> int:
    """Return a natural number that was given as an int or as an operand's text.

    Raises:
        UserError: it is none; ``name`` (``a`` or ``b``) is for messages.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise UserError(f"operand {name} must be an int or a decimal string, not {quoted(value)}")
    if isinstance(value, int) and (value < 0 or value.bit_length() > 13_000):  # 10**3_900 itself takes 100 us
        raise UserError(f"operand {name} must be a natural number of at most 3,900 digits")
    return int(parse_operand(str(value), name))


def _parse(text: str, closed: bool) -> tuple[str, str, str]:
    table = signs()
    allowed = f"a, sign, b, '=' with sign one of {' '.join(table)}; a and b: {OPERAND_RULE}"
    _check_characters(text, _DIGITS.union("=", *table), "the expression holds", allowed)
    if text[:1] == "-":
        _fail("operand a is negative, and the machines have no negative numbers", text, 0, allowed)
    a, sign, b, tail = re.fullmatch("([0-9]*)([^0-9]*)([0-9]*)(.*)", text).groups()  # type: ignore[union-attr]
    start_b = len(a + sign)
    _check_digits(text, 0, len(a), "operand a")
    if sign not in table:
        missing = sign in ("", "=")
        what = "the sign is missing" if missing else f"unknown sign {quoted(sign)}{did_you_mean(sign[:8], table)}"
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
        meant = f" (did you mean {LOOKS_LIKE[character]!r}?)" if character in LOOKS_LIKE else ""
        named = f"the character {ascii(character)}{meant}"
        if character.isspace():
            named = f"the blank {ascii(character)}"
        elif character.isdecimal():
            named = f"{ascii(character)}, a digit of another script"
        _fail(f"{what} {named}", text, column, allowed)


def _check_digits(text: str, start: int, stop: int, name: str) -> None:
    """Refuse an empty, overlong or zero-led run of digits."""
    if start == stop:
        _fail(f"{name} is missing", text, start, OPERAND_RULE)
    if stop - start > MAX_DIGITS:
        _fail(f"{name} has {stop - start:,} digits", text, start, OPERAND_RULE)
    if text[start] == "0" and stop - start > 1:
        _fail(f"{name} has a leading zero", text, start, OPERAND_RULE)


def _fail(what: str, text: str, column: int | None, allowed: str) -> NoReturn:
    where = quoted(text) if column is None else f"column {column + 1} of {quoted(text)}"
    raise UserError(what, where=where, allowed=allowed, next_step=EXAMPLE)
