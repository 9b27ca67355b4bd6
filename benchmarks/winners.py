"""A model of random weights that is right, or wrong where it shall be, at the full cost of one that has learnt it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from caef_data.eval.backends import local as backend_module
from caef_data.eval.backends.greedy import LOOK_EVERY
from caef_data.eval.backends.local import TransformersBackend
from caef_data.eval.calls import BASE

PAD, END = 0, 1
WINS = 1e4  # added to the logit of the token that shall win
Texts = list[tuple[str, str]]


def make_tokenizer() -> PreTrainedTokenizerFast:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(["<pad>", "<end>", *letters])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>", padding_side="left"
    )


def save_llama(folder: Path, width: int, layers: int) -> PreTrainedTokenizerFast:
    """Write a Llama of random weights and its tokenizer, whose tokens are bytes; return the tokenizer."""
    tokenizer = make_tokenizer()
    heads = {"num_attention_heads": width // 64, "num_key_value_heads": width // 64}
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=width * 43 // 16, num_hidden_layers=layers,
        max_position_embeddings=4096, eos_token_id=END, pad_token_id=PAD, **heads,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    LlamaForCausalLM(config).save_pretrained(folder)
    return tokenizer


class Winners:
    """Decides which tokens win: the right answers of some rows, or others.

    Args:
        backend: whose model to hook on.
    """

    def __init__(self, backend: TransformersBackend) -> None:
        self.backend = backend
        self.of_prompt: dict[tuple[int, ...], list[int]] = {}  # what wins behind a prompt, and behind what is known
        self.of_given: dict[tuple[int, ...], list[int]] = {}
        self.next: Callable[[], torch.Tensor] | None = None
        backend.model.net.get_output_embeddings().register_forward_hook(self.boost)

    def boost(self, _: Any, __: Any, logits: torch.Tensor) -> None:
        flat = logits.view(-1, logits.shape[-1])
        if self.next is not None:
            flat[torch.arange(len(flat), device=flat.device), self.next()] += WINS

    def learn(self, texts: Texts, wrong: Sequence[int | None] | None = None) -> None:
        """Make the right answers win, but for one token of some rows."""
        tokens = self.backend.tokens[BASE]
        wrong = wrong or [None] * len(texts)
        for (prompt, answer), at in zip(texts, wrong, strict=True):
            winners = [*tokens.encode([answer])[0], END]
            if at is not None:
                winners[at] = tokens.encode(["#"])[0][0]
            [given], [right] = tokens.prompts([prompt]), tokens.encode([answer])
            self.of_prompt[tuple(given)] = winners
            for known in {0, at or 0}:
                self.of_given[(*given, *right[:known])] = winners[known:]

    def score(self, model: Any, rows: Any, *more: Any) -> Any:
        winners = model.send(np.array([token for row in rows for token in self.of_prompt[tuple(row.prompt_ids)]]))
        self.next = lambda: winners
        found = self.plain_score(model, rows, *more)
        self.next = None  # what rows share is computed without winners
        return found

    def decode(self, model: Any, given: Any, *more: Any) -> Any:
        self.next = self.steps([self.of_given[tuple(row)] for row in given], model.device, leave=True)
        found = self.plain_decode(model, given, *more)
        self.next = None
        return found

    def steps(self, winners: list[list[int]], device: torch.device, *, leave: bool) -> Callable[[], torch.Tensor]:
        """Return what gives the winners step by step; rows that have ended leave, as they do in ``decode_batch``."""
        width = max(map(len, winners)) + 64
        matrix = torch.tensor([row + [END] * (width - len(row)) for row in winners], device=device)
        lengths = torch.tensor([len(row) for row in winners], device=device)
        look = LOOK_EVERY[device.type]
        step, alive = 0, torch.arange(len(winners), device=device)

        def follow() -> torch.Tensor:
            nonlocal step, alive
            found = matrix[alive, step]
            step += 1
            if leave and step % look == 0:
                alive = alive[lengths[alive] > step]
            return found

        return follow

    @contextmanager
    def deciding(self) -> Iterator[None]:
        self.plain_score, self.plain_decode = backend_module.score, backend_module.decode_batch
        hooked = {"score": self.score, "decode_batch": self.decode}
        with patch.multiple(backend_module, **hooked):
            yield
