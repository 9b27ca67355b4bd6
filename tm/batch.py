"""Many expressions of one task at once: what the pipelines ask of a machine, and the form that walks its steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa

from .columns import I64, Operands
from .render import Block, Cells, Part, render, string_array

if TYPE_CHECKING:
    from .machine import Dialect, Machine, Transition


Name = TypeVar("Name", str, "str | None")


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

    # Rows are indexed by the number of their transition, where runs can be walked.

    def every(self) -> Rows:
        """Return every transition of every expression, in order."""
        return walk_rows(self.num_steps)

    def steps(self, rows: Rows) -> I64:
        """Return the 0-based index of each row's transition, -1 where it does not fit int64."""
        steps: I64 = rows.index
        return steps

    def take(self, rows: Rows, order: I64) -> Rows:
        """Return the rows at ``order``."""
        return Rows(rows.expression[order], rows.index[order])

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


def _coded(values: Sequence[Name]) -> tuple[I64, tuple[Name, ...]]:
    """Return each value as an index into the sorted distinct ones; None comes first."""
    names = tuple(sorted(set(values), key=lambda name: name or ""))
    return np.array([names.index(value) for value in values], np.int64), names


def texts(blocks: Sequence[Block], num_rows: int) -> Texts:
    """Render blocks and note each row's state and call."""
    states, state_names = _coded([block.state for block in blocks])
    calls, call_names = _coded([block.call for block in blocks])
    state, call = np.zeros(num_rows, np.int64), np.zeros(num_rows, np.int64)
    for block, its_state, its_call in zip(blocks, states, calls, strict=True):
        state[block.rows], call[block.rows] = its_state, its_call
    return Texts(render(blocks, num_rows), state, state_names, call, call_names)


def walk_rows(num_steps: I64) -> Rows:
    """Return every transition of expressions with these numbers of transitions."""
    total = int(num_steps.sum())
    start = np.cumsum(num_steps) - num_steps
    expression = np.repeat(np.arange(len(num_steps)), num_steps)
    return Rows(expression, np.arange(total) - start[expression])


class SteppedBatch(Batch):
    """The batch of a machine that has no columns: every transition is made once, by the machine itself."""

    def __init__(self, machine: Machine, operands: Operands, dialect: Dialect) -> None:
        super().__init__(machine, operands, dialect)
        b = operands.b.integers() if operands.b is not None else [0] * len(operands)
        self.pairs = list(zip(operands.a.integers(), b, strict=True))
        self._made: dict[tuple[int, int], Transition] = {}

    @cached_property
    def _runs(self) -> list[list[Transition]]:
        return [list(self.machine.transitions(a, b, self.dialect)) for a, b in self.pairs]

    @cached_property
    def num_steps(self) -> I64:
        if self.machine.walks:
            return np.array([len(run) for run in self._runs], np.int64)
        return np.array([self.machine.num_steps(a, b) for a, b in self.pairs], np.int64)

    def prompts(self, rows: Rows) -> Texts:
        return _stepped([(step.prompt, step.state, None) for step in self._transitions(rows)])

    def completions(self, rows: Rows) -> Texts:
        return _stepped([(step.completion, step.next_state, step.call) for step in self._transitions(rows)])

    def initial(self) -> pa.Array:
        return string_array([self.machine.initial(a, b) for a, b in self.pairs])

    def halted(self) -> pa.Array:
        return string_array([self.machine.halted(a, b) for a, b in self.pairs])

    def answer(self) -> Part:
        answers = [str(self.machine.answer(a, b)) for a, b in self.pairs]
        size = np.array([len(answer) for answer in answers], np.int64)
        return Cells(np.frombuffer("".join(answers).encode(), np.uint8), np.cumsum(size) - size, size)

    def _transitions(self, rows: Rows) -> list[Transition]:
        places: list[tuple[int, int]] = list(zip(rows.expression.tolist(), rows.index.tolist(), strict=True))
        if self.machine.walks:
            return [self._runs[row][step] for row, step in places]
        for row, step in set(places).difference(self._made):
            self._made[row, step] = self.machine.transition(*self.pairs[row], step, self.dialect)
        return [self._made[place] for place in places]


def _stepped(found: Sequence[tuple[str, str, str | None]]) -> Texts:
    text, states, calls = zip(*found, strict=True) if found else ((), (), ())
    return Texts(string_array(text), *_coded(states), *_coded(calls))
