"""Pushes to a store: whole or not at all, checked, resumable; against an S3 server on this machine, and on a disk."""

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.plan import make_plan
from caef_data.tests.commands import call, contents
from caef_data.tests.sizes import LONG

if TYPE_CHECKING:
    from caef_data.tests.s3_server import S3Server

URL = "s3://bucket/some/place"
PREFIX = "some/place/"
Contents = dict[str, bytes]


def push(directory: Path, to: object = URL) -> dict[str, Any]:
    """Push a folder, and return the summary."""
    code, output = call("push", directory, "--to", to, "--json")
    assert code == 0, output
    summary: dict[str, Any] = json.loads(output[output.index("{") :])
    return summary


def folder_of(out: Path, *tasks: str, **settings: object) -> Path:
    build(make_plan(from_flags(tasks, **{"min": 1, "max": 2, "rows_per_shard": 60, **settings})), out, workers=1)
    return out


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of few shards: two."""
    return folder_of(tmp_path_factory.mktemp("small") / "data", "add", num=1, seed=7, views=["raw"])


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of more shards; the small one's are among them, with other rows."""
    return folder_of(tmp_path_factory.mktemp("large") / "data", "add", num=2, views=["one_step", "raw"])


def shards(folder: Path) -> set[str]:
    return {path for path in contents(folder) if path.endswith(".parquet")}


def arrived(there: Contents, folder: Path) -> bool:
    """Tell whether a place holds a folder's dataset, byte for byte, and no other shard; the card names the place."""
    wanted = contents(folder)
    there = {path: data for path, data in there.items() if path.endswith((".parquet", ".json"))}
    return there == {path: data for path, data in wanted.items() if path != "README.md"}


def whole(there: Contents) -> bool:
    """Tell whether every shard that a manifest names is what it says; a reader without a manifest knows to wait."""
    if "manifest.json" not in there:
        return True
    splits = [split for config in json.loads(there["manifest.json"])["configs"].values() for split in config.values()]
    named = {shard["path"]: shard["sha256"] for split in splits for shard in split["shards"]}
    return named == {path: hashlib.sha256(there.get(path, b"")).hexdigest() for path in named}


def visible(there: Contents) -> Contents:
    """Return what readers see: all but what lies aside."""
    return {path: data for path, data in there.items() if not path.startswith(".caef/")}


def test_a_push_arrives_and_a_second_one_moves_nothing(s3: "S3Server", large: Path, small: Path) -> None:
    s3.put(f"{PREFIX}", b"")  # an empty folder, as consoles show it
    code, output = call("push", large, "--to", URL, "--dry-run")
    assert (code, s3.objects(PREFIX)) == (0, {"": b""})
    assert output.count("new  ") == len(shards(large)) + 2 + 1
    assert set(s3.counts()) == {"list", "head"}
    summary = push(large, f"{URL}/")
    assert arrived(s3.objects(PREFIX), large)
    assert (summary["place"], len(summary["new"])) == (URL, len(shards(large)) + 2)
    load = 'load_dataset("parquet", data_files="s3://bucket/some/place/add-one_step/train-*.parquet", split="train")'
    assert summary["load"] == load
    assert load in s3.objects(PREFIX)["README.md"].decode()
    assert call("verify", URL, "--workers", 1)[0] == 0

    s3.log.clear()
    again = push(large)
    assert (again["new"], again["changed"], again["deleted"], again["bytes"]) == ([], [], [], 0)
    assert again["unchanged"] == len(shards(large)) + 2
    assert not {"put", "copy", "delete"} & set(s3.counts())
    assert not [one for one in s3.log if one.kind == "get" and one.path.endswith(".parquet")]
    s3.put(f"{PREFIX}notes.txt", b"mine")
    s3.put(f"{PREFIX}add-one_step/notes.txt", b"mine")
    code, output = call("push", small, "--to", URL, "--dry-run")
    assert (code, output.count("deleted  ")) == (0, len(shards(large) - shards(small)) + 1)
    summary = push(small)
    assert set(summary["deleted"]) == shards(large) - shards(small)
    common = shards(small) & shards(large)
    changed = {path for path in common if contents(small)[path] != contents(large)[path]}
    assert changed
    assert set(summary["changed"]) == changed | {"manifest.json", "README.md"}
    assert set(summary["new"]) == shards(small) - common
    assert arrived(s3.objects(PREFIX), small)
    assert [path for path, data in s3.objects(PREFIX).items() if data == b"mine"]
    assert not [path for path in s3.objects(PREFIX) if path.startswith(".caef")]


