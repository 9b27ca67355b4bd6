"""What a machine says of its classes of expressions: their parts, and which of a run's transitions are worth keeping.

A part's operands follow a distribution, given by its name in ``pipelines.sampling.laws`` or as an object of one's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from .columns import I64, Bool, Number, Operands


def count_of(length: int) -> int:
    """Return how many numbers have ``length`` digits; 0 counts as a one-digit number."""
    return 10 if length == 1 else 9 * 10 ** (length - 1)


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Coordinates of n candidates: free digits of the two operands (None where not drawn), a selector, the lengths."""

    a: Number  # a distribution knows which it draws
    b: Number
    selector: I64
    len_a: I64
    len_b: I64


class OperandDistribution:
    """Maps uniform coordinates to operands; this one leaves both free, uniform over the numbers of their lengths.

    Class attributes:
        injective: different coordinates give different operands. Others are drawn with a check for repeats.
        padded_a: the digits drawn for a may begin with zeros.
        any_side: its expressions are taken whatever their split is.
    """

    injective = True
    padded_a = False
    any_side = False

    def lengths(self, len_a: int, len_b: int) -> tuple[int, int]:
        """Return how many digits are drawn for a and for b; 0 for none."""
        return len_a, len_b

    def selector(self, len_a: int, len_b: int) -> tuple[int, int]:
        """Return the selector's lowest value and the number of its values."""
        return 0, 1

    def size(self, len_a: int, len_b: int) -> int:
        """Return the number of expressions, a bound from above where ``holds`` drops some."""
        drawn = [count_of(length) for length in self.lengths(len_a, len_b) if length]
        return prod(drawn) * self.selector(len_a, len_b)[1]

    def shape(self, draw: Coordinates) -> tuple[Operands, Bool]:
        """Return the operands and which of them are expressions of this part of the class."""
        operands = Operands(draw.a, draw.b)
        return operands, self.holds(operands)

    def holds(self, operands: Operands) -> Bool:
        """Tell which expressions belong to this part of their class."""
        return np.ones(len(operands), np.bool_)


Law, Draw = OperandDistribution, Coordinates  # as machines of one's own have called them


class Variant(NamedTuple):
    """A part of a class, with its share of the class's count, and how its operands are distributed."""

    name: str
    share: int
    law: str | OperandDistribution


Place = tuple[str, int]  # a transition, counted from "first", "len_a" (as many as a has digits) or "end" (of the run)


@dataclass(frozen=True)
class StepRule:
    """Which transitions of each expression are kept when steps are sampled.

    Args:
        keep_all: runs of at most this many transitions keep all of them.
        fixed: those of longer runs that are always kept.
        ranges: (lowest, highest, how many) of the random ones, drawn without replacement.
    """

    keep_all: int
    fixed: tuple[Place, ...]
    ranges: tuple[tuple[Place, Place, int], ...]


def first_and_last(last: int, random: int) -> StepRule:
    """Return the usual rule: the first transition, the ``last`` last ones, ``random`` others from between."""
    fixed = ("first", 0), *(("end", -back) for back in range(1, last + 1))
    return StepRule(5, fixed, ((("first", 1), ("end", -last - 1), random),))
