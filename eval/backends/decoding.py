"""Greedy decoding: of a batch, in which one row leaves when it ends; and of one row by the library's own generate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, isnan, nan
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.cache_utils import DynamicLayer

from .model import Model

LOOK_EVERY = {"cpu": 1, "cuda": 8}  # steps between looks at what came: each look waits for the device


@dataclass
class Decoded:
    """What decoding gave for a row."""

    tokens: list[int]  # with the end token, where it came
    margin: float  # smallest lead of one of them over the next best token; NaN where a logit is not finite

    def take(self, came: list[int], leads: list[float], end: int, stop_below: float) -> bool:
        """Add what came, up to the end token or a lead too small; tell whether the row goes on."""
        for token, lead in zip(came, leads, strict=True):
            self.tokens.append(token)
            self.margin = nan if isnan(lead) else min(lead, self.margin)
            if token == end or not self.margin >= stop_below:
                return False
        return True


class _Leads(LogitsProcessor):  # type: ignore[misc]
    """Notes by how much each token leads; changes nothing."""

    def __init__(self) -> None:
        self.found: list[torch.Tensor] = []

    def __call__(self, _ids: Any, scores: torch.Tensor) -> torch.Tensor:
        self.found.append(_leading(scores)[1])
        return scores


def decode_alone(model: Model, given: Sequence[int], limit: int, end: int) -> Decoded:
    """Decode one row as users of the library do, without a batch and without padding, in inference mode.

    Args:
        model: with its adapter switched on.
        given: tokens of the row, at least one.
        limit: tokens to decode, at most.
        end: the token that ends an answer.
    """
    settings = GenerationConfig(do_sample=False, max_new_tokens=limit, eos_token_id=end, pad_token_id=end)
    model.net.generation_config = settings  # what the model's own one says would fill the gaps
    ids, leads = torch.tensor([list(given)], device=model.device), _Leads()
    _forget_growth(model.net)
    found = model.net.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        generation_config=settings,
        logits_processor=LogitsProcessorList([leads]),
    )
    _forget_growth(model.net)
    tokens: list[int] = found[0, len(given) :].tolist()
    return Decoded(tokens, float(torch.stack(leads.found).min()))


@dataclass
class _State:
    """What the next step needs of the rows still alive."""

    cache: DynamicCache  # keys and values of all tokens so far
    mask: torch.Tensor  # 1 where a token stands, 0 where padding does, shape (rows, tokens so far)
    position: torch.Tensor  # of each token of the step, shape (rows, tokens of the step)

    def keep(self, slots: torch.Tensor) -> None:
        """Drop all rows but these."""
        self.cache.batch_select_indices(slots)
        self.mask, self.position = self.mask[slots], self.position[slots]

    def advance(self) -> None:
        """Make room for one more token of each row."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], 1)
        self.position = self.position[:, -1:] + 1


def decode_batch(
    model: Model, given: Sequence[Sequence[int]], limits: Sequence[int], end: int, stop_below: float = -inf
) -> tuple[list[Decoded], int]:
    """Decode rows together, in inference mode; of equal logits the lowest token wins.

    Args:
        model: with its adapter switched on.
        given: tokens of each row, at least one.
        limits: tokens to decode for each row, at least one.
        end: the token that ends an answer.
        stop_below: a row whose token leads by less than this is left where it is.

    Returns:
        What came for each row; and the number of forward passes.
    """
    width = max(map(len, given))
    ids, mask = np.zeros((2, len(given), width), np.int64)
    for place, tokens in enumerate(given):  # padded on the left: all rows go on at the same column
        ids[place, width - len(tokens) :], mask[place, width - len(tokens) :] = tokens, 1
    seen = model.send(mask)
    state = _State(_roomy_cache(model.net.config, width + max(limits)), seen, (seen.cumsum(1) - 1).clamp(min=0))
    token, lead = _step(model, state, model.send(ids), padded=not mask.all())
    answers = [Decoded([], inf) for _ in given]
    alive, fresh, steps = list(range(len(given))), [(token, lead)], 1
    look = LOOK_EVERY[model.device.type]
    while True:
        if len(fresh) == min(look, *(limits[place] - len(answers[place].tokens) for place in alive)):
            came, leads = (torch.stack(one, 1).tolist() for one in zip(*fresh, strict=True))
            fresh = []
            slots = [
                slot
                for slot, place in enumerate(alive)
                if answers[place].take(came[slot], leads[slot], end, stop_below)
                and len(answers[place].tokens) < limits[place]
            ]
            if not slots:
                return answers, steps
            if len(slots) < len(alive):
                alive = [alive[slot] for slot in slots]
                chosen = model.send(np.array(slots))
                state.keep(chosen)
                token = token[chosen]
        state.advance()
        padded = any(len(given[place]) < width for place in alive)
        token, lead = _step(model, state, token[:, None], padded=padded)
        fresh.append((token, lead))
        steps += 1


def _leading(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the likeliest tokens of logits (rows, vocabulary) and by how much they lead; NaN: not finite."""
    best, token = logits.max(-1)
    rest = logits.scatter(-1, token[:, None], -torch.inf).amax(-1)
    return token, torch.where(best.isfinite(), best.double() - rest.double(), torch.nan)


def _step(model: Model, state: _State, ids: torch.Tensor, *, padded: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the token that follows each row, and its lead."""
    rows, width = ids.shape
    last = torch.arange(rows, device=ids.device) * width + width - 1
    mask = state.mask if padded else None  # without padding, attention needs no mask and is faster
    full = all(type(layer) is _RoomyLayer for layer in state.cache.layers)
    if mask is not None and width == 1 and model.takes_whole_masks and full:
        # Ready as it is: of a plain mask the library looks whether it masks anything, which waits for the device.
        mask = mask[:, None, None, :].bool()
    options = {"position_ids": state.position, "past_key_values": state.cache, "use_cache": True}
    return _leading(model.logits(ids, last, attention_mask=mask, **options))


# The cache of keys and values


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer in buffers that are made once.

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
            self.buffers = [one.new_empty(*one.shape[:2], self.room, one.shape[-1]) for one in both]
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
    """Tell whether rows can be taken out of what a model keeps of a batch."""
    return all(hasattr(layer, "batch_select_indices") for layer in DynamicCache(config=config).layers)


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
    found = [inf]
    for module, layer, kind in _rotary(net):
        if kind == "longrope":
            settings = module.config.rope_parameters
            found.append((settings if layer is None else settings[layer])["original_max_position_embeddings"])
        elif "dynamic" in kind:
            found.append(module.original_max_seq_len)
    return min(found)


def _forget_growth(net: Any) -> None:
    """Give growing factors their first values: the library keeps what a longer row has left."""
    for module, layer, kind in _rotary(net):
        if "dynamic" in kind:
            prefix = "" if layer is None else f"{layer}_"
            module.register_buffer(f"{prefix}inv_freq", getattr(module, f"{prefix}original_inv_freq"), persistent=False)
            setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)
