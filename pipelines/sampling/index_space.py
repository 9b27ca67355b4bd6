"""Coordinates of a distribution as one index space: the box that candidates are numbered in, and its permutation."""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...tm.classes import Coordinates, OperandDistribution
from ...tm.columns import I64, U8, U64, Bool, Number
from .random import digit_planes, random_below, random_u64, splitmix64

TRIES = 4096  # candidates of one expression: a distribution and split that keep 1 in 20 miss once in 10**90
GROUP = 64  # so many candidates in a row share all digits of a larger box but the index digits
INDEX_DIGITS = 17  # of the free digits of a larger box, the lowest ones number the candidates
_ROUNDS = 3
_SMALL = 18  # digits: numbers of candidates are uint64
_POWERS = np.array([10**k for k in range(_SMALL + 1)], np.uint64)


class IndexSpace:
    """The candidates of n cells of one distribution, by their numbers. All columns have shape (n,).

    Args:
        distribution: of all the cells.
        len_a: digits of a.
        len_b: digits of b, 0 for one operand.
    """

    def __init__(self, distribution: OperandDistribution, len_a: I64, len_b: I64) -> None:
        self.len_a, self.len_b, self.padded_a = len_a, len_b, distribution.padded_a
        lengths = distribution.lengths(len_a, len_b)  # type: ignore[arg-type]  # arithmetic only: columns too
        selector = distribution.selector(len_a, len_b)  # type: ignore[arg-type]
        self.digits_a, self.digits_b, self.lowest, self.count = (
            np.broadcast_to(values, len_a.shape) for values in (*lengths, *selector)
        )

    @cached_property
    def fits(self) -> Bool:
        """Whether a cell's box stays below 2**62: its candidates are indexed as a whole, so that none comes twice."""
        # 17 digits and a selector of up to 40 values, or fewer digits and more values.
        spare = np.ceil(np.log10(np.maximum(self.count, 1))).astype(np.int64)
        return np.asarray(self.digits_a + self.digits_b + spare <= _SMALL)

    @cached_property
    def _factors(self) -> tuple[U64, U64, U64]:
        """The sizes of boxes that fit: of a, of b and of the selector."""
        count_b = _count(self.digits_b, padded=False)
        return _count(self.digits_a, self.padded_a), count_b, self.count.astype(np.uint64)

    @property
    def size(self) -> NDArray[np.float64]:
        """How many candidates each cell has; infinite where its box does not fit."""
        size_a, size_b, count = self._factors
        return np.where(self.fits, (size_a * size_b * count).astype(np.float64), np.inf)

    def coordinates(self, index: U64) -> Coordinates:
        """Return the coordinates at an index of boxes that fit."""
        _, size_b, count = self._factors
        selector = self.lowest + (index % count).astype(np.int64)
        index = index // count
        b = _from_ranks(index % size_b, self.digits_b, padded=False)
        a = _from_ranks(index // size_b, self.digits_a, self.padded_a)
        return self._coordinates(a, b, selector)

    def candidates(self, key: U64, counter: U64, *, indexed: bool, blank: bool = False) -> Coordinates:
        """Return the coordinates of one candidate of each cell.

        Args:
            key: the cells' keys.
            counter: number of the candidate in its cell.
            indexed: all boxes fit: counters are permuted. Otherwise none may fit.
            blank: leave the index digits 0 (of boxes that do not fit).
        """
        if indexed:
            size_a, size_b, count = self._factors
            return self.coordinates(permuted(counter, size_a * size_b * count, key))
        own = splitmix64(key + splitmix64(counter // np.uint64(GROUP)))
        a = _random(random_u64(own, 1), self.digits_a, self.padded_a)
        b = _random(random_u64(own, 2), self.digits_b, padded=False)
        # Different counters give different low digits: these are a permutation of the counter, the others are random.
        digits = np.zeros((INDEX_DIGITS, len(key)), np.uint8) if blank else index_digits(counter, key)
        place, in_a = np.arange(INDEX_DIGITS)[:, None], self.index_digits_in_a
        if a is not None:
            np.copyto(a[:INDEX_DIGITS], digits[: len(a)], where=place[: len(a)] < in_a)
        if b is not None:
            k, row = np.nonzero((place >= in_a) & (place < in_a + self.digits_b - 1))
            b[k - in_a[row], row] = digits[k, row]
        return self._coordinates(a, b, self.lowest + random_below(random_u64(own, 3), self.count).astype(np.int64))

    @property
    def index_digits_in_a(self) -> I64:
        """How many of a candidate's index digits stand in a; the others stand in b. First digits stay free of 0."""
        return self.digits_a if self.padded_a else np.maximum(self.digits_a - 1, 0)

    def _coordinates(self, a: U8 | None, b: U8 | None, selector: I64) -> Coordinates:
        numbers = _number(a, self.digits_a), _number(b, self.digits_b)
        return Coordinates(*numbers, selector, self.len_a, self.len_b)


def _number(planes: U8 | None, digits: I64) -> Any:  # None only where the distribution draws no digits
    return None if planes is None else Number(planes, digits.copy())


def index_digits(counter: U64, key: U64) -> U8:
    """Return the index digits of candidates, shape (INDEX_DIGITS, n): lowest first in a, then in b."""
    return _digits(permuted(counter, np.full(len(counter), 10**INDEX_DIGITS, np.uint64), key), INDEX_DIGITS)


def _digits(values: U64, width: int) -> U8:
    """Return the lowest digits of integers, shape (width, n)."""
    planes = np.empty((width, len(values)), np.uint8)
    for k in range(width):
        above = values // np.uint64(10)
        planes[k] = values - above * np.uint64(10)
        values = above
    return planes


def _count(digits: I64, padded: bool) -> U64:
    """Return how many numbers have these lengths, taken as 18 digits where they are longer; 1 for 0 digits."""
    digits = np.minimum(digits, _SMALL)
    whole = _POWERS[digits]
    return whole if padded else np.where(digits <= 1, whole, whole - _POWERS[np.maximum(digits - 1, 0)])


def _from_ranks(ranks: U64, digits: I64, padded: bool) -> U8 | None:
    """Return the numbers of these lengths by their rank; None where no digits are drawn."""
    width = int(digits.max(initial=0))
    if width == 0:
        return None
    if not padded:
        ranks = ranks + np.where(digits > 1, _POWERS[np.maximum(digits - 1, 0)], np.uint64(0))
    return _digits(ranks, width)


def _random(key: U64, digits: I64, padded: bool) -> U8 | None:
    """Return uniform digits of numbers of these lengths, zero above; None where no digits are drawn."""
    width = int(digits.max(initial=0))
    if width == 0:
        return None
    planes = digit_planes(random_u64(key, 1), width)
    planes *= np.arange(width)[:, None] < digits
    if not padded:
        rows = np.flatnonzero(digits > 1)
        first = random_below(random_u64(key[rows], 2), np.full(len(rows), 9)) + np.uint64(1)
        planes[digits[rows] - 1, rows] = first.astype(np.uint8)
    return planes


def permuted(counter: U64, size: U64, key: U64) -> U64:
    """Return a keyed permutation of each [0, size), size < 2**62: a Feistel network over two factors, cycle-walked."""
    left_size = np.ceil(np.sqrt(size.astype(np.float64))).astype(np.uint64) + np.uint64(1)
    right_size = size // left_size + np.uint64(1)
    value = counter.copy()
    todo = np.arange(len(counter))
    while len(todo):
        left, right = np.divmod(value[todo], right_size[todo])
        for turn in range(_ROUNDS):
            left = (left + random_u64(key[todo] + right, 2 * turn) % left_size[todo]) % left_size[todo]
            right = (right + random_u64(key[todo] + left, 2 * turn + 1) % right_size[todo]) % right_size[todo]
        value[todo] = left * right_size[todo] + right
        todo = todo[value[todo] >= size[todo]]
    return value
