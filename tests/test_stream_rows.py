"""Rows of a stream: which they are, in which order, and that they are right."""

import pickle
import warnings
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import caef_data
from caef_data import UserError
from caef_data.pipelines import stream_epoch
from caef_data.pipelines.sampling.split import sides
from caef_data.pipelines.settings import VIEWS
from caef_data.pipelines.stream import ROWS, Stream
from caef_data.pipelines.stream_epoch import Epoch
from caef_data.pipelines.verify_rows import check_rows
from caef_data.schemas import row_schema
from caef_data.tm import machine, tasks

Rows = list[dict[str, Any]]


def stream(**given: Any) -> Stream:
    """Return the stream of keyword settings."""
    own = {key: given.pop(key) for key in ("split", "view", "rows", "seed") if key in given}
    return caef_data.stream({"max": 3, "num": 3, **given}, **own)


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["task"], row["a"], row["b"]


def wrong_rows(rows: Rows, view: str) -> list[tuple[int, str]]:
    """Return what an independent computation finds wrong."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return check_rows(rows[0]["task"], view, "consistent", columns, {})[0]


TASKS = ("add", "sub", "mul", "div", "equal", "reflection")


QUICK = {(task, "one_step") for task in TASKS} | {("div", "full"), ("div", "aligner")}
CASES = [
    pytest.param(task, view, marks=[] if (task, view) in QUICK else pytest.mark.long, id=f"{task}-{view}")
    for task in TASKS
    for view in VIEWS
]


@pytest.mark.parametrize(("task", "view"), CASES)
def test_rows_are_right(task: str, view: str) -> None:
    for split in ("train", "test", "stress"):
        if view in machine(task).missing_views():
            with pytest.raises(UserError, match=f"no {split} rows of {task}-{view}"):
                stream(task=task, split=split, view=view, splits=["train", "test", "stress"])
            continue
        rows = list(stream(task=task, split=split, view=view, splits=["train", "test", "stress"], rows=60))
        assert len(rows) == 60
        assert list(rows[0]) == row_schema(view).names
        assert not wrong_rows(rows, view)
        assert {*sides(task, [row["a"] for row in rows], [row["b"] for row in rows])} == {split}
        assert all((row["len_a"], row["len_b"]) == (len(row["a"]), len(row["b"] or "")) for row in rows)


def test_long_operands_are_right() -> None:
    for task in ("add", "mul", "left_mask"):
        rows = list(stream(task=task, min=1, max=100, rows=300))
        assert not wrong_rows(rows, "one_step")
        assert max(row["len_a"] for row in rows) > 90


def test_a_row_is_a_function_of_its_number() -> None:
    made = stream(task=["add", "sub"], max=4)
    rows = list(islice(made, 3 * made.epoch_rows))
    numbers = [(7 * number) % len(rows) for number in range(200)]
    other = stream(task=["add", "sub"], max=4)
    assert other.__getitems__(numbers) == [rows[number] for number in numbers]
    assert [pickle.loads(pickle.dumps(made))[number] for number in numbers[:5]] == [rows[at] for at in numbers[:5]]
    assert list(islice(made, 10)) == rows[:10], "an iteration that was left begins anew"
    assert stream(task=["add", "sub"], max=4, seed=1)[0] != rows[0]
    assert [row["task"] for row in rows[:20]] != ["add"] * 20


@pytest.mark.parametrize("seed", range(20))
def test_hands_hold_each_row_once(seed: int) -> None:
    """Whatever the shares are, and however many rows an expression gives; those of one row come in their order."""
    drawn, epoch = np.random.default_rng(seed), Epoch.__new__(Epoch)
    epoch.key = np.uint64(seed)
    epoch.share, epoch.together = drawn.integers(0, 10 ** (1 + seed % 3), 30), drawn.integers(1, 2 + seed, 30)
    epoch._deal(1 + seed)
    hands = [epoch._hand(turn) for turn in range(1 + seed)]
    assert [hand.shape[1] for hand in hands] == np.diff(epoch.begin).tolist()
    cell, expression, row, _ = np.concatenate(hands, axis=1)
    for number, (share, together) in enumerate(zip(epoch.share.tolist(), epoch.together.tolist(), strict=True)):
        own = list(zip(expression[cell == number].tolist(), row[cell == number].tolist(), strict=True))
        assert len({*own}) == len(own) == share and all(0 <= turn < together for _, turn in own)
        assert {at for at, _ in own} == {*range(-(-share // together))}
        assert together > 1 or own == sorted(own)


def test_rows_of_large_classes() -> None:
    """An expression of them gives as many rows as in a build, each another step, whoever asks for which of them."""
    made = stream(task="sub", min=20, max=22, num=30)
    rows = list(islice(made, 2 * made.epoch_rows))
    counts = Counter(map(key, rows))
    assert max(counts.values()) == 5 and len(counts) == pytest.approx(len(rows) / 5, rel=0.05)
    assert len({(*key(row), row["step"]) for row in rows}) == len(rows)
    numbers = [(101 * number) % len(rows) for number in range(300)]
    assert made.__getitems__(numbers) == [rows[number] for number in numbers]
    parts = [list(islice(made.shard(rank, 3), 50)) for rank in range(3)]
    assert [parts[number % 3][number // 3] for number in range(150)] == rows[:150]


def test_rows_of_a_version_stay() -> None:
    """They change with VERSION alone: a training that is resumed gets the rows that follow."""
    made = stream(task=["add", "div"], max=30, num=4)
    rows = made.__getitems__([0, 1, 2, 10**6, 10**12])
    found = [(row["task"], row["len_a"], row["len_b"], row["step"], int(row["a"]) % 1000) for row in rows]
    assert found == [
        ("add", 27, 21, 15, 575),
        ("div", 24, 22, 71, 940),
        ("div", 2, 6, 0, 32),
        ("add", 8, 1, 9, 313),
        ("add", 7, 8, 9, 930),
    ]


def test_an_epoch_is_what_a_build_writes(tmp_path: Path) -> None:
    """Where classes are small, to the row; every epoch in another order."""
    settings = {"task": "add", "max": 1, "num": 20}
    for view, split in (("one_step", "train"), ("aligner", "train")):
        out = tmp_path / f"{view}-{split}"
        caef_data.build({**settings, "views": [view], "splits": [split]}, out, workers=1)
        built = pq.read_table(sorted(out.glob(f"add-{view}/*.parquet"))).to_pylist()
        made = caef_data.stream(settings, split=split, view=view)
        assert made.epoch_rows == len(built)
        rows = list(islice(made, 3 * len(built)))
        epochs = [rows[start : start + len(built)] for start in range(0, len(rows), len(built))]
        for epoch in epochs:
            if view == "one_step" and split == "train":  # runs of 3 and of 4 steps: as many rows of each expression
                assert all(row in built for row in epoch)
                assert len({str(row) for row in epoch}) > 0.9 * len(built)
            else:
                assert sorted(epoch, key=str) == sorted(built, key=str)
        assert len(built) < 3 or epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("rows", [None, 1000, 20_000])
def test_a_class_is_walked_before_it_repeats(rows: int | None) -> None:
    made = stream(task="sub", max=3, num=50, rows=rows)
    size = made.epoch_rows
    seen: dict[tuple[int, int], list[tuple[Any, ...]]] = defaultdict(list)
    first, second = made.__getitems__(range(size)), made.__getitems__(range(size, 2 * size))
    for row in first:
        seen[row["len_a"], row["len_b"], row["variant"]].append(key(row))
    held = {}
    for name, walked in seen.items():
        distinct = len({*walked})
        held[name] = distinct
        for start in range(0, len(walked), distinct):
            part = walked[start : start + distinct]
            assert len({*part}) == len(part), "an expression came again before all had come"
    # (1, 1) has 55 expressions with a >= b, a tenth of them in test
    assert sum(n for name, n in held.items() if name[:2] == (1, 1)) <= 50
    shares = [Counter((row["len_a"], row["len_b"]) for row in epoch) for epoch in (first, second)]
    assert all(abs(shares[0][name] - shares[1][name]) <= 1 for name in shares[0])
    assert {*map(key, first)} != {*map(key, second)}, "another epoch has other expressions of a large class"
    assert first != second


def test_classes_have_the_share_of_a_build(tmp_path: Path) -> None:
    caef_data.build(task="sub", max=4, num=8, views=["one_step"], splits=["train"], out=tmp_path, workers=1)
    built = pq.read_table(sorted(tmp_path.glob("sub-one_step/*.parquet"))).to_pylist()
    made = stream(task="sub", max=4, num=8)
    assert made.epoch_rows == len(built)

    def share(rows: Rows) -> Counter[tuple[int, int, str]]:
        return Counter((row["len_a"], row["len_b"], row["variant"]) for row in rows)

    built_share, streamed = share(built), share(made.__getitems__(range(made.epoch_rows)))
    assert built_share.keys() == streamed.keys()
    assert all(abs(built_share[name] - streamed[name]) <= 1 for name in built_share)
    # and any stretch of a long stream has them, too
    long = stream(task="sub", max=4, num=800)
    part, whole = share(long.__getitems__(range(30_000, 50_000))), share(list(islice(long, long.epoch_rows)))
    for name, count in whole.items():
        assert part[name] == pytest.approx(count * 20_000 / long.epoch_rows, abs=6 + 0.02 * count)


def test_many_expressions_are_not_all_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of an epoch are about as many as if they were; a stream of many classes began after minutes."""
    own = {"task": "mul", "max": 40, "num": 2}
    whole = stream(**own)
    monkeypatch.setattr(stream_epoch, "LOOKED_AT", 500)
    some = stream(**own)
    assert some.epoch_rows == pytest.approx(whole.epoch_rows, rel=0.02)
    assert not wrong_rows(list(islice(some, 50)), "one_step")


