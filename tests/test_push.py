"""``caef-data push`` to a Hub: what arrives is what was built, a second push moves nothing, and what is refused."""

import contextlib
import io
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from rich.console import Console

from caef_data.errors import UserError
from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import load_declaration
from caef_data.pipelines.folder import Folder
from caef_data.pipelines.plan import make_plan
from caef_data.pipelines.push.dataset import File, Progress
from caef_data.pipelines.push.hub import HubCalls
from caef_data.tests.pushing import UPLOADS, WRITES, Side, identity, make_folder, shards


@pytest.fixture(scope="module", params=["lfs", "xet"])
def side(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    with Side(tmp_path_factory.mktemp(request.param), request.param == "xet") as one:
        yield one
        one.check()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("built") / "data", rows_per_shard=30)


def load(repo: str, tag: str, folder: str, prefix: str, streaming: bool) -> list[str]:
    """Load the configs of a repository that begin with a prefix; return what is not, row by row, as it lies locally."""
    import json
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.parquet as pq

    import datasets

    off = []
    datasets.disable_progress_bars()
    configs = json.loads(Path(folder, "manifest.json").read_text())["configs"]
    for config, splits in ((name, splits) for name, splits in configs.items() if name.startswith(prefix)):
        loaded = datasets.load_dataset(repo, config, revision=tag, streaming=streaming)
        for split, own in splits.items():
            tables = [pq.read_table(Path(folder, shard["path"])) for shard in own["shards"]]
            local = pa.concat_tables(tables).to_pylist()
            if list(loaded[split]) != local or len(local) != own["rows"]:
                off.append(f"{config} {split}")
        if loaded.keys() != splits.keys():
            off.append(config)
    return off


def test_every_config_and_split_loads_as_it_was_built(side: Side, smoke: Path, data: Path) -> None:
    folder, repo = data if side.xet else smoke, side.new()
    done = side.push(folder, "--repo", repo)
    for task in ("mul-", "left_mask-", "sub-") if folder == smoke else ("",):  # smoke has many configs of each view
        assert side.client.call(load, repo, identity(folder), str(folder), task, task == "sub-") == []
    assert f'load_dataset("{repo}", ' in done.out and f'revision="{identity(folder)}")' in done.out
    assert f"{side.hub.url}/datasets/{repo}" in done.out
    assert bool(done.requests("lfs-put")) != side.xet


def test_a_second_push_moves_nothing(side: Side, data: Path) -> None:
    repo = side.new()
    first = side.push(data, "--repo", repo)
    commits, tags = list(side.hub.repos[repo].commits), side.tags(repo)
    assert first.requests(*UPLOADS) and tags == {identity(data): side.hub.repos[repo].branches["main"]}
    second = side.push(data, "--repo", repo)
    assert not second.requests(*UPLOADS, *WRITES)
    assert (list(side.hub.repos[repo].commits), side.tags(repo)) == (commits, tags)
    assert "0 files, 0 kB moved" in second.out


def test_a_smaller_push_takes_stale_shards_away_and_nothing_else(side: Side, tmp_path: Path, data: Path) -> None:
    repo, small = side.new(), make_folder(tmp_path / "small", rows_per_shard=1000)
    side.push(data, "--repo", repo)
    side.hub.commit(repo, {"notes.txt": b"mine", "other/train-00000-of-00001.parquet": b"mine too"})
    left = {"other/train-00000-of-00001.parquet": b"mine too"}
    assert len(shards(small)) < len(shards(data))
    done = side.push(small, "--repo", repo, "--json")
    assert side.shards(repo) == {**shards(small), **left}
    assert side.hub.files(repo)["notes.txt"] == b"mine"
    report = json.loads(done.out)
    assert set(report["deleted"]) == shards(data).keys() - shards(small).keys()
    assert set(report["new"]) == shards(small).keys() - shards(data).keys()
    assert report["unchanged"] == len(shards(small).keys() & shards(data).keys())
    assert report["tag"] == identity(small) and report["commit"] == side.tags(repo)[identity(small)]
    assert report["bytes"] > sum(map(len, shards(small).values())) - sum(map(len, shards(data).values()))
    # what was tagged before is still what it was
    assert side.shards(repo, identity(data)) == shards(data)


