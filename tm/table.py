"""A basic machine's scalar ``decide`` as tables.

``decide`` sees a finite view: state, registers, the digit under each head, the digit that the output ends with. It is
called once for every view that its control states can meet, and each command is executed once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from .columns import I64
from .interpreter import Configuration, execute
from .machine import HALT

BLANK = 10  # the code of no digit
NOTHING = 255  # written: no digit
SYMBOLS = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "")
MOST_CODES = 1_000_000  # a larger table is slower than the steps it saves
# What a run has moved is one number a row: fields for both heads, output and steps, wide enough for any operand.
SHIFT = 15
FIELD, MIDDLE = (1 << SHIFT) - 1, 1 << SHIFT - 1  # a head before its tape stands in the middle: it may go left of that


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
        return self.read(0)

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(self.read(head) for head in range(self._heads))

    @property
    def last(self) -> str:
        """The digit that the output ends with, an empty string where nothing is written."""
        if LAST not in self._symbols:
            raise _Unknown(LAST)
        return self._symbols[LAST]

    def __getattr__(self, name: str) -> Any:
        raise Untabulated(f"it looks at {name}")


Decide = Callable[[View], str]  # gives the command line of what a machine sees


@dataclass(frozen=True)
class Case:
    """One view and what follows from it; ``symbols`` holds those that ``decide`` has looked at."""

    control: Control
    symbols: Mapping[int, str]
    line: str | None
    then: Control
    moves: tuple[int, ...]
    written: int  # 1 a digit more, -1 a digit less
    digit: str


def _cases(decide: Decide, heads: int, control: Control) -> Iterator[Case]:
    """Yield the cases of a control state; a command that cannot be given in a case makes it one that is never met."""
    todo: list[dict[int, str]] = [{}]
    while todo:
        symbols = todo.pop()
        now = _example(control, heads, symbols)
        try:
            line: str | None = decide(View(control, heads, symbols))
            then = execute(now, line or "")
        except _Unknown as unknown:
            todo += [{**symbols, unknown.symbol: symbol} for symbol in SYMBOLS]
            continue
        except Exception:  # the machine's own: it is raised where a run meets the case
            line, then = None, now
        written, kept = len(then.output) - len(now.output), min(len(now.output), len(then.output))
        if abs(written) > 1 or any(abs(move) > 1 for move in then.heads):
            raise Untabulated("a command writes or moves by more than one place")
        if then.output[:kept] != now.output[:kept]:
            raise Untabulated("a command takes a digit back and writes another")
        follows = Control(then.state, then.carry, then.flag, then.pending)
        yield Case(control, symbols, line, follows, then.heads, written, then.output[-1] if written > 0 else "")


def _example(control: Control, heads: int, symbols: Mapping[int, str]) -> Configuration:
    """Return a configuration that shows this view: the output ends with the digit of the case."""
    state, carry, flag, pending = control
    output = "7" + symbols[LAST] if symbols.get(LAST) else "" if LAST in symbols else "77"
    return Configuration(state, ("",) * heads, (0,) * heads, carry, output, flag, pending)


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

    def __init__(self, decide: Decide, heads: int) -> None:
        self.heads = heads
        controls, cases, todo = dict[Control, None](), list[Case](), [Control("q0")]
        while todo:
            control = todo.pop()
            if control in controls or control.state == "qH":
                continue
            controls[control] = None
            own = list(_cases(decide, heads, control))
            cases += own
            todo += [case.then for case in own if case.line is not None]
            if len(controls) * 121 > MOST_CODES:
                raise Untabulated(f"it has more than {len(controls):,} states with their registers")
        looking = {case.control for case in cases if LAST in case.symbols}
        ends = {case.then for case in cases if case.then.state == "qH"}
        self.controls = (*sorted(controls, key=looking.__contains__), *sorted(ends))
        self.lines = (*dict.fromkeys(case.line for case in cases if case.line is not None), HALT)
        self.looks_back = bool(looking)
        self.writes_late = any(case.written > 0 and case.control in looking for case in cases)
        self.takes_back = any(case.written < 0 for case in cases)
        self._follow(cases)
        self._fill(cases, len(controls), len(looking))

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

    def _fill(self, cases: Sequence[Case], going: int, looking: int) -> None:
        number = {control: place for place, control in enumerate(self.controls)}
        lines = {line: place for place, line in enumerate(self.lines)}
        stride, places = self.stride, np.arange(self.stride)
        self.looking, self.halted = (going - looking) * stride, going * stride
        self.idle = len(self.controls) * stride
        self.lost, size = self.idle + stride, self.idle + 2 * stride
        self.next = np.arange(size) // stride * stride
        self.moved, self.written = np.zeros(size, np.int64), np.full(size, NOTHING, np.uint8)
        self.command = np.full(size, len(self.lines) - 1, np.int64)
        digits = {0: places % 11, 1: places // 11 % 11, LAST: places // 11**self.heads}
        for case in cases:
            here = np.ones(stride, np.bool_)
            for symbol, text in case.symbols.items():
                here &= digits[symbol] == SYMBOLS.index(text)
            codes = number[case.control] * stride + np.flatnonzero(here)
            if case.line is None:
                self.next[codes] = self.lost
                continue
            self.next[codes] = number[case.then] * stride
            fields = *(*case.moves, 0)[:2], case.written, 1
            self.moved[codes] = sum(value << SHIFT * at for at, value in enumerate(fields))
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

    def _follow(self, cases: Sequence[Case]) -> None:
        """Note what holds of all that may follow a case, once for all runs.

        Raises:
            Untabulated: a digit may be written where one was taken back: earlier entries would show the new digit.
        """
        follows = defaultdict[Control, set[Control]](set)
        for case in cases:
            follows[case.control].add(case.then)
        start = Control("q0")
        writes = _leading_to({case.control for case in cases if case.written > 0}, follows)
        if any(case.written < 0 and case.then in writes for case in cases):
            raise Untabulated("it writes again where it took a digit back")
        # The digit at place p, if there is one, is written in step p + 1: from the second step on, without a pause.
        self.writes_in_step = not any(
            case.written > 0 if case.control == start else case.written < 1 and case.then in writes for case in cases
        )
        # The symbols of step k are those at place k - 1: heads enter first and move on while they read. Heads that
        # have stopped behind their tape read nothing; those that stop elsewhere must not be read again.
        self.in_step = True
        for head in range(self.heads):
            reads = _leading_to({case.control for case in cases if head in case.symbols}, follows)
            for case in cases:
                behind = case.symbols.get(head) == "" and case.control.state != "q0"
                stopped = case.moves[head] < 0 or case.moves[head] != 1 and not behind
                self.in_step &= not (stopped and case.then in reads)


def _leading_to(targets: set[Control], follows: Mapping[Control, set[Control]]) -> set[Control]:
    """Return the controls from which one of these is reached, these among them."""
    while more := {control for control, then in follows.items() if control not in targets and then & targets}:
        targets = targets | more
    return targets


def field(moved: I64, at: int) -> I64:
    """Return how far head 1 (0), head 2 (1) or the output (2) has moved, or how many steps were taken (3)."""
    return (moved >> SHIFT * at & FIELD) - MIDDLE if at < 3 else moved >> SHIFT * at
