"""What a stream's rows are of: cells of a task and view, their expressions, and the rows that a build has of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from ..tm import machine
from ..tm.columns import I64, U64, Bool, Operands
from ..tm.machine import Rows
from .plan import split_configs
from .rows import STEP_VIEWS, Work
from .sampling.classes import ClassSampler, Wanted
from .sampling.enumerate_small import DRAWN, in_parts, known_to_halt, resolve
from .sampling.index_space import permuted
from .sampling.random import random_u64, splitmix64, text_key
from .sampling.steps import rows_in_turn
from .settings import TaskSettings
from .stream_order import Recent

LOOKED_AT = 20_000  # expressions whose rows are counted, to know how many a build has: all, if there are no more
LONG = 32  # digits: of many cells, those of longer operands are looked at together


@dataclass(frozen=True, eq=False)
class RowWork(Work):
    """Rows one by one.

    Args:
        expressions: the expression of each row.
        keys: seed the draws of each expression.
        turn: how many rows of its expression went before each row.
    """

    expressions: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    keys: U64 = field(default_factory=lambda: np.zeros(0, np.uint64))
    turn: I64 = field(default_factory=lambda: np.zeros(0, np.int64))

    @cached_property
    def key(self) -> U64:
        return self.keys

    @cached_property
    def steps(self) -> Rows:
        every = self.settings.steps == "all"
        rows = rows_in_turn(self.batch, self.expressions, self.keys, self.turn, every=every)
        if self.view != "slips":
            return rows
        first = self.batch.steps(rows) == 0  # it has no slip, the next one that is kept has
        return rows_in_turn(self.batch, self.expressions, self.keys, self.turn + first, every=every)

    @cached_property
    def order(self) -> I64:
        if self.view != "aligner":
            return self.expressions
        begin = (random_u64(self.keys, 1) >> np.uint64(32)).astype(np.int64)
        return self.expressions + len(self.keys) * ((begin[self.expressions] + self.turn) % 2)


@dataclass(frozen=True, eq=False)
class Listed:
    """The expressions of a source as some epochs walk them: those of each cell, and which of them halt (None: all)."""

    cells: ClassSampler
    kept: I64 | None

    @cached_property
    def held(self) -> I64:
        """How many expressions each cell has, up to those that are listed."""
        if self.kept is None:
            return self.cells.count
        return np.bincount(self.cells.of(self.kept)[0], minlength=len(self.cells.count))

    @cached_property
    def _first(self) -> I64:
        return np.cumsum(self.held) - self.held

    @cached_property
    def listed(self) -> Bool:
        """Whether the expressions of each cell are numbered from 0 to ``held``; the others have no end."""
        return self.cells.listed if self.kept is None else np.ones(len(self.held), np.bool_)

    def permuted(self, cell: I64, at: I64, salt: U64) -> I64:
        """Return numbers of expressions of cells in the order of a permutation that ``salt`` keys."""
        at = at.copy()
        few = np.flatnonzero(self.listed[cell])
        sizes = self.held[cell[few]].astype(np.uint64)
        keys = splitmix64(self.cells.keys[cell[few]] + salt[few])
        at[few] = permuted(at[few].astype(np.uint64), sizes, keys).astype(np.int64)
        return at

    def expressions(self, cell: I64, at: I64) -> tuple[Operands, I64]:
        """Return expressions of cells by their number, and their variants."""
        if self.kept is None:
            return self.cells.drawn(cell, at)
        return self.cells.operands(self.kept[self._first[cell] + at])


@dataclass(frozen=True, eq=False)
class Source:
    """The rows of one task and view.

    Args:
        settings: the task.
        split: the split.
        view: the view.
        wanted: its cells, with the expressions that a build has of each.
        rows: the rows that a build has of each.
        text: bytes of text of a row, about.
    """

    settings: TaskSettings
    split: str
    view: str
    wanted: Wanted
    rows: I64
    text: int
    _listed: Recent[int, Listed] = field(default_factory=Recent)

    @cached_property
    def longest(self) -> I64:
        """Digits of each cell's longer operand; b's and two where a is drawn: b times 15 at most."""
        return np.array([max(a or (b and b + 2), b) for a, b, *_ in self.wanted], np.int64)

    @property
    def counted_alike(self) -> tuple[int, ...]:
        """What says in an identity that rows were counted of a few cells for all; others have nothing of it."""
        return (LONG,) if self.view in STEP_VIEWS and many_cells(self.settings, len(self.wanted)) else ()

    @cached_property
    def rows_together(self) -> I64:
        """Rows that an expression of each cell has in a build; of slips one less, of no step twice."""
        return np.maximum(1, self.rows // np.array([cell[4] for cell in self.wanted]))

    def listed(self, seed: str, number: int, count: I64) -> Listed:
        """Return up to ``count`` expressions of each cell, the ``number``-th ones of a stream."""

        def make(number: int) -> Listed:
            return self._list(replace(self.settings, seed=text_key(f"stream {seed} {number}") >> 1), count)

        return self._listed.get_or(number, make)

    def _list(self, settings: TaskSettings, count: I64) -> Listed:
        wanted = [(*cell[:4], int(n)) for cell, n in zip(self.wanted, count, strict=True)]
        cells = resolve(settings, self.split, wanted)
        if known_to_halt(settings):
            return Listed(cells, None)
        own = machine(settings.task)
        steps = in_parts(cells, lambda operands: own.run_lengths(operands, settings.max_steps))
        return Listed(cells, np.flatnonzero(steps > 0))


def source_of(settings: TaskSettings, split: str, view: str) -> Source | None:
    """Return the rows of a task's view, or None where a build has none."""
    configs, _ = split_configs(settings, split, [view])
    wanted: Wanted = []
    rows = [np.zeros(0, np.int64)]
    for cells, kept in [part for config in configs for part in config.population.parts]:
        count = cells.count if kept is None else np.bincount(cells.of(kept)[0], minlength=len(cells.count))
        rows.append(_rows_of_cells(settings, view, cells, kept, count)[count > 0])
        for at in np.flatnonzero(count).tolist():
            which = cells.which[at]
            lengths = int(cells.len_a[at]), int(cells.len_b[at])
            wanted.append((*lengths, cells.names[which], cells.distributions[which], int(count[at])))
    text = sum(config.text for config in configs) // max(1, sum(config.rows for config in configs))
    return Source(settings, split, view, wanted, np.concatenate(rows), text) if wanted else None


