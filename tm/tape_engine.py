"""Runs a basic machine on a column of expressions, from the tables of its ``decide``.

All rows go in lock-step: a step is one look-up of their codes. Entries follow from the codes: the command of entry
``i`` is that of its code, heads stand where the moves before ``i`` put them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .columns import I64, U8, Number, Operands, stacked
from .machine import Batch, Dialect, Machine
from .render import Choice, Field, RowGroup, Template, Texts, decimal, halves, low, tape, texts
from .table import BLANK, NOTHING, Table, field

TOGETHER = 1 << 13  # expressions run at once: their codes take 8 bytes a step, those of larger columns two
LOOK_EVERY = 8  # steps between looks whether all rows have halted
NEWLINE = Template("\n")

Content = tuple[Template, Mapping[str, Field]]


def _cells(number: Number, size: int) -> U8:
    """Return the digits of a column with blanks before and behind, shape (size, n)."""
    cells = np.full((size, len(number)), BLANK, np.uint8)
    inside = cells[1 : number.width + 1]
    behind = np.arange(number.width, dtype=np.int16)[:, None] >= number.length.astype(np.int16)
    np.multiply(behind.view(np.uint8), np.uint8(BLANK), out=inside)  # a number has zeros above its digits
    inside += number.planes
    return cells


@dataclass(eq=False)
class Run:
    """A column of expressions run to the end.

    Args:
        table: the machine.
        codes: the code of every step, shape (steps + 1, n); a row stays on its halting code.
        longest: a step after which nothing is written.
    """

    table: Table
    codes: NDArray[np.integer[Any]]
    longest: int

    @cached_property
    def final(self) -> I64:
        """All that each expression's run has moved, in the fields of ``Table.moved``, shape (n,)."""
        total: I64 = self.table.moved.take(self.codes, mode="clip").sum(axis=0)
        return total + self.table.start

    @cached_property
    def num_steps(self) -> I64:
        """Number of transitions of each expression, shape (n,)."""
        return field(self.final, 3)

    @cached_property
    def lengths(self) -> NDArray[np.int16]:
        """Digits of the output before each step, shape (steps + 1, n)."""
        lengths = np.zeros(self.codes.shape, np.int16)
        np.cumsum(self.table.output.take(self.codes[:-1], mode="clip"), axis=0, out=lengths[1:])
        return lengths

    @cached_property
    def places(self) -> I64:
        """What was moved before each step, in the fields of ``Table.moved``, shape (steps + 1, n)."""
        places = np.full(self.codes.shape, self.table.start)
        places[1:] += np.cumsum(self.table.moved.take(self.codes[:-1], mode="clip"), axis=0)
        return places

    def head(self, at: int, e: I64, i: I64) -> I64:
        """Return where a head stands at entries ``i`` of expressions ``e``; -1 before its tape."""
        if self.table.in_step:  # it has moved at every step until it stopped
            return np.minimum(i, field(self.final, at)[e]) - 1
        return field(self.places[i, e], at) - 1

    def length(self, e: I64, i: I64) -> I64:
        """Return the number of digits of the output at entries ``i`` of expressions ``e``."""
        final = field(self.final, 2)[e]
        if self.table.writes_in_step and not self.table.takes_back:
            return np.clip(i - 1, 0, final)
        if (i >= self.num_steps[e]).all():
            return final
        return self.lengths[i, e].astype(np.int64)

    @cached_property
    def output(self) -> Number:
        """The digits written, with the length that the output has in the end."""
        length = field(self.final, 2)
        if self.table.writes_in_step:
            most = self.longest if self.table.takes_back else int(length.max(initial=0))
            return Number(self.table.digit.take(self.codes[1 : max(most, 1) + 1], mode="clip"), length)
        step, row = np.nonzero(self.table.written.take(self.codes[:-1], mode="clip") < NOTHING)
        planes = np.zeros((int(self.lengths.max(initial=0)) or 1, len(length)), np.uint8)
        planes[self.lengths[step, row], row] = self.table.written.take(self.codes[step, row])
        return Number(planes, length)


