"""Which expressions a split of a task holds: the classes' counts, and every expression by its number.

A cell is a part of a class (one variant) or a stress family in a class. The i-th expression of a cell is a pure
function of (seed, task, cell, i): in large cells the first of candidates ``4096 * i, 4096 * i + 1 ...`` that lies on
the split's side, in small ones the i-th such candidate of a permutation of the whole cell.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...tm import machine
from ...tm.classes import OperandDistribution
from ...tm.columns import I64, U64, Bool, Number, Operands, stacked, widen
from ...tm.machine import Machine
from ..budget import MILLION
from ..expressions import own_expressions
from ..settings import TaskSettings
from ..versions import SAMPLING_VERSION
from .index_space import GROUP, INDEX_DIGITS, TRIES, IndexSpace, index_digits
from .laws import class_parts, law
from .random import splitmix64, text_key
from .split import CUT, PAIR, SMALL, STRESS_CUT, digit_keys, digit_sums, grouped, hash_of_sums, on_side
from .stress import families

TOGETHER = 20_000  # expressions whose digits are looked at together
AHEAD = 8  # attempts looked at together when one in ten is wanted
FEW = 64  # expressions of which several attempts are looked at no slower than one


@dataclass(frozen=True, eq=False)
class ClassSampler:
    """The cells of one split of a task, as columns of shape (cells,).

    Args:
        task: name of the task.
        split: train, test or stress.
        seed: seed of the sampling.
        distributions: the distributions that occur.
        names: the variant of each distribution.
        which: index of each cell's distribution.
        len_a: digits of a.
        len_b: digits of b, 0 for one operand.
        count: expressions of each cell, those that really exist.
        listed: whether a cell's expressions are listed in ``candidate``, from ``first`` on.
        first: see ``listed``.
        candidate: candidate numbers of the expressions of listed cells.
    """

    task: str
    split: str
    seed: int
    distributions: tuple[OperandDistribution, ...]
    names: tuple[str, ...]
    which: I64
    len_a: I64
    len_b: I64
    count: I64
    listed: Bool
    first: I64
    candidate: U64

    @cached_property
    def machine(self) -> Machine:
        """The machine of the task."""
        return machine(self.task)

    @cached_property
    def start(self) -> I64:
        """The number of each cell's first expression in the split."""
        start: I64 = np.cumsum(self.count) - self.count
        return start

    @property
    def num_expressions(self) -> int:
        """Expressions of the split."""
        return int(self.count.sum())

    @cached_property
    def keys(self) -> U64:
        """A 64-bit key of each cell."""
        names = self.names
        texts = [f"{self.seed} {self.task} {name} {names[:number].count(name)}" for number, name in enumerate(names)]
        base = np.array([text_key(f"cell {SAMPLING_VERSION} {text}") for text in texts], np.uint64)
        lengths = (self.len_a.astype(np.uint64) << np.uint64(32)) + self.len_b.astype(np.uint64)
        return splitmix64(base[self.which] + splitmix64(lengths))

    @cached_property
    def indexed(self) -> Bool:
        """Whether each cell's candidates are numbered as a whole, so that none comes twice."""
        indexed = np.zeros(len(self.which), np.bool_)
        for which in range(len(self.distributions)):
            cells = np.flatnonzero(self.which == which)
            indexed[cells] = self.space(which, cells).fits
        return indexed

    def classes(self, numbers: I64 | None = None) -> dict[tuple[int, int], int]:
        """Return how many expressions each class (len a, len b) has, of these numbers or of all."""
        none = np.empty((3, 0), np.int64)
        len_a, len_b, count = np.concatenate([none, *map(np.stack, self._lengths(numbers))], axis=1)
        pairs, place = np.unique(len_a * PAIR + len_b, return_inverse=True)
        totals = np.bincount(place, weights=count).astype(np.int64)
        return {divmod(pair, PAIR): n for pair, n in zip(pairs.tolist(), totals.tolist(), strict=True) if n}

    def _lengths(self, numbers: I64 | None) -> Iterator[tuple[I64, I64, I64]]:
        """Yield columns of lengths of a, lengths of b, and how many expressions have them."""
        if self.machine.unary or (self.len_a > 0).all():  # of one operand 0 is a length: the empty word
            own = self.count if numbers is None else np.bincount(self.of(numbers)[0], minlength=len(self.count))
            yield self.len_a, self.len_b, own
            return
        numbers = np.arange(self.num_expressions) if numbers is None else numbers
        for start in range(0, len(numbers), TOGETHER):  # cells that leave the length of a to the draw
            operands, _ = self.operands(numbers[start : start + TOGETHER])
            yield operands.a.length, operands.second.length, np.ones(len(operands), np.int64)

    def of(self, numbers: I64) -> tuple[I64, I64]:
        """Return the cell of each expression number, and the expression's number in its cell."""
        cell = np.searchsorted(self.start, numbers, "right") - 1
        return cell, numbers - self.start[cell]

    def operands(self, numbers: I64) -> tuple[Operands, I64]:
        """Return the expressions of these numbers, and the index of each one's variant in ``names``."""
        return self.drawn(*self.of(numbers))

    def drawn(self, cell: I64, index: I64) -> tuple[Operands, I64]:
        """Return expressions by their cell and their number there, which cells that are not listed have no end of."""
        variant, parts = self.which[cell], list[tuple[I64, Operands]]()
        kinds = 4 * variant + 2 * self.listed[cell] + self.indexed[cell]
        for kind, rows in grouped(kinds):
            which, cells, indexed = kind // 4, cell[rows], bool(kind & 1)
            if kind & 2:
                counter = self.candidate[self.first[cells] + index[rows]]
                parts.append((rows, self.candidates(which, cells, counter, indexed)[0]))
            else:
                parts.append((rows, self._first_on_side(which, cells, index[rows], indexed)))
        return merged(parts, len(cell)), variant

    def space(self, which: int, cells: I64) -> IndexSpace:
        """Return the index space of cells of one distribution."""
        return IndexSpace(self.distributions[which], self.len_a[cells], self.len_b[cells])

    def candidates(self, which: int, cells: I64, counter: U64, indexed: bool) -> tuple[Operands, Bool]:
        """Return candidates and which of them are expressions of their cell (on any side)."""
        drawn = self.space(which, cells).candidates(self.keys[cells], counter, indexed=indexed)
        return self.distributions[which].shape(drawn)

    def _first_on_side(self, which: int, cells: I64, index: I64, indexed: bool) -> Operands:
        """Return the first candidate of each expression that lies on the split's side.

        What the distribution refuses (a < b, say) its group's other candidates hardly mend, so the next group's first
        one follows; what lies on another side is followed by its neighbour.
        """
        parts: list[tuple[I64, Operands]] = []
        todo = np.arange(len(cells))
        attempt, refused_before = np.zeros(len(cells), np.int64), np.zeros(len(cells), np.bool_)
        plain = type(self.distributions[which]).shape is OperandDistribution.shape
        rare = self.split == "test" and plain and not indexed
        jump = 1 if indexed else GROUP
        while len(todo):
            most = self.split == "train" and len(todo) > FEW  # first attempts, of which nearly all are wanted
            together = 1 if rare or most else AHEAD  # how many has no say in what is found
            if rare:  # most candidates of a test split fall through: look for the next likely ones first
                attempt[todo] = self._likely(which, cells[todo], index[todo], attempt[todo])
            if (attempt[todo] >= TRIES).any():
                raise RuntimeError(f"{self.task}: no expression of {self.split} in {TRIES} candidates")
            tried = (index[todo] * TRIES + attempt[todo])[:, None] + np.arange(together)
            rows = np.repeat(cells[todo], together)
            operands, lawful = self.candidates(which, rows, tried.reshape(-1).astype(np.uint64), indexed)
            chosen = (lawful & on_side(self.machine, operands, self.split)).reshape(-1, together)
            refused = ~lawful.reshape(-1, together)
            ends = chosen | refused
            first = np.where(ends.any(axis=1), ends.argmax(axis=1), together)
            here, last = np.arange(len(todo)), np.minimum(first, together - 1)
            done, refused_now = chosen[here, last], refused[here, last]
            if together == 1 and not parts:  # the others are put over what they are now
                parts.append((todo, operands))
            elif done.any():
                parts.append((todo[done], operands.take(np.flatnonzero(done) * together + last[done])))
            reached = attempt[todo] + first
            # Of likely ones the second refused in a row is followed by the one a group further on.
            following = np.where(refused_before[todo] & (first == 0), reached, reached // jump * jump) + jump
            attempt[todo] = np.where(refused_now, following, reached)
            refused_before[todo] = refused_now
            todo = todo[~done]
        return merged(parts, len(cells))

    def _likely(self, which: int, cells: I64, index: I64, attempt: I64) -> I64:
        """Return the first attempt from ``attempt`` on whose hash is one of the test split.

        The attempts of a group differ in their index digits only, so the hash's sums differ by these alone. What is
        found is a suggestion, the next group's first attempt where there is none: the candidate is drawn and checked.
        """
        space, keys = self.space(which, cells), self.keys[cells]
        group = attempt // GROUP * GROUP
        counter = (index * TRIES + group).astype(np.uint64)
        blank, _ = self.distributions[which].shape(space.candidates(keys, counter, indexed=False, blank=True))
        in_a, place, table = space.index_digits_in_a, np.arange(INDEX_DIGITS)[:, None], digit_keys(INDEX_DIGITS)
        weights = table[:, None] * (place < in_a), table[np.maximum(place - in_a, 0)] * (place >= in_a)
        sums = [digit_sums(number) for number in blank.numbers]
        likely, todo = attempt.copy(), np.arange(len(cells))
        while len(todo):
            tried = (index * TRIES + likely)[todo][:, None] + np.arange(AHEAD)
            digits = index_digits(tried.reshape(-1).astype(np.uint64), np.repeat(keys[todo], AHEAD))
            digits = digits.reshape(INDEX_DIGITS, -1, AHEAD)
            added = [(digits * weight[:, todo, None]).sum(axis=0) for weight in weights[: len(sums)]]
            own = [total[todo][:, None] + more for total, more in zip(sums, added, strict=True)]
            hashes = hash_of_sums(self.machine, *own)
            in_test = (hashes < np.uint64(CUT)) & (hashes >= np.uint64(STRESS_CUT))
            hit = in_test.any(axis=1)
            likely[todo] += np.where(hit, in_test.argmax(axis=1), AHEAD)
            todo = todo[~hit & (likely[todo] < group[todo] + GROUP)]
        return np.minimum(likely, group + GROUP)


def merged(parts: list[tuple[I64, Operands]], num_rows: int) -> Operands:
    """Put parts at their rows, over those of a first part that has them all."""
    if len(parts) == 1 and len(parts[0][0]) == num_rows and (np.diff(parts[0][0]) == 1).all():
        return parts[0][1]
    whole = bool(parts) and len(parts[0][0]) == num_rows

    def column(numbers: list[Number]) -> Number:
        if not whole:
            order = np.argsort(np.concatenate([rows for rows, _ in parts]), kind="stable")
            return stacked(numbers).take(order)
        planes = widen(numbers[0].planes, max(number.width for number in numbers)).copy()
        length = numbers[0].length.copy()
        for (rows, _), number in zip(parts[1:], numbers[1:], strict=True):
            planes[: number.width, rows], planes[number.width :, rows] = number.planes, 0
            length[rows] = number.length
        return Number(planes, length)

    if not parts:
        return Operands(Number(np.zeros((1, num_rows), np.uint8)), Number(np.zeros((1, num_rows), np.uint8)))
    a = column([operands.a for _, operands in parts])
    if any(operands.b is None for _, operands in parts):
        return Operands(a, None)
    return Operands(a, column([operands.second for _, operands in parts]))


Wanted = list[tuple[int, int, str, OperandDistribution, int]]  # len a, len b, variant, its distribution, count


def class_cells(settings: TaskSettings, split: str) -> Wanted:
    """Return the cells of a split's classes with the counts that are asked for."""
    own, num, span = machine(settings.task), settings.num, settings.max - settings.min + 1
    if settings.expressions is not None:
        return list(own_expressions(settings.expressions).parts(settings.allow_test))
    wanted: Wanted = []
    for len_a, len_b in own.classes(settings.min, settings.max):
        if split == "stress":
            small = all(part.size(len_a, len_b) <= SMALL for _, _, part in class_parts(own, len_a, len_b))
            for family in families(own):
                if family.applies(len_a, len_b) and (family.reserved or not small):
                    wanted.append((len_a, len_b, family.name, family, settings.num_test))
            continue
        balanced, more = (own.count(len_a, len_b, n, span) if settings.balance else n for n in (num, num + 1))
        if split == "train":
            balanced = _between(settings, balanced, more, f"{len_a} {len_b}")
        if balanced <= 0:
            continue
        left = balanced if split == "train" else settings.num_test
        parts = list(class_parts(own, len_a, len_b))
        shares = sum(share for _, share, _ in parts)
        for name, share, part in parts:  # each rounded up out of what the earlier ones have left
            count = -(-left * share // shares)
            wanted.append((len_a, len_b, name, part, count))
            left, shares = left - count, shares - share
    return wanted


def short_run_cells(settings: TaskSettings, split: str) -> Wanted:
    """Return the cells of the extra expressions that halt soon (of mul and div)."""
    num, own = settings.num if split == "train" else settings.num_test, machine(settings.task)
    if settings.expressions is not None:
        return []
    runs, more = (own.short_runs(settings.min, settings.max, n) for n in (num, num + 1))
    wanted: Wanted = []
    for (len_a, len_b, count, named), (_, _, next_count, _) in zip(runs, more, strict=True):
        if split == "train":
            count = _between(settings, count, next_count, f"{len_a} {len_b} {named}")
        wanted.append((len_a, len_b, "halts_soon", law(named), count))
    return wanted


def _between(settings: TaskSettings, count: int, more: int, part: str) -> int:
    """Return the expressions of a part of a class between those of ``num`` and of ``num + 1``, as a budget asks."""
    if settings.budget is None or more <= count:
        return count
    lot = text_key(f"extra {settings.task} {part}") % MILLION  # who comes first when there is not enough for all
    return count + ((more - count) * settings.budget.extra + lot) // MILLION
