"""The adapters of a checkpoint folder: which there are, and which an evaluation needs.

executors/<task>/       adapter_config.json, adapter_model.safetensors
aligners/<task>/        the same
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import UserError, did_you_mean, printable_path, quoted
from ..pipelines.hub_source import Say
from ..tm import machine, tasks
from .base_model import Adapter, BaseModel, find_base
from .base_model import fetch as fetch_base
from .files import CHAT_TEMPLATE, CONFIG, TOKENIZER, WEIGHTS, hash_of, pickled, read_json, readable, shapes_in
from .problems import aligner, executor

LONG_NAMES = {"addition": "add", "subtraction": "sub", "multiplication": "mul", "division": "div"}
KINDS = {"executors": executor, "aligners": aligner}
KIND_OF_MODE = {"one_step": "executors", "executor": "executors", "aligner_in": "aligners", "aligner_out": "aligners"}
LAYOUT = "executors/<task>/ and aligners/<task>/, each with an adapter as peft saves it"
TRAINED = re.compile(r"checkpoint-(\d+)")  # what trainers call the states that they save on the way
LIBRARIES = ("transformers", "peft")
NAMES = ("base_model_name_or_path", "revision")


@dataclass(frozen=True)
class Checkpoint:
    """A base model with adapters.

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
    folder: str | Path | None,
    base_model: str | None,
    *,
    weights: bool = True,
    task: Collection[str] = (),
    mode: Collection[str] = (),
    say: Say = lambda line: None,
) -> Checkpoint:
    """Find base model and adapters; nothing is loaded into a model.

    Args:
        folder: the checkpoint folder, or that of one adapter; None for a base model alone.
        base_model: folder or Hub name of the base model; by default the one that the adapters' configurations name.
        weights: the base model's weights are needed here, too; not where a server has them.
        task: what one adapter is for, where its folder's name does not say.
        mode: whether it is an executor or an aligner, where its folder does not say.
        say: is told what the user should know of where models come from.

    Raises:
        UserError: something is missing, damaged, or of a kind that is not read; says where, and what would do.
    """
    root = None if folder is None else Path(os.path.expanduser(folder))
    found = {} if root is None else dict(sorted(_paths(root, task, mode)))
    latest = {name: _latest(path) for name, path in found.items()}
    for name, path in latest.items():
        if path != found[name]:
            say(f"{name}: {printable_path(path.name)}, the latest, is used")
    adapters = {name: read_adapter(path) for name, path in latest.items()}
    return Checkpoint(find_base(base_model, adapters, root, weights=weights, say=say), adapters)


def fetch(checkpoint: Checkpoint, *, weights: bool = True, say: Say = lambda line: None) -> Checkpoint:
    """Return the same checkpoint with the base model on this machine: one on the Hub is downloaded.

    Raises:
        UserError: the download fails, or a file is refused.
    """
    return replace(checkpoint, base_model=fetch_base(checkpoint.base_model, weights=weights, say=say))


def task_of(name: str) -> str | None:
    """Return the task that a folder's name means: ``add``, ``addition``, ``Greater-Than`` ...; None for no task."""
    plain = name.lower().replace("-", "_")
    plain = LONG_NAMES.get(plain, plain)
    return plain if plain in tasks() else None


def read_adapter(path: Path) -> Adapter:
    """Return an adapter whose files are there and can be read.

    Raises:
        UserError: a file is missing, damaged or of a kind that is not read, or names code to run.
    """
    if not (path / WEIGHTS).is_file() and (refusal := pickled(path, printable_path(path.name))):
        raise refusal
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            raise UserError(
                f"there is no {name} in {printable_path(path.name)}{', which is empty' * (not any(path.iterdir()))}",
                where=printable_path(path),
                allowed=f"{CONFIG} and {WEIGHTS}, as peft's save_pretrained writes them",
                next_step="remove the folder, or put both there",
            )
    config = read_json(path / CONFIG)
    mapping = config.get("auto_mapping")
    library = mapping.get("parent_library") if isinstance(mapping, dict) else mapping
    if library is not None and str(library).partition(".")[0] not in LIBRARIES:
        raise UserError(
            f"this adapter's configuration names code of {quoted(library)} (auto_mapping), which is never run",
            where=printable_path(path / CONFIG),
            allowed=f"models of {' and '.join(LIBRARIES)}",
        )
    if not shapes_in(path / WEIGHTS):
        raise UserError(
            "the adapter holds no weight", where=printable_path(path / WEIGHTS), next_step="save it with peft again"
        )
    base, revision = (value if isinstance(value, str) and value else None for value in map(config.get, NAMES))
    own = [name for name in (*TOKENIZER, CHAT_TEMPLATE) if (path / name).is_file()]
    return Adapter(path, hash_of(path, [CONFIG, WEIGHTS, *own]), base, revision)


