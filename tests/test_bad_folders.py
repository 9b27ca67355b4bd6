"""Folders in a bad state: damaged, foreign, half-built, built with other settings. Nothing is lost or mixed."""

import json
import shutil
from pathlib import Path

import pytest

from caef_data.errors import UserError
from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.plan import Plan, make_plan
from caef_data.pipelines.store import open_folder
from caef_data.pipelines.verify import verify
from caef_data.tests.commands import call, changed, everything

RANGE = {"min": 1, "max": 3, "num": 4, "rows_per_shard": 150}
FLAGS = ["--min", "1", "--max", "3", "--num", "4", "--rows-per-shard", "150"]


def plan_of(*tasks: str, **settings: object) -> Plan:
    return make_plan(from_flags(tasks, **{**RANGE, **settings}))


def times(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished folder of two tasks; tests copy it."""
    out = tmp_path_factory.mktemp("built") / "data"
    build(plan_of("add", "left_mask"), out, workers=1)
    assert len(times(out)) > 8
    return out


@pytest.fixture
def data(built: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished folder, times of files included."""
    return Path(shutil.copytree(built, tmp_path / "data"))


def interrupt(plan: Plan, out: Path, after: int) -> None:
    """Start a build and stop it when ``after`` shards are finished."""
    seen = []

    def progress(*shard: object) -> None:
        seen.append(shard)
        if len(seen) == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(plan, out, workers=1, progress=progress)


# Damage


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(("damage", "position"), [(cut_short, 0), (flip, -1), (empty, 0), (Path.unlink, -1)])
def test_a_damaged_shard_is_noticed_and_rebuilt_alone(built: Path, data: Path, damage: object, position: int) -> None:
    name = sorted(times(data))[position]
    before = times(data)
    assert callable(damage)
    damage(data / name)
    code, output = call("verify", data, "--workers", 1)
    assert code == 1
    assert name in output
    report = verify(data, workers=1)
    assert {finding.path for finding in report.findings} <= {name, "manifest.json"}
    code, output = call("build", "--task", "add", "--task", "left_mask", *FLAGS, "--out", data, "--workers", 1)
    assert code == 0, output
    assert everything(data) == everything(built)
    after = times(data)
    assert {path for path in after if after[path] != before[path]} == {name}
    assert call("verify", data, "--workers", 1)[0] == 0


def test_building_another_task_beside_a_damaged_shard(data: Path) -> None:
    for path in data.glob("add-*/train-00000-*"):
        path.write_bytes(b"PAR1")
    assert call("build", "--task", "sub", *FLAGS, "--out", data, "--workers", 1)[0] == 0
    report = verify(data, workers=1)
    assert {finding.path.partition("-")[0] for finding in report.findings} <= {"add", "manifest.json"}


# What is not ours


@pytest.mark.parametrize(
    "name", ["notes.txt", ".hidden", "sub/dir/file.parquet", "add-one_step/train-00000-of-00001.parquet"]
)
def test_a_folder_with_foreign_files_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    before = everything(tmp_path)
    for flags in ([], ["--overwrite"]):
        code, output = call("build", "--task", "add", *FLAGS, "--out", tmp_path, *flags)
        assert code == 2
        assert "no manifest.json of caef-data; it is left alone" in output
        assert everything(tmp_path) == before


@pytest.mark.parametrize(
    "text", ['{"name": "web app", "icons": []}', "{}", "[]", "null", "not json", "", '{"format": 2}']
)
def test_a_foreign_or_damaged_manifest_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    before = everything(tmp_path)
    for flags in ([], ["--overwrite"]):
        code, output = call("build", "--task", "add", *FLAGS, "--out", tmp_path, *flags)
        assert code == 2
        assert "manifest.json" in output
        assert everything(tmp_path) == before
    assert call("info", tmp_path)[0] == 2
    assert call("verify", tmp_path)[0] == 2


def test_files_of_the_users_own_stay_in_our_folder(data: Path) -> None:
    for name in ("notes.txt", "add-one_step/notes.txt", "add-mine/train-00000-of-00001.parquet", ".git/config"):
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).write_text("mine")
    flags = ["--task", "add", "--min", 1, "--max", 2, "--num", 3, "--view", "raw"]
    assert call("build", *flags, "--out", data, "--workers", 1, "--overwrite")[0] == 0
    for name in ("notes.txt", "add-one_step/notes.txt", "add-mine/train-00000-of-00001.parquet", ".git/config"):
        assert (data / name).read_text() == "mine"
    assert not list(data.glob("add-one_step/*.parquet"))


