"""How many expressions each class gives, which ones, and that none comes twice."""

from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import product
from math import ceil

import numpy as np
import pytest

from caef_data.pipelines.plan import Config, make_plan
from caef_data.pipelines.sampling.classes import ClassSampler, class_cells, short_run_cells
from caef_data.pipelines.sampling.enumerate_small import resolve
from caef_data.pipelines.sampling.laws import law
from caef_data.pipelines.sampling.split import sides
from caef_data.pipelines.settings import Declaration, TaskSettings
from caef_data.tm import machine
from caef_data.tm.columns import Operands

TASKS = ("add", "div", "equal", "greater_than", "left_mask", "less_than", "mul", "reflection", "sub")
Pair = tuple[int, int]
Expression = tuple[int, int | None]


def lopsided(i: int, j: int) -> bool:
    return min(i, j) > 10 and max(i / j, j / i) > 1.5


def comparisons(i: int, j: int, num: int, span: int) -> int:
    return 10 * num if i <= 5 and j <= 5 else num


def divisions(i: int, j: int, num: int, span: int) -> int:
    return 5 if i < j else {0: 2 * num, 1: 2 * num, 2: 2 * num, 3: num, 4: num // 2, 5: num // 2}.get(i - j, 0)


# Expressions a class (i digits, j digits) by the balance table; classes that a task does not have count 0.
TABLE = {
    "add": lambda i, j, num, span: 10 * num if i <= 10 and j <= 10 else num // 2 if lopsided(i, j) else num,
    "sub": lambda i, j, num, span: (
        0 if j > i else 5 * num if i <= 10 and j < 10 else num // 2 if lopsided(i, j) else num
    ),
    "equal": lambda i, j, num, span: (100 if i <= 10 else 10) * num if i == j else ceil(round(10 * num / span, 9)),
    "greater_than": comparisons,
    "less_than": comparisons,
    "mul": lambda i, j, num, span: 2 * num if i <= 10 or j <= 10 else num,
    "div": divisions,
    "reflection": lambda i, j, num, span: 0 if j > i else 3 * num if i == j else num,
    "left_mask": lambda i, j, num, span: 2 * (num // 2),
}
TOTALS = {
    "add": 170_400,
    "sub": 81_520,
    "equal": 57_800,
    "greater_than": 204_500,
    "less_than": 204_500,
    "mul": 238_000,
    "div": 40_480,
}


def settings(task: str, low: int, high: int, num: int, **more: int | bool) -> TaskSettings:
    return TaskSettings(task=task, min=low, max=high, num=num, **more)  # type: ignore[arg-type]


def resolved(own: TaskSettings, split: str, kind: str = "classes") -> ClassSampler:
    return resolve(own, split, (short_run_cells if kind == "halting" else class_cells)(own, split))


@cache
def cells_of(task: str, low: int, high: int, num: int, split: str = "train", seed: int = 42) -> ClassSampler:
    return resolved(settings(task, low, high, num, seed=seed, num_test=max(1, num // 10)), split)


def pairs_of(operands: Operands) -> list[Expression]:
    b = [None] * len(operands) if operands.b is None else operands.b.integers()
    return list(zip(operands.a.integers(), b, strict=True))


def drawn(cells: ClassSampler) -> list[Expression]:
    return pairs_of(cells.operands(np.arange(cells.num_expressions))[0])


def counts(cells: ClassSampler) -> dict[Pair, int]:
    """Expressions a class, from the cells."""
    total: Counter[Pair] = Counter()
    for a, b, n in zip(cells.len_a.tolist(), cells.len_b.tolist(), cells.count.tolist(), strict=True):
        total[a, b] += n
    return {pair: n for pair, n in total.items() if n}


def length(n: int | None) -> int:
    return 0 if n is None else len(str(n))


@cache
def everything(task: str, len_a: int, len_b: int) -> dict[str, frozenset[Expression]]:
    """Every expression of a short class, by side."""
    found = machine(task)
    numbers = {0: [None], 1: range(10), 2: range(10, 100), 3: range(100, 1000), 4: range(1000, 10_000)}
    first = [10**len_a - 1] if task == "reflection" else numbers[len_a]
    pairs = [(a, b) for a in first for b in numbers[len_b] if a is not None and found.domain_error(a, b or 0) is None]
    shown = sides(task, [str(a) for a, _ in pairs], [None if b is None else str(b) for _, b in pairs])
    return {
        side: frozenset(p for p, s in zip(pairs, shown, strict=True) if s == side)
        for side in ("train", "test", "stress")
    }


def short(task: str, pair: Pair) -> bool:
    """Whether a class is short enough to be counted out."""
    return pair[1] <= 3 if task == "reflection" else sum(pair) <= (4 if task == "left_mask" else 3)


# ---------------------------------------------------------------------------------------------------------- counts


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("low", "high", "num"), [(1, 100, 20), (1, 40, 7), (9, 33, 1), (3, 14, 50)])
def test_train_asks_for_the_balance_tables_counts(task: str, low: int, high: int, num: int) -> None:
    wanted: Counter[Pair] = Counter()
    for len_a, len_b, _, _, count in class_cells(settings(task, low, high, num), "train"):
        wanted[len_a, len_b] += count
    seconds = [0] if task == "left_mask" else range(low, high + 1)
    table = {(i, j): TABLE[task](i, j, num, high - low + 1) for i in range(low, high + 1) for j in seconds}
    if (task, num) == ("left_mask", 1):
        table = dict.fromkeys(table, 1)  # the table's 2 * (num // 2) would leave the task without rows
    assert {pair: n for pair, n in wanted.items() if n} == {pair: n for pair, n in table.items() if n}
    if (low, high, num) == (1, 100, 20) and task in TOTALS:
        assert wanted.total() == TOTALS[task]


@pytest.mark.parametrize("task", TASKS)
def test_train_holds_the_tables_counts_less_what_does_not_exist(task: str) -> None:
    cells = cells_of(task, 1, 100, 20)
    for pair, count in counts(cells).items():
        wanted = TABLE[task](*pair, 20, 100)
        exist = len(everything(task, *pair)["train"]) if short(task, pair) else wanted
        assert count == min(wanted, exist), pair
    if task in TOTALS:
        missing = TOTALS[task] - cells.num_expressions
        assert 0 < missing < 2_500 if task in ("add", "sub", "equal", "greater_than", "less_than") else missing == 0


@pytest.mark.parametrize("task", TASKS)
def test_test_holds_its_own_count_in_every_class_of_train_and_is_never_boosted(task: str) -> None:
    own = settings(task, 1, 24, 20)
    assert own.num_test == 2
    found, train = counts(resolved(own, "test")), counts(resolved(own, "train"))
    assert set(found) == {pair for pair in train if not short(task, pair) or everything(task, *pair)["test"]}
    for pair, count in found.items():
        assert count == min(2, len(everything(task, *pair)["test"]) if short(task, pair) else 2), pair
    many = counts(resolved(settings(task, 11, 13, 20, num_test=33), "test"))
    assert set(many.values()) == {33}


@pytest.mark.parametrize("task", TASKS)
def test_without_balance_every_class_has_num_and_div_has_all_classes(task: str) -> None:
    wanted: Counter[Pair] = Counter()
    own = settings(task, 4, 12, 7, balance=False)
    for len_a, len_b, _, _, count in class_cells(own, "train"):
        wanted[len_a, len_b] += count
    classes = {(i, j) for i in range(4, 13) for j in ([0] if task == "left_mask" else range(4, 13))}
    assert set(wanted) == {p for p in classes if p[1] <= p[0] or task not in ("sub", "reflection")}
    assert set(wanted.values()) == {7}


SHARES = {"equal": {"equal": 1, "different": 1}, "left_mask": {"zeros": 1, "plain": 1}}
SHARES |= dict.fromkeys(("greater_than", "less_than"), {"equal": 2, "greater": 1, "less": 1})
SHARES["reflection"] = {"plain": 16, "leading_nines": 11}


def variant_of(task: str, a: int, b: int | None) -> str:
    if task == "left_mask":
        return "zeros" if str(a)[1:2] == "0" else "plain"
    if task == "reflection":
        return "leading_nines" if str(b)[0] == "9" and length(a) == length(b) else "plain"
    if a == b:
        return "equal"
    return "different" if task == "equal" else "greater" if a > (b or 0) else "less"


@pytest.mark.parametrize("task", sorted(SHARES))
@pytest.mark.parametrize("split", ["train", "test"])
def test_variants_share_a_class_as_declared_and_are_what_they_are_called(task: str, split: str) -> None:
    own = settings(task, 6, 8, 60, num_test=60)
    cells = resolved(own, split)
    operands, variant = cells.operands(np.arange(cells.num_expressions))
    found: dict[Pair, Counter[str]] = {}
    for (a, b), code in zip(pairs_of(operands), variant.tolist(), strict=True):
        assert variant_of(task, a, b) == cells.names[code]
        found.setdefault((length(a), length(b)), Counter())[cells.names[code]] += 1
    for pair, names in found.items():
        if pair[0] == pair[1] or task == "left_mask":
            total = sum(SHARES[task].values())
            for name, share in SHARES[task].items():
                assert abs(names[name] - names.total() * share / total) < 1
        else:
            assert len(names) == 1


def test_variants_that_share_a_law_keep_their_names() -> None:
    wanted = [(5, 5, "short", law("free"), 3), (6, 6, "long", law("free"), 3)]
    cells = resolve(settings("add", 5, 6, 3), "train", wanted)
    operands, variant = cells.operands(np.arange(6))
    assert [cells.names[code] for code in variant.tolist()] == ["short"] * 3 + ["long"] * 3
    assert operands.a.length.tolist() == [5] * 3 + [6] * 3


@pytest.mark.parametrize("task", ["equal", "greater_than", "less_than"])
@pytest.mark.parametrize("count", range(1, 10))
def test_half_of_a_diagonal_class_rounded_up_is_equal_however_few_there_are(task: str, count: int) -> None:
    cells = resolved(settings(task, 20, 22, 20, num_test=count), "test")
    assert set(counts(cells).values()) == {count}
    names = Counter(variant_of(task, a, b) for a, b in drawn(cells) if length(a) == length(b))
    assert names["equal"] == 3 * -(-count // 2)
    if task != "equal":
        assert abs(names["greater"] - names["less"]) <= 3


@pytest.mark.parametrize("task", ["equal", "greater_than", "left_mask", "less_than"])
def test_a_variant_that_runs_short_is_filled_from_the_others_of_its_class(task: str) -> None:
    pair = (3, 0) if task == "left_mask" else (2, 2)
    num = 90 if task == "left_mask" else {"equal": 3, "greater_than": 60, "less_than": 60}[task]
    cells = cells_of(task, pair[0], pair[0], num)
    count = TABLE[task](*pair, num, 1)
    found = Counter(variant_of(task, a, b) for a, b in drawn(cells))
    scarce = "zeros" if task == "left_mask" else "equal"
    exist = Counter(variant_of(task, a, b) for a, b in everything(task, *pair)["train"])
    assert found.total() == count
    assert found[scarce] == min(exist[scarce], -(-count // 2))
    assert found[scarce] < count // 2 or task == "left_mask"


# ------------------------------------------------------------------------------------------ whole classes, no repeats


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("task", TASKS)
def test_small_classes_are_enumerated_whole(task: str, split: str) -> None:
    high = 3 if task == "left_mask" else 2
    own = settings(task, 1, high, 20_000, num_test=20_000)
    found = drawn(resolved(own, split))
    pairs = product(range(1, high + 1), [0] if task == "left_mask" else range(1, high + 1))
    classes = [pair for pair in pairs if TABLE[task](*pair, 20_000, high)]
    asked = {pair: 5 if task == "div" and pair[0] < pair[1] and split == "train" else 10**9 for pair in classes}
    for pair in classes:
        mine = [one for one in found if (length(one[0]), length(one[1])) == pair]
        exist = everything(task, *pair)[split]
        assert len(mine) == len(set(mine)) == min(asked[pair], len(exist))
        assert set(mine) <= exist


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("task", TASKS)
def test_no_expression_comes_twice(task: str, split: str) -> None:
    for low, high, num in ((1, 3, 400), (2, 4, 1_000), (3, 3, 37), (16, 22, 60), (99, 100, 500)):
        own = settings(task, low, high, num, num_test=num)
        cells = resolved(own, split)
        found = drawn(cells)
        assert len(found) == cells.num_expressions > 30
        assert len(set(found)) == len(found)


@pytest.mark.parametrize("view", ["aligner", "full"])
@pytest.mark.parametrize("task", ["mul", "div"])
def test_no_expression_of_mul_and_div_comes_twice_in_views_that_add_short_runs(task: str, view: str) -> None:
    for low, high, split in product((1, 15), (16, 20), ("train", "test")):
        own = settings(task, low, high, 40, num_test=15)
        own = TaskSettings(**{**own.to_dict(), "splits": (split,), "views": (view,)})  # type: ignore[arg-type]
        config = make_plan(Declaration(name="short", tasks=(own,))).configs[0]
        found = pairs_of(config.population.operands(np.arange(len(config.population)))[0])
        assert len(set(found)) == len(found) > 50


@pytest.mark.parametrize("task", ["mul", "div"])
@pytest.mark.parametrize("limit", [5, 20, 44])
def test_short_runs_longer_than_max_steps_get_no_rows_of_whole_runs(task: str, limit: int) -> None:
    def configs(max_steps: int) -> dict[str, Config]:
        own = replace(settings(task, 1, 3, 40), splits=("train",), views=("full", "aligner"), max_steps=max_steps)
        plan = make_plan(Declaration(name="short", tasks=(own,)))
        notes.extend(plan.notes)
        return {one.view: one for one in plan.configs}

    notes: list[str] = []
    every, some = (configs(steps)["full"] for steps in (10_000, limit))
    assert not notes or notes[0].endswith("and get no rows of whole runs") and f"within {limit} steps" in notes[0]
    rows, kept = (one.render(np.arange(len(one.population))).to_pylist() for one in (every, some))
    right = {(row["a"], row["b"]) for row in rows if row["n_steps"] <= limit}
    assert {(row["a"], row["b"]) for row in kept} == right != set() and len(kept) == len(right)
    assert (len(right) < len(rows)) == bool(notes)
    assert len(configs(limit)["aligner"].population) == len(configs(10_000)["aligner"].population)


@pytest.mark.parametrize("split", ["train", "test", "stress"])
@pytest.mark.parametrize("task", TASKS)
def test_an_expression_is_a_function_of_its_number_alone(task: str, split: str) -> None:
    for low, high in ((1, 3), (9, 11), (19, 22), (100, 100)):
        cells = cells_of(task, low, high, 40, split)
        total = cells.num_expressions
        operands, variant = cells.operands(np.arange(total))
        everyone = list(zip(pairs_of(operands), variant.tolist(), strict=True))
        order = np.random.default_rng(5).integers(0, total, 60)  # some twice
        for numbers in (order, np.sort(order), order[:1], np.arange(total)[::-7]):
            some, names = cells.operands(numbers)
            assert list(zip(pairs_of(some), names.tolist(), strict=True)) == [everyone[n] for n in numbers.tolist()]


@pytest.mark.parametrize("task", TASKS)
def test_another_seed_draws_other_expressions_of_the_same_classes(task: str) -> None:
    one, other = cells_of(task, 12, 14, 40), cells_of(task, 12, 14, 40, seed=43)
    assert counts(one) == counts(other)
    common = set(drawn(one)) & set(drawn(other))  # few numbers begin with all the nines that are wanted
    assert sum(variant_of(task, a, b) != "leading_nines" for a, b in common) < 3


@pytest.mark.parametrize("task", TASKS)
def test_every_expression_is_one_of_its_task_and_class(task: str) -> None:
    found = machine(task)
    for split, (low, high) in product(("train", "test"), ((1, 4), (17, 20))):
        cells = cells_of(task, low, high, 30, split)
        where, _ = cells.of(np.arange(cells.num_expressions))
        lengths = zip(cells.len_a[where].tolist(), cells.len_b[where].tolist(), strict=True)
        for (a, b), pair in zip(drawn(cells), lengths, strict=True):
            assert found.domain_error(a, b or 0) is None
            assert (length(a), length(b)) == pair
