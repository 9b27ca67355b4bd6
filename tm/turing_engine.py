"""Runs a Turing machine on a column of words: all in lock-step, a step is one look-up of their codes.

A code is (state, symbol under each head). Tapes are rows of bytes that grow to both sides. Entries are taken from the
running tapes at the steps that are asked for, so a run of any length needs the memory of its tape alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ..errors import UserError
from .columns import I64, SPARE, U8, Bool, Operands
from .formats.rules import RuleTable
from .machine import HALT, Batch, Dialect, Rows, Texts
from .render import Choice, Field, RowGroup, TapeSlice, Template, render

if TYPE_CHECKING:
    from .turing import TuringMachine

MOST_CODES = 1 << 24
LOOK_EVERY = 16  # steps between looks whether rows have halted, and whether tapes must grow
TOGETHER = 1 << 13  # words run at once


class CodedTable:
    """The rules in arrays, indexed by code.

    Attributes:
        next: where the codes of the following state begin; of a halted machine its own.
        write: the symbol written, a column a tape.
        move: -1, 0 or 1, a column a tape.
        going: whether there is a rule.

    Raises:
        UserError: states and symbols have too many combinations.
    """

    def __init__(self, table: RuleTable) -> None:
        self.table, self.num_symbols, self.num_tapes = table, len(table.symbols), table.num_tapes
        self.stride = self.num_symbols**self.num_tapes
        size = self.stride * len(table.states)
        if size > MOST_CODES:
            what = f"this machine has {size:,} combinations of a state and the symbols of its tapes"
            raise UserError(what, where=table.where, allowed=f"{MOST_CODES:,} at most")
        states = {state: number for number, state in enumerate(table.states)}
        symbols = {symbol: number for number, symbol in enumerate(table.symbols)}
        places = np.arange(size)
        self.factors = [self.num_symbols**tape for tape in range(self.num_tapes)]
        self.next = places // self.stride * self.stride
        self.write = [(places // factor % self.num_symbols).astype(np.uint8) for factor in self.factors]
        self.move = [np.zeros(size, np.int64) for _ in self.factors]
        self.going = np.zeros(size, np.bool_)
        self.codes: dict[tuple[str, tuple[str, ...]], int] = {}
        for (state, read), rule in table.rules.items():
            code = states[state] * self.stride
            code += sum(symbols[symbol] * factor for symbol, factor in zip(read, self.factors, strict=True))
            self.codes[state, read] = code
            self.next[code], self.going[code] = states[rule.next] * self.stride, True
            for tape, (symbol, move) in enumerate(zip(rule.write, rule.moves, strict=True)):
                self.write[tape][code], self.move[tape][code] = symbols[symbol], move


@lru_cache(maxsize=64)
def coded(table: RuleTable) -> CodedTable:
    """Return the rules of a machine in arrays."""
    return CodedTable(table)


class Lanes:
    """Words that run in lock-step.

    Args:
        table: the machine.
        planes: symbol codes of the words, shape (width, n).
        length: symbols of each word, shape (n,).
    """

    def __init__(self, table: CodedTable, planes: U8, length: I64) -> None:
        self.table, num = table, len(length)
        self.width = planes.shape[0] + 4 * LOOK_EVERY
        self.rows = np.arange(num)  # which word each lane runs
        self.control, self.steps = np.zeros(num, np.int64), np.zeros(num, np.int64)
        first = self.rows * self.width + 2 * LOOK_EVERY
        self.cells = [np.zeros((num, self.width), np.uint8) for _ in table.factors]
        self.cells[0][:, 2 * LOOK_EVERY : 2 * LOOK_EVERY + planes.shape[0]] = planes.T
        self.heads = [first.copy() for _ in table.factors]
        self.low, self.high = ([first.copy() for _ in table.factors] for _ in range(2))
        self.high[0] += np.maximum(length - 1, 0)

    def codes(self) -> I64:
        """Return what each lane sees."""
        code = self.control.copy()
        for cells, head, factor in zip(self.cells, self.heads, self.table.factors, strict=True):
            symbol = cells.reshape(-1).take(head)
            code += symbol if factor == 1 else symbol * np.int64(factor)
        return code

    def step(self) -> None:
        """Take a step; a lane that has halted stays as it is."""
        table, code = self.table, self.codes()
        for tape, head in enumerate(self.heads):
            self.cells[tape].reshape(-1)[head] = table.write[tape].take(code)
            head += table.move[tape].take(code)
            np.minimum(self.low[tape], head, out=self.low[tape])
            np.maximum(self.high[tape], head, out=self.high[tape])
        self.steps += table.going.take(code)
        table.next.take(code, out=self.control, mode="clip")

    def make_room(self) -> None:
        """Let tapes grow whose heads are near an end."""
        for tape, head in enumerate(self.heads):
            if not len(head):
                continue
            width = self.cells[tape].shape[1]
            place = head % width
            if place.min() > LOOK_EVERY and place.max() < width - LOOK_EVERY - 1:
                continue
            more = width // 2
            self.cells[tape] = np.pad(self.cells[tape], ((0, 0), (more, more)))
            shift = np.arange(len(head)) * (2 * more) + more
            for places in (head, self.low[tape], self.high[tape]):
                places += shift

    def keep(self, lanes: Bool) -> None:
        """Drop the other lanes."""
        self.rows, self.control, self.steps = self.rows[lanes], self.control[lanes], self.steps[lanes]
        fewer = np.cumsum(~lanes)[lanes]
        for tape, cells in enumerate(self.cells):
            width = cells.shape[1]
            self.cells[tape] = cells[lanes]
            for places in (self.heads, self.low, self.high):
                places[tape] = places[tape][lanes] - fewer * width


def run_lengths(table: CodedTable, planes: U8, length: I64, most: int) -> I64:
    """Return the number of steps of each word's run, shape (n,); -1 where it does not halt within ``most`` steps."""
    found = np.full(len(length), -1, np.int64)
    for start in range(0, len(length), TOGETHER):
        own = slice(start, start + TOGETHER)
        lanes, taken = Lanes(table, planes[:, own], length[own]), 0
        while len(lanes.rows) and taken <= most:
            lanes.make_room()
            for _ in range(LOOK_EVERY):
                lanes.step()
            taken += LOOK_EVERY
            going = table.going.take(lanes.codes())
            if not going.all():
                found[own][lanes.rows[~going]] = lanes.steps[~going]
                lanes.keep(going)
    found[found > most] = -1
    return found


