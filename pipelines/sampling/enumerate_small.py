"""Counts that really exist: lists the expressions of small and irregular cells, and fills classes that run short."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ...tm import machine
from ...tm.columns import I64, U64, Bool, Operands
from ..settings import TaskSettings
from .classes import ClassSampler, Wanted
from .index_space import GROUP, TRIES
from .laws import law
from .split import PAIR, distinct, on_side

CHUNK = 50_000  # candidates of a cell looked at together
DIGITS = 10_000_000  # digits of candidates held at once, about
MOST_LISTED = 100_000_000  # expressions that a plan can list: some bytes each, here and in every worker
WHOLE = 5_000  # candidates of an irregular cell that are looked at in any case
PATIENCE = 800  # candidates a wanted expression, after which a family or an irregular variant counts as exhausted
SHARE = {"train": 0.9, "test": 0.08, "stress": 0.02}  # of a class, roughly: how many candidates to look at
PLENTY = 1_000  # times what a class asks for: a cell of that size neither runs short nor has to fill another one

DRAWN = 8_192  # expressions drawn at once: what is drawn takes many times the memory of what is kept
F64 = NDArray[np.float64]
Told = Callable[[str], None]  # follows a plan: is told now and then, in a few words, what it is at


def resolve(settings: TaskSettings, split: str, wanted: Wanted, told: Told = lambda text: None) -> ClassSampler:
    """Return the cells with the counts that exist, those of small and irregular ones listed.

    A variant that runs short is filled from the others of its class; a class that runs short gives all that it has.

    Raises:
        UserError: too many expressions would have to be listed.
    """
    return listed(_draft(settings, split, wanted), settings, told)


def listed(draft: ClassSampler, settings: TaskSettings, told: Told = lambda text: None) -> ClassSampler:
    """Do what ``resolve`` does, with cells of a task."""
    space = num_candidates(draft)
    # A class in which one variant is listed may have to be filled from the others: list these with room to spare.
    injective = np.array([part.injective for part in draft.distributions], np.bool_)[draft.which]
    few = ~injective | (space < _class_totals(draft) * TRIES)
    num_listed = int(np.minimum(space, draft.count)[few].sum())
    if num_listed > MOST_LISTED:
        raise too_many(settings, draft.split, num_listed)
    draft = replace(draft, listed=few)
    return _filled(draft, _Scan(draft, told).run())


def _draft(settings: TaskSettings, split: str, wanted: Wanted) -> ClassSampler:
    """Return the cells with the counts that are asked for, none listed."""
    kinds = {(name, id(part)): part for _, _, name, part, _ in wanted}
    place = {kind: number for number, kind in enumerate(kinds)}
    table = np.array([(a, b, place[name, id(part)], n) for a, b, name, part, n in wanted], np.int64).reshape(-1, 4)
    len_a, len_b, which, count = table.T.copy()
    return ClassSampler(
        task=settings.task,
        split=split,
        seed=settings.seed,
        distributions=tuple(kinds.values()),
        names=tuple(name for name, _ in kinds),
        which=which,
        len_a=len_a,
        len_b=len_b,
        count=count,
        listed=np.zeros(len(which), np.bool_),
        first=count,
        candidate=_NONE,
    )


def num_candidates(cells: ClassSampler) -> F64:
    """Return how many candidates each cell has."""
    space = np.empty(len(cells.which), np.float64)
    for number in range(len(cells.distributions)):
        own = np.flatnonzero(cells.which == number)
        space[own] = cells.space(number, own).size
    return space


def too_many(settings: TaskSettings, split: str, count: int) -> UserError:
    """Return the error for a plan that has to look at so many expressions one by one."""
    decides = "--num" if settings.budget is None else "--rows or --tokens"
    option = decides if split == "train" else "--num-test"
    return UserError(
        f"{settings.task}: the plan would list up to {count:,} expressions of the split {split} one by one",
        where=option,
        allowed=f"at most {MOST_LISTED:,} expressions in the classes that run out, and of those that halt soon",
        next_step=f"lower {option}, or narrow --min and --max",
    )


_NONE: U64 = np.empty(0, np.uint64)


def _class_totals(cells: ClassSampler) -> I64:
    """Return the expressions that are asked for of each cell's class."""
    _, pair = np.unique(cells.len_a * PAIR + cells.len_b, return_inverse=True)
    totals: I64 = np.bincount(pair, weights=cells.count.astype(np.float64)).astype(np.int64)[pair]
    return totals


