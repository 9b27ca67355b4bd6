"""A model without adapters, asked in place of each; and the folder of one adapter, for its one task."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("peft")

from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from caef_data.errors import UserError
from caef_data.eval.backends.defaults import MOST, say_otherwise
from caef_data.eval.backends.tokens import load_tokenizer
from caef_data.eval.session import prepare
from caef_data.eval.settings import EvalSettings
from caef_data.tests.checkpoints import write_json
from caef_data.tests.evaluating import begun, finish, model_of

CKPT = Path(__file__).parents[1] / "examples/tiny/ckpt"


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a whole model that has learnt to add: the tiny one, its adapter merged into it."""
    folder = tmp_path_factory.mktemp("merged")
    base = AutoModelForCausalLM.from_pretrained(CKPT / "base")
    PeftModel.from_pretrained(base, CKPT / "executors/add").merge_and_unload().save_pretrained(folder)
    AutoTokenizer.from_pretrained(CKPT / "base").save_pretrained(folder)
    return folder


def evaluated(data: Path, out: Path, **given: Any) -> dict[str, tuple[int, int, Any]]:
    """Evaluate; return problems, right ones, and the id of the run for each mode."""
    session = prepare(EvalSettings(data=str(data), out=str(out), task=("add",), limit=6, device="cpu", **given))
    rows = finish(session, model_of(session)).to_pylist()
    found: dict[str, tuple[int, int, Any]] = {}
    for row in rows:
        n, right, _ = found.get(row["mode"], (0, 0, ""))
        found[row["mode"]] = n + row["n"], right + row["correct"], session.tables.run_id
    return found


def test_a_whole_model_is_asked_in_every_mode(data: Path, tmp_path: Path, merged: Path) -> None:
    adapters = evaluated(data, tmp_path / "a", adapters=str(CKPT), mode=("one_step", "executor"))
    model = evaluated(data, tmp_path / "b", model=str(merged))
    assert model.keys() == {"one_step", "executor", "aligner_in", "aligner_out", "process"}
    for mode in adapters:
        assert model[mode][:2] == adapters[mode][:2] and model[mode][1] > 0
    assert model["process"][1] <= model["executor"][1]
    named = evaluated(data, tmp_path / "c", base_model=str(merged))
    assert named == model  # the same run: another way to say it
    baseline = prepare(EvalSettings(data=str(data), out=str(tmp_path), task=("add",), model=str(merged), baseline=True))
    assert [mode for _, mode in baseline.pairs] == ["raw"]


def test_one_adapter_is_evaluated_for_its_task(data: Path, tmp_path: Path) -> None:
    whole = evaluated(data, tmp_path / "a", adapters=str(CKPT), mode="one_step")
    alone = evaluated(data, tmp_path / "b", adapters=str(CKPT / "executors/add"))
    assert alone.keys() == {"one_step", "executor"} and alone["one_step"][:2] == whole["one_step"][:2]


def test_what_an_adapters_own_tokenizer_changes_is_told_in_one_line(data: Path, tmp_path: Path) -> None:
    shutil.copytree(CKPT, tmp_path / "ckpt")
    tokenizer = AutoTokenizer.from_pretrained(CKPT / "base")
    for name in ("left_mask", "reflection"):
        tokenizer.save_pretrained(tmp_path / "ckpt/executors" / name)  # says what the base model's says
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>"})
    for name in ("add", "sub"):
        tokenizer.save_pretrained(tmp_path / "ckpt/executors" / name)
    given: dict[str, Any] = {"task": ("sub",), "mode": "executor", "limit": 2, "device": "cpu"}
    session = prepare(EvalSettings(adapters=str(tmp_path / "ckpt"), data=str(data), out=str(tmp_path / "out"), **given))
    told: list[str] = []
    with begun(session) as store:
        model_of(session, told.append)(store)
    [line] = [line for line in told if "tokenizer" in line]
    assert line.startswith("executors/add, executors/sub: the tokenizer in the adapter's folder is used")
    assert "an answer ends with '<|im_end|>' instead of" in line


