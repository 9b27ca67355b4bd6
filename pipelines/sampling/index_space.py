"""Coordinates of a distribution as one index space: the box that candidates are numbered in, and its permutation."""

import numpy as np

from ...tm.classes import Coordinates, OperandDistribution
from ...tm.columns import I64, U8, Number
from .random import U64, digit_planes, random_below, random_u64, splitmix64

TRIES = 4096  # candidates of one expression: a law and split that keep 1 in 20 find none of them once in 10**90
GROUP = 64  # so many candidates in a row share all digits of a larger box but the index digits
INDEX_DIGITS = 17  # of the free digits of a larger box, the lowest ones number the candidates
_ROUNDS = 3
_SMALL = 18  # digits: box coordinates are uint64

_POWERS = np.array([10**k for k in range(19)], np.uint64)


def _lengths(law: OperandDistribution, len_a: I64, len_b: I64) -> tuple[I64, I64]:
    digits_a, digits_b = law.lengths(len_a, len_b)  # type: ignore[arg-type]  # laws do arithmetic only: columns too
    return np.broadcast_to(digits_a, len_a.shape), np.broadcast_to(digits_b, len_a.shape)


def _selector(law: OperandDistribution, len_a: I64, len_b: I64) -> tuple[I64, I64]:
    lowest, count = law.selector(len_a, len_b)  # type: ignore[arg-type]
    return np.broadcast_to(lowest, len_a.shape), np.broadcast_to(count, len_a.shape)


def _count(digits: I64, padded: bool) -> U64:
    """Return how many numbers of up to 18 digits have these lengths; 1 for 0 digits."""
    whole = _POWERS[digits]
    return whole if padded else np.where(digits <= 1, whole, whole - _POWERS[np.maximum(digits - 1, 0)])


def fits(law: OperandDistribution, len_a: I64, len_b: I64) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Tell which cells have a box below 2**62, and are indexed as a whole."""
    digits_a, digits_b = _lengths(law, len_a, len_b)
    count = _selector(law, len_a, len_b)[1]
    # 17 digits and a selector of up to 40 values, or fewer digits and more values, stay below 2**62.
    spare = np.ceil(np.log10(np.maximum(count, 1))).astype(np.int64)
    return digits_a + digits_b + spare <= _SMALL


def sizes(law: OperandDistribution, len_a: I64, len_b: I64) -> U64:
    """Return the sizes of boxes that fit, as (a, b, selector) factors of shape (3, n)."""
    digits_a, digits_b = _lengths(law, len_a, len_b)
    count = _selector(law, len_a, len_b)[1]
    return np.stack([_count(digits_a, law.padded_a), _count(digits_b, False), count.astype(np.uint64)])


def coordinates(law: OperandDistribution, index: U64, len_a: I64, len_b: I64) -> Coordinates:
    """Return the coordinates at an index of boxes that fit."""
    digits_a, digits_b = _lengths(law, len_a, len_b)
    lowest = _selector(law, len_a, len_b)[0]
    size_a, size_b, count = sizes(law, len_a, len_b)
    selector = lowest + (index % count).astype(np.int64)
    index = index // count
    b = _from_integers(index % size_b, digits_b, False)
    a = _from_integers(index // size_b, digits_a, law.padded_a)
    return Coordinates(a, b, selector, len_a, len_b)  # type: ignore[arg-type]


def _from_integers(values: U64, digits: I64, padded: bool) -> Number | None:
    """Return numbers of these lengths by their rank; None where no digits are drawn."""
    width = int(digits.max(initial=0))
    if width == 0:
        return None
    if not padded:
        values = values + np.where(digits > 1, _POWERS[np.maximum(digits - 1, 0)], np.uint64(0))
    planes = np.empty((width, len(values)), np.uint8)
    for k in range(width):
        above = values // np.uint64(10)
        planes[k] = values - above * np.uint64(10)
        values = above
    return Number(planes, digits.copy())


def permuted(counter: U64, size: U64, key: U64) -> U64:
    """Return a keyed permutation of [0, size), one size and key a row; a Feistel network over two factors, walked.

    Args:
        counter: values below ``size``.
        size: sizes of the ranges, below 2**62.
        key: keys of the permutations.
    """
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


def candidates(
    law: OperandDistribution, key: U64, counter: U64, len_a: I64, len_b: I64, *, indexed: bool, blank: bool = False
) -> Coordinates:
    """Return the coordinates of candidate ``counter`` of cells that all fit (``indexed``) or all do not.

    Args:
        law: the law of the cells.
        key: the cells' keys, shape (n,).
        counter: number of the candidate in its cell, shape (n,).
        len_a: lengths of the cells, shape (n,).
        len_b: lengths of the cells, shape (n,); 0 for one operand.
        indexed: the boxes fit: counters are permuted, so that no coordinates come twice.
        blank: leave the index digits 0 (of boxes that do not fit).
    """
    if indexed:
        size = sizes(law, len_a, len_b).prod(axis=0)
        return coordinates(law, permuted(counter, size, key), len_a, len_b)
    digits_a, digits_b = _lengths(law, len_a, len_b)
    lowest, count = _selector(law, len_a, len_b)
    own = splitmix64(key + splitmix64(counter // np.uint64(GROUP)))
    a = _random(random_u64(own, 1), digits_a, law.padded_a)
    b = _random(random_u64(own, 2), digits_b, False)
    # Different counters give different low digits: these are a permutation of the counter, the others are random.
    low = np.zeros_like(counter) if blank else index_number(counter, key)
    free_a = index_places(law, digits_a)
    free_b = np.maximum(digits_b - 1, 0)
    for k in range(INDEX_DIGITS):
        above = low // np.uint64(10)
        digit = (low - above * np.uint64(10)).astype(np.uint8)
        low = above
        in_a = k < free_a
        for planes, rows, place in (
            (a, np.flatnonzero(in_a), np.full_like(free_a, k)),
            (b, np.flatnonzero(~in_a & (k - free_a < free_b)), k - free_a),
        ):
            if planes is not None and len(rows):
                planes[place[rows], rows] = digit[rows]
    selector = lowest + random_below(random_u64(own, 3), count).astype(np.int64)
    drawn = _column(a, digits_a), _column(b, digits_b)
    return Coordinates(*drawn, selector, len_a, len_b)  # type: ignore[arg-type]


def index_number(counter: U64, key: U64) -> U64:
    """Return the number whose digits are a candidate's index digits, lowest first in a, then in b."""
    return permuted(counter, np.full(len(counter), 10**INDEX_DIGITS, np.uint64), key)


def index_places(law: OperandDistribution, digits_a: I64) -> I64:
    """Return how many index digits stand in a; the others stand in b."""
    free: I64 = digits_a if law.padded_a else np.maximum(digits_a - 1, 0)
    return free


def _column(planes: U8 | None, digits: I64) -> Number | None:
    return None if planes is None else Number(planes, digits.copy())


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
