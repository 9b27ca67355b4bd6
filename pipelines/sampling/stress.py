"""Stress families: hard cases that uniform operands almost never meet. A family's ``holds`` is its property."""

from __future__ import annotations

import numpy as np

from ...errors import UserError, did_you_mean, quoted
from ...tm import columns
from ...tm.classes import Coordinates, OperandDistribution
from ...tm.columns import I64, U8, Bool, Number, Operands
from ...tm.machine import Machine

RESERVED_FROM = 3  # digits: shorter neighbours of powers of ten are too large a part of their classes to be set apart


class Family(OperandDistribution):
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

    def shape(self, draw: Coordinates) -> tuple[Operands, Bool]:
        operands = self.bend(draw)
        return operands, self.holds(operands)

    def bend(self, draw: Coordinates) -> Operands:
        """Return candidates: free digits bent towards the family's property."""
        return Operands(draw.a, draw.b)


class PowersOfTen(Family):
    """Each operand is 10**k or a neighbour of one (99..9, 10..0, 10..1)."""

    name = "power_of_ten"
    reserved = True

    def lengths(self, len_a: int, len_b: int) -> tuple[int, int]:
        return 0, 0

    def selector(self, len_a: int, len_b: int) -> tuple[int, int]:
        return 0, 9

    def bend(self, draw: Coordinates) -> Operands:
        b = landmark(draw.selector // 3, draw.len_b) if draw.len_b.any() else None
        return Operands(landmark(draw.selector % 3, draw.len_a), b)

    def holds(self, operands: Operands) -> Bool:
        return reserved(operands, 1) & ~_all_nines(operands)


class AllNines(Family):
    """Every digit is 9."""

    name = "all_nines"
    reserved = True

    def lengths(self, len_a: int, len_b: int) -> tuple[int, int]:
        return 0, 0

    def bend(self, draw: Coordinates) -> Operands:
        return Operands(columns.nines(draw.len_a), columns.nines(draw.len_b) if draw.len_b.any() else None)

    def holds(self, operands: Operands) -> Bool:
        return _all_nines(operands)


class EqualPair(Family):
    """Both operands are the same number."""

    name = "equal_operands"

    def applies(self, len_a: int, len_b: int) -> bool:
        return len_a == len_b

    def lengths(self, len_a: int, len_b: int) -> tuple[int, int]:
        return len_a, 0

    def bend(self, draw: Coordinates) -> Operands:
        a = draw.a
        return Operands(a, a)

    def holds(self, operands: Operands) -> Bool:
        return columns.equal(operands.a, operands.second)


class OneDigitApart(EqualPair):
    """The operands differ in one digit: the lowest or the highest."""

    def __init__(self, name: str, highest: bool) -> None:
        self.name, self.highest = name, highest

    def selector(self, len_a: int, len_b: int) -> tuple[int, int]:
        return 1, 9

    def _place(self, length: I64) -> I64:
        return length - 1 if self.highest else np.zeros_like(length)

    def bend(self, draw: Coordinates) -> Operands:
        a = draw.a
        rows, place = np.arange(len(a)), self._place(a.length)
        planes = a.planes.copy()
        planes[place, rows] = (planes[place, rows] + draw.selector) % 10
        return Operands(a, Number(planes))

    def holds(self, operands: Operands) -> Bool:
        a, b = operands.a, operands.second
        width = max(a.width, b.width)
        apart = columns.widen(a.planes, width) != columns.widen(b.planes, width)
        here: Bool = apart[self._place(a.length), np.arange(len(a))]
        return here & (apart.sum(axis=0) == 1) & (a.length == b.length)


class CarryChain(Family):
    """A carry runs from the units through every digit of the longer operand."""

    name = "carry_chain"

    def bend(self, draw: Coordinates) -> Operands:
        a, b = _wide(draw)
        low, place = b.copy(), np.arange(a.shape[0])[:, None]
        inside_a, inside_b = place < draw.len_a, place < draw.len_b
        low = np.where(inside_a & inside_b, np.uint8(9) - a, np.uint8(9))
        a = np.where(inside_a & ~inside_b, np.uint8(9), a)
        # units: at least ten together; a's own are 1 at least
        a[0] = np.maximum(a[0], 1)
        low[0] = np.minimum(np.uint8(10) - a[0] + b[0] % a[0], 9)
        return Operands(_cut(a, draw.len_a), _cut(low, draw.len_b))

    def holds(self, operands: Operands) -> Bool:
        _, carry = columns.add(operands.a, operands.second)
        longest = np.maximum(operands.a.length, operands.second.length)
        runs = carry[1:].astype(bool) | (np.arange(len(carry) - 1)[:, None] >= longest)
        return _proper(operands) & runs.all(axis=0)


class LongerResult(Family):
    """The sum has one digit more than the longer operand."""

    name = "longer_result"

    def bend(self, draw: Coordinates) -> Operands:
        a, b = _wide(draw)
        # Above the shorter operand the longer one is nines, so that the carry of its first digit reaches the end.
        place = np.arange(a.shape[0])[:, None]
        a = np.where((place >= draw.len_b) & (place < draw.len_a), np.uint8(9), a)
        b = np.where((place >= draw.len_a) & (place < draw.len_b), np.uint8(9), b)
        return Operands(_cut(a, draw.len_a), _cut(b, draw.len_b))

    def holds(self, operands: Operands) -> Bool:
        total, _ = columns.add(operands.a, operands.second)
        return total.length > np.maximum(operands.a.length, operands.second.length)


class BorrowChain(Family):
    """A borrow runs from the units to the first digit of a."""

    name = "borrow_chain"

    def applies(self, len_a: int, len_b: int) -> bool:
        return len_a >= max(len_b, 2)

    def bend(self, draw: Coordinates) -> Operands:
        a, b = _wide(draw)
        place, top = np.arange(a.shape[0])[:, None], draw.len_a - 1
        b = np.where(place < draw.len_b, b, np.uint8(0))
        bent = np.where(place < top, b, a)
        bent[0] = np.minimum(a[0], 8)
        b[0] = bent[0] + 1 + b[0] % (np.uint8(9) - bent[0])
        rows = np.arange(len(top))
        bent[top, rows] = np.maximum(b[top, rows] + 1, 1)
        return Operands(_cut(bent, draw.len_a), _cut(b, draw.len_b))

    def holds(self, operands: Operands) -> Bool:
        a, width = operands.a, operands.a.width
        b = columns.widen(operands.second.planes, width)
        borrow = np.zeros(len(a), np.bool_)
        runs = columns.compare(a, operands.second) >= 0
        for k in range(width):
            borrow = a.planes[k].astype(np.int8) < b[k] + borrow.astype(np.int8)
            runs &= borrow | (k >= a.length - 1)
        return runs & _proper(operands)


class ShorterResult(Family):
    """Operands of one length whose upper half is the same: the difference has half as many digits at most."""

    name = "shorter_result"

    def applies(self, len_a: int, len_b: int) -> bool:
        return len_a == len_b and len_a >= 2

    def bend(self, draw: Coordinates) -> Operands:
        a, b = _wide(draw)
        upper = np.arange(a.shape[0])[:, None] >= draw.len_a // 2
        b = np.where(upper, a, b)
        first, second = _cut(a, draw.len_a), _cut(b, draw.len_b)
        swap = columns.compare(first, second) < 0
        x = np.where(swap, second.planes, first.planes)
        y = np.where(swap, first.planes, second.planes)
        return Operands(Number(x, draw.len_a), Number(y, draw.len_b))

    def holds(self, operands: Operands) -> Bool:
        a, b = operands.a, operands.second
        width = max(a.width, b.width)
        upper = np.arange(width)[:, None] >= a.length // 2
        apart = columns.widen(a.planes, width) != columns.widen(b.planes, width)
        larger = columns.compare(a, b) > 0
        return ~(apart & upper).any(axis=0) & (a.length == b.length) & (a.length > 1) & larger


class UpperHalf(Family):
    """The digits of the upper half (of a helper's operand, below its first digit) are all the same digit."""

    name = "shorter_result"

    def __init__(self, digit: int, of_b: bool) -> None:
        self.digit, self.of_b = digit, of_b

    def applies(self, len_a: int, len_b: int) -> bool:
        return len_a >= 3 and (len_a == len_b or not self.of_b)

    def lengths(self, len_a: int, len_b: int) -> tuple[int, int]:
        return (0, len_b) if self.of_b else (len_a, 0)

    def bend(self, draw: Coordinates) -> Operands:
        number = draw.b if self.of_b else draw.a
        place = np.arange(number.width)[:, None]
        upper = (place >= number.length // 2) & (place < number.length - (not self.of_b))
        bent = Number(np.where(upper, np.uint8(self.digit), number.planes), number.length)
        return Operands(columns.nines(draw.len_a), bent) if self.of_b else Operands(bent, None)

    def holds(self, operands: Operands) -> Bool:
        number = operands.second if self.of_b else operands.a
        place = np.arange(number.width)[:, None]
        upper = (place >= number.length // 2) & (place < number.length - (not self.of_b))
        return (~upper | (number.planes == self.digit)).all(axis=0) & (number.length >= 3)


class NinesB(AllNines):
    """b is all nines (a is anyway)."""


class PowersB(PowersOfTen):
    """b is a power of ten or a neighbour of one (a is all nines)."""

    def selector(self, len_a: int, len_b: int) -> tuple[int, int]:
        return 0, 3

    def bend(self, draw: Coordinates) -> Operands:
        return Operands(columns.nines(draw.len_a), landmark(draw.selector, draw.len_b))


def landmark(which: I64, length: I64) -> Number:
    """Return 10**(length - 1) (which = 0), its successor (1), or 10**length - 1 (2)."""
    nines = columns.nines(length)
    planes = np.zeros_like(nines.planes)
    rows = np.arange(len(length))
    planes[length - 1, rows] = 1
    planes[0] += which == 1
    return Number(np.where(which == 2, nines.planes, planes), length)


def near_power(number: Number, shortest: int) -> Bool:
    """Tell which numbers of at least ``shortest`` digits are 10**k, 10**k + 1 or 10**k - 1."""
    found = np.zeros(len(number), np.bool_)
    # Their digits add up to 1, 2 or 9 a digit: few other numbers do, and only these are compared digit by digit.
    total = number.planes.sum(axis=0, dtype=np.int64)
    rows = np.flatnonzero(((total <= 2) | (total == 9 * number.length)) & (number.length >= shortest))
    if len(rows):
        few = number.take(rows)
        for which in range(3):
            same = landmark(np.full(len(rows), which), few.length).planes == few.planes
            found[rows] |= same.all(axis=0)
    return found


def reserved(operands: Operands, shortest: int = RESERVED_FROM) -> Bool:
    """Tell which expressions have powers of ten, their neighbours or nines for operands: set apart for stress."""
    near = near_power(operands.a, shortest)
    return near if operands.b is None else near & near_power(operands.b, shortest)


def _all_nines(operands: Operands) -> Bool:
    found = np.ones(len(operands), np.bool_)
    for number in operands.numbers:
        found &= number.planes.sum(axis=0, dtype=np.int64) == 9 * number.length
    return found


def _wide(draw: Coordinates) -> tuple[U8, U8]:
    """Return the drawn digits of both operands with as many planes."""
    a, b = draw.a, draw.b
    width = max(a.width, b.width)
    return columns.widen(a.planes, width), columns.widen(b.planes, width)


def _cut(planes: U8, length: I64) -> Number:
    """Return the digits below each length; a leading 0 is left for ``holds`` to refuse."""
    inside = np.arange(planes.shape[0])[:, None] < length
    return Number(np.where(inside, planes, np.uint8(0)), length)


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
    "complement": (NinesB(), PowersB(), UpperHalf(9, of_b=True)),
    "mask": (AllNines(), PowersOfTen(), UpperHalf(0, of_b=False)),
}


def families(machine: Machine) -> tuple[Family, ...]:
    """Return the stress families of a task; raises UserError where its machine names unknown ones."""
    named = machine.stress or ("mask" if machine.unary else "pairs")
    if named not in FAMILIES:
        what = f"{machine.name}: there are no stress families {quoted(named)}{did_you_mean(named, FAMILIES)}"
        raise UserError(what, allowed=", ".join(FAMILIES))
    return FAMILIES[named]
