"""Greedy decoding: told by one forward pass over whole answers; in batches that rows leave as they end; plainly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf, isnan, nan
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, GenerationConfig, LogitsProcessorList
from transformers.cache_utils import DynamicLayer, LinearAttentionCacheLayerMixin

from .model import Model
from .prefix import Prefix
from .rows import PassResult, Row

FILL = 0.97  # of a batch's tokens at least so many are a row's own, the rest pads shorter rows
LOOK_EVERY = {"cpu": 1, "cuda": 8}  # steps between looks at what came: each look waits for the device
NEVER = 10**9  # index of the first wrong token where none is wrong


def fit(sizes: Iterable[tuple[int, int]], *, tokens: int, projected: float = inf, fill: float = FILL) -> int:
    """Return how many of the first rows make a batch: as many as these limits let, one at the least.

    Rows that come sorted by length fill batches best; the limits hold in any order.

    Args:
        sizes: of each row the tokens, and the positions that go through the vocabulary projection.
        tokens: rows times longest row, at most.
        projected: sum of the positions projected, at most.
        fill: real tokens over rows times longest row, at least.
    """
    rows = widest = real = positions = 0
    for length, needed in sizes:
        widest = max(widest, length)
        real += length
        positions += needed
        computed = widest * (rows + 1)
        if rows and (computed > tokens or positions > projected or real < fill * computed):
            break
        rows += 1
    return rows


# One forward pass over prompts and their right answers


def score(model: Model, rows: Sequence[Row], prefix: Prefix) -> Callable[[], list[PassResult]]:
    """Start scoring rows, before a GPU is done; return what waits for the results of each row.

    Rows are padded on the right, where causal attention cannot see it: no mask is needed, which keeps attention fast.
    """
    begin = len(prefix)
    width = max(row.length for row in rows) - begin
    ids = np.zeros((len(rows), width), np.int64)
    for place, row in enumerate(rows):
        ids[place, : row.length - begin] = (row.prompt_ids + row.answer_ids)[begin:]
    sizes = np.array([len(row.answer_ids) + 1 for row in rows])
    owner = np.repeat(np.arange(len(rows)), sizes)  # the row of each position that decides a token,
    which = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # and which of its tokens it decides
    first = np.array([place * width + len(row.prompt_ids) - 1 - begin for place, row in enumerate(rows)])
    targets = np.concatenate([[*row.answer_ids, row.tokens.end] for row in rows])
    sent = model.send(np.stack([first[owner] + which, targets, owner, which]))
    with torch.inference_mode():
        options = prefix.options(width) if begin else {"use_cache": False}
        logits = model.logits(model.send(ids), sent[0], **options)
        results = _judge(logits, sent[1], sent[2], sent[3], len(rows))
    done = None
    if model.device.type == "cuda":
        results, done = results.to("cpu", non_blocking=True), torch.cuda.Event()
        done.record(torch.cuda.current_stream(model.device))

    def read() -> list[PassResult]:
        if done is not None:
            done.synchronize()
        return [PassResult(int(first), int(top), *rest) for first, top, *rest in results.T.tolist()]

    return read


def _judge(
    logits: torch.Tensor, targets: torch.Tensor, owner: torch.Tensor, which: torch.Tensor, rows: int
) -> torch.Tensor:
    """Return what ``PassResult`` holds, shape (5, rows); ``closest`` is -1 where a logit is not finite.

    The logits, shape (n, vocabulary), are spoilt.
    ``targets`` are the right tokens at the n positions, ``owner`` their rows, ``which`` their places in these.
    """
    right = logits.gather(1, targets[:, None])[:, 0]
    best, other = logits.scatter_(1, targets[:, None], -torch.inf).max(1)
    given = (right > best) | ((right == best) & (targets < other))  # of equal logits the lowest token wins; NaN loses
    first = torch.full((rows,), NEVER, device=logits.device)
    first.scatter_reduce_(0, owner, torch.where(given, NEVER, which), "amin")
    lead = right.double() - best.double()
    until, before = which <= first[owner], which < first[owner]
    apart = torch.where(lead.isfinite(), lead.abs(), -1.0)
    least = torch.full((3, rows), torch.inf, dtype=lead.dtype, device=logits.device)
    for place, (numbers, seen) in enumerate([(lead, until), (lead, before), (apart, until)]):
        least[place].scatter_reduce_(0, owner, torch.where(seen, numbers, torch.inf), "amin")
    # Where a row goes wrong, which of the others it takes may decide whether its text can still be right.
    begins = torch.searchsorted(owner, torch.arange(rows, device=logits.device))
    at = begins + torch.where(first < NEVER, first, 0)
    pair = logits[at].topk(2).values.double()
    gap = torch.where(first < NEVER, pair[:, 0] - pair[:, 1], torch.inf)
    least[2] = torch.minimum(least[2], gap)
    return torch.cat([torch.stack([first, other[at]]).double(), least])


# Decoding


@dataclass
class Decoded:
    """What decoding gave for a row."""

    tokens: list[int]  # with the end token, where it came
    margin: float  # smallest lead of one of them over the next best token; NaN where a logit is not finite

    def take(self, tokens: list[int], leads: list[float], end: int, stop_below: float) -> bool:
        """Add what came, up to the end token or a lead too small; tell whether the row goes on."""
        for token, lead in zip(tokens, leads, strict=True):
            self.tokens.append(token)
            self.margin = nan if isnan(lead) else min(lead, self.margin)
            if token == end or not self.margin >= stop_below:
                return False
        return True


def decode_alone(model: Model, prompt_ids: Sequence[int], limit: int, end: int) -> Decoded:
    """Decode one row, so many tokens at most, as users of the library do: without a batch and without padding."""
    settings = GenerationConfig(do_sample=False, max_new_tokens=limit, eos_token_id=end, pad_token_id=end)
    model.net.generation_config = settings  # what the model's own one says would fill the gaps
    ids, leads = torch.tensor([list(prompt_ids)], device=model.device), list[torch.Tensor]()

    def note(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        leads.append(_leading(scores)[1])
        return scores

    _forget_growth(model.net)
    found = model.net.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        generation_config=settings,
        logits_processor=LogitsProcessorList([note]),
    )
    _forget_growth(model.net)
    return Decoded(found[0, len(prompt_ids) :].tolist(), float(torch.stack(leads).min()))


def decode_batch(
    model: Model,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    end: int,
    stop_below: float = -inf,
) -> tuple[list[Decoded], int]:
    """Decode rows together; of equal logits the lowest token wins. Return what came for each, and the forward passes.

    Args:
        model: with its adapter switched on.
        prompts: tokens of each row, at least one.
        limits: tokens to decode for each row, at least one.
        end: the token that ends an answer.
        stop_below: a row whose token leads by less than this is left where it is.
    """
    width = max(map(len, prompts))
    padded_ids, stands = np.zeros((len(prompts), width), np.int64), np.ones((len(prompts), width), np.int64)
    for row, tokens in enumerate(prompts):  # padded before them: all rows go on at the same column
        padded_ids[row, width - len(tokens) :] = tokens
        stands[row, : width - len(tokens)] = 0
    cache = _roomy_cache(model.net.config, width + max(limits))
    ids, mask = model.send(padded_ids), model.send(stands)  # the mask is 1 where a token stands
    position = (mask.cumsum(1) - 1).clamp(min=0)
    answers = [Decoded([], inf) for _ in prompts]
    alive, fresh, steps = list(range(len(prompts))), list[tuple[torch.Tensor, torch.Tensor]](), 0
    look = LOOK_EVERY[model.device.type]
    while True:
        padded = any(len(prompts[row]) < width for row in alive)
        token, lead = _step(model, cache, ids, mask if padded else None, position)
        fresh.append((token, lead))
        steps += 1
        if len(fresh) == min(look, *(limits[row] - len(answers[row].tokens) for row in alive)):
            came, leads = (torch.stack(column, 1).tolist() for column in zip(*fresh, strict=True))
            fresh = []
            slots = [
                slot
                for slot, row in enumerate(alive)
                if answers[row].take(came[slot], leads[slot], end, stop_below)
                and len(answers[row].tokens) < limits[row]
            ]
            if not slots:
                return answers, steps
            if len(slots) < len(alive):
                alive = [alive[slot] for slot in slots]
                kept = model.send(np.array(slots))
                cache.batch_select_indices(kept)
                token, mask, position = token[kept], mask[kept], position[kept]
        ids, position = token[:, None], position[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)


def _step(
    model: Model, cache: DynamicCache, ids: torch.Tensor, mask: torch.Tensor | None, position: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the token that follows each row, and its lead; without padding, attention needs no mask and is faster."""
    rows, width = ids.shape
    last = torch.arange(rows, device=ids.device) * width + width - 1
    full = all(type(layer) is _RoomyLayer for layer in cache.layers)
    if mask is not None and width == 1 and model.takes_whole_masks and full:
        # Ready as it is: of a plain mask the library looks whether it masks anything, which waits for the device.
        mask = mask[:, None, None, :].bool()
    options = {"position_ids": position, "past_key_values": cache, "use_cache": True}
    return _leading(model.logits(ids, last, attention_mask=mask, **options))


