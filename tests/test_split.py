"""The split function, written a second time with Python integers from its description, and what follows from it."""

import random
from collections import Counter
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from caef_data.errors import UserError
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.plan import make_plan
from caef_data.pipelines.sampling.split import sides

Expression = tuple[str, str | None]
TASKS = ("add", "div", "equal", "greater_than", "left_mask", "less_than", "mul", "reflection", "sub")
COMMUTATIVE = ("add", "mul", "equal")
MASK = 2**64 - 1


def mix(value: int) -> int:
    x = (value + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


@cache
def text_key(text: str) -> int:
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return mix(value)


@cache
def digit_key(k: int) -> int:
    return mix(2026 + k) | 1


@cache
def number_hash(x: str) -> int:
    return mix((sum(int(d) * digit_key(k) for k, d in enumerate(reversed(x))) + len(x) * mix(1000003)) & MASK)


def expression_hash(task: str, a: str, b: str | None) -> int:
    first, second = number_hash(a), 0 if b is None else number_hash(b)
    if task in COMMUTATIVE:
        first, second = sorted((first, second))
    return mix((first + mix((second + text_key(task)) & MASK)) & MASK)


def landmark(x: str | None) -> bool:
    """10**k, 10**k + 1 or 10**k - 1, of three digits or more; an operand that is not there counts as one."""
    return x is None or (len(x) >= 3 and any(abs(int(x) - 10**k) <= 1 for k in (len(x) - 1, len(x))))


def part(task: str, a: str, b: str | None) -> str:
    """The part of its class that an expression belongs to."""
    if task in ("equal", "greater_than", "less_than"):
        order = (int(a) > int(b or 0)) - (int(a) < int(b or 0))
        return "different" if task == "equal" and order else f"order {order}"
    if task == "left_mask":
        return "zeros" if a[1:2] == "0" else "plain"
    if task == "reflection":
        return "nines" if b is not None and b[0] == "9" and len(a) == len(b) else "plain"
    return "any"


def numbers(length: int) -> range:
    return range(10) if length == 1 else range(10 ** (length - 1), 10**length)


def lawful(task: str, a: int, b: int) -> bool:
    if task in ("mul", "div"):
        return b > 0
    return task not in ("sub", "reflection") or a >= b


@cache
def expressions(task: str, len_a: int, len_b: int) -> tuple[Expression, ...]:
    """Every expression of a class."""
    if task == "left_mask":
        return tuple((str(a), None) for a in numbers(len_a))
    first = (10**len_a - 1,) if task == "reflection" else numbers(len_a)
    return tuple((str(a), str(b)) for a in first for b in numbers(len_b) if lawful(task, a, b))


@cache
def cut(task: str, len_a: int, len_b: int, name: str) -> int | None:
    """The first hash above the lowest tenth of a part of up to 1,000 expressions, None for larger parts."""
    parts: dict[str, list[Expression]] = {}
    if len_b + (0 if task == "reflection" else len_a) <= 4:
        for one in expressions(task, len_a, len_b):
            parts.setdefault(part(task, *one), []).append(one)
    elif name == "order 0" and len_a <= 3:
        parts[name] = [(str(a), str(a)) for a in numbers(len_a)]
    if not 0 < len(parts.get(name, [])) <= 1_000:
        return None
    hashes = {
        which: sorted({expression_hash(task, *one) for one in members if not all(map(landmark, one))})
        for which, members in parts.items()
    }
    mine = hashes[name]
    if max(map(len, hashes.values())) < 10:  # no part has a tenth of its own, the class may have one
        mine = sorted(sum(hashes.values(), []))
    return mine[len(mine) // 10] if len(mine) >= 10 else 0


def expected(task: str, a: str, b: str | None) -> str:
    value = expression_hash(task, a, b)
    low = cut(task, len(a), len(b or ""), part(task, a, b))
    if landmark(a) and landmark(b):
        return "stress"
    if low is None and value < 2**64 // 10 // 4:
        return "stress"
    return "test" if value < (2**64 // 10 if low is None else low) else "train"


def check(task: str, some: list[Expression]) -> None:
    found = sides(task, [a for a, _ in some], [b for _, b in some])
    wrong = [(one, side) for one, side in zip(some, found, strict=True) if side != expected(task, *one)]
    assert not wrong, wrong[:5]


def classes(task: str, longest: int) -> Iterator[tuple[int, int]]:
    for len_a in range(1, longest + 1):
        for len_b in (0,) if task == "left_mask" else range(1, longest + 1):
            if len_b <= len_a or task not in ("sub", "reflection"):
                yield len_a, len_b


@pytest.mark.parametrize("task", TASKS)
def test_sides_equal_the_description_for_every_expression_of_one_and_two_digits(task: str) -> None:
    for pair in classes(task, 4 if task in ("left_mask", "reflection") else 2):
        check(task, list(expressions(task, *pair)))


def drawn(task: str, count: int, longest: int) -> list[Expression]:
    draw = random.Random(f"{task} {longest}")
    some: list[Expression] = []
    while len(some) < count:
        x, y = ("".join(draw.choices("0123456789", k=draw.randint(1, longest))).lstrip("0") or "0" for _ in range(2))
        if draw.random() < 0.1:
            y = x
        if task == "left_mask":
            some.append((x, None))
        elif task == "reflection":
            some.append(("9" * max(len(x), len(y)), y))
        elif lawful(task, int(x), int(y)):
            some.append((x, y))
    return some


@pytest.mark.parametrize("task", TASKS)
def test_sides_equal_the_description_for_thousands_of_longer_expressions(task: str) -> None:
    check(task, drawn(task, 2_000, 5) + drawn(task, 1_000, 30) + drawn(task, 400, 130) + drawn(task, 6, 1_100))


def landmarks(length: int) -> list[str]:
    return [str(10 ** (length - 1)), str(10 ** (length - 1) + 1), str(10**length - 1)]


@pytest.mark.parametrize("task", TASKS)
def test_powers_of_ten_and_their_neighbours_are_set_apart_from_three_digits_on(task: str) -> None:
    some: list[Expression] = []
    for len_a in (3, 4, 5, 17, 18, 19, 20, 64, 100):
        for len_b in (3, 4, 18, 19, 63, 64, 100):
            some += [(a, None if task == "left_mask" else b) for a in landmarks(len_a) for b in landmarks(len_b)]
    if task == "sub":
        some = [one for one in some if int(one[0]) >= int(one[1] or 0)]
    if task == "reflection":
        some = [("9" * len(a), b) for a, b in some if b and len(b) <= len(a)]
    assert len(some) > 50
    check(task, some)
    assert set(sides(task, [a for a, _ in some], [b for _, b in some])) == {"stress"}


@pytest.mark.parametrize("task", COMMUTATIVE)
def test_swapped_operands_stand_on_the_same_side(task: str) -> None:
    some = [(str(a), str(b)) for a in range(1, 150) for b in range(1, a + 1)] + drawn(task, 3_000, 40)
    some = [(a, b) for a, b in some if "0" not in (a, b)]
    a, b = [x for x, _ in some], [y for _, y in some]
    assert sides(task, a, b) == sides(task, b, a)


@pytest.mark.parametrize(
    "task", [task for task in TASKS if task not in (*COMMUTATIVE, "left_mask", "sub", "reflection")]
)
def test_swapped_operands_of_other_tasks_are_other_expressions(task: str) -> None:
    some = [(a, b) for a, b in drawn(task, 3_000, 40) if b not in (None, "0") and a != "0"]
    a, b = [x for x, _ in some], [y or "" for _, y in some]
    differs = sum(x != y for x, y in zip(sides(task, a, b), sides(task, b, a), strict=True))
    assert differs > 200


@pytest.mark.parametrize("task", TASKS)
def test_every_class_of_ten_expressions_or_more_has_test_expressions_about_one_in_ten(task: str) -> None:
    longer = {"reflection": [(40, 1), (41, 2), (100, 1)], "left_mask": [(5, 0)], "sub": [(3, 1)]}
    few = [*classes(task, 4 if task in ("left_mask", "reflection") else 2), *longer.get(task, [(1, 3), (3, 1)])]
    for pair in few:
        some = expressions(task, *pair)
        found = Counter(sides(task, [a for a, _ in some], [b for _, b in some]))
        if len(some) >= 10:
            assert found["test"] >= 1, (pair, found)
            share = (found["test"] + found["stress"]) / len(some)
            assert abs(share - 0.1) < max(0.04, 5 * (0.09 / len(some)) ** 0.5 * (len(some) > 1_000)), (pair, found)


@pytest.mark.parametrize("task", TASKS)
def test_long_expressions_are_shared_out_by_the_hash_alone(task: str) -> None:
    some = [one for one in drawn(task, 20_000, 60) if len(one[0]) > 4 and len(one[1] or "12345") > 4]
    found = Counter(sides(task, [a for a, _ in some], [b for _, b in some]))
    for side, share in (("train", 0.9), ("test", 0.075), ("stress", 0.025)):
        assert abs(found[side] / len(some) - share) < 5 * (share * (1 - share) / len(some)) ** 0.5


# ---------------------------------------------------------------------------------------------------- pinned sides

GOLDEN = {
    "add": "rrrrrrrrrrrrrrrrrrrrTrrTrrrrrrrrrrrrrrrTrrrrrrrrrrrrrrrrrrrrrSrrrrrTrrrrrrrrrrrrrrrSrTrrrSrrr",
    "div": "rrrrrrrrrrrrSrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrTrrrrrrrrrTrTr",
    "equal": "rrrrrrrrrrrTrrrrrrrrrrrrTrrrSrrrrrrTrrrTrrrrrrrrrrrrrrrrrrrrTrrrrrrTrrrrrrrrrrrrrrrrrrrrrrrrrr",
    "greater_than": "rrrrSrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrTrrrrrrrrrrrrrrrrTrrrrrrTrTrTrrrrr",
    "left_mask": "rrrrTrTTrTTrrrrrrrrrrrTrrrrrrrrrrTrrrrrrrrrTrrrrTrrrrrrrrrrrrrrrrrrTrrrrrrTrrrrrrrrrrrrSrrrrrrr",
    "less_than": "rrrTrrrrrrrTrrrSrrrrrrrrrrrrrrrrrTrrrrrrTTrrTrrrrrrrrrTrrrrTrrrrrrrrrrrrrrrrrrrrrTrrrrrrrrrrrr",
    "mul": "rrrrrrrrrTrTrrrrrrrrrrrrrrrrTrrrTrrrrrrrrrrrrrrrrrrTrrrrrrrrrrTrrSrrSrrrrrrrrrrrTrrrrrrrrrrTr",
    "reflection": "rrTrrTrrrrrrrrrrrTrrrrrrrrrrrTrrrrTrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrTrrrrTrrrrrrrr",
    "sub": "TrrrTrrrrrrrrrrrrrrrrrrTrrrSrrTTrrrrrrrrrrrrrrrTrrrrrrrSrrrrTrrrrrrrrrrrrrrrrrrrrrrTrrrrrrrrrrr",
}


def pinned(task: str) -> str:
    some = [one for one in drawn(task, 56, 3) + drawn(task, 24, 24) + drawn(task, 16, 100) if one[0] != "9"]
    return "".join({"train": "r", "test": "T", "stress": "S"}[s] for s in sides(task, *zip(*some, strict=True)))


@pytest.mark.parametrize("task", TASKS)
def test_sides_are_the_pinned_ones_and_change_only_with_the_split_version(task: str) -> None:
    assert pinned(task) == GOLDEN[task]


# -------------------------------------------------------------------------------------------------------- the call


def test_sides_answers_expressions_of_mixed_lengths_in_their_order() -> None:
    some = drawn("sub", 300, 50)
    together = sides("sub", [a for a, _ in some], [b for _, b in some])
    assert together == [sides("sub", [a], [b])[0] for a, b in some]
    assert len(set(together)) == 3
    assert sides("add", [], []) == []
    assert len(sides("left_mask", ["7", "1050"], [None, None])) == 2
    with pytest.raises(UserError, match="there is no task"):
        sides("max", ["1"], ["2"])


# ------------------------------------------------------------------------------------------------ builds never meet

BUILDS = ((1, 3, 5, 42), (1, 3, 60, 7), (1, 7, 20, 1), (2, 3, 400, 2**40), (18, 22, 9, 42))


@cache
def held(task: str, split: str, build: int) -> frozenset[Expression]:
    """The expressions of all views of a build, a op b and b op a as one where they count as the same."""
    low, high, num, seed = BUILDS[build]
    plan = make_plan(
        from_flags([task], min=low, max=high, num=num, num_test=max(2, num // 3), seed=seed, splits=[split])
    )
    found: set[Expression] = set()
    for config in plan.configs:
        operands, _ = config.population.operands(np.arange(len(config.population)))
        a = operands.a.decimals()
        b: list[str | None] = [None] * len(a) if operands.b is None else list(operands.b.decimals())
        found |= {
            (y, x) if task in COMMUTATIVE and y is not None and x > y else (x, y) for x, y in zip(a, b, strict=True)
        }
    return frozenset(found)


@pytest.mark.parametrize("task", TASKS)
def test_train_test_and_stress_of_any_two_builds_have_no_expression_in_common(task: str) -> None:
    builds = range(len(BUILDS))
    total = {
        split: frozenset[Expression]().union(*(held(task, split, n) for n in builds))
        for split in ("train", "test", "stress")
    }
    assert all(len(held(task, split, n)) > 3 for split in ("train", "test") for n in builds)
    assert not total["train"] & total["test"]
    assert not total["train"] & total["stress"]
    assert not total["test"] & total["stress"]
    assert held(task, "train", 0) != held(task, "train", 1)
    assert len(total["stress"]) > 20
