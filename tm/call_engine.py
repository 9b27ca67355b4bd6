"""Renders a composer's rows in columns: state lines from sums of products, entries of the machines that it calls."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from .batch import Batch, Rows, Texts, texts
from .columns import I64, Number, Operands
from .machine import HALT, Dialect
from .render import Block, Part, decimal, render
from .sums import Column, Group
from .tape_engine import NEWLINE, Content
from .template import Template, called

if TYPE_CHECKING:
    from .composer import Composer


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
        return Group(self.machine, self.operands, self.turns, rows, e, turn, whole)

    def prompts(self, rows: Rows) -> Texts:
        blocks = []
        for at, group in self._groups(rows):
            call, initial = self.machine.calls[at], group.turn.is_zero()
            first, later = np.flatnonzero(initial), np.flatnonzero(~initial)
            if len(first):
                blocks.append(Block(group.rows[first], *_ended(self._initial(group, first)), state="q0"))
            if len(later):
                found, its_rows = group.call(call, group.k)
                template, parts = found.last(its_rows[later])
                if self.dialect == "published":
                    parts = {**parts, **self.machine.published_parts(group, later, call.state)}
                content = _lines(self._shown(call.state, group, group.k, later), call.line, (template, parts))
                blocks.append(Block(group.rows[later], *_ended(content), state=call.state))
        return texts(blocks, len(rows))

    def completions(self, rows: Rows) -> Texts:
        blocks, calls = [], self.machine.calls
        for at, group in self._groups(rows):
            ends = group.last if at == self.machine.leaves else np.zeros(len(group.rows), np.bool_)
            now, later = np.flatnonzero(ends), np.flatnonzero(~ends)
            if len(now):
                blocks.append(Block(group.rows[now], *self._halted(group, now), state="qH"))
            if len(later):
                call, turn = (calls[at + 1], group.k) if at + 1 < len(calls) else (calls[0], group.k + 1)
                found, its_rows = group.call(call, turn)
                quoted = found.first(its_rows[later])
                content = _lines(self._shown(call.state, group, turn, later), call.line, quoted)
                blocks.append(Block(group.rows[later], *content, state=call.state, call=call.task))
        return texts(blocks, len(rows))

    def _shown(self, state: str, group: Group, turn: Column, here: I64) -> Content:
        line = self.machine.halted_line if state == "qH" else self.machine.line
        values = {"a": group.a, "b": group.b, **self.machine.registers(group.a, group.b, turn, state)}
        fields = {name: f"{{{name}}}" for name in values}
        template = Template(called(line, self.machine.title, state, fields))
        return template, {name: group.tape(values[name], here) for _, name in template.pieces if name}

    def _initial(self, group: Group, here: I64) -> Content:
        fields = {"a": "{a}", "b": "{b}"}
        line = called(self.machine.line, self.machine.title, "q0", fields)
        return Template(f"{line}\n{self.machine.begin}"), {
            name: group.tape(getattr(group, name), here) for name in fields
        }

    def _halted(self, group: Group, here: I64) -> Content:
        return _lines(self._shown("qH", group, group.k, here), HALT)

    @cached_property
    def _whole(self) -> Group:
        """Every expression at its last turn."""
        return self._group(self.all, self.all, self.turns)

    def initial(self) -> pa.Array:
        return render([Block(self.all, *_ended(self._initial(self._whole, self.all)))], len(self.all))

    def halted(self) -> pa.Array:
        return render([Block(self.all, *self._halted(self._whole, self.all))], len(self.all))

    def answer(self) -> Part:
        group = self._whole
        found = self.machine.registers(group.a, group.b, group.k, "qH")["out"]
        return decimal(found.number, self.all)


def _lines(*contents: Content | str) -> Content:
    """Join contents line by line; fields of the same name stay apart."""
    sources, parts = [], dict[str, Part]()
    for at, content in enumerate(contents):
        template, own = (Template(content), {}) if isinstance(content, str) else content
        sources.append(_numbered(template.source, at))
        parts.update({f"{name}{at}": part for name, part in own.items()})
    return Template("\n".join(sources)), parts


@lru_cache(maxsize=1024)
def _numbered(source: str, at: int) -> str:
    return re.sub(r"\{(\w+)\}", rf"{{\g<1>{at}}}", source)


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
