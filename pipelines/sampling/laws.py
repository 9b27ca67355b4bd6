"""The distributions of operands that machines name, and the parts of their classes with the distributions named.

A distribution maps uniform coordinates (free digits of a and b, one small selector) to operands. Nothing here draws:
``index_space`` turns a seed into coordinates, so that every expression is a pure function of (seed, class, number).
"""

from collections.abc import Iterator

import numpy as np

from ...errors import check_name
from ...tm import columns
from ...tm.classes import Coordinates, OperandDistribution
from ...tm.columns import I64, U8, Bool, Number, Operands
from ...tm.machine import Machine


class Bent(OperandDistribution):
    """Free digits bent towards a property, which ``holds`` tells."""

    def bend(self, draw: Coordinates) -> Operands:
        """Return the operands of some coordinates."""
        return Operands(draw.a, draw.b)

    def shape(self, draw: Coordinates) -> tuple[Operands, Bool]:
        operands = self.bend(draw)
        return operands, self.holds(operands)


class NonzeroB(OperandDistribution):
    """Both operands free, b at least 1."""

    def holds(self, operands: Operands) -> Bool:
        return ~operands.second.is_zero()


class EqualOperands(Bent):
    """a free, b the same."""

    def lengths(self, len_a: int, len_b: int) -> tuple[int, int]:
        return len_a, 0

    def bend(self, draw: Coordinates) -> Operands:
        return Operands(draw.a, draw.a)

    def holds(self, operands: Operands) -> Bool:
        return columns.equal(operands.a, operands.second)


class Related(OperandDistribution):
    """Both operands free, a - b of one of the given signs."""

    def __init__(self, *signs: int) -> None:
        self.signs = signs

    def holds(self, operands: Operands) -> Bool:
        sign = columns.compare(operands.a, operands.second)
        return np.logical_or.reduce([sign == allowed for allowed in self.signs])


class SmallB(Bent):
    """a is free, b one of a few small numbers: the run of mul halts soon."""

    def __init__(self, lowest: int, count: int) -> None:
        self.lowest, self.count = lowest, count

    def lengths(self, len_a: int, len_b: int) -> tuple[int, int]:
        return len_a, 0

    def selector(self, len_a: int, len_b: int) -> tuple[int, int]:
        return self.lowest, self.count

    def bend(self, draw: Coordinates) -> Operands:
        return Operands(draw.a, _two_digits(draw.selector))


class Quotients(OperandDistribution):
    """b is free, a / b one of a few small numbers, the remainder uniform below b: the run of div halts soon."""

    padded_a = True
    injective = False

    def __init__(self, *quotients: int) -> None:
        self.quotients = np.array(quotients)

    def lengths(self, len_a: int, len_b: int) -> tuple[int, int]:
        return len_b, len_b  # a's digits are the remainder's

    def selector(self, len_a: int, len_b: int) -> tuple[int, int]:
        return 0, len(self.quotients)

    def shape(self, draw: Coordinates) -> tuple[Operands, Bool]:
        b = draw.b
        # A fraction of b, so that b itself stays uniform: a's digits / 10**len_b * b, rounded down.
        share = columns.multiply(draw.a, b).planes
        place = np.arange(b.width)[:, None] + draw.len_b
        remainder = Number(np.take_along_axis(columns.widen(share, 2 * b.width), place, axis=0))
        multiple = columns.multiply(b, _two_digits(self.quotients[draw.selector]))
        return Operands(columns.add(multiple, remainder)[0], b), columns.compare(remainder, b) < 0


class Complemented(Bent):
    """a is all nines, b is free and does not begin with 9 where it is as long as a."""

    def lengths(self, len_a: int, len_b: int) -> tuple[int, int]:
        return 0, len_b

    def size(self, len_a: int, len_b: int) -> int:
        return super().size(len_a, len_b) - (10 ** (len_b - 1) if len_a == len_b else 0)

    def bend(self, draw: Coordinates) -> Operands:
        return Operands(columns.nines(draw.len_a), draw.b)

    def holds(self, operands: Operands) -> Bool:
        return ~_begins_with_nine(operands)


