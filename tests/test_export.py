"""Exported files hold the rows of the dataset, whatever happens on the way; other folders are left alone."""

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import datasets
from caef_data.cli import app
from caef_data.errors import UserError
from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.export import COLUMNS, FORMATS, Style, export, export_with_progress, write_rows
from caef_data.pipelines.plan import make_plan

EACH_VIEW = ["add-one_step", "sub-one_step", "add-aligner", "sub-full", "add-raw", "div-scratchpad", "add-commands"]
SECOND = Style("jsonl", "second")


def make(out: Path, **settings: Any) -> Path:
    values = {"min": 1, "max": 2, "num": 2, "splits": ["train", "test"], "views": ["one_step"], "rows_per_shard": 200}
    build(make_plan(from_flags(["add", "left_mask"], **{**values, **settings})), out, workers=1)
    return out


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of several shards; tests only read it."""
    return make(tmp_path_factory.mktemp("small") / "data")


def wanted(dataset: Path, config: str, split: str, stage: str) -> list[tuple[str, str]]:
    """Return (prompt, completion) of a split's rows, in their order."""
    rows = [row for path in sorted((dataset / config).glob(f"{split}-*")) for row in pq.read_table(path).to_pylist()]
    return [((row["instruction"] if stage == "first" else "") + row["prompt"], row["completion"]) for row in rows]


def pair(form: str, row: dict[str, Any]) -> tuple[str, str]:
    """Return a row of a format as (prompt, completion), after a look at everything else in it."""
    if form == "jsonl":
        assert list(row) == ["prompt", "completion"]
        return row["prompt"], row["completion"]
    if form == "alpaca":
        assert list(row) == ["instruction", "input", "output"] and row["input"] == ""
        return row["instruction"], row["output"]
    user, assistant = row["messages"]
    assert list(row) == ["messages"] and (user["role"], assistant["role"]) == ("user", "assistant")
    return user["content"], assistant["content"]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(one) for one in path.read_text("utf-8").split("\n")[:-1]]


@pytest.mark.parametrize("stage", COLUMNS)
@pytest.mark.parametrize("form", FORMATS)
def test_the_rows_are_those_of_the_dataset(smoke: Path, tmp_path: Path, form: str, stage: str) -> None:
    out = tmp_path / "export"
    results = export(str(smoke), str(out), Style(form, stage), configs=EACH_VIEW, splits=["train", "stress"])
    parts = list(results)
    assert parts == [
        (name, split) for name in sorted(EACH_VIEW) for split in ("train", "stress") if (name, split) in parts
    ]
    assert {name for name, _ in parts} == set(EACH_VIEW)
    manifest = json.loads((smoke / "manifest.json").read_text())
    for (name, split), entry in results.items():
        paths = sorted((out / name / split).iterdir())
        rows = [pair(form, row) for path in paths for row in read(path)]
        assert rows == wanted(smoke, name, split, stage)
        assert len(rows) == entry["rows"] == manifest["configs"][name][split]["rows"]
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_everything_is_exported_by_default(smoke: Path, tmp_path: Path) -> None:
    results = export(str(smoke), str(tmp_path / "export"), SECOND)
    manifest = json.loads((smoke / "manifest.json").read_text())
    assert {(*pair, entry["rows"]) for pair, entry in results.items()} == {
        (name, split, entry["rows"]) for name, splits in manifest["configs"].items() for split, entry in splits.items()
    }


