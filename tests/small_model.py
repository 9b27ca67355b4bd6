"""A language model that tests make in seconds: a Llama of two layers that has learnt some answers by heart."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

END = 1  # the token that ends an answer
MERGES = [("1", "2"), ("3", "4"), ("12", "34"), ("a", "b")]  # 12 and 1234 are tokens beside their digits


def make_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    """Return a lossless byte-level BPE tokenizer of printable ASCII, with the merges above."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<pad>", "<end>", "<begin>", *letters, *("".join(pair) for pair in MERGES)]
    tokenizer = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>", **special)


def make_model(vocabulary: int, *, seed: int = 0, width: int = 64, positions: int = 128) -> LlamaForCausalLM:
    """Return an untrained model."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    shape = {"hidden_size": width, "intermediate_size": 2 * width, "max_position_embeddings": positions}
    tokens: dict[str, Any] = {"bos_token_id": None, "eos_token_id": END, "pad_token_id": 0}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **heads, **shape, **tokens))


Tokens = tuple[list[int], list[int]]  # of a prompt and its answer


def learn(model: torch.nn.Module, rows: Sequence[Tokens], steps: int) -> None:
    """Train on all rows at once."""
    learn_batches(model, [rows] * steps)


def learn_batches(model: torch.nn.Module, batches: Iterable[Sequence[Tokens]], rate: float = 5e-3) -> None:
    """Train on batches of prompts and answers, each answer ended."""
    import torch

    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=rate, weight_decay=0)
    model.train()
    for rows in batches:
        width = max(len(prompt) + len(answer) for prompt, answer in rows) + 1
        ids, labels = torch.zeros(len(rows), width, dtype=torch.long), torch.full((len(rows), width), -100)
        for place, (prompt, answer) in enumerate(rows):
            tokens = torch.tensor([*prompt, *answer, END])
            ids[place, : len(tokens)] = tokens
            labels[place, len(prompt) : len(tokens)] = tokens[len(prompt) :]
        model(input_ids=ids, labels=labels, use_cache=False).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.eval()


def make_texts(number: int, seed: int = 0) -> list[tuple[str, str]]:
    """Return prompts and answers of many lengths; what follows from a prompt takes learning."""
    chance = random.Random(seed)
    texts = []
    for _ in range(number):
        word = "".join(chance.choice("abcdx1234| ") for _ in range(chance.randint(2, 14)))
        texts.append((f"{word}=\n", f" {word[::-1].upper()}\n" if chance.random() < 0.5 else word * 2))
    return list(dict(texts).items())


def save(folder: Path, model: Any, tokenizer: Any) -> Path:
    """Save a model as base models are kept."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
