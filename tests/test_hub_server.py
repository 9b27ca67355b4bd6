"""The test Hub itself: what unmodified clients of huggingface_hub and datasets get from it."""

import hashlib
from typing import Any

import pytest

from caef_data.tests.hub.calls import api, commit, load, post, tree, whoami
from caef_data.tests.hub.card import check_card
from caef_data.tests.hub.client import ClientError
from caef_data.tests.hub.side import CARD, Side


def test_what_is_pushed_is_what_loads(side: Side) -> None:
    name, before = "user/load", len(side.hub.requests("lfs-put"))
    oid = side.pushed(name)
    assert side.files(name) == side.local
    there = side.client.call(tree, name, oid)
    large = {path: data for path, data in side.local.items() if path.endswith(".parquet")}
    assert {path: there[path] for path in large} == {p: hashlib.sha256(data).hexdigest() for p, data in large.items()}
    side.client.call(api, "create_tag", name, tag="v1")
    rows = {"train": [*range(25_000)], "test": [*range(7)]}
    assert side.client.call(load, name, "v1", streaming=True) == rows
    assert side.client.call(load, name, "v1", streaming=False) == rows
    assert len(side.hub.requests("lfs-put")) - before == (0 if side.xet else len(large))
    assert bool(side.hub.requests("xet-read-token")) == side.xet


def test_a_second_push_moves_nothing(side: Side) -> None:
    name = "user/again"
    oid = side.pushed(name)
    before = len(side.hub.log)
    assert side.pushed(name) == oid
    moving = {"lfs-put", "lfs-part", "commit"}
    assert [one for one in side.hub.log[before:] if one.endpoint in moving] == []


