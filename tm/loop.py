"""What multiplication and division share: a loop of three calls, repeated for each unit of a counter.

At the k-th visit of q1 a comparison is called (states q1 -> q2), then two additions (q2 -> q3 -> q1). Every text
follows from k in closed form, so the k-th turn of a 100-digit loop costs as much as the first. Transition t of the
machine is step ``(t + 2) % 3`` of turn ``k = (t + 2) // 3``; the initial step is the third step of turn 0.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa

from . import columns
from .interpreter import tape_text as cells
from .interpreter import units_first as reverse
from .tape_engine import Content, TapeBatch
from .batch import Batch, Rows, Texts, texts
from .columns import I64, U8, Bool, Number, Operands
from .composer import HALT, Composer, called, calls, ended, halted, lines, started
from .draws import log_uniform, uniform
from .machine import Dialect
from .random import U64, below, words
from .render import Block, Part, decimal, render, tape
from .template import Template

STATES = ("q1", "q2", "q3")
STATE = "{title}, {state}, [HEAD1]{a} [HEAD2]{b} [COUNT]{count} [OUTPUT]{out}"
HALTED = "{title}, qH, [HEAD1]{a} [HEAD2]{b} [COUNT]{count} {out}"
KEEP_ALL = 10  # runs of at most this many transitions keep all of them
RANDOM = 3  # rows kept besides the first and the last: one uniform, the others log-uniform


class Loop(Composer):
    """A composer that loops; turn k has a comparison and two additions.

    Class attributes:
        test: the comparison's task.
        begin: the command of q0.
    """

    test: str
    begin: str

    @abstractmethod
    def turns(self, a: int, b: int) -> int:
        """Return the number of visits of q1."""

    @abstractmethod
    def registers(self, a: int, b: int, k: int, state: str) -> tuple[int, int]:
        """Return count and output in a state of turn k."""

    @abstractmethod
    def operands(self, a: int, b: int, k: int, state: str) -> tuple[int, int]:
        """Return the operands of the call made in a state of turn k."""

    def task_called(self, state: str) -> str:
        """Return the task called in a state."""
        return self.test if state == "q1" else "add"

    def _entry(self, a: int, b: int, k: int, state: str) -> str:
        count, out = self.registers(a, b, k, state)
        line = STATE.format(
            title=self.title,
            state=state,
            a=cells(reverse(a)),
            b=cells(reverse(b)),
            count=cells(reverse(count)),
            out=cells(reverse(out)),
        )
        return f"{line}\n{calls(self.task_called(state), following(state))}"

    def prompt(self, a: int, b: int, t: int, dialect: Dialect) -> tuple[str, str]:
        k, state = (t + 2) // 3, STATES[(t + 2) % 3]
        if k == 0:
            tapes = {"a": cells(reverse(a)), "b": cells(reverse(b))}
            line = STATE.format(title=self.title, state="q0", count="", out="", **tapes)
            return "q0", f"{line}\n{self.begin.format(**tapes)}"
        quoted = halted(self.task_called(state), *self.operands(a, b, k, state))
        if dialect == "published" and state == "q1":
            quoted = self.published(a, b, k, quoted)
        return state, f"{self._entry(a, b, k, state)}\n{quoted}"

    def completion(self, a: int, b: int, t: int) -> tuple[str, str, str | None]:
        k, step = (t + 2) // 3, (t + 2) % 3
        if step == 0 and k == self.turns(a, b):
            count, out = self.registers(a, b, k, "q1")
            tapes = {"a": a, "b": b, "count": count, "out": out}
            line = HALTED.format(title=self.title, **{name: cells(reverse(value)) for name, value in tapes.items()})
            return "qH", f"{line}\n{HALT}", None
        state = STATES[(step + 1) % 3]
        k += step == 2
        task = self.task_called(state)
        return (
            state,
            f"{self._entry(a, b, k, state)}\n{started(task, *self.operands(a, b, k, state))}",
            task,
        )

    def published(self, a: int, b: int, k: int, quoted: str) -> str:
        """Return the halting entry of the comparison as the published rows have it."""
        return quoted

    def num_steps(self, a: int, b: int) -> int:
        return 3 * self.turns(a, b) - 1


def following(state: str) -> str:
    """Return the state that a call made in ``state`` names."""
    return STATES[(STATES.index(state) + 1) % 3]


@dataclass(frozen=True, eq=False)
class Turns:
    """The index of loop rows: step (0 comparison, 1 and 2 additions) and turn; turn 0 has only its step 2."""

    step: I64
    turn: Number
    groups: dict[int, Turn] = field(default_factory=dict)


class Turn:
    """Loop rows of one step, and the numbers that their texts need: multiples of what the loop adds up."""

    def __init__(self, batch: LoopBatch, rows: I64, e: I64, turn: Number) -> None:
        self.rows, self.turn = rows, turn
        self.a, self.b = batch.operands.a.take(e), batch.operands.second.take(e)
        self.last = columns.equal(turn, batch.turns.take(e))
        self.unit = self.a if batch.adds_a else self.b
        self._calls: dict[tuple[str, int, int], TapeBatch] = {}

    def call(self, task: str, x: Number, y: Number) -> TapeBatch:
        """Return the columns of a called machine; asked for again, the same."""
        key = (task, id(x), id(y))
        if key not in self._calls:
            self._calls[key] = called(task, Operands(x, y))
        return self._calls[key]

    def sum(self, x: Number, y: Number) -> Number:
        """Return x + y, which the called addition works out anyway."""
        return self.call("add", x, y).run.output

    @cached_property
    def one(self) -> Number:
        """The number 1 in every row."""
        return Number(np.ones((1, len(self.rows)), np.uint8))

    @cached_property
    def product(self) -> Number:
        """Turn * unit."""
        return columns.multiply(self.turn, self.unit)

    @cached_property
    def next_product(self) -> Number:
        """(turn + 1) * unit; where the product is not asked for, without it."""
        if "product" not in self.__dict__:
            return columns.multiply(self.next_turn, self.unit)
        return self.sum(self.unit, self.product)

    @cached_property
    def next_turn(self) -> Number:
        """Turn + 1."""
        return self.sum(self.turn, self.one)

    @cached_property
    def previous_turn(self) -> Number:
        """Turn - 1, for turns from 1 on."""
        return columns.subtract(self.turn, self.one)


class LoopBatch(Batch):
    """Columns of loops."""

    machine: Loop
    adds_a: bool  # what a turn adds up: a, or else b

    def __init__(self, machine: Loop, operands: Operands, dialect: Dialect) -> None:
        super().__init__(machine, operands, dialect)
        self.turns = self.count_turns()

    @abstractmethod
    def count_turns(self) -> Number:
        """Return the number of visits of q1."""

    @abstractmethod
    def registers(self, group: Turn, state: str) -> tuple[Number, Number]:
        """Return count and output in a state; ``next`` is q1 of the next turn."""

    @abstractmethod
    def called(self, group: Turn, state: str) -> Operands:
        """Return the operands of the call made in a state; ``next`` is q1 of the next turn."""

    @property
    def num_steps(self) -> I64:
        return _transitions(self.turns, np.full(len(self.turns), -1))

    def steps(self, rows: Rows) -> I64:
        return _transitions(rows.index.turn, rows.index.step - 2)

    def every(self) -> Rows:
        steps = self.num_steps
        expression = np.repeat(self.all, steps)
        t = np.arange(len(expression)) - (np.cumsum(steps) - steps)[expression] + 2
        return Rows(expression, Turns(t % 3, _number(t // 3)))

    def sampled(self, key: U64) -> Rows:
        num_steps = self.num_steps
        whole = (num_steps >= 0) & (num_steps <= KEEP_ALL)
        kept, rest = np.flatnonzero(whole), np.flatnonzero(~whole)
        steps = num_steps[kept]
        expression = np.repeat(kept, steps)
        t = np.arange(len(expression)) - np.repeat(np.cumsum(steps) - steps, steps) + 2
        limit = self.turns.take(rest)
        nothing = Number(np.zeros((1, len(rest)), np.uint8))
        parts = [
            (expression, t % 3, _number(t // 3)),
            (rest, np.full(len(rest), 2), nothing),
            (rest, np.zeros(len(rest), np.int64), limit),
            *((rest, step, turn) for step, turn in self._random(key[rest], limit)),
        ]
        index = Turns(np.concatenate([step for _, step, _ in parts]), _stacked([turn for *_, turn in parts]))
        return Rows(np.concatenate([part[0] for part in parts]), index)

    def _random(self, key: U64, limit: Number) -> list[tuple[I64, Number]]:
        """Draw distinct (step, turn) pairs below the last turn: one uniform, the others uniform in the logarithm."""
        drawn: list[tuple[I64, Number]] = []
        for j in range(RANDOM):
            step = np.zeros(len(key), np.int64)
            planes = np.zeros((limit.width, len(key)), np.uint8)
            length = np.ones(len(key), np.int64)
            again = np.arange(len(key))
            attempt = 0
            while len(again):
                salt = words(key[again], 1000 * j + attempt)
                low = limit.take(again)
                found = uniform(low, salt) if j == 0 else log_uniform(low, salt)
                planes[:, again] = columns.widen(found.planes, limit.width)
                length[again] = found.length
                step[again] = below(words(salt, 1), np.full(len(again), 3)).astype(np.int64)
                again = again[self._repeats(step, planes, drawn, again)]
                attempt += 1
            drawn.append((step, Number(planes, length)))
        return drawn

    @staticmethod
    def _repeats(step: I64, planes: U8, drawn: list[tuple[I64, Number]], rows: I64) -> Bool:
        """Tell which rows repeat a pair drawn earlier."""
        repeats = np.zeros(len(rows), np.bool_)
        for earlier_step, earlier in drawn:
            same = (earlier.planes[:, rows] == planes[: earlier.width, rows]).all(axis=0)
            repeats |= same & (step[rows] == earlier_step[rows])
        return repeats

    def take(self, rows: Rows, order: I64) -> Rows:
        return Rows(rows.expression[order], Turns(rows.index.step[order], rows.index.turn.take(order)))

    def _groups(self, rows: Rows) -> list[tuple[str, Turn]]:
        index = rows.index
        if not index.groups:
            for step in range(3):
                here = np.flatnonzero(index.step == step)
                index.groups[step] = Turn(self, here, rows.expression[here], index.turn.take(here))
        return [(STATES[step], group) for step, group in index.groups.items()]

    def prompts(self, rows: Rows) -> Texts:
        blocks = []
        for state, group in self._groups(rows):
            started_here = group.turn.is_zero()
            first, later = np.flatnonzero(started_here), np.flatnonzero(~started_here)
            if len(later):
                quoted = self._quoted(group, state, later)
                content = lines(self._state(group, state, later), self._command(state), quoted)
                blocks.append(Block(group.rows[later], *ended(content), state=state))
            if len(first):
                content = self._initial(group.a, group.b, first)
                blocks.append(Block(group.rows[first], *ended(content), state="q0"))
        return texts(blocks, len(rows))

    def completions(self, rows: Rows) -> Texts:
        blocks = []
        for state, group in self._groups(rows):
            ends = group.last if state == "q1" else np.zeros(len(group.rows), np.bool_)
            now, goes_on = np.flatnonzero(ends), np.flatnonzero(~ends)
            if len(now):
                count, out = self.registers(group, "q1")
                content = self._halted(group.a, group.b, count, out, now)
                blocks.append(Block(group.rows[now], *content, state="qH"))
            if len(goes_on):
                then = {"q1": "q2", "q2": "q3", "q3": "next"}[state]
                shown = "q1" if then == "next" else then
                task = self.machine.task_called(shown)
                quoted = self._called(group, then).first(goes_on)
                content = lines(self._state(group, then, goes_on), self._command(shown), quoted)
                blocks.append(Block(group.rows[goes_on], *content, state=shown, call=task))
        return texts(blocks, len(rows))

    def _called(self, group: Turn, state: str) -> TapeBatch:
        task = self.machine.task_called("q1" if state == "next" else state)
        operands = self.called(group, state)
        return group.call(task, operands.a, operands.second)

    def _quoted(self, group: Turn, state: str, here: I64) -> Content:
        """Return the halting entry of the machine called in a state."""
        return self._called(group, state).last(here)

    def _command(self, state: str) -> str:
        return calls(self.machine.task_called(state), following(state))

    def _state(self, group: Turn, state: str, here: I64) -> Content:
        count, out = self.registers(group, state)
        source = STATE.replace("{title}", self.machine.title)
        source = source.replace("{state}", "q1" if state == "next" else state)
        return Template(source), _tapes(here, a=group.a, b=group.b, count=count, out=out)

    def _initial(self, a: Number, b: Number, here: I64) -> Content:
        source = STATE.replace("{title}", self.machine.title).replace("{state}", "q0")
        source = source.replace("{count}", "").replace("{out}", "") + "\n" + self.machine.begin
        return Template(source), _tapes(here, a=a, b=b)

    def _halted(self, a: Number, b: Number, count: Number, out: Number, here: I64) -> Content:
        source = HALTED.replace("{title}", self.machine.title) + "\n" + HALT
        return Template(source), _tapes(here, a=a, b=b, count=count, out=out)

    def initial(self) -> pa.Array:
        content = ended(self._initial(self.operands.a, self.operands.second, self.all))
        return render([Block(self.all, *content)], len(self.all))

    @cached_property
    def _final(self) -> tuple[Number, Number]:
        """Count and output at the end."""
        return self.registers(Turn(self, self.all, self.all, self.turns), "q1")

    def halted(self) -> pa.Array:
        count, out = self._final
        content = self._halted(self.operands.a, self.operands.second, count, out, self.all)
        return render([Block(self.all, *content)], len(self.all))

    def answer(self) -> Part:
        return decimal(self._final[1], self.all)


def _tapes(here: I64, **numbers: Number) -> dict[str, Part]:
    return {name: tape(number, here) for name, number in numbers.items()}


def _transitions(turn: Number, more: I64) -> I64:
    """Return 3 * turn + more, -1 where it does not fit int64; ``more`` is -2 .. 0."""
    value = np.zeros(len(turn), np.uint64)
    for plane in reversed(turn.planes[:19]):
        value = value * np.uint64(10) + plane
    certain = (turn.length <= 19) & (value <= np.uint64(4 * 10**18))
    count = np.where(certain, value, np.uint64(1)) * np.uint64(3) - (-more).astype(np.uint64)
    # Turn 0 has its step 2 alone, so the difference is never negative.
    return np.where(certain & (count <= np.uint64(2**63 - 1)), count, np.uint64(2**64 - 1)).view(np.int64)


def _number(values: I64) -> Number:
    """Return int64 values as a column."""
    width = len(str(int(values.max(initial=0))))
    planes = np.stack([values // 10**k % 10 for k in range(width)]).astype(np.uint8)
    return Number(planes)


def _stacked(numbers: list[Number]) -> Number:
    """Return columns one after the other."""
    width = max(number.width for number in numbers)
    planes = np.concatenate([columns.widen(number.planes, width) for number in numbers], axis=1)
    return Number(planes, np.concatenate([number.length for number in numbers]))
