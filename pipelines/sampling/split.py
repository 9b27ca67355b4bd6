"""The split function: which side an expression stands on, from the expression alone.

    u(x)    = mix(sum of digit_k * K_k  +  len(x) * LENGTH)            over the digits of x, units first, mod 2**64
    h       = mix(u(a) + mix(u(b) + KEY_task))                        u(a) <= u(b) swapped for add, mul and equal
    K_k     = mix(2026 + k) | 1, LENGTH = mix(1000003), KEY_task = FNV-1a of the name, mixed; u(b) = 0 without b
    stress    both operands are 10**k, 10**k + 1 or 10**k - 1 of three digits or more; or, in a class of more than 1,000
              expressions, h below a fortieth of 2**64 (a quarter of the test side, so that test and stress never meet)
    test      h below a tenth of 2**64; in a class of up to 1,000 expressions those with the lowest tenth of the hashes
    train     the others

Of a Turing machine that a declaration brings x is a word, the codes of its symbols from the left, and the key is that
of the machine's rules. Its words are test where h is below a tenth, whatever other words there are, else train;
a machine that is split as a whole has all its words on its own side.

``mix`` is SplitMix64's finaliser, ``random.splitmix64``. Changing anything here changes every dataset ever built: see
``versions.SPLIT_VERSION``.
"""

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ...tm import machine
from ...tm.classes import OperandDistribution
from ...tm.columns import I64, U64, Bool, Number, Operands
from ...tm.machine import Machine
from .index_space import IndexSpace
from .laws import class_parts
from .random import splitmix64, splitmix64_int, text_key
from .stress import reserved

SIDES = ("train", "test", "stress")
TRAIN, TEST, STRESS = range(3)
SMALL = 1_000  # expressions: a class of up to so many is cut by rank
CUT = 2**64 // 10
STRESS_CUT = CUT // 4
LENGTH = splitmix64_int(1_000_003)
TOGETHER = 1 << 18  # digits that are floats at a time: more, and BLAS would start threads, which take longer
PAIR = 1 << 20  # packs two lengths into one integer
MOST_LARGE = 1 << 18  # classes that are remembered to be large
_PIECES = 3  # of 22 bits: a sum of 1,000 digits times a piece is exact in a float64, so BLAS does the sums


def distinct(values: NDArray[Any]) -> NDArray[Any]:
    """Return the distinct values of an array, sorted."""
    return np.unique(values, return_counts=True)[0]  # without counts its first call imports numpy.ma: 9 ms of a start


def grouped(values: I64) -> Iterator[tuple[int, I64]]:
    """Yield each distinct value, in their order, with the places where it stands."""
    low, high = int(values.min(initial=1 << 62)), int(values.max(initial=-1))
    if low == high:
        yield low, np.arange(len(values))
        return
    near = 0 <= high - low < len(values)  # then nothing must be sorted
    found = low + np.flatnonzero(np.bincount(values - low)) if near else distinct(values)
    for value in found.tolist():
        yield value, np.flatnonzero(values == value)


_large: WeakKeyDictionary[Machine, set[int]] = WeakKeyDictionary()  # the classes that are known to be large


@cache
def digit_keys(width: int) -> U64:
    """Return K_0 .. K_(width - 1)."""
    return splitmix64(np.arange(2026, 2026 + width, dtype=np.uint64)) | np.uint64(1)


@cache
def _weights(width: int) -> NDArray[np.float64]:
    keys = digit_keys(width)
    pieces = [(keys >> np.uint64(22 * piece)) & np.uint64(0x3FFFFF) for piece in range(_PIECES)]
    return np.stack(pieces).astype(np.float64)


