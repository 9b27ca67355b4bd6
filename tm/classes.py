"""The parts of an equivalence class and the laws that draw their operands.

A law maps uniform coordinates (free digits of a and b, one small selector) to operands. Nothing here draws: the
pipelines turn a seed into coordinates, so that every expression is a pure function of (seed, class, number).
"""

from dataclasses import dataclass
from functools import cache, reduce

import numpy as np

from . import columns
from .columns import I64, Bool, Number, Operands


def count_of(length: int) -> int:
    """Return how many numbers have ``length`` digits; 0 counts as a one-digit number."""
    return 10 if length == 1 else 9 * 10 ** (length - 1)


@dataclass(frozen=True, eq=False)
class Draw:
    """Coordinates of n candidates: free digits of the two operands (None where not drawn), a selector, the lengths."""

    a: Number | None
    b: Number | None
    selector: I64
    len_a: I64
    len_b: I64


class Law:
    """Both operands free: uniform over the numbers of their lengths.

    Class attributes:
        injective: different coordinates give different operands. Others are drawn with a check for repeats.
        padded_a: the digits drawn for a may begin with zeros.
    """

    injective = True
    padded_a = False

    def lengths(self, len_a: int, len_b: int) -> tuple[int, int]:
        """Return how many digits are drawn for a and for b; 0 for none."""
        return len_a, len_b

    def selector(self, len_a: int, len_b: int) -> tuple[int, int]:
        """Return the selector's lowest value and the number of its values."""
        return 0, 1

    def size(self, len_a: int, len_b: int) -> int:
        """Return the number of expressions, a bound from above where ``keep`` drops some."""
        drawn = [count_of(length) for length in self.lengths(len_a, len_b) if length]
        return reduce(int.__mul__, drawn, self.selector(len_a, len_b)[1])

    def shape(self, draw: Draw) -> tuple[Operands, Bool]:
        """Return the operands and which of them are expressions of this part of the class."""
        operands = Operands(drawn_digits(draw.a), draw.b)
        return operands, self.holds(operands)

    def holds(self, operands: Operands) -> Bool:
        """Tell which expressions belong to this part of their class."""
        return np.ones(len(operands), np.bool_)


@dataclass(frozen=True)
class Variant:
    """A part of a class, with its share of the class's count."""

    name: str
    share: int
    law: Law


@cache
def apportion(count: int, shares: tuple[int, ...]) -> tuple[int, ...]:
    """Split a count by shares, each rounded up out of what the earlier ones have left."""
    parts, left = list[int](), sum(shares)
    for share in shares:
        parts.append(-(-count * share // left))
        count, left = count - parts[-1], left - share
    return tuple(parts)


@cache
def whole_class(law: Law) -> tuple[Variant, ...]:
    """Return the one part of a class that has no variants."""
    return (Variant("any", 1, law),)


def halves(equal: Law, *others: Variant) -> tuple[Variant, ...]:
    """Return equal operands with half of the class (rounded up) and the others sharing the rest."""
    return (Variant("equal", len(others), equal), *others)


def drawn_digits(number: Number | None) -> Number:
    """Return digits that a law draws; raises ValueError where it does not."""
    if number is None:
        raise ValueError("this law draws no digits for an operand that it needs")
    return number


class NonzeroB(Law):
    """Both operands free, b at least 1."""

    def holds(self, operands: Operands) -> Bool:
        return ~operands.second.is_zero()


class AtLeastB(Law):
    """Both operands free, a at least b."""

    def holds(self, operands: Operands) -> Bool:
        return columns.compare(operands.a, operands.second) >= 0


class EqualOperands(Law):
    """a free, b the same."""

    def lengths(self, len_a: int, len_b: int) -> tuple[int, int]:
        return len_a, 0

    def shape(self, draw: Draw) -> tuple[Operands, Bool]:
        a = drawn_digits(draw.a)
        return Operands(a, a), np.ones(len(a), np.bool_)

    def holds(self, operands: Operands) -> Bool:
        return columns.equal(operands.a, operands.second)


class Related(Law):
    """Both operands free, a - b of one of the given signs."""

    def __init__(self, *signs: int) -> None:
        self.signs = signs

    def holds(self, operands: Operands) -> Bool:
        return np.isin(columns.compare(operands.a, operands.second), self.signs)


EQUAL, DIFFERENT, GREATER, LESS = EqualOperands(), Related(-1, 1), Related(1), Related(-1)
