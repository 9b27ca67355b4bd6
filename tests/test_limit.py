"""``--limit`` takes the same problems in every mode and run, spread over the classes."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from caef_data import tm
from caef_data.eval.dataset_rows import CHOOSING, choose_expressions
from caef_data.eval.problems import MODES, RAW
from caef_data.eval.session import prepare
from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.folder import Folder
from caef_data.pipelines.plan import make_plan
from caef_data.tests.commands import call
from caef_data.tests.evaluating import Counting, Sample, finish, samples, settings, tables_of

LOOPS = ("mul", "div")  # whose whole runs are of other expressions than their single steps
MASK = 2**64 - 1


def taken(data: Path, task: str, mode: str, limit: int | None) -> list[Sample]:
    return samples(Folder(data), task, mode, limit)


def expressions(problems: list[Sample]) -> set[tuple[str, str | None]]:
    return {(one.a, one.b) for one in problems}


def modes_of(task: str) -> tuple[str, ...]:
    return (*MODES, RAW) if tm.machine(task).has_raw else ("one_step", "executor")


@pytest.fixture(scope="module")
def loops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return test rows of short operands, enough of them for whole runs and single steps to meet."""
    out = tmp_path_factory.mktemp("loops") / "data"
    views = ["one_step", "full", "aligner", "raw"]
    declared = from_flags(["add", *LOOPS], min=1, max=2, num=4, num_test=30, splits=["test"], views=views)
    build(make_plan(declared), out, workers=1)
    return out


@pytest.mark.parametrize("task", tm.tasks())
def test_every_mode_takes_the_same_expressions_and_all_their_rows(smoke: Path, task: str) -> None:
    every = {mode: taken(smoke, task, mode, None) for mode in modes_of(task)}
    for limit in (1, 7, 10_000):
        found = {mode: taken(smoke, task, mode, limit) for mode in every}
        chosen = {mode: expressions(problems) for mode, problems in found.items()}
        whole = [problems for mode, problems in chosen.items() if mode != "one_step"]
        assert all(one == whole[0] for one in whole) and 0 < len(whole[0]) <= limit
        if task not in LOOPS:
            assert chosen["one_step"] == whole[0]
        for mode, problems in found.items():
            assert problems == [one for one in every[mode] if (one.a, one.b) in chosen[mode]]
            assert len(chosen[mode]) == min(limit, len(expressions(every[mode]))) or mode != "one_step"


def test_of_loops_the_expressions_that_all_views_hold_come_first(loops: Path) -> None:
    for task in LOOPS:
        every = {mode: expressions(taken(loops, task, mode, None)) for mode in modes_of(task)}
        common = set.intersection(*every.values())
        assert 0 < len(common) < len(every["one_step"])
        for limit in (len(common), len(common) + 3):
            chosen = {mode: expressions(taken(loops, task, mode, limit)) for mode in modes_of(task)}
            assert all(common <= one for one in chosen.values())
            assert (chosen["one_step"] == chosen["executor"]) == (limit == len(common))
            assert chosen["process"] == chosen[RAW] and len(chosen["one_step"]) == limit


def mixed(value: int) -> int:
    """SplitMix64's finaliser, in Python's integers."""
    value = value + 0x9E3779B97F4A7C15 & MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
    return value ^ value >> 31


def hashed(task: str, a: str, b: str | None) -> int:
    """The hash that ``dataset_rows.py`` describes, digit by digit."""

    def u(text: str) -> int:
        digits = sum(int(digit) * (mixed(2026 + k) | 1) for k, digit in enumerate(reversed(text)))
        return mixed((digits + len(text) * mixed(1_000_003)) & MASK)

    key = 0xCBF29CE484222325
    for byte in f"problems {task}".encode():
        key = (key ^ byte) * 0x100000001B3 & MASK
    return mixed((u(a) + mixed(((u(b) if b else 0) + mixed(key)) & MASK)) & MASK)