def _leading(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the likeliest tokens of logits (rows, vocabulary) and by how much they lead; NaN: not finite."""
    best, token = logits.max(-1)
    rest = logits.scatter(-1, token[:, None], -torch.inf).amax(-1)
    return token, torch.where(best.isfinite(), best.double() - rest.double(), torch.nan)


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of a layer, in buffers with room for all tokens to come.

    The library's own layer copies everything it holds to add one token: two thirds of the time of a decoding step of a
    25M Llama on a CPU.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.buffers: list[torch.Tensor] = []

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        both = key_states, value_states
        if not self.buffers:
            self.lazy_initialization(key_states, value_states)
            self.buffers = [states.new_empty(*states.shape[:2], self.room, states.shape[-1]) for states in both]
        start = self.get_seq_length()
        length = start + key_states.shape[-2]
        for buffer, states in zip(self.buffers, both, strict=True):
            buffer[:, :, start:length] = states
        return self._show(length)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        length = self.get_seq_length()
        self.buffers = [buffer[indices] for buffer in self.buffers]
        self._show(length)

    def _show(self, length: int) -> Any:
        self.keys, self.values = (buffer[:, :, :length] for buffer in self.buffers)
        return self.keys, self.values


def takes_rows(config: Any) -> bool:
    """Tell whether rows can be taken out of what a model keeps of a batch; states of all tokens stay whole."""
    return all(
        hasattr(layer, "batch_select_indices") and not isinstance(layer, LinearAttentionCacheLayerMixin)
        for layer in DynamicCache(config=config).layers
    )


def _roomy_cache(config: Any, room: int) -> DynamicCache:
    """Return an empty cache for a model from which rows can be taken, with room for so many tokens of a row."""
    cache = DynamicCache(config=config)
    cache.layers = [_RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


# Rotary positions whose factors depend on the length that a model sees


def _rotary(net: Any) -> Iterator[tuple[Any, str | None, str]]:
    """Yield each module of rotary positions, with a kind of layers that has its own, and the kind of the rope."""
    for module in net.modules():
        kinds = getattr(module, "rope_type", None)
        for layer, kind in kinds.items() if isinstance(kinds, dict) else [(None, kinds)]:
            if kind is not None:
                yield module, layer, str(kind)


def longest_alike(net: Any) -> float:
    """Return the longest row that sees the same factors as all shorter ones; longer rows share no forward pass."""
    lengths = [inf]
    for module, layer, kind in _rotary(net):
        if kind == "longrope":
            settings = module.config.rope_parameters
            lengths.append((settings if layer is None else settings[layer])["original_max_position_embeddings"])
        elif "dynamic" in kind:
            lengths.append(module.original_max_seq_len)
    return min(lengths)


def _forget_growth(net: Any) -> None:
    """Give growing factors their first values: the library keeps what a longer row has left."""
    for module, layer, kind in _rotary(net):
        if "dynamic" in kind:
            prefix = "" if layer is None else f"{layer}_"
            module.register_buffer(f"{prefix}inv_freq", getattr(module, f"{prefix}original_inv_freq"), persistent=False)
            setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)
