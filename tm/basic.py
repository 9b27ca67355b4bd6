"""Basic machines: states, and one scalar ``decide`` that gives the command for what a machine sees."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from functools import cache, cached_property
from typing import ClassVar

from ..errors import UserError, did_you_mean, quoted
from .columns import Operands
from .interpreter import Configuration, check_command, execute, units_first
from .machine import HALT, Batch, Dialect, Machine, SteppedBatch, Transition, _source
from .render import Template
from .table import Table, Untabulated, View
from .tape_engine import TapeBatch

__all__ = ["BasicMachine", "Configuration", "Said", "View"]

# What a machine of 0.1.0 said beside its ``decide``, and what a run of it says now.
GONE = ("at", "count_steps", "num_steps", "parts", "phases")
PARTS = ("a", "b", "a_left", "a_right", "b_left", "b_right", "carry", "out", "flag")  # of a state line
Said = str | tuple[str, dict[str, str]]  # a command line; or the name of one of ``commands`` and its parts


def _check_states(name: str, states: dict[str, str], where: str) -> None:
    """Refuse states that no run could begin or end in, and state lines with parts that there are not."""
    odd = [f"no state {state}" for state in ("q0", "qH") if state not in states]
    parts = [part for line in states.values() for part in Template(line).names if part not in PARTS]
    if odd := odd + [f"a part {quoted(part)}{did_you_mean(part, PARTS)}" for part in parts]:
        told = f"a run begins in q0 and halts in qH; parts of state lines are {', '.join(PARTS)}"
        raise UserError(f"the machine {name} has {odd[0]}", where=where, allowed=told)


class BasicMachine(Machine):
    """A machine that works on its tapes alone.

    Class attributes:
        states: the state line of each state, over the parts a, b, a_left, a_right, b_left, b_right, carry, out, flag.
        empty: in which states an output without digits shows what: ``{"qH": "|0"}``.
        commands: command lines by name, where ``decide`` returns names.
    """

    states: ClassVar[dict[str, str]]
    empty: ClassVar[dict[str, str]] = {}
    commands: ClassVar[dict[str, str]] = {}
    walks = True
    ignored: ClassVar[tuple[str, ...]] = ()
    _untabulated = ""

    def __init_subclass__(cls, **kwargs: object) -> None:
        cls.ignored = tuple(name for name in GONE if name in cls.__dict__)
        for name in cls.ignored:
            delattr(cls, name)
        if "name" in cls.__dict__:
            _check_states(cls.name, getattr(cls, "states", {}), _source(cls))
        super().__init_subclass__(**kwargs)

    def notes(self) -> tuple[str, ...]:
        notes = []
        if self.ignored:
            notes.append(f"{self.name}: ignored, since its run says it: {', '.join(self.ignored)}")
        if self.table is None:
            notes.append(f"{self.name}: {self._untabulated}, so its rows are made step by step, which is slower")
        return tuple(notes)

    @abstractmethod
    def decide(self, view: View) -> Said:
        """Return the command line that the machine gives: its transition function.

        What it may look at: ``view.state``, ``view.read(head)`` or ``view.symbol`` (the digit under a head, "" past its
        tape), ``view.carry``, ``view.flag``, ``view.last`` (the digit that the output ends with).
        """

    def line(self, view: View | Configuration) -> str:
        if view.state == "qH":
            return HALT
        said: object = None
        try:
            said = self.decide(view)  # type: ignore[arg-type]
            line = said if isinstance(said, str) else self.commands[said[0]].format_map(said[1])
            self._check(line)
            return line
        except Exception as error:
            why = quoted(str(error) if isinstance(error, ValueError) else repr(error), 200)[1:-1]
            what = f"decide of {self.name} gives no command in state {view.state}, but {said!r:.200}: {why}"
            told = "mend it: docs/machines-of-your-own.md lists the actions"
            raise UserError(what, where=self.source, next_step=told) from error

    @cache  # noqa: B019  (one instance a machine, kept for good)
    def _check(self, line: str) -> None:
        check_command(line, 1 if self.unary else 2, self.states, ("CMD: ", "CMD "))

    @cached_property
    def table(self) -> Table | None:
        """The machine's ``decide`` in arrays; None where it looks at more than tables can hold."""
        try:
            table = Table(self.line, 1 if self.unary else 2)
        except Untabulated as why:
            self._untabulated = str(why)
            return None
        self._check_answer(any(one.flag for one in table.controls if one.state == "qH"))
        return table

    def _check_answer(self, truth: bool) -> None:
        """Refuse a machine whose halting entry does not show its answer, a truth value or a number."""
        part, kind = ("flag", "True or False") if truth else ("out", "a number")
        if type(self).answer is BasicMachine.answer and part not in self.template("qH").names:
            what = f"{self.name} halts with {kind}, which its state line qH does not show"
            raise UserError(what, where=self.source, allowed=f"{{{part}}} in that line")

    @cache  # noqa: B019  (one instance a machine, kept for good)
    def template(self, state: str) -> Template:
        """Return the template of an entry without its last newline."""
        line = self.states[state]
        if state in self.empty:
            line = line.replace("{out}", "{mark}{out}")
        return Template(line + "\n{command}", self.empty.get(state, ""))

    def batch(self, operands: Operands, dialect: Dialect) -> Batch:
        if self.table is None:
            return SteppedBatch(self, operands, dialect)
        return TapeBatch(self, operands, dialect, self.table, self.template)

    # One expression

    def start(self, a: int, b: int) -> Configuration:
        tapes = (units_first(a),) if self.unary else (units_first(a), units_first(b))
        return Configuration("q0", tapes, (-1,) * len(tapes))

    def walk(self, a: int, b: int, most: int | None = None) -> tuple[Configuration, int]:
        """Return the configuration after ``most`` steps, or the one that halts; and the number of steps to it.

        Raises:
            UserError: the machine does not halt within its ``max_num_steps``.
        """
        now, steps, limit = self.start(a, b), 0, self.max_num_steps(len(str(a)), len(str(b)))
        most = limit if most is None else min(most, limit)
        if self.table is not None:
            now, steps = self.table.walk(now, most)
        else:
            while now.state != "qH" and steps < most:
                now, steps = execute(now, self.line(now)), steps + 1
        if now.state != "qH" and steps == limit:
            raise self.endless(limit)
        if now.state == "qH" and self.table is None:
            self._check_answer(bool(now.flag))
        return now, steps

    def entry(self, now: Configuration) -> str:
        """Return the two lines of a configuration, each ended by a newline."""
        parts = {**now.parts(), "command": self.line(now), "mark": "" if now.output else self.empty.get(now.state, "")}
        return self.template(now.state).source.format_map(parts) + "\n"

    def transition(self, a: int, b: int, t: int, dialect: Dialect) -> Transition:
        now, _ = self.walk(a, b, t)
        then = execute(now, self.line(now))
        return Transition(self.entry(now), self.entry(then), now.state, then.state)

    def transitions(self, a: int, b: int, dialect: Dialect) -> Iterator[Transition]:
        now, most = self.start(a, b), self.max_num_steps(len(str(a)), len(str(b)))
        text = self.entry(now)
        for _ in range(most):
            then = execute(now, self.line(now))
            following = self.entry(then)
            yield Transition(text, following, now.state, then.state)
            if then.state == "qH":
                return
            now, text = then, following
        raise self.endless(most)

    def initial(self, a: int, b: int) -> str:
        return self.entry(self.start(a, b))

    def halted(self, a: int, b: int) -> str:
        return self.entry(self.walk(a, b)[0])

    def answer(self, a: int, b: int) -> int | bool:
        """Return what stands in the output when the machine has halted."""
        found, _ = self.walk(a, b)
        return found.flag == "True" if found.flag else int(found.output[::-1] or 0)

    def num_steps(self, a: int, b: int) -> int:
        return self.walk(a, b)[1]

    def max_num_steps(self, len_a: int, len_b: int) -> int:
        """Return the largest number of transitions of operands of these lengths: of one pass and its way back."""
        return 4 * (len_a + len_b + 2)

    def endless(self, most: int) -> UserError:
        """Return the error of a run that goes on after ``most`` steps."""
        return UserError(
            f"{self.name} does not halt within {most:,} steps",
            where=self.source,
            allowed="as many steps as the machine's max_num_steps(len_a, len_b) says",
            next_step="define max_num_steps in the machine's class, or mend its decide",
        )