def test_repeats_are_told() -> None:
    assert stream(task="add", min=9, max=10, num=2).repeats == []
    made = stream(task="add", max=3, num=50)
    [told] = made.repeats
    assert told.startswith("add-one_step: ") and "fewer train expressions than rows of an epoch" in told
    with pytest.warns(UserWarning, match="fewer train expressions than rows of an epoch"):
        next(iter(made))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        next(iter(stream(task="add", min=9, max=10, num=2)))  # only where there is something to tell


def test_no_expression_of_another_split(tmp_path: Path) -> None:
    """Not one in ten epochs is in the test split that a build writes, nor where the split function has another."""
    names = [task for task in tasks() if not machine(task).spec()]
    caef_data.build(task=names, max=2, num=20, num_test=50, splits=["test", "stress"], out=tmp_path, workers=1)
    held_out = set()
    for path in tmp_path.glob("*/*.parquet"):
        held_out |= {key(row) for row in pq.read_table(path, columns=["task", "a", "b"]).to_pylist()}
    made = stream(task=names, max=2, num=20)
    rows = made.__getitems__(range(0, 10 * made.epoch_rows, 3))
    assert not held_out & {*map(key, rows)}
    for task in names:
        own = [row for row in rows if row["task"] == task]
        assert {*sides(task, [row["a"] for row in own], [row["b"] for row in own])} == {"train"}