def test_a_dry_run_names_what_would_change_and_makes_nothing(side: Side, data: Path, tmp_path: Path) -> None:
    repo = side.new()
    done = side.push(data, "--repo", repo, "--dry-run")
    assert repo not in side.hub.repos and not done.requests(*UPLOADS, *WRITES)
    assert all(word in done.out for word in ("new      sub-full/", "nothing was changed", f"--repo {repo}"))
    side.push(data, "--repo", repo)
    there = side.hub.repos[repo].commits.copy()
    small = make_folder(tmp_path / "small", rows_per_shard=1000)
    done = side.push(small, "--repo", repo, "--dry-run", "--json")
    assert not done.requests(*UPLOADS, *WRITES) and side.hub.repos[repo].commits == there
    assert side.hub.repos[repo].branches.keys() == {"main"} and len(side.tags(repo)) == 1
    report = json.loads(done.out)
    assert report["dry_run"] and set(report["deleted"]) == shards(data).keys() - shards(small).keys()
    assert "README.md" in report["changed"] and "manifest.json" in report["changed"]


@pytest.fixture(scope="module")
def lfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    with Side(tmp_path_factory.mktemp("one"), xet=False) as one:
        yield one
        one.check()


def test_private_is_private_from_the_start(lfs: Side, data: Path) -> None:
    repo = lfs.new()
    lfs.push(data, "--repo", repo, "--private")
    assert lfs.hub.repos[repo].private
    lfs.push(data, "--repo", repo)  # and stays it
    assert lfs.hub.repos[repo].private
    public = lfs.hub.add_repo(lfs.new())
    done = lfs.run(data, "--repo", public.name, "--private")
    assert done.code == 2 and "exists and is public" in done.err and not done.requests("preupload", *UPLOADS, *WRITES)


def test_the_tag_follows_the_card_but_not_the_commits_of_others(lfs: Side, data: Path) -> None:
    repo, tag = lfs.new(), identity(data)
    lfs.push(data, "--repo", repo)
    first = lfs.tags(repo)[tag]
    lfs.hub.commit(repo, {"notes.txt": b"mine"})
    assert not lfs.push(data, "--repo", repo).requests(*WRITES)
    assert lfs.tags(repo)[tag] == first  # it names the same files there
    earlier = lfs.hub.files(repo)["README.md"].replace(b"What a row is", b"What rows are")
    lfs.hub.repos[repo].tags[tag] = lfs.hub.commit(repo, {"README.md": earlier}).oid
    lfs.push(data, "--repo", repo)
    assert lfs.tags(repo)[tag] == lfs.hub.repos[repo].branches["main"] != first


def test_the_declaration_may_name_the_repository(lfs: Side, tmp_path: Path) -> None:
    repo = lfs.new()
    (tmp_path / "mine.toml").write_text(f'name = "mine"\nrepo = "{repo}"\nmin = 1\nmax = 2\n[[task]]\ntask = "add"\n')
    folder = tmp_path / "data"
    build(make_plan(load_declaration(str(tmp_path / "mine.toml"))), folder, workers=1)
    lfs.push(folder)
    assert lfs.shards(repo) == shards(folder)


