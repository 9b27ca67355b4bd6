"""Basic machines: a transition function over tapes, whose commands are executed on the tapes that they name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import ClassVar

import numpy as np
import pyarrow as pa

from .batch import Rows, Texts, WalkedBatch, texts
from .columns import I64, Bool
from .machine import HALT, Dialect, Machine, Transition
from .render import Block, Part, render
from .template import Template


def cells(digits: str) -> str:
    """Return the tape text of digits given units first: ``"21"`` -> ``"|2|1"``."""
    return "|" + "|".join(digits) if digits else ""


def reverse(number: int) -> str:
    """Return the digits of a number, units first."""
    return str(number)[::-1]


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything that a basic machine knows between two steps.

    Args:
        state: ``q0`` ... ``qH``.
        tapes: the operands' digits, units first.
        heads: position of each head: -1 before it has entered its tape, else the number of cells to its left.
        carry: the register ``[C]``.
        output: digits written so far, units first.
        flag: the truth value written to the output.
        pending: a digit written but not yet moved past.
    """

    state: str
    tapes: tuple[str, ...]
    heads: tuple[int, ...]
    carry: str = ""
    output: str = ""
    flag: str = ""
    pending: str = ""

    def read(self, head: int) -> str:
        """Return the digit under a head, or an empty string past the end."""
        return self.tapes[head][self.heads[head] : self.heads[head] + 1]

    def parts(self) -> dict[str, str]:
        """Return the named parts that state lines are made of."""
        parts = {"carry": self.carry, "out": cells(self.output), "flag": self.flag}
        for name, tape, head in zip("ab", self.tapes, self.heads, strict=False):
            parts[name] = cells(tape)
            parts[f"{name}_left"], parts[f"{name}_right"] = (
                cells(tape[: max(head, 0)]),
                cells(tape[max(head, 0) :]),
            )
        return parts


def execute(now: Configuration, command: str) -> Configuration:
    """Return the configuration that a command line leads to.

    A digit is written under the output head and stays when the head moves right or when the output is closed, except
    that closing it drops a leading 0; moving the head left takes the last digit back.
    """
    state, heads, carry = now.state, list(now.heads), now.carry
    output, flag, pending = now.output, now.flag, now.pending
    for action in command.removeprefix("CMD").lstrip(": ").split(", "):
        target, _, value = action.partition(" ")
        if target in ("[HEAD]", "[HEAD1]", "[HEAD2]"):
            heads[target == "[HEAD2]"] += 1 if value == "RIGHT" else -1
        elif target == "[C]":
            carry = value or carry
        elif target != "[OUTPUT]":
            state = target
        elif value == "RIGHT" or (not value and pending not in ("", "0")):
            output, pending = output + pending, ""
        elif value == "LEFT":
            output = output[:-1]
        elif value in ("True", "False"):
            flag = value
        else:
            pending = value
    return Configuration(state, now.tapes, tuple(heads), carry, output, flag, pending if state != "qH" else "")


Said = tuple[str, dict[str, str]]  # the name of a command and its parts
Content = tuple[Template, Mapping[str, Part]]


