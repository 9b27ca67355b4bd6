"""A base model with adapters: where they lie, which there are, whether their files are whole. Nothing is loaded.

executors/<task>/       adapter_config.json, adapter_model.safetensors
aligners/<task>/        the same
all/                    the same: one in place of all that are not there
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import UserError, did_you_mean, printable_path, quoted
from ..pipelines.hub_source import HubFiles, HubPlace, Say, download, local_or_hub, look_up
from ..pipelines.settings import ALIASES
from ..tm import tasks
from .files import (
    CHAT_TEMPLATE,
    CONFIG,
    TOKENIZER,
    VOCABULARIES,
    WEIGHTS,
    HashedFiles,
    pickled,
    read_json,
    readable,
    shapes_in,
)
from .problems import aligner, executor

KINDS = {"executors": executor, "aligners": aligner}
KIND_OF_MODE = dict.fromkeys(("one_step", "executor", "slips"), "executors")
KIND_OF_MODE |= dict.fromkeys(("aligner_in", "aligner_out"), "aligners")
EVERY = "all"  # the folder of one adapter for every task, executor and aligner
LAYOUT = "executors/<task>/ and aligners/<task>/, each with an adapter as peft saves it, or all/ with one for all"
TRAINED = re.compile(r"checkpoint-(\d+)")  # what trainers call the states that they save on the way
HUB_NAME = re.compile(r"[\w][\w.-]*(/[\w.-]+)?", re.ASCII)
MODEL = "config.json"
WANTED = (".json", ".txt", ".model", ".jinja")  # of a Hub repository, beside weights
# A repository whose code would be run, or settings in which one may be named.
KERNEL = re.compile(r'"(_?(?:attn|experts)_implementation(?:_internal)?)": ("[^"]*/[^"]*"|[\[{][^\]}]*/[^\]}]*)')


@dataclass(frozen=True)
class Adapter:
    """An adapter on disk, its files found.

    Args:
        path: its folder.
        hashed: its configuration, weights and tokenizer.
        base: the base model that its configuration names; None if it names none.
        revision: the version of the base model that its configuration names, if any.
    """

    path: Path
    hashed: HashedFiles
    base: str | None
    revision: str | None


@dataclass(frozen=True)
class Checkpoint:
    """A base model with adapters.

    Args:
        base: the base model's folder; or, on the Hub, its name and commit: ``user/name@commit``.
        base_hashed: its configuration, tokenizer and weights; None where they are elsewhere.
        base_files: its files on the Hub, where it is there.
        adapters: adapters by name, such as ``executors/add``.
    """

    base: Path | str
    base_hashed: HashedFiles | None
    base_files: HubFiles | None
    adapters: Mapping[str, Adapter]

    @property
    def base_sha256(self) -> str | None:
        """The hash of the base model's configuration, tokenizer and weights."""
        return None if self.base_hashed is None else self.base_hashed.sha256

    def check_unchanged(self, name: str) -> None:
        """Refuse an adapter, or the base model, whose files were written since they were hashed.

        Raises:
            UserError: they were.
        """
        hashed = self.adapters[name].hashed if name in self.adapters else self.base_hashed
        if hashed is not None:
            hashed.check_unchanged()


def find_adapters(
    folder: str | Path | None,
    base_model: str | None,
    *,
    option: str = "--base-model",
    weights: bool = True,
    task: Collection[str] = (),
    mode: Collection[str] = (),
    say: Say = lambda line: None,
) -> Checkpoint:
    """Find base model and adapters; a base model on the Hub is looked up, and fetched later.

    Args:
        folder: the checkpoint folder, or that of one adapter; None for a base model alone.
        base_model: folder or Hub name of the base model; by default the one that the adapters' configurations name.
        option: what named the base model, for messages.
        weights: the base model's weights are needed here, too; not where a server has them.
        task: what one adapter is for, where its folder's name does not say.
        mode: whether it is an executor or an aligner, where its folder does not say.
        say: is told what the user should know of where models come from.

    Raises:
        UserError: something is missing, damaged, or of a kind that is not read; says where, and what would do.
    """
    root = None if folder is None else Path(os.path.expanduser(folder))
    adapters = {}
    folders = {} if root is None else _adapter_folders(root, task, mode, say)
    for name, path in sorted(folders.items()):
        latest = _latest(path)
        if latest != path:
            say(f"{name}: {printable_path(latest.name)}, the latest, is used")
        adapters[name] = read_adapter(latest)
    place = _named_base(adapters, root) if base_model is None else _chosen_base(base_model, option, say)
    if isinstance(place, Path):
        return Checkpoint(place, read_base(place, weights=weights), None, adapters)
    files = look_up(place, say)
    return Checkpoint(f"{place.name}@{files.place.revision}", None, files, adapters)


