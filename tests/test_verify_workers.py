"""How ``verify`` shares out its work, and that expressions drawn once are those drawn block by block."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from caef_data.pipelines import verify_shard
from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.plan import Config, make_plan
from caef_data.pipelines.verify import units, verify
from caef_data.pipelines.verify_shard import Part, drawn_once, forget_drawn
from caef_data.tests.forging import Forger

TASKS = ["add", "div", "equal", "greater_than", "left_mask", "less_than", "mul", "reflection", "sub"]


@pytest.mark.parametrize("task", TASKS)
def test_expressions_drawn_once_are_those_drawn_block_by_block(task: str) -> None:
    splits = ["train", "test", "stress"]
    views = ["one_step", "full"] if task in ("left_mask", "reflection") else ["one_step", "full", "aligner"]
    configs = make_plan(from_flags([task], max=5, num=3, splits=splits, views=views)).configs
    for split in splits:
        forget_drawn()
        for config in (one for one in configs if one.split == split):
            for numbers in (np.arange(len(config.population)), config.numbers(0)[:7]):
                right, variant = config.population.operands(numbers)
                operands, same = config.population.operands(numbers, drawn_once)
                assert operands.a.decimals() == right.a.decimals() and same.tolist() == variant.tolist()
                assert (operands.b is None) == (right.b is None)
                assert operands.b is None or operands.b.decimals() == right.second.decimals()


def test_what_is_too_much_to_keep_is_drawn_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    (config, *_) = make_plan(from_flags(["add"], max=3, num=3, views=["raw"])).configs
    monkeypatch.setattr(verify_shard, "HELD", 10)
    forget_drawn()
    config.population.operands(np.arange(5), drawn_once)
    assert not verify_shard.drawn.cache_info().currsize


def parts(config: Config, count: int, rows: int) -> list[Part]:
    part = Part(
        Path(), "x", config.settings.task, config.view, config.split, "consistent", (), 0, rows, None, 1.0,
        (config, 0, slice(None)), (),
    )  # fmt: skip
    return [replace(part, path=f"{config.name}-{index}") for index in range(count)]


def test_a_split_goes_to_one_worker_unless_it_is_most_of_the_work() -> None:
    configs = make_plan(from_flags(["add", "sub"], max=3, num=3, views=["raw", "aligner"])).configs
    every = [part for config in configs for part in parts(config, 4, 100 if config.settings.task == "add" else 1)]
    every.sort(key=lambda part: (part.task, part.split, part.view))
    for workers, most in ((1, 1), (2, 2), (16, 8)):
        found = units(every, workers)
        assert sorted(part.path + part.split for unit in found for part in unit.parts) == sorted(
            part.path + part.split for part in every
        )
        for unit in found:
            assert len({(part.task, part.split) for part in unit.parts}) == 1
        of_add = [unit for unit in found if unit.parts[0].task == "add"]
        splits = len({unit.parts[0].split for unit in of_add})
        assert (len(of_add) == splits) == (workers == 1), most
        assert all(unit.keep == (len(unit.parts) > 4) for unit in of_add if workers != 2)
        assert len([unit for unit in found if unit.parts[0].task == "sub"]) == splits


def test_many_workers_tell_what_one_tells(tmp_path: Path) -> None:
    """Findings in the same order, whoever is first; a task that is large is shared out."""
    settings = from_flags(["add", "equal"], max=3, num=4, views=["one_step", "raw"], rows_per_shard=200)
    build(make_plan(settings), tmp_path / "data", workers=1)
    forger = Forger(tmp_path / "data")
    for config in ("add-one_step", "equal-one_step", "add-raw", "equal-raw"):
        shards = forger.rows(config, "test")
        shards[-1][0]["completion"] += " "
        forger.write(config, "test", [*shards[:-1], [*shards[-1], shards[0][1]]])
    reports = [verify(forger.path, workers=workers) for workers in (0, 3)]
    assert reports[0].findings == reports[1].findings and len(reports[0].findings) >= 12
    tasks = [one.path.split("-")[0] for one in reports[0].findings if one.kind == "row"]
    assert tasks == ["equal"] * 2 + ["add"] * 2  # the heavier task comes first
