# ruff: noqa: E402  (the imports below are of packages that need not be installed)
"""What people really have: real vocabularies, and an adapter trained as the README trains, judged as it decodes."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

for package in ("torch", "peft", "tiktoken"):
    pytest.importorskip(package, reason="real vocabularies need caef-data[dev]")

from caef_data.eval.backends.tokens import Tokens, check_spelling
from caef_data.eval.calls import Request
from caef_data.tests.real_vocabularies import VOCABULARIES, reduce_vocabulary, tokenizer
from caef_data.tm import align_in, align_out, transitions

SLOW = ("llama4", "mistral-v3", "smollm2")
NAMES = [pytest.param(name, marks=[pytest.mark.long] if name in SLOW else []) for name in VOCABULARIES]
TASKS = {"add": "+", "sub": "-", "mul": "*", "div": "//", "equal": "==", "greater_than": ">", "less_than": "<"}


def rows(task: str, a: int, b: int) -> dict[str, list[tuple[str, str]]]:
    """Return prompts and completions of an expression, by view."""
    raw, answer = f"{a}{TASKS[task]}{b}=", align_out(task, a, b)
    return {
        "one_step": [(step.prompt, step.completion) for step in transitions(task, a, b)][:40],
        "aligner": [(raw, align_in(raw)), answer],
        "raw": [(raw, answer[1].partition("=" if task != "equal" else f"=={b}=")[2])],
    }


@pytest.mark.parametrize("name", NAMES)
def test_rows_in_a_real_vocabulary(name: str) -> None:
    """Every text survives; where tokens span the border is known; a completion has no blank mark of its own."""
    whole, entry = tokenizer(name), VOCABULARIES[name]
    tokens, spanning = Tokens(whole), set()
    assert tokens.lead == (" " if entry.blank else "")
    for task in TASKS:
        for view, texts in rows(task, 47819, 12).items():
            check_spelling(tokens, [Request(*text) for text in texts])
            prompts = tokens.prompts([prompt for prompt, _ in texts])
            answers = tokens.completions([completion for _, completion in texts])
            for (prompt, completion), given, answer in zip(texts, prompts, answers, strict=True):
                assert whole.decode(given, skip_special_tokens=True) == prompt
                assert tokens.text(given, answer) == completion
                joint = whole(prompt + completion)["input_ids"]
                assert tokens.merging([prompt], [completion]) == [joint[: len(given)] != given]
                if joint != given + answer:
                    spanning.add(f"{view} {task}")
    assert spanning == set(entry.spanning.split(", ") if entry.spanning else [])


def equal_rows() -> list[dict[str, str]]:
    """Return 16 aligner rows of equal, half of them in."""
    found = []
    for a in range(8):
        b = a if a % 2 else (a + 3) % 10
        raw = f"{a}=={b}="
        texts = [(raw, align_in(raw)), align_out("equal", a, b)]
        found += [{"instruction": "", "prompt": prompt, "completion": completion} for prompt, completion in texts]
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small Llama with Llama 3's vocabulary, as far as these rows use it."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    found = equal_rows()
    texts = [one for row in found for one in (row["prompt"], row["completion"], row["prompt"] + row["completion"])]
    folder = reduce_vocabulary("llama3", texts, tmp_path_factory.mktemp("equal") / "base")
    words = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
    config = LlamaConfig(vocab_size=len(words), max_position_embeddings=128, initializer_range=0.1, **sizes, **ends)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def learn(trainer: Any, out: Path) -> Path:
    trainer.train()
    learned = [log["mean_token_accuracy"] for log in trainer.state.log_history if "mean_token_accuracy" in log]
    assert learned[-1] == 1
    trainer.save_model(str(out))
    return out


def decoded(base: Path, adapter: Path) -> list[bool]:
    """Return which rows plain greedy decoding gives back."""
    from caef_data.tests.plain import plain_greedy

    found = equal_rows()
    texts = plain_greedy(base, adapter, [row["prompt"] for row in found], 64)
    return [text == row["completion"] for text, row in zip(texts, found, strict=True)]


def judged(base: Path, adapter: Path, **options: Any) -> list[bool]:
    """Return which rows evaluation counts as right, by both strategies, which agree."""
    from caef_data.eval.backends.local import TransformersBackend
    from caef_data.eval.backends.tokens import load_tokenizers
    from caef_data.eval.calls import Request

    name, found = "aligners/equal", equal_rows()
    tokens = load_tokenizers(base, {name: adapter}, **options)
    backend = TransformersBackend(base, {name: adapter}, tokens, dtype="float32", device="cpu")
    calls = [Request(row["prompt"], row["completion"]) for row in found]
    verdicts = dict(backend.verify(name, calls))
    answers = dict(backend.decode(name, [Request(call.prompt, call.completion) for call in calls]))
    right = [answers[place].text == call.completion for place, call in enumerate(calls)]
    # a failed pass is decoded: another tokenisation of the right text counts as right
    assert all(not verdicts[place].right or right[place] for place in range(len(calls)))
    return right


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    import datasets

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield


@pytest.mark.usefixtures("quiet")
def test_what_is_trained_is_what_is_asked(base: Path, tmp_path: Path) -> None:
    """A12: trained on tokens apart, all rows come back; on joined text, no aligner-in row does but with --joined."""
    pytest.importorskip("trl", reason="training needs caef-data[train]")
    import torch
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    from caef_data.tests.test_train_example import load_example
    from datasets import Dataset

    options = argparse.Namespace(
        model=str(base), out=str(tmp_path), steps=70, batch_size=16, learning_rate=2e-2, rank=16, seed=0, template=None
    )
    trained = Dataset.from_list(equal_rows())
    apart = learn(load_example().make_trainer(str(base), trained, "second", options), tmp_path / "apart")
    assert decoded(base, apart) == judged(base, apart) == [True] * 16

    config = SFTConfig(
        str(tmp_path),
        max_steps=70,
        learning_rate=2e-2,
        per_device_train_batch_size=16,
        report_to="none",
        bf16=False,
        seed=0,
    )
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    columns = trained.select_columns(["prompt", "completion"])
    torch.manual_seed(0)
    joined = learn(SFTTrainer(str(base), config, train_dataset=columns, peft_config=lora), tmp_path / "joined")
    assert decoded(base, joined) == judged(base, joined)
    assert sum(decoded(base, joined)[::2]) == 0  # the token =E would have to follow the prompt without its =
    assert judged(base, joined, joined=True) == [True] * 16  # --joined gives it the prompt without its =