MACHINE = """
blank: ' '
start state: right
table:
  right:
    [1,0]: R
    ' ': {L: carry}
  carry:
    1: {write: 0, L}
    [0,' ']: {write: 1, L: done}
  done:
"""
WALKER = "1RB1LC_1RC1RB_1RD0LE_1LA1LD_1RZ0LA"


def test_a_machine_of_a_declaration() -> None:
    """Of one that may run on for ever only the words on which it halts."""
    tables = [
        {"name": "up", "format": "turingmachine.io", "input": "[01]+", "table": MACHINE},
        {"name": "walks", "format": "bbchallenge", "table": WALKER},
    ]
    made = caef_data.stream({"max": 6, "num": 10, "machine": tables, "max_steps": 200})
    rows = list(islice(made, 2 * made.epoch_rows))
    assert {row["task"] for row in rows} == {"up", "walks"}
    for row in rows:
        steps = list(caef_data.transitions(row["task"], row["a"]))
        assert (steps[row["step"]].prompt, steps[row["step"]].completion) == (row["prompt"], row["completion"])
        assert row["n_steps"] == len(steps) and machine(row["task"]).length(row["a"]) == row["len_a"]
    for task in ("up", "walks"):
        own = [row["a"] for row in rows if row["task"] == task]
        assert {*sides(task, own, [None] * len(own))} == {"train"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"split": "tset"}, 'split is "tset" .did you mean .test...'),
        ({"view": "onestep"}, 'view is "onestep" .did you mean .one_step...'),
        ({"rows": 0}, "rows is 0"),
        ({"rows": True}, "rows is True"),
        ({"rows": 2.5}, "rows is 2.5"),
        ({"seed": -1}, "seed is -1"),
        ({"split": "stress"}, "has no stress rows of add-one_step"),
        ({"splits": ["test"]}, "has no train rows of add-one_step"),
        ({"task": "left_mask", "view": "raw"}, "no train rows of left_mask-raw"),
        ({"tsak": "add"}, "unknown setting 'tsak'"),
    ],
)
def test_what_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        stream(**{"task": "add", **given})


def test_numbers_of_rows_that_are_none() -> None:
    made = stream(task="add")
    for number in (-1, 1.0, True, "1", 2**63, 10**30):
        with pytest.raises(IndexError, match="rows are numbered from 0 on"):
            made[number]  # type: ignore[index]
        if number is not True:
            with pytest.raises(IndexError, match="rows are numbered from 0 on"):
                made.__getitems__([3, number])  # type: ignore[list-item]
    with pytest.raises(IndexError):
        made.__getitems__(range(3, -5, -4))
    assert made.__getitems__([]) == [] and made.__getitems__(np.arange(2)) == made.__getitems__(range(2))
    with pytest.raises(TypeError, match="no end"):
        len(made)
    assert made and len(stream(task="add", rows=7)) == 7


