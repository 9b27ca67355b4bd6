# ruff: noqa: E402  (the imports below are of packages that need not be installed)
"""``examples/train.py`` trains on the rows as they are meant: two stages, the completion and its end, nothing else."""

import argparse
import importlib.util
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.plan import make_plan

for name in ("torch", "trl", "peft"):
    pytest.importorskip(name, reason="training needs caef-data[train]")

import torch
from peft import PeftModel
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from datasets import Dataset, load_dataset

END = "</s>"


def load_example() -> ModuleType:
    path = Path(__file__).resolve().parents[1] / "examples" / "train.py"
    spec = importlib.util.spec_from_file_location("train_example", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return load_example()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("train") / "data"
    settings = {"min": 1, "max": 2, "num": 1, "splits": ["train"], "views": ["one_step"]}
    build(make_plan(from_flags(["sub"], **settings)), out, workers=1)
    return out


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a random Llama whose tokens are characters."""
    folder = tmp_path_factory.mktemp("model")
    characters = [chr(code) for code in range(32, 127)] + ["\n", "<s>", END]
    words = Tokenizer(models.WordLevel({text: number for number, text in enumerate(characters)}, unk_token="<s>"))
    words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token=END)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes, **ends)).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Keep caches apart, and see that nobody asks the network."""
    import datasets

    asked = []
    monkeypatch.setattr(socket.socket, "connect", lambda _, place: asked.append(place))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    assert not asked


def text(tiny: Path, tokens: Any) -> str:
    return "".join(AutoTokenizer.from_pretrained(tiny).convert_ids_to_tokens(tokens))


def rows_of(data: Path) -> Dataset:
    return load_dataset(str(data), "sub-one_step", split="train")


@pytest.mark.parametrize("stage", ["first", "second"])
def test_only_the_completion_and_its_end_are_learned(
    example: ModuleType, data: Path, tiny: Path, tmp_path: Path, stage: str
) -> None:
    rows = rows_of(data).select(range(6))
    options = argparse.Namespace(
        model=str(tiny),
        out=str(tmp_path / "out"),
        steps=1,
        batch_size=6,
        learning_rate=1e-3,
        rank=2,
        seed=0,
        template=None,
    )
    trainer = example.make_trainer(str(tiny), rows, stage, options)
    batch = trainer.data_collator([trainer.train_dataset[number] for number in range(len(rows))])
    for row, tokens, labels, seen in zip(
        rows, batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True
    ):
        before = row["instruction"] if stage == "first" else ""
        assert text(tiny, tokens[seen == 1]) == before + row["prompt"] + row["completion"] + END
        assert text(tiny, labels[labels != -100]) == row["completion"] + END
        assert torch.equal(tokens[labels != -100], labels[labels != -100])
    assert (stage == "first") == (batch["input_ids"].shape[1] > 1024)  # the default would have cut these
    with torch.no_grad():
        logits = trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        loss = trainer.compute_loss(trainer.model, dict(batch))
    learned = batch["labels"][:, 1:] != -100
    expected = torch.nn.functional.cross_entropy(logits[:, :-1][learned].float(), batch["labels"][:, 1:][learned])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_both_stages_run_and_leave_adapters(
    example: ModuleType, data: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "ckpt" / "executors" / "sub"
    words = ["train.py", str(tiny), "--data", str(data), "--out", str(out), "--steps", "2", "--batch-size", "2"]
    monkeypatch.setattr(sys, "argv", [*words, "--learning-rate", "0.01"])
    given = []
    make_trainer = example.make_trainer

    def spy(model: Any, rows: Dataset, *others: Any) -> Any:
        given.append(
            model if isinstance(model, str) else {name: one.clone() for name, one in model.state_dict().items()}
        )
        return make_trainer(model, rows.select(range(4)), *others)

    monkeypatch.setattr(example, "make_trainer", spy)
    example.main()
    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (out / "first", out))
    assert first.keys() == second.keys() and any("lora_B" in name for name in first)
    assert all(torch.isfinite(value).all() for value in second.values())
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert given[0] == str(tiny)
    for name, value in first.items():  # the second stage goes on with what the first one learned
        torch.testing.assert_close(given[1][name.replace(".weight", ".default.weight")].float(), value.float())
    assert not list(out.rglob("*.bin.index*")) and not list(out.rglob("pytorch_model*"))
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), out)
    tokens = AutoTokenizer.from_pretrained(out)("SUB, q0", return_tensors="pt")
    assert torch.isfinite(model(**tokens).logits).all()


def test_a_tokenizer_without_an_end_is_refused(example: ModuleType, data: Path, tiny: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(SystemExit, match="no end-of-text token"):
        example.make_trainer(str(tiny), rows_of(data), "first", argparse.Namespace(model=str(tmp_path), template=None))


def test_the_training_of_the_docs_works_as_it_stands(
    data: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
    found = re.search(r"^<!-- train: -->\n```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert found is not None, "docs/training.md shows no training"
    code, changed = re.subn(r'^name, steps = ".+", \d+$', f'name, steps = "{tiny}", 1', found[1], flags=re.MULTILINE)
    assert changed == 1
    (tmp_path / "smoke").symlink_to(data)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "training.md", "exec"), {})
    adapters = {path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("adapter_model.safetensors")}
    assert {"ckpt/executors/sub", "ckpt/executors/sub/first"} <= adapters
