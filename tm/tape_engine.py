"""Runs a basic machine on a column of expressions from its scalar ``decide`` alone.

``decide`` sees a finite view: state, registers, the digit under each head, the digit that the output ends with. It is
called once for every view that its control states can meet, each command is executed once, and the effect goes into
tables. A column of expressions then runs in lock-step: a step is one look-up of the codes of all rows. Entries follow
from the codes: the command of entry ``i`` is that of its code, heads stand where the moves before ``i`` put them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from .batch import Rows, Texts, WalkedBatch, texts
from .columns import I64, U8, Number, Operands
from .interpreter import Configuration, execute
from .machine import HALT, Dialect
from .render import Block, Part, Pick, decimal, left, low, render, right, tape
from .template import Template

if TYPE_CHECKING:
    from .basic import BasicMachine

BLANK = 10  # the code of no digit
NOTHING = 255  # written: no digit
SYMBOLS = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "")
NEWLINE = Template("\n")
MOST_CODES = 1_000_000  # a larger table is slower than the steps it saves
# Where heads and output stand is one number a row: a field each, wide enough for the digits of any operand.
SHIFT = 20
FIELD, MIDDLE = (1 << SHIFT) - 1, 1 << SHIFT - 1  # a head before its tape stands in the middle: it may go left of that

Content = tuple[Template, Mapping[str, Part]]


class Untabulated(BaseException):
    """``decide`` looks at more than its view, or does what tables cannot hold."""


class _Unknown(BaseException):
    """``decide`` has asked for a symbol that is not chosen yet; no ``except Exception`` of a machine may catch it."""

    def __init__(self, symbol: int) -> None:
        self.symbol = symbol


class Control(NamedTuple):
    """What a machine knows beside tapes and digits written."""

    state: str
    carry: str = ""
    flag: str = ""
    pending: str = ""


LAST = 2  # number of the symbol that the output ends with; 0 and 1 are those under the heads


class View:
    """What ``decide`` may look at, with the symbols of one case."""

    def __init__(self, control: Control, heads: int, symbols: Mapping[int, str]) -> None:
        self.state, self.carry, self.flag, self.pending = control
        self._heads, self._symbols = heads, symbols

    def read(self, head: int) -> str:
        """Return the digit under a head, an empty string past either end."""
        head = range(self._heads)[head]
        if head not in self._symbols:
            raise _Unknown(head)
        return self._symbols[head]

    @property
    def symbol(self) -> str:
        """The digit under the first head."""
        return self.read(0)

    @property
    def symbols(self) -> tuple[str, ...]:
        """The digit under each head."""
        return tuple(self.read(head) for head in range(self._heads))

    @property
    def last(self) -> str:
        """The digit that the output ends with, an empty string where nothing is written."""
        if LAST not in self._symbols:
            raise _Unknown(LAST)
        return self._symbols[LAST]

    def __getattr__(self, name: str) -> Any:
        raise Untabulated(f"it looks at {name}")


@dataclass(frozen=True)
class Case:
    """One view and what follows from it; ``symbols`` holds those that ``decide`` has looked at."""

    symbols: Mapping[int, str]
    line: str | None
    then: Control
    moves: tuple[int, ...]
    written: int  # 1 a digit more, -1 a digit less
    digit: str


def _cases(machine: BasicMachine, control: Control) -> Iterator[Case]:
    """Yield the cases of a control state; a command that cannot be given in a case makes it one that is never met."""
    heads = 1 if machine.unary else 2
    todo: list[dict[int, str]] = [{}]
    while todo:
        symbols = todo.pop()
        try:
            line: str | None = machine.line(View(control, heads, symbols))
            now = _example(control, heads, symbols)
            then = execute(now, line or "")
            if len(then.output) < len(now.output) and LAST not in symbols:
                raise _Unknown(LAST)  # what cannot be taken back is left: it matters whether there is a digit
        except _Unknown as unknown:
            todo += [{**symbols, unknown.symbol: symbol} for symbol in SYMBOLS]
            continue
        except Exception:  # the machine's own: it is raised where a run meets the case
            line, then, now = None, _example(control, heads, symbols), _example(control, heads, symbols)
        yield _case(symbols, line, now, then)


def _example(control: Control, heads: int, symbols: Mapping[int, str]) -> Configuration:
    """Return a configuration that shows this view: the output ends with the digit of the case."""
    state, carry, flag, pending = control
    output = "7" + symbols[LAST] if symbols.get(LAST) else "" if LAST in symbols else "77"
    return Configuration(state, ("",) * heads, (0,) * heads, carry, output, flag, pending)


def _case(symbols: Mapping[int, str], line: str | None, now: Configuration, then: Configuration) -> Case:
    written = len(then.output) - len(now.output)
    if abs(written) > 1 or any(abs(move) > 1 for move in then.heads):
        raise Untabulated("a command writes or moves by more than one place")
    kept = min(len(now.output), len(then.output))
    if then.output[:kept] != now.output[:kept]:
        raise Untabulated("a command takes a digit back and writes another")
    control = Control(then.state, then.carry, then.flag, then.pending)
    return Case(symbols, line, control, then.heads, written, then.output[-1] if written > 0 else "")


class Table:
    """A machine's ``decide`` in arrays, indexed by code: (control, last digit of the output, symbols).

    Attributes:
        controls: the control states; those that halt come last.
        next: where the code of the following control state begins.
        moved: what the command moves, in fields of ``SHIFT`` bits: head 1, head 2, output.
        written: the digit that the command writes.
        command: index of the command in ``lines``.
        halted: codes from here on are of halted machines.
        lost: the code of a case that ``decide`` has no command for.

    Raises:
        Untabulated: ``decide`` cannot be tabulated; says why.
    """

    def __init__(self, machine: BasicMachine) -> None:
        self.heads = 1 if machine.unary else 2
        found: dict[Control, list[Case]] = {}
        todo = [Control("q0")]
        while todo:
            control = todo.pop()
            if control in found or control.state == "qH":
                continue
            found[control] = list(_cases(machine, control))
            todo += [case.then for case in found[control] if case.line is not None]
            if len(found) * 121 > MOST_CODES:
                raise Untabulated(f"it has more than {len(found):,} states with their registers")
        self.looks_back = any(LAST in case.symbols for cases in found.values() for case in cases)
        self._check_output(found)
        ends = {case.then for cases in found.values() for case in cases if case.then.state == "qH"}
        self.controls = (*found, *sorted(ends))
        lines = dict.fromkeys(case.line for cases in found.values() for case in cases if case.line is not None)
        self.lines = (*lines, HALT)
        self.in_step = self._in_step(found)
        self._fill(found, {line: number for number, line in enumerate(lines)})

    @property
    def stride(self) -> int:
        """Codes of one control state."""
        return 11**self.heads * (11 if self.looks_back else 1)

    @property
    def start(self) -> int:
        """Where heads and output stand before the first step, in the fields of ``moved``."""
        return MIDDLE + (MIDDLE << SHIFT)

    @property
    def begin(self) -> int:
        """The code of the first step: all symbols are blank, the output is empty."""
        return self.stride - 1

    def _fill(self, found: Mapping[Control, list[Case]], lines: Mapping[str, int]) -> None:
        number = {control: place for place, control in enumerate(self.controls)}
        size, stride = len(self.controls) * self.stride, self.stride
        self.halted, self.lost = len(found) * stride, size
        self.next = np.repeat(np.arange(len(self.controls)) * stride, stride)
        self.next = np.append(self.next, size)
        self.moved, self.written = np.zeros(size + 1, np.int64), np.full(size + 1, NOTHING, np.uint8)
        self.command = np.full(size + 1, len(self.lines) - 1, np.int64)
        places = np.arange(stride)
        digits = {0: places % 11, 1: places // 11 % 11, LAST: places // 11**self.heads}
        for control, cases in found.items():
            for case in cases:
                here = np.ones(stride, np.bool_)
                for symbol, text in case.symbols.items():
                    here &= digits[symbol] == SYMBOLS.index(text)
                codes = number[control] * stride + np.flatnonzero(here)
                self.next[codes] = size if case.line is None else number[case.then] * stride
                moves = case.moves[0] + (case.moves[1] << SHIFT if self.heads == 2 else 0)
                self.moved[codes] = moves + (case.written << 2 * SHIFT)
                self.written[codes] = int(case.digit) if case.digit else NOTHING
                self.command[codes] = lines[case.line] if case.line is not None else 0
        self.control = np.repeat(np.arange(len(self.controls)), stride)
        self.states = tuple(sorted({control.state for control in self.controls}))
        self.state = np.array([self.states.index(control.state) for control in self.controls])[self.control]

    @cached_property
    def _steps(self) -> list[tuple[int, int, int, int, str]]:
        """What each code leads to: the next control state's codes, moves of both heads and of the output, a digit."""
        fields = [self.moved + self.start >> 0 & FIELD, self.moved + self.start >> SHIFT & FIELD]
        moves = [(field - MIDDLE).tolist() for field in fields]
        written = (self.moved + self.start >> 2 * SHIFT).tolist()
        digits = ["" if digit == NOTHING else str(digit) for digit in self.written.tolist()]
        return list(zip(self.next.tolist(), *moves, written, digits, strict=True))

    def walk(self, now: Configuration, most: int) -> tuple[Configuration, int]:
        """Return the configuration at most so many steps after the initial one, and the number of steps to it."""
        tapes = [[*(int(digit) for digit in tape), BLANK] for tape in now.tapes]
        first, second = tapes[0], tapes[-1]
        size, two = self.stride, self.heads == 2
        control, one, other, output, steps = 0, -1, -1, list[str](), 0
        while control < self.halted and steps < most:
            code = control + (first[one] if 0 <= one < len(first) else BLANK)
            if two:
                code += 11 * (second[other] if 0 <= other < len(second) else BLANK)
            if self.looks_back:
                code += size // 11 * (int(output[-1]) if output else BLANK)
            control, move, move_other, written, digit = self._steps[code]
            if control == self.lost:
                break
            one, other, steps = one + move, other + move_other, steps + 1
            if digit:
                output.append(digit)
            elif written < 0:
                output.pop()
        if control == self.lost:  # the machine says itself what it lacks, where it is asked for the command
            control = code // size * size
        state, carry, flag, pending = self.controls[control // size]
        heads = (one, other)[: self.heads]
        return Configuration(state, now.tapes, heads, carry, "".join(output), flag, pending), steps

    @staticmethod
    def _check_output(found: Mapping[Control, list[Case]]) -> None:
        """Refuse machines that write again where a digit was taken back: earlier entries would show the new digit."""
        follows = {control: {case.then for case in cases} for control, cases in found.items()}
        for cases in found.values():
            for case in cases:
                if case.written < 0 and any(
                    later.written > 0 for control in _reachable(case.then, follows) for later in found.get(control, ())
                ):
                    raise Untabulated("it writes again where it took a digit back")

    @staticmethod
    def _in_step(found: Mapping[Control, list[Case]]) -> bool:
        """Tell whether the symbols of step k are those at place k - 1: heads enter first and move on while they read.

        Heads that have stopped behind their tape read nothing; those that stop elsewhere must not be read again.
        """
        follows = {control: {case.then for case in cases} for control, cases in found.items()}
        reads = {control: {head for case in cases for head in case.symbols} for control, cases in found.items()}
        for control, cases in found.items():
            for case in cases:
                for head, move in enumerate(case.moves):
                    behind = case.symbols.get(head) == "" and control.state != "q0"
                    if (move < 0 or move != 1 and not behind) and any(
                        head in reads.get(later, ()) for later in _reachable(case.then, follows)
                    ):
                        return False
        return True


def _reachable(start: Control, follows: Mapping[Control, set[Control]]) -> set[Control]:
    seen, todo = set[Control](), [start]
    while todo:
        control = todo.pop()
        if control not in seen:
            seen.add(control)
            todo += follows.get(control, ())
    return seen


def _cells(number: Number) -> U8:
    """Return the digits of a column with blanks before and behind, shape (width + 2, n)."""
    cells = np.full((number.width + 2, len(number)), BLANK, np.uint8)
    inside = np.arange(number.width)[:, None] < number.length
    np.copyto(cells[1:-1], number.planes, where=inside)
    return cells


@dataclass(eq=False)
class Run:
    """A column of expressions run to the end.

    Args:
        table: the machine.
        codes: the code of every step, shape (steps + 1, n); a row stays on its halting code.
    """

    table: Table
    codes: I64

    @cached_property
    def num_steps(self) -> I64:
        """Number of transitions of each expression, shape (n,)."""
        steps: I64 = (self.codes < self.table.halted).sum(axis=0)
        return steps

    @cached_property
    def moved(self) -> I64:
        """What each step moves, shape (steps, n)."""
        return self.table.moved.take(self.codes[:-1])

    @cached_property
    def places(self) -> I64:
        """Where heads and output stand before each step, in the fields of ``Table.moved``, shape (steps + 1, n)."""
        places = np.empty_like(self.codes)
        places[0] = self.table.start
        np.cumsum(self.moved, axis=0, out=places[1:])
        places[1:] += self.table.start
        return places

    @cached_property
    def final(self) -> I64:
        """The last row of ``places``."""
        return self.places[-1] if "places" in self.__dict__ else self.moved.sum(axis=0) + self.table.start

    @cached_property
    def output(self) -> Number:
        """The digits written, with the length that the output has in the end."""
        digits = self.table.written.take(self.codes[:-1])
        wrote = digits < NOTHING
        steps = np.flatnonzero(wrote.any(axis=1))
        length = self.final >> 2 * SHIFT
        if not len(steps):
            return Number(np.zeros((1, len(length)), np.uint8), length)
        first, end = int(steps[0]), int(steps[-1]) + 1
        if (wrote[first + 1 : end] > wrote[first : end - 1]).any():  # not one digit a step from the first one on
            step, row = np.nonzero(wrote)
            planes = np.zeros((int(wrote.sum(axis=0).max()), len(length)), np.uint8)
            planes[self.places[step, row] >> 2 * SHIFT, row] = digits[step, row]
            return Number(planes, length)
        return Number(digits[first:end] * wrote[first:end], length)


def run(table: Table, operands: Operands, most: int) -> Run:
    """Run a column of expressions for at most so many steps; codes of the last step tell whether they have halted."""
    tapes = [_cells(operands.a)] + ([_cells(operands.second)] if table.heads == 2 else [])
    codes: list[I64] = []
    if table.in_step and not table.looks_back:
        control = _run_in_step(table, tapes, codes, most)
    else:
        control = _run_anywhere(table, tapes, codes, most)
    codes.append(control)
    return Run(table, np.stack(codes))


def _run_in_step(table: Table, tapes: list[U8], codes: list[I64], most: int) -> I64:
    """Run where every head that reads has moved at every step."""
    steps, factor = max(map(len, tapes)), 1
    lane = np.zeros((steps, tapes[0].shape[1]), np.int64)
    for cells in tapes:
        lane[: len(cells)] += cells * np.int64(factor)
        lane[len(cells) :] += BLANK * factor
        factor *= 11
    control = np.zeros(lane.shape[1], np.int64)
    for step in range(most):
        code = control + lane[min(step, steps - 1)]
        codes.append(code)
        control = table.next.take(code, mode="clip")
        if step > 1 and int(control.min(initial=table.halted)) >= table.halted:
            break
    return control


def _run_anywhere(table: Table, tapes: list[U8], codes: list[I64], most: int) -> I64:
    """Run where symbols depend on where the heads went, or on what was written."""
    num = tapes[0].shape[1]
    rows = np.arange(num)
    place, control = np.full(num, table.start), np.zeros(num, np.int64)
    output = np.full((most + 2, num), BLANK, np.uint8)  # the digit at place p stands in row p + 1
    for _ in range(most):
        code, factor = control.copy(), 1
        for head, cells in enumerate(tapes):
            at = np.clip((place >> head * SHIFT & FIELD) - MIDDLE, 0, len(cells) - 1)
            code += cells[at, rows] * np.int64(factor)
            factor *= 11
        if table.looks_back:
            code += output[place >> 2 * SHIFT, rows] * np.int64(factor)
        codes.append(code)
        place = place + table.moved.take(code, mode="clip")
        digit = table.written.take(code, mode="clip")
        wrote = np.flatnonzero(digit < NOTHING)
        output[place[wrote] >> 2 * SHIFT, wrote] = digit[wrote]
        control = table.next.take(code, mode="clip")
        if int(control.min(initial=table.halted)) >= table.halted:
            break
    return control


class TapeBatch(WalkedBatch):
    """Expressions of a basic machine in columns."""

    machine: BasicMachine

    def __init__(self, machine: BasicMachine, operands: Operands, dialect: Dialect, table: Table) -> None:
        super().__init__(machine, operands, dialect)
        self.table = table

    @cached_property
    def run(self) -> Run:
        """The expressions run to the end.

        Raises:
            UserError: one does not halt within the machine's ``max_num_steps``.
        """
        a, b = self.operands.a, self.operands.b
        most = self.machine.max_num_steps(a.width, 0 if b is None else b.width)
        found = run(self.table, self.operands, most)
        control = found.codes[-1]
        bad = np.flatnonzero((control < self.table.halted) | (control == self.table.lost))
        if len(bad):  # walked step by step, it says itself what it lacks
            x, y = (0 if number is None else number.take(bad[:1]).integers()[0] for number in (a, b))
            for _ in self.machine.transitions(x, y, self.dialect):
                pass
        return found

    @property
    def num_steps(self) -> I64:
        return self.run.num_steps

    def entries(self, e: I64, i: I64) -> list[Block]:
        """Return the entries ``i`` of expressions ``e``."""
        flat = i * len(self.operands) + e
        code = self.run.codes.reshape(-1).take(flat)
        return self._blocks(e, code, self.run.places.reshape(-1).take(flat))

    def _blocks(self, e: I64, code: I64, place: I64) -> list[Block]:
        blocks, state = [], self.table.state.take(code)
        for number, name in enumerate(self.table.states):
            rows = np.flatnonzero(state == number)
            if len(rows):
                template, parts = self._content(name, e[rows], code[rows], place[rows])
                blocks.append(Block(rows, template + NEWLINE, parts, name))
        return blocks

    def _content(self, state: str, e: I64, code: I64, place: I64) -> Content:
        """Return what stands at entries of one state, without the last newline."""
        template, table, a, b = self.machine.template(state), self.table, self.operands.a, self.operands.b
        control = table.control.take(code)
        parts: dict[str, Part] = {"command": Pick(table.lines, table.command.take(code))}
        for _, name in template.pieces:
            number, head = (b, 1) if name.startswith("b") and b is not None else (a, 0)
            if name in ("a", "b"):
                parts[name] = tape(number, e)
            elif name in ("a_left", "b_left", "a_right", "b_right"):
                at = np.maximum((place >> head * SHIFT & FIELD) - MIDDLE - 1, 0)
                parts[name] = (left if name.endswith("left") else right)(number, e, at)
            elif name == "out":
                parts[name] = low(self.run.output, e, place >> 2 * SHIFT)
            elif name == "mark":
                parts[name] = Pick((self.machine.empty[state], ""), (place >> 2 * SHIFT > 0).astype(np.int64))
            elif name in ("carry", "flag"):
                parts[name] = Pick(tuple(getattr(one, name) for one in table.controls), control)
        return template, parts

    def first(self, e: I64) -> Content:
        """Return the initial entry of expressions ``e`` without its last newline, for a composer to quote."""
        return self._content("q0", e, np.full_like(e, self.table.begin), np.full_like(e, self.table.start))

    def last(self, e: I64) -> Content:
        """Return the halting entry of expressions ``e`` without its last newline, for a composer to quote."""
        return self._content("qH", e, self.run.codes[-1, e], self.run.final[e])

    def prompts(self, rows: Rows) -> Texts:
        return texts(self.entries(rows.expression, rows.index), len(rows))

    def completions(self, rows: Rows) -> Texts:
        return texts(self.entries(rows.expression, rows.index + 1), len(rows))

    def initial(self) -> pa.Array:
        template, parts = self.first(self.all)
        return render([Block(self.all, template + NEWLINE, parts)], len(self.all))

    def halted(self) -> pa.Array:
        return render(self._blocks(self.all, self.run.codes[-1], self.run.final), len(self.all))

    def answer(self) -> Part:
        control = self.table.control.take(self.run.codes[-1])
        if any(one.flag for one in self.table.controls):
            return Pick(tuple(one.flag for one in self.table.controls), control)
        output = self.run.output
        planes = output.planes * (output.length > 0)  # an empty output is 0, whatever was taken back
        return decimal(Number(planes, np.maximum(output.length, 1)), self.all)
