"""Composers: machines whose steps call other machines, whose registers at any turn are known in closed form.

A composer says once, over ``+ - *``, what its registers hold at turn k, and which of them each call is given. With
Python integers that gives one transition, with columns the texts of thousands of rows. Nobody walks the 10**99 turns
of a loop.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from typing import ClassVar

import numpy as np
import pyarrow as pa

from .columns import I64, Number, Operands
from .interpreter import tape_text, units_first
from .machine import HALT, Batch, Dialect, Machine, Rows, Transition
from .registry import machine
from .render import Field, RowGroup, Template, Texts, decimal, render, texts
from .sums import Column, Group, Value
from .tape_engine import NEWLINE, Content, TapeBatch


@dataclass(frozen=True)
class Call:
    """A state that calls a machine.

    Args:
        state: the state.
        task: the machine's task.
        operands: names of the registers that it is given; ``1`` is the number.
        into: the register that takes the result; empty where a truth value says whether to go on.
        then: the state that the command names.
    """

    state: str
    task: str
    operands: tuple[str, ...]
    into: str
    then: str

    @cached_property
    def line(self) -> str:
        return f"CMD [CALL] {self.task.upper()}, {self.then}"


class Composer(Machine):
    """A machine whose steps call basic machines by name.

    A prompt quotes the halting entry of the machine that was called, a completion the initial entry of the one to call;
    neither entry ends in an empty line, and only prompts end in a newline.

    Class attributes:
        line: the state line, over title, state, a, b and the registers.
        halted_line: that of qH.
        begin: the command of q0, over a and b.
        calls: the calls of a turn, in order.
        leaves: which of them is the last one of the last turn.
        goes_on: the result, True or False, that leads to another turn.
    """

    composer = True
    line: ClassVar[str]
    halted_line: ClassVar[str]
    begin: ClassVar[str]
    calls: ClassVar[tuple[Call, ...]]
    leaves: ClassVar[int] = 0
    goes_on: ClassVar[str] = ""

    def turns(self, a: int, b: int) -> int:
        """Return the number of turns."""
        return 1

    @abstractmethod
    def registers(self, a: Value, b: Value, k: Value, state: str) -> Mapping[str, Value]:
        """Return what the registers hold in a state of turn k, by the names of ``line`` and of calls' operands."""

    def operands(self, a: Value, b: Value, k: Value, call: Call) -> tuple[Value | int, ...]:
        """Return the operands of a call of turn k."""
        held: dict[str, Value | int] = {"a": a, "b": b, "1": 1, **self.registers(a, b, k, call.state)}
        return tuple(held[name] for name in call.operands)

    def published(self, quoted: str, a: int, b: int, k: int, state: str) -> str:
        """Return a quoted halting entry as the published rows have it."""
        return quoted

    def published_parts(self, group: Group, here: I64, state: str) -> Mapping[str, Field]:
        """Return the parts of a quoted halting entry that differ in the published rows."""
        return {}

    @cache  # noqa: B019  (one instance a machine, kept for good)
    def template(self, state: str) -> Template:
        """Return the template of the two lines of a state, without the last newline; at first registers are empty."""
        line = self.halted_line if state == "qH" else self.line
        if state == "q0":
            line = re.sub(r"\{(?!(?:title|state|a|b)\})\w+\}", "", line)
        line = line.replace("{title}", self.title).replace("{state}", state)
        commands = {"q0": self.begin, "qH": HALT} | {call.state: call.line for call in self.calls}
        return Template(f"{line}\n{commands[state]}")

    # One expression

    def num_steps(self, a: int, b: int) -> int:
        return len(self.calls) * (self.turns(a, b) - 1) + self.leaves + 2

    def transition(self, a: int, b: int, t: int, dialect: Dialect) -> Transition:
        turn, at = (t + len(self.calls) - 1) // len(self.calls), (t - 1) % len(self.calls)
        state = self.calls[at].state if t else "q0"
        prompt = self._waiting(a, b, turn, at, dialect) if t else self.initial(a, b)
        if t == self.num_steps(a, b) - 1:
            return Transition(prompt, self.halted(a, b), state, "qH")
        turn, at = (turn, at + 1) if t and at + 1 < len(self.calls) else (turn + 1, 0)
        call = self.calls[at]
        quoted = machine(call.task).initial(*_two(self.operands(a, b, turn, call)))
        completion = f"{self._entry(call.state, a, b, turn)}\n{quoted}".removesuffix("\n")
        return Transition(prompt, completion, state, call.state, call.task)

    def _waiting(self, a: int, b: int, turn: int, at: int, dialect: Dialect) -> str:
        call = self.calls[at]
        quoted = machine(call.task).halted(*_two(self.operands(a, b, turn, call)))
        if dialect == "published":
            quoted = self.published(quoted, a, b, turn, call.state)
        return f"{self._entry(call.state, a, b, turn)}\n{quoted}"

    def _entry(self, state: str, a: int, b: int, turn: int) -> str:
        template, values = self.template(state), {"a": a, "b": b, **self.registers(a, b, turn, state)}
        return template.source.format_map({name: tape_text(units_first(values[name])) for name in template.names})

    def initial(self, a: int, b: int) -> str:
        return self._entry("q0", a, b, 0) + "\n"

    def halted(self, a: int, b: int) -> str:
        return self._entry("qH", a, b, self.turns(a, b))

    # Columns

    def count_turns(self, operands: Operands) -> Number:
        """Return the number of turns of each expression."""
        return Number(np.ones((1, len(operands)), np.uint8))

    def batch(self, operands: Operands, dialect: Dialect) -> Batch:
        return CallBatch(self, operands, dialect)