def test_one_file_a_shard_and_export_json_describes_them(small: Path, tmp_path: Path) -> None:
    export(str(small), str(tmp_path), Style("alpaca", "second"))
    shards = sorted(small.glob("add-one_step/train-*"))
    assert len(shards) > 1
    assert sorted(path.name for path in (tmp_path / "add-one_step" / "train").iterdir()) == [
        f"{shard.name.removeprefix('train-').removesuffix('.parquet')}.jsonl" for shard in shards
    ]
    for shard in shards:
        rows = [
            {"instruction": row["prompt"], "input": "", "output": row["completion"]}
            for row in pq.read_table(shard).to_pylist()
        ]
        assert read((tmp_path / "add-one_step" / shard.name.replace("-", "/", 1)).with_suffix(".jsonl")) == rows
    said = json.loads((tmp_path / "export.json").read_text())
    manifest = json.loads((small / "manifest.json").read_text())
    assert (said["format"], said["stage"]) == ("alpaca", "second")
    assert said["source"] == {key: manifest[key] for key in ("identity", "versions")}
    for name, splits in said["configs"].items():
        for split, entry in splits.items():
            paths = [*(tmp_path / name / split).iterdir()]
            assert entry["bytes"] == sum(path.stat().st_size for path in paths)
            assert entry["rows"] == sum(len(read(path)) for path in paths)


@pytest.mark.parametrize("form", FORMATS)
def test_the_datasets_library_reads_them(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    out = tmp_path / "export"
    export_with_progress(str(small), str(out), Style(form, "first"), ["add-one_step"], [])
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("read it:"))
    rows = eval(line.removeprefix("read it:"), {"load_dataset": datasets.load_dataset})
    assert [pair(form, row) for row in rows] == wanted(small, "add-one_step", "train", "first")


def test_llama_factory_finds_every_split(small: Path, tmp_path: Path) -> None:
    """Its loader takes every file of the folder ``file_name``, all of one suffix, and the columns that are named."""
    export(str(small), str(tmp_path), Style("alpaca", "first"))
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert set(info) == {f"{task}-one_step-{split}" for task in ("add", "left_mask") for split in ("train", "test")}
    for name, entry in info.items():
        config, _, split = name.rpartition("-")
        assert entry["formatting"] == "alpaca" and not {"hf_hub_url", "script_url"} & entry.keys()
        files = sorted((tmp_path / entry["file_name"]).iterdir())
        assert {path.suffix for path in files} == {".jsonl"}
        columns = entry["columns"]
        found = [
            ("\n".join(filter(None, (row[columns["prompt"]], row[columns["query"]]))), row[columns["response"]])
            for path in files
            for row in read(path)
        ]
        assert found == wanted(small, config, split, "first")


def test_the_recipe_for_llama_factory(small: Path, tmp_path: Path) -> None:
    """Rows hold the tokens that begin and end a text; the settings add nothing around them and cut none."""
    style = Style("alpaca", "first", "models/of <mine>", "<begin>", '"<end>"')
    export(str(small), str(tmp_path / "a b"), style)
    recipe = yaml.safe_load((tmp_path / "a b" / "llamafactory.yaml").read_text("utf-8"))
    lengths = []
    for config in ("add-one_step", "left_mask-one_step"):
        rows = [row for path in (tmp_path / "a b" / config / "train").iterdir() for row in read(path)]
        texts = [
            (f"<begin>{prompt}", f'{completion}"<end>"')
            for prompt, completion in wanted(small, config, "train", "first")
        ]
        assert sorted(pair("alpaca", row) for row in rows) == sorted(texts)
        lengths += [len((prompt + completion).encode()) for prompt, completion in texts]
    assert recipe["cutoff_len"] >= max(lengths)
    assert recipe == {
        "model_name_or_path": "models/of <mine>",
        "dataset_dir": str(tmp_path / "a b"),
        "dataset": "add-one_step-train",
        "output_dir": "ckpt/executors/add",
        "template": "empty",
        "cutoff_len": recipe["cutoff_len"],
        "train_on_prompt": False,
        "packing": False,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_target": "all",
        "lora_rank": 16,
        "lora_alpha": 32,
        "per_device_train_batch_size": 16,
        "learning_rate": 2e-4,
        "max_steps": 1000,
    }


@pytest.mark.parametrize("tokenizer", ["", "models/mine"])
def test_nobody_is_told_to_train_on_the_test_split(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], tokenizer: str
) -> None:
    style = Style("alpaca", "second", tokenizer)
    export_with_progress(str(small), str(tmp_path / "out"), style, [], ["test"])
    said = capsys.readouterr().out
    assert "train on it" not in said and "LLaMA-Factory" not in said and "read it:" in said
    assert ("no llamafactory.yaml: no train split was exported" in said) == bool(tokenizer)
    assert (tmp_path / "out" / "dataset_info.json").exists()
    assert not (tmp_path / "out" / "llamafactory.yaml").exists()