def fetch(checkpoint: Checkpoint, *, weights: bool = True) -> Checkpoint:
    """Return the same checkpoint with the base model on this machine: one on the Hub is downloaded, and checked."""
    if checkpoint.base_files is None:
        return checkpoint
    wanted = (*WANTED, *([".safetensors"] if weights else []))
    folder = download(checkpoint.base_files, lambda path: "/" not in path and path.endswith(wanted))
    return replace(checkpoint, base=folder, base_hashed=read_base(folder, weights=weights), base_files=None)


# Adapters


def task_of(name: str) -> str | None:
    """Return the task that a folder's name means: ``add``, ``addition``, ``Greater-Than`` ...; None for no task."""
    plain = name.lower().replace("-", "_")
    plain = ALIASES.get(plain, plain)
    return plain if plain in tasks() else None


def read_adapter(path: Path) -> Adapter:
    """Return an adapter whose files are there and can be read; else raise ``UserError``."""
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
    if not shapes_in(path / WEIGHTS):
        raise UserError(
            "the adapter holds no weight", where=printable_path(path / WEIGHTS), next_step="save it with peft again"
        )
    base, revision = (
        value if isinstance(value := config.get(key), str) and value else None
        for key in ("base_model_name_or_path", "revision")
    )
    tokenizer = [name for name in (*TOKENIZER, CHAT_TEMPLATE) if (path / name).is_file()]
    return Adapter(path, HashedFiles.of(path, [CONFIG, WEIGHTS, *tokenizer]), base, revision)


def _latest(path: Path) -> Path:
    """Return an adapter's folder: of a trainer's states in it, the latest, where it holds no adapter itself."""
    if (path / CONFIG).is_file() or (path / WEIGHTS).is_file():
        return path
    with readable(path):
        states = [state for state in path.iterdir() if TRAINED.fullmatch(state.name) and (state / CONFIG).is_file()]
    steps = [int(state.name.partition("-")[2]) for state in states]
    latest = [state for state, step in zip(states, steps, strict=True) if step == max(steps)]
    if len(latest) > 1:
        what = f"{' and '.join(sorted(quoted(state.name) for state in latest))} are states of the same step"
        raise UserError(what, where=printable_path(path), next_step="remove all but one of them, or name its folder")
    return latest[0] if latest else path


def _adapter_folders(root: Path, wanted: Collection[str], modes: Collection[str], say: Say) -> dict[str, Path]:
    """Return the folder of each adapter by its name; refuse where there are none, or two mean the same."""
    found: dict[str, Path] = {}
    with readable(root):
        if not root.is_dir():
            what, allowed = "there is no such checkpoint folder", "a folder here, or user/name on the Hub"
            raise UserError(what, where=f"--adapters {printable_path(root)}", allowed=allowed)
        for kind, name_of in KINDS.items():
            for path in sorted((root / kind).iterdir()) if (root / kind).is_dir() else ():
                task = task_of(path.name) if path.is_dir() else None
                if task is None:
                    if path.is_dir() and not path.name.startswith(".") and (_latest(path) / CONFIG).is_file():
                        known = [*tasks(), *ALIASES]
                        what = f"no task is called {quoted(path.name)}{did_you_mean(path.name.lower(), known)}"
                        raise UserError(what, where=printable_path(root / kind), allowed=", ".join(known))
                    continue
                if (name := name_of(task)) in found:
                    raise UserError(
                        f"two folders hold the adapter {name}: {found[name].name} and {path.name}",
                        where=printable_path(root / kind),
                        next_step="remove one of them",
                    )
                found[name] = path
        if (root / EVERY).is_dir() and (_latest(root / EVERY) / CONFIG).is_file():
            names = [name_of(task) for task in tasks() for name_of in KINDS.values()]
            if found:
                say(f"{', '.join(sorted(found))}: asked for their tasks, in place of {EVERY}/")
            found = dict.fromkeys(names, root / EVERY) | found
        if found:
            return found
        if (_latest(root) / CONFIG).is_file():
            return {_name_of(root, wanted, modes): root}
        raise UserError(
            "there are no adapters in this folder, in the places where they are looked for",
            where=printable_path(root),
            allowed=LAYOUT,
            next_step="name another folder with --adapters; a whole model: --model",
        )


