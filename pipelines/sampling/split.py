"""The split function: which side an expression stands on, from the expression alone.

    u(x)    = mix(sum of digit_k * K_k  +  len(x) * LENGTH)            over the digits of x, units first, mod 2**64
    h       = mix(u(a) + mix(u(b) + KEY_task))                        u(a) <= u(b) swapped for add, mul and equal
    K_k     = mix(2026 + k) | 1, LENGTH = mix(1000003), KEY_task = FNV-1a of the name, mixed; u(b) = 0 without b
    stress    both operands are 10**k, 10**k + 1 or 10**k - 1 of three digits or more; or, in a class of more than 1,000
              expressions, h below a fortieth of 2**64 (a quarter of the test side, so that test and stress never meet)
    test      h below a tenth of 2**64; in a class of up to 1,000 expressions those with the lowest tenth of the hashes
    train     the others

``mix`` is SplitMix64's finaliser, ``random.splitmix64``. Changing anything here changes every dataset ever built: see
``versions.SPLIT_VERSION``.
"""

from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np

from ...tm import machine
from ...tm.classes import OperandDistribution
from ...tm.columns import I64, Number, Operands
from ...tm.machine import Machine
from .index_space import coordinates, sizes
from .laws import class_parts
from .random import U64, splitmix64, splitmix64_int, text_key
from .stress import reserved

SIDES = ("train", "test", "stress")
TRAIN, TEST, STRESS = range(3)
SMALL = 1_000  # expressions: a class of up to so many is cut by rank
CUT = 2**64 // 10
STRESS_CUT = CUT // 4
LENGTH = splitmix64_int(1_000_003)
TOGETHER = 8_192  # numbers whose digits are floats at a time: eight times the memory
PAIR = 1 << 20  # packs two lengths into one integer
_PIECES = 3  # of 22 bits: a sum of 1,000 digits times a piece is exact in a float64, so BLAS does the sums


@cache
def digit_keys(width: int) -> U64:
    """Return K_0 .. K_(width - 1)."""
    return np.array([splitmix64_int(2026 + k) | 1 for k in range(width)], np.uint64)


@cache
def _weights(width: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    keys = digit_keys(width)
    pieces = [(keys >> np.uint64(22 * piece)) & np.uint64(0x3FFFFF) for piece in range(_PIECES)]
    return np.stack(pieces).astype(np.float64)


def digit_sums(number: Number) -> U64:
    """Return what ``u`` mixes: the sum of digit_k * K_k, plus the length's share, mod 2**64."""
    width = -(-number.width // 32) * 32
    weights = _weights(width)[:, : number.width]
    total = number.length.astype(np.uint64) * np.uint64(LENGTH)
    for start in range(0, len(total), TOGETHER):
        own = slice(start, start + TOGETHER)
        sums = weights @ number.planes[:, own].astype(np.float64)
        for piece in range(_PIECES):
            total[own] += sums[piece].astype(np.uint64) << np.uint64(22 * piece)
    return total


def hash_of_sums(found: Machine, a: U64, b: U64 | None) -> U64:
    """Return the 64-bit hash of expressions with these digit sums."""
    first = splitmix64(a)
    second = np.zeros_like(first) if b is None else splitmix64(b)
    if found.commutative:
        first, second = np.minimum(first, second), np.maximum(first, second)
    return splitmix64(first + splitmix64(second + np.uint64(text_key(found.name))))


def expression_hash(found: Machine, operands: Operands) -> U64:
    """Return the 64-bit hash of each expression, shape (n,)."""
    return hash_of_sums(found, digit_sums(operands.a), None if operands.b is None else digit_sums(operands.b))


def side_codes(found: Machine, operands: Operands, hashes: U64) -> I64:
    """Return the side of each expression as an index into ``SIDES``, shape (n,)."""
    cut, stress_cut = np.full(len(operands), CUT, np.uint64), np.full(len(operands), STRESS_CUT, np.uint64)
    len_b = np.zeros_like(operands.a.length) if operands.b is None else operands.b.length
    pairs = operands.a.length * PAIR + len_b
    for pair in np.unique(pairs).tolist():
        cuts = _cuts(found, pair // PAIR, pair % PAIR)
        if cuts:
            rows = np.flatnonzero(pairs == pair)
            own = operands.take(rows)
            for law, low in cuts:
                mine = rows[law.holds(own)]
                cut[mine], stress_cut[mine] = low, 0
    side = np.where(hashes < cut, TEST, TRAIN)
    return np.where(reserved(operands) | (hashes < stress_cut), STRESS, side)


@lru_cache(maxsize=1 << 18)
def _cuts(found: Machine, len_a: int, len_b: int) -> tuple[tuple[OperandDistribution, int], ...]:
    """Return the laws of a class's parts of up to 1,000 expressions, with the first hash above the lowest tenth."""
    small = []
    for _, _, law in class_parts(found, len_a, len_b):
        if law.size(len_a, len_b) <= SMALL:
            operands = every(law, len_a, len_b)
            small.append((law, np.unique(expression_hash(found, operands)[~reserved(operands)])))
    if small and all(len(hashes) < 10 for _, hashes in small):  # together they may be ten (reflection of one digit)
        pooled = np.unique(np.concatenate([hashes for _, hashes in small]))
        small = [(law, pooled) for law, _ in small]
    return tuple((law, int(hashes[len(hashes) // 10]) if len(hashes) >= 10 else 0) for law, hashes in small)


def every(law: OperandDistribution, len_a: int, len_b: int) -> Operands:
    """Return every expression of a small part of a class, some more than once where the law is not injective."""
    len_a_column, len_b_column = np.array([len_a]), np.array([len_b])
    total = int(sizes(law, len_a_column, len_b_column).prod())
    rows = np.arange(total, dtype=np.uint64)
    draw = coordinates(law, rows, np.full(total, len_a), np.full(total, len_b))
    operands, kept = law.shape(draw)
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
    found = machine(task)
    second = None if found.unary else Number.of([text for text in b if text is not None])
    operands = Operands(Number.of(a), second)
    codes = side_codes(found, operands, expression_hash(found, operands))
    return [SIDES[code] for code in codes.tolist()]