@dataclass(frozen=True, eq=False)
class Tape:
    """One tape of some entries.

    Args:
        cells: symbol codes of all entries, each in one piece.
        start: where each entry's cells begin, shape (n,).
        size: how many it has, shape (n,).
        head: how many of them stand before its head, shape (n,).
    """

    cells: U8
    start: I64
    size: I64
    head: I64


@dataclass(frozen=True, eq=False)
class Entries:
    """Entries of a column of runs: the code that each one sees, and its tapes."""

    code: I64
    tapes: tuple[Tape, ...]


def entries(table: CodedTable, planes: U8, length: I64, word: I64, step: I64) -> Entries:
    """Return what a machine knows after some steps of some words' runs.

    Args:
        table: the machine.
        planes: symbol codes of the words, shape (width, words).
        length: symbols of each word.
        word: whose run each entry belongs to, shape (n,).
        step: how many steps were taken before it, shape (n,).
    """
    narrow = step.astype(np.min_scalar_type(int(step.max(initial=0))))  # numpy sorts 16 bits by their digits
    order = np.argsort(narrow, kind="stable")
    held = np.bincount(word, minlength=len(length)) > 0
    used, which = np.flatnonzero(held), (np.cumsum(held) - 1)[word]
    lanes = Lanes(table, planes[:, used], length[used])
    lane_of = np.arange(len(used))  # -1 where the lane was dropped
    last = np.zeros(len(used), np.int64)
    np.maximum.at(last, which, step)
    times, begins = np.unique(step[order], return_index=True)
    groups = dict(zip(times.tolist(), np.split(order, begins[1:]), strict=True))
    codes = np.empty(len(word), np.int64)
    parts: list[list[tuple[I64, U8, I64, I64]]] = [[] for _ in table.factors]
    for time in range(int(times[-1]) + 1 if len(times) else 0):
        if time % LOOK_EVERY == 0:
            needed = last[lanes.rows] >= time
            if 2 * int(needed.sum()) < len(needed):
                lanes.keep(needed)
                lane_of[:] = -1
                lane_of[lanes.rows] = np.arange(len(lanes.rows))
            lanes.make_room()
        if (here := groups.get(time)) is not None:
            mine = lane_of[which[here]]
            codes[here] = lanes.codes()[mine]
            for tape, own in enumerate(parts):
                low = lanes.low[tape][mine]
                size = lanes.high[tape][mine] - low + 1
                begin = np.cumsum(size) - size
                at = np.repeat(low - begin, size) + np.arange(int(size.sum()))
                own.append((here, lanes.cells[tape].reshape(-1)[at], size, lanes.heads[tape][mine] - low))
        lanes.step()
    return Entries(codes, tuple(_joined(own, len(word)) for own in parts))


def _joined(parts: Sequence[tuple[I64, U8, I64, I64]], num: int) -> Tape:
    """Return the tapes of entries, of which some were taken at a time."""
    start, size, head, total = (*np.zeros((3, num), np.int64), 0)
    for here, cells, own, before in parts:
        start[here], size[here], head[here] = total + np.cumsum(own) - own, own, before
        total += len(cells)
    return Tape(np.concatenate([np.zeros(0, np.uint8), *(cells for _, cells, _, _ in parts)]), start, size, head)