def _two(operands: tuple[int, ...]) -> tuple[int, int]:
    return (*operands, 0)[:2]  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class Places:
    """The index of a composer's rows: which call of which turn each waits for; turn 0 is the initial entry."""

    at: I64
    turn: Number
    groups: list[tuple[int, Group]] = field(default_factory=list)


class CallBatch(Batch):
    """Expressions of a composer in columns."""

    machine: Composer

    def __init__(self, machine: Composer, operands: Operands, dialect: Dialect) -> None:
        super().__init__(machine, operands, dialect)
        self.turns = machine.count_turns(operands)

    @property
    def num_steps(self) -> I64:
        calls = len(self.machine.calls)
        return _transitions(self.turns, calls, self.machine.leaves + 2 - calls)

    def steps(self, rows: Rows) -> I64:
        calls = len(self.machine.calls)
        return np.where(rows.index.turn.is_zero(), 0, _transitions(rows.index.turn, calls, rows.index.at + 1 - calls))

    def take(self, rows: Rows, order: I64) -> Rows:
        return Rows(rows.expression[order], Places(rows.index.at[order], rows.index.turn.take(order)))

    def every(self) -> Rows:
        return self.walked(self.all)

    def walked(self, expressions: I64) -> Rows:
        """Return every transition of some expressions, in order."""
        steps, calls = self.num_steps[expressions], len(self.machine.calls)
        expression = np.repeat(expressions, steps)
        t = np.arange(len(expression)) - np.repeat(np.cumsum(steps) - steps, steps) + calls - 1
        return Rows(expression, Places(t % calls, _number(t // calls)))

    def _groups(self, rows: Rows) -> list[tuple[int, Group]]:
        index = rows.index
        if not index.groups:
            for at in range(len(self.machine.calls)):
                here = np.flatnonzero(index.at == at)
                if len(here):
                    index.groups.append((at, self._group(here, rows.expression[here], index.turn.take(here))))
        return index.groups

    def _group(self, rows: I64, e: I64, turn: Number) -> Group:
        whole = None if e is self.all else self._whole
        return Group(self.operands, self.turns, rows, e, turn, whole)

    def prompts(self, rows: Rows) -> Texts:
        blocks = []
        for at, group in self._groups(rows):
            call, initial = self.machine.calls[at], group.turn.is_zero()
            first, later = np.flatnonzero(initial), np.flatnonzero(~initial)
            if len(first):
                content = self._content("q0", group, group.k, first)
                blocks.append(RowGroup(group.rows[first], *_ended(content), state="q0"))
            if len(later):
                found, its_rows = self._called(call, group, group.k)
                template, parts = found.last(its_rows[later])
                if self.dialect == "published":
                    parts = {**parts, **self.machine.published_parts(group, later, call.state)}
                content = _quoting(self._content(call.state, group, group.k, later), (template, parts))
                blocks.append(RowGroup(group.rows[later], *_ended(content), state=call.state))
        return texts(blocks, len(rows))

    def completions(self, rows: Rows) -> Texts:
        blocks, calls = [], self.machine.calls
        for at, group in self._groups(rows):
            ends = group.last if at == self.machine.leaves else np.zeros(len(group.rows), np.bool_)
            now, later = np.flatnonzero(ends), np.flatnonzero(~ends)
            if len(now):
                blocks.append(RowGroup(group.rows[now], *self._content("qH", group, group.k, now), state="qH"))
            if len(later):
                call, turn = (calls[at + 1], group.k) if at + 1 < len(calls) else (calls[0], group.k + 1)
                found, its_rows = self._called(call, group, turn)
                content = _quoting(self._content(call.state, group, turn, later), found.first(its_rows[later]))
                blocks.append(RowGroup(group.rows[later], *content, state=call.state, call=call.task))
        return texts(blocks, len(rows))

    def _called(self, call: Call, group: Group, turn: Column) -> tuple[TapeBatch, I64]:
        return group.call(call.task, self.machine.operands(group.a, group.b, turn, call))

    def _content(self, state: str, group: Group, turn: Column, here: I64) -> Content:
        """Return the machine's own two lines in a state."""
        template = self.machine.template(state)
        values = {"a": group.a, "b": group.b, **self.machine.registers(group.a, group.b, turn, state)}
        return template, {name: group.tape(values[name], here) for name in template.names}

    @cached_property
    def _whole(self) -> Group:
        """Every expression at its last turn."""
        return self._group(self.all, self.all, self.turns)

    def initial(self) -> pa.Array:
        return render(
            [RowGroup(self.all, *_ended(self._content("q0", self._whole, self._whole.k, self.all)))], len(self.all)
        )

    def halted(self) -> pa.Array:
        return render([RowGroup(self.all, *self._content("qH", self._whole, self._whole.k, self.all))], len(self.all))

    def answer(self) -> Field:
        group = self._whole
        found = self.machine.registers(group.a, group.b, group.k, "qH")["out"]
        return decimal(found.number, self.all)


def _quoting(own: Content, quoted: Content) -> Content:
    """Return two lines and an entry below them; fields of the same name stay apart."""
    template, parts = quoted
    source = f"{own[0].source}\n{_marked(template.source)}"
    return Template(source), {**own[1], **{f"{name}_": part for name, part in parts.items()}}


@lru_cache(maxsize=1024)
def _marked(source: str) -> str:
    return re.sub(r"\{(\w+)\}", r"{\1_}", source)


def _ended(content: Content) -> Content:
    return content[0] + NEWLINE, content[1]


def _transitions(turn: Number, calls: int, more: I64 | int) -> I64:
    """Return turn * calls + more, -1 where it does not fit int64; ``more`` is small."""
    value = np.zeros(len(turn), np.uint64)
    for plane in reversed(turn.planes[:19]):
        value = value * np.uint64(10) + plane
    certain = (turn.length <= 19) & (value <= np.uint64(4 * 10**18))
    # Around the signed minimum nothing is lost: the sum is taken modulo 2**64, and read as unsigned.
    count = np.where(certain, value, np.uint64(1)) * np.uint64(calls) + np.asarray(more, np.int64).astype(np.uint64)
    return np.where(certain & (count <= np.uint64(2**63 - 1)), count, np.uint64(2**64 - 1)).view(np.int64)


def _number(values: I64) -> Number:
    width = len(str(int(values.max(initial=0))))
    return Number(np.stack([values // 10**k % 10 for k in range(width)]).astype(np.uint8))
