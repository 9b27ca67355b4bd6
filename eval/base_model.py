"""The base model: which one the adapters name, where it lies, and whether its files are whole."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError, clip
from ..pipelines.folder import shown
from ..pipelines.hub_source import HubFiles, HubPlace, Say, download, local_or_hub, look_up
from .lora import CONFIG, PICKLES, Adapter, Shapes
from .weights import read_header, read_json, readable, sha256_of

HUB_NAME = re.compile(r"[\w][\w.-]*(/[\w.-]+)?", re.ASCII)
INDEX, SINGLE, MODEL = "model.safetensors.index.json", "model.safetensors", "config.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
SPELLING = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt", *TOKENIZERS)
WANTED = (".json", ".txt", ".model", ".jinja")  # of a Hub repository, beside weights
HASHED_AT_ONCE = 4
# How attention and experts are computed: transformers takes a name with a slash for a repository of code to run.
IMPLEMENTATION = re.compile(r"_?(attn|experts)_implementation(_internal)?")
FLASH = tuple(f"flash_attention_{version}" for version in (2, 3, 4))
BUILT_IN = ("eager", "sdpa", "flex_attention", *FLASH, "batched_mm", "grouped_mm")
PARTS, MAX_PARTS = re.compile(r"(.*_)?(layers?|depths?|blocks|stages|repeats|experts|labels)"), 4096


@dataclass(frozen=True)
class BaseModel:
    """A base model.

    Args:
        place: its folder; or, on the Hub, its name and commit: ``user/name@commit``.
        sha256: hash of its configuration, tokenizer and weights; None where they are elsewhere.
        shapes: the shape of each weight by name; None where they cannot be told, or are elsewhere.
        files: its files on the Hub, where it is there.
    """

    place: Path | str
    sha256: str | None = None
    shapes: Shapes | None = None
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
    if option is not None:
        there = local_or_hub(option, "model", "--base-model", say)
        if isinstance(there, Path) and HUB_NAME.fullmatch(option) and not os.path.lexists(there):
            there = HubPlace("model", option, option="--base-model")  # an old one, with a name of one part
        if isinstance(there, Path) and not os.path.isdir(there):
            raise UserError(
                f"there is no base model {shown(option)}",
                where="--base-model",
                allowed="a folder with config.json, tokenizer and weights, or a name on the Hub",
            )
        return read_base(there, weights=weights) if isinstance(there, Path) else on_hub(there, say)
    named: dict[tuple[Path | str, str | None], str] = {}
    for name, adapter in adapters.items():
        place = _named_by(adapter, root)
        named.setdefault((place, None if isinstance(place, Path) else adapter.revision), name)
    if len(named) != 1:
        told = "; ".join(f"{name}: {shown(str(place))}" for (place, _), name in list(named.items())[:3])
        raise UserError(
            f"the adapters name {len(named) or 'no'} base models{': ' * bool(told)}{told}",
            where=shown(str(root)),
            allowed="one base model for all",
            next_step="name it with --base-model",
        )
    [(place, revision)] = named
    if isinstance(place, Path):
        return read_base(place, weights=weights)
    return on_hub(HubPlace("model", place, revision, option="the base model that the adapters name"), say)


def _named_by(adapter: Adapter, root: Path | None) -> Path | str:
    """Return the folder or Hub name of the base model that an adapter's configuration names."""
    # os.path: a name may be too long for a file's, which pathlib takes for an error.
    where, base = shown(adapter.path / CONFIG), adapter.base
    if base is None or root is None:
        raise UserError(
            "this adapter's configuration names no base model", where=where, next_step="name it with --base-model"
        )
    if not Path(base).is_absolute():
        for start in (adapter.path, root):
            folder = (start / base).resolve()
            if os.path.isfile(folder / MODEL):
                if not folder.is_relative_to(root.resolve()):
                    raise UserError(
                        f"this adapter's configuration names a base model outside the checkpoint folder: {shown(base)}",
                        where=where,
                        next_step=f"if that is what you want: --base-model {shown(folder)}",
                    )
                return folder
    # A path is seen from where the user stands, as the libraries that wrote it do.
    if Path(base).is_absolute() or ".." not in Path(base).parts:
        if os.path.isfile(Path(base) / MODEL):
            return Path(base).resolve()
        if HUB_NAME.fullmatch(base):
            return base
    raise UserError(
        f"the base model that this adapter's configuration names is not here: {shown(base)}",
        where=where,
        next_step="say where it is with --base-model",
    )


