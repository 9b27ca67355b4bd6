"""The split function: which side an expression stands on, from the expression alone.

    u(x)    = mix(sum of digit_k * K_k  +  len(x) * LENGTH)            over the digits of x, units first, mod 2**64
    h       = mix(u(a) + mix(u(b) + KEY_task))                        u(a) <= u(b) swapped for add, mul and equal
    K_k     = mix(2026 + k) | 1, LENGTH = mix(1000003), KEY_task = FNV-1a of the name, mixed; u(b) = 0 without b
    stress    both operands are 10**k, 10**k + 1 or 10**k - 1 of three digits or more
    test      h below the cut: a tenth of 2**64; in a class of up to 1,000 expressions the hash after the lowest tenth
    train     the others

``mix`` is SplitMix64's finaliser (``tm.random``). Changing anything here changes every dataset ever built: see
``versions.SPLIT_VERSION``.
"""

from collections.abc import Sequence
from functools import cache, lru_cache

import numpy as np

from ..tm import machine
from ..tm.batch import Operands
from ..tm.classes import Draw, Law
from ..tm.columns import I64, Number
from ..tm.machine import Machine
from ..tm.random import U64, mix, mix_one, text_key
from ..tm.stress import reserved
from .boxes import coordinates, sizes

SIDES = ("train", "test", "stress")
TRAIN, TEST, STRESS = range(3)
SMALL = 1_000  # expressions: a class of up to so many is cut by rank
CUT = 2**64 // 10
LENGTH = mix_one(1_000_003)
_PIECES = 3  # of 22 bits: a sum of 1,000 digits times a piece is exact in a float64, so BLAS does the sums


@cache
def _weights(width: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    keys = [mix_one(2026 + k) | 1 for k in range(width)]
    return np.array([[(key >> (22 * piece)) & 0x3FFFFF for piece in range(_PIECES)] for key in keys], np.float64)


def _number_hash(number: Number) -> U64:
    width = -(-number.width // 32) * 32
    sums = number.planes.T.astype(np.float64) @ _weights(width)[: number.width]
    total = number.length.astype(np.uint64) * np.uint64(LENGTH)
    for piece in range(_PIECES):
        total += sums[:, piece].astype(np.uint64) << np.uint64(22 * piece)
    return mix(total)


def expression_hash(found: Machine, operands: Operands) -> U64:
    """Return the 64-bit hash of each expression, shape (n,)."""
    first = _number_hash(operands.a)
    second = np.zeros_like(first) if operands.b is None else _number_hash(operands.b)
    if found.commutative:
        first, second = np.minimum(first, second), np.maximum(first, second)
    return mix(first + mix(second + np.uint64(text_key(found.name))))


def side_codes(found: Machine, operands: Operands, hashes: U64) -> I64:
    """Return the side of each expression as an index into ``SIDES``, shape (n,)."""
    cut = np.full(len(operands), CUT, np.uint64)
    len_b = np.zeros_like(operands.a.length) if operands.b is None else operands.b.length
    # Only classes of up to four digits in all can be small enough to be cut by rank (left_mask: of one operand).
    short = np.flatnonzero((operands.a.length <= 4) & (len_b <= 4))
    if len(short):
        pairs = operands.a.length[short] * 8 + len_b[short]
        for pair in np.unique(pairs).tolist():
            rows = short[pairs == pair]
            for law, low in _cuts(found, pair // 8, pair % 8):
                b = None if operands.b is None else operands.b.take(rows)
                cut[rows[law.holds(Operands(operands.a.take(rows), b))]] = low
    side = np.where(hashes < cut, TEST, TRAIN)
    return np.where(reserved(operands), STRESS, side)


@lru_cache(maxsize=4096)
def _cuts(found: Machine, len_a: int, len_b: int) -> tuple[tuple[Law, int], ...]:
    """Return the laws of a class's parts of up to 1,000 expressions, each with the first hash above its lowest tenth."""
    cuts = []
    for variant in found.variants(len_a, len_b):
        if variant.law.size(len_a, len_b) <= SMALL:
            operands = every(variant.law, len_a, len_b)
            hashes = np.unique(expression_hash(found, operands)[~reserved(operands)])
            low = int(hashes[len(hashes) // 10]) if len(hashes) >= 10 else 0
            cuts.append((variant.law, low))
    return tuple(cuts)


def every(law: Law, len_a: int, len_b: int) -> Operands:
    """Return every expression of a small part of a class, some more than once where the law is not injective."""
    len_a_column, len_b_column = np.array([len_a]), np.array([len_b])
    total = int(sizes(law, len_a_column, len_b_column).prod())
    rows = np.arange(total, dtype=np.uint64)
    draw: Draw = coordinates(law, rows, np.full(total, len_a), np.full(total, len_b))
    operands, kept = law.shape(draw)
    here = np.flatnonzero(kept)
    return Operands(operands.a.take(here), None if operands.b is None else operands.b.take(here))


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
