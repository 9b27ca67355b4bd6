"""How operands are distributed, and which steps of a run are kept."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from caef_data.pipelines.sampling.classes import ClassSampler, class_cells, short_run_cells
from caef_data.pipelines.sampling.enumerate_small import resolve
from caef_data.pipelines.sampling.steps import sampled_rows
from caef_data.pipelines.settings import TaskSettings
from caef_data.tm import machine
from caef_data.tm.columns import Number, Operands

# Upper points of the chi-square distribution by degrees of freedom: exceeded once in 10,000 tables by chance. The
# samples are functions of their seed, so a test passes always or never.
CHI2 = {
    1: 15.14,
    3: 21.11,
    7: 29.88,
    8: 31.83,
    9: 33.72,
    12: 39.13,
    14: 42.58,
    19: 50.80,
    39: 80.08,
    89: 147.35,
    99: 160.06,
}
TASKS = ("add", "div", "equal", "greater_than", "left_mask", "less_than", "mul", "reflection", "sub")


def chi_square(found: Sequence[float], expected: Sequence[float] | None = None) -> bool:
    """Whether counts are those of equally likely outcomes, or of outcomes as likely as ``expected`` says."""
    share = np.array([1.0] * len(found) if expected is None else expected)
    wanted = share / share.sum() * sum(found)
    assert wanted.min() >= 5
    return bool(((np.array(found) - wanted) ** 2 / wanted).sum() < CHI2[len(found) - 1])


def cells_of(
    task: str, low: int, high: int, num: int, split: str, seed: int = 42, kind: str = "classes"
) -> ClassSampler:
    own = TaskSettings(task=task, min=low, max=high, num=num, num_test=num, seed=seed)
    return resolve(own, split, (short_run_cells if kind == "halting" else class_cells)(own, split))


def drawn(cells: ClassSampler) -> tuple[list[str], list[str]]:
    operands = cells.operands(np.arange(cells.num_expressions))[0]
    return operands.a.decimals(), [] if operands.b is None else operands.b.decimals()


def counted(values: Iterable[object], outcomes: Sequence[object]) -> list[int]:
    found = Counter(values)
    assert set(found) <= set(outcomes)
    return [found[one] for one in outcomes]


def free_operands(task: str, split: str) -> list[list[str]]:
    """Operands of one length that the task's law leaves free, by operand."""
    num = 3_000 if split == "train" else 2_000
    if task == "reflection":
        a, b = drawn(cells_of(task, 29, 30, num, split))
        return [[y for x, y in zip(a, b, strict=True) if len(x) == 30 and len(y) == 29]]
    a, b = drawn(cells_of(task, 30, 30, num, split))
    if task == "left_mask":
        return [[x for x in a if x[1] != "0"]]
    if task in ("equal", "greater_than", "less_than", "sub"):
        both = [(x, y) for x, y in zip(a, b, strict=True) if x != y]
        if task == "sub":  # a >= b makes a larger on average: the two together are as free as before
            return [[one for pair in both for one in pair]]
        return [[x for x, _ in both if task == "equal"] or [one for pair in both for one in pair]]
    return [a, b]


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("task", TASKS)
def test_digits_of_long_operands_are_uniform_and_independent(task: str, split: str) -> None:
    for numbers in free_operands(task, split):
        assert len(numbers) >= 1_000
        digits = np.array([[int(digit) for digit in number] for number in numbers])
        assert chi_square(counted(digits[:, 0].tolist(), range(1, 10)))
        first = 2 if task == "left_mask" else 1
        for place in range(first, digits.shape[1]):
            assert chi_square(counted(digits[:, place].tolist(), range(10))), place
        for apart in (1, 2, 7, 16):
            pairs = digits[:, first:-apart] * 10 + digits[:, first + apart :]
            assert chi_square(counted(pairs.reshape(-1).tolist(), range(100))), apart