# Other settings


def test_other_settings_never_mix(data: Path, tmp_path: Path) -> None:
    before = everything(data)
    words = ["build", "--task", "add", *changed(FLAGS, "--num", 5), "--out", data, "--workers", 1]
    code, output = call(*words)
    assert code == 2
    assert "num 4 -> 5" in output
    assert "--overwrite" in output
    assert everything(data) == before
    kept = {path: time for path, time in times(data).items() if path.startswith("left_mask")}
    assert call(*words, "--overwrite")[0] == 0
    assert {path: time for path, time in times(data).items() if path.startswith("left_mask")} == kept
    fresh = tmp_path / "fresh"
    build(plan_of("add", num=5), fresh, workers=1)
    after = everything(data)
    assert {path for path in after if path.startswith("add-")} == {
        path for path in everything(fresh) if path.startswith("add-")
    }
    assert all(after[path] == data_ for path, data_ in everything(fresh).items() if path.startswith("add-"))
    assert verify(data, workers=1).ok


@pytest.mark.parametrize(
    "flag", [("--seed", 7), ("--max", 2), ("--dialect", "published"), ("--no-balance",), ("--steps", "all")]
)
def test_every_setting_that_changes_rows_is_named(data: Path, flag: tuple[str, ...]) -> None:
    code, output = call("build", "--task", "add", *changed(FLAGS, *flag), "--out", data)
    assert code == 2
    assert f"{str(flag[0]).removeprefix('--').removeprefix('no-')} " in output
    assert " -> " in output


def test_an_unfinished_build_of_something_else(tmp_path: Path) -> None:
    out, fresh = tmp_path / "data", tmp_path / "fresh"
    interrupt(plan_of("add", "sub"), out, 4)
    before = everything(out)
    for words, hint in (
        (["--task", "mul", *FLAGS], ""),
        (["--task", "add", "--task", "sub", *changed(FLAGS, "--num", 5)], "num 4 -> 5"),
        (["--task", "add", *FLAGS], ""),
    ):
        code, output = call("build", *words, "--out", out, "--workers", 1)
        assert code == 2
        assert "unfinished build" in output
        assert "--overwrite" in output
        assert hint in output
        assert everything(out) == before
    code, output = call("info", out)
    assert code == 0
    assert "4 of " in output
    assert call("verify", out)[0] == 2
    assert call("build", "--task", "mul", *FLAGS, "--out", out, "--workers", 1, "--overwrite")[0] == 0
    build(plan_of("mul"), fresh, workers=1)
    assert everything(out) == everything(fresh)


def test_an_unfinished_build_is_part_of_a_larger_one(tmp_path: Path) -> None:
    out, fresh = tmp_path / "data", tmp_path / "fresh"
    interrupt(plan_of("add", splits=["train"]), out, 2)
    before = times(out)
    build(plan_of("add", "sub"), out, workers=1)
    assert before.items() <= times(out).items()
    build(plan_of("add", "sub"), fresh, workers=1)
    assert everything(out) == everything(fresh)


def test_dropping_an_unfinished_view_leaves_nothing_behind(data: Path) -> None:
    interrupt(plan_of("add", views=["full", "commands"]), data, 3)
    build(plan_of("reflection"), data, workers=1, overwrite=True)
    assert not list(data.glob("add-commands/*"))
    assert verify(data, workers=1).ok


def test_shards_made_by_older_rules_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from caef_data.pipelines import versions

    out, fresh = tmp_path / "data", tmp_path / "fresh"
    interrupt(plan_of("add"), out, 3)
    monkeypatch.setattr(versions, "TEXT_VERSION", 999)
    with pytest.raises(UserError, match="another version of caef-data"):
        build(plan_of("add"), out, workers=1)
    build(plan_of("add"), fresh, workers=1)
    build(plan_of("add"), out, workers=1, overwrite=True)
    assert everything(out) == everything(fresh)


