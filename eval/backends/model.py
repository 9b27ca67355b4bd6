"""A base model with adapters on a device, and its logits at the positions that are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...pipelines.workers import keep_freed_memory
from ..calls import BASE
from .device import find_device, find_dtype
from .load import load_adapter, load_base, no_room, unless_full, weight_sums

LONGER = ("linear", "dynamic", "yarn")  # kinds of rope whose factor says how much longer a row may be
LARGER = "or a device with more memory"


class Model:
    """A causal language model with adapters, each of which stays while memory lasts; made as ``TransformersBackend``.

    Attributes:
        net: the model that answers: the base model, or that with the adapter in use.
        vocabulary: the number of its tokens.
        max_positions: tokens that a row may have; None where there is no limit.

    Raises:
        UserError: the device is not there, or base model or an adapter cannot be loaded whole.
    """

    def __init__(
        self,
        base: Path | str,
        adapters: Mapping[str, Path | None],
        *,
        dtype: str = "auto",
        device: str = "auto",
        net: Any = None,
        loaded: Callable[[str], object] = lambda name: None,
    ) -> None:
        self.adapters, self.loaded = adapters, loaded
        self.device = find_device(device)
        self.dtype = find_dtype(dtype, self.device)
        if self.device.type == "cpu":  # the tensors of each layer go and come again: a sixth of the time
            keep_freed_memory(1 << 30, below=32 << 20)
        self.base: Any = unless_full(load_base, base, self.dtype, self.device) if net is None else net
        if self.base is None:
            raise no_room("while the base model was loaded", self.device, LARGER)
        if net is None:
            loaded(BASE)
        self.trees: dict[str, Any] = {}
        self.sums = weight_sums(self.base)
        config = self.base.config.get_text_config()
        # Falcon's alibi is computed from a mask of positions.
        self.takes_whole_masks = self.base.config._attn_implementation == "sdpa" and not getattr(config, "alibi", False)
        self.max_positions = max_positions(config)
        for adapter in (*adapters, BASE):  # what does not fit is found before anything is asked
            self.use(adapter)

    def use(self, adapter: str) -> None:
        """Switch to an adapter, or to the base model alone."""
        folder = None if adapter == BASE else self.adapters[adapter]
        self.net: Any = self.base if folder is None else self._tree(adapter, folder)
        self.vocabulary: int = self.net.get_input_embeddings().weight.shape[0]

    def _tree(self, adapter: str, folder: Path) -> Any:
        """Return the base model with an adapter; others make room for it where memory runs out."""
        if adapter in self.trees:
            return self.trees[adapter]
        tree = unless_full(load_adapter, self.base, adapter, folder)
        if tree is None:
            if not self.trees:
                raise no_room(f"while the adapter {adapter} was loaded", self.device, LARGER)
            self.net = self.base
            self.trees.clear()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            return self._tree(adapter, folder)
        if weight_sums(self.base) != self.sums:
            raise AssertionError(f"loading the adapter {adapter} has changed the base model")
        self.loaded(adapter)
        self.trees[adapter] = tree
        return tree

    def send(self, array: npt.NDArray[np.int64]) -> torch.Tensor:
        """Return an array on the device, without waiting for what the device does."""
        tensor = torch.from_numpy(array)
        return tensor if self.device.type == "cpu" else tensor.pin_memory().to(self.device, non_blocking=True)

    def logits(self, ids: torch.Tensor, index: torch.Tensor, **options: Any) -> torch.Tensor:
        """Return the logits at some positions, shape (n, vocabulary): only these go through the vocabulary projection.

        Args:
            ids: tokens, shape (rows, width).
            index: positions in the flattened ids, shape (n,).
            options: attention_mask, position_ids, past_key_values ... of the model's forward pass.
        """
        return logits_at(self.net, index, input_ids=ids, **options)


def logits_at(net: Any, index: torch.Tensor, *, called: Any = None, **inputs: Any) -> torch.Tensor:
    """Return a model's logits at some positions, as ``Model.logits``; ``called``: what calls it, if not itself."""

    def gather(_: torch.nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (args[0].flatten(0, 1)[index].unsqueeze(0),)

    # Before the projection: what follows it (scaling, capping) stays right. Looked up each time: an adapter that
    # trains the projection puts a module of its own there.
    handle = net.get_output_embeddings().register_forward_pre_hook(gather)
    try:
        found: torch.Tensor = (net if called is None else called)(**inputs).logits
    finally:
        handle.remove()
    return found[0]


def max_positions(config: Any) -> int | None:
    """Return how many tokens a row may have: positions times the factor by which rope stretches them."""
    most: int | None = getattr(config, "max_position_embeddings", None)
    rope = getattr(config, "rope_parameters", None) or {}
    if most is None or rope.get("rope_type") not in LONGER or not isinstance(rope.get("factor"), int | float):
        return most
    # Some configurations hold the stretched number already, and the one before beside it.
    return max(most, int((rope.get("original_max_position_embeddings") or most) * rope["factor"]))
