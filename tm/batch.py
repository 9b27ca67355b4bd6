"""Many expressions of one task at once: what the pipelines ask of a machine, and the form that walks its steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from .arrow import strings
from .columns import I64, Bool, Operands
from .random import U64, below, words
from .render import Block, Cells, Part, render

if TYPE_CHECKING:
    from .machine import Dialect, Machine, Transition


@dataclass(frozen=True, eq=False)
class StepRule:
    """Which transitions of each expression are kept when steps are sampled.

    Args:
        keep_all: expressions with at most this many transitions keep all of them.
        fixed: indices that are always kept, one array of shape (n,) each.
        ranges: (lowest, highest, how many) of the random ones, drawn without replacement; arrays of shape (n,).
    """

    keep_all: int
    fixed: tuple[I64, ...]
    ranges: tuple[tuple[I64, I64, int], ...]


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


def rule(num_steps: I64, keep_all: int, last: int, random: int, inner: tuple[int, int] | None = None) -> StepRule:
    """Return the usual rule: the first row, the ``last`` last ones, ``random`` others from between.

    ``inner`` are the bounds of the random ones, counted from 0 and from the number of transitions.
    """
    low, high = inner or (1, -last - 1)
    fixed = (np.zeros_like(num_steps), *(num_steps - back for back in range(1, last + 1)))
    return StepRule(keep_all, fixed, ((np.full_like(num_steps, low), num_steps + high, random),))


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
    def sampled(self, key: U64) -> Rows:
        """Return the rows that the machine's step rule keeps; ``key`` (n,) seeds each expression's draws."""

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

    def sampled(self, key: U64) -> Rows:
        return sample_rows(self.num_steps, self.machine.step_rule(self), key)

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


def sample_rows(num_steps: I64, rule: StepRule, key: U64) -> Rows:
    """Return the rows that a rule keeps: expressions in order, transitions of each in no particular order."""
    whole = num_steps <= rule.keep_all
    kept = np.flatnonzero(whole)
    all_of = walk_rows(num_steps[kept])
    expressions, indices = [kept[all_of.expression]], [all_of.index]
    rest = np.flatnonzero(~whole)
    for fixed in rule.fixed:
        expressions.append(rest)
        indices.append(fixed[rest])
    for at, (low, high, count) in enumerate(rule.ranges):
        for chosen, here in _distinct(low[rest], high[rest], count, key[rest], at):
            expressions.append(rest[here])
            indices.append(chosen[here])
    return Rows(np.concatenate(expressions), np.concatenate(indices))


def _distinct(low: I64, high: I64, count: int, key: U64, salt: int) -> Iterator[tuple[I64, Bool]]:
    """Yield ``count`` columns of distinct integers of [low, high] with the mask of rows that have so many.

    The j-th draw picks one of the numbers not drawn yet: a rank among them, moved past each earlier draw at or below.
    """
    size = np.maximum(high - low + 1, 0)
    drawn = np.empty((0, len(low)), np.int64)
    for j in range(count):
        here = size > j
        rank = below(words(key, salt * 64 + j), np.maximum(size - j, 1)).astype(np.int64)
        for earlier in np.sort(drawn, axis=0):
            rank += rank >= earlier
        # Rows that have run out repeat nothing: their rank lies past every real one and is masked.
        drawn = np.concatenate([drawn, np.where(here, rank, size + j)[None]])
        yield low + rank, here


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