def digit_sums(number: Number) -> U64:
    """Return what ``u`` mixes: the sum of digit_k * K_k, plus the length's share, mod 2**64."""
    width = -(-number.width // 32) * 32
    weights = _weights(width)[:, : number.width]
    total = number.length.astype(np.uint64) * np.uint64(LENGTH)
    step = max(64, TOGETHER // max(1, number.width))
    for start in range(0, len(total), step):
        own = slice(start, start + step)
        sums = weights @ number.planes[:, own].astype(np.float64)
        for piece in range(_PIECES):
            total[own] += sums[piece].astype(np.uint64) << np.uint64(22 * piece)
    return total


def hash_of_sums(own: Machine, a: U64, b: U64 | None = None) -> U64:
    """Return the 64-bit hash of expressions with these digit sums."""
    first = splitmix64(a)
    second = np.zeros_like(first) if b is None else splitmix64(b)
    if own.commutative:
        first, second = np.minimum(first, second), np.maximum(first, second)
    return splitmix64(first + splitmix64(second + np.uint64(text_key(own.split_key))))


def expression_hash(own: Machine, operands: Operands) -> U64:
    """Return the 64-bit hash of each expression, shape (n,)."""
    return hash_of_sums(own, *(digit_sums(number) for number in operands.numbers))


def side_codes(own: Machine, operands: Operands) -> I64:
    """Return the side of each expression as an index into ``SIDES``, shape (n,)."""
    if own.side is not None:  # a machine that is split as a whole
        return np.full(len(operands), SIDES.index(own.side))
    hashes = expression_hash(own, operands)
    if not own.numbers:  # by the hash alone: which other words there are has no say
        return np.where(hashes < CUT, TEST, TRAIN)
    cut, stress_cut = np.full(len(operands), CUT, np.uint64), np.full(len(operands), STRESS_CUT, np.uint64)
    pairs = operands.a.length * PAIR
    if operands.b is not None:
        pairs = pairs + operands.b.length
    large = _large.setdefault(own, set())
    for pair in {*pairs.tolist()} - large:
        cuts = _cuts(own, pair // PAIR, pair % PAIR)
        if not cuts:
            large.add(pair)
            if len(large) > MOST_LARGE:
                large.clear()
            continue
        rows = np.flatnonzero(pairs == pair)
        some = operands.take(rows)
        for part, low in cuts:
            mine = rows[part.holds(some)]
            cut[mine], stress_cut[mine] = low, 0
    side = np.where(hashes < cut, TEST, TRAIN)
    return np.where(reserved(operands) | (hashes < stress_cut), STRESS, side)


def on_side(own: Machine, operands: Operands, split: str) -> Bool:
    """Tell which expressions stand in a split."""
    return side_codes(own, operands) == SIDES.index(split)


@lru_cache(maxsize=1 << 18)
def _cuts(own: Machine, len_a: int, len_b: int) -> tuple[tuple[OperandDistribution, int], ...]:
    """Return the parts of a class of up to 1,000 expressions, each with the first hash above its lowest tenth."""
    small = []
    for _, _, part in class_parts(own, len_a, len_b):
        if part.size(len_a, len_b) <= SMALL:
            operands = every(part, len_a, len_b)
            small.append((part, distinct(expression_hash(own, operands)[~reserved(operands)])))
    if small and all(len(hashes) < 10 for _, hashes in small):  # together they may be ten (reflection of one digit)
        pooled = distinct(np.concatenate([hashes for _, hashes in small]))
        small = [(part, pooled) for part, _ in small]
    return tuple((part, int(hashes[len(hashes) // 10]) if len(hashes) >= 10 else 0) for part, hashes in small)


def every(part: OperandDistribution, len_a: int, len_b: int) -> Operands:
    """Return every expression of a small part of a class, some more than once where it is not injective."""
    total = int(IndexSpace(part, np.array([len_a]), np.array([len_b])).size[0])
    space = IndexSpace(part, np.full(total, len_a), np.full(total, len_b))
    operands, kept = part.shape(space.coordinates(np.arange(total, dtype=np.uint64)))
    return operands.take(np.flatnonzero(kept))


def sides(task: str, a: Sequence[str], b: Sequence[str | None]) -> list[str]:
    """Return the side (``train``, ``test`` or ``stress``) of each expression.

    Args:
        task: name of the task.
        a: first operands, decimal strings.
        b: second operands; None for a task with one operand.
    """
    if not len(a):
        return []
    own = machine(task)
    second = None if own.unary else Number.of([text for text in b if text is not None])
    return [SIDES[code] for code in side_codes(own, Operands(own.column(a), second)).tolist()]
