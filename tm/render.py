"""Fills templates with columns of parts: the text of thousands of rows at once, as one Arrow string array.

A row's text is a sequence of slices: literals from a small table and stretches of tapes. Each slice is a 16-byte view
(length, first bytes or buffer, offset) computed with numpy; Arrow's cast from views to plain strings then copies every
slice once, in C (about 8 ns a slice plus the copy where this was developed), and no text exists before it is written in
its place.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .columns import I64, SPARE, U8, Number

INLINE = SPARE  # bytes that an Arrow view holds itself
CHUNK = 4096  # rows whose views are made at once: they stay in the processor's cache
TABLE_LIMIT = 4096  # neighbouring choices are joined into one table up to this many strings
Words = NDArray[np.uint32]


class Template:
    """Literal text with ``{name}`` fields; the step machines fill the same text with ``str.format_map``.

    Args:
        source: the text; ``{name}`` stands for a part, anything else for itself.
        mark: what the part ``mark`` is where an output has no digits.
    """

    def __init__(self, source: str, mark: str = "") -> None:
        self.source, self.mark = source, mark

    def __add__(self, other: "Template") -> "Template":
        return Template(self.source + other.source)

    @cached_property
    def pieces(self) -> tuple[tuple[str, str], ...]:
        """The template as (literal, field name) pairs in order; the last pair may have an empty name."""
        found, at = [], 0
        for match in re.finditer(r"\{(\w+)\}", self.source):
            found.append((self.source[at : match.start()], match.group(1)))
            at = match.end()
        return (*found, (self.source[at:], ""))

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(name for _, name in self.pieces if name)


@dataclass(frozen=True, eq=False)
class Choice:
    """One of a few constant strings a row: ``strings[index[row]]``."""

    strings: tuple[str, ...]
    index: I64


@dataclass(frozen=True, eq=False)
class TapeSlice:
    """A stretch of a byte buffer a row: ``size`` bytes from ``offset``; ``SPARE`` bytes follow the last one."""

    buffer: U8
    offset: I64
    size: I64


Field = Choice | TapeSlice


def tape(number: Number, rows: I64) -> TapeSlice:
    """Return the whole tape of the numbers at ``rows``."""
    return TapeSlice(number.tape, rows * (2 * number.width), 2 * number.length[rows])


def halves(number: Number, rows: I64, head: I64) -> tuple[TapeSlice, TapeSlice]:
    """Return the cells before the head, ``L(a, k)``, and those from it on, ``R(a, k)``; a head stands behind all."""
    length, start = number.length[rows], rows * (2 * number.width)
    cut = 2 * np.minimum(head, length)
    return TapeSlice(number.tape, start, cut), TapeSlice(number.tape, start + cut, 2 * length - cut)


def low(number: Number, rows: I64, count: I64) -> TapeSlice:
    """Return the ``count`` lowest cells, zero padded above the number's length (``low(x, k)``)."""
    return TapeSlice(number.tape, rows * (2 * number.width), 2 * count)


def decimal(number: Number, rows: I64) -> TapeSlice:
    """Return the numbers at ``rows`` in reading order, without bars."""
    length = number.length[rows]
    return TapeSlice(number.reading, (rows + 1) * number.width - length, length)


@dataclass
class RowGroup:
    """Rows of one machine state: they share a template, their parts are columns.

    Args:
        rows: positions in the batch that the block fills, shape (m,).
        template: the text.
        parts: a part of m rows for every field.
        state: the machine's state.
        call: the machine that the text calls, if it does.
    """

    rows: I64
    template: Template
    parts: Mapping[str, Field]
    state: str = ""
    call: str | None = None
    pieces: list[Field] = field(init=False)

    def __post_init__(self) -> None:
        pieces: list[Field] = []
        for literal, name in self.template.pieces:
            if literal:
                pieces.append(Choice((literal,), _ZERO))
            if name:
                pieces.append(self.parts[name])
        self.pieces = _joined(pieces)


_ZERO = np.zeros(1, np.int64)


def _joined(pieces: Sequence[Field]) -> list[Field]:
    """Join neighbouring picks into one pick over the product of their strings: fewer slices, same text."""
    joined: list[Field] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if isinstance(last, Choice) and isinstance(piece, Choice):
            if len(last.strings) * len(piece.strings) <= TABLE_LIMIT:
                index = last.index * len(piece.strings) + piece.index
                joined[-1] = Choice(_products(last.strings, piece.strings), index)
                continue
        joined.append(piece)
    return joined


