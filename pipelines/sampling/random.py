"""Counter-based random numbers: every value is a documented function of a key and a counter, of nothing else.

The mixer is SplitMix64's finaliser (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
No library's generator is used: rows must not change with a library's version.
"""

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
GOLDEN = 0x9E3779B97F4A7C15
_GOLDEN = np.uint64(GOLDEN)
_MASK = (1 << 64) - 1
_M1, _M2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def splitmix64(values: U64) -> U64:
    """Return a bijective 64-bit mix of each value."""
    x = values + _GOLDEN
    x ^= x >> np.uint64(30)
    x *= np.uint64(_M1)
    x ^= x >> np.uint64(27)
    x *= np.uint64(_M2)
    x ^= x >> np.uint64(31)
    return x


def splitmix64_int(value: int) -> int:
    """Return ``splitmix64`` of one Python integer."""
    x = (value + GOLDEN) & _MASK
    x = ((x ^ (x >> 30)) * _M1) & _MASK
    x = ((x ^ (x >> 27)) * _M2) & _MASK
    return x ^ (x >> 31)


def text_key(text: str) -> int:
    """Return a 64-bit key of a text: FNV-1a over its UTF-8 bytes, mixed."""
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & _MASK
    return splitmix64_int(value)


def random_u64(key: U64, counter: int) -> U64:
    """Return word ``counter`` of the stream of each key."""
    return splitmix64(key + np.uint64((counter * 0xD1342543DE82EF95) & _MASK))


def random_below(word: U64, size: NDArray[np.int64] | NDArray[np.uint64]) -> U64:
    """Return integers of [0, size) from random words, sizes up to 2**31: the product's high half (bias < 2**-32)."""
    narrow: U64 = ((word >> np.uint64(32)) * size.astype(np.uint64)) >> np.uint64(32)
    return narrow


def _digit_table() -> NDArray[np.uint32]:
    numbers = np.arange(10_000)
    digits = np.stack([numbers // 10**k % 10 for k in range(4)], axis=1).astype(np.uint8)
    return np.ascontiguousarray(digits).view(np.uint32)[:, 0]


_DIGITS = _digit_table()


def digit_planes(key: U64, width: int) -> NDArray[np.uint8]:
    """Return uniform decimal digits, shape (width, n): four a 32-bit half word (bias < 10**-5 of a digit's weight)."""
    num_words = -(-width // 8)
    counters = np.arange(num_words, dtype=np.uint64) * np.uint64(0xD1342543DE82EF95)
    halves = splitmix64(key[:, None] + counters).view(np.uint32)
    numbers = (halves.astype(np.uint64) * np.uint64(10_000)) >> np.uint64(32)
    digits = _DIGITS[numbers.astype(np.int64)].view(np.uint8)
    return np.ascontiguousarray(digits[:, :width].T)
