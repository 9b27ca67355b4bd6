"""Random turns of a loop of any length: uniform, and uniform in the logarithm so that short counters are seen.

Integer arithmetic only: a floating-point logarithm differs in its last bit from one processor to the next, rows must
not.
"""

from decimal import Decimal, localcontext
from functools import cache

import numpy as np
from numpy.typing import NDArray

from .columns import I64, Number, compare, length_of, widen
from .random import U64, below, digit_planes, words

PARTS = 4096  # table entries a decade
LEADING = 15  # digits of a table entry


def uniform(limit: Number, key: U64) -> Number:
    """Return integers of [1, limit), shape (n,); every limit must be at least 2."""
    planes = np.zeros((limit.width, len(key)), np.uint8)
    length = limit.length.copy()
    again = np.arange(len(key))
    attempt = 0
    while len(again):
        high = limit.take(again)
        drawn = digit_planes(words(key[again], 2 * attempt + 2), high.width)
        drawn *= np.arange(high.width)[:, None] < high.length
        top = (high.length - 1, np.arange(len(again)))
        first = below(words(key[again], 2 * attempt + 3), high.planes[top].astype(np.int64) + 1)
        drawn[top] = first.astype(np.uint8)
        planes[:, again] = widen(drawn, limit.width)
        found = Number(drawn, length_of(drawn, high.length))
        length[again] = found.length
        again = again[(compare(found, high) >= 0) | found.is_zero()]
        attempt += 1
    return Number(planes, length)


@cache
def _powers() -> NDArray[np.int64]:
    """Return 10**(LEADING - 1 + j / PARTS) rounded down, j = 0..PARTS."""
    with localcontext() as context:
        context.prec = 60
        ratio = Decimal(10) ** (Decimal(1) / PARTS)
        power, powers = Decimal(10) ** (LEADING - 1), []
        for _ in range(PARTS):
            powers.append(int(power))
            power *= ratio
    return np.array([*powers, 10**LEADING], np.int64)


def log_uniform(limit: Number, key: U64) -> Number:
    """Return integers of [1, limit), uniform in their logarithm (rounded down); every limit must be at least 2."""
    rows = np.arange(len(key))
    leading = np.zeros(len(key), np.int64)
    for back in range(1, LEADING + 1):
        place = limit.length - back
        leading = leading * 10 + np.where(place >= 0, limit.digit(rows, np.maximum(place, 0)), 0)
    decades = (limit.length - 1) * PARTS + np.searchsorted(_powers(), leading, "right") - 1
    # The exponent in 1/PARTS of a decade, with 20 more bits to interpolate between the table's entries.
    exponent = (words(key, 1) >> np.uint64(32)) * decades.astype(np.uint64)
    entry = (exponent >> np.uint64(32)).astype(np.int64)
    between = ((exponent & np.uint64(0xFFFFFFFF)) >> np.uint64(12)).astype(np.int64)
    low, high = _powers()[entry % PARTS], _powers()[entry % PARTS + 1]
    mantissa = low + ((high - low) * (between >> 4) >> 16)
    drawn = _assembled(mantissa, entry // PARTS + 1, limit.width, key)
    over = compare(drawn, limit) >= 0  # only where the table's rounding meets the limit itself
    planes, length = drawn.planes, drawn.length
    planes[:, over] = 0
    planes[0, over] = 1
    length[over] = 1
    return Number(planes, length)


def _assembled(mantissa: I64, length: I64, width: int, key: U64) -> Number:
    """Return numbers of the given lengths: leading digits from the mantissa, random ones below."""
    planes = digit_planes(words(key, 2), width)
    planes *= np.arange(width)[:, None] < length
    rows = np.arange(len(key))
    for back in range(1, LEADING + 1):
        place = length - back
        here = place >= 0
        digit = mantissa // 10 ** (LEADING - back) % 10
        planes[place[here], rows[here]] = digit[here].astype(np.uint8)
    return Number(planes, length.copy())