def test_a_damaged_shard_there_is_replaced_alone(s3: "S3Server", small: Path) -> None:
    push(small)
    s3.put(f"{PREFIX}add-raw/test-00000-of-00001.parquet", b"cut short")
    s3.log.clear()
    assert push(small)["changed"] == ["add-raw/test-00000-of-00001.parquet"]
    assert arrived(s3.objects(PREFIX), small)


# Kills

DRIVER = """
import json, os, sys, threading
import pyarrow
import s3fs
from caef_data.cli import main
from caef_data.pipelines.folder import Folder
from caef_data.pipelines.push import store as _
from caef_data.pipelines.store import StoreFolder

pyarrow.set_cpu_count(1)
lock, counts, dies = threading.Lock(), 0, 0

def counted(work):
    def once(*args, **kwargs):
        global counts
        with lock:
            counts += 1
            if counts == dies:
                os._exit(9)
        return work(*args, **kwargs)
    return once

StoreFolder._store = counted(StoreFolder._store)
os.open, os.replace, os.unlink, os.rmdir = map(counted, (os.open, os.replace, os.unlink, os.rmdir))
for name in ("read", "put", "sizes"):
    setattr(Folder, name, counted(getattr(Folder, name)))

for line in sys.stdin:
    words, number = json.loads(line)
    if (pid := os.fork()) == 0:
        counts, dies = 0, number
        sys.argv = ["caef-data", *words]
        os.dup2(2, 1)
        try:
            main()
        except SystemExit as end:
            os._exit(end.code or 0)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def killed(
    s3_server: "S3Server", tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Path, str, int], int]]:
    """Return what pushes in a process that dies before its n-th request (0: never), and gives its exit code."""
    escapes = tmp_path_factory.mktemp("escapes") / "log"
    paths = (str(Path(__file__).parent / "hub" / "guard"), os.environ.get("PYTHONPATH", ""))
    guard = {"PYTHONPATH": os.pathsep.join(paths), "CAEF_TEST_ESCAPES": str(escapes)}
    env = {**os.environ, **s3_server.env, **guard}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", DRIVER], env=env, text=True, **pipes) as driver:

        def run(directory: Path, to: str, dies: int) -> int:
            driver.stdin.write(json.dumps([["push", str(directory), "--to", to], dies]) + "\n")
            driver.stdin.flush()
            return int(driver.stdout.readline())

        yield run
        driver.stdin.close()
    assert not escapes.exists()  # nobody left this machine


@pytest.mark.parametrize(
    ("place", "before"),
    [("store", "small"), ("store", "large"), ("disk", "small"), ("disk", "large"), ("disk", None)],
)
def test_a_push_killed_before_any_request_is_finished_by_the_next(
    s3: "S3Server",
    killed: Callable[[Path, str, int], int],
    small: Path,
    large: Path,
    tmp_path: Path,
    place: str,
    before: str | None,
) -> None:
    after = small if before == "large" else large
    disk = tmp_path / "pushed"

    def there() -> Contents:
        return s3.objects(PREFIX) if place == "store" else contents(disk)

    to, start = URL if place == "store" else f"file://{disk}", tmp_path / "start"
    if before is not None:
        push(small if before == "small" else large, to)
        shutil.copytree(disk, start) if place == "disk" else None
    first = there()
    for dies in range(3, 400, 1 if LONG else 19 if place == "store" else 11):
        code = killed(after, to, dies)
        left = there()
        assert code in (0, 9)
        assert whole(left), dies
        if left.get("manifest.json", b"") == first.get("manifest.json"):
            assert visible(left) == first, dies
        wanted = contents(after)
        right = {path for path, data in left.items() if data == wanted.get(path)}
        s3.log.clear()
        summary = push(after, to)
        assert arrived(there(), after), dies
        assert set(there()) - {"README.md"} == set(contents(after)) - {"README.md"}, dies
        again = {one.path.split("/", 3)[3] for one in s3.log if one.kind == "put" and one.path.endswith(".parquet")}
        assert not again & right, dies
        assert code == 9 or not summary["new"] + summary["changed"] + summary["deleted"]
        if code == 0:
            break
        s3.reset()
        shutil.rmtree(disk, ignore_errors=True)
        for path, data in first.items() if place == "store" else ():
            s3.put(PREFIX + path, data)
        shutil.copytree(start, disk) if start.exists() else None
    else:
        raise AssertionError("the push never ended by itself")


# Faults


@pytest.mark.parametrize("what", ["corrupt", "cut"])
def test_corruption_on_the_way_is_caught_and_sent_again(s3: "S3Server", small: Path, large: Path, what: str) -> None:
    from caef_data.tests.s3_server import Fault

    push(small)
    s3.faults.append(Fault("put", what, r"add-one_step/train-00001"))
    code, output = call("push", large, "--to", URL)
    assert code == 2
    assert "what is there is not what was sent: add-one_step/train-00001" in output
    assert "manifest.json" not in s3.objects(PREFIX)
    s3.log.clear()
    push(large)
    assert arrived(s3.objects(PREFIX), large)
    assert [one.path for one in s3.log if one.kind == "put" and "train-00001-" in one.path] == [
        one.path for one in s3.log if one.kind == "put" and one.path.endswith(".parquet")
    ]


def test_requests_are_made_again(s3: "S3Server", small: Path, large: Path) -> None:
    from caef_data.tests.s3_server import Fault

    push(large)
    kinds = ("list", "get", "head", "put", "delete")
    s3.faults += [Fault(kind, what) for kind in kinds for what in (500, 503, "drop", "lost")]
    push(small)
    assert arrived(s3.objects(PREFIX), small)


def test_a_store_that_stays_down_leaves_no_manifest(s3: "S3Server", small: Path, large: Path) -> None:
    from caef_data.tests.s3_server import Fault

    push(small)
    s3.faults.append(Fault("put", 500, "train-00002", times=5))
    code, output = call("push", large, "--to", URL)
    assert code == 2
    assert "train-00002" in output and "failed: InternalError" in output and "run the same command again" in output
    assert "manifest.json" not in s3.objects(PREFIX)
    push(large)
    assert arrived(s3.objects(PREFIX), large)


@pytest.mark.parametrize("kind", ["put", "delete", "list"])
def test_without_permission_nothing_moves(s3: "S3Server", small: Path, large: Path, kind: str) -> None:
    from caef_data.tests.s3_server import SECRET, Fault

    push(small)
    before = s3.objects(PREFIX)
    s3.faults.append(Fault(kind, 403, times=1))
    code, output = call("push", large, "--to", URL)
    assert code == 2
    assert "failed: AccessDenied" in output
    assert SECRET not in output
    assert visible(s3.objects(PREFIX)) == before


def test_what_is_refused(s3: "S3Server", small: Path, large: Path, tmp_path: Path) -> None:
    def refused(directory: Path, to: object, words: str) -> None:
        before = s3.objects()
        code, output = call("push", directory, "--to", to)
        assert (code, words in output) == (2, True), output
        assert s3.objects() == before

    s3.put("mine/notes.txt", b"mine")
    refused(small, "s3://bucket/mine", "this place holds something else")
    s3.put("app/manifest.json", b'{"name": "web app"}')
    refused(small, "s3://bucket/app", "this place holds something else")
    s3.put("building/.caef/plan.json", b"{}")
    refused(small, "s3://bucket/building", "an unfinished build lies there")
    refused(small, "s3://no-bucket/place", "failed: NoSuchBucket")
    refused(small, "s3://key:pass-word@bucket/x", "no place that can hold a dataset")
    refused(URL, small, "push takes a folder on this machine")
    damaged = Path(shutil.copytree(small, tmp_path / "damaged"))
    (damaged / "add-raw/test-00000-of-00001.parquet").write_bytes(b"PAR1")
    s3.log.clear()
    refused(damaged, URL, "differs from its manifest")
    assert s3.log == []

    def somebody(_: object) -> None:
        s3.put(f"{PREFIX}manifest.json", (large / "manifest.json").read_bytes())

    from caef_data.tests.s3_server import Fault

    push(small)
    s3.faults.append(Fault("put", somebody, "parquet$"))
    code, output = call("push", large, "--to", URL)
    assert (code, "when nobody else pushes there" in output) == (2, True)
    assert (large / "manifest.json").read_bytes() == s3.objects(PREFIX)["manifest.json"]


def test_ctrl_c(s3: "S3Server", small: Path) -> None:
    from caef_data.tests.s3_server import Fault

    asked, over = threading.Event(), threading.Event()
    s3.faults.append(Fault("put", lambda _: asked.set() or over.wait(60), "parquet$"))
    code = "from caef_data.__main__ import run; run()"
    words = [sys.executable, "-c", code, "push", small, "--to", URL]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert asked.wait(60)
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=30)[1]  # it does not wait for the store
    over.set()
    assert (process.returncode, f"go on with: caef-data push {small} --to {URL}" in errors) == (130, True)
    push(small)
    assert arrived(s3.objects(PREFIX), small)


# Folders


def test_folders_as_targets(small: Path, large: Path, tmp_path: Path) -> None:
    out = tmp_path / "a b"
    code, output = call("push", large, "--to", f"file://{out}", "--dry-run")
    assert (code, out.exists()) == (0, False)
    assert push(large, out)["load"] == f'load_dataset("{out}", "add-one_step", split="train")'
    assert arrived(contents(out), large)
    assert call("verify", out, "--workers", 1)[0] == 0
    assert push(small, f"file://{out}")["deleted"]
    assert arrived(contents(out), small)
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "add-raw", "manifest.json"]
    for to, words in (
        (small, "the folder itself"),
        (small / "sub" / "deep", "this lies in the folder that is pushed"),
        (small.parent, "the folder that is pushed lies in this one"),
        (small / "manifest.json", "is a file"),
        (tmp_path, "something else"),
    ):
        code, output = call("push", small, "--to", to)
        assert (code, words in output) == (2, True), output
    link = tmp_path / "link"
    link.symlink_to(small)
    assert "the folder itself" in call("push", small, "--to", link)[1]
    assert "lies in the folder" in call("push", small, "--to", f"file://{link}/sub")[1] and not (link / "sub").exists()


def test_a_full_disk_leaves_no_manifest(small: Path, large: Path, tmp_path: Path) -> None:
    push(small, tmp_path / "out")
    code = "import sys; from caef_data.cli import main; main()"
    limit = sorted(path.stat().st_size for path in large.rglob("*.parquet"))[-1] - 1

    def full() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    words = [sys.executable, "-c", code, "push", large, "--to", f"file://{tmp_path / 'out'}"]
    result = subprocess.run(words, preexec_fn=full, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "the disk is full" in result.stderr
    assert "Traceback" not in result.stderr
    assert "manifest.json" not in contents(tmp_path / "out")
    push(large, tmp_path / "out")
    assert arrived(contents(tmp_path / "out"), large)


def test_what_a_person_wrote_into_the_card_of_a_copy_stays(smoke: Path, tmp_path: Path) -> None:
    folder, copy = Path(shutil.copytree(smoke, tmp_path / "data")), tmp_path / "copy"
    push(folder, copy)
    card = copy / "README.md"
    card.write_text(card.read_text() + "\nMine.\n")
    push(folder, copy)
    assert card.read_text().endswith("\nMine.\n")
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nOther words.\n")
    code, output = call("push", folder, "--to", copy)
    assert code == 2 and "changed there" in output
    assert card.read_text().endswith("\nMine.\n")