class TuringBatch(Batch):
    """Words of a Turing machine in columns."""

    machine: TuringMachine

    def __init__(self, machine: TuringMachine, operands: Operands, dialect: Dialect) -> None:
        super().__init__(machine, operands, dialect)
        self.table, self.words = coded(machine.table), operands.a
        self._last: tuple[Rows, Entries, list[tuple[U8, I64]]] | None = None

    @cached_property
    def num_steps(self) -> I64:
        """Number of transitions of each word's run.

        Raises:
            UserError: one does not halt.
        """
        from .turing import MOST_STEPS

        found = self.run_lengths(MOST_STEPS)
        if len(endless := np.flatnonzero(found < 0)):
            self.machine.end(self.machine.texts(self.words.take(endless[:1]))[0])
        return found

    def run_lengths(self, most: int) -> I64:
        """Return the number of transitions of each word's run, -1 where it does not halt within ``most``."""
        return run_lengths(self.table, self.words.planes, self.words.length, most)

    def _entries(self, word: I64, step: I64) -> Entries:
        return entries(self.table, self.words.planes, self.words.length, word, step)

    def _both(self, rows: Rows, part: slice) -> Texts:
        """Return the prompts or the completions of rows; they are asked for one after the other."""
        if self._last is None or self._last[0] is not rows:
            found = self._entries(np.tile(rows.expression, 2), np.concatenate([rows.index, rows.index + 1]))
            self._last = rows, found, [_flat(self.machine.table, tape.cells, "|") for tape in found.tapes]
        _, found, flats = self._last
        return self._texts(found, flats, part)

    def prompts(self, rows: Rows) -> Texts:
        return self._both(rows, slice(len(rows)))

    def completions(self, rows: Rows) -> Texts:
        return self._both(rows, slice(len(rows), None))

    def _whole(self, found: Entries) -> pa.Array:
        return self._texts(
            found, [_flat(self.machine.table, tape.cells, "|") for tape in found.tapes], slice(None)
        ).text

    def initial(self) -> pa.Array:
        return self._whole(self._entries(self.all, np.zeros_like(self.all)))

    def halted(self) -> pa.Array:
        return self._whole(self._entries(self.all, self.num_steps))

    def answer(self) -> Field:
        last = self._entries(self.all, self.num_steps)
        if self.machine.output == "state":
            return Choice(self.machine.table.states, last.code // self.table.stride)
        tape = last.tapes[int((self.machine.output or "")[5:] or 1) - 1]
        order = np.argsort(tape.start, kind="stable")
        rows = np.repeat(order, tape.size[order])
        written = np.flatnonzero(tape.cells)
        first, end = np.zeros(len(self.all), np.int64), np.zeros(len(self.all), np.int64)
        np.maximum.at(end, rows[written], written + 1)
        first[:] = end
        np.minimum.at(first, rows[written], written)
        between = "" if all(len(symbol) == 1 for symbol in self.machine.table.symbols) else " "
        flat, at = _flat(self.machine.table, tape.cells, between)
        size = at[end] - at[first]
        return TapeSlice(flat, at[first] + len(between) * (size > 0), size - len(between) * (size > 0))

    @cached_property
    def _lines(self) -> tuple[tuple[str, ...], I64]:
        """The distinct command lines, and which one each code has."""
        lines = {HALT: 0}
        index = np.zeros(len(self.table.going), np.int64)
        for (state, read), rule in self.machine.table.rules.items():
            line = self.machine.command(rule, read)
            index[self.table.codes[state, read]] = lines.setdefault(line, len(lines))
        return tuple(lines), index

    def _texts(self, found: Entries, flats: Sequence[tuple[U8, I64]], part: slice) -> Texts:
        machine, code = self.machine, found.code[part]
        states, state, num = machine.table.states, code // self.table.stride, len(code)
        lines, line = self._lines
        fields: dict[str, Field] = {"state": Choice(states, state), "line": Choice(lines, line.take(code))}
        pieces = []
        for number, (tape, (flat, at)) in enumerate(zip(found.tapes, flats, strict=True)):
            start = tape.start[part]
            begin, middle, end = at[start], at[start + tape.head[part]], at[start + tape.size[part]]
            fields[f"left{number}"] = TapeSlice(flat, begin, middle - begin)
            fields[f"right{number}"] = TapeSlice(flat, middle, end - middle)
            pieces.append(f"{{left{number}}}{machine.head(number)}{{right{number}}}")
        template = Template(f"{machine.title}, {{state}}, {' '.join(pieces)}\n{{line}}\n")
        text = render([RowGroup(np.arange(num), template, fields)], num)
        return Texts(text, state, states, np.zeros(num, np.int64), (None,))


def _flat(table: RuleTable, cells: U8, before: str) -> tuple[U8, I64]:
    """Return the text of cells, each with something before it, as bytes; and where each begins, with the end."""
    texts = [f"{before}{symbol}".encode() for symbol in table.symbols]
    size = np.array([len(text) for text in texts], np.int64)
    width = int(size.max())
    padded = np.frombuffer(b"".join(text.ljust(width, b"\0") for text in texts), np.dtype((np.void, width)))
    flat = padded.take(cells).view(np.uint8)
    if (size == width).all():
        at = np.arange(0, (len(cells) + 1) * width, width)
    else:
        at = np.append(0, np.cumsum(size[cells]))
        flat = flat[(np.arange(width) < size[cells][:, None]).reshape(-1)]
    return np.concatenate([flat, np.zeros(SPARE, np.uint8)]), at