def run(table: Table, operands: Operands, most: int) -> Run:
    """Run a column of expressions, ``TOGETHER`` at a time.

    Args:
        table: the machine.
        operands: the expressions.
        most: the steps that no run exceeds; a code below ``halted`` in the end tells of one that does.
    """
    if len(operands) <= TOGETHER:
        return _run(table, operands, most)
    narrow, parts = np.min_scalar_type(len(table.next)), []
    for start in range(0, len(operands), TOGETHER):
        part = _run(table, operands.rows(slice(start, start + TOGETHER)), most)
        parts.append((part.codes.astype(narrow), part.final, part.output, part.longest))
    codes = np.empty((max(len(own) for own, *_ in parts), len(operands)), narrow)
    for at, (own, *_) in enumerate(parts):
        mine = codes[:, at * TOGETHER : at * TOGETHER + own.shape[1]]
        mine[: len(own)], mine[len(own) :] = own, own[-1]
    joined = Run(table, codes, max(longest for *_, longest in parts))
    joined.final = np.concatenate([final for _, final, *_ in parts])
    joined.output = stacked([output for *_, output, _ in parts])
    return joined


def _run(table: Table, operands: Operands, most: int) -> Run:
    numbers = [operands.a] + ([operands.second] if table.heads == 2 else [])
    size = max(number.width for number in numbers) + 2
    tapes = [_cells(number, size) for number in numbers]
    codes = np.empty((most + 2 * LOOK_EVERY + 2, len(operands)), np.int64)
    if not table.in_step or table.looks_back and not table.writes_in_step:
        return Run(table, codes[: (last := _run_anywhere(table, tapes, codes, most)) + 1], last)
    lane = _lane(tapes)
    control, step = np.zeros(len(operands), np.int64), 0
    while step < most + LOOK_EVERY:
        code = codes[step]
        np.add(control, lane[min(step, len(lane) - 1)], out=code)
        table.waiting.take(code, out=control, mode="clip")
        step += 1
        if step % LOOK_EVERY == 0 and int(control.min(initial=table.halted)) >= table.halted:
            break
    codes[step] = control
    last = step
    if table.looks_back:
        last = _look_back(table, lane, codes, step, most)
    return Run(table, codes[: last + 1], last if table.writes_late else step)


def _lane(tapes: list[U8]) -> I64:
    """Return the symbols under all heads at each step, shape (steps, n); the last ones hold for all later steps."""
    lane = tapes[-1]
    for cells in reversed(tapes[:-1]):
        lane = lane * np.uint8(11) + cells
    return lane.astype(np.int64)