def test_the_command_line_writes_the_tokens_of_a_model(small: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from caef_data.tests.small_model import make_tokenizer

    make_tokenizer().save_pretrained(tmp_path / "model")
    words = ["export", str(small), "--config", "add-one_step", "--tokenizer", str(tmp_path / "model")]
    run = CliRunner().invoke(app, [*words, "--format", "alpaca", "--out", str(tmp_path / "export")])
    assert run.exit_code == 0 and "llamafactory-cli train" in run.stdout
    [path] = (tmp_path / "export" / "add-one_step" / "test").iterdir()
    assert all(row["output"].endswith("\n<end>") for row in read(path))
    with pytest.raises(UserError, match="their trainers add the end token"):
        CliRunner().invoke(app, [*words, "--out", str(tmp_path / "export")], catch_exceptions=False)


def texts_of(table: pa.Table, style: Style, folder: Path, **how: Any) -> bytes:
    pq.write_table(table, folder / "rows.parquet", **how)
    sink = io.BytesIO()
    with open(folder / "rows.parquet", "rb") as source:
        assert write_rows(source, style, sink) == table.num_rows
    return sink.getvalue()


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT, TEXT), max_size=5))
def test_any_text_is_valid_json(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]) -> None:
    names = ("instruction", "prompt", "completion")
    table = pa.table({name: pa.array([row[n] for row in rows], pa.string()) for n, name in enumerate(names)})
    for form in FORMATS:
        for stage in COLUMNS:
            text = texts_of(table, Style(form, stage), tmp_path_factory.getbasetemp()).decode()
            found = [json.loads(line) for line in text.split("\n")[:-1]]
            before = stage == "first"
            assert [pair(form, row) for row in found] == [(one[0] * before + one[1], one[2]) for one in rows]


def test_rows_keep_their_order(tmp_path: Path) -> None:
    table = pa.table({name: [f"{name} {n}" for n in range(5000)] for name in ("prompt", "completion", "instruction")})
    for form in FORMATS:
        (tmp_path / "rows.json").write_bytes(texts_of(table, Style(form, "first"), tmp_path, row_group_size=3000))
        rows = [pair(form, row) for row in read(tmp_path / "rows.json")]
        assert rows == [(f"instruction {n}prompt {n}", f"completion {n}") for n in range(5000)]


def test_bytes_that_are_no_text_are_an_error(tmp_path: Path) -> None:
    broken = pa.array([b"x", b"\xff\xfe"]).view(pa.string())
    with pytest.raises(ValueError, match="UTF8"):
        texts_of(pa.table({"prompt": ["x", "y"], "completion": broken}), Style(), tmp_path)


@pytest.mark.parametrize("column", ["prompt", "completion", "instruction"])
def test_a_missing_text_is_an_error(tmp_path: Path, column: str) -> None:
    values: dict[str, list[str | None]] = {name: ["x", "y"] for name in ("prompt", "completion", "instruction")}
    with pytest.raises(ValueError, match=column):
        texts_of(pa.table({**values, column: ["x", None]}), Style("jsonl", "first"), tmp_path)
    with pytest.raises(ValueError, match=column):
        texts_of(
            pa.table({name: one for name, one in values.items() if name != column}), Style("chat", "first"), tmp_path
        )


def test_a_recipe_can_be_used_from_anywhere(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    export(str(small), "out", Style("alpaca", "second", "model", "<b>", "<e>"), configs=["add-one_step"])
    recipe = yaml.safe_load((tmp_path / "out" / "llamafactory.yaml").read_text("utf-8"))
    assert (recipe["model_name_or_path"], recipe["dataset_dir"]) == (str(tmp_path / "model"), str(tmp_path / "out"))