@lru_cache(maxsize=4096)
def _products(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(a + b for a, b in product(first, second))


@lru_cache(maxsize=4096)
def _table(strings: tuple[str, ...]) -> tuple[Words, U8]:
    """Return the views of constant strings, shape (n, 4), and the buffer of those too long to be inlined."""
    encoded = [text.encode() for text in strings]
    views = np.zeros((len(encoded), 4), np.uint32)
    at = 0
    for row, text in zip(views, encoded, strict=True):
        row[0] = len(text)
        if len(text) <= INLINE:
            row[1:] = np.frombuffer(text.ljust(INLINE, b"\0"), np.uint32)
        else:
            row[3] = at
        at += len(text)
    return views, np.frombuffer(b"".join(encoded), np.uint8)


_TEXT = np.dtype((np.void, INLINE))
Buffers = dict[int, tuple[int, U8]]  # what the views of one batch point into, each with its number, by its id


def _number(buffers: Buffers, buffer: U8) -> int:
    return buffers.setdefault(id(buffer), (len(buffers), buffer))[0]


def _write(views: Words, at: int, piece: Field, buffers: Buffers) -> None:
    """Write the views of piece ``at`` of each row, shape (m, pieces, 4).

    Slices of up to 12 bytes must be inlined, others point at a buffer.
    """
    own = views[:, at]
    if isinstance(piece, Choice):
        table, text = _table(piece.strings)
        if (table[:, 0] > INLINE).any():
            table = table.copy()
            table[table[:, 0] > INLINE, 2] = _number(buffers, text)
        # A view as one 16-byte number: numpy gathers those in one go.
        own.view(np.complex128)[:, 0] = table.view(np.complex128)[:, 0].take(piece.index)
        return
    own[:, 0] = piece.size
    own[:, 2] = _number(buffers, piece.buffer)
    own[:, 3] = piece.offset
    short = np.flatnonzero(piece.size <= INLINE)
    if len(short):  # the same with 12 bytes: from any place of the buffer to the end of the view
        texts = np.ndarray(len(piece.buffer) - INLINE + 1, _TEXT, piece.buffer, strides=1)
        np.ndarray(len(views), _TEXT, views, 16 * at + 4, views.strides[0])[short] = texts[piece.offset[short]]


def _rows(piece: Field, start: int) -> Field:
    """Return the part of one chunk of rows; a constant stays as it is."""
    rows = slice(start, start + CHUNK)
    if isinstance(piece, TapeSlice):
        return TapeSlice(piece.buffer, piece.offset[rows], piece.size[rows])
    return piece if len(piece.index) == 1 else Choice(piece.strings, piece.index[rows])


def render(blocks: Iterable[RowGroup], num_rows: int) -> pa.Array:
    """Return the texts of a batch.

    Args:
        blocks: rows by machine state; together they fill every row once.
        num_rows: rows of the batch.

    Returns:
        pyarrow string array of ``num_rows`` texts. A batch must stay below 2 GiB of text.
    """
    filled = [block for block in blocks if len(block.rows)]
    width = max((len(block.pieces) for block in filled), default=1)
    views = np.zeros((num_rows, width, 4), np.uint32)
    buffers: Buffers = {}
    mine = np.empty((min(CHUNK, num_rows), width, 4), np.uint32)
    whole_row = f"V{16 * width}"
    for block in filled:
        for start in range(0, len(block.rows), CHUNK):
            rows = block.rows[start : start + CHUNK]
            part = mine[: len(rows)]
            part[:, len(block.pieces) :] = 0
            for at, piece in enumerate(block.pieces):
                _write(part, at, _rows(piece, start), buffers)
            views.reshape(-1).view(whole_row)[rows] = part.reshape(-1).view(whole_row)
    memory = [None, *map(pa.py_buffer, (views, *(buffer for _, buffer in buffers.values())))]
    slices = pa.Array.from_buffers(pa.binary_view(), num_rows * width, memory)
    joined = slices.cast(pa.binary())
    offsets = np.frombuffer(joined.buffers()[1], np.int32)[: num_rows * width + 1 : width].copy()
    return pa.Array.from_buffers(pa.string(), num_rows, [None, pa.py_buffer(offsets), joined.buffers()[2]])


# pyarrow.array() imports pandas wherever it is installed: a quarter of a second at the start of every worker


def int_array(values: NDArray[np.integer[Any]], valid: NDArray[np.bool_] | None = None) -> pa.Array:
    """Return a column of integers around the same memory, null where not valid."""
    values = np.ascontiguousarray(values)
    bits = None if valid is None or valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [bits, pa.py_buffer(values)])


def string_array(texts: Sequence[str]) -> pa.Array:
    """Return a string column; raises OverflowError past 2 GiB of text."""
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)])
    if ends[-1] >= 2**31:
        raise OverflowError("a string column holds less than 2 GiB of text")
    buffers = [None, pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), len(encoded), buffers)


Name = TypeVar("Name", str, "str | None")


@dataclass(frozen=True, eq=False)
class Texts:
    """Rendered texts with the state they show and the task they call (indices into ``states`` and ``calls``)."""

    text: pa.Array
    state: I64
    states: tuple[str, ...]
    call: I64
    calls: tuple[str | None, ...]


def _coded(values: Sequence[Name]) -> tuple[I64, tuple[Name, ...]]:
    """Return each value as an index into the sorted distinct ones; None comes first."""
    names = tuple(sorted(set(values), key=lambda name: name or ""))
    return np.array([names.index(value) for value in values], np.int64), names


def texts(blocks: Sequence[RowGroup], num_rows: int) -> Texts:
    """Render blocks and note each row's state and call."""
    states, state_names = _coded([block.state for block in blocks])
    calls, call_names = _coded([block.call for block in blocks])
    state, call = np.zeros(num_rows, np.int64), np.zeros(num_rows, np.int64)
    for block, its_state, its_call in zip(blocks, states, calls, strict=True):
        state[block.rows], call[block.rows] = its_state, its_call
    return Texts(render(blocks, num_rows), state, state_names, call, call_names)


def texts_of_rows(rows: Sequence[tuple[str, str, str | None]]) -> Texts:
    """Return texts that stand there already, each with its state and call."""
    text, states, calls = zip(*rows, strict=True) if rows else ((), (), ())
    return Texts(string_array(text), *_coded(states), *_coded(calls))
