"""Builds on Ray: a real cluster of several nodes on this machine, nodes and workers that are killed, the same bytes."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from caef_data.cli import app
from caef_data.errors import UserError
from caef_data.pipelines import ray_engine as engine_module
from caef_data.pipelines.build import ConfigResult, build, choose_engine
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.engine import Engine, write_shard
from caef_data.pipelines.folder import Folder
from caef_data.pipelines.manifest import ShardRecord
from caef_data.pipelines.plan import Config, Plan, make_plan
from caef_data.pipelines.ray_engine import ray_engine
from caef_data.tests.commands import contents
from caef_data.tm.machine import REGISTRY

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
    pytest.mark.xdist_group("ray"),  # one cluster for all of these
]
FLAGS = {"min": 1, "max": 60, "num": 10, "rows_per_shard": 4000, "splits": ["train"]}
WORDS = ["--min", 1, "--max", 60, "--num", 10, "--rows-per-shard", 4000, "--split", "train"]
NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}
Progress = Callable[[Config, ShardRecord, bool], None]


@pytest.fixture(scope="module", autouse=True)
def home(request: pytest.FixtureRequest) -> Iterator[None]:
    """Keep Ray's files in a folder of these tests; clusters of other tests and people are out of sight."""
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # the names of its sockets must be short
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else it leaves a token in the home folder
        patch.delenv("RAY_ADDRESS", raising=False)
        if importlib.util.find_spec("moto") is not None:  # the nodes are to find the store, too
            for name, value in request.getfixturevalue("s3_server").env.items():
                patch.setenv(name, value)
        engine_module.keep_quiet()
        yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Start a cluster of two nodes."""
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        found.add_node(**NODE)
        yield found
    finally:
        found.shutdown()


def plan_of(**more: Any) -> Plan:
    return make_plan(from_flags(["sub"], **{**FLAGS, **more}))


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return what a build by one process writes."""
    out = tmp_path_factory.mktemp("local") / "data"
    assert sum(result.built for result in build(plan_of(), out, workers=1)) > 20
    return contents(out)


def build_on(address: str, out: Path | str, plan: Plan, progress: Progress | None = None) -> list[ConfigResult]:
    with pytest.MonkeyPatch.context() as patch, ray_engine_at(address, patch) as engine:
        return build(plan, out, engine=engine, progress=progress)


def ray_engine_at(address: str, patch: pytest.MonkeyPatch) -> AbstractContextManager[Engine]:
    patch.setenv("RAY_ADDRESS", address)
    return ray_engine()


def busy(raylet: int) -> list[psutil.Process]:
    """Return the workers of a node that make a shard at this moment."""
    found = []
    for process in psutil.Process(raylet).children():
        try:
            if process.cmdline()[:1] == ["ray::make_shard"]:
                found.append(process)
        except psutil.Error:
            continue
    return found


class Killer:
    """Kills, once some shards are finished, what is at work on a node: its worker, or the node itself."""

    def __init__(self, node: Any, out: Path, kill: Callable[[psutil.Process], None]) -> None:
        self.raylet, self.kill = int(node.all_processes["raylet"][0].process.pid), kill
        self.finished, self.killed = 0, False
        self.out, self.aside = out, set[str]()  # files that were being written

    def __call__(self, config: Config, record: ShardRecord, kept: bool) -> None:
        self.finished += 1
        until = time.monotonic() + 1
        while self.finished >= 3 and not self.killed and time.monotonic() < until:
            self.aside |= {path.name for path in self.out.glob("*/.writing-*")}
            for worker in busy(self.raylet) if self.aside else ():
                self.kill(worker)
                self.killed = True
                break


def test_a_relative_folder_on_the_cluster_holds_the_same_bytes(
    cluster: Any, local: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the nodes stay where they were started
    killer = Killer(cluster.head_node, tmp_path / "data", psutil.Process.kill)  # Ray gives the shard to another worker
    build_on(cluster.address, "data", plan_of(), killer)
    assert killer.killed
    assert killer.aside and all(re.fullmatch(r"\.writing-[0-9a-f]{8}-train-.+", name) for name in killer.aside)
    assert contents(tmp_path / "data") == local
    import ray

    assert not ray.is_initialized()


@pytest.mark.long
def test_a_node_that_dies_loses_nothing(cluster: Any, local: dict[str, bytes], tmp_path: Path, capfd: Any) -> None:
    (node,) = cluster.worker_nodes
    out = tmp_path / "data"
    killer = Killer(node, out, lambda worker: cluster.remove_node(node, allow_graceful=False))
    build_on(cluster.address, out, plan_of(), killer)
    assert killer.killed
    assert contents(out) == local  # and nothing that was being written there
    assert capfd.readouterr() == ("", "")
    cluster.add_node(**NODE)


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("moto") is None, reason="moto is not installed")
def test_a_store_holds_the_same_bytes(cluster: Any, s3_server: Any, local: dict[str, bytes]) -> None:
    s3_server.reset()
    build_on(cluster.address, "s3://bucket/data", plan_of())
    assert s3_server.objects("data/") == local


def test_two_attempts_at_a_shard_do_not_meet(tmp_path: Path) -> None:
    config = plan_of(max=3, rows_per_shard=None).configs[0]
    first, second = Folder(tmp_path), Folder(tmp_path)
    first.attempt, second.attempt = "0123abcd-", "89abcdef-"
    record = write_shard(config, 0, first)
    again = write_shard(config, 0, second)
    second.place(again.path)
    content = (tmp_path / record.path).read_bytes()
    assert again == record and first.holds(record)
    first.place(record.path)
    assert contents(tmp_path) == {record.path: content}
    killed = write_shard(config, 0, second)
    second.sweep_aside()
    assert contents(tmp_path) == {killed.path: content}


