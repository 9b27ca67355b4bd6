"""An export is written aside and finished in one go; what is not its own is refused and left alone."""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from caef_data import cli
from caef_data.errors import UserError
from caef_data.pipelines.export import export
from caef_data.pipelines.export_rows import Style
from caef_data.tests.commands import everything, full_disk
from caef_data.tests.test_export import make

JSONL, ALPACA = Style("jsonl", "second"), Style("alpaca", "first")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of several shards; tests only read it."""
    return make(tmp_path_factory.mktemp("small") / "data")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of the same configs with other rows."""
    return make(tmp_path_factory.mktemp("other") / "data", seed=1)


@pytest.fixture
def copy(small: Path, tmp_path: Path) -> Path:
    """Return a dataset that a test may change."""
    return Path(shutil.copytree(small, tmp_path / "copy"))


def fresh(dataset: Path, out: Path, style: Style = JSONL, **options: Any) -> dict[str, bytes | None]:
    """Return what an uninterrupted export leaves."""
    export(str(dataset), str(out), style, **options)
    return everything(out)


def refused(dataset: Path | str, out: Path | str, match: str, style: Style = JSONL, **options: Any) -> UserError:
    """Try an export that must not happen, and see that nothing changed where it would have gone."""
    before = everything(Path(out)) if Path(out).is_dir() else Path(out).exists()
    with pytest.raises(UserError, match=match) as error:
        export(str(dataset), str(out), style, **options)
    assert before == (everything(Path(out)) if Path(out).is_dir() else Path(out).exists())
    return error.value


def stop_after(count: int, how: Callable[[], BaseException]) -> Callable[..., None]:
    def progress(*_: object) -> None:
        nonlocal count
        count -= 1
        if count == 0:
            raise how()

    return progress


@pytest.mark.parametrize("how", [KeyboardInterrupt, MemoryError])
def test_a_stopped_export_leaves_what_was_there(small: Path, tmp_path: Path, how: type[BaseException]) -> None:
    out = tmp_path / "export"
    reference = fresh(small, out, ALPACA, configs=["left_mask-one_step"])
    for style, options in ((ALPACA, {}), (JSONL, {"overwrite": True})):
        with pytest.raises(how):
            export(str(small), str(out), style, **options, progress=stop_after(2, how))
        assert everything(out) == reference


def test_more_configs_are_added(small: Path, tmp_path: Path) -> None:
    for style in (JSONL, ALPACA):
        reference = fresh(small, tmp_path / f"{style.format} reference", style)
        out = tmp_path / style.format
        export(str(small), str(out), style, configs=["left_mask-one_step"])
        export(str(small), str(out), style, configs=["add-one_step"], splits=["test"])
        export(str(small), str(out), style, configs=["add-one_step"])
        assert everything(out) == reference


def test_what_was_removed_since_is_not_said_to_be_there(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "export"
    export(str(small), str(out), ALPACA, configs=["left_mask-one_step"])
    shutil.rmtree(out / "left_mask-one_step")
    export(str(small), str(out), ALPACA, configs=["add-one_step"])
    assert everything(out) == fresh(small, tmp_path / "reference", ALPACA, configs=["add-one_step"])


def test_another_style_or_other_rows_need_overwrite(small: Path, other: Path, tmp_path: Path) -> None:
    out = tmp_path / "export"
    fresh(small, out, ALPACA)
    error = refused(small, out, "an export in format 'alpaca' for the stage 'first'")
    assert "--overwrite" in str(error)
    refused(small, out, "format 'alpaca'", Style("alpaca", "second"))
    refused(other, out, "add-one_step train of another dataset", ALPACA)
    export(str(small), str(out), JSONL, configs=["add-one_step"], overwrite=True)
    assert everything(out) == fresh(small, tmp_path / "reference", configs=["add-one_step"])
    export(str(small), str(out), JSONL, configs=["left_mask-one_step"])
    export(str(other), str(out), JSONL, configs=["add-one_step"], overwrite=True)
    assert {path: data for path, data in everything(out).items() if "left_mask" in path} == {
        path: data for path, data in fresh(small, tmp_path / "small").items() if "left_mask" in path
    }
    assert {path: data for path, data in everything(out).items() if path.startswith("add")} == {
        path: data for path, data in fresh(other, tmp_path / "other").items() if path.startswith("add")
    }


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"configs": ["sub-onestep"]}, "there is no config 'sub-onestep'"),
        ({"configs": ["add-onestep"]}, r"did you mean 'add-one_step'\?"),
        ({"configs": ["add-one_step", "../x-raw"]}, "there is no config '../x-raw'"),
        ({"configs": ["\x1b[31m-raw"]}, r"there is no config '\\x1b\[31m-raw'"),
        ({"splits": ["tset"]}, r"there is no split 'tset' .*did you mean 'test'\?"),
        ({"splits": ["stress"]}, "there is no split stress of add-one_step, left_mask-one_step"),
        ({"splits": ["stress"], "configs": ["add-one_step"]}, "there is no split stress of add-one_step"),
    ],
)
def test_what_is_not_there_is_not_exported(small: Path, tmp_path: Path, options: Any, match: str) -> None:
    error = refused(small, tmp_path / "export", match, **options)
    assert "allowed:" in str(error) and "\x1b" not in str(error)


def test_a_wrong_style_is_named() -> None:
    for values, match in ((("json", "second"), "did you mean 'jsonl'"), (("chat", "frist"), "did you mean 'first'")):
        with pytest.raises(UserError, match=match):
            Style(*values)


