"""``verify`` by several workers, and what they are."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.plan import make_plan
from caef_data.pipelines.verify import verify
from caef_data.pipelines.workers import POOL, start_fork_server
from caef_data.tests.forging import Forger


def test_many_workers_tell_what_one_tells(tmp_path: Path) -> None:
    """Findings in the same order, whoever is first."""
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
    monkeypatch.delenv(POOL, raising=False)
    start_fork_server()
    assert POOL not in os.environ
    with ProcessPoolExecutor(1, multiprocessing.get_context("forkserver")) as pool:
        assert pool.submit(eval, "__import__('pyarrow').default_memory_pool().backend_name").result() == "jemalloc"
