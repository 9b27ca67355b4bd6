"""The stress families: each has the property that it names, counted out with Python integers."""

from collections import Counter
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from caef_data.pipelines.declaration import from_flags, load_declaration
from caef_data.pipelines.plan import make_plan
from caef_data.pipelines.sampling.split import sides
from caef_data.pipelines.sampling.stress import families
from caef_data.tm import machine
from caef_data.tm.columns import Number, Operands

TASKS = ("add", "div", "equal", "greater_than", "left_mask", "less_than", "mul", "reflection", "sub")
NUM = 10


def near(n: int, length: int) -> bool:
    """A number of this length is a power of ten or a neighbour of one (0 is not counted)."""
    return n in (10 ** (length - 1), 10 ** (length - 1) + 1, 10**length - 1)


def all_nines(a: int, b: int | None) -> bool:
    return set(f"{a}{'' if b is None else b}") == {"9"}


def power_of_ten(a: int, b: int | None) -> bool:
    return near(a, len(str(a))) and (b is None or near(b, len(str(b)))) and not all_nines(a, b)


def equal_operands(a: int, b: int) -> bool:
    return a == b


def differ_lowest(a: int, b: int) -> bool:
    return a != b and a // 10 == b // 10


def differ_highest(a: int, b: int) -> bool:
    top = 10 ** (len(str(a)) - 1)
    return len(str(a)) == len(str(b)) and a != b and a % top == b % top


def carry_chain(a: int, b: int) -> bool:
    longest = max(len(str(a)), len(str(b)))
    return all(a % 10**k + b % 10**k >= 10**k for k in range(1, longest + 1))


def longer_result(a: int, b: int) -> bool:
    return len(str(a + b)) > max(len(str(a)), len(str(b)))


def borrow_chain(a: int, b: int) -> bool:
    return a >= b and all(a % 10**k < b % 10**k for k in range(1, len(str(a))))


