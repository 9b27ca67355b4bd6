"""Counts that really exist: lists the expressions of small and irregular cells, and fills classes that run short."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import groupby

import numpy as np

from ...errors import UserError
from ...tm.classes import OperandDistribution
from ...tm.columns import I64, Bool, Operands
from ..settings import TaskSettings
from .classes import ClassSampler, Wanted, on_side
from .index_space import GROUP, TRIES, fits, sizes
from .laws import law as law_of
from .random import U64

CHUNK = 50_000  # candidates of a cell looked at together
DIGITS = 10_000_000  # digits of candidates held at once, about
MOST_LISTED = 100_000_000  # expressions that a plan can list: some bytes each, here and in every worker
WHOLE = 5_000  # candidates of an irregular cell that are looked at in any case
PATIENCE = 800  # candidates a wanted expression, after which a family or an irregular variant counts as exhausted
SHARE = {"train": 0.9, "test": 0.08, "stress": 0.02}  # of a class, roughly: how many candidates to look at
PLENTY = 1_000  # times what a class asks for: a cell of that size neither runs short nor has to fill another one
PAIR = 1 << 20  # packs two lengths into one integer


Told = Callable[[str], None]  # follows a plan: is told now and then, in a few words, what it is at


def resolve(settings: TaskSettings, split: str, wanted: Wanted, told: Told = lambda text: None) -> ClassSampler:
    """Return the cells with the counts that exist, small and irregular ones scanned.

    A variant that runs short is filled from the others of its class; a class that runs short gives all that it has.

    Raises:
        UserError: too many expressions would have to be listed.
    """
    laws: dict[int, int] = {}
    found: list[tuple[str, OperandDistribution]] = []
    for _, _, name, one, _ in wanted:
        if id(one) not in laws:
            laws[id(one)] = len(found)
            found.append((name, one))
    table = np.array([(a, b, laws[id(one)], n) for a, b, _, one, n in wanted], np.int64).reshape(-1, 4)
    len_a, len_b, law, count = table.T.copy()
    names, kinds = tuple(name for name, _ in found), tuple(one for _, one in found)
    space = np.zeros(len(law), np.float64)
    for at, one in enumerate(kinds):
        mine = np.flatnonzero(law == at)
        small = mine[fits(one, len_a[mine], len_b[mine])]
        space[mine] = np.inf
        space[small] = sizes(one, len_a[small], len_b[small]).astype(np.float64).prod(axis=0)
    injective = np.array([one.injective for one in kinds], np.bool_)[law]
    _, which = np.unique(len_a * PAIR + len_b, return_inverse=True)
    most = np.bincount(which, weights=count.astype(np.float64))[which]  # a variant may have to fill its whole class
    scanned = ~injective | (space < most * TRIES)
    # A class in which one variant is scanned may have to be filled from the others: scan these with room to spare.
    listed = int(np.minimum(space, count)[scanned].sum())
    if listed > MOST_LISTED:
        raise too_many(settings, split, listed)
    draft = ClassSampler(
        settings.task, split, settings.seed, kinds, names, law, len_a, len_b, count, scanned, count, _NONE
    )
    return _filled(draft, _Scan(draft, told).run())


def too_many(settings: TaskSettings, split: str, count: int) -> UserError:
    """Return the error for a plan that has to look at so many expressions one by one."""
    option = "--num" if split == "train" else "--num-test"
    return UserError(
        f"{settings.task}: the plan would list up to {count:,} expressions of the split {split} one by one",
        where=option,
        allowed=f"at most {MOST_LISTED:,} expressions in the classes that run out, and of those that halt soon",
        next_step=f"lower {option}, or narrow --min and --max",
    )


_NONE: U64 = np.empty(0, np.uint64)


class _Scan:
    """Lists the expressions of scanned cells: candidates in order, those on the side, each once."""

    def __init__(self, cells: ClassSampler, told: Told) -> None:
        self.cells, self.told = cells, told
        self.looked = 0
        self.lists: dict[int, U64] = {}
        self.seen: set[tuple[bytes, ...]] = set()  # of irregular cells; a family does not repeat an earlier one

    def run(self) -> dict[int, U64]:
        cells = self.cells
        want = self._with_room(np.flatnonzero(cells.scanned))
        scanned = np.flatnonzero(cells.scanned & (want > 0))
        for at in range(len(cells.laws)):
            mine = scanned[cells.law[scanned] == at]
            for indexed in (True, False):
                group = mine[cells.indexed[mine] == indexed]
                width = int(max(cells.len_a[group].max(initial=1), cells.len_b[group].max(initial=1)))
                step = max(1, CHUNK * 20 // max(width, 20) // 64)
                for lowest in range(0, len(group), step):
                    here = group[lowest : lowest + step]
                    self._scan(at, here, want[here], indexed)
        return self.lists

    def _with_room(self, scanned: I64) -> I64:
        """Return how many expressions of each cell could be used: its own, and its class's if others run short."""
        cells = self.cells
        want = cells.count.copy()
        if cells.split == "stress":
            return want
        key = cells.len_a * PAIR + cells.len_b
        _, which = np.unique(key, return_inverse=True)
        total = np.bincount(which, weights=cells.count.astype(np.float64)).astype(np.int64)
        for cell in scanned.tolist():
            size = cells.laws[cells.law[cell]].size(int(cells.len_a[cell]), int(cells.len_b[cell]))
            if size < PLENTY * total[which[cell]]:
                want[cell] = total[which[cell]]
        return want

    def _scan(self, law: int, cell: I64, want: I64, indexed: bool) -> None:
        cells, one = self.cells, self.cells.laws[law]
        end = np.full(len(cell), 2.0**62)
        if indexed:
            end = sizes(one, cells.len_a[cell], cells.len_b[cell]).astype(np.float64).prod(axis=0)
        if not one.injective:
            end = np.minimum(end, np.maximum(PATIENCE * want, WHOLE))
        share = SHARE[cells.split]
        at, have = np.zeros(len(cell), np.int64), np.zeros(len(cell), np.int64)
        rows, numbers = [np.empty(0, np.int64)], [_NONE]
        while len(active := np.flatnonzero((have < want) & (at < end))):
            missing = (want - have)[active]
            size = np.minimum(np.ceil(missing / share * 1.1).astype(np.int64) + 4, CHUNK)
            size = np.minimum(size, (end - at)[active].astype(np.int64))
            begin = np.cumsum(size) - size
            row = np.repeat(active, size)
            counter = np.arange(len(row)) - np.repeat(begin, size) + at[row]
            # Candidates of a group share all but their index digits: of larger boxes one of each group is looked at.
            number = counter.astype(np.uint64) * np.uint64(1 if indexed else GROUP)
            kept = self._all_kept(law, cell[row], number, indexed)
            # Of each cell the first ones that are missing, in order.
            before = np.concatenate([[0], np.cumsum(kept)])
            kept &= before[:-1] - np.repeat(before[begin], size) < np.repeat(missing, size)
            rows.append(row[kept])
            numbers.append(number[kept])
            have += np.bincount(row[kept], minlength=len(cell))
            at[active] += size
        order = np.argsort(np.concatenate(rows), kind="stable")
        for which, found in enumerate(np.split(np.concatenate(numbers)[order], np.cumsum(have)[:-1])):
            self.lists[int(cell[which])] = found

    def _all_kept(self, law: int, cell: I64, counter: U64, indexed: bool) -> Bool:
        """Tell which candidates are kept, a bounded number at a time."""
        lengths = self.cells.len_a[cell], self.cells.len_b[cell]
        step = max(1_000, DIGITS // int(max(1, *(length.max(initial=1) for length in lengths))))
        kept = [np.empty(0, np.bool_)]
        for start in range(0, len(cell), step):
            kept.append(self._kept(law, cell[start : start + step], counter[start : start + step], indexed))
            self.looked += len(kept[-1])
            self.told(f"{self.cells.task} {self.cells.split}, {self.looked:,} candidates looked at")
        return np.concatenate(kept)

    def _kept(self, law: int, cell: I64, counter: U64, indexed: bool) -> Bool:
        cells, one = self.cells, self.cells.laws[law]
        operands, kept = cells.candidates(law, cell, counter, indexed)
        if cells.split == "stress":  # a family knows nothing of the task: that b >= 1, say
            kept &= law_of(cells.machine.law).holds(operands)
        kept &= on_side(cells.machine, operands, cells.split)
        if not one.injective:
            for row in np.flatnonzero(kept).tolist():
                pair = _pair(operands, row)
                kept[row] = pair not in self.seen
                self.seen.add(pair)
        return kept


def _pair(operands: Operands, row: int) -> tuple[bytes, ...]:
    """Return the digits of an expression's operands."""
    return tuple(number.planes[: number.length[row], row].tobytes() for number in operands.numbers)


def _filled(draft: ClassSampler, lists: dict[int, U64]) -> ClassSampler:
    """Return the cells with their real counts, short variants filled from the others of their class."""
    count = draft.count.copy()
    available = np.where(draft.scanned, 0, np.iinfo(np.int64).max)
    for cell, found in lists.items():
        available[cell] = len(found)
    if draft.split != "stress":
        key = draft.len_a * PAIR + draft.len_b
        short = np.flatnonzero(available < count)
        for _, group in groupby(np.flatnonzero(np.isin(key, key[short])).tolist(), key=lambda cell: int(key[cell])):
            cells = np.array(list(group))
            missing = int(np.maximum(count[cells] - available[cells], 0).sum())
            count[cells] = np.minimum(count[cells], available[cells])
            for cell in cells.tolist():
                extra = min(missing, int(min(available[cell] - count[cell], missing)))
                count[cell] += extra
                missing -= extra
    count = np.minimum(count, available)
    first = np.zeros(len(count), np.int64)
    pieces: list[U64] = []
    at = 0
    for cell in np.flatnonzero(draft.scanned).tolist():
        piece = lists.get(cell, _NONE)[: count[cell]]
        first[cell] = at
        at += len(piece)
        pieces.append(piece)
    found = np.concatenate(pieces) if pieces else _NONE
    return replace(draft, count=count, first=first, found=found)