class BasicMachine(Machine):
    """A machine that works on its tapes alone.

    Class attributes:
        states: the state line of each state.
        commands: the command lines, by name; ``halt`` is the one of qH.
    """

    states: ClassVar[dict[str, str]]
    commands: ClassVar[dict[str, str]]

    @abstractmethod
    def decide(self, now: Configuration) -> Said:
        """Return the command that the machine gives in a configuration: its transition function."""

    def start(self, a: int, b: int) -> Configuration:
        """Return the initial configuration."""
        tapes = (reverse(a),) if self.unary else (reverse(a), reverse(b))
        return Configuration("q0", tapes, (-1,) * len(tapes))

    def at(self, a: int, b: int, i: int) -> Configuration:
        """Return configuration ``i`` in closed form; without one, by walking there."""
        now = self.start(a, b)
        for _ in range(i):
            now = self.step(now)
        return now

    def parts(self, now: Configuration) -> dict[str, str]:
        """Return the named parts of the state line."""
        return now.parts()

    def command(self, now: Configuration) -> str:
        """Return the command line of a configuration."""
        if now.state == "qH":
            return HALT
        name, parts = self.decide(now)
        return self.commands[name].format_map(parts)

    def step(self, now: Configuration) -> Configuration:
        """Return the next configuration."""
        return execute(now, self.command(now))

    def entry(self, now: Configuration) -> str:
        """Return the two lines of a configuration, each ended by a newline."""
        return f"{self.states[now.state].format_map(self.parts(now))}\n{self.command(now)}\n"

    def transition(self, a: int, b: int, t: int, dialect: Dialect) -> Transition:
        now = self.at(a, b, t)
        then = self.step(now)
        return Transition(self.entry(now), self.entry(then), now.state, then.state)

    def transitions(self, a: int, b: int, dialect: Dialect) -> Iterator[Transition]:
        now, text = self.start(a, b), self.entry(self.start(a, b))
        while now.state != "qH":
            then = self.step(now)
            following = self.entry(then)
            yield Transition(text, following, now.state, then.state)
            now, text = then, following

    def initial(self, a: int, b: int) -> str:
        return self.entry(self.start(a, b))

    def halted(self, a: int, b: int) -> str:
        return self.entry(self.at(a, b, self.num_steps(a, b)))

    @cache  # noqa: B019  (one instance a machine, kept for good)
    def template(self, state: str, command: str | None) -> Template:
        """Return the template of an entry without its last newline; ``command`` None is the halt line."""
        return Template(self.states[state] + "\n" + (HALT if command is None else self.commands[command]))


NEWLINE = Template("\n")


class BasicBatch(WalkedBatch):
    """The columnar form of a basic machine; subclasses say what stands at entry ``i``."""

    machine: BasicMachine

    @abstractmethod
    def count_steps(self) -> I64:
        """Compute what entries depend on (all but the initial one), and return the number of transitions."""

    @abstractmethod
    def parts(self, state: str, e: I64, i: I64) -> Mapping[str, Part]:
        """Return the parts of the entries ``i`` of expressions ``e``, all in one state, those of commands too."""

    @abstractmethod
    def phases(self, e: I64, i: I64) -> Iterator[tuple[Bool, str, str | None]]:
        """Yield (mask, state, command) that together cover the entries ``i`` of expressions ``e``."""

    @cached_property
    def num_steps(self) -> I64:
        return self.count_steps()

    def entries(self, e: I64, i: I64) -> list[Block]:
        """Return the entries ``i`` of expressions ``e``."""
        blocks = []
        self.num_steps  # noqa: B018  (what the phases below depend on is computed here, once)
        for mask, state, command in self.phases(e, i):
            rows = np.flatnonzero(mask)
            if len(rows):
                template = self.machine.template(state, command) + NEWLINE
                blocks.append(Block(rows, template, self.parts(state, e[rows], i[rows]), state))
        return blocks

    def first(self, e: I64, command: str = "start") -> Content:
        """Return the initial entry of expressions ``e`` without its last newline, for a composer to quote."""
        return self.machine.template("q0", command), self.parts("q0", e, np.zeros_like(e))

    def last(self, e: I64) -> Content:
        """Return the halting entry of expressions ``e`` without its last newline, for a composer to quote."""
        return self.machine.template("qH", None), self.parts("qH", e, self.num_steps[e])

    def prompts(self, rows: Rows) -> Texts:
        return texts(self.entries(rows.expression, rows.index), len(rows))

    def completions(self, rows: Rows) -> Texts:
        return texts(self.entries(rows.expression, rows.index + 1), len(rows))

    def initial(self) -> pa.Array:
        return render(self.entries(self.all, np.zeros_like(self.all)), len(self.all))

    def halted(self) -> pa.Array:
        return render(self.entries(self.all, self.num_steps), len(self.all))
