"""The backend that computes here: batched forward passes of a model of the transformers library, on GPU or CPU."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import chain, pairwise
from math import inf, isnan
from pathlib import Path
from typing import Any, TypeVar

import torch

from ...errors import UserError, quoted
from ..calls import BASE, Answer, Backend, Request
from .greedy import Decoded, decode_alone, decode_batch, fit, longest_alike, score, takes_rows
from .load import no_room, quiet, unless_full
from .model import Model
from .prefix import Prefix
from .rows import NEAR, PassResult, Row, judge, make_rows
from .tokens import Tokens

CHUNK = 256  # requests tokenised at once: while the device computes, but for the first
LOGITS = {"cpu": 2**27, "cuda": 2**30}  # elements of the logits of one batch, at most: 2 GB in bfloat16 on a GPU
BATCH_TOKENS = {"cpu": 2048, "cuda": 16_384}  # on a CPU, larger batches than this leave the processor's caches
# What configurations call the number of experts among which a router chooses.
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
CACHED = 8  # a batch of decoding may hold so many times the tokens of a forward pass: its rows bring one each

Result = TypeVar("Result")


def has_experts(config: Any) -> bool:
    """Tell whether routers choose which weights of a model a token passes."""
    return any((getattr(config, name, 0) or 0) > 1 for name in EXPERTS)


class TransformersBackend(Backend):
    """A model on this machine.

    Args:
        base: folder, or name on the Hub, of the base model.
        adapters: folder of each adapter by its name; None where the base model itself answers under that name.
        tokens: the tokenizer of each adapter by its name; of the base model alone under ``BASE``.
        batch_tokens: tokens of a forward pass of ``verify``, padding included; ``decode`` holds ``CACHED`` times as
            many. Halved when memory runs out. None for what suits the device.
        dtype: float32, bfloat16, float16, or auto: bfloat16 on a GPU that has it, float32 otherwise.
        device: cpu, cuda, cuda:1 ..., or auto: the GPU of this process (LOCAL_RANK, which torchrun sets), else the CPU.
        near_ties: what becomes of rows in which a token leads the next one by so little that the shape of a batch could
            decide: alone decodes them one by one, count only marks them.
        net: the base model, where it is in memory already.
        loaded: is called with each name, ``BASE`` for the base model, as soon as its weights are loaded.

    Attributes:
        stats: what was computed so far: batches of ``verify`` with their tokens, and with padding computed, but for the
            shared ones; tokens decoded in so many steps, and rows alone.

    Raises:
        UserError: the device is not there, or the model cannot be loaded.
    """

    name = "transformers"

    def __init__(  # noqa: PLR0913
        self,
        base: Path | str,
        adapters: Mapping[str, Path | None],
        tokens: Mapping[str, Tokens],
        *,
        batch_tokens: int | None = None,
        dtype: str = "auto",
        device: str = "auto",
        near_ties: str = "alone",
        net: Any = None,
        loaded: Callable[[str], object] = lambda name: None,
    ) -> None:
        self.tokens = tokens
        self.model = Model(base, adapters, dtype=dtype, device=device, net=net, loaded=loaded)
        self.batch_tokens = batch_tokens or BATCH_TOKENS[self.model.device.type]
        self.budget = {"pass": self.batch_tokens, "cache": CACHED * self.batch_tokens}
        self.stats: Counter[str] = Counter()
        self.dtype = str(self.model.dtype).removeprefix("torch.")
        self.near, self.near_alone = NEAR[self.dtype], near_ties == "alone"
        config = self.model.net.config.get_text_config()
        self.takes_rows = takes_rows(config)
        # Rounding makes routers choose other experts, which changes logits by more than a near tie.
        apart = has_experts(config) and self.near_alone and self.dtype != "float32"
        self.longest_shared = 0.0 if apart else longest_alike(self.model.net)
        self.asked: str | None = None
        self.prefix = Prefix(self.model, [])  # of the adapter asked

    def provenance(self) -> dict[str, object]:
        return {
            "device": self.model.device.type,
            "dtype": self.dtype,
            "near_tie_below": self.near,
            "batch_tokens": self.batch_tokens,
            **{name: version(name) for name in ("torch", "transformers", "peft")},
        }

    def close(self) -> None:
        del self.model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def verify_batches(self, adapter: str, requests: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        """Score requests; a row longer than the model can be, or too large for memory, raises ``UserError``."""
        self._use(adapter)
        doubtful: list[Row] = []
        passes = self._batches(self._sharing(requests, doubtful), "pass", self._score)
        # A batch is read while the device computes the next one.
        for (batch, results), _ in pairwise(chain[Any](passes, [None])):
            judged = [self._judged(row, result) for row, result in zip(batch, results(), strict=True)]
            doubtful += [row for row in judged if isinstance(row, Row)]
            yield [(row.index, one) for row, one in zip(batch, judged, strict=True) if isinstance(one, Answer)]
        yield from self._answers(doubtful)

    def decode_batches(self, adapter: str, requests: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        self._use(adapter)
        rows = [row for chunk in self._rows(requests) for row in chunk]
        yield [(row.index, Answer(False, text="")) for row in rows if row.limit < 1]
        yield from self._answers([row for row in rows if row.limit > 0])

    def _use(self, adapter: str) -> None:
        """Switch to an adapter; what the last one kept of its prompts is of no use to it."""
        self.model.use(adapter)
        if adapter != self.asked:
            self.asked, self.prefix = adapter, Prefix(self.model, self.tokens[adapter].beginning())

    def _sharing(self, requests: Sequence[Request], rest: list[Row]) -> Iterator[list[Row]]:
        """Yield the rows that a forward pass can judge, longest first, and add the others to the rest."""
        for rows in self._rows(requests):
            rest += [replace(row, alone=True) for row in rows if row.length > self.longest_shared]
            chosen = sorted((row for row in rows if row.length <= self.longest_shared), key=lambda row: -row.length)
            self.prefix.share(chosen)
            yield chosen

    def _judged(self, row: Row, result: PassResult) -> Answer | Row:
        """Return the answer that a forward pass tells; the row as it is to be decoded where only decoding can tell."""
        if not result.closest >= 0:
            raise self._not_finite(row)
        return judge(row, result, self.near, alone=self.near_alone)

    def _answers(self, rows: Iterable[Row]) -> Iterator[list[tuple[int, Answer]]]:
        """Decode rows: in batches what batches can decode, alone the rest."""
        apart: list[Row] = []
        together: list[Row] = []
        for row in rows:
            longest = len(row.decode_from) + row.limit - 1
            shares = self.takes_rows and not row.alone and longest <= self.longest_shared
            (together if shares else apart).append(row)
        # Rows that end together make good batches; how much they are given matters less.
        together.sort(key=lambda row: -row.limit)
        for batch, decoded in self._batches(iter([together]), "cache", self._decode):
            good = []
            for row, found in zip(batch, decoded, strict=True):
                answer = self._answer(row, found)
                if (answer.near_tie and self.near_alone) or row.stopped_early(found.tokens):
                    apart.append(row)
                else:
                    good.append((row.index, answer))
            yield good
        for row in apart:
            yield [(row.index, self._alone(row))]

    def _answer(self, row: Row, found: Decoded) -> Answer:
        if isnan(found.margin):
            raise self._not_finite(row)
        return row.answer(found.tokens, margin=found.margin, near=self.near)

    def _alone(self, row: Row) -> Answer:
        """Decode a row from its prompt, as the library does it; what may become right may take more tokens."""
        row = replace(row, num_given_tokens=0, limit=row.num_given_tokens + row.limit)
        room = self.model.max_positions
        most = row.most if room is None else min(row.most, room - len(row.prompt_ids) + 1)
        while True:
            found = unless_full(self._generate, row)
            if found is None:
                raise self._no_room(row, "cache")
            self.stats["decoded"] += len(found.tokens)
            self.stats["alone"] += 1
            answer = self._answer(row, found)
            if row.limit >= most or not row.stopped_early(found.tokens):
                return answer
            row = replace(row, limit=most)

    # Rows

    def _rows(self, requests: Sequence[Request]) -> Iterator[list[Row]]:
        """Tokenise requests, those with the longest texts first."""
        order = sorted(range(len(requests)), key=lambda i: -len(requests[i].prompt) - len(requests[i].completion))
        for start in range(0, len(order), CHUNK):
            rows = make_rows(self.tokens[self.asked or BASE], requests, order[start : start + CHUNK])
            yield [self._fitting(row) for row in rows]

    def _fitting(self, row: Row) -> Row:
        """Return a row with as many tokens to decode as the model has positions."""
        where = quoted(row.request.prompt)
        if max(*row.prompt_ids, *row.answer_ids, row.tokens.end) >= self.model.vocabulary:
            words = f"{self.model.vocabulary:,}"
            raise UserError(f"the tokenizer has tokens that the model lacks: it knows {words}", where=where)
        room = self.model.max_positions
        if room is None:
            return row
        if row.length > room and row.request.certain:
            raise UserError(
                f"a row of {row.length:,} tokens is longer than the model can be",
                where=where,
                allowed=f"prompt and completion of {room:,} tokens together",
                next_step="evaluate shorter operands, or a model with more positions",
            )
        # The last token decoded takes no position.
        return replace(row, limit=min(row.limit, room - len(row.decode_from) + 1))

    # Batches

    def _batches(
        self, chunks: Iterator[list[Row]], kind: str, work: Callable[[list[Row]], Result]
    ) -> Iterator[tuple[list[Row], Result]]:
        """Cut rows into batches, and yield each with what the work makes of it; halve the budget out of memory."""
        waiting: deque[Row] = deque()
        while True:
            # A batch that takes all that wait may take more of the next chunk.
            while (taken := self._fit(waiting, kind)) == len(waiting) and (chunk := next(chunks, None)) is not None:
                waiting.extend(chunk)
            if not waiting:
                return
            batch = [waiting.popleft() for _ in range(taken)]
            result = unless_full(work, batch)
            if result is not None:
                yield batch, result
                continue
            if len(batch) == 1:
                raise self._no_room(batch[0], kind)
            computed = len(batch) * max(self._width(row, kind) for row in batch)
            self.budget[kind] = max(1, min(self.budget[kind], computed) // 2)
            waiting.extendleft(reversed(batch))
            if self.model.device.type == "cuda":
                torch.cuda.empty_cache()

    def _width(self, row: Row, kind: str) -> int:
        """Return the tokens that a row adds to a forward pass, or all that are kept of it."""
        return row.length - len(self.prefix) if kind == "pass" else len(row.decode_from) + row.limit

    def _fit(self, waiting: deque[Row], kind: str) -> int:
        if kind == "cache":
            return fit(((self._width(row, kind), 1) for row in waiting), tokens=self.budget[kind], fill=0)
        sizes = ((self._width(row, kind), len(row.answer_ids) + 1) for row in waiting)
        positions = LOGITS[self.model.device.type] // self.model.vocabulary
        most = fit(sizes, tokens=self.budget[kind], projected=positions)
        if not len(self.prefix):
            return most
        # Attention sees each row whole, layer by layer.
        return min(most, fit(((row.length, 1) for row in waiting), tokens=self.budget["cache"], fill=0))

    def _no_room(self, row: Row, kind: str) -> UserError:
        size = row.length if kind == "pass" else self._width(row, kind)
        otherwise = "a GPU with more memory, or shorter operands"
        return no_room(f"on a single row of {size:,} tokens", self.model.device, otherwise)

    def _not_finite(self, row: Row) -> UserError:
        return UserError(
            f"{f'the adapter {self.asked}' if self.asked else 'the base model'} gives logits that are not finite",
            where=f"a row of {row.length:,} tokens: {quoted(row.request.prompt)}",
            next_step="--dtype float32; if that fails too, its weights are damaged",
        )

    def _score(self, batch: list[Row]) -> Callable[[], list[PassResult]]:
        results = score(self.model, batch, self.prefix)
        widths = [self._width(row, "pass") for row in batch]
        self.stats["batches"] += 1
        self.stats["tokens"] += sum(widths)
        self.stats["computed"] += len(batch) * max(widths)
        self.stats["shared"] += len(batch) * len(self.prefix)
        return results

    def _decode(self, batch: list[Row]) -> list[Decoded]:
        limits, stop = [row.limit for row in batch], self.near if self.near_alone else -inf
        prompts, end = [row.decode_from for row in batch], batch[0].tokens.end
        with torch.inference_mode():
            answers, steps = decode_batch(self.model, prompts, limits, end, stop)
        self.stats["steps"] += steps
        self.stats["decoded"] += sum(len(answer.tokens) for answer in answers)
        return answers

    def _generate(self, row: Row) -> Decoded:
        with torch.inference_mode(), quiet():
            return decode_alone(self.model, row.prompt_ids, row.limit, row.tokens.end)
