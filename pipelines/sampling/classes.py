"""Which expressions a split of a task holds: the classes' counts, and every expression by its number.

A cell is a part of a class (one variant) or a stress family in a class. The i-th expression of a cell is a pure
function of (seed, task, cell, i): in large cells the first of candidates ``4096 * i, 4096 * i + 1 ...`` that lies on
the split's side, in small ones the i-th such candidate of a permutation of the whole cell.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...tm import machine
from ...tm.classes import OperandDistribution
from ...tm.columns import I64, Bool, Number, Operands
from ...tm.machine import Machine
from ..settings import TaskSettings
from ..versions import SAMPLING_VERSION
from .index_space import GROUP, INDEX_DIGITS, TRIES, fits, index_number, index_places
from .index_space import candidates as drawn
from .laws import class_parts
from .laws import law as law_of
from .random import U64, splitmix64, text_key
from .split import (
    CUT,
    PAIR,
    SIDES,
    SMALL,
    STRESS_CUT,
    digit_keys,
    digit_sums,
    expression_hash,
    hash_of_sums,
    side_codes,
)
from .stress import families

TOGETHER = 20_000  # expressions whose digits are looked at together
AHEAD = 8  # attempts looked at together when one in ten is wanted


@dataclass(frozen=True, eq=False)
class ClassSampler:
    """The cells of one split of a task, as columns of shape (cells,).

    Args:
        task: name of the task.
        split: train, test or stress.
        seed: seed of the sampling.
        laws: the laws that occur.
        names: the variant of each law.
        law: index of each cell's law.
        len_a: digits of a.
        len_b: digits of b, 0 for one operand.
        count: expressions of each cell, those that really exist.
        scanned: whether a cell's expressions are listed in ``found``, from ``first`` on.
        found: candidate numbers of the expressions of scanned cells.
    """

    task: str
    split: str
    seed: int
    laws: tuple[OperandDistribution, ...]
    names: tuple[str, ...]
    law: I64
    len_a: I64
    len_b: I64
    count: I64
    scanned: Bool
    first: I64
    found: U64

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

    def classes(self, numbers: I64 | None = None) -> dict[tuple[int, int], int]:
        """Return how many expressions each class (len a, len b) has, of these numbers or of all."""
        total: Counter[int] = Counter()
        for len_a, len_b, count in self._lengths(numbers):
            pairs, place = np.unique(len_a * PAIR + len_b, return_inverse=True)
            for pair, n in zip(pairs.tolist(), np.bincount(place, weights=count).tolist(), strict=True):
                total[pair] += int(n)
        return {(pair // PAIR, pair % PAIR): n for pair, n in sorted(total.items()) if n}

    def _lengths(self, numbers: I64 | None) -> Iterator[tuple[I64, I64, I64]]:
        """Yield columns of lengths of a, lengths of b, and how many expressions have them."""
        if (self.len_a > 0).all():
            own = self.count if numbers is None else np.bincount(self.of(numbers)[0], minlength=len(self.count))
            yield self.len_a, self.len_b, own
            return
        numbers = np.arange(self.num_expressions) if numbers is None else numbers
        for start in range(0, len(numbers), TOGETHER):  # cells that leave the length of a to the draw
            operands, _ = self.operands(numbers[start : start + TOGETHER])
            yield operands.a.length, operands.second.length, np.ones(len(operands), np.int64)

    @cached_property
    def keys(self) -> U64:
        """A 64-bit key of each cell."""
        return cell_keys(self.task, self.seed, self.names, self.law, self.len_a, self.len_b)

    def of(self, numbers: I64) -> tuple[I64, I64]:
        """Return the cell of each expression number, and the expression's number in its cell."""
        cell = np.searchsorted(self.start, numbers, "right") - 1
        return cell, numbers - self.start[cell]

    @cached_property
    def indexed(self) -> Bool:
        """Whether each cell's candidates are numbered as a whole, so that none comes twice."""
        indexed = np.zeros(len(self.law), np.bool_)
        for at, one in enumerate(self.laws):
            mine = np.flatnonzero(self.law == at)
            indexed[mine] = fits(one, self.len_a[mine], self.len_b[mine])
        return indexed

    def operands(self, numbers: I64) -> tuple[Operands, I64]:
        """Return the expressions of these numbers, and the index of each one's variant in ``names``."""
        cell, index = self.of(numbers)
        law, parts = self.law[cell], list[tuple[I64, Operands]]()
        kind = 4 * law + 2 * self.scanned[cell] + self.indexed[cell]
        for one in np.unique(kind).tolist():
            rows = np.flatnonzero(kind == one)
            own, indexed = cell[rows], bool(one & 1)
            if one & 2:
                counter = self.found[self.first[own] + index[rows]]
                parts.append((rows, self.candidates(one // 4, own, counter, indexed)[0]))
            else:
                parts.append((rows, self._first_on_side(one // 4, own, index[rows], indexed)))
        return merged(parts, len(numbers)), law

    def candidates(self, law: int, cell: I64, counter: U64, indexed: bool) -> tuple[Operands, Bool]:
        """Return candidates and which of them are expressions of their cell (on any side)."""
        one = self.laws[law]
        lengths = self.len_a[cell], self.len_b[cell]
        draw = drawn(one, self.keys[cell], counter, *lengths, indexed=indexed)
        return one.shape(draw)

    def _first_on_side(self, law: int, cell: I64, index: I64, indexed: bool) -> Operands:
        """Return the first candidate of each expression that lies on the split's side."""
        parts: list[tuple[I64, Operands]] = []
        todo = np.arange(len(cell))
        attempt, stride = np.zeros(len(cell), np.int64), np.ones(len(cell), np.int64)
        rare = self.split == "test" and not indexed and type(self.laws[law]).shape is OperandDistribution.shape
        jump = 1 if indexed else GROUP
        together = 1 if rare or self.split == "train" else AHEAD  # has no say in what is found
        while len(todo):
            if rare:  # most candidates of a test split fall through: look for the next likely ones first
                attempt[todo] = self._likely(law, cell[todo], index[todo], attempt[todo])
            if (attempt[todo] >= TRIES).any():
                raise RuntimeError(f"{self.task}: no expression of {self.split} in {TRIES} candidates")
            rows = np.repeat(todo, together)
            tried = attempt[todo][:, None] + np.arange(together) * stride[todo][:, None]
            number = (index[rows] * TRIES + tried.reshape(-1)).astype(np.uint64)
            operands, lawful = self.candidates(law, cell[rows], number, indexed)
            placed = (lawful & on_side(self.machine, operands, self.split)).reshape(-1, together)
            # One after the other: what the law refuses (a < b, say) its group's other candidates hardly mend, so the
            # next group's first one follows; what lies on another side is followed by its neighbour.
            refused = ~lawful.reshape(-1, together)
            by_groups = stride[todo] > 1
            ends = np.where(by_groups[:, None], ~refused, placed | refused)
            first = np.where(ends.any(axis=1), ends.argmax(axis=1), together)
            last = np.minimum(first, together - 1)
            here = np.arange(len(todo))
            done = placed[here, last]
            if together == 1 and done.all() and not parts:
                return operands
            parts.append((todo[done], operands.take(np.flatnonzero(done) * together + last[done])))
            reached = attempt[todo] + first * stride[todo]
            to_group = np.where(by_groups, first == together, (first < together) & refused[here, last])
            onward = np.where(by_groups & ~to_group, reached + 1, reached)
            attempt[todo] = np.where(to_group & ~by_groups, (reached // jump + 1) * jump, onward)
            stride[todo] = np.where(to_group, jump, 1)
            todo = todo[~done]
            together = 1 if rare else AHEAD
        return merged(parts, len(cell))

    def _likely(self, law: int, cell: I64, index: I64, attempt: I64) -> I64:
        """Return the first attempt from ``attempt`` on whose hash is one of the test split.

        The attempts of a group differ in their index digits only, so the hash's sums differ by these alone. What is
        found is a suggestion, the next group's first attempt where there is none: the candidate is drawn and checked.
        """
        one, keys = self.laws[law], self.keys[cell]
        len_a, len_b = self.len_a[cell], self.len_b[cell]
        group = attempt // GROUP * GROUP
        counter = (index * TRIES + group).astype(np.uint64)
        blank = drawn(one, keys, counter, len_a, len_b, indexed=False, blank=True)
        operands, _ = one.shape(blank)
        sum_a = digit_sums(operands.a)
        sum_b = None if operands.b is None else digit_sums(operands.b)
        in_a = index_places(one, len_a)[:, None]
        place = np.arange(INDEX_DIGITS)
        table = digit_keys(INDEX_DIGITS)
        zero = np.uint64(0)
        weight_a = np.where(place < in_a, table, zero)
        weight_b = np.where(place >= in_a, table[np.maximum(place - in_a, 0)], zero)
        found, todo = attempt.copy(), np.arange(len(cell))
        while len(todo):
            rows = np.repeat(todo, AHEAD)
            tried = (found[todo][:, None] + np.arange(AHEAD)).reshape(-1)
            low = index_number(counter[rows] + (tried - group[rows]).astype(np.uint64), keys[rows])
            a = sum_a[rows]
            b = None if sum_b is None else sum_b[rows]
            for k in range(INDEX_DIGITS):
                above = low // np.uint64(10)
                digit = low - above * np.uint64(10)
                low = above
                a += digit * weight_a[rows, k]
                if b is not None:
                    b += digit * weight_b[rows, k]
            hashes = hash_of_sums(self.machine, a, b).reshape(len(todo), AHEAD)
            likely = (hashes < np.uint64(CUT)) & (hashes >= np.uint64(STRESS_CUT))
            hit = likely.any(axis=1)
            found[todo] += np.where(hit, likely.argmax(axis=1), AHEAD)
            todo = todo[~hit & (found[todo] < group[todo] + GROUP)]
        return np.minimum(found, group + GROUP)


def on_side(found: Machine, operands: Operands, split: str) -> Bool:
    """Tell which expressions stand in a split."""
    return side_codes(found, operands, expression_hash(found, operands)) == SIDES.index(split)


def cell_keys(task: str, seed: int, names: tuple[str, ...], law: I64, len_a: I64, len_b: I64) -> U64:
    """Return a 64-bit key of each cell."""
    texts = [f"cell {SAMPLING_VERSION} {seed} {task} {name} {names[:at].count(name)}" for at, name in enumerate(names)]
    base = np.array([text_key(text) for text in texts], np.uint64)
    lengths = (len_a.astype(np.uint64) << np.uint64(32)) + len_b.astype(np.uint64)
    return splitmix64(base[law] + splitmix64(lengths))


def merged(parts: list[tuple[I64, Operands]], num_rows: int) -> Operands:
    """Put parts at their rows."""
    if len(parts) == 1 and len(parts[0][0]) == num_rows and (np.diff(parts[0][0]) == 1).all():
        return parts[0][1]

    def column(numbers: list[Number]) -> Number:
        width = max((number.width for number in numbers), default=1)
        planes = np.zeros((width, num_rows), np.uint8)
        length = np.ones(num_rows, np.int64)
        for (rows, _), number in zip(parts, numbers, strict=True):
            planes[: number.width, rows] = number.planes
            length[rows] = number.length
        return Number(planes, length)

    a = column([operands.a for _, operands in parts])
    if any(operands.b is None for _, operands in parts):
        return Operands(a, None)
    return Operands(a, column([operands.second for _, operands in parts]))


Wanted = list[tuple[int, int, str, OperandDistribution, int]]  # len a, len b, variant, law, count


def class_cells(settings: TaskSettings, split: str) -> Wanted:
    """Return the cells of a split's classes with the counts that are asked for."""
    found = machine(settings.task)
    wanted: Wanted = []
    span = settings.max - settings.min + 1
    for len_a, len_b in found.classes(settings.min, settings.max):
        if split == "stress":
            small = all(law.size(len_a, len_b) <= SMALL for _, _, law in class_parts(found, len_a, len_b))
            for family in families(found):
                if family.applies(len_a, len_b) and (family.reserved or not small):
                    wanted.append((len_a, len_b, family.name, family, settings.num_test))
            continue
        balanced = found.count(len_a, len_b, settings.num, span) if settings.balance else settings.num
        if balanced <= 0:
            continue
        left = balanced if split == "train" else settings.num_test
        variants = list(class_parts(found, len_a, len_b))
        shares = sum(share for _, share, _ in variants)
        for name, share, law in variants:  # each rounded up out of what the earlier ones have left
            own = -(-left * share // shares)
            wanted.append((len_a, len_b, name, law, own))
            left, shares = left - own, shares - share
    return wanted


def short_run_cells(settings: TaskSettings, split: str) -> Wanted:
    """Return the cells of the extra expressions that halt soon (of mul and div)."""
    num = settings.num if split == "train" else settings.num_test
    runs = machine(settings.task).short_runs(settings.min, settings.max, num)
    return [(len_a, len_b, "halts_soon", law_of(law), count) for len_a, len_b, count, law in runs]
