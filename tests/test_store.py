"""Builds on a store: the same bytes as on a disk, resumable, one at a time; against an S3 server on this machine."""

import json
import re
import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from caef_data.errors import UserError
from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.folder import Folder
from caef_data.pipelines.plan import Plan, make_plan
from caef_data.pipelines.store import open_folder
from caef_data.tests.commands import call, changed, contents

if TYPE_CHECKING:
    from caef_data.tests.s3_server import S3Server

URL = "s3://bucket/some/place"
PREFIX = "some/place/"
FLAGS = ["--max", "2", "--num", "1", "--rows-per-shard", "60", "--view", "one_step", "--view", "raw"]
SHARD = "add-one_step/train-00000-of-00003.parquet"


def plan_of(*tasks: str, **settings: object) -> Plan:
    return make_plan(
        from_flags(
            tasks, **{"min": 1, "max": 2, "num": 1, "rows_per_shard": 60, "views": ["one_step", "raw"], **settings}
        )
    )


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder on disk: add."""
    out = tmp_path_factory.mktemp("local") / "data"
    build(plan_of("add"), out, workers=1)
    return out


def parquet(server: "S3Server", kind: str = "put") -> list[str]:
    """Return the shards that were asked for since the log was cleared, in a way."""
    return [one.path for one in server.log if one.kind == kind and one.path.endswith(".parquet")]


def test_a_build_equals_one_on_disk_and_reads_like_it(s3: "S3Server", local: Path, tmp_path: Path) -> None:
    code, output = call("build", "--task", "add", *FLAGS, "--out", f"{URL}/", "--workers", 2)
    assert code == 0, output
    assert s3.objects(PREFIX) == contents(local)
    assert len(parquet(s3)) == len(set(parquet(s3))) == len([*local.rglob("*.parquet")])
    s3.log.clear()
    code, output = call("build", "--task", "add", *FLAGS, "--out", URL, "--workers", 1)
    assert (code, parquet(s3)) == (0, [])
    assert call("info", URL)[1] == call("info", local)[1].replace(str(local), URL)
    assert json.loads(call("verify", URL, "--json", "--workers", 1)[1])["rows"] > 100

    lines = dict(line.split(":", 1) for line in output.splitlines() if re.match("check it|read it", line))
    assert call(*lines["check it"].split()[1:], "--workers", 1)[0] == 0
    from datasets import load_dataset

    rows = eval(lines["read it"], {"load_dataset": lambda *a, **k: load_dataset(*a, cache_dir=tmp_path, **k)})
    assert rows.to_list() == pq.read_table(sorted(local.glob("add-one_step/train-*")), columns=None).to_pylist()


def test_workers_have_the_environment_of_their_build(
    s3_server: "S3Server", tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    build(plan_of("add"), tmp_path, workers=2)  # starts it anew, without credentials
    s3 = request.getfixturevalue("s3")
    build(plan_of("add"), URL, workers=2)
    assert s3.objects(PREFIX) == contents(tmp_path)


def test_verify_names_what_is_wrong(s3: "S3Server", local: Path) -> None:
    for path, data in contents(local).items():
        s3.put(PREFIX + path, data[:-9] + b"damaged!!" if path.startswith("add-raw") else data)
    s3.put(f"{PREFIX}add-full/train-00000-of-00001.parquet", b"left over")
    code, output = call("verify", URL, "--workers", 1)
    assert code == 1
    assert "add-raw/test-00000-of-00001.parquet" in output
    assert "add-full/train-00000-of-00001.parquet" in output
    assert "caef-data-" not in output  # the copy's place means nothing to the user


@pytest.mark.parametrize("moment", [0, 3])
def test_a_killed_build_goes_on(s3: "S3Server", local: Path, moment: int) -> None:
    from caef_data.tests.s3_server import Fault

    words = ["build", "--task", "add", *FLAGS, "--out", URL, "--workers", "1"]
    process = subprocess.Popen([sys.executable, "-m", "caef_data", *words], stderr=subprocess.PIPE)
    s3.faults.append(Fault("put", lambda _: process.kill(), path=r"\.parquet$", after=moment))
    assert process.wait(60) == -9
    process.communicate()
    noted = [path for path in s3.objects(PREFIX) if path.startswith(".caef/shards/")]
    assert len(noted) == moment
    shards = len([*local.rglob("*.parquet")])
    assert f"{moment} of {shards} shards" in call("info", URL)[1]
    for verb in ("verify", "info"):
        told = call(verb, URL)[1]
        assert f"{moment} of {shards} shards" in told and "run the command that began the build again" in told
    s3.log.clear()
    code, output = call(*words)
    assert code == 0, output
    assert s3.objects(PREFIX) == contents(local)
    assert len(parquet(s3)) == shards - moment
    assert len(set(parquet(s3, "get"))) == 2  # one for each view, for the card's examples: none is hashed again


def test_adding_overwriting_and_damage(s3: "S3Server", local: Path, tmp_path: Path) -> None:
    build(plan_of("add"), URL, workers=1)
    for name in ("notes.txt", "add-one_step/notes.txt", "add-mine/train-00000-of-00001.parquet"):
        s3.put(PREFIX + name, b"mine")
    own = {path: data for path, data in s3.objects(PREFIX).items() if data == b"mine"}
    build(plan_of("left_mask"), URL, workers=1)
    both = tmp_path / "both"
    build(plan_of("add"), both, workers=1)
    build(plan_of("left_mask"), both, workers=1)
    assert s3.objects(PREFIX) == contents(both) | own

    code, output = call("build", "--task", "add", *changed(FLAGS, "--num", 2), "--out", URL, "--workers", 1)
    assert (code, "num 1 -> 2" in output) == (2, True)
    s3.put(f"{PREFIX}left_mask-one_step/train-00000-of-00001.parquet", b"PAR1")  # another task's, which stays
    assert (
        call("build", "--task", "add", *changed(FLAGS, "--num", 2), "--out", URL, "--workers", 1, "--overwrite")[0] == 0
    )
    s3.log.clear()
    build(plan_of("left_mask"), URL, workers=1)
    assert parquet(s3) == [f"bucket/{PREFIX}left_mask-one_step/train-00000-of-00001.parquet"]
    build(plan_of("add", num=2), both, workers=1, overwrite=True)
    build(plan_of("left_mask"), both, workers=1)
    assert s3.objects(PREFIX) == contents(both) | own


def test_damaged_notes_count_for_nothing(s3: "S3Server", local: Path) -> None:
    def stop(*_: object) -> None:
        if len(parquet(s3)) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(plan_of("add"), URL, workers=1, progress=stop)
    notes = sorted(path for path in s3.objects(f"{PREFIX}.caef/shards/"))
    assert len(notes) == 4
    assert len(open_folder(URL).finished()) == 4
    for path, text in zip(notes, ('{"path": "add-one_step/train-00000-of-00003.parquet"}', "{", "[]"), strict=False):
        s3.put(f"{PREFIX}.caef/shards/{path}", text.encode())
    assert len(open_folder(URL).finished()) == 1
    s3.log.clear()
    build(plan_of("add"), URL, workers=1)
    assert s3.objects(PREFIX) == contents(local)
    assert len(parquet(s3)) == len([*local.rglob("*.parquet")]) - 1


def test_requests_are_made_again(s3: "S3Server", local: Path) -> None:
    from caef_data.tests.s3_server import Fault

    kinds = {"head": r"json$", "list": "", "put": r"parquet$", "get": r"json$", "delete": ""}
    s3.faults += [Fault(kind, what, path) for kind, path in kinds.items() for what in (500, "drop", "lost", 503)]
    s3.faults.append(Fault("put", "lost", r"plan\.json$"))
    build(plan_of("add"), URL, workers=1)
    assert s3.objects(PREFIX) == contents(local)
    s3.faults.append(Fault("put", 500, r"parquet$", times=5, after=1))
    with pytest.raises(UserError, match="failed: InternalError"):
        build(plan_of("left_mask"), URL, workers=1)
    build(plan_of("left_mask"), URL, workers=1)


def test_a_store_that_fails_while_rows_are_read_for_the_card(s3: "S3Server") -> None:
    from caef_data.tests.s3_server import Fault

    build(plan_of("add"), URL, workers=1)
    s3.faults.append(Fault("get", 500, r"add-.*parquet$", times=5))
    with pytest.raises(UserError, match=r"^reading s3://bucket/some/place/add-.*parquet failed: InternalError\n"):
        build(plan_of("left_mask"), URL, workers=1)
    build(plan_of("left_mask"), URL, workers=1)
    assert call("verify", URL, "--workers", 1)[0] == 0


@pytest.mark.parametrize(("fault", "kind", "words"), [(403, "put", "failed: AccessDenied"), (403, "list", "failed: ")])
def test_what_the_store_refuses(s3: "S3Server", fault: int, kind: str, words: str) -> None:
    from caef_data.tests.s3_server import SECRET, Fault

    s3.faults.append(Fault(kind, fault, times=1))
    code, output = call("build", "--task", "add", *FLAGS, "--out", URL, "--workers", 1)
    assert code == 2
    assert words in output
    assert URL in output
    assert SECRET not in output
    assert s3.objects(PREFIX) == {}


def test_no_bucket_and_no_credentials(s3: "S3Server", monkeypatch: pytest.MonkeyPatch) -> None:
    from s3fs import S3FileSystem

    words = ["build", "--task", "add", *FLAGS, "--workers", 1, "--out"]
    code, output = call(*words, "s3://no-bucket/place")
    assert (code, "NoSuchBucket" in output) == (2, True)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    S3FileSystem.clear_instance_cache()
    code, output = call(*words, URL)
    S3FileSystem.clear_instance_cache()
    assert (code, "NoCredentialsError" in output) == (2, True)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3")
    for command in (words, ["info"], ["verify"]):
        code, output = call(*command, URL)
        assert (code, "pip install 'caef-data[s3]'" in output) == (2, True)


def test_a_server_that_is_not_there(s3: "S3Server", monkeypatch: pytest.MonkeyPatch) -> None:
    from s3fs import S3FileSystem

    monkeypatch.setattr(S3FileSystem, "retries", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    S3FileSystem.clear_instance_cache()
    code, output = call("info", URL)
    S3FileSystem.clear_instance_cache()
    assert (code, f"{URL}/manifest.json failed: EndpointConnectionError" in output) == (2, True), output


def test_what_is_not_ours_is_left_alone(s3: "S3Server") -> None:
    words = ["build", "--task", "add", *FLAGS, "--workers", 1, "--overwrite", "--out"]
    s3.put(f"{PREFIX}notes.txt", b"mine")
    code, output = call(*words, URL)
    assert (code, "is left alone" in output) == (2, True)
    s3.put("other/manifest.json", b'{"name": "web app"}')
    code, output = call(*words, "s3://bucket/other")
    assert (code, "manifest.json cannot be understood" in output) == (2, True)
    assert s3.objects() == {f"{PREFIX}notes.txt": b"mine", "other/manifest.json": b'{"name": "web app"}'}
    s3.put("made-by-hand/", b"")  # how consoles show an empty folder
    assert call(*words, "s3://bucket/made-by-hand")[0] == 0


@pytest.mark.parametrize(
    "url",
    [
        *("s3://key:pass-word@bucket/x", "memory://x", "s3:/bucket/x", "S3:bucket", "file:/x", "http://host/x"),
        *("simplecache::s3://bucket/x", "s3://", "s3:///x", "s3://bucket//x", "s3://bucket/../x", "s3://bucket/x*"),
        *("s3://bucket/x?versionId=1", "s3://bucket/x::y", "s3://bucket/\x1b[31m", "file://x"),
    ],
)
def test_urls_that_cannot_be_meant(url: str) -> None:
    for command in (["build", "--task", "add", "--out"], ["info"], ["verify"]):
        code, output = call(*command, url)
        assert (code, "no place that can hold a dataset" in output) == (2, True), output
        assert "pass-word" not in output
        assert "\x1b" not in output


def test_a_store_whose_client_is_not_installed() -> None:
    code, output = call("info", "gs://bucket/x")
    assert (code, "pip install 'caef-data[s3]' gcsfs" in output) == (2, True), output


def test_a_file_url_is_a_folder(tmp_path: Path, local: Path) -> None:
    folder = open_folder(f"file://{tmp_path}/a b/")
    assert isinstance(folder, Folder)
    assert folder.path == tmp_path / "a b"
    code, output = call("build", "--task", "add", *FLAGS, "--out", f"file://{tmp_path}/data", "--workers", 1)
    assert code == 0
    assert f'load_dataset("{tmp_path}/data", "add-one_step", split="train")' in output
    assert contents(tmp_path / "data") == contents(local)
