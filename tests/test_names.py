"""Names in files that come from somebody else: whatever becomes part of a path is one of ours, or is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from caef_data.errors import is_ours, suggested
from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.manifest import is_shard, manifest_from, plan_from
from caef_data.pipelines.plan import make_plan
from caef_data.tests.commands import call, everything

FLAGS = ["--task", "add", "--task", "left_mask", "--max", "2", "--num", "2"]
HOSTILE = [
    "../neighbour",
    "/neighbour",
    "..",
    ".",
    "",
    "a\0b",
    "a\nb",
    "\x1b[31mred",
    "x y",
    "\u202etxt",
    "add/..",
    "~",
]
Forge = Callable[[dict[str, Any], str], None]


def rename(values: dict[str, Any], old: str, new: str) -> None:
    values[new] = values.pop(old)


def shard(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifest["configs"]["add-one_step"]["train"]["shards"][0]
    return found


PLACES: dict[str, Forge] = {
    "identity": lambda m, name: m.update(identity=name),
    "identity of a task": lambda m, name: m["tasks"]["add"].update(identity=name),
    "identity of a split": lambda m, name: m["configs"]["add-raw"]["test"].update(identity=name),
    "task": lambda m, name: rename(m["tasks"], "add", name),
    "config": lambda m, name: rename(m["configs"], "add-raw", name),
    "config of a view": lambda m, name: rename(m["configs"], "add-raw", f"{name}-raw"),
    "split": lambda m, name: rename(m["configs"]["add-raw"], "test", name),
    "shard": lambda m, name: shard(m).update(path=name),
    "shard below": lambda m, name: shard(m).update(path=f"{name}/train-00000-of-00001.parquet"),
    "shard elsewhere": lambda m, name: shard(m).update(path=f"add-one_step/{name}/train-00000-of-00001.parquet"),
    "sha256": lambda m, name: shard(m).update(sha256=name),
    "setting": lambda m, name: m["tasks"]["add"]["settings"].update({name: 1}),
    "version": lambda m, name: m["built_with"].update(numpy=name),
    "rules": lambda m, name: m["versions"].update({name: 1}),
    "command": lambda m, name: m["configs"]["add-raw"]["test"].update(command=f"caef-data build; {name}"),
    "repo": lambda m, name: m.update(repo=name),
    "record of a push": lambda m, name: m.update(card=name),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished folder; tests copy it."""
    out = tmp_path_factory.mktemp("built") / "data"
    assert call("build", *FLAGS, "--out", out, "--workers", 1)[0] == 0
    return out


@pytest.mark.parametrize("place", PLACES)
def test_no_reader_takes_a_hostile_name(built: Path, place: str) -> None:
    text = (built / "manifest.json").read_bytes()
    assert manifest_from(text)["format"] == 1
    for name in HOSTILE:
        manifest = json.loads(text)
        PLACES[place](manifest, name)
        with pytest.raises(ValueError) as error:  # noqa: PT011
            manifest_from(json.dumps(manifest).encode())
        assert str(error.value).isprintable()