@pytest.mark.parametrize(
    ("task", "low", "high"), [("add", 2, 2), ("mul", 2, 2), ("div", 2, 2), ("add", 3, 3), ("add", 9, 9)]
)
def test_first_draws_of_short_classes_are_uniform_over_the_seeds(task: str, low: int, high: int) -> None:
    tens: list[int] = []
    units: list[int] = []
    for seed in range(120):
        for numbers in drawn(cells_of(task, low, high, 2, "train", seed)):
            tens += [int(number[0]) for number in numbers]
            units += [int(number[-1]) for number in numbers]
    assert len(tens) >= 900
    assert chi_square(counted(tens, range(1, 10)))
    assert chi_square(counted(units, range(10)))


def test_both_operands_of_a_pair_are_drawn_independently() -> None:
    a, b = drawn(cells_of("add", 40, 40, 4_000, "train"))
    for place in (-1, -17, -18, -39):
        pairs = [int(x[place]) * 10 + int(y[place]) for x, y in zip(a, b, strict=True)]
        assert chi_square(counted(pairs, range(100))), place


def test_a_of_sub_is_the_larger_of_two_free_numbers() -> None:
    a, b = drawn(cells_of("sub", 25, 25, 4_000, "train"))
    assert all(int(x) >= int(y) for x, y in zip(a, b, strict=True))
    larger = [2 * digit - 1 for digit in range(1, 10)]  # of two digits 1..9, how often the larger one is d
    assert chi_square(counted([int(x[0]) for x in a], range(1, 10)), larger)
    assert chi_square(counted([int(x[0]) for x in b], range(1, 10)), larger[::-1])


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("length", [30, 60])
def test_extra_zeros_and_nines_are_uniform_in_number_and_free_behind(length: int, split: str) -> None:
    a, _ = drawn(cells_of("left_mask", length, length, 2_000, split))
    zeros = [(len(x) - 1 - len(x[1:].lstrip("0")), x) for x in a if x[1] == "0"]
    _, b = drawn(cells_of("reflection", length, length, 800, split))
    nines = [(len(y) - len(y.lstrip("9")), y) for y in b if y[0] == "9"]
    assert abs(len(nines) / len(b) - 11 / 27) < 0.01
    for found in (zeros, nines):
        # The longest runs are left out: there are too few of them to be drawn without repeats.
        depths = [(depth - 1) * 10 // (length - 10) for depth, _ in found if depth <= length - 10]
        assert chi_square(counted(depths, range(10)))
        middle = [int(text[length // 2]) for depth, text in found if depth < length // 2 - 1]
        assert chi_square(counted(middle, range(10)))


def test_the_few_zeros_and_nines_of_one_class_differ_in_number_and_digits() -> None:
    for task, mark in (("left_mask", "0"), ("reflection", "9")):
        a, b = drawn(cells_of(task, 40, 59, 20, "train"))
        texts = [y for x, y in zip(a, b, strict=True) if len(x) == len(y)] if b else [x[1:] for x in a]
        bent = [text for text in texts if text[0] == mark]
        for length in {len(text) for text in bent}:
            mine = [text for text in bent if len(text) == length]
            assert len(mine) >= 10
            assert len({length - len(text.lstrip(mark)) for text in mine}) > 3
            rests = [text.lstrip(mark)[1:7] for text in mine if len(text.lstrip(mark)) > 25]
            assert len(set(rests)) == len(rests)


# --------------------------------------------------------------------------------------------- runs that halt soon


@pytest.mark.parametrize("split", ["train", "test"])
def test_short_runs_of_mul_have_b_uniform_in_1_to_15(split: str) -> None:
    cells = cells_of("mul", 5, 40, 30, split, kind="halting")
    a, b = drawn(cells)
    assert Counter(len(x) for x in a) == dict.fromkeys(range(5, 41), 60)
    assert chi_square(counted([int(y) for y in b], range(1, 16)))
    assert chi_square(counted([int(x[0]) for x in a], range(1, 10)))
    assert chi_square(counted([int(x[-1]) for x in a], range(10)))


@pytest.mark.parametrize("split", ["train", "test"])
def test_short_runs_of_div_have_quotients_2_and_3_and_1_to_15_with_any_remainder(split: str) -> None:
    a, b = drawn(cells_of("div", 12, 40, 30, split, kind="halting"))
    assert Counter(len(y) for y in b) == dict.fromkeys(range(12, 41), 120)
    quotients = [int(x) // int(y) for x, y in zip(a, b, strict=True)]
    expected = [1 / 15 + (0.5 if quotient in (2, 3) else 0) for quotient in range(1, 16)]
    assert chi_square(counted(quotients, range(1, 16)), expected)
    assert chi_square(counted([int(x) % int(y) * 10 // int(y) for x, y in zip(a, b, strict=True)], range(10)))
    assert chi_square(counted([int(y[0]) for y in b], range(1, 10)))


@pytest.mark.parametrize(("task", "longest"), [("mul", 44), ("div", 47)])
def test_short_runs_halt_soon_whatever_the_range(task: str, longest: int) -> None:
    for low, high in ((1, 3), (6, 6), (99, 100)):
        a, b = drawn(cells_of(task, low, high, 20, "test", kind="halting"))
        steps = [machine(task).num_steps(int(x), int(y)) for x, y in zip(a, b, strict=True)]
        assert len(steps) > 20
        assert max(steps) <= longest == machine(task).max_short_run and min(steps) >= 2


# -------------------------------------------------------------------------------------------------- the steps kept

# task -> runs of at most so many steps are whole; fixed rows of longer ones; (lowest, highest, how many) random ones
KEPT = {
    "add": (5, lambda t, n, z: {0, t - 1, t - 2}, lambda t, n, z: [(1, t - 3, 4)]),
    "equal": (5, lambda t, n, z: {0, t - 1, t - 2, t - 3}, lambda t, n, z: [(1, t - 4, 5)]),
    "greater_than": (5, lambda t, n, z: {0, t - 1}, lambda t, n, z: [(1, t - 2, 3)]),
    "less_than": (5, lambda t, n, z: {0, t - 1, t - 2}, lambda t, n, z: [(1, t - 3, 4)]),
    "reflection": (10, lambda t, n, z: {0, t - 1, n, n + 1}, lambda t, n, z: [(1, n - 1, 4), (n + 2, t - 2, 3)]),
    "left_mask": (5, lambda t, n, z: {0, t - 1}, lambda t, n, z: [(1, t - 2, 3)]),
    "sub": (5, lambda t, n, z: set(), lambda t, n, z: []),
    "mul": (10, lambda t, n, z: {0, t - 1}, lambda t, n, z: [(1, t - 2, 3)]),
    "div": (10, lambda t, n, z: {0, t - 1}, lambda t, n, z: [(1, t - 2, 3)]),
}  # fmt: skip


def kept_steps(task: str, operands: Operands, salt: int = 0) -> list[list[int]]:
    """The steps kept of each expression, as the pipelines sample them."""
    batch = machine(task).batch(operands, "consistent")
    key = np.arange(len(operands), dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(salt)
    rows = sampled_rows(batch, key)
    if task in ("mul", "div"):
        turns = zip(rows.index.turn.integers(), rows.index.at.tolist(), strict=True)
        steps = [3 * turn + at - 2 for turn, at in turns]
    else:
        steps = batch.steps(rows).tolist()
    kept: list[list[int]] = [[] for _ in range(len(operands))]
    for row, step in zip(rows.expression.tolist(), steps, strict=True):
        kept[row].append(step)
    return kept


@pytest.mark.parametrize("task", TASKS)
def test_kept_steps_are_the_fixed_ones_and_as_many_distinct_random_ones_from_between(task: str) -> None:
    found = machine(task)
    for low, high in ((1, 6), (7, 12), (60, 62)):
        cells = cells_of(task, low, high, 25, "train")
        operands = cells.operands(np.arange(cells.num_expressions))[0]
        b = [0] * len(operands) if operands.b is None else operands.b.integers()
        for (x, y), kept in zip(zip(operands.a.integers(), b, strict=True), kept_steps(task, operands), strict=True):
            total, n = found.num_steps(x, y), len(str(x))
            whole, fixed, ranges = KEPT[task]
            assert len(kept) == len(set(kept)), (x, y, kept)
            if total <= whole:
                assert sorted(kept) == list(range(total)), (x, y)
                continue
            always, zeros = fixed(total, n, 0), total - n - 3
            random = set(kept) - always
            assert always <= set(kept), (x, y)
            parts = [(a, z, count) for a, z, count in ranges(total, n, zeros) if z >= a]
            for lowest, highest, count in parts:
                mine = {step for step in random if lowest <= step <= highest}
                room = len(set(range(lowest, highest + 1)) - always) if highest < 10_000 else count
                assert len(mine) == min(count, room), (x, y, sorted(kept))
                random -= mine
            assert not random, (x, y, sorted(kept))


def repeated(a: int, b: int | None, count: int) -> Operands:
    return Operands(Number.of([a] * count), None if b is None else Number.of([b] * count))


RUNS = {
    "add": (10**99, 7 * 10**98, range(1, 100)),
    "equal": (10**99, 10**99, range(1, 99)),
    "greater_than": (10**99, 10**99, range(1, 101)),
    "less_than": (10**99, 10**99, range(1, 100)),
    "left_mask": (10**99 + 5 * 10**98, None, range(1, 102)),
}


@pytest.mark.parametrize("task", sorted(RUNS))
def test_random_steps_of_a_run_are_uniform_over_the_inner_ones(task: str) -> None:
    a, b, inner = RUNS[task]
    total = machine(task).num_steps(a, b or 0)
    fixed = KEPT[task][1](total, 100, 0)
    kept = kept_steps(task, repeated(a, b, 4_000))
    steps = [step for own in kept for step in own if step not in fixed]
    assert set(steps) == set(inner)
    size = len(inner) // 20 * 20
    assert chi_square(counted([(s - inner[0]) * 20 // size for s in steps if s - inner[0] < size], range(20)))


def test_random_steps_of_reflection_cover_writing_and_stripping() -> None:
    a, b = 10**100 - 1, 10**100 - 10**40  # 60 zeros to strip
    kept = kept_steps("reflection", repeated(a, b, 4_000))
    first = [step for own in kept for step in own if 1 <= step < 100]
    second = [step for own in kept for step in own if 102 <= step <= 161]
    assert len(first) == 16_000 and len(second) == 12_000
    assert chi_square(counted([(s - 1) * 20 // 80 for s in first if s <= 80], range(20)))
    assert chi_square(counted([(s - 102) * 8 // 56 for s in second if s < 158], range(8)))


@pytest.mark.parametrize("task", ["mul", "div"])
def test_random_steps_of_a_long_loop_are_one_uniform_and_two_log_uniform_in_the_turn(task: str) -> None:
    length, count = 41, 3_000
    turns = 10 ** (length - 1)
    a, b = (7, turns) if task == "mul" else (7 * (turns - 1), 7)
    kept = kept_steps(task, repeated(a, b, count))
    assert all(len(own) == 5 for own in kept)
    inner = [(step + 2) // 3 for own in kept for step in own if step not in (0, 3 * turns - 2)]
    assert len(inner) == 3 * count
    # 40 decades below the limit, each as likely as the next for two of three draws; the uniform one meets the highest
    decades = counted([len(str(turn)) for turn in inner], range(1, 41))
    assert chi_square(decades, [2 / 40] * 38 + [2 / 40 + 0.09, 2 / 40 + 0.9])
    small = [turn for turn in inner if turn <= 9]
    assert set(small) == set(range(1, 10))
    middle = [int(str(turn)[0]) for turn in inner if 3 < len(str(turn)) < 38]
    assert chi_square(counted(middle, range(1, 10)), [np.log10(1 + 1 / digit) for digit in range(1, 10)])
    steps = counted([step % 3 for own in kept for step in own if 0 < step < 3 * turns - 2], range(3))
    assert chi_square([steps[0] + steps[1], steps[2]], [2, 1])


def test_kept_steps_depend_on_the_expressions_key_alone() -> None:
    operands = repeated(10**50, 10**50, 30)
    for task in ("add", "equal", "mul", "div"):
        assert kept_steps(task, operands) == kept_steps(task, operands)
        assert kept_steps(task, operands) != kept_steps(task, operands, salt=1) or task == "div"
        assert kept_steps(task, repeated(10**50, 10**50, 10)) == kept_steps(task, operands)[:10]