def test_folders_that_are_not_ours_are_left_alone(small: Path, copy: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("x")
    refused(small, foreign, "files that caef-data export did not write")
    refused(small, foreign, "files that caef-data export did not write", overwrite=True)
    refused(small, foreign / "thesis.tex", "this is a file, not a folder")
    refused(copy, copy, "files that caef-data export did not write", overwrite=True)  # onto itself
    refused(small, "s3://bucket/prefix", "a folder on this machine")
    refused(tmp_path / "nothing", tmp_path / "export", "there is no dataset here")
    assert not (tmp_path / "nothing").exists()
    out = tmp_path / "export"
    fresh(small, out)
    (out / "add-one_step" / "train" / "notes.jsonl").write_text("{}")
    error = refused(small, out, "files that caef-data export did not write", overwrite=True)
    assert "notes.jsonl" in str(error)
    with pytest.raises(UserError, match="no manifest.json of caef-data"):  # nor does a build touch an export
        make(out)


def test_links_are_not_followed_when_files_are_removed(small: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious" / "train"
    precious.mkdir(parents=True)
    (precious / "00000-of-00001.jsonl").write_text("mine")
    out = tmp_path / "export"
    export(str(small), str(out), JSONL, configs=["left_mask-one_step"])
    (out / "mul-raw").mkdir()
    (out / "mul-raw" / "train").symlink_to(precious)
    (out / "div-raw").symlink_to(precious.parent)
    export(str(small), str(out), ALPACA, configs=["left_mask-one_step"], overwrite=True)
    assert (precious / "00000-of-00001.jsonl").read_text() == "mine"


@pytest.mark.parametrize("text", ["", "[]", '{"version": 2}', '{"version": 1, "format": 3}', "[" * 5000, "\udcff"])
def test_a_mark_that_cannot_be_understood(small: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "export" / "export.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode(errors="surrogateescape"))
    error = refused(small, tmp_path / "export", "export.json cannot be understood", overwrite=True)
    assert "Traceback" not in str(error)


@pytest.mark.parametrize("path", ["../../etc/passwd", "add-raw/test-00000-of-00001.parquet", "add-raw/x.parquet"])
def test_a_manifest_cannot_name_other_files(copy: Path, tmp_path: Path, path: str) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["configs"]["add-one_step"]["train"]["shards"][0]["path"] = path
    (copy / "manifest.json").write_text(json.dumps(manifest))
    refused(copy, tmp_path / "export", "manifest.json cannot be understood")


def test_a_damaged_shard_is_named(copy: Path, tmp_path: Path) -> None:
    out = tmp_path / "export"
    shard = sorted(copy.glob("left_mask-one_step/*.parquet"))[0]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with pytest.raises(UserError, match="its sha256 is another one") as error:
        export(str(copy), str(out), JSONL)
    assert str(shard) in str(error.value) and f"caef-data verify {copy}" in str(error.value)
    shard.unlink()
    with pytest.raises(UserError, match="it is missing"):
        export(str(copy), str(out), JSONL)
    assert everything(out) == {}


def test_a_shard_that_the_manifest_describes_wrongly(copy: Path, tmp_path: Path) -> None:
    """Even when the sha256 agrees: a manifest can be written by anyone."""
    path = copy / "left_mask-one_step" / "test-00000-of-00001.parquet"
    whole = pq.read_table(path)
    for change, match in (
        (lambda: pq.write_table(whole.slice(1), path), "rows, not"),
        (lambda: pq.write_table(whole.drop_columns(["prompt"]), path), "a row has no prompt, completion"),
        (lambda: path.write_bytes(b"PAR1 no Parquet at all PAR1"), "a shard is not what the manifest says"),
    ):
        change()
        manifest = json.loads((copy / "manifest.json").read_text())
        data = path.read_bytes()
        shard = manifest["configs"]["left_mask-one_step"]["test"]["shards"][0]
        shard.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        (copy / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(UserError, match=match):
            export(str(copy), str(tmp_path / "export"), JSONL, configs=["left_mask-one_step"])


def test_no_build_meanwhile(copy: Path, tmp_path: Path) -> None:
    def build_meanwhile(*_: object) -> None:
        with pytest.raises(UserError, match="this folder"):
            make(copy, num=3)

    export(str(copy), str(tmp_path / "export"), JSONL, configs=["left_mask-one_step"], progress=build_meanwhile)


def test_a_full_disk(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "export"
    with full_disk(20_000), pytest.raises(UserError, match="the disk is full") as error:
        export(str(small), str(out), JSONL)
    assert str(out) in str(error.value) and "run the same command again" in str(error.value)
    assert everything(out) == {}
    assert fresh(small, out) == fresh(small, tmp_path / "reference")


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["caef-data", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_the_command(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        "export",
        str(small),
        "--format",
        "alpaca",
        "--config",
        "add-one_step",
        "--split",
        "test",
        "--split",
        "train",
    ]
    assert run(words, monkeypatch) == 0
    printed = capsys.readouterr().out
    assert everything(tmp_path / "export") == fresh(
        small, tmp_path / "reference", Style("alpaca", "second"), configs=["add-one_step"]
    )
    assert "LLaMA-Factory: --dataset_dir export --dataset add-one_step-train" in printed
    assert run([*words, "--stage", "first"], monkeypatch) == 2
    assert "add --overwrite to replace it" in capsys.readouterr().err
    assert run([*words, "--stage", "first", "--overwrite"], monkeypatch) == 0
    assert run(["export", str(small), "--format", "parquet"], monkeypatch) == 2
    assert "there is no format 'parquet'" in capsys.readouterr().err