def test_a_repository_that_holds_something_else_is_left_alone(lfs: Side, data: Path) -> None:
    for files in ({"model.bin": b"1"}, {"manifest.json": b'{"\x1b[31mname": 1}'}, {"manifest.json": b"no JSON"}):
        repo = lfs.hub.add_repo(lfs.new())
        lfs.hub.commit(repo.name, files)
        before = dict(lfs.hub.files(repo.name))
        for words in ([], ["--dry-run"]):
            done = lfs.run(data, "--repo", repo.name, *words)
            assert done.code == 2 and "holds something else" in done.err and "\x1b" not in done.err
            assert not done.requests(*UPLOADS, *WRITES)
        assert dict(lfs.hub.files(repo.name)) == before
    empty = lfs.hub.add_repo(lfs.new())
    lfs.hub.commit(empty.name, {"README.md": b"# Soon", ".gitattributes": b""})
    lfs.push(data, "--repo", empty.name)


def test_a_token_that_may_not_write_moves_nothing(lfs: Side, data: Path) -> None:
    repo = lfs.hub.add_repo(lfs.new())
    for token in (lfs.hub.add_token("user", "read"), lfs.hub.add_token("stranger")):
        for name in (repo.name, lfs.new()):
            done = lfs.run(data, "--repo", name, env={"HF_TOKEN": token})
            assert done.code == 2 and token not in done.err
            assert "HTTP 403" in done.err and "settings/tokens" in done.err
            assert ("testing the right to write" in done.err) == (name == repo.name)
            assert not done.requests(*UPLOADS) and len(repo.commits) == 1
    done = lfs.run(data, "--repo", repo.name, env={"HF_TOKEN": "hf_unknown"})
    assert done.code == 2 and "HTTP 401" in done.err and "hf auth login" in done.err and "hf_unknown" not in done.err
    lfs.hub.add_repo("org/hidden", private=True)
    assert lfs.run(data, "--repo", "org/hidden").code == 2


