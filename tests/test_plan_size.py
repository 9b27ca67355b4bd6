"""Declarations whose plans are large: refused at once, or planned in bounded memory, telling what they are at."""

import time
import tracemalloc

import pytest

from caef_data.errors import UserError
from caef_data.pipelines import plan, terminal
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.plan import Plan, make_plan
from caef_data.pipelines.sampling import classes, enumerate_small
from caef_data.pipelines.sampling.classes import ClassSampler
from caef_data.tests.commands import call


@pytest.mark.parametrize(
    ("option", "settings"),
    [
        ("--num", {"task": "add", "max": 20, "num": 10**9}),
        ("--num", {"task": "left_mask", "num": 10**9, "num_test": 1}),
        ("--num", {"task": "mul", "num": 10**9}),
        ("--num-test", {"task": "add", "splits": ["test"], "num_test": 10**9}),
        ("--num-test", {"task": "add", "max": 30, "splits": ["stress"], "num_test": 10**6}),
        ("--num-test", {"task": "div", "splits": ["test"], "num_test": 10**8}),
    ],
)
def test_what_no_plan_can_list_is_refused_before_it_is_looked_at(
    option: str, settings: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(*_: object) -> None:
        pytest.fail("an expression was looked at")

    monkeypatch.setattr(enumerate_small._Scan, "run", look)
    tasks = [str(settings.pop("task"))]
    with pytest.raises(UserError, match="the plan would list up to [0-9,]+ expressions") as error:
        make_plan(from_flags(tasks, **settings))
    assert error.value.where == option


@pytest.mark.parametrize(("view", "lists"), [("one_step", 1), ("full", 1), ("raw", 2)])
def test_a_plan_lists_what_its_views_need(view: str, lists: int, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved: list[object] = []

    def resolve(*given: object) -> ClassSampler:
        resolved.append(given)
        return enumerate_small.resolve(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(plan, "resolve", resolve)
    make_plan(from_flags(["mul"], max=3, num=2, splits=["train"], views=[view]))
    assert len(resolved) == lists


def drawn(found: Plan) -> list[object]:
    """Return the expressions and the classes of every config."""
    return [(len(one.population), one.population.classes, one.numbers(0).tolist()) for one in found.configs]


def test_a_plan_is_the_same_a_few_expressions_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def once() -> list[object]:
        declaration = from_flags(["mul", "div", "left_mask"], max=7, num=40, num_test=20, splits=["train", "stress"])
        found = make_plan(declaration)
        kept = [(part.candidate.tolist(), rows) for one in found.configs for part, rows in one.population.parts]
        return [*drawn(found), *((lists, None if rows is None else rows.tolist()) for lists, rows in kept)]

    whole = once()
    for module in (classes, plan):
        monkeypatch.setattr(module, "TOGETHER", 7)
    monkeypatch.setattr(enumerate_small, "DIGITS", 1)
    assert once() == whole


def test_memory_of_a_plan_does_not_follow_the_digits_that_it_looks_at() -> None:
    """Ten thousand expressions of mul that halt soon, of 100 digits, beside those of their classes."""
    declaration = from_flags(["mul"], min=90, max=100, num=1500, num_test=1, splits=["train"], views=["aligner"])
    tracemalloc.start()
    try:
        assert len(make_plan(declaration).configs) == 1
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()


def test_a_long_plan_tells_what_it_is_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "LINE_EVERY", 0)
    code, output = call("plan", "--task", "mul", "--max", 3, "--num", 3)
    assert code == 0
    assert "planning mul train, " in output
    assert "candidates looked at" in output
    assert "expressions compared" in output


def test_ctrl_c_stops_a_plan() -> None:
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        if len(told) == 3:
            raise KeyboardInterrupt

    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        make_plan(from_flags(["add"], max=8, num=100_000), tell)
    assert time.monotonic() - before < 60