# Going on, and sharing


def test_a_state_inside_and_at_the_end_of_what_is_made_together() -> None:
    made = stream(task="add", max=30, num=2)
    running, whole = iter(made), made.__getitems__(range(2 * ROWS + 5))
    for count in (1, ROWS - 1, ROWS, ROWS + 1, 2 * ROWS):
        given = made.state_dict()["rows"]
        assert list(islice(running, count - given)) == whole[given:count]
        assert made.state_dict()["rows"] == count == pickle.loads(pickle.dumps(made)).state_dict()["rows"]
        other = stream(task="add", max=30, num=2)
        other.load_state_dict(made.state_dict())
        assert next(iter(other)) == whole[count]


def test_it_goes_on_where_it_was() -> None:
    for given in ({"rows": 500}, {}):
        made = stream(task="add", **given)
        whole = list(islice(made, 500))
        running = iter(made)
        for row in whole[:123]:
            assert next(running) == row
        state = made.state_dict()
        assert state["rows"] == 123
        other = stream(task="add", **given)
        other.load_state_dict(state)
        assert other.state_dict() == state
        assert list(islice(other, 377)) == whole[123:]
        assert list(islice(other, 5)) == whole[:5], "the next iteration is a whole one"
    with pytest.raises(UserError, match="not the state of this stream"):
        stream(task="add", seed=3).load_state_dict(state)


def test_the_end_is_a_state_too() -> None:
    made = stream(task="add", rows=10)
    assert len(list(made)) == 10
    other = stream(task="add", rows=10)
    other.load_state_dict(made.state_dict())
    assert list(other) == [] and len(list(other)) == 10


def test_epochs_of_a_stream_with_an_end() -> None:
    made = stream(task="add", rows=50)
    first = list(made)
    made.set_epoch(1)
    assert list(made) == made.__getitems__(range(50, 100)) != first
    made.set_epoch(0)
    assert list(made) == first


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_ranks_share_the_rows(world: int) -> None:
    made = stream(task="add", rows=100)
    parts = [list(made.shard(rank, world)) for rank in range(world)]
    assert [len(made.shard(rank, world)) for rank in range(world)] == [len(part) for part in parts]
    woven = [parts[number % world][number // world] for number in range(100)]
    assert woven == list(made)


def test_a_state_fits_other_numbers_of_ranks() -> None:
    made = stream(task="add", rows=120)
    whole = list(made)
    part = made.shard(1, 2)
    running = iter(part)
    for _ in range(30):
        next(running)
    state = part.state_dict()
    assert state["rows"] == 60
    for rank in range(3):
        own = made.shard(rank, 3)
        own.load_state_dict(state)
        assert list(own) == whole[60 + rank :: 3]
    with pytest.raises(UserError, match="cannot have shared evenly"):
        made.shard(0, 7).load_state_dict(state)
    with pytest.raises(UserError, match="rank is 2"):
        made.shard(2, 2)


NONE: list[Any] = [10**40, -5, "7", 2.5, True, None]
DAMAGED: list[Any] = [None, [], *({"rows": rows} for rows in NONE), {"epoch": 1}]
DAMAGED += [{"rows": 1, "epoch": epoch} for epoch in NONE]


@pytest.mark.parametrize("damage", DAMAGED, ids=repr)
@pytest.mark.parametrize("rows", [50, None])
def test_a_damaged_state_is_refused(rows: int | None, damage: Any) -> None:
    made = stream(task="add", rows=rows)
    good = {"stream": made.identity, "epoch": 1, "rows": 3}
    made.load_state_dict(good)
    with pytest.raises(UserError, match="state") as told:
        made.load_state_dict({"stream": made.identity, **damage} if isinstance(damage, dict) else damage)
    assert told.value.allowed and made.state_dict() == good


@pytest.mark.parametrize(
    ("method", "given"),
    [("set_epoch", (epoch,)) for epoch in (-1, 10**30, 1.5, "x", True, None)]
    + [("shard", given) for given in (("0", 2), (True, 2), (0.0, 2), (-1, 2), (1, 10**30), (0, 0), (0, "2"))],
)
def test_epochs_and_ranks_that_are_none(method: str, given: tuple[Any, ...]) -> None:
    made = stream(task="add", rows=50)
    with pytest.raises(UserError, match="(epoch|rank|world_size) is ") as told:
        getattr(made, method)(*given)
    assert told.value.allowed and made.state_dict()["epoch"] == 0


def test_little_is_kept() -> None:
    made = stream(task=["add", "sub"], max=1, num=1, rows=20)
    made.__getitems__(range(0, 65_536 * 12, 65_536))
    assert made._epochs.cache_info().currsize == 3  # type: ignore[attr-defined]