def shorter_difference(a: int, b: int) -> bool:
    half = 10 ** (len(str(a)) // 2)
    return len(str(a)) == len(str(b)) and a // half == b // half and 0 < a - b < half


def shorter_complement(a: int, b: int) -> bool:
    return a - b < 10 ** (len(str(b)) // 2) and len(str(a)) == len(str(b)) >= 3


def shorter_rest(a: int, b: None) -> bool:
    return a % 10 ** (len(str(a)) - 1) < 10 ** (len(str(a)) // 2) and len(str(a)) >= 3


Property = Callable[..., bool]
RESERVED: dict[str, Property] = {"all_nines": all_nines, "power_of_ten": power_of_ten}
PAIRS = RESERVED | {p.__name__: p for p in (equal_operands, differ_lowest, differ_highest)}
PROPERTIES: dict[str, dict[str, Property]] = dict.fromkeys(TASKS, PAIRS)
PROPERTIES["add"] = PAIRS | {"carry_chain": carry_chain, "longer_result": longer_result}
PROPERTIES["sub"] = PAIRS | {"borrow_chain": borrow_chain, "shorter_result": shorter_difference}
PROPERTIES["reflection"] = RESERVED | {"shorter_result": shorter_complement}
PROPERTIES["left_mask"] = RESERVED | {"shorter_result": shorter_rest}
Row = tuple[int, int | None, str]


@cache
def stress(task: str, low: int, high: int, seed: int = 42) -> tuple[Row, ...]:
    """Every expression of the stress split with its family, from the widest view."""
    plan = make_plan(
        from_flags([task], min=low, max=high, num_test=NUM, splits=["stress"], views=["one_step"], seed=seed)
    )
    population = plan.configs[0].population
    operands, variant = population.operands(np.arange(len(population)))
    b = [None] * len(operands) if operands.b is None else operands.b.integers()
    names = [population.names[code] for code in variant.tolist()]
    return tuple(zip(operands.a.integers(), b, names, strict=True))


RANGES = ((1, 7), (18, 21), (60, 61), (100, 100))


@pytest.mark.parametrize("task", TASKS)
def test_every_expression_has_the_property_that_its_family_names(task: str) -> None:
    for low, high in RANGES:
        rows = stress(task, low, high)
        wrong = [row for row in rows if not PROPERTIES[task][row[2]](row[0], row[1])]
        assert not wrong, wrong[:3]
        lengths = {len(str(n)) for a, b, _ in rows for n in (a, b) if n is not None}
        assert lengths <= set(range(low, high + 1))
    assert {name for low, high in RANGES for *_, name in stress(task, low, high)} == set(PROPERTIES[task])


@pytest.mark.parametrize("task", TASKS)
def test_every_expression_is_one_of_the_task(task: str) -> None:
    rows = [row for pair in RANGES for row in stress(task, *pair)]
    assert all(machine(task).domain_error(a, b or 0) is None for a, b, _ in rows)


@pytest.mark.parametrize("task", TASKS)
def test_every_expression_stands_on_the_stress_side(task: str) -> None:
    for pair in RANGES:
        rows = stress(task, *pair)
        found = sides(task, [str(a) for a, *_ in rows], [None if b is None else str(b) for _, b, _ in rows])
        assert set(found) == {"stress"}


@pytest.mark.parametrize("task", TASKS)
def test_no_expression_comes_twice_not_even_in_two_families(task: str) -> None:
    for pair in RANGES:
        pairs = [(a, b) for a, b, _ in stress(task, *pair)]
        assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize("task", TASKS)
def test_no_stress_expression_stands_in_a_train_or_test_split(task: str) -> None:
    plan = make_plan(from_flags([task], min=1, max=7, num=200, num_test=40, seed=3, views=["one_step"]))
    ours = {(a, b) for seed in (3, 42) for a, b, _ in stress(task, 1, 7, seed)}
    for config in plan.configs:
        operands, _ = config.population.operands(np.arange(len(config.population)))
        b = [None] * len(operands) if operands.b is None else operands.b.integers()
        theirs = set(zip(operands.a.integers(), b, strict=True))
        swapped = {(y, x) for x, y in theirs} if machine(task).commutative else set()
        assert len(theirs) > 100
        assert not ours & (theirs | swapped)


@pytest.mark.parametrize("task", TASKS)
def test_families_of_few_members_are_whole_from_three_digits_on(task: str) -> None:
    for low, high in ((3, 7), (18, 21)):
        span = range(low, high + 1)
        found = {(a, b) for a, b, name in stress(task, low, high) if name in RESERVED}
        marks = [n for length in span for n in (10 ** (length - 1), 10 ** (length - 1) + 1, 10**length - 1)]
        first = [10**length - 1 for length in span] if task == "reflection" else marks
        second = [None] if task == "left_mask" else marks
        expected = {(a, b) for a in first for b in second if machine(task).domain_error(a, b or 0) is None}
        assert found == expected


@pytest.mark.parametrize("task", TASKS)
def test_large_families_give_as_many_expressions_a_class_as_are_asked_for(task: str) -> None:
    counts = Counter((len(str(a)), len(str(b or "")), name) for a, b, name in stress(task, 18, 21))
    for (len_a, len_b, name), count in counts.items():
        if name not in RESERVED and not (name == "carry_chain" and len_a != len_b):
            assert count == NUM, (len_a, len_b, name)
    pairs = {(len_a, len_b) for len_a, len_b, _ in counts}
    for family in families(machine(task)):
        applies = {pair for pair in pairs if family.applies(*pair)}
        assert applies == {(len_a, len_b) for len_a, len_b, name in counts if name == family.name}


@pytest.mark.parametrize("task", TASKS)
def test_other_seeds_draw_other_members_of_large_families(task: str) -> None:
    one, other = ({row for row in stress(task, 18, 21, seed) if row[2] not in RESERVED} for seed in (42, 43))
    assert len(one) == len(other)
    assert len(one & other) < len(one) // 4


@pytest.mark.parametrize("task", TASKS)
def test_a_family_holds_exactly_the_expressions_with_its_property(task: str) -> None:
    found = machine(task)
    few = [*range(131), *range(880, 1012), *range(1990, 2011)]
    pairs: list[tuple[int, int | None]] = [(a, b) for a in few[::2] for b in few]
    if task == "left_mask":
        pairs = [(a, None) for a in range(12_000)]
    if task == "reflection":
        pairs = [(a, b) for a in (9, 99, 999, 9999) for b in range(a + 1)]
    pairs = [(a, b) for a, b in pairs if found.domain_error(a, b or 0) is None]
    second = None if found.unary else Number.of([b or 0 for _, b in pairs])
    operands = Operands(Number.of([a for a, _ in pairs]), second)
    for family in families(found):
        holds = family.holds(operands).tolist()
        named = PROPERTIES[task][family.name]
        here = [family.applies(len(str(a)), 0 if b is None else len(str(b))) for a, b in pairs]
        assert any(holds)
        wrong = [
            (family.name, pair, held)
            for pair, held, applies in zip(pairs, holds, here, strict=True)
            if applies and held != named(*pair)
        ]
        assert not wrong, wrong[:5]
        assert family.__doc__ and len(family.__doc__) > 10


def test_a_note_counts_classes_as_the_configs_do() -> None:
    """It counted pairs of lengths without rows as well: 4 of 16 where info shows 5 classes."""
    plan = make_plan(load_declaration("smoke"))
    classes = {(one.name, one.split): len(one.population.classes) for one in plan.configs}
    every, whole = classes["mul-one_step", "stress"], classes["mul-full", "stress"]
    (note,) = [note for note in plan.notes if "stress classes" in note]
    assert note.startswith(f"mul: {every - whole} of {every} stress classes have runs")