# Notes of a build that cannot be read


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"identity": "x"}', "\x00\x01", "[" * 100_000])
def test_a_damaged_plan_file(tmp_path: Path, text: str) -> None:
    out, fresh = tmp_path / "data", tmp_path / "fresh"
    interrupt(plan_of("add"), out, 3)
    plan = out / ".caef" / "plan.json"
    plan.write_text(text)
    for words in (["info", out], ["build", "--task", "add", *FLAGS, "--out", out]):
        code, output = call(*words)
        assert code == 2
        assert str(plan) in output
        assert "remove this file" in output
    plan.unlink()
    assert call("build", "--task", "add", *FLAGS, "--out", out, "--workers", 1)[0] == 0
    build(plan_of("add"), fresh, workers=1)
    assert everything(out) == everything(fresh)


@pytest.mark.parametrize(
    "tail", ['{"path": "add-one', "{}", "7", "\n\n", '{"path": 1, "rows": 2}', "\xff\xfe", "[" * 100_000]
)
def test_damaged_notes_of_shards(tmp_path: Path, tail: str) -> None:
    out, fresh = tmp_path / "data", tmp_path / "fresh"
    interrupt(plan_of("add"), out, 3)
    notes = out / ".caef" / "shards.jsonl"
    lines = notes.read_bytes().splitlines()
    assert len(lines) == 3
    notes.write_bytes(b"\n".join([lines[0], lines[1][:40], lines[2], tail.encode("latin-1")]))
    assert set(open_folder(out).finished()) == {json.loads(lines[0])["path"], json.loads(lines[2])["path"]}
    build(plan_of("add"), out, workers=1)
    build(plan_of("add"), fresh, workers=1)
    assert everything(out) == everything(fresh)


def test_every_damage_of_the_manifest_gives_one_message(tmp_path: Path) -> None:
    data = tmp_path / "data"
    flags = ["--task", "left_mask", "--min", 1, "--max", 2, "--num", 1, "--split", "train"]
    assert call("build", *flags, "--out", data, "--workers", 1)[0] == 0
    text = (data / "manifest.json").read_text()
    manifest = json.loads(text)
    damaged = [text[: len(text) // 2]]
    for key in manifest:
        damaged += [json.dumps({k: v for k, v in manifest.items() if k != key})]
        damaged += [json.dumps({**manifest, key: value}) for value in (None, [], {"x": 1}, {"add-raw": {"train": 1}})]
    for value in damaged:
        (data / "manifest.json").write_text(value)
        for words in (
            ["info", data],
            ["build", *flags, "--out", data, "--workers", 1],
            ["verify", data, "--workers", 1],
        ):
            code, output = call(*words)
            assert code in (0, 1, 2)
            assert output


# Odd names


@pytest.mark.parametrize(
    "name", ["../data", "a\nb", "a b", "[/x] :bug:", "-x", "\u00e9\x1b[31m", "\U0001d7d9", "\udcff"]
)
def test_odd_names_of_folders(tmp_path: Path, name: str) -> None:
    out = tmp_path / "work" / name
    flags = ["--task", "add", "--max", 2, "--num", 1, "--workers", 1]
    for words in (["build", *flags], ["info"], ["info", "--json"], ["verify", "--workers", 1]):
        code, output = call(*words, *(["--out"] if words[0] == "build" else []), out)
        assert code == 0, output
        assert "\x1b[31m" not in output
    assert (out / "manifest.json").is_file()


def test_a_folder_of_results_whose_name_is_no_text(data: Path, tmp_path: Path) -> None:
    """Arrow and DuckDB cannot open it: refused before anything is evaluated."""
    results = tmp_path / "\udcff"
    assert call("eval", "--backend", "oracle", "--task", "add", "--data", data, "--out", results)[0] == 2
    assert not results.exists()
    code, output = call("query", "FROM runs", "--results", results)
    assert code == 2
    assert "UTF-8" in output
