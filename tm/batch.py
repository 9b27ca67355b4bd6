"""Many expressions of one task at once: what the pipelines ask of a machine, and the form that walks its steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from .arrow import strings
from .columns import I64, Operands
from .render import Block, Cells, Part, render

if TYPE_CHECKING:
    from .machine import Dialect, Machine, Transition


@dataclass(frozen=True, eq=False)
class Rows:
    """One-step rows of a batch: the expression each belongs to, and the machine's own index of its transition."""

    expression: I64
    index: Any

    def __len__(self) -> int:
        return len(self.expression)


@dataclass(frozen=True, eq=False)
class Texts:
    """Rendered texts with the state they show and the task they call (indices into ``states`` and ``calls``)."""

    text: pa.Array
    state: I64
    states: tuple[str, ...]
    call: I64
    calls: tuple[str | None, ...]


class Batch(ABC):
    """Expressions of one task and everything that can be written about them."""

    def __init__(self, machine: Machine, operands: Operands, dialect: Dialect) -> None:
        self.machine, self.operands, self.dialect = machine, operands, dialect
        self.all: I64 = np.arange(len(operands))

    @property
    @abstractmethod
    def num_steps(self) -> I64:
        """Number of transitions of each expression, -1 where it does not fit int64."""

    @abstractmethod
    def every(self) -> Rows:
        """Return every transition of every expression, in order."""

    @abstractmethod
    def steps(self, rows: Rows) -> I64:
        """Return the 0-based index of each row's transition, -1 where it does not fit int64."""

    @abstractmethod
    def take(self, rows: Rows, order: I64) -> Rows:
        """Return the rows at ``order``."""

    @abstractmethod
    def prompts(self, rows: Rows) -> Texts:
        """Render the prompts of these rows."""

    @abstractmethod
    def completions(self, rows: Rows) -> Texts:
        """Render the completions of these rows."""

    @abstractmethod
    def initial(self) -> pa.Array:
        """Render each expression's initial entry (the completion of an aligner-in row)."""

    @abstractmethod
    def halted(self) -> pa.Array:
        """Render each expression's halting entry (its last completion)."""

    @abstractmethod
    def answer(self) -> Part:
        """Return each expression's bare answer."""


class WalkedBatch(Batch):
    """A batch whose rows are indexed by the number of their transition, for runs that can be walked."""

    def every(self) -> Rows:
        return walk_rows(self.num_steps)

    def steps(self, rows: Rows) -> I64:
        steps: I64 = rows.index
        return steps

    def take(self, rows: Rows, order: I64) -> Rows:
        return Rows(rows.expression[order], rows.index[order])


def texts(blocks: Sequence[Block], num_rows: int) -> Texts:
    """Render blocks and note each row's state and call."""
    states = tuple(sorted({block.state for block in blocks}))
    calls = tuple(sorted({block.call for block in blocks}, key=lambda call: call or ""))
    state, call = np.zeros(num_rows, np.int64), np.zeros(num_rows, np.int64)
    for block in blocks:
        state[block.rows] = states.index(block.state)
        call[block.rows] = calls.index(block.call)
    return Texts(render(blocks, num_rows), state, states, call, calls)


def walk_rows(num_steps: I64) -> Rows:
    """Return every transition of expressions with these numbers of transitions."""
    total = int(num_steps.sum())
    start = np.cumsum(num_steps) - num_steps
    expression = np.repeat(np.arange(len(num_steps)), num_steps)
    return Rows(expression, np.arange(total) - start[expression])


class SteppedBatch(WalkedBatch):
    """The batch of a machine that has no columns: every transition is made once, by the machine itself."""

    def __init__(self, machine: Machine, operands: Operands, dialect: Dialect) -> None:
        super().__init__(machine, operands, dialect)
        b = operands.b.integers() if operands.b is not None else [0] * len(operands)
        self.pairs = list(zip(operands.a.integers(), b, strict=True))
        self.known: dict[tuple[int, int], Transition] = {}

    @cached_property
    def num_steps(self) -> I64:
        return np.array([self._count(row) for row in range(len(self.pairs))], np.int64)

    def _count(self, row: int) -> int:
        if not self.machine.walks:
            return self.machine.num_steps(*self.pairs[row])
        run = list(self.machine.transitions(*self.pairs[row], self.dialect))
        self.known.update(((row, step), transition) for step, transition in enumerate(run))
        return len(run)

    def prompts(self, rows: Rows) -> Texts:
        found = self._transitions(rows)
        return _stepped([(step.prompt, step.state, None) for step in found])

    def completions(self, rows: Rows) -> Texts:
        found = self._transitions(rows)
        return _stepped([(step.completion, step.next_state, step.call) for step in found])

    def initial(self) -> pa.Array:
        return strings([self.machine.initial(a, b) for a, b in self.pairs])

    def halted(self) -> pa.Array:
        return strings([self.machine.halted(a, b) for a, b in self.pairs])

    def answer(self) -> Part:
        answers = [str(self.machine.answer(a, b)) for a, b in self.pairs]
        size = np.array([len(answer) for answer in answers], np.int64)
        return Cells(np.frombuffer("".join(answers).encode(), np.uint8), np.cumsum(size) - size, size)

    def _transitions(self, rows: Rows) -> list[Transition]:
        return [self._transition(*key) for key in zip(rows.expression.tolist(), rows.index.tolist(), strict=True)]

    def _transition(self, row: int, step: int) -> Transition:
        if (row, step) not in self.known:
            if self.machine.walks:
                self._count(row)
            else:
                self.known[row, step] = self.machine.transition(*self.pairs[row], step, self.dialect)
        return self.known[row, step]


def _stepped(found: list[tuple[str, str, str | None]]) -> Texts:
    states = tuple(sorted({state for _, state, _ in found}))
    calls = tuple(sorted({call for _, _, call in found}, key=lambda call: call or ""))
    return Texts(
        strings([text for text, _, _ in found]),
        np.array([states.index(state) for _, state, _ in found], np.int64),
        states,
        np.array([calls.index(call) for _, _, call in found], np.int64),
        calls,
    )