def _rows_of_cells(settings: TaskSettings, view: str, cells: ClassSampler, kept: I64 | None, count: I64) -> I64:
    """Return the rows that a build has of each cell: counted, or from a sample where expressions are many."""
    if view not in STEP_VIEWS:
        return count * (2 if view == "aligner" else 1)
    count, every = _looked_at(settings, cells, count), count
    first = np.cumsum(every) - every if kept is not None else cells.start
    some = np.minimum(count, max(2, LOOKED_AT // max(1, int(np.count_nonzero(count)))))
    if count.sum() <= LOOKED_AT:
        some = count
    cell = np.repeat(np.arange(len(count)), some)
    number = first[cell] + np.arange(len(cell)) - np.repeat(np.cumsum(some) - some, some)
    numbers = number if kept is None else kept[number]
    rows = np.zeros(len(count), np.int64)
    for start in range(0, len(numbers), DRAWN):
        part = slice(start, start + DRAWN)
        work = Work(settings, view, *cells.operands(numbers[part]), cells.names)
        rows += np.bincount(cell[part][work.expressions], minlength=len(count))
    if count is not every:
        _, alike = np.unique(_alike(cells), return_inverse=True)
        rows, some = (np.bincount(alike, weights=own).astype(np.int64)[alike] for own in (rows, some))
    return (rows * every + some // 2) // np.maximum(some, 1)


def many_cells(settings: TaskSettings, num_cells: int) -> bool:
    """Tell whether rows are counted of a few cells for all: of a composer, whose runs of long operands are long.

    All of those keep as many steps.
    """
    return machine(settings.task).composer and settings.steps != "all" and num_cells > LOOKED_AT


def _alike(cells: ClassSampler) -> I64:
    """Return a number of each cell, the same of those whose runs keep about as many rows."""
    return (cells.which * 64 + np.minimum(cells.len_a, LONG)) * 64 + np.minimum(cells.len_b, LONG)


def _looked_at(settings: TaskSettings, cells: ClassSampler, count: I64) -> I64:
    """Return the expressions of the cells that are looked at: of many that are alike some have none."""
    if not many_cells(settings, int(np.count_nonzero(count))):
        return count
    alike = np.where(count > 0, _alike(cells), -1)
    order = np.argsort(alike, kind="stable")
    kinds, first, size = np.unique(alike[order], return_index=True, return_counts=True)
    turn = np.empty_like(order)
    turn[order] = np.arange(len(order)) - np.repeat(first, size)
    every = np.maximum(1, size // max(1, LOOKED_AT // (2 * len(kinds))))  # spread over the cells that are alike
    return np.where(turn % every[np.searchsorted(kinds, alike)] == 0, count, 0)