@pytest.mark.parametrize("task", ["add", "equal", "reflection"])
def test_round_over_the_classes_and_the_lowest_hash_first(smoke: Path, task: str) -> None:
    classes = defaultdict(list)
    for row in pq.read_table(next((smoke / f"{task}-full").glob("test-*"))).to_pylist():
        classes[row["len_a"], row["len_b"], row["variant"]].append(
            (hashed(task, row["a"], row["b"]), row["a"], row["b"])
        )
    order = [
        one
        for place in range(max(map(len, classes.values())))
        for one in sorted(sorted(own)[place] for own in classes.values() if len(own) > place)
    ]
    for limit in (1, len(classes), len(order) - 3):
        wanted = {(a, b) for _, a, b in order[:limit]}
        assert expressions(taken(smoke, task, "executor", limit)) == wanted
        if limit == len(classes):
            counts = Counter((one.len_a, one.len_b, one.variant) for one in taken(smoke, task, "executor", limit))
            assert set(counts.values()) == {1} and len(counts) == len(classes)


def test_a_view_alone_is_limited_too(tmp_path: Path) -> None:
    for name, views in (("steps", ["one_step"]), ("runs", ["full"]), ("both", ["full", "raw"])):
        declared = from_flags(["mul"], min=1, max=3, num=3, num_test=3, splits=["test"], views=views)
        build(make_plan(declared), tmp_path / name, workers=1)
        keys = choose_expressions(Folder(tmp_path / name), "mul", "test", 4).keys
        assert {view: len(found) for view, found in keys.items()} == {view: 4 for view in views}
    asked: dict[str, Any] = {"task": ("mul",), "mode": ("executor",)}
    ids = [
        prepare(settings(tmp_path / name, tmp_path / "out", **asked, limit=limit)).tables.run_id
        for limit in (None, 4, 5)
        for name in ("runs", "both")
    ]
    assert len(set(ids)) == 5 and ids[0] == ids[1]  # what raw rows there are decides which problems a limit takes


def test_fewer_than_the_limit_is_said_in_one_line(loops: Path, tmp_path: Path) -> None:
    words = (
        "eval",
        "--backend",
        "oracle",
        "--data",
        loops,
        "--task",
        "mul",
        "--task",
        "add",
        "--out",
        tmp_path / "out",
    )
    few = len(set.intersection(*(expressions(taken(loops, "mul", mode, None)) for mode in modes_of("mul"))))
    for limit, told in ((1, 0), (few, 0), (few + 1, 1), (10_000, 2)):
        code, said = call(*words, "--mode", "process", "--limit", limit)
        lines = [line for line in said.splitlines() if "fewer than --limit" in line]
        assert code == 0 and len(lines) == told, said
        for line in lines:
            assert all(view in line for view in CHOOSING if view != "slips") and f"--limit {limit:,};" in line


def test_a_row_of_the_table_problems_is_a_problem(data: Path, tmp_path: Path) -> None:
    session = prepare(settings(data, tmp_path, task=("sub",), limit=6))
    finish(session, Counting())
    found = tables_of(session)
    rows, failures = found["problems"], found["failures"]
    named = ("task", "mode", "split", "a", "b")
    wrong = {tuple(row[name] for name in named): row for row in failures if row["mode"] != "one_step"}
    for row in rows:
        assert row["correct"] == (row["first_wrong_step"] is None)
        assert (row["asked_step"] is not None) == (row["mode"] == "one_step")
        if row["mode"] != "one_step":
            failed = wrong.get(tuple(row[name] for name in named))
            assert row["first_wrong_step"] == (failed and failed["step"])
            assert failed is None or failed["num_calls"] == row["num_calls"]
    steps = [(row["a"], row["b"], row["asked_step"]) for row in rows if row["mode"] == "one_step"]
    assert len(steps) == len(set(steps)) > 3
    assert {row["mode"] for row in rows} == set(MODES) and any(not row["correct"] for row in rows)
    assert sum(row["n"] for row in found["class_accuracy"]) == len(rows)
    assert sum(row["correct"] for row in found["class_accuracy"]) == sum(row["correct"] for row in rows)