def read_base(folder: Path, *, weights: bool = True) -> BaseModel:
    """Check a base model's folder: configuration, tokenizer, headers of its weights.

    Raises:
        UserError: a file is missing, damaged, of a kind that is not read, names code to run, or makes no sense.
    """
    config = read_json(folder / MODEL)
    names = [name for name in SPELLING if (folder / name).is_file()]
    if not set(names) & set(TOKENIZERS):
        raise UserError("the base model has no tokenizer", where=shown(folder), allowed=", ".join(TOKENIZERS))
    described = [config] + [read_json(folder / name) for name in names if name in SPELLING[:2]]
    settings = [setting for one in described for setting in _settings(one)]
    if any(name == "auto_map" and value for name, value in settings):
        raise UserError(
            "the base model's configuration names code of its own (auto_map), which is never run",
            where=shown(folder),
            allowed="models that the transformers library knows",
            next_step="if it knows this one: take auto_map out of its configuration",
        )
    _check_settings(settings, folder)
    if (folder / CONFIG).exists():  # the transformers library would load it with the model, unasked and unchecked
        raise UserError(
            "an adapter lies in the base model's folder",
            where=shown(folder / CONFIG),
            next_step="put it under executors/ or aligners/, or take it away",
        )
    if not weights:
        return BaseModel(folder, _hash_of(folder, [MODEL, *names]))
    files = _weight_files(folder)
    headers = [read_header(folder / name) for name in files]
    shapes = {name: tensor.shape for header in headers for name, tensor in header.items()}
    _check_index(folder, files, shapes)
    # Numbers packed to fewer bits have shapes of their own.
    packed = config.get("quantization_config") is not None
    return BaseModel(folder, _hash_of(folder, [MODEL, *names, *files]), None if packed else shapes)


def _hash_of(folder: Path, names: list[str]) -> str:
    with ThreadPoolExecutor(HASHED_AT_ONCE) as pool:
        digests = pool.map(sha256_of, [folder / name for name in names])
        told = "".join(f"{name} {digest}\n" for name, digest in zip(names, digests, strict=True))
    return hashlib.sha256(told.encode()).hexdigest()


def _settings(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every setting of a configuration and of its parts; what a list holds has the list's name."""
    left: list[tuple[str, Any]] = [("", config)]
    while left:
        name, value = left.pop()
        yield name, value
        if isinstance(value, dict):
            left += value.items()
        elif isinstance(value, list):
            left += [(name, one) for one in value]


def _check_settings(settings: Iterable[tuple[str, Any]], folder: Path) -> None:
    """Refuse settings that fetch code, and numbers of parts that would take for ever to build."""
    for name, value in settings:
        if IMPLEMENTATION.fullmatch(name):
            chosen = value.values() if isinstance(value, dict) else [value]
            if not all(one is None or one in BUILT_IN for one in chosen):
                raise UserError(
                    f"{name} of the base model's configuration is {clip(value)}, which may be code of its own",
                    where=shown(folder),
                    allowed=", ".join(BUILT_IN),
                    next_step=f"take {name} out of its configuration",
                )
        elif type(value) is int and value > MAX_PARTS and PARTS.fullmatch(name):
            raise UserError(
                f"{clip(name)} of the base model's configuration is {clip(value)}",
                where=shown(folder),
                allowed=f"up to {MAX_PARTS:,}",
                next_step="download the model again",
            )


def _weight_files(folder: Path) -> list[str]:
    """Return the names of the files that hold the weights, as transformers would choose them."""
    if (folder / SINGLE).is_file():
        return [SINGLE]
    if (folder / INDEX).is_file():
        held = read_json(folder / INDEX).get("weight_map")
        names = sorted(set(held.values())) if isinstance(held, dict) and _are_names(held.values()) else []
        if not names:
            raise UserError(f"{INDEX} names no files of this folder", where=shown(folder))
        return names
    with readable(folder):
        pickles = sorted(path.name for path in folder.iterdir() if path.name.endswith(PICKLES))
    if pickles:
        raise UserError(
            f"the base model's weights are in {clip(pickles[0])}, which is not read: unpickling runs what is in it",
            where=shown(folder),
            allowed=SINGLE,
            next_step="load it where you trust it, and save it again: model.save_pretrained(folder)",
        )
    raise UserError("the base model has no weights", where=shown(folder), allowed=f"{SINGLE}, or {INDEX}")


def _are_names(values: Iterable[Any]) -> bool:
    return all(isinstance(one, str) and re.fullmatch(r"[\w.-]+\.safetensors", one, re.ASCII) for one in values)


def _check_index(folder: Path, files: list[str], shapes: Shapes) -> None:
    if files == [SINGLE]:
        return
    lost = [name for name in read_json(folder / INDEX)["weight_map"] if name not in shapes]
    if lost:
        raise UserError(
            f"{INDEX} speaks of {clip(lost[0], 120)}, which none of its files holds",
            where=shown(folder),
            next_step="download the model again",
        )


def on_hub(place: HubPlace, say: Say) -> BaseModel:
    """Look a base model up on the Hub, or in its cache on this machine.

    Raises:
        UserError: it is not there, or the Hub cannot be reached.
    """
    files = look_up(place, say)
    return BaseModel(f"{place.name}@{files.place.revision}", files=files)


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
