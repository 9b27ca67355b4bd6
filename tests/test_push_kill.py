"""``caef-data push`` that ends badly: killed at a request, interrupted. The same command finishes the work.

``make test-all`` kills it at every request.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from caef_data.tests.hub.faults import Fault
from caef_data.tests.pushing import UPLOADS, WRITES, Side, identity, make_folder, shards
from caef_data.tests.sizes import LONG


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("built") / "data", rows_per_shard=50)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("built") / "old", seed=7, rows_per_shard=30)


@pytest.fixture(scope="module", params=["lfs", "xet"])
def side(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    """Return a client whose pushes are all processes of their own."""
    with Side(tmp_path_factory.mktemp(request.param), request.param == "xet") as one:
        yield one
        one.check()


@pytest.mark.timeout(900 if LONG else 300)
def test_a_kill_at_a_request(side: Side, old: Path, data: Path) -> None:
    requests = len(side.push(data, "--repo", side.seed(old), forked=True).log)
    assert requests > 10
    for at in range(requests) if LONG else range(1, requests, requests // 3):
        repo = side.seed(old)
        # Before the request is served, or after: what was asked for is done or not, and no answer came.
        fault = Fault("*", "", "meanwhile" if at % 2 else "lost", after=at, action=side.kill)
        side.hub.faults.append(fault)
        killed = side.run(data, "--repo", repo, forked=True)
        side.hub.faults.clear()
        assert killed.code == -signal.SIGKILL and fault.fired == 1, (at, killed.code, killed.err)
        assert side.shards(repo) in (shards(old), shards(data)), at
        again = side.push(data, "--repo", repo, forked=True)
        assert side.shards(repo) == shards(data), at
        assert side.tags(repo)[identity(data)] == side.hub.repos[repo].branches["main"], at
        sent = {one.path for one in killed.requests("lfs-put") if one.status == 200}
        assert not sent & {one.path for one in again.requests("lfs-put")}, at
    assert not side.push(data, "--repo", repo, forked=True).requests(*UPLOADS, *WRITES)


def test_an_interrupt_says_how_to_go_on(side: Side, data: Path) -> None:
    repo = side.new()
    fault = side.hub.fault("commit", "stall", action=lambda: side.kill(signal.SIGINT))
    done = side.run(data, "--repo", repo, forked=True)
    assert fault.fired == 1 and done.code == 130
    assert f"go on with: caef-data push {data} --repo {repo}" in done.err and "Traceback" not in done.err
    assert side.shards(repo) == {}
    assert not side.push(data, "--repo", repo, forked=True).requests("lfs-put")
