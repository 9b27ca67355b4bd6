"""Other libraries, imported when they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ...errors import UserError

TESTED = {  # what is imported -> what is installed
    "datasets": "datasets",
    "inspect_ai": "inspect-ai==0.3.285",
    "lm_eval": "lm-eval==0.4.13",
    "openenv": "openenv==0.10.0",
    "reasoning_gym": "reasoning-gym==0.1.25",
    "verifiers": "verifiers==0.4.0",
}


def library(name: str) -> Any:
    """Return a module of a library.

    Raises:
        UserError: the library, or another one that it needs, is not installed.
    """
    top = name.partition(".")[0]
    try:
        return import_module(name)
    except ImportError as error:
        what = f"{top} cannot be imported: {error}"
        raise UserError(what, next_step=f"pip install '{TESTED[top]}'") from error
