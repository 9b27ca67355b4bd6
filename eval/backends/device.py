"""Devices and number formats by their names."""

from __future__ import annotations

import os

import torch

from ...errors import UserError, quoted

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def find_device(name: str) -> torch.device:
    """Return a device by its name; raises ``UserError`` where there is no such device."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name in ("auto", "cuda") and (count or name == "cuda"):
        # Some launchers give each process a GPU of its own, the only one that it sees.
        own = count == 1 and (os.environ.get("CUDA_VISIBLE_DEVICES") or os.environ.get("LOCAL_WORLD_SIZE", "1") == "1")
        name = f"cuda:{0 if own else os.environ.get('LOCAL_RANK', '0')}"
    try:
        device = torch.device("cpu" if name == "auto" else name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type == "cpu" or (device.type == "cuda" and 0 <= (device.index or 0) < count):
        return device
    raise UserError(
        f"there is no device {quoted(name)}: this machine has {count} GPUs that torch can use (numbers from 0)",
        allowed="auto, cpu, cuda, cuda:1 ...",
        next_step="start at most one process a GPU: torchrun --nproc-per-node N" if count else "--device cpu",
    )


def find_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return a number format by its name; raises ``UserError`` where there is none of it."""
    if name == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        name = "bfloat16" if fast else "float32"
    if name not in DTYPES:
        raise UserError(f"there is no dtype {quoted(name)}", allowed=", ".join(["auto", *DTYPES]))
    return DTYPES[name]
