"""A cache of keys and values with room for what is still to come."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class _Layer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer in buffers that are made once.

    The library's own layer copies everything it holds to add one token: two thirds of the time of a decoding step of a
    25M Llama on a CPU.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        if self.buffers is None:
            self.lazy_initialization(key_states, value_states)
            rows, heads, _tokens, _width = key_states.shape
            shapes = [(rows, heads, self.room, states.shape[-1]) for states in (key_states, value_states)]
            self.buffers = key_states.new_empty(shapes[0]), value_states.new_empty(shapes[1])
        start = self.get_seq_length()
        length = start + key_states.shape[-2]
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:length] = states
        self._show(length)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        assert self.buffers is not None  # rows are dropped after a first pass
        length = self.get_seq_length()
        self.buffers = self.buffers[0][indices], self.buffers[1][indices]
        self._show(length)

    def _show(self, length: int) -> None:
        assert self.buffers is not None
        self.keys, self.values = (buffer[:, :, :length] for buffer in self.buffers)


def takes_rows(config: Any) -> bool:
    """Tell whether rows can be taken out of what a model keeps of a batch."""
    return all(hasattr(layer, "batch_select_indices") for layer in DynamicCache(config=config).layers)


def roomy_cache(config: Any, room: int) -> DynamicCache:
    """Return an empty cache for a model from which rows can be taken.

    Args:
        config: the model's.
        room: tokens of a row that it must hold, at most.
    """
    cache = DynamicCache(config=config)
    cache.layers = [_Layer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def only_full_attention(cache: DynamicCache) -> bool:
    """Tell whether every layer attends to all tokens before."""
    return all(type(layer) is _Layer for layer in cache.layers)
