"""Runs a Turing machine on a column of words, all in lock-step; and, below, on one word without its entries.

A step is one look-up of the words' codes. A code is (state, symbol under each head). Tapes are rows of bytes that grow
to both sides. Entries are taken from the running tapes at the steps that are asked for, so a run of any length needs
the memory of its tape alone.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import UserError
from .columns import I64, SPARE, U8, Bool, Number, Operands
from .formats.rules import RuleTable
from .machine import HALT, Batch, Dialect, Rows
from .render import Choice, Field, RowGroup, TapeSlice, Template, Texts, render

if TYPE_CHECKING:
    from .turing import Tapes, TuringMachine

MOST_CODES = 1 << 24
LOOK_EVERY = 16  # steps between looks whether rows have halted, and whether tapes must grow
TOGETHER = 1 << 13  # words run at once
ROOM = 1 << 14  # steps of a single run between looks at its tape


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
        places, self.factors = np.arange(size), num_symbols ** np.arange(table.num_tapes)
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


class Entries(NamedTuple):
    """Entries of a column of runs: what each one sees, and the cells of their tapes, each in one piece.

    ``start`` is where each tape's cells begin, ``size`` how many it has, ``head`` how many stand before its head, all
    of the shape (tapes, n).
    """

    code: I64
    cells: U8
    start: I64
    size: I64
    head: I64


def entries(table: CodedTable, words: Number, word: I64, step: I64) -> Entries:
    """Return what a machine knows in the runs of ``word`` after as many steps as ``step`` says, both of shape (n,)."""
    narrow = step.astype(np.min_scalar_type(int(step.max(initial=0))))  # numpy sorts 16 bits by their digits
    order = np.argsort(narrow, kind="stable")
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
    return Entries(code, np.concatenate(cells), *found)


class TuringBatch(Batch):
    """Words of a Turing machine in columns."""

    machine: TuringMachine

    def __init__(self, machine: TuringMachine, operands: Operands, dialect: Dialect) -> None:
        super().__init__(machine, operands, dialect)
        self.table, self.words = coded(machine.table), operands.a
        self._last: tuple[Rows, Entries, CellTexts] | None = None

    @cached_property
    def num_steps(self) -> I64:
        """Number of transitions of each word's run; raises UserError where one does not halt."""
        from .turing import MOST_STEPS

        found = self.machine.run_lengths(self.operands, MOST_STEPS)
        if endless := int((found < 0).sum()):
            raise UserError(f"{self.machine.name} does not halt within {MOST_STEPS:,} steps on {endless:,} words")
        return found

    def entries(self, e: I64, i: I64) -> Texts:
        return self._texts(*self._entries(e, i))

    def _entries(self, e: I64, i: I64) -> tuple[Entries, CellTexts]:
        """Return entries, and the text of their cells."""
        found = entries(self.table, self.words, e, i)
        return found, CellTexts(self.machine.table, found.cells, "|")

    def _both(self, rows: Rows, part: slice) -> Texts:
        """Return the prompts or the completions of rows; they are asked for one after the other."""
        if self._last is None or self._last[0] is not rows:
            steps = np.concatenate([rows.index, rows.index + 1])
            self._last = rows, *self._entries(np.tile(rows.expression, 2), steps)
        return self._texts(*self._last[1:], part)

    def prompts(self, rows: Rows) -> Texts:
        return self._both(rows, slice(len(rows)))

    def completions(self, rows: Rows) -> Texts:
        return self._both(rows, slice(len(rows), None))

    def answer(self) -> Field:
        machine, last = self.machine, entries(self.table, self.words, self.all, self.num_steps)
        if machine.output == "state":
            return Choice(machine.table.states, last.code // self.table.stride)
        begin, size = last.start[machine.output_tape], last.size[machine.output_tape]
        written = np.flatnonzero(last.cells)  # those that are not blank, in order
        first, behind = np.searchsorted(written, [begin, begin + size])
        outer, some = np.append(written, 0), behind > first
        cells = CellTexts(machine.table, last.cells, machine.between)
        return cells.slice(outer[first] * some, (outer[behind - 1] + 1) * some, len(machine.between))

    @cached_property
    def _lines(self) -> tuple[tuple[str, ...], I64]:
        """The distinct command lines, and which one each code has."""
        commands = [self.machine.command(rule, read) for (_, read), rule in self.machine.table.rules.items()]
        lines = {line: number for number, line in enumerate(dict.fromkeys([HALT, *commands]))}
        index = np.zeros(len(self.table.going), np.int64)
        index[self.table.codes] = [lines[line] for line in commands]
        return tuple(lines), index

    def _texts(self, found: Entries, cells: CellTexts, part: slice = slice(None)) -> Texts:
        machine, code = self.machine, found.code[part]
        states, state, num = machine.table.states, code // self.table.stride, len(code)
        lines, line = self._lines
        fields: dict[str, Field] = {"state": Choice(states, state), "line": Choice(lines, line.take(code))}
        pieces = []
        for tape, name in enumerate(machine.heads):
            start, head, size = found.start[tape, part], found.head[tape, part], found.size[tape, part]
            fields[f"left{tape}"] = cells.slice(start, start + head)
            fields[f"right{tape}"] = cells.slice(start + head, start + size)
            pieces.append(f"{{left{tape}}}{name}{{right{tape}}}")
        template = Template(f"{machine.title}, {{state}}, {' '.join(pieces)}\n{{line}}\n")
        text = render([RowGroup(np.arange(num), template, fields)], num)
        return Texts(text, state, states, np.zeros(num, np.int64), (None,))


class CellTexts:
    """The text of cells, each with something before it: bytes, and where the text of each cell begins."""

    def __init__(self, table: RuleTable, cells: U8, before: str) -> None:
        texts = [f"{before}{symbol}".encode() for symbol in table.symbols]
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


class RunEnd(NamedTuple):
    """Where a run stands, after so many steps; ``marks`` are cells that hold no blank, on all tapes.

    ``lacks``: it has halted in a state that has rules, for lack of this one; the busy beaver lists count a step more.
    """

    steps: int
    halted: bool
    state: str
    marks: int
    lacks: bool


def run_to_end(table: RuleTable, now: Tapes, most: int) -> RunEnd:
    """Run a machine on from what it knows, for at most so many steps; ``now`` is changed."""
    steps = _one_tape(table, now, most) if table.num_tapes == 1 else 0
    while table.num_tapes > 1 and steps < most and (rule := table.rules.get((now.state, now.read))):
        now.execute(rule, table.blank)
        steps += 1
    halted = (now.state, now.read) not in table.rules
    marks = sum(symbol != table.blank for cells in now.cells for symbol in cells)
    return RunEnd(steps, halted, now.state, marks, halted and any(state == now.state for state, _ in table.rules))


def _one_tape(table: RuleTable, now: Tapes, most: int) -> int:
    """Run on a tape of bytes; before so many steps it gets as many cells on either side of the head."""
    symbols = {symbol: code for code, symbol in enumerate(table.symbols)}
    states = {state: number * len(symbols) for number, state in enumerate(table.states)}
    rules: list[tuple[int, int, int]] = [None] * (len(symbols) * len(states))  # type: ignore[list-item]
    for (state, (read,)), rule in table.rules.items():
        rules[states[state] + symbols[read]] = symbols[rule.write[0]], rule.moves[0], states[rule.next]
    tape, head, control, taken = bytearray(map(symbols.__getitem__, now.cells[0])), now.heads[0], states[now.state], 0
    try:
        while taken < most:
            left = max(ROOM - head, 0)
            tape[:0], head, now.origin = bytes(left), head + left, now.origin + left
            tape += bytes(max(head + ROOM + 1 - len(tape), 0))
            for taken in range(taken + 1, min(taken + ROOM, most) + 1):  # noqa: B007, B020  it is read after the loop
                write, move, control = rules[control + tape[head]]
                tape[head] = write
                head += move
    except TypeError:  # no rule for this step
        taken -= 1
    now.state, now.heads = table.states[control // len(symbols)], [head]
    now.cells = [[table.symbols[code] for code in tape]]
    return taken