def _name_of(path: Path, wanted: Collection[str], modes: Collection[str]) -> str:
    """Return the name of the one adapter that a folder holds; refuse one that does not tell."""
    whole = path.resolve()
    kinds = {whole.parent.name} & KINDS.keys() or {KIND_OF_MODE[mode] for mode in modes if mode in KIND_OF_MODE}
    named = task_of(whole.name)
    chosen = {named} if named else set(wanted)
    if len(kinds) == len(chosen) == 1:
        return KINDS[kinds.pop()](chosen.pop())
    raise UserError(
        "this folder is one adapter, and does not say what it is for",
        where=printable_path(path),
        allowed=f"a folder named after a task in {' or '.join(KINDS)}, or one task and kind",
        next_step="add --task sub"
        if len(chosen) != 1
        else "add --mode one_step (an executor) or --mode aligner_in (an aligner)",
    )


# The base model


def _chosen_base(name: str, option: str, say: Say) -> Path | HubPlace:
    """Return the folder or Hub repository that the user named."""
    place = local_or_hub(name, "model", option, say)
    if isinstance(place, Path) and HUB_NAME.fullmatch(name) and not os.path.lexists(place):
        return HubPlace("model", name, option=option)  # an old one, with a name of one part
    if isinstance(place, Path) and not os.path.isdir(place):
        raise UserError(
            f"there is no base model {printable_path(name)}",
            where=option,
            allowed="a folder with config.json, tokenizer and weights, or a name on the Hub",
        )
    return place


def _named_base(adapters: Mapping[str, Adapter], root: Path | None) -> Path | HubPlace:
    """Return the folder or Hub repository that the configurations of adapters name: all the same."""
    named = {_base_of(adapter, root): name for name, adapter in adapters.items()}
    if len(named) != 1:
        told = "; ".join(f"{name}: {printable_path(str(place))}" for place, name in [*named.items()][:3])
        raise UserError(
            f"the adapters name {len(named) or 'no'} base models{told and ': '}{told}",
            where=printable_path(str(root)),
            allowed="one base model for all",
            next_step="name it with --base-model",
        )
    return next(iter(named))


def _base_of(adapter: Adapter, root: Path | None) -> Path | HubPlace:
    base = adapter.base
    # Beside the adapter; then from where the user stands, as the libraries that wrote the path see it.
    for folder in (adapter.path / base, (root or adapter.path) / base, Path(base)) if base is not None else ():
        if os.path.isfile(folder / MODEL):  # os.path: a name may be too long for a file's, which is an error to pathlib
            return folder.resolve()
    if base is not None and HUB_NAME.fullmatch(base):
        return HubPlace("model", base, adapter.revision, option="the base model that the adapters name")
    raise UserError(
        "this adapter's configuration names no base model"
        if base is None
        else f"the base model that this adapter's configuration names is not here: {printable_path(base)}",
        where=printable_path(adapter.path / CONFIG),
        next_step="say where it is with --base-model",
    )


def read_base(folder: Path, *, weights: bool = True) -> HashedFiles:
    """Return a base model's configuration, tokenizer and weights, hashed.

    Raises:
        UserError: a file is missing, damaged or of a kind that is not read, or names code to run.
    """
    config = read_json(folder / MODEL)
    names = [name for name in (*TOKENIZER, CHAT_TEMPLATE) if (folder / name).is_file()]
    if not set(names) & set(VOCABULARIES):
        allowed = ", ".join(VOCABULARIES)
        raise UserError("the base model has no tokenizer", where=printable_path(folder), allowed=allowed)
    # Its repository's code would be run. What auto_map names is not run unless it is trusted, and nothing is.
    if kernel := KERNEL.search(json.dumps(config)):
        raise UserError(
            f"{kernel[1]} of the base model's configuration is {quoted(kernel[2])}, which may be code of its own",
            where=printable_path(folder),
            next_step=f"take {kernel[1]} out of its configuration",
        )
    if (folder / CONFIG).exists():  # the transformers library would load it with the model, unasked
        raise UserError(
            "an adapter lies in the base model's folder",
            where=printable_path(folder / CONFIG),
            next_step="put it under executors/ or aligners/, or take it away",
        )
    held = sorted(path.name for path in folder.glob("*.safetensors*")) if weights else []
    if weights and not held:
        raise pickled(folder, "the base model") or UserError(
            "the base model has no weights", where=printable_path(folder), allowed="safetensors"
        )
    return HashedFiles.of(folder, [MODEL, *names, *held])
