"""Stress families: hard cases that uniform operands almost never meet. A family's ``holds`` is its property."""

from __future__ import annotations

import numpy as np

from ...errors import check_name
from ...tm import columns
from ...tm.classes import Coordinates
from ...tm.columns import I64, U8, Bool, Number, Operands
from ...tm.machine import Machine
from .laws import Bent, EqualOperands

RESERVED_FROM = 3  # digits: shorter neighbours of powers of ten are too large a part of their classes to be set apart


class Family(Bent):
    """A family of expressions; its name is the ``variant`` of its rows.

    Class attributes:
        reserved: its members (of three digits and more) stand in no other split, whatever their hash.
    """

    name: str
    injective = False
    reserved = False

    def applies(self, len_a: int, len_b: int) -> bool:
        """Tell whether a class can hold members (the classes of a task with one operand have len_b = 0)."""
        return True


class AllNines(Family):
    """Every digit is 9."""

    name = "all_nines"
    reserved = True

    def lengths(self, len_a: int, len_b: int) -> tuple[int, int]:
        return 0, 0

    def bend(self, draw: Coordinates) -> Operands:
        return Operands(columns.nines(draw.len_a), columns.nines(draw.len_b) if draw.len_b.any() else None)

    def holds(self, operands: Operands) -> Bool:
        nines = [number.planes.sum(axis=0, dtype=np.int64) == 9 * number.length for number in operands.numbers]
        return np.logical_and.reduce(nines)


