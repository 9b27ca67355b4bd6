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
from numpy.typing import NDArray

from ..errors import UserError
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
LOOK_EVERY = 8  # steps between looks whether all rows have halted
SYMBOLS = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "")
NEWLINE = Template("\n")
MOST_CODES = 1_000_000  # a larger table is slower than the steps it saves
# What a run has moved is one number a row: fields for both heads, output and steps, wide enough for any operand.
SHIFT = 15
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
        looking = {control for control, cases in found.items() if any(LAST in case.symbols for case in cases)}
        found = dict(sorted(found.items(), key=lambda item: item[0] in looking))
        self.looks_back = bool(looking)
        self.writes_late = any(case.written > 0 for control in looking for case in found[control])
        self.takes_back = any(case.written < 0 for cases in found.values() for case in cases)
        self._check_output(found)
        ends = {case.then for cases in found.values() for case in cases if case.then.state == "qH"}
        self.controls = (*found, *sorted(ends))
        lines = dict.fromkeys(case.line for cases in found.values() for case in cases if case.line is not None)
        self.lines = (*lines, HALT)
        self.in_step, self.writes_in_step = self._in_step(found), self._writes_in_step(found)
        self._fill(found, {line: number for number, line in enumerate(lines)}, len(looking))

    @property
    def stride(self) -> int:
        """Codes of one control state."""
        return 11**self.heads * (11 if self.looks_back else 1)

    @property
    def start(self) -> int:
        """Where heads and output stand before the first step, in the fields of ``moved``."""
        return MIDDLE * (1 + (1 << SHIFT) + (1 << 2 * SHIFT))

    @property
    def begin(self) -> int:
        """The code of the first step: all symbols are blank, the output is empty."""
        return self.stride - 1

    def _fill(self, found: Mapping[Control, list[Case]], lines: Mapping[str, int], looking: int) -> None:
        number = {control: place for place, control in enumerate(self.controls)}
        stride, places = self.stride, np.arange(self.stride)
        self.looking, self.halted = (len(found) - looking) * stride, len(found) * stride
        self.idle = len(self.controls) * stride
        self.lost, size = self.idle + stride, self.idle + 2 * stride
        self.next = np.arange(size) // stride * stride
        self.moved, self.written = np.zeros(size, np.int64), np.full(size, NOTHING, np.uint8)
        self.command = np.full(size, len(self.lines) - 1, np.int64)
        digits = {0: places % 11, 1: places // 11 % 11, LAST: places // 11**self.heads}
        for control, cases in found.items():
            for case in cases:
                here = np.ones(stride, np.bool_)
                for symbol, text in case.symbols.items():
                    here &= digits[symbol] == SYMBOLS.index(text)
                codes = number[control] * stride + np.flatnonzero(here)
                if case.line is None:
                    self.next[codes] = self.lost
                    continue
                self.next[codes] = number[case.then] * stride
                fields = (*case.moves, 0)[:2], case.written, 1
                self.moved[codes] = sum(value << SHIFT * at for at, value in enumerate((*fields[0], *fields[1:])))
                self.written[codes] = int(case.digit) if case.digit else NOTHING
                self.command[codes] = lines[case.line]
        self.waiting = np.where((self.next >= self.looking) & (self.next < self.halted), self.idle, self.next)
        self.digit = np.where(self.written == NOTHING, 0, self.written).astype(np.uint8)
        self.output = field(self.moved + self.start, 2).astype(np.int16)
        self.control = np.arange(size) // stride
        self.states = tuple(sorted({control.state for control in self.controls}))
        self.state = np.array([*(self.states.index(control.state) for control in self.controls), 0, 0])[self.control]

    @cached_property
    def _steps(self) -> list[tuple[int, int, int, int, str]]:
        """What each code leads to: the next control state's codes, moves of both heads and of the output, a digit."""
        moves = [field(self.moved + self.start, head).tolist() for head in range(2)]
        written = self.output.tolist()
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
            elif written < 0 and output:
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
    def _writes_in_step(found: Mapping[Control, list[Case]]) -> bool:
        """Tell whether the digit at place p, if there is one, is written in step p + 1."""
        follows = {control: {case.then for case in cases} for control, cases in found.items()}
        start = Control("q0")
        return not any(
            case.written > 0
            if control == start
            else case.written < 1
            and any(later.written > 0 for one in _reachable(case.then, follows) for later in found.get(one, ()))
            for control, cases in found.items()
            for case in cases
        )

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


def field(moved: I64, at: int) -> I64:
    """Return how far head 1 (0), head 2 (1) or the output (2) has moved, or how many steps were taken (3)."""
    return (moved >> SHIFT * at & FIELD) - MIDDLE if at < 3 else moved >> SHIFT * at


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
    codes: I64
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
    """Run a column of expressions; a code below ``halted`` in the end tells of a run that takes more steps."""
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
        np.take(table.waiting, code, out=control, mode="clip")
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
        np.take(table.next, code, out=control, mode="clip")
        if step % LOOK_EVERY == LOOK_EVERY - 1 and int(control.min(initial=table.halted)) >= table.halted:
            break
    codes[step + 1] = control
    return step + 1


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

    def entries(self, e: I64, i: I64) -> list[Block]:
        """Return the entries ``i`` of expressions ``e``."""
        code = self.run.codes[i, e].astype(np.int64)
        blocks, state = [], self.table.state.take(code)
        for number, name in enumerate(self.table.states):
            rows = np.flatnonzero(state == number)
            if len(rows):
                template, parts = self._content(name, e[rows], i[rows], code[rows])
                blocks.append(Block(rows, template + NEWLINE, parts, name))
        return blocks

    def _content(self, state: str, e: I64, i: I64, code: I64) -> Content:
        """Return what stands at the entries ``i`` of expressions ``e``, all in one state, without the last newline."""
        template, table = self.machine.template(state), self.table
        numbers = (self.operands.a, self.operands.b or self.operands.a)
        parts: dict[str, Part] = {}
        for _, name in template.pieces:
            head = int(name.startswith("b"))
            if name in ("a", "b"):
                parts[name] = tape(numbers[head], e)
            elif name in ("a_left", "b_left", "a_right", "b_right"):
                cut = left if name.endswith("left") else right
                parts[name] = cut(numbers[head], e, np.maximum(self.run.head(head, e, i), 0))
            elif name in ("out", "mark"):
                length = self.run.length(e, i)
                mark = Pick((self.machine.empty.get(state, ""), ""), (length > 0).astype(np.int64))
                parts[name] = low(self.run.output, e, length) if name == "out" else mark
            elif name in ("carry", "flag"):
                parts[name] = Pick(tuple(getattr(one, name) for one in table.controls), table.control.take(code))
        return template, {**parts, "command": Pick(table.lines, table.command.take(code))}

    def first(self, e: I64) -> Content:
        """Return the initial entry of expressions ``e`` without its last newline, for a composer to quote."""
        return self._content("q0", e, np.zeros_like(e), np.full_like(e, self.table.begin))

    def last(self, e: I64) -> Content:
        """Return the halting entry of expressions ``e`` without its last newline, for a composer to quote."""
        steps = self.num_steps[e]
        return self._content("qH", e, steps, self.run.codes[steps, e].astype(np.int64))

    def prompts(self, rows: Rows) -> Texts:
        return texts(self.entries(rows.expression, rows.index), len(rows))

    def completions(self, rows: Rows) -> Texts:
        return texts(self.entries(rows.expression, rows.index + 1), len(rows))

    def initial(self) -> pa.Array:
        template, parts = self.first(self.all)
        return render([Block(self.all, template + NEWLINE, parts)], len(self.all))

    def halted(self) -> pa.Array:
        return render(self.entries(self.all, self.num_steps), len(self.all))

    def answer(self) -> Part:
        control = self.table.control.take(self.run.codes[self.num_steps, self.all])
        if any(one.flag for one in self.table.controls):
            return Pick(tuple(one.flag for one in self.table.controls), control)
        output = self.run.output
        planes = output.planes * (output.length > 0)  # an empty output is 0, whatever was taken back
        return decimal(Number(planes, np.maximum(output.length, 1)), self.all)
