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
from caef_data.pipelines.export import Style, export
from caef_data.tests.commands import everything, full_disk
from caef_data.tests.test_export import make

JSONL, ALPACA = Style("jsonl", "second"), Style("alpaca", "first")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of several shards; tests only read it."""
    return make(tmp_path_factory.mktemp("small") / "data")


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
def test_a_stopped_export_leaves_nothing(small: Path, tmp_path: Path, how: type[BaseException]) -> None:
    with pytest.raises(how):
        export(str(small), str(tmp_path / "export"), ALPACA, progress=stop_after(2, how))
    assert not [*tmp_path.iterdir()]


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
    refused(small, foreign, "an export needs a new folder")
    refused(small, foreign / "thesis.tex", "an export needs a new folder")
    refused(copy, copy, "an export needs a new folder")  # onto itself
    refused(small, "s3://bucket/prefix", "a folder on this machine")
    refused(tmp_path / "nothing", tmp_path / "export", "there is no dataset here")
    assert not (tmp_path / "nothing").exists()
    out = tmp_path / "export"
    out.mkdir()
    fresh(small, out)  # an empty one will do
    refused(small, out, "an export needs a new folder")
    with pytest.raises(UserError, match="no manifest.json of caef-data"):  # nor does a build touch an export
        make(out)


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
    with pytest.raises(UserError, match="or its sha256 is another one") as error:
        export(str(copy), str(out), JSONL)
    assert str(shard) in str(error.value) and f"caef-data verify {copy}" in str(error.value)
    shard.unlink()
    with pytest.raises(UserError, match="it is missing, or"):
        export(str(copy), str(out), JSONL)
    assert not out.exists()


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


def test_a_full_disk(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "export"
    with full_disk(20_000), pytest.raises(UserError, match="the disk is full") as error:
        export(str(small), str(out), JSONL)
    assert str(out) in str(error.value) and "run the same command again" in str(error.value)
    assert not out.exists()
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
    assert "rm -r export" in capsys.readouterr().err
    assert run(["export", str(small), "--format", "parquet"], monkeypatch) == 2
    assert "there is no format 'parquet'" in capsys.readouterr().err
