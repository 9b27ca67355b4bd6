"""The dataset card is true: its YAML, its examples, its code and its commands."""

import json
import re
import sys
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import DatasetCard

from caef_data import cli
from caef_data.pipelines.build import build
from caef_data.pipelines.card import TEXTS, card, first_split
from caef_data.pipelines.declaration import from_flags, load_declaration
from caef_data.pipelines.manifest import json_bytes, manifest_from
from caef_data.pipelines.plan import make_plan
from caef_data.pipelines.store import open_folder
from caef_data.schemas import VIEW_TEXT
from caef_data.tm import tasks

MINE = """\
name = "mine"
min = 1
max = 2
num = 2
seed = 7

[[task]]
task = ["add", "equal"]
views = ["one_step"]

[[task]]
task = "sub"
dialect = "published"
splits = ["train", "stress"]
rows_per_shard = 50
"""
EXAMPLE = re.compile(
    r"^(?:A row of|From) `([a-z_]+-[a-z_]+)`, split (\w+) \([^\n]+\):\n\n"
    r"```text\nprompt:\n(.*?)\ncompletion:\n(.*?)\n```$",
    re.MULTILINE | re.DOTALL,
)


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of a declaration that only its author has."""
    root = tmp_path_factory.mktemp("mine")
    (root / "mine.toml").write_text(MINE)
    build(make_plan(load_declaration(str(root / "mine.toml"))), root / "data", workers=1)
    return root / "data"


def manifest_of(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return manifest


def rows_of(folder: Path, config: str, split: str) -> set[tuple[str, str]]:
    paths = sorted((folder / config).glob(f"{split}-*.parquet"))
    return {(row["prompt"], row["completion"]) for path in paths for row in pq.read_table(path).to_pylist()}


def test_the_hub_reads_its_front_matter(smoke: Path) -> None:
    text = (smoke / "README.md").read_text("utf-8")
    read = DatasetCard(text)
    values = yaml.safe_load(text.split("---\n")[1])
    assert read.data.to_dict() == values
    assert read.data.license == "apache-2.0" and read.data.task_categories == ["text-generation"]
    assert {"arithmetic", "turing-machine", "caef", "length-generalization"} <= set(values["tags"])
    assert [one["config_name"] for one in values["configs"] if one.get("default")] == ["add-one_step"]
    assert "arxiv.org/abs/2410.07896" in read.text


def test_every_view_has_a_real_row(smoke: Path, mine: Path) -> None:
    for folder in (smoke, mine):
        found = EXAMPLE.findall((folder / "README.md").read_text("utf-8"))
        configs = manifest_of(folder)["configs"]
        assert {name.partition("-")[2] for name, *_ in found} == {name.partition("-")[2] for name in configs}
        for config, split, prompt, completion in found:
            rows = {tuple(text.removesuffix("\n") for text in row) for row in rows_of(folder, config, split)}
            assert (prompt, completion) in rows, (config, split)
    assert set(VIEW_TEXT) - {"slips"} == {name.partition("-")[2] for name in manifest_of(smoke)["configs"]}


def test_the_first_example_is_a_step_in_the_middle_of_a_run(smoke: Path) -> None:
    text = (smoke / "README.md").read_text("utf-8")
    values = re.search(r"^A row of `add-one_step`, split train \((.+)\):$", text, re.MULTILINE)
    assert values is not None
    row = dict(one.split(" ") for one in values[1].split(", "))
    assert (row["task"], row["state"], row["next_state"]) == ("add", "q1", "q1")
    assert int(row["len_a"]) >= 2 and 0 < int(row["step"]) < int(row["n_steps"]) - 1


def test_the_text_on_the_tape_says_what_the_entry_shows(smoke: Path) -> None:
    text = (smoke / "README.md").read_text("utf-8")
    section = text.partition("## How to read the text")[2].partition("## Views")[0]
    entry, after, call = re.findall(r"```text\n(.*?)\n```", section, re.DOTALL)
    state, command = entry.splitlines()
    assert state == "ADD, q1,  |2[HEAD1]|1 |9[HEAD2] [C]1 |1[OUTPUT]"
    assert command == "CMD: [C] 0, [OUTPUT] 2, [OUTPUT] RIGHT, [HEAD1] RIGHT, q1"
    assert after.startswith("ADD, q1,  |2|1[HEAD1] |9[HEAD2] [C]0 |1|2[OUTPUT]\n")
    prompt, completion = call.removeprefix("prompt:\n").split("\ncompletion:\n")
    assert [line.partition(",")[0] for line in prompt.splitlines()[::2]] == ["SUB", "REFLECTION"]
    assert "|9|9[HEAD1] |7[HEAD2] |2|9" in prompt and "|2|1[HEAD2] |2|9" in completion
    assert all(f"`{task}`" in section for task in tasks() if task not in ("double",))


def test_its_code_loads_the_rows(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    code = re.search(r"```python\n(.*?)```", (mine / "README.md").read_text("utf-8"), re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code[1].replace("PATH_OR_REPO", str(mine)), names)
    assert {(row["prompt"], row["completion"]) for row in names["rows"]} == rows_of(
        mine, *first_split(manifest_of(mine))
    )
    assert datasets.load_dataset(str(mine), split="train")[:] == names["rows"][:]  # the config that is the default


def test_whoever_has_the_card_can_build_the_same(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (mine / "README.md").read_text("utf-8")
    file = re.search(r"where `(.+)` is\n\n```toml\n(.*?)```", text, re.DOTALL)
    assert file is not None
    (tmp_path / file[1]).write_text(file[2])
    commands = re.findall(r"^    (caef-data .+)$", text, re.MULTILINE)
    assert commands == ["caef-data build mine.toml", "caef-data verify data"]
    monkeypatch.chdir(tmp_path)
    for command in commands:
        monkeypatch.setattr(sys, "argv", command.split())
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code in (0, None), command
    for path in mine.rglob("*.parquet"):
        assert (tmp_path / "data" / path.relative_to(mine)).read_bytes() == path.read_bytes()
    assert manifest_of(tmp_path / "data")["identity"] == manifest_of(mine)["identity"]


def test_what_is_known_by_name_needs_no_file(smoke: Path) -> None:
    text = (smoke / "README.md").read_text("utf-8")
    assert "```toml" not in text
    assert re.findall(r"^    (caef-data .+)$", text, re.MULTILINE) == ["caef-data build smoke", "caef-data verify data"]


def test_a_push_makes_the_card_that_the_build_made(smoke: Path, mine: Path) -> None:
    for folder in (smoke, mine):  # from the manifest as it was read back, in which keys stand in another order
        assert card(manifest_of(folder), open_folder(folder)) == (folder / "README.md").read_text("utf-8")


def test_sizes_are_those_of_the_rows(mine: Path) -> None:
    line = re.search(r"^\| sub-one_step \| train \|(.+)\|$", (mine / "README.md").read_text("utf-8"), re.MULTILINE)
    assert line is not None
    rows = [row for path in mine.glob("sub-one_step/train-*") for row in pq.read_table(path).to_pylist()]
    _, expressions, count, _, *sizes = [cell.strip() for cell in line[1].split("|")]
    assert (int(count), int(expressions)) == (len(rows), len({(row["a"], row["b"]) for row in rows}))
    for text, size in zip(TEXTS, sizes, strict=True):
        lengths = [len(row[text]) for row in rows]
        assert size == f"{round(sum(lengths) / len(lengths), 1):,.0f} / {max(lengths)}"


def test_dialects_are_explained(mine: Path) -> None:
    text = " ".join((mine / "README.md").read_text("utf-8").split())
    assert "Dialect consistent: add, equal." in text and "Dialect published: sub. The text of the published" in text


def test_a_damaged_shard_or_a_strange_manifest_does_not_break_it(tmp_path: Path) -> None:
    build(make_plan(from_flags(["add"], min=1, max=1, num=1, splits=["train"])), tmp_path, workers=1)
    manifest = manifest_of(tmp_path)
    assert card(manifest, open_folder(tmp_path)).count("prompt:\n") == 3  # one explains calls and is no row
    (tmp_path / "add-one_step" / "train-00000-of-00001.parquet").write_bytes(b"no Parquet")
    aligner = tmp_path / "add-aligner" / "train-00000-of-00001.parquet"
    pq.write_table(pq.read_table(aligner).select(["a"]), tmp_path / "x")
    (tmp_path / "x").rename(aligner)
    for split in manifest["configs"]["add-one_step"].values():
        split["command"] = "caef-data build 'mine.toml"  # a quote too many
    manifest["tasks"] = {"equal": {"settings": {"min": "?"}, "identity": ""}}
    text = card(manifest, open_folder(tmp_path), lambda config, split: f"LOAD {config} {split}")
    assert text.count("prompt:\n") == 1 and all(f"`{name}`" in text for name in TEXTS)
    assert "rows = LOAD add-one_step train\n" in text
    assert "This dataset is being rebuilt.\n" in card({**manifest, "configs": {}}, open_folder(tmp_path))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the places of everything in a JSON value."""
    for key, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(one, (*path, key))


