"""Runs a Turing machine on a column of words, all in lock-step.

A step is one look-up of the words' codes. A code is (state, symbol under each head). Tapes are rows of bytes that grow
to both sides. Entries are taken from the running tapes at the steps that are asked for, so a run of any length needs
the memory of its tape alone.
"""

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..errors import UserError
from .columns import I64, SPARE, U8, Bool, Number, Operands
from .formats.rules import RuleTable
from .machine import HALT, Batch, Dialect, Machine, Rows
from .render import Choice, Field, RowGroup, TapeSlice, Template, Texts, render

MOST_CODES = 1 << 24
MOST_STEPS = 10**6  # of a run that is written
LOOK_EVERY = 16  # steps between looks whether rows have halted, and whether tapes must grow
TOGETHER = 1 << 13  # words run at once


class CodedTable:
    """The rules in arrays, indexed by code; raises UserError where there are too many codes.

    ``factors`` are what a symbol of each tape counts in a code, ``stride`` what a state counts. ``next`` is where the
    codes of the following state begin, of a halted machine its own; ``write`` and ``move`` (-1, 0, 1) have a row a
    tape; ``going`` tells whether there is a rule, and ``codes`` holds those of the rules, in their order.
    """

    def __init__(self, table: RuleTable) -> None:
        num_symbols = len(table.symbols)
        self.stride = num_symbols**table.num_tapes
        size = self.stride * len(table.states)
        if size > MOST_CODES:
            what = f"this machine has {size:,} combinations of a state and the symbols of its tapes"
            raise UserError(what, where=table.where, allowed=f"{MOST_CODES:,} at most")
        self.symbols, places, self.factors = table.symbols, np.arange(size), num_symbols ** np.arange(table.num_tapes)
        self.next = places // self.stride * self.stride
        self.write = (places // self.factors[:, None] % num_symbols).astype(np.uint8)
        self.move, self.going = np.zeros(self.write.shape, np.int64), np.zeros(size, np.bool_)
        states = {state: self.stride * number for number, state in enumerate(table.states)}
        symbols = {symbol: number for number, symbol in enumerate(table.symbols)}
        read = np.array([[symbols[symbol] for symbol in read] for _, read in table.rules])
        self.codes: I64 = read @ self.factors + [states[state] for state, _ in table.rules]
        rules = table.rules.values()
        self.next[self.codes], self.going[self.codes] = [states[rule.next] for rule in rules], True
        self.write[:, self.codes] = np.array([[symbols[symbol] for symbol in rule.write] for rule in rules]).T
        self.move[:, self.codes] = np.array([rule.moves for rule in rules]).T


coded = lru_cache(maxsize=64)(CodedTable)


class Lanes:
    """Words that run in lock-step; ``rows`` tells which word each lane runs.

    ``cells`` have the shape (tapes, lanes, width); ``begin`` is where each row of them begins in the flat cells. There
    too are ``heads``, shape (tapes, lanes), and ``low`` and ``high``, the outermost cells touched.
    """

    def __init__(self, table: CodedTable, words: Number) -> None:
        self.table, self.rows, first = table, np.arange(len(words)), 2 * LOOK_EVERY
        self.control, self.steps = np.zeros((2, len(words)), np.int64)
        cells = np.zeros((len(table.factors), len(words), words.width + 2 * first), np.uint8)
        cells[0, :, first : first + words.width] = words.planes.T
        self.heads, self.low, self.high = np.full((3, *cells.shape[:2]), first)
        self.high[0] += np.maximum(words.length - 1, 0)
        self._put(cells, np.zeros((), np.int64))

    def _put(self, cells: U8, begin: I64) -> None:
        """Take other cells; the places count from where rows began before."""
        self.cells, (tapes, lanes, width) = cells, cells.shape
        self.begin = np.arange(0, tapes * lanes * width, width).reshape(tapes, lanes)
        for places in (self.heads, self.low, self.high):
            places += self.begin - begin

    def codes(self) -> I64:
        """Return what each lane sees."""
        seen = self.cells.reshape(-1).take(self.heads)
        return self.control + (seen[0] if len(seen) == 1 else self.table.factors @ seen)

    def step(self) -> None:
        """Take a step; a lane that has halted stays as it is."""
        code = self.codes()
        self.cells.reshape(-1)[self.heads] = self.table.write.take(code, axis=1)
        self.heads += self.table.move.take(code, axis=1)
        np.minimum(self.low, self.heads, out=self.low)
        np.maximum(self.high, self.heads, out=self.high)
        self.steps += self.table.going.take(code)
        self.table.next.take(code, out=self.control, mode="clip")

    def make_room(self) -> None:
        """Let tapes grow where a head is near an end."""
        width, place = self.cells.shape[2], self.heads - self.begin
        if place.min(initial=width) <= LOOK_EVERY or place.max(initial=0) >= width - LOOK_EVERY - 1:
            more = width // 2
            self._put(np.pad(self.cells, ((0, 0), (0, 0), (more, more))), self.begin - more)

    def keep(self, lanes: Bool) -> None:
        """Drop the other lanes."""
        self.rows, self.control, self.steps = self.rows[lanes], self.control[lanes], self.steps[lanes]
        parts = (self.heads, self.low, self.high, self.cells, self.begin)
        self.heads, self.low, self.high, cells, begin = (part.compress(lanes, axis=1) for part in parts)
        self._put(cells, begin)


def run_lengths(table: CodedTable, words: Number, most: int) -> I64:
    """Return the number of steps of each word's run, shape (n,); -1 where it does not halt within ``most`` steps."""
    found = np.full(len(words), -1, np.int64)
    for start in range(0, len(words), TOGETHER):
        own, taken = slice(start, start + TOGETHER), 0
        lanes = Lanes(table, Number(words.planes[:, own], words.length[own]))
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


class CellTexts:
    """The text of cells, each with something before it: bytes, and where the text of each cell begins."""

    def __init__(self, symbols: Sequence[str], cells: U8, before: str) -> None:
        texts = [f"{before}{symbol}".encode() for symbol in symbols]
        size, self.ends = np.array([len(text) for text in texts]), None
        self.width = int(size.max())
        padded = np.frombuffer(b"".join(text.ljust(self.width) for text in texts), np.uint8).reshape(len(texts), -1)
        flat = padded.take(cells, axis=0)
        if (size < self.width).any():
            self.ends = np.append(0, np.cumsum(size[cells]))
            flat = flat[np.arange(self.width) < size[cells][:, None]]
        self.flat = np.append(flat, np.zeros(SPARE, np.uint8))

    def slice(self, begin: I64, end: I64, skipped: int = 0) -> TapeSlice:
        """Return the text of the cells from ``begin`` to ``end``, without its first bytes where there is any."""
        start, stop = (cell * self.width if self.ends is None else self.ends.take(cell) for cell in (begin, end))
        start = start + skipped * (end > begin)
        return TapeSlice(self.flat, start, stop - start)


class Entries(NamedTuple):
    """Entries of a column of runs: what each one sees, and the cells of their tapes, each in one piece.

    ``start`` is where each tape's cells begin, ``size`` how many it has, ``head`` how many stand before its head, all
    of the shape (tapes, n).
    """

    code: I64
    cells: U8
    texts: CellTexts
    start: I64
    size: I64
    head: I64


def entries(table: CodedTable, words: Number, word: I64, step: I64) -> Entries:
    """Return what a machine knows in the runs of ``word`` after as many steps as ``step`` says, both of shape (n,)."""
    order = np.argsort(step.astype(np.min_scalar_type(step.max(initial=0))), kind="stable")  # fast where it is narrow
    begins = np.searchsorted(step[order], np.arange(int(step.max(initial=-1)) + 2))
    last = np.full(len(words), -1, np.int64)
    np.maximum.at(last, word, step)
    lanes, lane_of, cells, total = Lanes(table, words), np.arange(len(words)), [np.zeros(0, np.uint8)], 0
    code, found = np.empty(len(word), np.int64), np.empty((3, len(table.factors), len(word)), np.int64)
    for time in range(len(begins) - 1):
        if time % LOOK_EVERY == 0:
            needed = last[lanes.rows] >= time
            if 2 * int(needed.sum()) < len(needed):
                lanes.keep(needed)
                lane_of[lanes.rows] = np.arange(len(lanes.rows))  # those of dropped lanes are not asked for any more
            lanes.make_room()
        if len(here := order[begins[time] : begins[time + 1]]):
            mine = lane_of[word[here]]
            begin, code[here] = lanes.begin.take(mine, axis=1), lanes.codes()[mine]
            low, high, head = (part.take(mine, axis=1) - begin for part in (lanes.low, lanes.high, lanes.heads))
            first, end = int(low.min()), int(high.max()) + 1
            block = lanes.cells[:, mine, first:end]
            start = total + np.arange(0, block.size, end - first).reshape(low.shape) + low - first
            found[..., here] = start, high - low + 1, head - low
            cells.append(block.reshape(-1))
            total += block.size
        lanes.step()
    flat = np.concatenate(cells)
    return Entries(code, flat, CellTexts(table.symbols, flat, "|"), *found)


class TuringBatch(Batch):
    """Words of a Turing machine in columns."""

    machine: Any  # a TuringMachine: that file imports this one

    def __init__(self, machine: Machine, operands: Operands, dialect: Dialect) -> None:
        super().__init__(machine, operands, dialect)
        self.table, self.words = coded(self.machine.table), operands.a
        self._last: tuple[Rows, Entries] | None = None

    @cached_property
    def num_steps(self) -> I64:
        """Number of transitions of each word's run; raises UserError where one does not halt."""
        found = self.machine.run_lengths(self.operands, MOST_STEPS)
        if endless := int((found < 0).sum()):
            raise UserError(f"{self.machine.name} does not halt within {MOST_STEPS:,} steps on {endless:,} words")
        return found

    def entries(self, e: I64, i: I64) -> Texts:
        return self._texts(entries(self.table, self.words, e, i), slice(None))

    def prompts(self, rows: Rows) -> Texts:
        return self._texts(self._both(rows), slice(len(rows)))

    def completions(self, rows: Rows) -> Texts:
        return self._texts(self._both(rows), slice(len(rows), None))

    def _both(self, rows: Rows) -> Entries:
        """Return the entries of prompts and completions; they are asked for one after the other."""
        if self._last is None or self._last[0] is not rows:
            steps = np.concatenate([rows.index, rows.index + 1])
            self._last = rows, entries(self.table, self.words, np.tile(rows.expression, 2), steps)
        return self._last[1]

    def answer(self) -> Field:
        machine, last = self.machine, entries(self.table, self.words, self.all, self.num_steps)
        if machine.output == "state":
            return Choice(machine.table.states, last.code // self.table.stride)
        begin, size = last.start[machine.output_tape], last.size[machine.output_tape]
        written = np.flatnonzero(last.cells)  # those that are not blank, in order
        first, behind = np.searchsorted(written, [begin, begin + size])
        outer, some = np.append(written, 0), behind > first
        cells = CellTexts(machine.table.symbols, last.cells, machine.between)
        return cells.slice(outer[first] * some, (outer[behind - 1] + 1) * some, len(machine.between))

    @cached_property
    def _lines(self) -> tuple[tuple[str, ...], I64]:
        """The distinct command lines, and which one each code has."""
        commands = [self.machine.command(rule, read) for (_, read), rule in self.machine.table.rules.items()]
        lines = {line: number for number, line in enumerate(dict.fromkeys([HALT, *commands]))}
        index = np.zeros(len(self.table.going), np.int64)
        index[self.table.codes] = [lines[line] for line in commands]
        return tuple(lines), index

    def _texts(self, found: Entries, part: slice) -> Texts:
        machine, code = self.machine, found.code[part]
        states, state, num = machine.table.states, code // self.table.stride, len(code)
        lines, line = self._lines
        fields: dict[str, Field] = {"state": Choice(states, state), "line": Choice(lines, line.take(code))}
        for tape in range(len(machine.heads)):
            start, head, size = found.start[tape, part], found.head[tape, part], found.size[tape, part]
            fields[f"left{tape}"] = found.texts.slice(start, start + head)
            fields[f"right{tape}"] = found.texts.slice(start + head, start + size)
        tapes = " ".join(f"{{left{tape}}}{head}{{right{tape}}}" for tape, head in enumerate(machine.heads))
        template = Template(f"{machine.title}, {{state}}, {tapes}\n{{line}}\n")
        text = render([RowGroup(np.arange(num), template, fields)], num)
        return Texts(text, state, states, np.zeros(num, np.int64), (None,))
