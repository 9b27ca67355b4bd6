"""``caef-data push`` through faults: each kind on each endpoint that it uses, damage on the way, others' commits."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from caef_data.tests.hub.client import sleeps
from caef_data.tests.hub.faults import FOREVER
from caef_data.tests.pushing import UPLOADS, Side, identity, make_folder, shards

PASSING = [408, 425, 429, 500, 502, 503, 504, "drop", "reset", "lost", "truncate"]
# What a push to a new private repository and branch asks for, and what one asks for besides where another dataset lies.
FIRST = ["create-repo", "refs", "tree", "preupload", "validate-yaml", "commit", "create-tag"]
STORE = {False: ["lfs-batch", "lfs-put", "lfs-verify"], True: ["xet-write-token"]}
THEN = ["resolve-head", "resolve", "delete-tag"]


@pytest.fixture(scope="module", params=["lfs", "xet"])
def side(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    with Side(tmp_path_factory.mktemp(request.param), request.param == "xet") as one:
        yield one
        one.check()


@pytest.fixture(scope="module")
def lfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    with Side(tmp_path_factory.mktemp("one"), False) as one:
        yield one
        one.check()


@pytest.fixture(autouse=True)
def flawless(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for name in {"side", "lfs"} & set(request.fixturenames):
        hub = request.getfixturevalue(name).hub
        hub.faults.clear()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("built") / "data", rows_per_shard=50)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("built") / "old", seed=7, rows_per_shard=30)


def over_old(side: Side, old: Path, data: Path) -> str:
    """Return a repository that holds an older dataset, and the tag of the new one on it."""
    repo = side.seed(old)
    side.hub.repos[repo].tags[identity(data)] = side.hub.repos[repo].branches["main"]
    return repo


@pytest.mark.parametrize("kind", PASSING, ids=str)
def test_what_passes_is_tried_again_on_every_endpoint(side: Side, old: Path, data: Path, kind: int | str) -> None:
    repo, faults = side.new(), {}
    for name in FIRST + STORE[side.xet]:
        if (name, kind) not in {("lfs-put", "truncate"), ("commit", "truncate")}:  # these damage what arrives
            faults[name] = side.hub.fault(name, kind, after=int(name == "refs"))
    side.push(data, "--repo", repo, "--private")
    assert side.shards(repo) == shards(data) and identity(data) in side.tags(repo)
    repo = over_old(side, old, data)
    faults |= {name: side.hub.fault(name, kind) for name in [*THEN, *(["commit"] if kind != "truncate" else [])]}
    side.push(data, "--repo", repo)
    assert side.shards(repo) == shards(data)
    assert side.tags(repo)[identity(data)] == side.hub.repos[repo].branches["main"]
    assert [name for name, fault in faults.items() if fault.fired != 1] == []


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_does_not_pass_stops_at_once_and_no_secret_shows(side: Side, old: Path, data: Path, status: int) -> None:
    said = {401: "hf auth login", 403: "a token with the right to write", 404: "the spelling of --repo"}[status]
    names = FIRST + STORE[side.xet] + THEN
    for name in names:
        if (name, status) in {("refs", 404), ("delete-tag", 404)}:
            continue  # says that there is no repository: it is made; that there is no such tag any more
        repo = over_old(side, old, data) if name in THEN else side.new()
        times = 1 if name in ("lfs-put", "lfs-verify") else 2  # of these several are under way
        fault = side.hub.fault(name, status, times=times, message="no: {authorization} at http://x/y?Signature=abc")
        words = ["--private"] if name in FIRST else []
        done = side.run(data, "--repo", repo, *words)
        side.hub.faults.clear()
        assert done.code == 2 and said in done.err and "next:" in done.err, (name, done.err)
        assert fault.fired == 1 and "Traceback" not in done.err and "Signature" not in done.err, (name, done.err)
        if repo in side.hub.repos and name not in ("create-tag", "delete-tag"):
            there = side.shards(repo)
            assert there in ({}, shards(old)), name  # nothing, or what was there before


def test_a_token_of_any_form_is_kept_back(lfs: Side, data: Path) -> None:
    token = "an-unusual.token/of+its=own"
    lfs.hub.tokens[token] = lfs.hub.tokens[lfs.hub.token]
    for message in ("{authorization}", "x" * 280 + "{authorization}", "\x1b[31m{authorization}"):
        for fault in (400, 403):
            lfs.hub.fault("commit", fault, message=message)
            done = lfs.run(data, "--repo", lfs.new(), env={"HF_TOKEN": token})
            assert done.code == 2 and "\x1b" not in done.err
            assert not any(token[:size] in done.err for size in range(8, len(token))), done.err


def test_a_limit_ends_it_and_the_command_goes_on_later(lfs: Side, data: Path) -> None:
    repo = lfs.new()
    fault = lfs.hub.fault("commit", 503, times=FOREVER)
    done = lfs.run(data, "--repo", repo)
    assert done.code == 2 and "failed 8 times; the last time: HTTP 503" in done.err and fault.fired == 8
    assert f"caef-data push {data} --repo {repo}" in done.err
    assert "--dry-run" not in done.err
    lfs.hub.faults.clear()
    lfs.hub.fault("tree", 503, times=FOREVER)
    dry = lfs.run(data, "--repo", repo, "--dry-run")
    assert dry.code == 2 and f"caef-data push {data} --repo {repo} --dry-run" in dry.err
    lfs.hub.faults.clear()
    assert not lfs.push(data, "--repo", repo).requests(*UPLOADS)  # all of that was there


def test_the_client_says_nothing_itself(lfs: Side, data: Path) -> None:
    lfs.hub.fault("tree", 503)
    done = lfs.push(data, "--repo", lfs.new(), forked=True)
    assert "Retrying in" not in done.err and "thrown while requesting" not in done.err


def test_retry_after_is_honoured(lfs: Side, data: Path) -> None:
    before = len(sleeps(lfs.home))
    lfs.hub.fault("create-repo", 503, retry_after=99_999)
    lfs.hub.fault("preupload", 429, retry_after=12)
    lfs.hub.fault("create-tag", 429, retry_after=37)
    lfs.push(data, "--repo", lfs.new())
    waits = [seconds for _, seconds in sleeps(lfs.home)[before:]]
    assert waits == [600, 13, 37]  # the longest is capped; the Hub's client adds a second to its own


def test_damage_on_the_way_is_seen_not_tagged_and_mended_by_a_second_push(side: Side, data: Path) -> None:
    for endpoint in ["commit"] + ([] if side.xet else ["lfs-put"]):
        repo = side.new()
        fault = side.hub.fault(endpoint, "corrupt")
        done = side.run(data, "--repo", repo)
        assert done.code == 2 and "what arrived is not what was sent" in done.err and "not tagged" in done.err
        assert fault.fired == 1 and side.tags(repo) == {}, endpoint
        side.push(data, "--repo", repo)
        assert side.shards(repo) == shards(data) and side.tags(repo).keys() == {identity(data)}, endpoint


def test_a_commit_of_somebody_else_meanwhile(lfs: Side, old: Path, data: Path) -> None:
    repo = over_old(lfs, old, data)

    def theirs() -> None:
        lfs.hub.commit(repo, {"notes.txt": b"theirs", next(iter(shards(data))): b"damaged by them"})

    lfs.hub.fault("commit", "meanwhile", action=theirs)
    done = lfs.run(data, "--repo", repo)
    assert done.code == 2 and "has moved meanwhile, by somebody else" in done.err and "push again" in done.err
    assert identity(data) not in {
        tag for tag, oid in lfs.tags(repo).items() if oid == lfs.hub.repos[repo].branches["main"]
    }
    lfs.push(data, "--repo", repo)
    assert lfs.shards(repo) == shards(data) and lfs.hub.files(repo)["notes.txt"] == b"theirs"


def test_main_goes_from_whole_to_whole(side: Side, old: Path, data: Path) -> None:
    repo = over_old(side, old, data)
    seen: list[Any] = []
    side.hub.fault("refs", "meanwhile", times=FOREVER, action=lambda: seen.append(side.shards(repo)))
    side.push(data, "--repo", repo)
    assert all(there in (shards(old), shards(data)) for there in seen) and len(seen) >= 2
    files = [{path for path in commit.tree if path.endswith(".parquet")} for commit in history(side, repo)]
    assert files == [shards(data).keys(), shards(old).keys(), set()]


def history(side: Side, repo: str) -> list[Any]:
    """Return the commits that main has been at, the newest first."""
    commit, found = side.hub.repos[repo].head("main"), []
    while commit is not None:
        found.append(commit)
        commit = commit.parent
    return found


def test_more_files_than_a_commit_takes_are_refused_before_anything_moves(lfs: Side, data: Path) -> None:
    done = lfs.run(data, "--repo", lfs.new(), settings={"caef_data.pipelines.push.hub:MAX_OPERATIONS": 3})
    assert done.code == 2 and "the Hub takes 3 in one commit" in done.err and "--rows-per-shard" in done.err
    assert not done.requests(*UPLOADS, "commit")


def test_no_room_on_the_hub_is_told(lfs: Side, data: Path) -> None:
    for status, message in ((402, "payment required"), (403, "Private repository storage limit reached")):
        lfs.hub.fault("lfs-batch", status, message=message)
        done = lfs.run(data, "--repo", lfs.new())
        assert done.code == 2 and "settings/billing" in done.err and message in done.err


def test_a_file_that_changes_meanwhile_is_not_pushed(lfs: Side, data: Path, tmp_path: Path) -> None:
    import shutil

    for change in (lambda path: path.write_bytes(path.read_bytes()[::-1]), Path.unlink):
        folder, repo = shutil.copytree(data, tmp_path / "data", dirs_exist_ok=True), lfs.new()
        path = folder / next(iter(shards(data)))
        lfs.hub.fault("refs", "meanwhile", action=lambda change=change, path=path: change(path))
        done = lfs.run(folder, "--repo", repo)
        assert done.code == 2 and "changed while it was being pushed" in done.err, done.err
        assert lfs.shards(repo) == {} and not done.requests("commit", "create-tag")