@pytest.mark.parametrize(
    ("words", "env", "said"),
    [
        ([], {}, "--repo user/name"),
        (["--repo", "data"], {}, "cannot be the name of a repository"),
        (["--repo", "a/b/c"], {}, "cannot be the name of a repository"),
        (["--repo", "user/na..me"], {}, "cannot be the name of a repository"),
        (["--repo", "user/\x1b[31m"], {}, "\\x1b[31m"),
        (["--repo", "user/" + "x" * 5000], {}, "5,005 characters"),
        (["--repo", "user/data", "--to", "s3://bucket/prefix"], {}, "--to"),
        (["--to", "s3://bucket/prefix", "--private"], {}, "--to"),
        (["--repo", "user/data"], {"HF_TOKEN": None}, "hf auth login"),
        (["--repo", "user/data"], {"HF_TOKEN": "hf_\u00e4\u00f6"}, "characters that no token has"),
        (["--repo", "user/data"], {"HF_TOKEN": "hf_a b"}, "characters that no token has"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_request(
    lfs: Side, data: Path, words: list[str], env: dict[str, str | None], said: str
) -> None:
    done = lfs.run(data, *words, env=env)
    assert done.code == 2 and said in done.err and "Traceback" not in done.err and "\x1b" not in done.err
    assert done.log == []
    assert not env.get("HF_TOKEN") or str(env["HF_TOKEN"]) not in done.err


def test_an_unfinished_or_damaged_folder_is_refused_before_the_first_request(
    lfs: Side, data: Path, tmp_path: Path
) -> None:
    def broken(name: str) -> Path:
        return shutil.copytree(data, tmp_path / name)

    unfinished = broken("unfinished")
    (unfinished / ".caef").mkdir()
    plan = {"identity": "0" * 16, "command": "caef-data build x", "tasks": {}, "shards": []}
    (unfinished / ".caef" / "plan.json").write_text(json.dumps(plan))
    flipped = broken("flipped")
    shard = next(flipped.glob("*/*.parquet"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    missing = broken("missing")
    next(missing.glob("*/*.parquet")).unlink()
    stray = broken("stray")
    shutil.copy(shard, stray / shard.parent.name / "train-00007-of-00009.parquet")
    no_manifest = broken("no manifest")
    (no_manifest / "manifest.json").unlink()
    outside = broken("outside")
    manifest = (outside / "manifest.json").read_text()
    path = next(iter(shards(outside)))
    (outside / "manifest.json").write_text(manifest.replace(path, "../../etc/passwd"))
    for folder, said in (
        (unfinished, "not finished"),
        (flipped, "differs from its manifest"),
        (missing, "differs from its manifest"),
        (stray, "train-00007-of-00009.parquet is no part of the dataset"),
        (no_manifest, "there is no dataset here"),
        (outside, "manifest.json cannot be understood"),
        (tmp_path / "nowhere", "there is no dataset here"),
    ):
        done = lfs.run(folder, "--repo", lfs.new())
        assert done.code == 2 and said in done.err and done.log == [], (folder, done.err)
    assert not (tmp_path / "nowhere").exists()


def test_links_in_the_folder_are_followed_only_to_what_the_manifest_names(
    lfs: Side, data: Path, tmp_path: Path
) -> None:
    folder, repo = shutil.copytree(data, tmp_path / "~data"), lfs.new()
    shard = next(folder.glob("*/*.parquet"))
    shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(tmp_path / "elsewhere")
    (folder / "secret").symlink_to("/etc/passwd")
    lfs.push(folder, "--repo", repo)
    assert lfs.shards(repo) == shards(data)
    assert lfs.hub.files(repo).keys() == {*shards(data), "README.md", "manifest.json", ".gitattributes"}
    shard.unlink()
    shard.symlink_to("/etc/passwd")
    done = lfs.run(folder, "--repo", lfs.new())
    assert done.code == 2 and done.log == []


def test_no_build_gets_into_the_folder_meanwhile(lfs: Side, data: Path) -> None:
    got_in: list[bool] = []

    def build_into_it() -> None:
        with contextlib.suppress(UserError), Folder(data).lock():
            got_in.append(True)
        with Folder(data).lock(shared=True):  # others may push it too
            got_in.append(False)

    lfs.hub.fault("commit", "meanwhile", action=build_into_it)
    lfs.push(data, "--repo", lfs.new())
    assert got_in == [False]


def test_what_the_hub_is_told_to_ignore_is_pushed_all_the_same(lfs: Side, data: Path) -> None:
    repo = lfs.seed(data)
    lfs.hub.commit(repo, {".gitignore": b"*.parquet\n", next(iter(shards(data))): None})
    lfs.push(data, "--repo", repo)
    assert lfs.shards(repo) == shards(data)


def test_offline_is_said_and_not_waited_for(lfs: Side, data: Path) -> None:
    done = lfs.run(data, "--repo", lfs.new(), settings={"huggingface_hub.constants:HF_HUB_OFFLINE": True})
    assert done.code == 2 and "HF_HUB_OFFLINE" in done.err and "again in" not in done.err


def test_a_server_that_nobody_knows_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 20)
    said: list[str] = []
    hub = HubCalls("me/sums", "caef-data push", said.append)

    def ask(**_: object) -> None:
        raise httpx2.ConnectError("no name") from socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(UserError, match="cannot be asked") as error:
        hub("reading the repository", ask)
    assert "HF_ENDPOINT" in str(error.value) and said == []


def test_lines_tell_how_far_it_is_where_there_is_no_terminal(lfs: Side, data: Path) -> None:
    settings = {"caef_data.pipelines.terminal:LINE_EVERY": 0, "caef_data.pipelines.push.hub:BATCH": 3}
    done = lfs.push(data, "--repo", lfs.new(), settings=settings)
    assert re.search(r"^uploaded sub-full/.*\.parquet: .* of ", done.err, re.MULTILINE)
    assert re.search(r"^uploaded manifest\.json: (.*) of \1$", done.err, re.MULTILINE)
    assert re.search(r"^checked sub-.*\.parquet: (.*) of \1$", done.err, re.MULTILINE)
    assert len(done.requests("lfs-batch")) == -(-len(shards(data)) // 3)
    assert "B/s]" not in done.err and "%|" not in done.err  # no bars of the client's


def test_a_bar_on_a_terminal() -> None:
    out = io.StringIO()
    with Progress(
        Console(file=out, force_terminal=True, width=120, markup=False, highlight=False), "checking"
    ) as progress:
        progress.begin([File("a/[red]x.parquet", 2_000_000, ""), File("b", 2_000_000, "")])
        progress.done("uploaded", File("a/[red]x.parquet", 2_000_000, ""))
        progress.console.print("[/] is no markup")
    assert all(text in out.getvalue() for text in ("a/[red]x.parquet", "2.0 MB of 4.0 MB", "[/] is no markup"))


@pytest.mark.parametrize("package", ["huggingface_hub", "tenacity"])
def test_a_missing_extra_is_named_with_the_command(package: str, data: Path) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from caef_data.cli import main; main()"
    words = [sys.executable, "-c", code, "push", str(data), "--repo", "user/data"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and package in done.stderr and "pip install 'caef-data[hub]'" in done.stderr


MINE = b"\n## Notes\n\nMeasured on 3 May.\n"


def edit(folder: Path, text: bytes) -> Path:
    card = folder / "README.md"
    card.write_bytes(card.read_bytes() + text)
    return folder


def test_what_a_person_wrote_into_the_card_stays_wherever_it_was_written(
    side: Side, data: Path, tmp_path: Path
) -> None:
    repo, folder = side.new(), Path(shutil.copytree(data, tmp_path / "data"))
    side.push(folder, "--repo", repo)
    pushed = side.hub.files(repo)["README.md"]
    edited = pushed.replace(b"license: apache-2.0", b"license: mit") + MINE
    side.hub.commit(repo, {"README.md": edited})
    unchanged = side.push(folder, "--repo", repo)
    assert "0 files, 0 kB moved" in unchanged.out and side.hub.files(repo)["README.md"] == edited
    larger = make_folder(tmp_path / "larger", max=3, rows_per_shard=30)
    side.push(larger, "--repo", repo)  # the part that is ours is renewed, the rest stays
    renewed = side.hub.files(repo)["README.md"]
    assert renewed.endswith(MINE) and b"license: mit" in renewed and renewed != edited
    (larger / "README.md").write_bytes(renewed)  # what a conflict says to do
    side.push(larger, "--repo", repo)
    done = side.push(edit(larger, b"And here.\n"), "--repo", repo, "--dry-run")
    assert "README.md" in done.out
    side.push(larger, "--repo", repo)
    assert side.hub.files(repo)["README.md"].endswith(MINE + b"And here.\n")


def test_edits_here_and_there_are_a_conflict_before_anything_moves(side: Side, data: Path, tmp_path: Path) -> None:
    repo, folder = side.new(), Path(shutil.copytree(data, tmp_path / "data"))
    side.push(folder, "--repo", repo)
    side.hub.commit(repo, {"README.md": side.hub.files(repo)["README.md"] + MINE})
    before = side.hub.files(repo)
    done = side.run(edit(folder, b"\nOther words.\n"), "--repo", repo)
    assert done.code == 2 and "it was changed there" in done.err and "put the one from there in its place" in done.err
    assert not done.requests(*UPLOADS, "commit") and side.hub.files(repo) == before


def test_a_card_of_the_hubs_own_gets_our_part(side: Side, data: Path) -> None:
    repo = side.hub.add_repo(side.new()).name
    side.hub.commit(repo, {"README.md": b"---\nlicense: cc-by-4.0\n---\n\nMy data.\n"})
    side.push(data, "--repo", repo)
    card = side.hub.files(repo)["README.md"].decode()
    assert card.startswith("---\nlicense: cc-by-4.0\n") and "My data.\n" in card
    assert "configs:\n" in card and card.count("<!-- caef-data: begin -->") == 1