@pytest.mark.parametrize("place", ["identity", "config", "split", "shard", "shard below", "task", "version", "repo"])
@pytest.mark.parametrize("name", ["../neighbour", "a\0b", "\x1b[31mred\n"])
def test_every_command_refuses_a_forged_manifest(built: Path, tmp_path: Path, place: str, name: str) -> None:
    data, neighbour = Path(shutil.copytree(built, tmp_path / "data")), tmp_path / "store" / "neighbour"
    shutil.copytree(built, neighbour)
    manifest = json.loads((data / "manifest.json").read_text())
    PLACES[place](manifest, name)
    (data / "manifest.json").write_text(json.dumps(manifest))
    before = everything(tmp_path)
    for words in (
        ("verify", data, "--workers", 1),
        ("info", data),
        ("info", data, "--json"),
        ("push", data, "--repo", "user/name"),
        ("push", data),
        ("push", data, "--to", tmp_path / "store" / "target"),
        ("push", data, "--to", f"file://{tmp_path}/store/target", "--dry-run"),
        ("push", neighbour, "--to", data),
        ("export", data, "--out", tmp_path / "export"),
        ("build", *FLAGS, "--out", data, "--workers", 1),
        ("build", *FLAGS, "--out", data, "--overwrite", "--workers", 1),
        ("eval", "--backend", "oracle", "--data", data, "--out", tmp_path / "results"),
    ):
        code, output = call(*words)
        assert code == 2, (words, output)
        assert "manifest.json" in output
        assert "\x1b" not in output
        assert everything(tmp_path) == before, words


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a build that was stopped; tests copy it."""
    out = tmp_path_factory.mktemp("unfinished") / "data"

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(make_plan(from_flags(["add"], max=2, num=2)), out, workers=1, progress=stop)
    return out


@pytest.mark.parametrize("name", HOSTILE)
def test_notes_of_an_unfinished_build(unfinished: Path, tmp_path: Path, name: str) -> None:
    out = Path(shutil.copytree(unfinished, tmp_path / "data"))
    path = out / ".caef" / "plan.json"
    text = path.read_bytes()
    assert plan_from(text)["tasks"]
    forgeries: tuple[Callable[[dict[str, Any]], None], ...] = (
        lambda plan: plan.update(identity=name),
        lambda plan: plan["shards"].append(name),
        lambda plan: plan["shards"].append(f"{name}/train-00000-of-00001.parquet"),
        lambda plan: rename(plan["tasks"], "add", name),
        lambda plan: plan.update(source=[name]),
    )
    for forge in forgeries:
        plan = json.loads(text)
        forge(plan)
        path.write_text(json.dumps(plan))
        for words in (("info", out), ("build", *FLAGS, "--out", out), ("push", out, "--to", tmp_path / "to")):
            code, output = call(*words)
            assert code == 2, output
            assert "plan.json" in output
            assert output.replace("\n", "").isprintable()


def test_what_is_a_shard() -> None:
    assert is_shard("add-one_step/train-00000-of-00001.parquet")
    for path in ("../x-raw/train-00000-of-00001.parquet", "..-raw/train-00000-of-00001.parquet"):
        assert not is_shard(path)
    for config in ("a\0-raw", "A b-raw", "a/b-raw", "-raw", "add-rows", "a\n-raw"):
        assert not is_shard(f"{config}/train-00000-of-00001.parquet")
    for name in ("train-0-of-1.parquet", "train-00000-of-00001.parquet\n", "valid-00000-of-00001.parquet"):
        assert not is_shard(f"add-raw/{name}")


def test_a_staging_folder_that_is_a_link_is_not_followed(built: Path, tmp_path: Path) -> None:
    """What an earlier push left below the target is removed; a link there leads to what is not ours."""
    target, mine = tmp_path / "target", tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("mine")
    (target / ".caef").mkdir(parents=True)
    (target / ".caef" / "push").symlink_to(mine)
    before = everything(mine)
    code, output = call("push", built, "--to", target)
    assert code == 2
    assert "this is a link" in output
    (target / ".caef" / "push").unlink()
    (target / "add-raw").symlink_to(mine)
    assert call("push", built, "--to", target)[0] == 2
    (target / "add-raw").unlink()
    assert call("push", built, "--to", target)[0] == 0
    assert everything(mine) == before


def test_notes_of_a_build_that_are_a_link_are_not_followed(built: Path, tmp_path: Path) -> None:
    data, mine = Path(shutil.copytree(built, tmp_path / "data")), tmp_path / "mine"
    mine.mkdir()
    (mine / ".writing-letter").write_text("mine")
    (data / ".caef").symlink_to(mine)
    before = everything(mine)
    code, output = call("build", "--task", "sub", "--max", 2, "--num", 1, "--out", data, "--workers", 1)
    assert code == 2
    assert "this is a link" in output
    assert everything(mine) == before


# What is printed and suggested


@pytest.mark.parametrize(
    ("command", "ours"),
    [
        ("caef-data build --task add --min 1 --max 2 --num 2", True),
        ("caef-data build paper", True),
        ("caef-data build 'my file.toml'", True),
        ("caef-data build --task add && caef-data build --task sub", True),
        ("caef-data build $(reboot)", False),
        ("caef-data build `reboot`", False),
        ("caef-data build; reboot", False),
        ("caef-data build && reboot", False),
        ("caef-data build x > /etc/passwd", False),
        ("caef-data build x\nreboot", False),
        ("caef-data build x | sh", False),
        ("caef-data build x & sh", False),
        ("caef-data eval --data x", False),
        ("reboot", False),
        ("", False),
    ],
)
def test_which_commands_are_ours(command: str, ours: bool) -> None:
    assert is_ours(command, "build") == ours
    assert suggested(command, "build", "-") == (command if ours else "-")
