"""The tokens with which all rows begin, such as an instruction: their keys and values are computed once, and shared.

Rows see the same keys and values as without sharing, up to rounding: as with any other batch, rows that rounding could
decide are near ties. Whether a model takes what it is given so is not taken on trust: one row is computed both ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from os.path import commonprefix
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from .load import ABOUT, SAME, out_of_memory, unless_full
from .model import Model
from .rows import NEAR, Row

LEAST = 64  # tokens: for fewer, sharing costs more than it saves
ATTENDS = {DynamicLayer, DynamicSlidingWindowLayer}  # layers that keep keys and values, not a state of all tokens


class Prefix:
    """Tokens with which all rows begin that one adapter is asked.

    Args:
        model: with the adapter switched on whenever this is used.
        ids: tokens with which rows begin, perhaps; ``share`` leaves those with which they do.
    """

    def __init__(self, model: Model, ids: Sequence[int]) -> None:
        self.model = model
        self.layers = DynamicCache(config=model.net.config).layers
        self.ids = list(ids) if {type(layer) for layer in self.layers} <= ATTENDS else []
        self.held: list[list[torch.Tensor]] = []  # keys and values of each layer, shape (1, heads, tokens, size)

    def __len__(self) -> int:
        """Return the number of tokens that rows share; 0 until ``share`` has computed them."""
        return len(self.ids) if self.held else 0

    def share(self, rows: Sequence[Row]) -> None:
        """Keep the tokens with which these rows begin, too; the last one of a prompt is each row's own.

        Keys and values are computed if several rows would share them, memory allows, and the model takes them.
        """
        for row in rows:
            size = len(self.ids)
            if len(row.prompt_ids) <= size or row.prompt_ids[:size] != self.ids:
                self.ids = list(commonprefix([self.ids, row.prompt_ids[:-1]]))
        size = len(self.ids) if len(self.ids) >= LEAST else 0
        self.ids, self.held = self.ids[:size], [[states[:, :, :size] for states in pair] for pair in self.held if size]
        if size and not self.held and len(rows) > 1 and not unless_full(self._compute, rows[0]):
            self.ids, self.held = [], []

    def _compute(self, row: Row) -> bool:
        """Compute a whole row, keep what rows share, and tell whether the row's logits are the same with it."""
        try:
            with torch.inference_mode():
                return self._takes(row)
        except Exception as error:
            if isinstance(error, RuntimeError) and out_of_memory(error):
                raise
            return False  # models with caches of their own raise whatever their authors thought of

    def _takes(self, row: Row) -> bool:
        size, own, device = len(self.ids), row.length - len(self.ids), self.model.device
        ids = torch.tensor([row.prompt_ids + row.answer_ids], device=device)
        places = torch.arange(len(row.prompt_ids) - 1, row.length, device=device)
        cache = DynamicCache()  # which keeps what windows would drop
        whole = self.model.logits(ids, places, past_key_values=cache, use_cache=True)
        share = SAME if whole.dtype == torch.float32 else ABOUT
        near = NEAR[str(whole.dtype).removeprefix("torch.")]
        least = min(share * float(whole.abs().max()), near / 2)  # so that no lead of ``near`` is lost
        self.held = [[states[:, :, :size].clone() for states in (layer.keys, layer.values)] for layer in cache.layers]
        shared = self.model.logits(ids[:, size:], places - size, **self.options(own))
        return len(self.held) == len(self.layers) and bool((whole - shared).abs().max() <= least)

    def options(self, width: int) -> dict[str, Any]:
        """Return what a forward pass over so many tokens behind these takes; it keeps nothing."""
        cache, size = DynamicCache(), len(self.ids)
        cache.layers = [_SharedLayer(*pair) for pair in self.held]
        position = torch.arange(size, size + width, device=self.model.device)[None]
        return {"past_key_values": cache, "position_ids": position, "use_cache": True}


class _SharedLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of a layer that rows share; those of the rows themselves are not kept."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        pairs = ((self.keys, key_states), (self.values, value_states))
        return tuple(torch.cat([shared.expand(len(own), -1, -1, -1), own], dim=-2) for shared, own in pairs)
