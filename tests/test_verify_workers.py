"""How ``verify`` shares out its work, and that expressions drawn once are those drawn block by block."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from caef_data.pipelines import verify_shard
from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.manifest import ShardRecord
from caef_data.pipelines.plan import Config, make_plan
from caef_data.pipelines.sampling.classes import ClassSampler
from caef_data.pipelines.verify import units, verify
from caef_data.pipelines.verify_shard import Shard, drawn_once
from caef_data.pipelines.workers import ARROW_POOL, start_fork_server
from caef_data.tests.forging import Forger

TASKS = ["add", "div", "equal", "greater_than", "left_mask", "less_than", "mul", "reflection", "sub"]


@pytest.mark.parametrize("task", TASKS)
def test_expressions_drawn_once_are_those_drawn_block_by_block(task: str) -> None:
    splits = ["train", "test", "stress"]
    views = ["one_step", "full"] if task in ("left_mask", "reflection") else ["one_step", "full", "aligner"]
    configs = make_plan(from_flags([task], max=5, num=3, splits=splits, views=views)).configs
    for split in splits:
        draw = drawn_once()
        for config in (one for one in configs if one.split == split):
            for numbers in (np.arange(len(config.population)), config.numbers(0)[:7]):
                right, variant = config.population.operands(numbers)
                operands, same = config.population.operands(numbers, draw)
                assert operands.a.decimals() == right.a.decimals() and same.tolist() == variant.tolist()
                assert (operands.b is None) == (right.b is None)
                assert operands.b is None or operands.b.decimals() == right.second.decimals()


@pytest.mark.parametrize(("held", "times"), [(verify_shard.HELD, 1), (10, 3)])
def test_expressions_are_drawn_once_unless_they_are_too_many(
    monkeypatch: pytest.MonkeyPatch, held: int, times: int
) -> None:
    (config, *_) = make_plan(from_flags(["add"], max=3, num=3, views=["raw"])).configs
    drawn, own = [], ClassSampler.drawn
    monkeypatch.setattr(ClassSampler, "drawn", lambda self, *cells: drawn.append(cells) or own(self, *cells))
    monkeypatch.setattr(verify_shard, "HELD", held)
    draw = drawn_once()
    for _ in range(3):
        config.population.operands(np.arange(5), draw)
    assert len(drawn) == times


def shards(config: Config, count: int, weight: int) -> list[Shard]:
    weighed = replace(config, text=weight * config.num_shards)
    records = [ShardRecord(f"{config.name}/{index}", 100, 1, "", {}) for index in range(count)]
    return [Shard(Path(), record, weighed, 0) for record in records]


def test_a_split_goes_to_one_worker_unless_it_is_most_of_the_work() -> None:
    configs = make_plan(from_flags(["add", "sub"], max=3, num=3, views=["raw", "aligner"])).configs
    weights = {"add": 10_000, "sub": 100}
    every = [shard for config in configs for shard in shards(config, 4, weights[config.settings.task])]
    for workers in (1, 2, 16):
        found = units(every, workers)
        names = sorted(shard.record.path + shard.config.split for unit in found for shard in unit)
        assert names == sorted(shard.record.path + shard.config.split for shard in every)
        for unit in found:
            assert len({(shard.task, shard.config.split) for shard in unit}) == 1
        of_add = [unit for unit in found if unit[0].task == "add"]
        splits = len({unit[0].config.split for unit in of_add})
        assert found[0] is of_add[0] and (len(of_add) == splits) == (workers == 1)
        assert len([unit for unit in found if unit[0].task == "sub"]) == splits


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
    assert tasks == ["add"] * 2 + ["equal"] * 2


def test_arrow_of_workers_uses_jemalloc_and_the_environment_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ARROW_POOL, raising=False)
    start_fork_server()
    assert ARROW_POOL not in os.environ
    with ProcessPoolExecutor(1, multiprocessing.get_context("forkserver")) as pool:
        assert pool.submit(eval, "__import__('pyarrow').default_memory_pool().backend_name").result() == "jemalloc"
