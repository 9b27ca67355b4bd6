"""Columns of natural numbers as digit planes, exact at any length, with the arithmetic that the machines need.

A plane is the k-th digit of every number at once (uint8, one value a row), so a carry runs over planes and numpy does
all rows in one instruction stream; a 100-digit addition of 20,000 rows takes 100 short loops, not 20,000 long ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

SPARE = 12  # bytes behind a column's texts: whoever reads so many from any place stays inside
LIMB = 8  # digits a limb: products of two limbs stay below 10**16, so 1,800 of them add up inside a uint64


class Number:
    """A column of ``n`` natural numbers.

    Args:
        planes: digits, shape (width, n), least significant first, zero beyond a number's length.
        length: digits of each number, shape (n,); 0 has length 1. Computed when left out.
    """

    def __init__(self, planes: U8, length: I64 | None = None) -> None:
        self.planes = planes
        self.length = length_of(planes) if length is None else length

    def __len__(self) -> int:
        return int(self.planes.shape[1])

    @property
    def width(self) -> int:
        return int(self.planes.shape[0])

    @classmethod
    def of(cls, values: Sequence[int | str]) -> "Number":
        """Make a column from Python integers or decimal strings without leading zeros."""
        texts = [str(value) for value in values]
        length = np.array([len(text) for text in texts], np.int64)
        width = int(length.max(initial=1))
        flat = "".join([text.rjust(width, "0") for text in texts]).encode()
        matrix = np.frombuffer(flat, np.uint8).reshape(len(texts), width) - np.uint8(48)
        return cls(np.ascontiguousarray(matrix[:, ::-1].T), length)

    def take(self, rows: I64) -> "Number":
        length = self.length[rows]
        width = int(length.max(initial=1))
        return Number(self.planes[:width].take(rows, axis=1), length)

    def digit(self, rows: I64, position: I64) -> U8:
        """Return the digit at ``position`` (0 = units; 0 beyond the planes) of the numbers at ``rows``."""
        inside = position < self.width
        digits: U8 = self.planes[np.where(inside, position, 0), rows]
        return np.where(inside, digits, np.uint8(0))

    def is_zero(self) -> Bool:
        return (self.length == 1) & (self.planes[0] == 0)

    def integers(self) -> list[int]:
        return [int(text) for text in self.decimals()]

    def decimals(self) -> list[str]:
        width = self.width
        flat = self.reading.tobytes().decode()
        return [flat[(r + 1) * width - n : (r + 1) * width] for r, n in enumerate(self.length.tolist())]

    @cached_property
    def tape(self) -> U8:
        """The tapes ``|d|d|d``, units first, one row of 2 * width bytes after the other; then ``SPARE`` bytes."""
        cells = np.zeros(self.planes.size + SPARE // 2, "<u2")  # two bytes a cell: the bar, then the digit
        digits = cells[: self.planes.size].reshape(self.planes.shape[::-1])
        digits[:] = np.ascontiguousarray(self.planes.T)
        digits <<= 8
        digits += ord("0") << 8 | ord("|")
        return cells.view(np.uint8)

    @cached_property
    def reading(self) -> U8:
        """The digits in reading order, right-aligned in rows of ``width`` bytes, zeros on the left; ``SPARE`` bytes."""
        digits = np.zeros(self.planes.size + SPARE, np.uint8)
        digits[: self.planes.size].reshape(self.planes.shape[::-1])[:] = self.planes[::-1].T
        digits += ord("0")
        return digits


@dataclass(frozen=True, eq=False)
class Operands:
    """A column of expressions: ``a`` and, except for helpers with one operand, ``b``."""

    a: Number
    b: Number | None

    def __len__(self) -> int:
        return len(self.a)

    @property
    def numbers(self) -> tuple[Number, ...]:
        """The columns that there are."""
        return (self.a,) if self.b is None else (self.a, self.b)

    def take(self, rows: I64) -> "Operands":
        """Return the expressions at ``rows``."""
        return Operands(self.a.take(rows), None if self.b is None else self.b.take(rows))

    def rows(self, part: slice) -> "Operands":
        """Return the expressions of a slice; nothing is copied."""
        a = Number(self.a.planes[:, part], self.a.length[part])
        return Operands(a, None if self.b is None else Number(self.b.planes[:, part], self.b.length[part]))

    @property
    def second(self) -> Number:
        """The column b of a task with two operands."""
        if self.b is None:
            raise ValueError("this task has one operand")
        return self.b


def length_of(planes: U8, most: I64 | None = None) -> I64:
    """Return how many digits each column of ``planes`` has; 0 has one.

    Args:
        planes: digits, shape (width, n).
        most: lengths that are not exceeded, shape (n,). Close bounds make this a look at a digit or two a row.
    """
    if most is None:
        length = np.ones(planes.shape[1], np.int64)
        for k in range(1, planes.shape[0]):
            np.copyto(length, k + 1, where=planes[k] != 0)
        return length
    length = np.maximum(most, 1)
    rows = np.arange(len(length))
    while len(rows):
        rows = rows[(planes[length[rows] - 1, rows] == 0) & (length[rows] > 1)]
        length[rows] -= 1
    return length


def widen(planes: U8, width: int) -> U8:
    """Return ``planes`` with at least ``width`` planes, zeros above."""
    missing = width - planes.shape[0]
    return planes if missing <= 0 else np.concatenate([planes, np.zeros((missing, planes.shape[1]), np.uint8)])


def stacked(numbers: Sequence[Number]) -> Number:
    """Return columns one after the other."""
    width = max(number.width for number in numbers)
    planes = np.concatenate([widen(number.planes, width) for number in numbers], axis=1)
    return Number(planes, np.concatenate([number.length for number in numbers]))


def add(x: Number, y: Number) -> tuple[Number, Bool]:
    """Return x + y and the carries, shape (width + 1, n): plane k is the carry into digit k."""
    width = max(x.width, y.width)
    total = np.zeros((width + 1, len(x)), np.uint8)
    total[: x.width] = x.planes
    total[: y.width] += y.planes
    carry = np.zeros((width + 1, len(x)), np.bool_)
    for digit, into, over in zip(total, carry, carry[1:], strict=False):
        digit += into.view(np.uint8)
        np.greater_equal(digit, 10, out=over)
    total[width] = carry[width]
    total[:width] -= carry[1:].view(np.uint8) * np.uint8(10)
    longest = np.maximum(x.length, y.length)
    return Number(total, longest + carry[longest, np.arange(len(x))]), carry


def subtract(x: Number, y: Number) -> Number:
    """Return x - y; every x must be at least y."""
    difference = x.planes + np.uint8(10)
    difference[: y.width] -= y.planes[: x.width]
    borrow = np.zeros((x.width + 1, len(x)), np.bool_)
    for digit, into, over in zip(difference, borrow, borrow[1:], strict=False):
        digit -= into.view(np.uint8)
        np.less(digit, 10, out=over)
    difference -= ~borrow[1:] * np.uint8(10)
    return Number(difference, length_of(difference, x.length))


def compare(x: Number, y: Number) -> NDArray[np.int8]:
    """Return -1, 0 or 1 a row: the sign of x - y."""
    sign = np.sign(x.length - y.length).astype(np.int8)
    rows = np.flatnonzero(sign == 0)
    place = x.length[rows] - 1
    while len(rows):
        sign[rows] = step = np.sign(x.planes[place, rows].view(np.int8) - y.planes[place, rows].view(np.int8))
        same = (step == 0) & (place > 0)
        rows, place = rows[same], place[same] - 1
    return sign


def equal(x: Number, y: Number) -> Bool:
    """Tell which rows hold the same number."""
    same = x.length == y.length
    rows = np.flatnonzero(same)
    if len(rows):
        same[rows] = (x.take(rows).planes == y.take(rows).planes).all(axis=0)
    return same


def multiply(x: Number, y: Number) -> Number:
    """Return x * y (schoolbook over limbs of 8 digits)."""
    a, b = _limbs(x.planes), _limbs(y.planes)
    total = np.zeros((len(a) + len(b), len(x)), np.uint64)
    product = np.empty_like(b)
    for i, limb in enumerate(a):
        np.multiply(limb, b, out=product)
        total[i : i + len(b)] += product
    for k in range(len(total) - 1):
        over = total[k] // np.uint64(10**LIMB)
        total[k] -= over * np.uint64(10**LIMB)
        total[k + 1] += over
    width = x.width + y.width
    digits = np.empty((len(total), LIMB, len(x)), np.uint8)
    rest = total.astype(np.uint32)
    for d in range(LIMB):
        above = rest // np.uint32(10)
        digits[:, d] = rest - above * np.uint32(10)
        rest = above
    planes = digits.reshape(-1, len(x))
    most = np.where(x.is_zero() | y.is_zero(), 1, x.length + y.length)
    return Number(planes[:width], length_of(planes, most))


def _limbs(planes: U8) -> U64:
    """Return the numbers in base 10**8, shape (limbs, n), least significant first."""
    padded = widen(planes, -(-planes.shape[0] // LIMB) * LIMB)
    digits = padded.reshape(-1, LIMB, padded.shape[1])
    limbs = np.zeros((len(digits), padded.shape[1]), np.uint32)
    for d in reversed(range(LIMB)):
        limbs *= np.uint32(10)
        limbs += digits[:, d]
    return limbs.astype(np.uint64)


def nines(length: I64) -> Number:
    """Return the column of 10**length - 1."""
    width = int(length.max(initial=1))
    below = np.arange(width)[:, None] < length
    return Number(below.astype(np.uint8) * np.uint8(9), length)
