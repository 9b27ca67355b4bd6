"""The base model: which one the adapters name, where it lies, and whether its files are whole."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError, printable_path, quoted
from ..pipelines.hub_source import HubFiles, HubPlace, Say, download, local_or_hub, look_up
from .files import CHAT_TEMPLATE, CONFIG, TOKENIZER, VOCABULARIES, hash_of, pickled, read_json, shapes_in

HUB_NAME = re.compile(r"[\w][\w.-]*(/[\w.-]+)?", re.ASCII)
INDEX, SINGLE, MODEL = "model.safetensors.index.json", "model.safetensors", "config.json"
WANTED = (".json", ".txt", ".model", ".jinja")  # of a Hub repository, beside weights
KERNEL = re.compile(r"_?(attn|experts)_implementation(_internal)?")


@dataclass(frozen=True)
class Adapter:
    """An adapter on disk, its files found.

    Args:
        path: its folder.
        sha256: hash of its configuration, weights and tokenizer.
        base: the base model that its configuration names; None if it names none.
        revision: the version of the base model that its configuration names, if any.
    """

    path: Path
    sha256: str
    base: str | None
    revision: str | None


@dataclass(frozen=True)
class BaseModel:
    """A base model.

    Args:
        place: its folder; or, on the Hub, its name and commit: ``user/name@commit``.
        sha256: hash of its configuration, tokenizer and weights; None where they are elsewhere.
        files: its files on the Hub, where it is there.
    """

    place: Path | str
    sha256: str | None = None
    files: HubFiles | None = None


def find_base(
    option: str | None,
    adapters: Mapping[str, Adapter],
    root: Path | None,
    *,
    weights: bool = True,
    say: Say = lambda line: None,
) -> BaseModel:
    """Find the base model and check it; one on the Hub is looked up, and fetched later.

    Args:
        option: folder or Hub name that the user gave.
        adapters: whose configurations name one otherwise: all the same.
        root: the checkpoint folder.
        weights: its weights are needed, too.
        say: is told what the user should know of where it comes from.

    Raises:
        UserError: none is named, or several are, or it is not there, or damaged.
    """
    if option is None:
        place = _named(adapters, root)
    else:
        place = local_or_hub(option, "model", "--base-model", say)
        if isinstance(place, Path) and HUB_NAME.fullmatch(option) and not os.path.lexists(place):
            place = HubPlace("model", option, option="--base-model")  # an old one, with a name of one part
        if isinstance(place, Path) and not os.path.isdir(place):
            raise UserError(
                f"there is no base model {printable_path(option)}",
                where="--base-model",
                allowed="a folder with config.json, tokenizer and weights, or a name on the Hub",
            )
    if isinstance(place, Path):
        return read_base(place, weights=weights)
    files = look_up(place, say)
    return BaseModel(f"{place.name}@{files.place.revision}", files=files)


def _named(adapters: Mapping[str, Adapter], root: Path | None) -> Path | HubPlace:
    """Return the folder or Hub repository that the configurations of adapters name: all the same."""
    named: dict[Path | HubPlace, str] = {}
    for name, adapter in adapters.items():
        named.setdefault(_named_by(adapter, root), name)
    if len(named) != 1:
        places = {name: place.name if isinstance(place, HubPlace) else place for place, name in named.items()}
        told = "; ".join(f"{name}: {printable_path(place)}" for name, place in list(places.items())[:3])
        raise UserError(
            f"the adapters name {len(named) or 'no'} base models{': ' * bool(told)}{told}",
            where=printable_path(str(root)),
            allowed="one base model for all",
            next_step="name it with --base-model",
        )
    return next(iter(named))


def _named_by(adapter: Adapter, root: Path | None) -> Path | HubPlace:
    where, base = printable_path(adapter.path / CONFIG), adapter.base
    if base is None or root is None:
        raise UserError(
            "this adapter's configuration names no base model", where=where, next_step="name it with --base-model"
        )
    # Beside the adapter; then from where the user stands, as the libraries that wrote the path see it.
    for folder in (adapter.path / base, root / base, Path(base)):
        if os.path.isfile(folder / MODEL):  # os.path: a name may be too long for a file's, which is an error to pathlib
            return folder.resolve()
    if HUB_NAME.fullmatch(base):
        return HubPlace("model", base, adapter.revision, option="the base model that the adapters name")
    raise UserError(
        f"the base model that this adapter's configuration names is not here: {printable_path(base)}",
        where=where,
        next_step="say where it is with --base-model",
    )


def read_base(folder: Path, *, weights: bool = True) -> BaseModel:
    """Look at a base model's folder: configuration, tokenizer and weights are there, and no code is asked for.

    Raises:
        UserError: a file is missing, damaged or of a kind that is not read, or names code to run.
    """
    config = read_json(folder / MODEL)
    names = [name for name in (*TOKENIZER, CHAT_TEMPLATE) if (folder / name).is_file()]
    if not set(names) & set(VOCABULARIES):
        raise UserError(
            "the base model has no tokenizer", where=printable_path(folder), allowed=", ".join(VOCABULARIES)
        )
    _check_kernels(config, folder)
    if (folder / CONFIG).exists():  # the transformers library would load it with the model, unasked
        raise UserError(
            "an adapter lies in the base model's folder",
            where=printable_path(folder / CONFIG),
            next_step="put it under executors/ or aligners/, or take it away",
        )
    files = _weight_files(folder) if weights else []
    return BaseModel(folder, hash_of(folder, [MODEL, *names, *files]))


def _check_kernels(config: Any, folder: Path) -> None:
    """Refuse a name with a slash for how attention or experts are computed: the code of that repository would be run.

    Other code that a configuration names (auto_map) is not run unless it is trusted, and nothing is.
    """
    values = config.items() if isinstance(config, dict) else [("", one) for one in config]
    for name, value in values:
        if isinstance(value, dict | list):
            _check_kernels(value, folder)
        if KERNEL.fullmatch(name) and "/" in str(value):
            raise UserError(
                f"{name} of the base model's configuration is {quoted(value)}, which may be code of its own",
                where=printable_path(folder),
                next_step=f"take {name} out of its configuration",
            )


def _weight_files(folder: Path) -> list[str]:
    """Return the names of the files that hold the weights, as transformers would choose them."""
    names = [SINGLE]
    if not (folder / SINGLE).is_file() and (folder / INDEX).is_file():
        held = read_json(folder / INDEX).get("weight_map")
        names = sorted({str(name) for name in held.values()}) if isinstance(held, dict) else []
        if not names or not all(re.fullmatch(r"[\w.-]+\.safetensors", name) for name in names):
            raise UserError(f"{INDEX} names no files of this folder", where=printable_path(folder))
    elif not (folder / SINGLE).is_file():
        raise pickled(folder, "the base model") or UserError(
            "the base model has no weights", where=printable_path(folder), allowed=f"{SINGLE}, or {INDEX}"
        )
    for name in names:
        shapes_in(folder / name)
    return names


def fetch(base: BaseModel, *, weights: bool = True, say: Say = lambda line: None) -> BaseModel:
    """Return a base model whose files are on this machine: one on the Hub is downloaded, and checked.

    Raises:
        UserError: the download fails, or a file is refused.
    """
    if base.files is None:
        return base
    wanted = (*WANTED, *([".safetensors"] if weights else []))
    folder = download(base.files, lambda path: "/" not in path and path.endswith(wanted), say)
    return read_base(folder, weights=weights)
