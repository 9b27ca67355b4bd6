"""Budgets of tokens are met within 1%, and what rows cost stands in plan and card; no tokenizer is needed to verify."""

import json
import shlex
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

pytest.importorskip("transformers", reason="counting tokens needs caef-data[eval]")

from caef_data.api import build, plan, stream, verify
from caef_data.cli import app
from caef_data.errors import UserError
from caef_data.eval.token_counts import TokenCounter
from caef_data.pipelines.budget import tokenizer_name
from caef_data.pipelines.plan import Plan
from caef_data.tests.real_vocabularies import vocabulary
from caef_data.tests.small_model import make_tokenizer

TOKENS = 400_000
ASKED = {"task": ["add", "equal"], "max": 3, "views": ["one_step", "aligner"], "splits": ["train"], "tokens": TOKENS}


def run(*words: object) -> str:
    result = CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a dataset with a budget of tokens, and its tokenizer."""
    folder = tmp_path_factory.mktemp("tokens")
    make_tokenizer().save_pretrained(folder / "my words")
    options = ["--max", 3, "--view", "one_step,aligner", "--split", "train", "--workers", 1, "-o", folder / "data"]
    run("build", "--task", "add,equal", *options, "--tokens", TOKENS, "--tokenizer", folder / "my words")
    return folder / "data", folder / "my words"


def test_a_budget_of_tokens_is_met_and_recorded(data: tuple[Path, Path], tmp_path: Path) -> None:
    folder, words = data
    counter = TokenCounter(str(words))
    batches = [batch for path in folder.glob("*/train-*") for batch in pq.ParquetFile(path).iter_batches()]
    assert abs(sum(sum(counter.lengths(batch)) for batch in batches) - TOKENS) <= TOKENS / 100
    manifest = json.loads((folder / "manifest.json").read_text())
    budgets = [own["settings"]["budget"] for own in manifest["tasks"].values()]
    assert sum(budget["rows"] for budget in budgets) == sum(batch.num_rows for batch in batches)
    assert {budget["asked"] for budget in budgets} == {TOKENS}
    assert {budget["sha256"] for budget in budgets} == {counter.sha256}
    assert {budget["tokenizer"] for budget in budgets} == {"my-words"}  # where it lies is nobody's concern
    assert str(folder.parent) not in (folder / "manifest.json").read_text() + (folder / "README.md").read_text()
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert verify(tmp_path / "elsewhere", workers=1).ok
    build({**ASKED, "tokenizer": str(words)}, tmp_path / "again", workers=1)
    assert (tmp_path / "again" / "manifest.json").read_bytes() == (folder / "manifest.json").read_bytes()


def test_the_tokenizer_is_part_of_the_identity(data: tuple[Path, Path], tmp_path: Path) -> None:
    folder, words = shutil.copytree(data[0], tmp_path / "data"), data[1]
    shutil.copytree(words, tmp_path / "other")
    file = tmp_path / "other" / "tokenizer.json"
    given = {**ASKED, "tokenizer": str(tmp_path / "other")}
    assert all(not one.built for one in build(given, folder, workers=1))  # the same one in another place
    file.write_text(file.read_text() + "\n")
    with pytest.raises(UserError, match="sha256"):
        build(given, folder, workers=1)


def test_plan_and_card_tell_what_rows_cost(data: tuple[Path, Path], tmp_path: Path) -> None:
    folder, words = data
    card = (folder / "README.md").read_text()
    assert "In tokens of `my-words`" in card and "| add-aligner | train | " in card
    assert "comes back from its tokens" in card
    declared = tmp_path / "mul.toml"
    declared.write_text('task = "mul"\nmax = 9\nnum = 9\nviews = ["one_step"]')
    planned = json.loads(run("plan", declared, "--tokenizer", words, "--json"))
    [counted] = [one for one in planned["configs"] if one["split"] == "train"]
    told = json.loads(run("tokens", declared, "--tokenizer", words, "--json"))
    [alone] = [one for one in told["configs"] if one["split"] == "train"]
    assert counted["tokens"]["counted"] == 1_000  # of more
    assert {key: value for key, value in counted["tokens"].items() if key in alone and key[0] != "m"} == {
        key: pytest.approx(value, abs=0.001) for key, value in alone.items() if key[0] != "m" and key != "rows"
    }
    lengths = [one for one in told["lengths"] if one["view"] == "one_step"]
    assert sum(one["counted"] for one in lengths) == sum(one["counted"] for one in told["configs"])
    assert [one["digits"] for one in lengths] == sorted(one["digits"] for one in lengths)
    assert max(one["longest"] for one in lengths) == max(one["longest"] for one in told["configs"])


def test_a_stream_and_the_command_tokens_take_a_budget_of_tokens(data: tuple[Path, Path], tmp_path: Path) -> None:
    rows = stream(task="add", max=3, tokens=TOKENS, tokenizer=str(data[1]))
    planned = plan(task="add", max=3, tokens=TOKENS, tokenizer=str(data[1]))
    words = ["--task", "add", "--max", 3, "--tokens", TOKENS, "--tokenizer", data[1]]
    assert f"--tokenizer {shlex.quote(str(data[1]))}" in json.loads(run("plan", *words, "--json"))["command"]
    (tmp_path / "own.toml").write_text(f'task = "add"\nmax = 3\ntokens = {TOKENS}\ntokenizer = "{data[1]}"\n')
    told = json.loads(run("tokens", tmp_path / "own.toml", "--tokenizer", data[1], "--rows", 9, "--json"))
    assert [one["rows"] for one in told["configs"]] == [config.rows for config in planned.configs]
    [config] = [one for one in planned.configs if (one.view, one.split) == ("one_step", "train")]
    exact = sum(config.planned(block).num_rows for block in config.blocks(0))
    assert abs(rows.epoch_rows - exact) <= exact / 100
    assert json.loads(run("verify", "--stream", 20, tmp_path / "own.toml", "--json"))["ok"]


@pytest.mark.parametrize(
    ("given", "named"),
    [("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"), ("gpt2", "gpt2"), ("/a/my tok'en/", "my-tok-en")],
)
def test_names_of_tokenizers(given: str, named: str) -> None:
    assert tokenizer_name(given) == named


def tokens_of(planned: Plan, counter: TokenCounter) -> int:
    """Count the tokens of all rows of train."""
    configs = [config for config in planned.configs if config.split == "train"]
    blocks = [(one, block) for one in configs for shard in range(one.num_shards) for block in one.blocks(shard)]
    return sum(sum(counter.lengths(one.render(block))) for one, block in blocks)


@pytest.mark.long
@pytest.mark.parametrize("name", ["llama3", "gpt2", "mistral-v1"])
@pytest.mark.parametrize(
    "settings",
    [
        {"task": "all", "max": 12, "tokens": 7_000_000},
        {"task": "sub", "max": 100, "tokens": 30_000_000},
        {"task": "mul", "max": 24, "tokens": 20_000_000, "views": ["one_step", "full", "aligner", "raw", "commands"]},
    ],
)
def test_estimates_hold_over_all_rows(name: str, settings: dict[str, object]) -> None:
    planned = plan(**settings, tokenizer=str(vocabulary(name)))
    asked = planned.declaration.tokens
    found = tokens_of(planned, TokenCounter(str(vocabulary(name))))
    print(name, settings, f"{found / asked - 1:+.3%}")
    assert abs(found / asked - 1) < 0.002  # docs/building.md says so