class _Scan:
    """Lists the expressions of cells: candidates in order, those on the side, each once."""

    def __init__(self, cells: ClassSampler, told: Told) -> None:
        self.cells, self.told = cells, told
        self.num_looked_at = 0
        self.seen: set[tuple[bytes, ...]] = set()  # of irregular cells; a family does not repeat an earlier one

    def run(self) -> dict[int, U64]:
        """Return the candidate numbers of each cell's expressions."""
        cells, lists = self.cells, dict[int, U64]()
        want = self._with_room()
        listed = np.flatnonzero(cells.listed & (want > 0))
        for which in range(len(cells.distributions)):
            for indexed in (True, False):
                group = listed[(cells.which[listed] == which) & (cells.indexed[listed] == indexed)]
                width = int(max(cells.len_a[group].max(initial=20), cells.len_b[group].max(initial=20)))
                step = max(1, CHUNK * 20 // width // 64)
                for lowest in range(0, len(group), step):
                    some = group[lowest : lowest + step]
                    lists |= self._list(which, some, want[some], indexed)
        return lists

    def _with_room(self) -> I64:
        """Return how many expressions of each cell could be used: its own, and its class's if others run short."""
        cells, want = self.cells, self.cells.count.copy()
        if cells.split == "stress":
            return want
        totals = _class_totals(cells)
        for cell in np.flatnonzero(cells.listed).tolist():
            size = cells.distributions[cells.which[cell]].size(int(cells.len_a[cell]), int(cells.len_b[cell]))
            if size < PLENTY * totals[cell]:
                want[cell] = totals[cell]
        return want

    def _list(self, which: int, cells: I64, want: I64, indexed: bool) -> dict[int, U64]:
        end = self.cells.space(which, cells).size if indexed else np.full(len(cells), 2.0**62)
        if not self.cells.distributions[which].injective:
            end = np.minimum(end, np.maximum(PATIENCE * want, WHOLE))
        share = SHARE[self.cells.split]
        reached, have = np.zeros(len(cells), np.int64), np.zeros(len(cells), np.int64)
        rows, numbers = [np.empty(0, np.int64)], [_NONE]
        while len(active := np.flatnonzero((have < want) & (reached < end))):
            missing = (want - have)[active]
            size = np.minimum(np.ceil(missing / share * 1.1).astype(np.int64) + 4, CHUNK)
            size = np.minimum(size, (end - reached)[active].astype(np.int64))
            begin = np.cumsum(size) - size
            row = np.repeat(active, size)
            counter = np.arange(len(row)) - np.repeat(begin, size) + reached[row]
            # Candidates of a group share all but their index digits: of larger boxes one of each group is looked at.
            number = counter.astype(np.uint64) * np.uint64(1 if indexed else GROUP)
            kept = self._kept(which, cells[row], number, indexed)
            # Of each cell the first ones that are missing, in order.
            before = np.concatenate([[0], np.cumsum(kept)])
            kept &= before[:-1] - np.repeat(before[begin], size) < np.repeat(missing, size)
            rows.append(row[kept])
            numbers.append(number[kept])
            have += np.bincount(row[kept], minlength=len(cells))
            reached[active] += size
        order = np.argsort(np.concatenate(rows), kind="stable")
        lists = np.split(np.concatenate(numbers)[order], np.cumsum(have)[:-1])
        return dict(zip(cells.tolist(), lists, strict=True))

    def _kept(self, which: int, cells: I64, counter: U64, indexed: bool) -> Bool:
        """Tell which candidates are kept, looking at a bounded number at a time."""
        split, machine, distribution = self.cells.split, self.cells.machine, self.cells.distributions[which]
        lengths = self.cells.len_a[cells], self.cells.len_b[cells]
        step = max(1_000, DIGITS // int(max(1, *(length.max(initial=1) for length in lengths))))
        parts = [np.zeros(0, np.bool_)]
        for start in range(0, len(cells), step):
            own = slice(start, start + step)
            operands, kept = self.cells.candidates(which, cells[own], counter[own], indexed)
            if split == "stress":  # a family knows nothing of the task: that b >= 1, say
                kept &= law(machine.law).holds(operands)
            if not distribution.any_side:
                kept &= on_side(machine, operands, split)
            for row in np.flatnonzero(kept).tolist() if not distribution.injective else ():
                digits = tuple(number.planes[: number.length[row], row].tobytes() for number in operands.numbers)
                kept[row] = digits not in self.seen
                self.seen.add(digits)
            parts.append(kept)
            self.num_looked_at += len(kept)
            self.told(f"{machine.name} {split}, {self.num_looked_at:,} candidates looked at")
        return np.concatenate(parts)


def _filled(draft: ClassSampler, lists: dict[int, U64]) -> ClassSampler:
    """Return the cells with their real counts, short variants filled from the others of their class."""
    count = draft.count.copy()
    available = np.where(draft.listed, 0, np.iinfo(np.int64).max)
    for cell, numbers in lists.items():
        available[cell] = len(numbers)
    pairs = draft.len_a * PAIR + draft.len_b
    missing = np.maximum(count - available, 0)
    count -= missing
    if draft.split != "stress":
        for pair in distinct(pairs[missing > 0]).tolist():
            cells = np.flatnonzero(pairs == pair)
            left = int(missing[cells].sum())
            for cell in cells.tolist():
                extra = min(left, int(available[cell] - count[cell]))
                count[cell] += extra
                left -= extra
    first = np.zeros(len(count), np.int64)
    first[draft.listed] = np.cumsum(count[draft.listed]) - count[draft.listed]
    kept = [lists.get(cell, _NONE)[: count[cell]] for cell in np.flatnonzero(draft.listed).tolist()]
    return replace(draft, count=count, first=first, candidate=np.concatenate([_NONE, *kept]))


def known_to_fit(settings: TaskSettings, *, whole: bool) -> bool:
    """Tell whether no expression of a task's classes is left out because of its run, without looking at runs.

    Args:
        settings: the task.
        whole: of rows that hold whole runs: these are of up to ``max_steps``. Else a run only has to halt.
    """
    own, most = machine(settings.task), settings.max_steps
    if not own.halts:
        return 0 < own.max_num_steps(settings.max, 0) <= most
    if not whole:
        return True
    if settings.expressions is not None:
        return own.walks  # of such machines classes are left out as a whole
    no_short_runs = next(own.short_runs(settings.min, settings.max, 1), None) is None
    return no_short_runs or own.max_short_run is not None and own.max_short_run <= most


def in_parts(cells: ClassSampler, lengths: Callable[[Operands], I64], told: Told = lambda text: None) -> I64:
    """Return the number of transitions of all expressions of some cells; ``lengths`` gives those of a part."""
    steps = np.empty(cells.num_expressions, np.int64)
    for start in range(0, len(steps), DRAWN):
        told(f"{start:,} of {len(steps):,} runs")
        operands, _ = cells.operands(np.arange(start, min(start + DRAWN, len(steps))))
        steps[start : start + DRAWN] = lengths(operands)
    return steps