def test_every_manifest_that_is_understood_has_a_card(mine: Path) -> None:
    text, understood = (mine / "manifest.json").read_bytes(), 0
    for path in places(json.loads(text)):
        for other in ({}, [], "x"):
            manifest = json.loads(text)
            reduce(lambda values, key: values[key], path[:-1], manifest)[path[-1]] = other
            try:
                manifest = manifest_from(json_bytes(manifest))
            except ValueError:
                continue
            understood += 1
            card(manifest, open_folder(mine / "nowhere"))
    assert understood > 50


def test_the_datasets_library_reads_a_folder_again_when_its_rows_are_others(tmp_path: Path) -> None:
    """Its cache knows a local folder by the folder's last name and what the card says of its configs.

    Old releases (2.14.7) take note of the version alone; it is part of the cache's path in all.
    """
    import datasets

    def loaded(folder: Path) -> list[str]:
        rows = datasets.load_dataset(str(folder), "sub-one_step", split="train", cache_dir=str(tmp_path / "cache"))
        versions.add(str(rows.version))
        return sorted(rows["prompt"])

    def built(name: str, **settings: Any) -> Path:
        declared = from_flags(["sub"], min=1, views=["one_step"], splits=["train"], **settings)
        build(make_plan(declared), tmp_path / name / "data", workers=1, overwrite=True)
        return tmp_path / name / "data"

    def there(folder: Path) -> list[str]:
        return sorted(row for path in folder.glob("*/*.parquet") for row in pq.read_table(path)["prompt"].to_pylist())

    found, versions = [], set()
    for name, settings in (
        ("a", {"max": 2, "num": 2}),
        ("a", {"max": 3, "num": 4}),
        ("b", {"max": 3, "num": 4, "seed": 7}),
        ("b", {"max": 3, "num": 4, "dialect": "published"}),
    ):
        folder = built(name, **settings)
        found.append(loaded(folder))
        assert found[-1] == there(folder)
    assert len({tuple(rows) for rows in found}) == len(versions) == 4
