"""Numbers as they stand on tapes, and where two texts part."""

from functools import lru_cache

from ...errors import quoted

HALT = "No command to execute. Halt state."
_CHUNK = 4_000  # Python refuses to convert more than 4,300 digits at once
_LIMIT = 10**_CHUNK


def number(digits: str) -> int:
    """Return the value of a decimal string of any length."""
    if len(digits) <= _CHUNK:
        return int(digits)
    low = len(digits) // 2
    return number(digits[:-low]) * int(10**low) + number(digits[-low:])


def decimal(value: int) -> str:
    """Return a non-negative integer of any size in decimal."""
    if value < _LIMIT:
        return str(value)
    half = (value.bit_length() * 30103 // 100_000) // 2
    high, low = divmod(value, 10**half)
    return decimal(high) + decimal(low).zfill(half)


def written(digits: str) -> str:
    """Return a decimal string as it stands on a tape: ``120`` -> ``|0|2|1``; an empty one gives nothing."""
    return digits[::-1].replace("", "|")[:-1]


@lru_cache(512)  # the prompt and the completion of a step show the same registers
def tape(value: int) -> str:
    """Return a non-negative integer as it stands on a tape."""
    return written(str(value) if value < _LIMIT else decimal(value))


def shown(value: object) -> str:
    """Return a value for a message; Python refuses to print integers of more than 4,300 digits."""
    if type(value) is int and abs(value) >= 10**30:
        return f"a number of {value.bit_length():,} bits"
    return str(value) if type(value) is int else quoted(value)


def difference(expected: str, found: str) -> str:
    """Say where two texts part and what stands there: ``line 1, column 7: expected '..', found '..'``."""
    at = next((i for i, (x, y) in enumerate(zip(expected, found, strict=False)) if x != y), None)
    at = min(len(expected), len(found)) if at is None else at
    line, column = expected.count("\n", 0, at) + 1, at - (expected.rfind("\n", 0, at) + 1) + 1
    ends = "the end of the text"
    want, have = (quoted(text[at : at + 200], 30) if text[at:] else ends for text in (expected, found))
    return f"line {line}, column {column}: expected {want}, found {have}"