def _latest(path: Path) -> Path:
    """Return an adapter's folder: of a trainer's states in it, the latest, where it holds no adapter itself."""
    if (path / CONFIG).is_file() or (path / WEIGHTS).is_file():
        return path
    with readable(path):
        steps = {int(match[1]): one for one in path.iterdir() if (match := TRAINED.fullmatch(one.name))}
    return next((steps[step] for step in sorted(steps, reverse=True) if (steps[step] / CONFIG).is_file()), path)


def _paths(root: Path, wanted: Collection[str], modes: Collection[str]) -> Iterator[tuple[str, Path]]:
    """Yield name and folder of each adapter.

    Raises:
        UserError: there are none, a folder's name is no task's, or two mean the same.
    """
    found: dict[str, Path] = {}
    with readable(root):
        if not root.is_dir():
            raise UserError(
                "there is no such checkpoint folder", where=printable_path(root), next_step="look at --adapters"
            )
        for kind, name_of in KINDS.items():
            for path in sorted((root / kind).iterdir()) if (root / kind).is_dir() else ():
                task = _task_at(path)
                if task is None:
                    continue
                if name_of(task) in found:
                    raise UserError(
                        f"two folders hold the adapter {name_of(task)}: {found[name_of(task)].name} and {path.name}",
                        where=printable_path(root / kind),
                        next_step="remove one of them",
                    )
                found[name_of(task)] = path
        if not found and (_latest(root) / CONFIG).is_file():
            yield _name_of(root, wanted, modes), root
            return
        if not found:
            inside = [path for path in sorted(root.iterdir()) if any((path / kind).is_dir() for kind in KINDS)]
            raise UserError(
                "there are no adapters in this folder",
                where=printable_path(root),
                allowed=LAYOUT,
                next_step=f"did you mean --adapters {printable_path(inside[0])}?"
                if inside
                else "name another folder with --adapters; a whole model: --model",
            )
    yield from found.items()


def _name_of(path: Path, wanted: Collection[str], modes: Collection[str]) -> str:
    """Return the name of the one adapter that a folder holds.

    Raises:
        UserError: it cannot be told.
    """
    whole = path.resolve()
    kinds = {whole.parent.name} & KINDS.keys() or {KIND_OF_MODE[mode] for mode in modes if mode in KIND_OF_MODE}
    named = task_of(whole.name)
    chosen = {named} if named else set(wanted)
    if len(kinds) != 1 or len(chosen) != 1:
        kind = "--mode one_step (an executor) or --mode aligner_in (an aligner)"
        raise UserError(
            "this folder is one adapter, and does not say what it is for",
            where=printable_path(path),
            allowed=f"a folder named after a task in {' or '.join(KINDS)}, or one task and kind",
            next_step="add --task sub" if len(chosen) != 1 else f"add {kind}",
        )
    return KINDS[kinds.pop()](chosen.pop())


def _task_at(path: Path) -> str | None:
    """Return the task of an adapter's folder; None for what is no adapter."""
    task = task_of(path.name)
    if path.is_symlink() and not path.exists():
        raise UserError(f"{printable_path(path.name)} is a link that leads nowhere", where=printable_path(path.parent))
    if path.name.startswith(".") or not path.is_dir() or (task is None and not (_latest(path) / CONFIG).is_file()):
        return None
    if task is None:
        raise UserError(
            f"no task is called {quoted(path.name)}{did_you_mean(path.name.lower(), [*tasks(), *LONG_NAMES])}",
            where=printable_path(path.parent),
            allowed=", ".join([*tasks(), *LONG_NAMES]),
        )
    if path.parent.name == "aligners" and not machine(task).has_raw:
        raise UserError(f"{task} has no raw text, and so no aligner", where=printable_path(path))
    return task
