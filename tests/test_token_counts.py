"""``caef-data tokens`` counts what a plain loop counts, of files and of what a declaration plans."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

pytest.importorskip("transformers", reason="counting tokens needs caef-data[eval]")

from caef_data import tokenize_row
from caef_data.cli import app
from caef_data.errors import UserError
from caef_data.tests.commands import call
from caef_data.tests.real_vocabularies import VOCABULARIES, tokenizer, vocabulary
from caef_data.tests.small_model import make_tokenizer
from caef_data.tests.token_tables import DOCUMENT, cell


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    make_tokenizer().save_pretrained(folder)
    return folder


def run(*words: object) -> str:
    result = CliRunner().invoke(app, ["tokens", *map(str, words)], env={"COLUMNS": "20"}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def counted(*words: object) -> dict[tuple[str, str], dict[str, object]]:
    configs = json.loads(run(*words, "--json"))["configs"]
    return {(entry["config"], entry["split"]): entry for entry in configs}


@pytest.mark.parametrize("stage", ["first", "second"])
@pytest.mark.parametrize("name", ["deepseek", "mistral-v1"])
def test_counts_are_those_of_a_plain_loop(smoke: Path, name: str, stage: str) -> None:
    words, config = tokenizer(name), "mul-commands" if stage == "first" else "equal-aligner"
    found = counted(smoke, "--tokenizer", vocabulary(name), "--config", config, "--split", "test", "--stage", stage)
    rows = pq.read_table(next((smoke / config).glob("test-*"))).to_pylist()
    lengths, digits, merged = [], 0, 0
    for row in rows:
        before = row["instruction"] if stage == "first" else ""
        prompt, completion = tokenize_row(words, before + row["prompt"], row["completion"])
        lengths.append(len(prompt) + len(completion))
        digits += len(row["a"]) + len(row["b"])
        merged += words(before + row["prompt"] + row["completion"])["input_ids"] != prompt + completion[:-1]
    assert found == {
        (config, "test"): {
            "config": config,
            "split": "test",
            "rows": len(rows),
            "counted": len(rows),
            "mean": sum(lengths) / len(lengths),
            "longest": max(lengths),
            "per_digit": sum(lengths) / digits,
            "unspelled": 0,
            "merged": merged,
            "over": {str(most): sum(length > most for length in lengths) for most in (1024, 2048, 4096, 8192)},
        }
    }
    assert bool(merged) == (name == "deepseek" and stage == "second")


def test_a_declaration_is_counted_as_its_build(smoke: Path, small: Path) -> None:
    """The rows planned are those built, shard by shard; a sample of a split are its first rows."""
    options = ("--tokenizer", small, "--config", "add-one_step", "--split", "test")
    assert counted("smoke", *options) == counted(smoke, *options)
    some = counted(smoke, *options, "--rows", 7)["add-one_step", "test"]
    rows = pq.read_table(next((smoke / "add-one_step").glob("test-*"))).to_pylist()[:7]
    lengths = [sum(map(len, tokenize_row(make_tokenizer(), row["prompt"], row["completion"]))) for row in rows]
    assert (some["counted"], some["longest"]) == (7, max(lengths)) and some["rows"] > 7


def test_what_people_read(smoke: Path, small: Path) -> None:
    """One line a config, no digit cut on the narrowest terminal, a word for what a sample is."""
    printed = run(smoke, "--tokenizer", small, "--config", "mul-scratchpad", "--config", "add-raw", "--rows", 3)
    lines = [line for line in printed.splitlines() if line.startswith("│")]
    names = [line.split()[1] for line in lines]
    assert names[:2] == ["add-raw", "mul-scratchpad"] and "…" not in printed
    assert set(names[2:]) == {"raw", "scratchpad"}  # by view and digits of the longer operand
    assert [line.split()[3] for line in lines[2:] if "raw" in line] == sorted({line.split()[3] for line in lines[2:]})
    assert "of a sample of the rows" in printed and "every text comes back" in printed and "border" not in printed
    assert "over 1,024" in " ".join(printed.split())


def test_a_text_that_does_not_come_back_is_counted(smoke: Path, tmp_path: Path) -> None:
    from tokenizers import normalizers

    words = make_tokenizer()
    words.backend_tokenizer.normalizer = normalizers.Lowercase()
    words.save_pretrained(tmp_path)
    options = ("--tokenizer", tmp_path, "--config", "add-aligner", "--split", "test")
    entry = counted(smoke, *options)["add-aligner", "test"]
    assert entry["unspelled"] == entry["rows"]
    assert "cannot spell them" in run(smoke, *options)
    code, said = call("export", smoke, "--format", "alpaca", "--out", tmp_path / "rows", *options)
    assert (code, "the tokenizer cannot spell the machines' texts" in said) == (2, True), said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "there is no dataset here"),
        (["nowhere.toml"], "does not exist"),
        (["smoke", "--config", "add-row"], "did you mean 'add-raw'"),
        (["smoke", "--stage", "third"], "there is no stage"),
    ],
)
def test_what_cannot_be_counted(words: list[str], said: str, small: Path) -> None:
    with pytest.raises(UserError, match=said):
        run(*words, "--tokenizer", small)


def test_a_tokenizer_that_is_none(smoke: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the tokenizer cannot be loaded"):
        run(smoke, "--tokenizer", tmp_path)


def test_the_documents_table_is_what_the_command_counts() -> None:
    """One column of it, by the script that writes it: ``python -m caef_data.tests.token_tables``."""
    lines = [[text.strip() for text in line.split("|")[1:-1]] for line in DOCUMENT.read_text().splitlines()]
    [head] = [line for line in lines if line[:2] == ["rows", "digits"]]
    assert head[2:] == [*VOCABULARIES]
    [row] = [line for line in lines if line[:2] == ["`raw`", "10"]]
    assert row[head.index("deepseek")] == cell("deepseek", 10, "second", "raw")