@pytest.mark.long
def test_ctrl_c_keeps_what_is_finished_and_any_engine_goes_on(local: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "data"
    words = ["build", "--task", "sub", *WORDS, "--out", out, "--engine", "ray"]
    process = subprocess.Popen(
        [sys.executable, "-m", "caef_data", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "RAY_ADDRESS": "local"},
    )
    notes = out / ".caef" / "shards.jsonl"
    while process.poll() is None and (not notes.exists() or notes.read_text().count("\n") < 3):
        time.sleep(0.02)
    cluster = psutil.Process(process.pid).children(recursive=True)
    assert [one for one in cluster if one.name() == "raylet"]
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: it reaches the workers, too
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors and output == ""
    assert f"finished shards are kept in {out}; the same command goes on" in errors
    assert not list(out.rglob(".writing-*"))
    assert not psutil.wait_procs(cluster, timeout=20)[1]

    kept = sum(result.kept for result in build(plan_of(), out, workers=2))
    assert kept >= 3
    assert contents(out) == local


# ----------------------------------------------------------------------------------------------- a machine of one's own

MACHINE = '''
import errno, os, sys
from caef_data.tm.greater_than import GreaterThan

class Own(GreaterThan):
    """A machine that no other node has the file of."""

    name = "own"
    sign = None

    def batch(self, operands, dialect):
        if "default_worker" in sys.argv[0]:
            {fault}
        return super().batch(operands, dialect)
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Plan]]:
    """Define a machine in a file of its own, which goes wrong in workers, and plan a dataset of it.

    The file is gone before a worker could read it, as it is on other machines.
    """
    before = dict(REGISTRY)

    def define(fault: str) -> Plan:
        path = tmp_path / "own.py"
        path.write_text(MACHINE.format(fault=fault))
        spec = importlib.util.spec_from_file_location("own_of_ray", path)
        assert spec is not None and spec.loader is not None
        monkeypatch.setitem(sys.modules, "own_of_ray", importlib.util.module_from_spec(spec))
        spec.loader.exec_module(sys.modules["own_of_ray"])
        real = engine_module.packed

        def packed(*given: Any) -> Any:
            found = real(*given)
            path.unlink()
            return found

        monkeypatch.setattr(engine_module, "packed", packed)
        return make_plan(from_flags(["own"], max=2, num=3, splits=["train"], rows_per_shard=100))

    yield define
    REGISTRY.clear()
    REGISTRY.update(before)


def test_a_machine_of_ones_own_is_known_to_every_node(cluster: Any, own: Callable[[str], Plan], tmp_path: Path) -> None:
    plan = own("pass")
    build(plan, tmp_path / "local", workers=1)
    build_on(cluster.address, tmp_path / "data", plan)
    shards = [
        {name: data[name] for name in data if name.endswith(".parquet")}
        for data in map(contents, (tmp_path / "local", tmp_path / "data"))
    ]
    assert shards[0] == shards[1] and len(shards[0]) > 2


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("raise OSError(errno.ENOSPC, 'No space left on device')", UserError, "^the disk is full"),
        ("raise PermissionError(errno.EACCES, 'Permission denied', '/shared')", PermissionError, "/shared"),
        ("os._exit(1)", UserError, "lost again and again"),
    ],
    ids=["full", "refused", "dies"],
)
def test_errors_come_back_as_they_were_raised(
    cluster: Any,
    own: Callable[[str], Plan],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.setattr(engine_module, "LOSSES", 0)
    plan = own(fault)
    with pytest.raises(error, match=message) as raised:
        build_on(cluster.address, tmp_path / "data", plan)
    assert type(raised.value) is error
    assert not list((tmp_path / "data").rglob(".writing-*"))


# ---------------------------------------------------------------------------------- nodes that are not set up like this


def test_nodes_that_cannot_build_say_so(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another folder by the same name, other packages, or none at all."""
    plan = plan_of(max=2, rows_per_shard=None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="^the node .+ does not see /proc/self/cwd/data\n"):
        build_on(cluster.address, "/proc/self/cwd/data", plan)
    monkeypatch.setattr(engine_module, "_versions", lambda: {"numpy": "0.1"})
    with pytest.raises(UserError, match=r"^the node .+ has (caef_data|numpy) [\d.]+, the build was started with"):
        build_on(cluster.address, tmp_path / "other", plan)


def test_a_worker_that_was_forgotten_places_nothing(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.put(".caef/plan.json", b"{}\n")
    seen = engine_module._plan(folder)
    engine_module._check(folder, seen)
    folder.put(".caef/plan.json", b'{"another": "build"}\n')
    with pytest.raises(UserError, match="sees another build"):
        engine_module._check(folder, seen)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nonsense", "Invalid address"),
        ("127.0.0.1:x", "Unable to parse port"),
        ("ray://127.0.0.1:10001", "must run on a node"),
    ],
)
def test_a_cluster_that_cannot_be_joined(address: str, message: str, tmp_path: Path) -> None:
    start = threading.active_count()
    with pytest.raises(UserError, match=rf"^the Ray cluster cannot be joined: .*{message}.*\n  where:   RAY_ADDRESS '"):
        build_on(address, tmp_path / "data", plan_of(max=2))
    assert not (tmp_path / "data").exists()
    assert threading.active_count() == start


def test_choices_that_make_no_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="did you mean 'ray'"):
        choose_engine("rai")
    monkeypatch.setitem(sys.modules, "ray", None)
    assert CliRunner().invoke(app, ["plan", "--task", "add", "--max", "2", "--engine", "ray"]).exit_code == 0
    with pytest.raises(UserError, match=r"pip install 'caef-data\[ray\]'"), choose_engine("ray"):
        pass
