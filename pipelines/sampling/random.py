"""Counter-based random numbers: every value is a documented function of a key and a counter, of nothing else.

The mixer is SplitMix64's finaliser (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
No library's generator is used: rows must not change with a library's version.
"""

import numpy as np
from numpy.typing import NDArray

from ...tm.columns import I64, U8, U64

GOLDEN = 0x9E3779B97F4A7C15
_WEYL = 0xD1342543DE82EF95  # step from one counter to the next
_MASK = (1 << 64) - 1
IN_CACHE = 512  # keys whose digits are drawn together

# The four digits of each number below 10,000, units first, as the bytes of one integer.
_FOUR_DIGITS: NDArray[np.uint32] = np.ascontiguousarray(
    np.stack([np.arange(10_000) // 10**k % 10 for k in range(4)], axis=1).astype(np.uint8)
).view(np.uint32)[:, 0]


def splitmix64(values: U64) -> U64:
    """Return a bijective 64-bit mix of each value."""
    x = values + np.uint64(GOLDEN)
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def splitmix64_int(value: int) -> int:
    """Return ``splitmix64`` of one Python integer."""
    return int(splitmix64(np.array([value], np.uint64))[0])


def text_key(text: str) -> int:
    """Return a 64-bit key of a text: FNV-1a over its UTF-8 bytes, mixed."""
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & _MASK
    return splitmix64_int(value)


def random_u64(key: U64, counter: int) -> U64:
    """Return word ``counter`` of the stream of each key."""
    return splitmix64(key + np.uint64((counter * _WEYL) & _MASK))


def random_below(word: U64, size: I64 | U64) -> U64:
    """Return integers of [0, size) from random words, sizes up to 2**31: the product's high half (bias < 2**-32)."""
    narrow: U64 = ((word >> np.uint64(32)) * size.astype(np.uint64)) >> np.uint64(32)
    return narrow


def digit_planes(key: U64, width: int) -> U8:
    """Return uniform decimal digits, shape (width, n): four a 32-bit half word (bias < 10**-5 of a digit's weight)."""
    counters = np.arange(-(-width // 8), dtype=np.uint64) * np.uint64(_WEYL)
    planes = np.empty((width, len(key)), np.uint8)
    for start in range(0, len(key), IN_CACHE):  # what is made on the way stays in the processor's cache: three times
        part = slice(start, start + IN_CACHE)
        halves = splitmix64(key[part, None] + counters).view(np.uint32)
        numbers = (halves.astype(np.uint64) * np.uint64(10_000)) >> np.uint64(32)
        planes[:, part] = _FOUR_DIGITS[numbers.astype(np.int64)].view(np.uint8)[:, :width].T
    return planes