class PowersOfTen(AllNines):
    """Each operand is 10**k or a neighbour of one (99..9, 10..0, 10..1)."""

    name = "power_of_ten"

    def selector(self, len_a: int, len_b: int) -> tuple[int, int]:
        return 0, 9

    def bend(self, draw: Coordinates) -> Operands:
        b = _landmark(draw.selector // 3, draw.len_b) if draw.len_b.any() else None
        return Operands(_landmark(draw.selector % 3, draw.len_a), b)

    def holds(self, operands: Operands) -> Bool:
        return reserved(operands, 1) & ~super().holds(operands)


class PowersB(PowersOfTen):
    """b is a power of ten or a neighbour of one (a is all nines)."""

    def selector(self, len_a: int, len_b: int) -> tuple[int, int]:
        return 0, 3

    def bend(self, draw: Coordinates) -> Operands:
        return Operands(columns.nines(draw.len_a), _landmark(draw.selector, draw.len_b))


class EqualPair(EqualOperands, Family):
    """Both operands are the same number."""

    name = "equal_operands"

    def applies(self, len_a: int, len_b: int) -> bool:
        return len_a == len_b


class OneDigitApart(EqualPair):
    """The operands differ in one digit: the lowest or the highest."""

    def __init__(self, name: str, highest: bool) -> None:
        self.name, self.highest = name, highest

    def selector(self, len_a: int, len_b: int) -> tuple[int, int]:
        return 1, 9

    def _digit(self, a: Number) -> tuple[I64, I64]:
        return (a.length - 1 if self.highest else np.zeros_like(a.length)), np.arange(len(a))

    def bend(self, draw: Coordinates) -> Operands:
        planes, digit = draw.a.planes.copy(), self._digit(draw.a)
        planes[digit] = (planes[digit] + draw.selector) % 10
        return Operands(draw.a, Number(planes))

    def holds(self, operands: Operands) -> Bool:
        apart = _apart(operands)
        return apart[self._digit(operands.a)] & (apart.sum(axis=0) == 1) & _as_long(operands)


class CarryChain(Family):
    """A carry runs from the units through every digit of the longer operand."""

    name = "carry_chain"

    def bend(self, draw: Coordinates) -> Operands:
        a, b, place = _drawn(draw)
        inside_a, inside_b = place < draw.len_a, place < draw.len_b
        low = np.where(inside_a & inside_b, np.uint8(9) - a, np.uint8(9))
        a = np.where(inside_a & ~inside_b, np.uint8(9), a)
        # units: at least ten together; a's own are 1 at least
        a[0] = np.maximum(a[0], 1)
        low[0] = np.minimum(np.uint8(10) - a[0] + b[0] % a[0], 9)
        return _cut(draw, a, low)

    def holds(self, operands: Operands) -> Bool:
        _, carry = columns.add(operands.a, operands.second)
        longest = np.maximum(operands.a.length, operands.second.length)
        runs = carry[1:].astype(bool) | (np.arange(len(carry) - 1)[:, None] >= longest)
        return _proper(operands) & runs.all(axis=0)


class LongerResult(Family):
    """The sum has one digit more than the longer operand."""

    name = "longer_result"

    def bend(self, draw: Coordinates) -> Operands:
        a, b, place = _drawn(draw)
        # Above the shorter operand the longer one is nines, so that the carry of its first digit reaches the end.
        a, b = np.where(place >= draw.len_b, np.uint8(9), a), np.where(place >= draw.len_a, np.uint8(9), b)
        return _cut(draw, a, b)

    def holds(self, operands: Operands) -> Bool:
        total, _ = columns.add(operands.a, operands.second)
        return total.length > np.maximum(operands.a.length, operands.second.length)


class BorrowChain(Family):
    """A borrow runs from the units to the first digit of a."""

    name = "borrow_chain"

    def applies(self, len_a: int, len_b: int) -> bool:
        return len_a >= max(len_b, 2)

    def bend(self, draw: Coordinates) -> Operands:
        a, b, place = _drawn(draw)
        first = (draw.len_a - 1, np.arange(len(draw.len_a)))
        b = np.where(place < draw.len_b, b, np.uint8(0))
        bent = np.where(place < first[0], b, a)
        bent[0] = np.minimum(a[0], 8)
        b[0] = bent[0] + 1 + b[0] % (np.uint8(9) - bent[0])
        bent[first] = np.maximum(b[first] + 1, 1)
        return _cut(draw, bent, b)

    def holds(self, operands: Operands) -> Bool:
        a, b = operands.a, columns.widen(operands.second.planes, operands.a.width)
        borrow = np.zeros(len(a), np.bool_)
        runs = columns.compare(a, operands.second) >= 0
        for k in range(a.width):
            borrow = a.planes[k].astype(np.int8) < b[k] + borrow.astype(np.int8)
            runs &= borrow | (k >= a.length - 1)
        return runs & _proper(operands)


class ShorterResult(Family):
    """Operands of one length whose upper half is the same: the difference has half as many digits at most."""

    name = "shorter_result"

    def applies(self, len_a: int, len_b: int) -> bool:
        return len_a == len_b and len_a >= 2

    def bend(self, draw: Coordinates) -> Operands:
        a, b, place = _drawn(draw)
        bent = _cut(draw, a, np.where(place >= draw.len_a // 2, a, b))
        first, second = bent.a.planes, bent.second.planes
        swap = columns.compare(bent.a, bent.second) < 0
        larger, smaller = np.where(swap, second, first), np.where(swap, first, second)
        return Operands(Number(larger, draw.len_a), Number(smaller, draw.len_b))

    def holds(self, operands: Operands) -> Bool:
        a, apart = operands.a, _apart(operands)
        upper = np.arange(len(apart))[:, None] >= a.length // 2
        larger = columns.compare(a, operands.second) > 0
        return ~(apart & upper).any(axis=0) & _as_long(operands) & (a.length > 1) & larger


class UpperHalf(Family):
    """The digits of the upper half (of a helper's operand, below its first digit) are all the same digit."""

    name = "shorter_result"

    def __init__(self, digit: int, of_b: bool) -> None:
        self.digit, self.of_b = digit, of_b

    def applies(self, len_a: int, len_b: int) -> bool:
        return len_a >= 3 and (len_a == len_b or not self.of_b)

    def lengths(self, len_a: int, len_b: int) -> tuple[int, int]:
        return (0, len_b) if self.of_b else (len_a, 0)

    def _upper(self, number: Number) -> Bool:
        place = np.arange(number.width)[:, None]
        return (place >= number.length // 2) & (place < number.length - (not self.of_b))

    def bend(self, draw: Coordinates) -> Operands:
        number = draw.b if self.of_b else draw.a
        bent = Number(np.where(self._upper(number), np.uint8(self.digit), number.planes), number.length)
        return Operands(columns.nines(draw.len_a), bent) if self.of_b else Operands(bent, None)

    def holds(self, operands: Operands) -> Bool:
        number = operands.second if self.of_b else operands.a
        return (~self._upper(number) | (number.planes == self.digit)).all(axis=0) & (number.length >= 3)


def _landmark(which: I64, length: I64) -> Number:
    """Return 10**(length - 1) (which = 0), its successor (1), or 10**length - 1 (2)."""
    nines = columns.nines(length)
    planes = np.zeros_like(nines.planes)
    planes[length - 1, np.arange(len(length))] = 1
    planes[0] += which == 1
    return Number(np.where(which == 2, nines.planes, planes), length)


def _near_power(number: Number, shortest: int) -> Bool:
    """Tell which numbers of at least ``shortest`` digits are 10**k, 10**k + 1 or 10**k - 1."""
    total, length, units = number.planes.sum(axis=0, dtype=np.int64), number.length, number.planes[0]
    nines = total == 9 * length
    first_is_one = number.planes[length - 1, np.arange(len(number))] == 1
    power = first_is_one & (total == 1 + ((units == 1) & (length > 1)))
    return (length >= shortest) & (nines | power | ((length == 1) & (total == 2)))


def reserved(operands: Operands, shortest: int = RESERVED_FROM) -> Bool:
    """Tell which expressions have powers of ten, their neighbours or nines for operands: set apart for stress."""
    found = np.ones(len(operands), np.bool_)
    for number in operands.numbers:  # few begin as they must, and digits need be added up of these alone
        first = number.planes[number.length - 1, np.arange(len(number))]
        found &= (first == 1) | (first == 9) | (number.length == 1)
    rows = np.flatnonzero(found)
    found[rows] = np.logical_and.reduce([_near_power(number.take(rows), shortest) for number in operands.numbers])
    return found


def _drawn(draw: Coordinates) -> tuple[U8, U8, I64]:
    """Return the drawn digits of both operands with as many planes, and a column of their places."""
    width = max(draw.a.width, draw.b.width)
    return columns.widen(draw.a.planes, width), columns.widen(draw.b.planes, width), np.arange(width)[:, None]


def _cut(draw: Coordinates, a: U8, b: U8) -> Operands:
    """Return the digits below the lengths of a and b; a leading 0 is left for ``holds`` to refuse."""
    place = np.arange(len(a))[:, None]
    return Operands(Number(a * (place < draw.len_a), draw.len_a), Number(b * (place < draw.len_b), draw.len_b))


def _apart(operands: Operands) -> Bool:
    """Tell which digits of a and b differ, shape (width, n)."""
    width = max(number.width for number in operands.numbers)
    return columns.widen(operands.a.planes, width) != columns.widen(operands.second.planes, width)


def _as_long(operands: Operands) -> Bool:
    return operands.a.length == operands.second.length


def _proper(operands: Operands) -> Bool:
    """Tell which operands have no leading 0 and no digit above 9."""
    proper = np.ones(len(operands), np.bool_)
    for number in operands.numbers:
        first = number.planes[number.length - 1, np.arange(len(number))]
        proper &= ((first > 0) | (number.length == 1)) & (number.planes <= 9).all(axis=0)
    return proper


_PAIRS: tuple[Family, ...] = (
    AllNines(),
    PowersOfTen(),
    EqualPair(),
    OneDigitApart("differ_lowest", False),
    OneDigitApart("differ_highest", True),
)
FAMILIES: dict[str, tuple[Family, ...]] = {
    "pairs": _PAIRS,
    "addition": (*_PAIRS, CarryChain(), LongerResult()),
    "subtraction": (*_PAIRS, BorrowChain(), ShorterResult()),
    "complement": (AllNines(), PowersB(), UpperHalf(9, of_b=True)),
    "mask": (AllNines(), PowersOfTen(), UpperHalf(0, of_b=False)),
    "none": (),
}


def families(machine: Machine) -> tuple[Family, ...]:
    """Return the stress families of a task; raises UserError where its machine names unknown ones."""
    named = machine.stress or ("mask" if machine.unary else "pairs")
    check_name(f"group of stress families of {machine.name},", named, FAMILIES)
    return FAMILIES[named]