def _look_back(table: Table, lane: I64, codes: I64, step: int, most: int) -> int:
    """Go on with the rows that wait because the digit matters that their output ends with; return the steps of all."""
    rows, end = np.flatnonzero(codes[step] == table.idle), step
    now = (codes[:step] < table.halted).sum(axis=0)[rows]
    length = table.output.take(codes[:step]).sum(axis=0, dtype=np.int64)[rows]
    control = table.next.take(codes[now - 1, rows])
    while len(rows):
        if int(now.max()) >= end:  # rows that are through stay idle
            codes[end + 1 : end + LOOK_EVERY + 2] = table.idle
            end += LOOK_EVERY
        written = table.written.take(codes[length, rows])  # the digit at place p was written in step p + 1
        last = np.where(length > 0, written, BLANK) * (table.stride // 11)
        code = control + lane[np.minimum(now, len(lane) - 1), rows] + last
        codes[now, rows] = code
        length, now = length + table.output.take(code), now + 1
        control = table.next.take(code)
        going = (control < table.halted) & (now <= most)
        codes[now[~going], rows[~going]] = control[~going]
        rows, now, length, control = rows[going], now[going], length[going], control[going]
    return end


def _run_anywhere(table: Table, tapes: list[U8], codes: I64, most: int) -> int:
    """Run where symbols depend on where the heads went, or on what was written."""
    num = codes.shape[1]
    rows = np.arange(num)
    place, control = np.full(num, table.start), np.zeros(num, np.int64)
    output = np.full((most + LOOK_EVERY + 2, num), BLANK, np.uint8)  # the digit at place p stands in row p + 1
    for step in range(most + LOOK_EVERY):
        code, factor = codes[step], 1
        code[:] = control
        for head, cells in enumerate(tapes):
            at = np.clip(field(place, head), 0, len(cells) - 1)
            code += cells[at, rows] * np.int64(factor)
            factor *= 11
        if table.looks_back:
            code += output[field(place, 2), rows] * np.int64(factor)
        place += table.moved.take(code, mode="clip")
        digit = table.written.take(code, mode="clip")
        wrote = np.flatnonzero(digit < NOTHING)
        output[field(place[wrote], 2), wrote] = digit[wrote]
        table.next.take(code, out=control, mode="clip")
        if step % LOOK_EVERY == LOOK_EVERY - 1 and int(control.min(initial=table.halted)) >= table.halted:
            break
    codes[step + 1] = control
    return step + 1


class TapeBatch(Batch):
    """Expressions of a basic machine in columns."""

    def __init__(
        self, machine: Machine, operands: Operands, dialect: Dialect, table: Table, template: Callable[[str], Template]
    ) -> None:
        super().__init__(machine, operands, dialect)
        self.table, self.template = table, template

    @cached_property
    def run(self) -> Run:
        """The expressions run to the end.

        Raises:
            UserError: one does not halt within the machine's ``max_num_steps``.
        """
        a, b = self.operands.a, self.operands.b
        most = self.machine.max_num_steps(a.width, 0 if b is None else b.width)
        found = run(self.table, self.operands, most)
        control = found.codes[np.minimum(found.num_steps, most), self.all]
        if self.table.takes_back and int(field(found.final, 2).min(initial=0)) < 0:  # nothing is written after that
            raise UserError(
                f"{self.machine.name} takes a digit back where none is written",
                where=self.machine.source,
                next_step="look at view.last in its decide: it is empty where nothing is written",
            )
        bad = np.flatnonzero((control < self.table.halted) | (control >= self.table.idle))
        if len(bad):  # walked step by step, it says itself what it lacks
            x, y = (0 if number is None else number.take(bad[:1]).integers()[0] for number in (a, b))
            for _ in self.machine.transitions(x, y, self.dialect):
                pass
        return found

    @property
    def num_steps(self) -> I64:
        return self.run.num_steps

    def entries(self, e: I64, i: I64) -> Texts:
        code = self.run.codes[i, e].astype(np.int64)
        blocks, state = [], self.table.state.take(code)
        for number, name in enumerate(self.table.states):
            rows = np.flatnonzero(state == number)
            if len(rows):
                template, parts = self._content(name, e[rows], i[rows], code[rows])
                blocks.append(RowGroup(rows, template + NEWLINE, parts, name))
        return texts(blocks, len(code))

    def _content(self, state: str, e: I64, i: I64, code: I64) -> Content:
        """Return what stands at the entries ``i`` of expressions ``e``, all in one state, without the last newline."""
        template, table = self.template(state), self.table
        numbers = (self.operands.a, self.operands.b or self.operands.a)
        parts: dict[str, Field] = {}
        for _, name in template.pieces:
            head = int(name.startswith("b"))
            if name in ("a", "b"):
                parts[name] = tape(numbers[head], e)
            elif name in ("a_left", "b_left", "a_right", "b_right"):
                if name not in parts:
                    sides = halves(numbers[head], e, np.maximum(self.run.head(head, e, i), 0))
                    parts[f"{name[0]}_left"], parts[f"{name[0]}_right"] = sides
            elif name in ("out", "mark"):
                length = self.run.length(e, i)
                mark = Choice((template.mark, ""), (length > 0).astype(np.int64))
                parts[name] = low(self.run.output, e, length) if name == "out" else mark
            elif name in ("carry", "flag"):
                parts[name] = Choice(tuple(getattr(one, name) for one in table.controls), table.control.take(code))
        return template, {**parts, "command": Choice(table.lines, table.command.take(code))}

    def first(self, e: I64) -> Content:
        """Return the initial entry of expressions ``e`` without its last newline, for a composer to quote."""
        return self._content("q0", e, np.zeros_like(e), np.full_like(e, self.table.begin))

    def last(self, e: I64) -> Content:
        """Return the halting entry of expressions ``e`` without its last newline, for a composer to quote."""
        steps = self.num_steps[e]
        return self._content("qH", e, steps, self.run.codes[steps, e].astype(np.int64))

    def answer(self) -> Field:
        control = self.table.control.take(self.run.codes[self.num_steps, self.all])
        if any(one.flag for one in self.table.controls):
            return Choice(tuple(one.flag for one in self.table.controls), control)
        output = self.run.output
        if int(output.length.min(initial=1)) == 0:  # an empty output is 0, whatever was taken back
            output = Number(output.planes * (output.length > 0), np.maximum(output.length, 1))
        return decimal(output, self.all)
