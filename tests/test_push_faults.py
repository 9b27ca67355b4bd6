"""``caef-data push`` through faults: each kind on each endpoint that it uses, damage on the way, others' commits."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from caef_data.tests.hub.client import sleeps
from caef_data.tests.hub.faults import FOREVER
from caef_data.tests.pushing import UPLOADS, Side, identity, make_folder, shards

LIMIT = "caef_data.pipelines.push.hub:MAX_OPERATIONS"
PASSING = [408, 425, 429, 500, 502, 503, 504, "drop", "reset", "lost", "truncate"]
# What a push to a new private repository and branch asks for, and what one in parts asks for besides.
FIRST = ["whoami", "create-repo", "info", "create-branch", "refs", "tree", "preupload", "validate-yaml", "commit"]
FIRST += ["resolve-head", "resolve", "create-tag"]
STORE = {False: ["lfs-batch", "lfs-put", "lfs-verify"], True: ["xet-write-token"]}
PARTS = ["discussions", "discussion", "merge", "delete-tag", "lfs-part", "lfs-complete"]


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
        hub.multipart_from = None


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


def retries(out: str) -> int:
    return int(out.partition("again: ")[2].split()[0])


@pytest.mark.parametrize("kind", PASSING, ids=str)
def test_what_passes_is_tried_again_on_every_endpoint(side: Side, data: Path, kind: int | str) -> None:
    repo, faults = side.new(), {}
    for name in FIRST + STORE[side.xet]:
        if (name, kind) not in {("lfs-put", "truncate"), ("commit", "truncate")}:  # these damage what arrives
            faults[name] = side.hub.fault(name, kind, after=int(name == "refs"))
    done = side.push(data, "--repo", repo, "--private", "--revision", "next")
    assert [name for name, fault in faults.items() if fault.fired != 1] == []
    assert side.shards(repo, "next") == shards(data) and identity(data) in side.tags(repo)
    # hf_xet does not tell of its own
    assert len(faults) - 2 <= retries(done.out) <= len(faults) + 1, done.err


@pytest.mark.parametrize("kind", PASSING, ids=str)
def test_what_passes_is_tried_again_in_a_push_in_parts(lfs: Side, old: Path, data: Path, kind: int | str) -> None:
    repo, lfs.hub.multipart_from = over_old(lfs, old, data), 1
    damaging = {("lfs-part", "truncate"), ("commit", "truncate")}
    faults = {name: lfs.hub.fault(name, kind) for name in [*PARTS, "commit"] if (name, kind) not in damaging}
    lfs.push(data, "--repo", repo, settings={LIMIT: 3})
    assert [name for name, fault in faults.items() if fault.fired != 1] == []
    assert lfs.shards(repo) == shards(data)
    assert lfs.tags(repo)[identity(data)] == lfs.hub.repos[repo].branches["main"]
    assert [one.status for one in lfs.hub.repos[repo].discussions] == ["merged"]


def test_a_silent_server_is_not_waited_for_for_ever(tmp_path: Path, old: Path, data: Path) -> None:
    settings, names = {"caef_data.pipelines.push.client:TIMEOUT": 0.3}, FIRST + STORE[False]
    env = {"HF_HUB_ETAG_TIMEOUT": "1", "HF_HUB_DOWNLOAD_TIMEOUT": "1"}  # the client's own, in whole seconds
    with Side(tmp_path, False, env) as lfs:
        faults = [lfs.hub.fault(name, "stall", after=int(name == "refs")) for name in names]
        done = lfs.push(data, "--repo", lfs.new(), "--private", "--revision", "next", settings=settings)
        assert [fault.fired for fault in faults] == [1] * len(names)
        assert done.err.count("timed out") >= len(names)
        repo = over_old(lfs, old, data)
        faults = [lfs.hub.fault(name, "stall") for name in PARTS[:4]]
        lfs.push(data, "--repo", repo, settings={**settings, LIMIT: 3})
        assert [fault.fired for fault in faults] == [1] * 4


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_does_not_pass_stops_at_once_and_no_secret_shows(side: Side, old: Path, data: Path, status: int) -> None:
    said = {401: "does not know this token", 403: "may not write to", 404: "that this token may see"}[status]
    names = FIRST + STORE[side.xet] + ([] if side.xet else PARTS[:4])
    for name in names:
        if (name, status) == ("refs", 404):
            continue  # says that there is no repository: it is made
        repo = over_old(side, old, data) if name in PARTS else side.new()
        times = 1 if name in ("lfs-put", "lfs-verify") else 2  # of these several are under way
        fault = side.hub.fault(name, status, times=times, message="no: {authorization} at http://x/y?Signature=abc")
        words = ["--private", "--revision", "next"] if name in FIRST else []
        done = side.run(data, "--repo", repo, *words, settings={LIMIT: 3} if name in PARTS else {})
        side.hub.faults.clear()
        assert done.code == 2 and said in done.err and "next:" in done.err, (name, done.err)
        assert fault.fired == 1 and "Traceback" not in done.err and "Signature" not in done.err, (name, done.err)
        if repo in side.hub.repos and name not in ("create-tag", "delete-tag", "resolve-head", "resolve"):
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


def test_the_words_of_the_client_show_once_and_escaped(lfs: Side, data: Path) -> None:
    lfs.hub.fault("tree", 503)
    done = lfs.push(data, "--repo", lfs.new(), forked=True)
    said = [line for line in done.err.splitlines() if "Retrying in" in line or "thrown while requesting" in line]
    assert len(said) == 2 and all(line.startswith("the Hub's client: '") for line in said)


def test_retry_after_is_honoured(lfs: Side, data: Path) -> None:
    before = len(sleeps(lfs.home))
    lfs.hub.fault("whoami", 429, retry_after=37)
    lfs.hub.fault("create-repo", 503, retry_after=99_999)
    lfs.hub.fault("preupload", 429, retry_after=12)
    lfs.push(data, "--repo", lfs.new())
    waits = [seconds for _, seconds in sleeps(lfs.home)[before:]]
    assert waits == [37, 600, 13]  # the longest is capped; the Hub's client adds a second to its own


def test_damage_on_the_way_is_seen_not_tagged_and_mended_by_a_second_push(side: Side, data: Path) -> None:
    for endpoint in ["commit", "resolve"] + ([] if side.xet else ["lfs-put"]):
        repo = side.new()
        fault = side.hub.fault(endpoint, "corrupt")
        done = side.run(data, "--repo", repo)
        assert done.code == 2 and "what arrived is not what was sent" in done.err and "not tagged" in done.err
        assert fault.fired == 1 and side.tags(repo) == {}, endpoint
        side.push(data, "--repo", repo)
        assert side.shards(repo) == shards(data) and side.tags(repo).keys() == {identity(data)}, endpoint


@pytest.mark.parametrize("limit", [25_000, 3])
def test_a_commit_of_somebody_else_meanwhile(lfs: Side, old: Path, data: Path, limit: int) -> None:
    repo = over_old(lfs, old, data)

    def theirs() -> None:
        lfs.hub.commit(repo, {"notes.txt": b"theirs", next(iter(shards(data))): b"damaged by them"})

    lfs.hub.fault("commit" if limit > 3 else "merge", "meanwhile", action=theirs)
    done = lfs.push(data, "--repo", repo, settings={LIMIT: limit})
    assert "has moved meanwhile" in done.err
    assert lfs.shards(repo) == shards(data) and lfs.hub.files(repo)["notes.txt"] == b"theirs"
    assert [one.status for one in lfs.hub.repos[repo].discussions] in ([], ["closed", "merged"])


def test_commits_of_others_without_end(lfs: Side, old: Path, data: Path) -> None:
    repo, counts = over_old(lfs, old, data), iter(range(100))

    def theirs() -> None:
        lfs.hub.commit(repo, {"count.txt": str(next(counts)).encode()})

    lfs.hub.fault("commit", "meanwhile", times=FOREVER, action=theirs)
    done = lfs.run(data, "--repo", repo)
    assert done.code == 2 and "others keep pushing" in done.err and lfs.shards(repo) == shards(old)


@pytest.mark.parametrize("limit", [25_000, 3])
def test_main_goes_from_whole_to_whole(side: Side, old: Path, data: Path, limit: int) -> None:
    repo = over_old(side, old, data)
    seen: list[Any] = []
    side.hub.fault("refs", "meanwhile", times=FOREVER, action=lambda: seen.append(side.shards(repo)))
    side.push(data, "--repo", repo, settings={LIMIT: limit})
    assert all(there in (shards(old), shards(data)) for there in seen) and len(seen) > 3
    files = [{path for path in commit.tree if path.endswith(".parquet")} for commit in history(side, repo)]
    assert files == [shards(data).keys(), shards(old).keys(), set()]


def history(side: Side, repo: str) -> list[Any]:
    """Return the commits that main has been at, the newest first."""
    commit, found = side.hub.repos[repo].head("main"), []
    while commit is not None:
        found.append(commit)
        commit = commit.parent
    return found


def test_a_pull_request_that_would_be_merged_elsewhere_is_closed_before_the_bulk_moves(lfs: Side, data: Path) -> None:
    repo = lfs.new()

    def into_main() -> None:
        lfs.hub.repos[repo].discussions[-1].target = "main"

    lfs.push(data, "--repo", lfs.new(), "--revision", "next", settings={LIMIT: 3})  # a Hub that does it
    lfs.hub.fault("discussion", "meanwhile", action=into_main)
    done = lfs.run(data, "--repo", repo, "--revision", "next", settings={LIMIT: 3})
    assert done.code == 2 and "it merges into main alone" in done.err
    assert lfs.shards(repo, "next") == {} and len(done.requests("lfs-put")) <= 3
    assert [one.status for one in lfs.hub.repos[repo].discussions] == ["closed"]
    # killed between the two, it looks again
    repo = lfs.new()
    lfs.hub.fault("discussion", 403)
    assert lfs.run(data, "--repo", repo, "--revision", "next", settings={LIMIT: 3}).code == 2
    into_main()
    done = lfs.run(data, "--repo", repo, "--revision", "next", settings={LIMIT: 3})
    assert done.code == 2 and "it merges into main alone" in done.err and not done.requests(*UPLOADS)


def test_a_draft_is_opened_and_a_stopped_one_gone_on_with(lfs: Side, old: Path, data: Path) -> None:
    commits = len(lfs.push(data, "--repo", over_old(lfs, old, data), settings={LIMIT: 3}).requests("commit"))
    repo = over_old(lfs, old, data)
    lfs.hub.repos[repo].open_discussion("something of the user's own", "user", "open", "main")

    def draft() -> None:
        lfs.hub.repos[repo].discussions[-1].status = "draft"

    lfs.hub.fault("commit", 403, after=1)
    assert lfs.run(data, "--repo", repo, settings={LIMIT: 3}).code == 2
    assert lfs.shards(repo) == shards(old)
    lfs.hub.fault("discussion", "meanwhile", action=draft)
    done = lfs.push(data, "--repo", repo, settings={LIMIT: 3})
    assert lfs.shards(repo) == shards(data)
    assert [one.status for one in lfs.hub.repos[repo].discussions] == ["open", "merged"]
    assert done.requests("discussion-status") and len(done.requests("commit")) == commits - 1


def test_a_file_that_changes_meanwhile_is_not_pushed(lfs: Side, data: Path, tmp_path: Path) -> None:
    import shutil

    for change in (lambda path: path.write_bytes(path.read_bytes()[::-1]), Path.unlink):
        folder, repo = shutil.copytree(data, tmp_path / "data", dirs_exist_ok=True), lfs.new()
        path = folder / next(iter(shards(data)))
        lfs.hub.fault("whoami", "meanwhile", action=lambda change=change, path=path: change(path))
        done = lfs.run(folder, "--repo", repo)
        assert done.code == 2 and "changed while it was being pushed" in done.err, done.err
        assert lfs.shards(repo) == {} and not done.requests("commit", "create-tag")
