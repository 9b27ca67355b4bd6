"""Processes that end badly: killed, interrupted, out of disk, two at once. The same command always finishes the work.

``make test-all`` kills 25 builds of ``smoke`` instead of 5 of a smaller declaration.
"""

import contextlib
import errno
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from caef_data.errors import UserError
from caef_data.eval.backends.ranks import rank_of_process
from caef_data.eval.report.page import render
from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.plan import make_plan
from caef_data.pipelines.ray_engine import ray_engine
from caef_data.tests.commands import everything
from caef_data.tests.sizes import LONG

KILLS = 25 if LONG else 3
SMALL = """
min = 1
max = 3
num = 8
rows_per_shard = 150
views = ["one_step", "full", "raw"]
[[task]]
task = ["add", "mul", "left_mask"]
"""
# Long enough that the build is certainly at work when its first shard is there, whatever the machine.
BUSY = ["--task", "add", "--min", "1", "--max", "50", "--num", "8", "--split", "train", "--rows-per-shard", "4000"]


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "caef_data", *map(str, words)]


def start(*words: object) -> "subprocess.Popen[str]":
    """Start a command as the leader of a session of its own."""
    return subprocess.Popen(
        command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def run(*words: object, prepare: Callable[[], None] | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(*words), capture_output=True, text=True, timeout=200, preexec_fn=prepare)


def until(true: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Wait until something is true; fail the test if it does not become so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not in {seconds} s: {what}"
        time.sleep(0.01)


def members(session: int) -> list[psutil.Process]:
    """Return the living processes of a session."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def workers_of(build_: "subprocess.Popen[str]") -> list[psutil.Process]:
    """Return the worker processes: children of the fork server, which is a child of the build."""
    return [grandchild for child in psutil.Process(build_.pid).children() for grandchild in child.children()]


def ended(build_: "subprocess.Popen[str]") -> tuple[int, str]:
    """Wait for a build and all that it started; return its exit code and what it wrote to stderr."""
    _, errors = build_.communicate(timeout=30)
    until(lambda: not members(build_.pid), "processes of the build are left", 20)
    return build_.returncode, errors


def busy(out: Path, workers: int = 2) -> "subprocess.Popen[str]":
    """Start a long build and return once its first shard is finished."""
    running = start("build", *BUSY, "--out", out, "--workers", workers)
    until(lambda: (out / ".caef" / "shards.jsonl").exists() or running.poll() is not None, "a first shard")
    assert running.poll() is None, running.communicate()
    return running


@pytest.fixture(scope="module")
def declaration(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("declaration") / "small.toml"
    path.write_text(SMALL)
    return "smoke" if LONG else str(path)


@pytest.fixture(scope="module")
def uninterrupted(declaration: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], float]:
    """Return what an uninterrupted build leaves, and the seconds that it takes."""
    out = tmp_path_factory.mktemp("uninterrupted") / "data"
    begin = time.monotonic()
    result = run("build", declaration, "--out", out, "--workers", 2)
    assert result.returncode == 0, result.stderr
    return everything(out), time.monotonic() - begin


@pytest.fixture(scope="module")
def busy_reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("busy") / "data"
    assert run("build", *BUSY, "--out", out).returncode == 0
    return everything(out)


@pytest.mark.parametrize("number", range(KILLS))
def test_a_killed_build_is_finished_by_the_same_command(
    declaration: str, uninterrupted: tuple[dict[str, bytes], float], tmp_path: Path, number: int
) -> None:
    reference, seconds = uninterrupted
    out = tmp_path / "data"
    words = ("build", declaration, "--out", out, "--workers", 2)
    running = start(*words)
    time.sleep(seconds * (0.15 + 0.9 * number / KILLS))
    if number % 2:
        os.killpg(running.pid, signal.SIGKILL)
    else:
        running.kill()  # its fork server and workers must notice by themselves
    code, _ = ended(running)
    assert code in (-signal.SIGKILL, 0)
    result = run(*words)
    assert result.returncode == 0, result.stderr
    assert everything(out) == reference


def test_the_lock_does_not_outlive_a_killed_parent(tmp_path: Path, busy_reference: dict[str, bytes]) -> None:
    out = tmp_path / "data"
    running = busy(out)
    os.killpg(running.pid, signal.SIGSTOP)
    try:
        second = run("build", *BUSY, "--out", out)
        assert second.returncode == 2
        assert "another build is writing into this folder" in second.stderr
        assert str(out) in second.stderr
        assert "Traceback" not in second.stderr
        assert run("info", out).returncode == 0
        left = workers_of(running)
        assert left
        running.kill()
        until(lambda: running.poll() is not None, "the build dies")
        assert all(worker.is_running() for worker in left)  # stopped, so they live on for now
        handle = os.open(out, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(handle)
    finally:
        os.killpg(running.pid, signal.SIGCONT)
    ended(running)
    assert run("build", *BUSY, "--out", out).returncode == 0
    assert everything(out) == busy_reference


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_leaves_a_folder_to_go_on_with(tmp_path: Path, busy_reference: dict[str, bytes], workers: int) -> None:
    out = tmp_path / "data"
    running = busy(out, workers)
    begin = time.monotonic()
    os.killpg(running.pid, signal.SIGINT)  # what a terminal does
    code, errors = ended(running)
    assert time.monotonic() - begin < 8
    assert code == 130
    assert "Traceback" not in errors
    assert errors.count("stopped: ") == 1
    assert f"kept in {out}; the same command goes on" in errors
    finished = len((out / ".caef" / "shards.jsonl").read_text().splitlines())
    assert f"stopped: {finished} finished shards are kept" in errors or f"stopped: {finished - 1} " in errors
    assert not list(out.rglob(".writing-*"))
    assert f"{finished} of " in run("info", out).stdout
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    result = run("build", *BUSY, "--out", out, "--workers", workers)
    assert result.returncode == 0, result.stderr
    assert everything(out) == busy_reference
    assert sum(path.stat().st_mtime_ns == before for path, before in times.items()) >= finished


@pytest.mark.parametrize("share", [0.4, 0.7])
def test_ctrl_c_at_other_moments(
    declaration: str, uninterrupted: tuple[dict[str, bytes], float], tmp_path: Path, share: float
) -> None:
    reference, seconds = uninterrupted
    out = tmp_path / "data"
    running = start("build", declaration, "--out", out, "--workers", 2)
    time.sleep(seconds * share)
    os.killpg(running.pid, signal.SIGINT)
    code, errors = ended(running)
    # before the command line is imported, Python itself reports it
    assert code in (0, 130) or (code == -signal.SIGINT and not out.exists()), errors
    assert code != 130 or "Traceback" not in errors
    assert run("build", declaration, "--out", out, "--workers", 2).returncode == 0
    assert everything(out) == reference


def test_a_killed_worker_is_told(tmp_path: Path, busy_reference: dict[str, bytes]) -> None:
    out = tmp_path / "data"
    running = busy(out)
    os.killpg(running.pid, signal.SIGSTOP)
    workers_of(running)[0].kill()
    os.killpg(running.pid, signal.SIGCONT)
    code, errors = ended(running)
    assert code == 2
    assert "error: a worker process ended: it was killed" in errors
    assert "run the same command again" in errors
    assert "Traceback" not in errors
    assert not list(out.rglob(".writing-*")) or run("info", out).returncode == 0
    assert run("build", *BUSY, "--out", out).returncode == 0
    assert everything(out) == busy_reference


def test_no_worker_outlives_a_killed_verify(smoke: Path) -> None:
    running = start("verify", smoke, "--workers", 2)
    until(lambda: bool(workers_of(running)) or running.poll() is not None, "a worker")
    running.kill()
    ended(running)


# A full disk


def limited(size: int) -> Callable[[], None]:
    def prepare() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return prepare


@pytest.mark.parametrize(("workers", "share"), [(1, 0.0), (1, 0.9), (2, 0.5)])
def test_a_full_disk_keeps_what_is_finished(
    tmp_path: Path, busy_reference: dict[str, bytes], workers: int, share: float
) -> None:
    out = tmp_path / "data"
    sizes = sorted(len(data) for path, data in busy_reference.items() if path.endswith(".parquet"))
    words = ("build", *BUSY, "--out", out, "--workers", workers)
    result = run(*words, prepare=limited(sizes[int(share * len(sizes))] if share else 20))
    assert result.returncode == 2
    assert result.stderr.count("error: the disk is full") == 1
    assert str(out) in result.stderr
    assert "finished shards are kept" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (out / "manifest.json").exists()
    assert not list(out.rglob("*.writing-*"))
    finished = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    notes = out / ".caef" / "shards.jsonl"
    noted = notes.read_text().count("\n") if notes.exists() else 0
    assert all(path.read_bytes() == busy_reference[str(path.relative_to(out))] for path in finished)
    assert run(*words).returncode == 0
    assert sum(path.stat().st_mtime_ns == before for path, before in finished.items()) >= noted
    assert everything(out) == busy_reference


@contextlib.contextmanager
def mounted(path: Path, options: str) -> Iterator[bool]:
    """Mount a file system in memory, where that is allowed."""
    path.mkdir(exist_ok=True)
    tool = shutil.which("mount")
    allowed = tool is not None and subprocess.run(
        [tool, "-t", "tmpfs", "-o", options, "tmpfs", path], capture_output=True
    ).returncode == 0  # fmt: skip
    try:
        yield allowed
    finally:
        if allowed:
            subprocess.run(["umount", path], check=True)


def test_a_small_file_system(tmp_path: Path, busy_reference: dict[str, bytes]) -> None:
    place = tmp_path / "disk"
    total = sum(map(len, busy_reference.values()))
    with mounted(place, f"size={total * 3}") as allowed:
        if not allowed:  # the limit on the size of a file, above, shows the same
            return
        filler = place / "filler"
        filler.write_bytes(bytes(total * 2 + total // 2))
        out = place / "data"
        refused = run("build", *BUSY, "--out", out)
        assert refused.returncode == 2
        assert "MB of disk" in refused.stderr or "the disk is full" in refused.stderr
        # the check of free space is passed, then somebody else fills the disk
        filler.unlink()
        running = busy(out)
        os.killpg(running.pid, signal.SIGSTOP)
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        os.killpg(running.pid, signal.SIGCONT)
        code, errors = ended(running)
        assert (code, errors.count("error: the disk is full")) == (2, 1), errors
        assert "Traceback" not in errors
        filler.unlink()
        assert run("build", *BUSY, "--out", out).returncode == 0
        assert everything(out) == busy_reference


def test_space_is_checked_before_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(from_flags(["add"], min=1, max=3, num=4))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(UserError, match="of disk"):
        build(plan, tmp_path / "data", workers=1)
    assert not (tmp_path / "data").exists()


# Places that cannot be written


@pytest.mark.parametrize("place", ["file", "file/data", "no\0thing", "\udcff", "a" * 300, "/dev/null", "/proc/nothing"])
def test_places_that_are_no_folder(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    plan = make_plan(from_flags(["left_mask"], min=1, max=2, num=1))
    if place == "\udcff":  # an odd name, but a name
        assert build(plan, tmp_path / place, workers=1)
        return
    with pytest.raises((UserError, OSError)) as caught:
        build(plan, tmp_path / place, workers=1)
    assert isinstance(caught.value, UserError) or caught.value.errno in (
        errno.ENOTDIR, errno.ENAMETOOLONG, errno.ENOENT, errno.EEXIST
    )  # fmt: skip
    assert (tmp_path / "file").read_text() == "mine"
    if "\0" not in place:
        result = run("build", "--task", "left_mask", "--max", 2, "--out", tmp_path / place)
        assert result.returncode == 2
        assert "\nerror: " in f"\n{result.stderr}"
        assert "Traceback" not in result.stderr


def test_a_read_only_folder(tmp_path: Path) -> None:
    place = tmp_path / "disk"
    with mounted(place, "ro") as allowed:
        if not allowed:
            if os.geteuid() == 0:  # nothing is read-only to the superuser but a file system
                return
            place.chmod(0o500)
        result = run("build", "--task", "left_mask", "--max", 2, "--out", place / "data")
        place.chmod(0o700) if not allowed else None
    assert result.returncode == 2
    assert "\nerror: the system refuses: " in result.stderr
    assert str(place) in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("package", "work", "doing", "extra"),
    [
        ("ray", lambda: ray_engine().__enter__(), "building on Ray", "ray"),
        ("jinja2", lambda: render(None), "a report", "report"),
        ("torch", rank_of_process, "evaluating", "eval"),
        ("torch", lambda: rank_of_process("train"), "training", "train"),
    ],
)
def test_a_missing_package_is_named_with_its_command(
    package: str, work: Callable[[], object], doing: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=f"{doing} needs {package}, which is not installed") as error:
        work()
    assert f"pip install 'caef-data[{extra}]'" in str(error.value)
