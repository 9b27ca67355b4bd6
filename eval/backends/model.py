"""A base model with adapters on a device, and its logits at the positions that are asked for."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from peft import PeftConfig, PeftModel
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from ...errors import UserError, clip, nearest
from ..calls import BASE
from .device import find_device, find_dtype

MAX_WEIGHTS = 500_000  # more than the largest mixtures of experts have; each is counted twice: made, and loaded
# Beside its own error, how torch says that memory ran out: CUDA's and its libraries' own words come through.
OUT_OF_MEMORY = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator: can't allocate memory",
)


class Model:
    """A causal language model whose adapters are loaded when first used, and stay while memory lasts.

    Args:
        base: folder, or name on the Hub, of the base model.
        adapters: folder of each adapter by its name; plain LoRAs, which leave the base model as it is.
        dtype: float32, bfloat16, float16, or auto: bfloat16 on a GPU that has it, float32 otherwise.
        device: cpu, cuda, cuda:1 ..., or auto: the GPU of this process (LOCAL_RANK, which torchrun sets), else the CPU.
        attention: an attention implementation of transformers (sdpa, flash_attention_2, eager ...), or auto.

    Raises:
        UserError: the device is not there, or the base model cannot be loaded whole.
    """

    def __init__(
        self,
        base: Path | str,
        adapters: Mapping[str, Path],
        *,
        dtype: str = "auto",
        device: str = "auto",
        attention: str = "auto",
    ) -> None:
        self.adapters = adapters
        self.device = find_device(device)
        self.dtype = find_dtype(dtype, self.device)
        self.net = load(base, self.dtype, self.device, None if attention == "auto" else attention)
        config = self.net.config.get_text_config()
        # Falcon's alibi is computed from a mask of positions.
        plain = not getattr(config, "alibi", False)
        self.takes_whole_masks: bool = self.net.config._attn_implementation == "sdpa" and plain
        self.max_positions: int | None = getattr(config, "max_position_embeddings", None)
        self.vocabulary: int = self.net.get_input_embeddings().weight.shape[0]
        self.peft: PeftModel | None = None
        self.loaded: set[str] = set()
        self.active: str | None = BASE

    def use(self, adapter: str) -> None:
        """Switch to an adapter, or to the base model alone.

        Raises:
            UserError: the adapter cannot be loaded, or does not fit the base model.
        """
        if adapter == self.active:
            return
        self.active = None  # unknown, should the switch fail
        if adapter != BASE and adapter not in self.loaded:
            self._load(adapter)
        if self.peft is not None and adapter == BASE:
            self.peft.base_model.disable_adapter_layers()
        elif self.peft is not None:
            self.peft.base_model.enable_adapter_layers()
            self.peft.base_model.set_adapter(adapter, inference_mode=True)
        self.active = adapter

    def _load(self, adapter: str) -> None:
        if adapter not in self.adapters:
            raise UserError(f"there is no adapter {clip(adapter)}{nearest(adapter, self.adapters)}")
        where = self.adapters[adapter]
        if not (where / "adapter_model.safetensors").is_file():
            raise UserError(f"the adapter {adapter} has no adapter_model.safetensors", where=clip(where))
        found = None
        try:
            found = self._read(adapter, where)
        except Exception as error:  # whatever the library makes of a damaged folder
            if not (self.loaded and isinstance(error, RuntimeError) and out_of_memory(error)):
                raise _unloadable(f"the adapter {adapter}", where, error) from error
        if found is None:
            self._unload()
            self._load(adapter)
            return
        odd = [*found.missing_keys, *found.unexpected_keys]
        if odd:
            raise UserError(
                f"the adapter {adapter} does not fit the base model: only one of them has {clip(odd[0], 120)}",
                where=clip(where),
                next_step="name the base model that it was trained on with --base-model",
            )
        self.loaded.add(adapter)

    def _read(self, adapter: str, where: Path) -> Any:
        """Read an adapter beside those that are loaded; return the names that only it or only the model has."""
        with quiet():
            config = PeftConfig.from_pretrained(str(where))
            config.inference_mode = True
            # Weights in the base model's dtype: float32 ones would turn every activation to float32 and back.
            if self.peft is None:
                self.peft = PeftModel(self.net, config, adapter, autocast_adapter_dtype=False)
            else:
                self.peft.add_adapter(adapter, config, autocast_adapter_dtype=False)
            found = self.peft.load_adapter(
                str(where), adapter, torch_device=str(self.device), autocast_adapter_dtype=False
            )
        self.peft.eval()
        return found

    def _unload(self) -> None:
        """Drop all adapters: there is no memory for one more."""
        assert self.peft is not None  # there are some
        with quiet():
            for adapter in list(self.peft.peft_config):
                self.peft.delete_adapter(adapter)
        self.loaded.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def send(self, array: npt.NDArray[np.int64]) -> torch.Tensor:
        """Return an array on the device, without waiting for what the device does."""
        tensor = torch.from_numpy(array)
        return tensor if self.device.type == "cpu" else tensor.pin_memory().to(self.device, non_blocking=True)

    def logits(self, ids: torch.Tensor, index: torch.Tensor, **options: Any) -> torch.Tensor:
        """Return the logits at some positions; only these go through the vocabulary projection.

        Args:
            ids: tokens, shape (rows, width).
            index: positions in the flattened ids, shape (n,).
            options: attention_mask, position_ids, past_key_values ... of the model's forward pass.

        Returns:
            Shape (n, vocabulary), in the model's dtype.
        """
        with self._projecting(index):
            found: torch.Tensor = self.net(input_ids=ids, **options).logits
        return found[0]

    @contextmanager
    def _projecting(self, index: torch.Tensor) -> Iterator[None]:
        """Let only some positions reach the vocabulary projection; what follows it (scaling, capping) stays right."""

        def gather(_: torch.nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
            return (args[0].flatten(0, 1)[index].unsqueeze(0),)

        # Looked up each time: an adapter that trains the projection puts a module of its own there.
        handle = self.net.get_output_embeddings().register_forward_pre_hook(gather)
        try:
            yield
        finally:
            handle.remove()


def load(base: Path | str, dtype: torch.dtype, device: torch.device, attention: str | None) -> Any:
    """Load a causal language model from safetensors; no code of its own is run.

    Raises:
        UserError: it cannot be loaded, or some of its weights are missing.
    """
    with quiet(), bounded():
        try:
            net, info = AutoModelForCausalLM.from_pretrained(
                str(base),
                dtype=dtype,
                device_map=None if device.type == "cpu" else str(device),
                attn_implementation=attention,
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=Path(base).is_dir(),
                output_loading_info=True,
            )
        except Exception as error:  # whatever the library makes of a damaged folder
            raise _unloadable("the base model", base, error) from error
    if info["missing_keys"]:
        raise UserError(
            f"the base model lacks weights: {clip(', '.join(sorted(info['missing_keys'])), 200)}", where=clip(base)
        )
    return net.eval()


@contextmanager
def bounded() -> Iterator[None]:
    """Let a model be built of so many weights only: a configuration may ask for layers of layers without end.

    Raises:
        ValueError: it would have more.
    """
    numbers = count(1)

    def check(*_: object) -> None:
        if next(numbers) > MAX_WEIGHTS:
            raise ValueError(f"its configuration asks for more than {MAX_WEIGHTS:,} weights")

    handle = register_module_parameter_registration_hook(check)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bars and advice of the libraries: what matters is raised."""
    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _unloadable(what: str, where: Path | str, error: Exception) -> UserError:
    reason = str(error).strip().split("\n")[0]
    return UserError(f"{what} cannot be loaded: {clip(reason, 300)}", where=clip(where))


def out_of_memory(error: RuntimeError) -> bool:
    """Tell whether a failure of torch means that memory ran out, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)
