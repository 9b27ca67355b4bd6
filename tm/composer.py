"""Composers: machines whose steps call other machines, whose registers at any turn are known in closed form.

A composer says once, over ``+ - *``, what its registers hold at turn k, and which of them each call is given. With
Python integers that gives one transition, with columns the texts of thousands of rows. Nobody walks the 10**99 turns
of a loop.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from .batch import Batch
from .call_engine import CallBatch
from .columns import I64, Number, Operands
from .interpreter import tape_text, units_first
from .machine import HALT, Dialect, Machine, Transition, machine
from .render import Part
from .sums import Group, Value
from .template import called


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

    def published_parts(self, group: Group, here: I64, state: str) -> Mapping[str, Part]:
        """Return the parts of a quoted halting entry that differ in the published rows."""
        return {}

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
        completion = f"{self._shown(call.state, a, b, turn)}\n{call.line}\n{quoted}".removesuffix("\n")
        return Transition(prompt, completion, state, call.state, call.task)

    def _waiting(self, a: int, b: int, turn: int, at: int, dialect: Dialect) -> str:
        call = self.calls[at]
        quoted = machine(call.task).halted(*_two(self.operands(a, b, turn, call)))
        if dialect == "published":
            quoted = self.published(quoted, a, b, turn, call.state)
        return f"{self._shown(call.state, a, b, turn)}\n{call.line}\n{quoted}"

    def _shown(self, state: str, a: int, b: int, turn: int) -> str:
        values = {"a": a, "b": b, **self.registers(a, b, turn, state)}
        line = self.halted_line if state == "qH" else self.line
        shown = {name: tape_text(units_first(value)) for name, value in values.items() if f"{{{name}}}" in line}
        return called(line, self.title, state, shown)

    def initial(self, a: int, b: int) -> str:
        tapes = {"a": tape_text(units_first(a)), "b": tape_text(units_first(b))}
        return f"{called(self.line, self.title, 'q0', tapes)}\n{self.begin.format_map(tapes)}\n"

    def halted(self, a: int, b: int) -> str:
        return f"{self._shown('qH', a, b, self.turns(a, b))}\n{HALT}"

    # Columns

    def count_turns(self, operands: Operands) -> Number:
        """Return the number of turns of each expression."""
        return Number(np.ones((1, len(operands)), np.uint8))

    def batch(self, operands: Operands, dialect: Dialect) -> Batch:
        return CallBatch(self, operands, dialect)


def _two(operands: tuple[int, ...]) -> tuple[int, int]:
    return (*operands, 0)[:2]  # type: ignore[return-value]
