"""Which expression a stream's row shows: by arithmetic alone, for any row.

An epoch has E rows, cut into blocks of some thousand. Of a cell (a class, or a variant's part of one) with s rows in
the epoch, block b of n holds those from floor((b s + f) / n) on, f a keyed number below n: each block has its share of
every cell. A keyed shuffle puts a block's rows in order; those of one cell keep theirs. So the j-th row of a cell is
known, and with it the j-th expression of a keyed permutation of the cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..tm.columns import I64, U64, Bool
from .curriculum import Stages
from .sampling.random import splitmix64
from .sampling.split import grouped

F64 = NDArray[np.float64]

BLOCK = 8_192  # rows of a block, at least, unless an epoch has fewer
TOGETHER = 65_536  # rows of short epochs for which expressions are listed at once
KEPT = 3  # blocks, and lists of expressions, that are kept

Key = TypeVar("Key")
Made = TypeVar("Made")


class Recent(dict[Key, Made]):
    """What was made last, by its key."""

    def get_or(self, key: Key, make: Callable[[Key], Made]) -> Made:
        """Return what has this key, made now if it is not there."""
        if key not in self:
            made = make(key)
            while len(self) >= KEPT:
                del self[next(iter(self))]
            self[key] = made
        return self[key]


@dataclass(frozen=True, eq=False)
class Course:
    """Which epoch a row belongs to, and the part of an epoch that each cell has.

    Args:
        rows: rows that a build has of each cell, shape (cells,).
        source: the number of each cell's source.
        longest: digits of each cell's longer operand.
        mix: the weight of each source; None where each has its rows' weight.
        epoch_rows: rows of an epoch of all cells; one of a stage has its cells' part of them.
        stages: the first row of each, and its longest operands; None for all.
    """

    rows: I64
    source: I64
    longest: I64
    mix: Sequence[float] | None
    epoch_rows: int
    stages: Stages

    @cached_property
    def _first(self) -> I64:
        return np.array([first for first, _ in self.stages], np.int64)

    @cached_property
    def _limit(self) -> I64:
        return np.array([1 << 40 if limit is None else limit for _, limit in self.stages], np.int64)

    @cached_property
    def _held(self) -> F64:
        """Rows that a build has of each source's cells of each stage, shape (sources, stages)."""
        held = np.zeros((int(self.source.max()) + 1, len(self.stages)))
        np.add.at(held, (self.source, self._stage_of_cell), self.rows)
        return np.cumsum(held, axis=1)

    @cached_property
    def _stage_of_cell(self) -> I64:
        """The stage with which each cell comes."""
        return np.searchsorted(self._limit, self.longest)

    @cached_property
    def epoch_sizes(self) -> I64:
        """Rows of the epochs of each stage; 0 where it has none."""
        held = self._held.sum(axis=0)
        whole = float(self.rows.sum())
        return np.where(held > 0, np.maximum(1, np.floor(held / whole * self.epoch_rows + 0.5)), 0).astype(np.int64)

    @cached_property
    def _first_epoch(self) -> I64:
        """The number of each stage's first epoch."""
        lengths = np.diff(self._first)
        return np.cumsum([0, *(-(-lengths // self.epoch_sizes[:-1]))])

    @cached_property
    def _factor(self) -> F64:
        """Rows of an epoch for each row of a build, shape (sources, stages)."""
        held, sizes = self._held, self.epoch_sizes
        if self.mix is None:
            return np.broadcast_to(sizes / held.sum(axis=0), held.shape)
        weights = np.array(self.mix)[:, None] * (held > 0)
        return weights / weights.sum(axis=0) * sizes / np.maximum(held, 1)

    @cached_property
    def most(self) -> I64:
        """How many rows of an epoch each cell has at most."""
        highest = np.maximum.accumulate(self._factor[:, ::-1], axis=1)[:, ::-1]
        return np.ceil(self.rows * highest[self.source, self._stage_of_cell] + 1e-6).astype(np.int64)

    def find(self, numbers: I64) -> tuple[I64, I64]:
        """Return the epoch of rows, and their places in it."""
        stage = np.searchsorted(self._first, numbers, "right") - 1
        epoch, place = np.divmod(numbers - self._first[stage], self.epoch_sizes[stage])
        return self._first_epoch[stage] + epoch, place

    def listing(self, epoch: int) -> int:
        """Return which list of expressions an epoch takes: a new one after many rows."""
        stage = int(np.searchsorted(self._first_epoch, epoch, "right")) - 1
        first = int(self._first[stage] + (epoch - self._first_epoch[stage]) * self.epoch_sizes[stage])
        return first // max(self.epoch_rows, TOGETHER)

    def shares(self, epoch: int, there: Bool, begin: float) -> I64:
        """Return the rows of an epoch that each cell has, of cells that are ``there``, rounded from ``begin`` on."""
        stage = int(np.searchsorted(self._first_epoch, epoch, "right")) - 1
        weights = self.rows * self._factor[self.source, stage] * (there & (self._stage_of_cell <= stage))
        ends = np.cumsum(weights)
        ends = np.floor(ends / ends[-1] * int(self.epoch_sizes[stage]) + begin).astype(np.int64)
        return np.diff(ends, prepend=0)


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the rows of an epoch are.

    Args:
        number: of the epoch.
        key: of the stream, shape (1,).
        share: rows of each cell.
        unit: rows that an expression of each cell gives together.
    """

    number: int
    key: U64
    share: I64
    unit: I64
    _blocks: Recent[int, I64] = field(default_factory=Recent)
    _begins: Recent[int, I64] = field(default_factory=Recent)

    @cached_property
    def rows(self) -> int:
        """Rows of the epoch."""
        return int(self.share.sum())

    @property
    def num_blocks(self) -> int:
        return max(1, self.rows // BLOCK)

    @cached_property
    def own_key(self) -> U64:
        """The key of the epoch."""
        return splitmix64(self.key + splitmix64(np.array([self.number], np.uint64)))

    @cached_property
    def _phase(self) -> I64:
        numbers: U64 = np.arange(len(self.share), dtype=np.uint64)
        keys = splitmix64(self.own_key + numbers)
        return (keys % np.uint64(self.num_blocks)).astype(np.int64)

    def _begin(self, block: int) -> I64:
        """Return how many rows of each cell stand before a block."""
        return np.minimum(self.share, self.unit * ((block * self._units + self._phase) // self.num_blocks))

    @cached_property
    def _units(self) -> I64:
        return -(-self.share // self.unit)

    def find(self, place: I64) -> tuple[I64, I64, I64]:
        """Return of rows by their place in the epoch the cell, how many of its rows stand before, and the expression.

        Expressions are numbered from 0 on as they are found; some numbers may be left out.
        """
        found, total = np.empty((3, len(place)), np.int64), 0
        for number, here in grouped(self._block_of(place)):
            own = self._blocks.get_or(number, self._block)[:, place[here] - self._first(number)]
            own[2] += total
            found[:, here], total = own, int(own[2].max()) + 1
        return found[0], found[1], found[2]

    def _block_of(self, place: I64) -> I64:
        block = place * self.num_blocks // self.rows  # about
        todo = np.arange(len(place))
        while len(todo):
            off = np.empty_like(todo)
            for number, here in grouped(block[todo]):
                some = place[todo[here]]
                off[here] = (some >= self._first(number + 1)).astype(np.int64) - (some < self._first(number))
            block[todo] += off
            todo = todo[off != 0]
        return block

    def begun(self, place: int) -> int:
        """Return how many rows of a place's block there are up to it; 0 where it is the last one."""
        block = int(self._block_of(np.array([place]))[0])
        return 0 if place + 1 == self._first(block + 1) else place + 1 - self._first(block)

    def _first(self, block: int) -> int:
        """Return the first place of a block."""
        return int(self._begins.get_or(block, self._begin).sum())

    def _block(self, block: int) -> I64:
        """Return what ``find`` does, of all rows of a block."""
        begin = self._begins.get_or(block, self._begin)
        count = self._begins.get_or(block + 1, self._begin) - begin
        cells = np.flatnonzero(count)
        count, units = count[cells], -(-count[cells] // self.unit[cells])
        local = np.repeat(np.arange(len(cells), dtype=np.uint64), count)
        cell = np.repeat(cells, count)
        turn = np.arange(len(local)) - np.repeat(np.cumsum(count) - count, count)
        expression = np.repeat(np.cumsum(units) - units, count) + turn // self.unit[cell]
        salt = splitmix64(self.own_key ^ splitmix64(np.array([block], np.uint64)))
        numbers: U64 = np.arange(len(local), dtype=np.uint64)
        shuffle = splitmix64(salt + numbers) >> np.uint64(24)
        # Sorted within its cell, so that a cell's rows keep their order. Sorting numbers is faster than argsort.
        shuffle = np.sort((local << np.uint64(40)) | shuffle) & np.uint64((1 << 40) - 1)
        order = (np.sort((shuffle << np.uint64(24)) | numbers) & np.uint64((1 << 24) - 1)).astype(np.int64)
        return np.stack([cell, begin[cell] + turn, expression])[:, order]