def test_files_arrive_in_parts(lfs_side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lfs_side.hub, "multipart_from", 100_000)
    monkeypatch.setattr(lfs_side.hub, "part_size", 30_000)
    before = len(lfs_side.hub.requests("lfs-part"))
    lfs_side.hub.fault("lfs-complete", "lost")  # asked for again, it has been done
    lfs_side.pushed("user/parts")
    assert lfs_side.files("user/parts") == lfs_side.local
    sizes = [len(data) for data in lfs_side.local.values() if len(data) >= 100_000]
    parts = len(lfs_side.hub.requests("lfs-part")) - before
    assert parts == sum(-(-size // 30_000) for size in sizes) > len(sizes)


def test_a_tree_has_pages(lfs_side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "user/pages"
    oid = lfs_side.pushed(name)
    whole, before = lfs_side.client.call(tree, name, oid), len(lfs_side.hub.requests("tree"))
    monkeypatch.setattr(lfs_side.hub, "page_size", 2)
    assert lfs_side.client.call(tree, name, oid) == whole
    nodes = len(whole) + 1  # and one folder
    assert len(lfs_side.hub.requests("tree")) - before == -(-nodes // 2)
    with pytest.raises(ClientError) as raised:
        lfs_side.client.call(api, "list_repo_tree", name, path_in_repo="nowhere")
    assert raised.value.chain[0] == "RemoteEntryNotFoundError"


def test_what_listings_say(lfs_side: Side) -> None:
    name, call = "user/listings", lfs_side.client.call
    oid = lfs_side.pushed(name)
    readme, noise = (lfs_side.hub.repos[name].head("main").tree[path] for path in ("README.md", "noise.parquet"))
    nodes = call(api, "get_paths_info", name, paths=["README.md", "a", "nowhere"])
    assert len(nodes) == 2 and readme.oid in nodes[0] and nodes[1].startswith("RepoFolder(path='a'")
    info = call(api, "repo_info", name, files_metadata=True)
    assert readme.oid in info and noise.blob.sha256 in info and f"sha='{oid}'" in info
    commits = call(api, "list_repo_commits", name)
    assert [title for one in commits for title in ("push", "initial commit") if title in one] == [
        "push",
        "initial commit",
    ]
    assert call(api, "file_exists", name, filename="README.md") and not call(api, "file_exists", name, filename="no")


def test_a_commit_is_whole_or_nothing(lfs_side: Side) -> None:
    name, call = "user/whole", lfs_side.client.call
    lfs_side.repo(name)
    with pytest.raises(ClientError) as raised:
        call(commit, name, {"x.txt": "1", "no.txt": None})
    assert raised.value.chain[0] == "RemoteEntryNotFoundError"
    oid = lfs_side.pushed("user/other")  # what is stored for one repository is not there for another
    shard = lfs_side.hub.repos["user/other"].commits[oid].tree["a/test-0.parquet"].blob
    lines = [{"key": "header", "value": {"summary": "x"}}]
    lines += [{"key": "lfsFile", "value": {"path": "x.parquet", "algo": "sha256", "oid": shard.sha256}}]
    assert call(post, f"/api/datasets/{name}/commit/main", lines) == 400
    assert lfs_side.files(name) == {}


def test_a_stale_parent_is_refused(lfs_side: Side) -> None:
    name = "user/stale"
    lfs_side.hub.add_repo(name)
    lfs_side.hub.fault("commit", "meanwhile", action=lambda: lfs_side.hub.commit(name, {"x.txt": b"theirs"}))
    with pytest.raises(ClientError) as raised:
        lfs_side.pushed(name)
    assert raised.value.status == 412
    assert lfs_side.files(name) == {"x.txt": b"theirs"}


def test_refs(lfs_side: Side) -> None:
    name, call = "user/refs", lfs_side.client.call
    repo = lfs_side.hub.add_repo(name)
    first = repo.branches["main"]
    call(api, "create_branch", name, branch="dev/one")
    second = call(commit, name, {"x.txt": "1"}, revision="dev/one")
    call(api, "create_tag", name, tag="v1", revision="dev/one")
    call(api, "create_tag", name, tag="v0", revision=first[:7])
    assert (repo.branches, repo.tags) == ({"main": first, "dev/one": second}, {"v1": second, "v0": first})
    for method, options in (("create_tag", {"tag": "v1"}), ("create_branch", {"branch": "main"})):
        with pytest.raises(ClientError) as raised:
            call(api, method, name, **options)
        assert raised.value.status == 409
    call(api, "delete_tag", name, tag="v1")
    call(api, "delete_branch", name, branch="dev/one")
    refs = call(api, "list_repo_refs", name)
    assert first in refs and second not in refs
    for method, options in (("delete_tag", {"tag": "v1"}), ("repo_info", {"revision": "dev/one"})):
        with pytest.raises(ClientError) as raised:
            call(api, method, name, **options)
        assert raised.value.chain[0] == "RevisionNotFoundError"


def test_who_may_do_what(lfs_side: Side) -> None:
    hub, call = lfs_side.hub, lfs_side.client.call
    hub.add_repo("user/open")
    hub.add_repo("user/secret", private=True)
    tokens: dict[str, str | bool] = {"anonymous": False, "nobody's": "hf_wrong", "stranger": hub.add_token("other")}
    tokens |= {role: hub.add_token("user", role) for role in ("read", "none", "write")}
    expected = {  # (see the open one, see the private one, write into the open one, into the private one)
        "anonymous": (200, 401, 401, 401),
        "nobody's": (401, 401, 401, 401),
        "stranger": (200, 404, 403, 404),
        "none": (200, 404, 403, 404),
        "read": (200, 200, 403, 403),
        "write": (200, 200, 200, 200),
    }

    def status(*args: Any, **options: Any) -> int | None:
        try:
            call(*args, **options)
        except ClientError as error:
            return error.status
        return 200

    for who, token in tokens.items():
        seen = [status(api, "repo_info", f"user/{name}", token=token) for name in ("open", "secret")]
        wrote = [status(commit, f"user/{name}", {"x.txt": who}, token=token) for name in ("open", "secret")]
        assert (*seen, *wrote) == expected[who], who
    assert call(whoami, tokens["read"])["auth"]["accessToken"]["role"] == "read"
    assert status(whoami, "hf_wrong") == 401
    with pytest.raises(ClientError) as raised:
        call(api, "repo_info", "user/secret", token=tokens["stranger"])
    assert raised.value.chain[0] == "RepositoryNotFoundError"
    assert status(api, "create_repo", "user/new", token=tokens["read"]) == 403
    url = call(api, "create_repo", "user/new", private=True)
    assert url == f"{hub.url}/datasets/user/new" and hub.repos["user/new"].private
    assert status(api, "create_repo", "user/new") == 409
    assert call(api, "create_repo", "user/new", exist_ok=True) == url


@pytest.mark.parametrize(
    ("yaml", "finding"),
    [
        ("a: [", "YAML"),
        ("- a", "no mapping"),
        ("size_categories: [10K]", "unknown"),
        ("tags: [1]", "strings"),
        ("configs: a", "list of mappings"),
        ("configs: [{config_name: 1, data_files: x}]", "must be a string"),
        ("configs: [{config_name: a}]", "data_files"),
        ("configs: [{config_name: a, data_files: x}, {config_name: a, data_files: y}]", "same name"),
        ("configs: [{config_name: a, data_files: [{split: t, path: x}, {split: t, path: y}]}]", "twice"),
    ],
)
def test_cards_are_checked(yaml: str, finding: str) -> None:
    assert finding in " ".join(check_card(f"---\n{yaml}\n---\n")[0])
    assert check_card(CARD) == ([], [])


def test_a_wrong_card_is_refused(lfs_side: Side) -> None:
    lfs_side.hub.add_repo("user/card")
    with pytest.raises(ClientError, match="no mapping") as raised:
        lfs_side.client.call(commit, "user/card", {"README.md": "---\n- a\n---\n"})
    assert raised.value.chain[0] == "ValueError"
    assert lfs_side.files("user/card") == {}
