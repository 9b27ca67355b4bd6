"""A change of any column, of any view of any task, is found, also where it is consistent with the manifest."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caef_data import tm
from caef_data.atomic import sha256_of
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.engine import render_shard
from caef_data.pipelines.manifest import ShardRecord
from caef_data.pipelines.plan import Config, make_plan
from caef_data.pipelines.sampling.classes import ClassSampler
from caef_data.pipelines.settings import VIEWS
from caef_data.pipelines.verify_own import OwnProblem
from caef_data.pipelines.verify_rows import check_rows
from caef_data.pipelines.verify_shard import Shard, ShardResult, check_shard
from caef_data.tests.test_any_machine import turing
from caef_data.tests.test_own_machine import MAX
from caef_data.tm.machine import REGISTRY

KINDS = {"row", "variant", "instruction", "added", "missing", "split"}
SOME = ("add", "left_mask", "mul")


def configs(task: str) -> Iterator[Config]:
    views = [view for view in VIEWS if view not in tm.machine(task).missing_views()]
    yield from make_plan(from_flags([task], max=2, num=1, splits=["test"], views=views)).configs


def rendered(config: Config) -> pa.Table:
    sink = io.BytesIO()
    render_shard(config, 0, sink)
    return pq.read_table(sink)


def checked(
    config: Config, folder: Path, rows: list[dict[str, Any]], schema: pa.Schema, group: int = 10**6, shard: int = 0
) -> ShardResult:
    """Write rows, with a record that is true of them, and check them."""
    sink, path = io.BytesIO(), config.shard_path(shard)
    pq.write_table(pa.Table.from_pylist(rows, schema), sink, row_group_size=group)
    chars = {name: [len(row[name] or "") for row in rows] for name in ("prompt", "completion")}
    sizes = {name: (sum(found), max(found, default=0)) for name, found in chars.items()}
    record = ShardRecord(path, len(rows), sink.tell(), sha256_of(sink), sizes)
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_bytes(sink.getvalue())
    found = Shard(folder, record, config, shard)
    return check_shard(found, ClassSampler.operands)


def changed(value: object) -> object:
    if isinstance(value, list):
        return [*value[:-1], changed(value[-1])]
    return "q9" if value is None else value + 1 if isinstance(value, int) else f"{value}1"


@pytest.mark.parametrize(
    "task", [one if one in SOME else pytest.param(one, marks=pytest.mark.long) for one in tm.tasks()]
)
def test_every_column_counts(task: str, tmp_path: Path) -> None:
    for config in configs(task):
        table = rendered(config)
        rows = table.to_pylist()
        assert checked(config, tmp_path, rows, table.schema).findings == []
        for column in table.schema.names:
            row = next((row for row in rows[len(rows) // 2 :] if row[column] is not None), rows[-1])
            there = [{**one, column: changed(one[column])} if one is row else one for one in rows]
            found = checked(config, tmp_path, there, table.schema)
            assert found.findings and {one.kind for one in found.findings} <= KINDS, (config.name, column)
            assert all(one.row is not None for one in found.findings if one.kind != "missing")


def others(value: object) -> list[object]:
    """Return values that a column may hold in place of one; ``a`` and ``b`` are no numbers then, and no words."""
    if isinstance(value, list):
        return [None, [], [None, *value[1:]], [*value, "x"]]
    return [None, -1, 2**15 - 1] if isinstance(value, int) else [None, "", "é", "\0", "-1", " 1", "9" * 5_000]


@pytest.mark.parametrize("task", ["max", "walker"])
def test_no_value_of_a_machine_of_ones_own_stops_the_check(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A null word was a TypeError, which nothing caught."""
    walker = turing("walker", "bbchallenge", "1RB1LB_1LA1RZ", output="tape")
    monkeypatch.setitem(REGISTRY, task, {"max": MAX, "walker": walker}[task])
    views = ["one_step", "full"] if task == "max" else ["one_step", "full", "raw"]
    top = 1 if task == "max" else 2
    for config in make_plan(from_flags([task], max=top, num=2, splits=["train"], views=views)).configs:
        table = rendered(config)
        rows = table.to_pylist()
        for column, value in ((name, other) for name in table.schema.names for other in others(rows[1][name])):
            if value != rows[1][column]:
                there = [rows[0], {**rows[1], column: value}, *rows[2:]]
                assert checked(config, tmp_path, there, table.schema).findings, (config.name, column, value)


def test_what_a_machine_of_ones_own_raises_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asked it for such operands: it may not even refuse them."""
    columns = {"a": ["7"], "b": ["0"], "prompt": ["7max0="], "completion": ["7"]}

    def raising(*_: object) -> None:
        raise ZeroDivisionError("integer division by zero")

    for name, view in (("answer", "raw"), ("transition", "aligner")):
        with monkeypatch.context() as patch:
            patch.setitem(REGISTRY, "max", MAX)
            patch.setattr(type(MAX), "walks", False)
            patch.setattr(type(MAX), name, raising)
            wrong, _ = check_rows(
                "max", view, "consistent", {**columns, "direction": ["in"]}, {}, lambda *key: OwnProblem.of(*key, 9)
            )
            [(row, told)] = wrong
            assert row == 0 and told.startswith("max '7' '0'") and told.endswith("by zero'"), told


def test_rows_are_compared_over_all_row_groups(tmp_path: Path) -> None:
    """Another writer cuts other groups; a row that went from one into another was told as added and as missing."""
    config = next(iter(configs("add")))
    table = rendered(config)
    first, *rows, last = table.to_pylist()
    assert len(rows) > 9 and checked(config, tmp_path, [first, *rows, last], table.schema, 4).findings == []
    [moved] = checked(config, tmp_path, [last, *rows, first], table.schema, 4).findings
    assert (moved.kind, moved.row) == ("order", 0) and moved.message.startswith("2 rows in another place")
    [missing] = checked(config, tmp_path, [*rows, last], table.schema, 4).findings
    assert (missing.kind, missing.row) == ("missing", None) and f"a '{first['a']}'" in missing.message
    [added] = checked(config, tmp_path, [first, *rows, last, first], table.schema, 4).findings
    assert (added.kind, added.row) == ("added", len(rows) + 2)


def test_a_shard_may_have_no_rows(tmp_path: Path) -> None:
    """Of few expressions with very long texts there are more shards than expressions."""
    config = next(iter(configs("add")))
    long = replace(config, text=10**12)
    shard = len(config.population)
    assert shard < long.num_shards and not long.blocks(shard)
    table = rendered(config)
    assert checked(long, tmp_path, [], table.schema, shard=shard).findings == []
    found = checked(long, tmp_path, table.to_pylist(), table.schema, shard=shard).findings
    assert [one.kind for one in found] == ["added"]