class LeadingNines(Complemented):
    """a is all nines, b as long and its first L digits are 9, L uniform: the result has at least L high zeros."""

    injective = False

    def selector(self, len_a: int, len_b: int) -> tuple[int, int]:
        return 1, len_b

    def size(self, len_a: int, len_b: int) -> int:
        return 10 ** (len_b - 1)

    def bend(self, draw: Coordinates) -> Operands:
        place = np.arange(draw.b.width)[:, None]
        replaced = (place >= draw.b.length - draw.selector) & (place < draw.b.length)
        b = Number(np.where(replaced, np.uint8(9), draw.b.planes), draw.b.length)
        return Operands(columns.nines(draw.len_a), b)

    def holds(self, operands: Operands) -> Bool:
        return _begins_with_nine(operands)


class SecondDigit(OperandDistribution):
    """a is free, its second digit is not 0."""

    def size(self, len_a: int, len_b: int) -> int:
        return 10 if len_a == 1 else 81 * 10 ** (len_a - 2)

    def holds(self, operands: Operands) -> Bool:
        return (operands.a.length == 1) | (_second_digit(operands.a) != 0)


class InnerZeros(Bent):
    """a is free but for zeros after its first digit, their number uniform: left_mask's result is shorter still."""

    injective = False

    def selector(self, len_a: int, len_b: int) -> tuple[int, int]:
        return 1, len_a - 1

    def size(self, len_a: int, len_b: int) -> int:
        return 9 * 10 ** (len_a - 2)

    def bend(self, draw: Coordinates) -> Operands:
        place, top = np.arange(draw.a.width)[:, None], draw.a.length - 1
        kept = (place == top) | (place < top - draw.selector)
        return Operands(Number(draw.a.planes * kept, draw.a.length), None)

    def holds(self, operands: Operands) -> Bool:
        return (operands.a.length > 1) & (_second_digit(operands.a) == 0)


def _two_digits(values: I64) -> Number:
    return Number(np.stack([values % 10, values // 10]).astype(np.uint8))


def _begins_with_nine(operands: Operands) -> Bool:
    """Tell where b is as long as a, which is all nines, and begins with 9."""
    b = operands.second
    return (b.digit(np.arange(len(b)), b.length - 1) == 9) & (b.length == operands.a.length)


def _second_digit(number: Number) -> U8:
    """Return the digit after the first one (the only one where there is one)."""
    return number.digit(np.arange(len(number)), np.maximum(number.length - 2, 0))


LAWS = {
    "free": OperandDistribution(),
    "nonzero_b": NonzeroB(),
    "equal": EqualOperands(),
    "different": Related(-1, 1),
    "greater": Related(1),
    "less": Related(-1),
    "at_least_b": Related(0, 1),
    "b_1_to_9": SmallB(1, 9),
    "b_10_to_15": SmallB(10, 6),
    "quotient_2_or_3": Quotients(2, 3),
    "quotient_others": Quotients(1, *range(4, 16)),
    "complement": Complemented(),
    "leading_nines": LeadingNines(),
    "second_digit": SecondDigit(),
    "inner_zeros": InnerZeros(),
}


def law(named: str | OperandDistribution) -> OperandDistribution:
    """Return the distribution of a name; a machine of one's own may bring the object itself.

    Raises:
        UserError: there is none of this name.
    """
    if not isinstance(named, str):
        return named
    check_name("law", named, LAWS)
    return LAWS[named]


def class_parts(machine: Machine, len_a: int, len_b: int) -> Iterator[tuple[str, int, OperandDistribution]]:
    """Yield (name, share, distribution) of the disjoint parts of a class."""
    for name, share, named in machine.variants(len_a, len_b):
        yield name, share, law(named)
