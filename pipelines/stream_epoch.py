"""An epoch of a stream: which expression, and which of its steps, each row shows.

Every class has a part of the epoch's rows. Its expressions are those that a build with the epoch's own seed draws, in a
keyed order, again from the first one where they run out. Of a class of a million each gives some rows, as many as in a
build. The expressions of all classes, one class after the other, are dealt like cards to hands of some thousand rows,
so that each hand has its share of every class; hands come in a keyed order, and so do the rows of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from ..tm.columns import I64, U64
from ..tm.machine import Rows
from .plan import RUN_VIEWS, split_configs
from .rows import Work
from .sampling.classes import ClassSampler
from .sampling.enumerate_small import in_parts, known_to_fit, listed, num_candidates
from .sampling.random import random_u64, splitmix64
from .sampling.split import grouped
from .sampling.steps import rows_in_turn
from .settings import TaskSettings

F64 = NDArray[np.float64]
HAND = 8_192  # rows, about
LARGE = 1_000_000  # expressions of a cell, about
LOOKED_AT = 20_000  # expressions whose rows are counted, to know how many a build has: all, if there are no more


@dataclass(frozen=True, eq=False, kw_only=True)
class RowWork(Work):
    """Rows one by one.

    Args:
        expressions: the expression of each row.
        key: seeds the draws of each expression.
        turn: how many rows of its expression went before each row.
    """

    expressions: I64
    key: U64
    turn: I64

    @cached_property
    def steps(self) -> Rows:
        every = self.settings.steps == "all"
        rows = rows_in_turn(self.batch, self.expressions, self.key, self.turn, every=every)
        if self.view != "slips":
            return rows
        first = self.batch.steps(rows) == 0  # it has no slip, the next one that is kept has
        return rows_in_turn(self.batch, self.expressions, self.key, self.turn + first, every=every)

    @cached_property
    def order(self) -> I64:
        if self.view != "aligner":
            return self.expressions
        begin = (random_u64(self.key, 1) >> np.uint64(32)).astype(np.int64)
        return self.expressions + len(self.key) * ((begin[self.expressions] + self.turn) % 2)


@dataclass(frozen=True, eq=False)
class Source:
    """Classes of one task and view, in their parts (cells)."""

    settings: TaskSettings
    view: str
    cells: ClassSampler  # as a build has them
    count: I64  # expressions that a build has of each
    rows: F64  # rows that it has of each, or about as many
    text: int  # bytes of text of a row, about

    @property
    def longest(self) -> I64:
        """Digits of each cell's longer operand; b's and two where a is drawn: b times 15 at most."""
        a, b = self.cells.len_a, self.cells.len_b
        return np.maximum(np.where((a == 0) & (b > 0), b + 2, a), b)

    @cached_property
    def together(self) -> I64:
        """Rows that an expression of each cell gives in a row: in a large cell as many as in a build."""
        rows = np.maximum(1, self.rows / np.maximum(self.count, 1)).astype(np.int64)
        return np.where(num_candidates(self.cells) < LARGE, 1, rows)

    def drawn(self, seed: int, most: I64) -> tuple[ClassSampler, I64 | None]:
        """Return up to ``most`` expressions of each cell as another seed draws them, and which of all halt in time."""
        cells = listed(replace(self.cells, seed=seed, count=most), self.settings)
        if known_to_fit(self.settings, whole=self.view in RUN_VIEWS):
            return cells, None
        steps = in_parts(cells, lambda some: cells.machine.run_lengths(some, self.settings.max_steps))
        return cells, np.flatnonzero(steps > 0)


def sources_of(settings: TaskSettings, split: str, view: str) -> Iterator[Source]:
    """Yield the classes of a task's view, and the extra ones that halt soon; none where a build has no rows."""
    for config in split_configs(settings, split, [view])[0]:
        numbers, size, first = config.population.spread(LOOKED_AT), len(config.population), 0
        # Rows up to an expression: each one that was looked at stands for those up to the next.
        edges = np.append(numbers, size)
        total = np.append(0, np.cumsum(config.num_rows(numbers) * np.diff(edges)))
        for cells, kept in config.population.parts:
            count = held(cells, kept)
            ends = first + np.append(0, np.cumsum(count))
            rows, first = np.diff(np.interp(ends, edges, total)), int(ends[-1])
            yield Source(settings, view, cells, count, rows, config.text // max(1, config.rows))


def held(cells: ClassSampler, kept: I64 | None) -> I64:
    """Return how many expressions each cell has, of all or of some of them."""
    return cells.count if kept is None else np.bincount(cells.of(kept)[0], minlength=len(cells.count))


class Epoch:
    """The rows of an epoch, by their place in it.

    Args:
        key: of this epoch, 64 bits.
        sources: the classes.
        weights: the weight of each of their cells.
        size: rows of the epoch.

    Attributes:
        share: rows of each cell.
        held: expressions of each cell, as many as it has rows if there are so many.
    """

    def __init__(self, key: int, sources: Sequence[Source], weights: F64, size: int) -> None:
        self.key, self.sources = np.uint64(key), sources
        ends = np.cumsum(weights)
        self.share = np.diff(np.floor(ends / ends[-1] * size + key / 2**64), prepend=0).astype(np.int64)
        self.first_cell = np.cumsum([0, *(len(source.rows) for source in sources)])
        own = np.split(self.share, self.first_cell[1:-1])
        self.drawn = [source.drawn(key >> 1, most) for source, most in zip(sources, own, strict=True)]
        self.held = np.concatenate([held(*drawn) for drawn in self.drawn])
        if not self.held.any():  # no run of the few that were drawn halts in time: some under the declaration's seed do
            self.drawn = [source.drawn(source.cells.seed, source.cells.count) for source in sources]
            self.held = np.concatenate([held(*drawn) for drawn in self.drawn])
        lost = (self.share > 0) & (self.held == 0)  # such a class had one under the declaration's seed
        self.share[np.argmax(self.held)] += self.share[lost].sum()
        self.share[lost] = 0
        self.together = np.concatenate([source.together for source in sources])
        self._deal(max(1, size // HAND))
        self.hand = lru_cache(maxsize=3)(self._hand)

    def _deal(self, hands: int) -> None:
        """Deal the expressions in turn: find when each hand comes, and how many rows there are before it."""
        cards = -(-self.share // self.together)
        self.first_card = np.append(0, np.cumsum(cards))
        self.order = np.argsort(splitmix64(self.key + np.arange(hands, dtype=np.uint64)), kind="stable")
        self.when = np.argsort(self.order)
        each, more = np.divmod(cards, hands)  # cards of each cell that every hand has, and hands that have one more
        begin, last = self.first_card[:-1] % hands, (self.first_card[1:] - 1) % hands
        change = np.bincount(begin, self.together, 2 * hands) - np.bincount(begin + more, self.together, 2 * hands)
        rows = (each * self.together).sum() + np.cumsum(change).reshape(2, hands).sum(axis=0)  # twice round
        rows -= np.bincount(last, cards * self.together - self.share, hands)
        self.begin = np.append(0, np.cumsum(rows[self.order])).astype(np.int64)

    def _hand(self, turn: int) -> I64:
        """Return of each row of a hand its cell, which of the cell's expressions, which of its rows, and its card."""
        hands = len(self.order)
        card = np.arange(self.order[turn], self.first_card[-1], hands)
        cell = np.searchsorted(self.first_card, card, "right") - 1
        first, end = self.first_card[cell], self.first_card[cell + 1]
        earlier = np.append(0, np.cumsum(self.when < turn))  # of the cards of a round, those of hands that came before
        before = [place // hands * turn + earlier[place % hands] for place in (first, end)]
        begin = np.searchsorted(cell, cell)  # of the hand's cards, the first of each one's cell
        numbers = np.arange(len(card))
        expression = before[1] - before[0] + numbers - begin
        count = np.minimum(self.together[cell], self.share[cell] - (card - first) * self.together[cell])
        number = np.repeat(numbers, count)
        place = np.arange(len(number))
        row = place - np.repeat(np.cumsum(count) - count, count)
        salt = splitmix64(self.key ^ splitmix64(np.array([turn], np.uint64)))
        shuffle = splitmix64(salt + place.astype(np.uint64)) >> np.uint64(24)
        # Sorted within its cell, so that a cell's expressions keep their order. Sorting numbers is faster than argsort.
        shuffle = np.sort((begin[number].astype(np.uint64) << np.uint64(40)) | shuffle) & np.uint64((1 << 40) - 1)
        order = np.sort((shuffle << np.uint64(24)) | place.astype(np.uint64)) & np.uint64((1 << 24) - 1)
        return np.stack([cell[number], expression[number], row, number])[:, order.astype(np.int64)]

    def end(self, place: int, most: int) -> int:
        """Return where to stop with rows from a place on: where a hand ends, whose expressions are drawn together."""
        end = int(self.begin[np.searchsorted(self.begin, place + most, "right") - 1])
        return end if end > place else place + most

    def works(self, places: I64) -> Iterator[tuple[I64, RowWork]]:
        """Yield what renders the rows at some places: for each source which of them, and its work."""
        found, total = np.empty((4, len(places)), np.int64), 0
        turns = np.searchsorted(self.begin, places, "right") - 1
        for turn, here in grouped(turns):
            own = self.hand(turn)[:, places[here] - self.begin[turn]]
            own[3] += total
            found[:, here], total = own, int(own[3].max()) + 1
        for source, here in grouped(np.searchsorted(self.first_cell, found[0], "right") - 1):
            yield here, self._work(source, *found[:, here])

    def _work(self, number: int, cell: I64, expression: I64, row: I64, card: I64) -> RowWork:
        source, (cells, kept), first = self.sources[number], self.drawn[number], self.first_cell[number]
        one = np.full(int(card.max()) + 1, -1)
        one[card] = np.arange(len(card))  # a row of each card, whichever
        card, one = (np.cumsum(one >= 0) - 1)[card], one[one >= 0]
        cell, own = cell[one], self.held[first : self.first_cell[number + 1]]
        again, at = np.divmod(expression[one], self.held[cell])
        cell = cell - first
        numbers = (np.cumsum(own) - own)[cell] + at
        operands, variant = cells.operands(numbers if kept is None else kept[numbers])
        keys = splitmix64(cells.keys[cell] + splitmix64(at.astype(np.uint64)))
        about = source.settings, source.view, operands, variant, cells.names
        return RowWork(*about, expressions=card, key=keys, turn=again[card] + row)
