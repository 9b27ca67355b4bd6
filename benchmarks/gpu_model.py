"""A Llama 3.1 8B, or a small one, of random weights that is right about some rows as far as it is pushed."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from caef_data.tm import transition

PAD, END = 0, 1
SURE = 1000.0  # a push that makes an answer right whatever else the model says
# How Llama 3 cuts text before it looks for tokens: tapes cost it two tokens a digit.
CUTS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
Texts = list[tuple[str, str]]


class Size(NamedTuple):
    """A shape of models and how much is measured.

    Args:
        vocabulary, width, inner, layers, heads, pairs: of the Llama; ``pairs`` are the heads of keys and values.
        digits: of the operands.
        sides: of the square matrices that are multiplied.
        prefill, pairwise, judged: rows of each part.
        behind: the place of a judged row's hard token, from the end of the answer.
        batch: rows that ``generate`` takes at once.
        budgets: tokens of a forward pass, the first for one row at a time.
        repeat: runs of what is timed.
        steps, line: of training, and the tokens of a line, at least.
    """

    vocabulary: int
    width: int
    inner: int
    layers: int
    heads: int
    pairs: int
    digits: int
    sides: tuple[int, ...]
    prefill: int
    pairwise: int
    judged: int
    behind: int
    batch: int
    budgets: tuple[int, ...]
    repeat: int
    steps: int
    line: int

    def config(self) -> LlamaConfig:
        """Return the configuration: with the sizes of ``FULL``, that of Llama 3.1 8B."""
        return LlamaConfig(
            vocab_size=self.vocabulary, hidden_size=self.width, intermediate_size=self.inner,
            num_hidden_layers=self.layers, num_attention_heads=self.heads, num_key_value_heads=self.pairs,
            max_position_embeddings=131_072, rms_norm_eps=1e-5, tie_word_embeddings=False,
            bos_token_id=None, eos_token_id=END, pad_token_id=PAD,
            rope_parameters={
                "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
            },
        )  # fmt: skip


FULL = Size(
    128_256, 4096, 14_336, 32, 32, 8, 100, (4096, 8192, 16_384), 192, 64, 96, 40, 64, (1, 4096, 16_384, 65_536), 3,
    16, 2048,
)  # fmt: skip
SMALL = Size(512, 64, 128, 2, 4, 2, 6, (64, 128), 12, 8, 24, 6, 4, (1, 256, 1024), 1, 3, 64)


def make_texts(number: int, digits: int) -> Texts:
    """Return steps of additions, anywhere in their runs."""
    chance = random.Random(0)
    low, high = 10 ** (digits - 1), 10**digits
    operands = [(chance.randrange(low, high), chance.randrange(low, high)) for _ in range(number)]
    steps = [transition("add", *pair, chance.randrange(digits + 2)) for pair in operands]
    return [(step.prompt, step.completion) for step in steps]


def make_tokenizer(texts: Texts) -> PreTrainedTokenizerFast:
    """Return a tokenizer that makes of rows as many tokens as Llama 3's does (550 of 100 digits; it makes 552)."""
    tokenizer = Tokenizer(models.BPE())
    cut = pre_tokenizers.Split(Regex(CUTS), "isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Sequence([cut, letters]), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<end>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for row in texts[:64] for text in row], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>", padding_side="left"
    )


class Guide:
    """Pushes a model towards the right answers, at the full cost of a model that has learnt them.

    What leaves the last layer is moved towards the vocabulary's row of the right token, which raises its logit. How
    the model is called does not matter: a pass without a cache holds the right tokens itself; rows that are decoded are
    known by what they begin with.

    Args:
        net: the model.
        rows: tokens of prompts and of their answers.

    Attributes:
        sure: by how much logits are raised.
        hard: the same for one token of each answer, the one ``behind`` places before the end token.
    """

    def __init__(self, net: Any, rows: list[tuple[list[int], list[int]]], behind: int) -> None:
        self.rows, self.behind = rows, behind
        self.sure = self.hard = SURE
        self.head = net.get_output_embeddings().weight
        self.unit = net.config.initializer_range**2 * net.config.hidden_size  # the squared length of one of its rows
        self.step = 0
        self.now: torch.Tensor | None = None  # right tokens and pushes of this pass, shape (2, rows, tokens)
        self.coming: torch.Tensor | None = None  # and of the tokens that rows are decoded to
        net.register_forward_pre_hook(self._look, with_kwargs=True)
        net.get_decoder().norm.register_forward_hook(self._move)

    def _look(self, _: Any, __: Any, options: dict[str, Any]) -> None:
        ids, cache = options["input_ids"], options.get("past_key_values")
        if not self.sure:
            self.now = None
        elif cache is not None and cache.get_seq_length():
            self.step += 1
            known = self.coming is not None and self.coming.shape[1] == len(ids)  # none of the rows has left
            self.now = self.coming[:, :, self.step : self.step + 1] if known else None
        elif cache is None:
            following = torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], PAD)], 1)
            pushes = torch.full(ids.shape, self.sure, device=ids.device, dtype=torch.float64)
            ends = (ids != PAD).sum(1, keepdim=True) - 1
            pushes.scatter_(1, (ends - self.behind).clamp(min=0), self.hard)
            self.now = torch.stack([following.where(following != PAD, END).double(), pushes])
        else:
            self.step, self.coming = 0, self._answers(ids.tolist())
            self.now = None
            if self.coming is not None:
                self.coming = self.coming.to(ids.device)
                self.now = self.coming[:, :, :1]  # nothing but the last position counts

    def _answers(self, given: list[list[int]]) -> torch.Tensor | None:
        """Return what is right behind the tokens given, and its pushes; None if one is not known."""
        found = []
        for padded in given:
            tokens = [token for token in padded if token != PAD]
            whole = next((p + a for p, a in self.rows if (p + a)[: len(tokens)] == tokens), None)
            if whole is None:
                return None
            found.append(whole[len(tokens) :])
        winners = torch.full((len(found), max(map(len, found)) + 64), END)
        pushes = torch.full_like(winners, self.sure, dtype=torch.float64)
        for place, tokens in enumerate(found):
            winners[place, : len(tokens)] = torch.tensor(tokens)
            pushes[place, max(0, len(tokens) - self.behind)] = self.hard
        return torch.stack([winners.double(), pushes])

    def _move(self, _: Any, __: Any, states: torch.Tensor) -> torch.Tensor:
        if self.now is None:
            return states
        right, pushes = self.now[0].long(), (self.now[1] / self.unit).to(states.dtype)
        return states + torch.nn.functional.embedding(right, self.head) * pushes[:, :, None]
