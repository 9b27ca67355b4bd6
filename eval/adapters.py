"""The adapters of a checkpoint folder, checked: which there are, what they fit, and which an evaluation needs.

executors/<task>/       adapter_config.json, adapter_model.safetensors
aligners/<task>/        the same
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..errors import UserError, clip, nearest
from ..pipelines.folder import shown
from ..pipelines.hub_source import Say
from ..tm import machine, tasks
from .base_model import BaseModel, find_base
from .base_model import fetch as fetch_base
from .lora import CONFIG, Adapter, check_fit, read_adapter
from .runs import RAW, aligner, executor, steps_of
from .weights import check_inside, readable

LONG_NAMES = {"addition": "add", "subtraction": "sub", "multiplication": "mul", "division": "div"}
KINDS = {"executors": executor, "aligners": aligner}


@dataclass(frozen=True)
class Checkpoint:
    """A base model with adapters, all checked.

    Args:
        base_model: the base model.
        adapters: adapters by name, such as ``executors/add``.
    """

    base_model: BaseModel
    adapters: Mapping[str, Adapter]

    @property
    def base(self) -> Path | str:
        """The base model's folder; or, on the Hub, its name and commit."""
        return self.base_model.place

    @property
    def base_sha256(self) -> str | None:
        """Hash of the base model's configuration, tokenizer and weights; None where they are elsewhere."""
        return self.base_model.sha256


def find_adapters(
    folder: str | Path | None, base_model: str | None, *, weights: bool = True, say: Say = lambda line: None
) -> Checkpoint:
    """Find base model and adapters of a checkpoint folder and check them; nothing is loaded into a model.

    Args:
        folder: the checkpoint folder; None for a base model alone.
        base_model: folder or Hub name of the base model; by default the one that the adapters' configurations name.
        weights: the base model's weights are needed here, too; not where a server has them.
        say: is told what the user should know of where the base model comes from.

    Raises:
        UserError: something is missing, damaged, or of a kind that is not read; says where, and what would do.
    """
    root = None if folder is None else Path(os.path.expanduser(folder))
    adapters = {} if root is None else {name: read_adapter(path, root) for name, path in sorted(_paths(root))}
    checkpoint = Checkpoint(find_base(base_model, adapters, root, weights=weights, say=say), adapters)
    _check_fit(checkpoint)
    return checkpoint


def fetch(checkpoint: Checkpoint, *, weights: bool = True, say: Say = lambda line: None) -> Checkpoint:
    """Return the same checkpoint with the base model on this machine: one on the Hub is downloaded.

    Raises:
        UserError: the download fails, a file is refused, or an adapter does not fit.
    """
    here = Checkpoint(fetch_base(checkpoint.base_model, weights=weights, say=say), checkpoint.adapters)
    _check_fit(here)
    return here


def _check_fit(checkpoint: Checkpoint) -> None:
    shapes = checkpoint.base_model.shapes
    for adapter in checkpoint.adapters.values() if shapes is not None else ():
        check_fit(adapter, shapes or {}, checkpoint.base)


def task_of(name: str) -> str | None:
    """Return the task that a folder's name means: ``add``, ``addition``, ``Greater-Than`` ...; None for no task."""
    plain = name.lower().replace("-", "_")
    plain = LONG_NAMES.get(plain, plain)
    return plain if plain in tasks() else None


def _paths(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield name and folder of each adapter.

    Raises:
        UserError: there are none, a folder's name is no task's, or two mean the same.
    """
    found: dict[str, Path] = {}
    with readable(root):
        if not root.is_dir():
            raise UserError("there is no such checkpoint folder", where=shown(root), next_step="look at --adapters")
        for kind, name_of in KINDS.items():
            for path in sorted((root / kind).iterdir()) if (root / kind).is_dir() else ():
                task = _task_at(path, root)
                if task is None:
                    continue
                if name_of(task) in found:
                    raise UserError(
                        f"two folders hold the adapter {name_of(task)}: {found[name_of(task)].name} and {path.name}",
                        where=shown(root / kind),
                        next_step="remove one of them",
                    )
                found[name_of(task)] = path
    if not found:
        alone = (root / CONFIG).is_file()
        inside = [path for path in sorted(root.iterdir()) if any((path / kind).is_dir() for kind in KINDS)]
        next_step = f"did you mean --adapters {shown(inside[0])}?" if inside else "name another folder with --adapters"
        raise UserError(
            "this is one adapter, not a checkpoint folder" if alone else "there are no adapters in this folder",
            where=shown(root),
            allowed="executors/<task>/ and aligners/<task>/, each with an adapter as peft saves it",
            next_step="move it to ckpt/executors/<task>/, and name ckpt" if alone else next_step,
        )
    yield from found.items()


def _task_at(path: Path, root: Path) -> str | None:
    """Return the task of an adapter's folder; None for what is no adapter."""
    if path.name.startswith("."):
        return None
    task = task_of(path.name)
    if path.is_symlink():
        check_inside(path, root)
    if not path.is_dir() or (task is None and not (path / CONFIG).is_file()):
        return None
    if task is None:
        raise UserError(
            f"no task is called {clip(path.name)}{nearest(path.name.lower(), [*tasks(), *LONG_NAMES])}",
            where=shown(path.parent),
            allowed=", ".join([*tasks(), *LONG_NAMES]),
        )
    if path.parent.name == "aligners" and not machine(task).has_raw:
        raise UserError(f"{task} has no raw text, and so no aligner", where=shown(path))
    return task


@cache
def needed(task: str, mode: str) -> frozenset[str]:
    """Return the names of the adapters that a task needs in a mode: those that an example run asks."""
    if mode == RAW:
        return frozenset()
    if mode == "one_step":
        return frozenset({executor(task)})
    if mode in ("aligner_in", "aligner_out"):
        return frozenset({aligner(task)})
    example = machine(task).example
    a, b = example[0], None if machine(task).unary else example[1]
    return frozenset(step.adapter for step in steps_of(task, mode, a, b))
