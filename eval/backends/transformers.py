"""The backend that computes here: batched forward passes of a model of the transformers library, on GPU or CPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import TypeVar

import torch

from ...errors import UserError, clip
from ..calls import SLACK, Answer, Ask, Backend, Call, Verdict
from .greedy import greedy
from .model import Model, out_of_memory
from .packing import FILL, fit
from .scoring import Scores, Whole, score
from .tokens import Tokens

CHUNK = 1024  # questions tokenised at once
LOGITS = {"cpu": 2**27, "cuda": 2**30}  # elements of the logits of one batch, at most: 2 GB in bfloat16 on a GPU
BATCH_TOKENS = {"cpu": 2048, "cuda": 16_384}  # on a CPU, larger batches than this leave the processor's caches
CACHED = 8  # a batch of decoding may hold so many times the tokens of a forward pass: its rows bring one each

Result = TypeVar("Result")
_Question = tuple[str, str, int | None, bool]  # prompt, expected, tokens known or None for all, whether certain


@dataclass(frozen=True, slots=True)
class _Row:
    """A question in tokens.

    Args:
        index: of the question.
        prompt: its tokens, with those before a prompt.
        expected: tokens of the right answer, without the end.
        known: how many of these stand in the first forward pass.
        limit: tokens to decode, at most.
        tokens: the tokenizer.
    """

    index: int
    prompt: list[int]
    expected: list[int]
    known: int
    limit: int
    tokens: Tokens

    @property
    def length(self) -> int:
        """Number of tokens of the first forward pass."""
        return len(self.prompt) + self.known


@dataclass
class Stats:
    """What was computed so far.

    Args:
        batches: forward passes of ``verify``.
        tokens: their tokens.
        computed: the same with padding.
        decoded: tokens decoded.
        steps: forward passes of ``decode``.
    """

    batches: int = 0
    tokens: int = 0
    computed: int = 0
    decoded: int = 0
    steps: int = 0


class TransformersBackend(Backend):
    """A model on this machine.

    Args:
        base_model: folder, or name on the Hub, of the base model.
        adapters: folder of each adapter by its name.
        tokens: the tokenizer of each adapter by its name; of the base model alone under ``BASE``.
        batch_tokens: tokens of a forward pass of ``verify``, padding included; ``decode`` holds ``CACHED`` times as
            many. Halved when memory runs out. None for what suits the device.
        dtype: float32, bfloat16, float16 or auto.
        device: cpu, cuda, cuda:1 ... or auto.
        attention: an attention implementation of transformers, or auto.

    Raises:
        UserError: the device is not there, or the model cannot be loaded.
    """

    name = "transformers"

    def __init__(
        self,
        base_model: Path | str,
        adapters: Mapping[str, Path],
        tokens: Mapping[str, Tokens],
        *,
        batch_tokens: int | None = None,
        dtype: str = "auto",
        device: str = "auto",
        attention: str = "auto",
    ) -> None:
        self.tokens = tokens
        self.model = Model(base_model, adapters, dtype=dtype, device=device, attention=attention)
        self.batch_tokens = batch_tokens or BATCH_TOKENS[self.model.device.type]
        self.budget = {"pass": self.batch_tokens, "cache": CACHED * self.batch_tokens}
        self.stats = Stats()

    def provenance(self) -> dict[str, object]:
        return {
            "device": self.model.device.type,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "batch_tokens": self.batch_tokens,
            **{name: version(name) for name in ("torch", "transformers", "peft")},
        }

    def close(self) -> None:
        del self.model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def verify(self, adapter: str, calls: Sequence[Call]) -> Iterator[tuple[int, Verdict]]:
        """Tell of each call whether greedy decoding gives its completion.

        Raises:
            UserError: a row is longer than the model can be, or does not fit into memory alone.
        """
        self.model.use(adapter)
        rows = self._rows(adapter, [(call.prompt, call.completion, None, True) for call in calls])
        ahead: tuple[list[_Row], Scores] | None = None
        for batch, scores in self._batches(rows, "pass", self._score):
            if ahead is not None:  # read while the device computes the next batch
                yield from _verdicts(*ahead)
            ahead = batch, scores
        if ahead is not None:
            yield from _verdicts(*ahead)

    def decode(self, adapter: str, asks: Sequence[Ask]) -> Iterator[tuple[int, Answer]]:
        """Decode greedily.

        Raises:
            UserError: a row is longer than the model can be, or does not fit into memory alone.
        """
        self.model.use(adapter)
        chunks = self._rows(adapter, [(ask.prompt, ask.expected, ask.known, ask.certain) for ask in asks])
        rows = [row for chunk in chunks for row in chunk]
        yield from ((row.index, Answer("", False)) for row in rows if row.limit < 1)
        # Rows that end together make good batches; how much they are given matters less.
        rows = sorted((row for row in rows if row.limit > 0), key=lambda row: -row.limit)
        for batch, answers in self._batches(iter([rows]), "cache", self._decode):
            for row, tokens in zip(batch, answers, strict=True):
                yield row.index, self._answer(row, tokens, asks[row.index].expected)

    def _rows(self, adapter: str, questions: Sequence[_Question]) -> Iterator[list[_Row]]:
        """Tokenise questions, those with the longest texts first."""
        order = sorted(range(len(questions)), key=lambda index: -len(questions[index][0]) - len(questions[index][1]))
        for start in range(0, len(order), CHUNK):
            chosen = [questions[index] for index in order[start : start + CHUNK]]
            tokens = self.tokens[adapter]
            prompts = tokens.prompts([prompt for prompt, *_ in chosen])
            answers = tokens.encode([expected for _, expected, *_ in chosen])
            found = zip(order[start:], chosen, prompts, answers, strict=False)
            yield sorted((self._row(tokens, *one) for one in found), key=lambda row: -row.length)

    def _row(self, tokens: Tokens, index: int, question: _Question, prompt: list[int], expected: list[int]) -> _Row:
        text, _, known, certain = question
        if max(*prompt, *expected, tokens.end) >= self.model.vocabulary:
            words = f"{self.model.vocabulary:,}"
            raise UserError(f"the tokenizer has tokens that the model lacks: it knows {words}", where=clip(text))
        whole = len(prompt) + len(expected)
        room = whole + SLACK if self.model.max_positions is None else self.model.max_positions
        if whole > room and certain:
            raise UserError(
                f"a row of {whole:,} tokens is longer than the model can be",
                where=clip(text),
                allowed=f"prompt and completion of {room:,} tokens together",
                next_step="evaluate shorter operands, or a model with more positions",
            )
        known = len(expected) if known is None else min(known, len(expected))
        # The last token decoded takes no position.
        limit = min(len(expected) - known + SLACK, room - len(prompt) - known + 1)
        return _Row(index, prompt, expected, known, limit, tokens)

    def _batches(
        self, chunks: Iterator[list[_Row]], kind: str, work: Callable[[list[_Row]], Result]
    ) -> Iterator[tuple[list[_Row], Result]]:
        """Cut rows into batches, and yield each with what the work makes of it; halve the budget out of memory."""
        waiting: deque[_Row] = deque()
        while True:
            # A batch that takes all that wait may take more of the next chunk.
            while (taken := self._fit(waiting, kind)) == len(waiting) and (chunk := next(chunks, None)) is not None:
                waiting.extend(chunk)
            if not waiting:
                return
            batch = [waiting.popleft() for _ in range(taken)]
            try:
                result = work(batch)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                result = None
            if result is None:  # here, where the failure no longer holds what it was computing
                self._halve(batch, kind)
                waiting.extendleft(reversed(batch))
            else:
                yield batch, result

    def _fit(self, rows: deque[_Row], kind: str) -> int:
        if kind == "cache":
            return fit(((row.length + row.limit, 1) for row in rows), tokens=self.budget[kind], fill=0)
        sizes = ((row.length, len(row.expected) + 1) for row in rows)
        positions = LOGITS[self.model.device.type] // self.model.vocabulary
        return fit(sizes, tokens=self.budget[kind], projected=positions, fill=FILL)

    def _halve(self, batch: list[_Row], kind: str) -> None:
        longest = max(row.length + (row.limit if kind == "cache" else 0) for row in batch)
        if len(batch) == 1:
            raise UserError(
                f"memory ran out on a single row of {longest:,} tokens",
                where=str(self.model.device),
                next_step="--dtype bfloat16, a smaller model, a GPU with more memory, or shorter operands",
            )
        self.budget[kind] = max(1, min(self.budget[kind], longest * len(batch)) // 2)
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()

    def _score(self, batch: list[_Row]) -> Scores:
        scores = score(self.model, [Whole(row.prompt, row.expected) for row in batch], batch[0].tokens.end)
        self.stats.batches += 1
        self.stats.tokens += sum(row.length for row in batch)
        self.stats.computed += len(batch) * max(row.length for row in batch)
        return scores

    def _decode(self, batch: list[_Row]) -> list[list[int]]:
        given = [row.prompt + row.expected[: row.known] for row in batch]
        with torch.inference_mode():
            answers, steps = greedy(self.model, given, [row.limit for row in batch], batch[0].tokens.end)
        self.stats.steps += steps
        self.stats.decoded += sum(map(len, answers))
        return answers

    def _answer(self, row: _Row, tokens: list[int], expected: str) -> Answer:
        ended = tokens[-1] == row.tokens.end
        answer = row.expected[: row.known] + (tokens[:-1] if ended else tokens)
        # The same tokens are the same text, also where a tokenizer does not give it back exactly.
        text = expected if answer == row.expected else row.tokens.text(row.prompt, answer)
        return Answer.to(row.prompt, row.expected, answer, text=text, ended=ended, decoded=len(tokens))


def _verdicts(batch: list[_Row], scores: Scores) -> Iterator[tuple[int, Verdict]]:
    for row, (first, margin) in zip(batch, scores.read(), strict=True):
        size = len(row.expected) + 1
        right = first >= size
        tokens = len(row.prompt) + size
        yield row.index, Verdict(right, None if right else first, margin if isfinite(margin) else None, tokens, size)