QWEN = {"do_sample": True, "temperature": 0.7, "top_k": 20, "repetition_penalty": 1.05, "eos_token_id": [1, 2]}
NONE = {"repetition_penalty": 1, "num_beams": 1, "min_length": 0, "suppress_tokens": [], "sequence_bias": {}}
APPLIED = "of the model's generation_config.json is not applied; transformers' generate would apply it"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps(QWEN), [f"repetition_penalty 1.05 {APPLIED}"]),
        (json.dumps({"eos_token_id": 1, **NONE, "guidance_scale": None, "forced_eos_token_id": None}), []),
        (json.dumps({"eos_token_id": 1, "forced_bos_token_id": 0}), [f"forced_bos_token_id 0 {APPLIED}"]),
        (json.dumps({"eos_token_id": 1, "min_length": 3, "stop_strings": ["x"]}), ["min_length 3, stop_strings ['x']"]),
        (json.dumps({"eos_token_id": [2, 0]}), ["which the model's generation_config.json does not name as its eos"]),
        (json.dumps({}), ["does not name as its eos_token_id (none): transformers' generate would not stop there"]),
        (json.dumps({"eos_token_id": 1, "bad_words_ids": [[5]] * 9999}), ["(49,995 characters) of the model's"]),
        ("{", ["generation_config.json cannot be read"]),
        ("[1]", ["generation_config.json cannot be read: 'it holds no JSON object'"]),
        ("[" * 100_000, ["generation_config.json cannot be read"]),
        ('{"min_length": 1' + "0" * 5000 + "}", ["generation_config.json cannot be read"]),
        (" " * MOST + "{}", ["generation_config.json cannot be read: 'it has 1,048,578 bytes'"]),
        (None, []),
    ],
)
def test_what_generate_would_do_otherwise_is_said(tmp_path: Path, content: str | None, said: list[str]) -> None:
    tokens, base = load_tokenizer(CKPT / "base"), tmp_path / "base"
    assert tokens.end == 1
    shutil.copytree(CKPT / "base", base)
    (base / "generation_config.json").unlink()
    if content is not None:
        (base / "generation_config.json").write_text(content)
    found: list[str] = []
    say_otherwise(base, [tokens, tokens], found.append)
    assert len(found) == len(said) and all(part in line for part, line in zip(said, found, strict=True))
    (base / "generation_config.json").unlink(missing_ok=True)  # old models have all of it in one file
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "text_config": {"min_length": 4}, "eos_token_id": 2}))
    found.clear()
    say_otherwise(base, [tokens], found.append)
    assert ["min_length 4 of the model's config.json" in line for line in found] == [True, False]


def test_an_evaluation_says_once_what_generate_would_do_otherwise(data: Path, tmp_path: Path) -> None:
    shutil.copytree(CKPT, tmp_path / "ckpt")
    write_json(tmp_path / "ckpt/base/generation_config.json", QWEN)
    given: dict[str, Any] = {"task": ("sub",), "mode": "executor", "limit": 2, "device": "cpu"}
    session = prepare(EvalSettings(adapters=str(tmp_path / "ckpt"), data=str(data), out=str(tmp_path / "out"), **given))
    told: list[str] = []
    with begun(session) as store:
        model_of(session, told.append)(store)
    assert told == [f"repetition_penalty 1.05 {APPLIED}"]


@pytest.mark.parametrize("other", [{"adapters": "ckpt"}, {"base_model": "base"}])
def test_a_whole_model_has_no_adapters(other: dict[str, str]) -> None:
    with pytest.raises(UserError, match="--model is asked in place of every adapter"):
        EvalSettings(model="model", **other)


@pytest.mark.parametrize("option", ["model", "base_model"])
def test_a_model_that_is_not_there_is_named_by_its_option(data: Path, tmp_path: Path, option: str) -> None:
    named: dict[str, Any] = {option: str(tmp_path / "none")}
    with pytest.raises(UserError, match="there is no base model") as raised:
        prepare(EvalSettings(data=str(data), out=str(tmp_path), task=("add",), **named))
    assert raised.value.where == "--" + option.replace("_", "-")
