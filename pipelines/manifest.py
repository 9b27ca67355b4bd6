"""What a dataset folder's own files say, as plain data: checked when it is read, wherever it comes from.

A manifest, the plan of an unfinished build and an export's notes may come from somebody else. Every name in them that
becomes part of a path must be one that we give, so that no command reads or writes outside its folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from ..errors import UserError, is_ours, quoted
from .budget import TokenizerName
from .settings import REPO, SPLITS, VIEWS

MANIFEST, CARD, STATE = "manifest.json", "README.md", ".caef"
PLAN = f"{STATE}/plan.json"
TAKEN = "card"  # the manifest's key for what a push took from the folder's card, a digest; only where it was pushed to
FORMAT = 1
CONFIG = re.compile(rf"[a-z][a-z0-9_]*-({'|'.join(VIEWS)})")
SHARD = re.compile(rf"({'|'.join(SPLITS)})-[0-9]{{5}}-of-[0-9]{{5}}\.parquet")


def _whole(pattern: str) -> Meta:
    return Meta(pattern=rf"\A(?:{pattern})\Z")


Task = Annotated[str, _whole("[a-z][a-z0-9_]*")]
ConfigName = Annotated[str, _whole(CONFIG.pattern)]
ShardPath = Annotated[str, _whole(f"{CONFIG.pattern}/{SHARD.pattern}")]
Identity = Annotated[str, _whole("[0-9a-f]{16}")]
Word = Annotated[str, _whole("[A-Za-z0-9][A-Za-z0-9_.!+-]{0,63}")]  # a package, a version, a setting
Sha256 = Annotated[str, _whole("[0-9a-f]{64}")]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard: path inside the dataset folder, rows, bytes, sha256, and what its texts measure.

    ``chars`` maps a text column to (characters in all, longest).
    """

    path: ShardPath
    rows: Count
    bytes: Count
    sha256: Sha256
    chars: dict[str, tuple[Count, Count]]


class _Size(Struct):
    mean: Annotated[float, Meta(ge=0)]
    max: Count


class _Chars(Struct):
    prompt: _Size
    completion: _Size


class Tokens(Struct):
    """What some rows of a split cost, see ``eval.token_counts.summary``."""

    tokenizer: TokenizerName
    sha256: Sha256
    counted: Annotated[int, Meta(ge=1)]
    mean: Annotated[float, Meta(ge=0)]
    longest: Count
    per_digit: Annotated[float, Meta(ge=0)]
    over: dict[Annotated[str, _whole("[0-9]{1,9}")], Count]
    unspelled: Count
    merged: Count


class _Split(Struct):
    identity: Identity
    command: str
    classes: Count
    expressions: Count
    rows: Count
    bytes: Count
    chars: _Chars
    shards: Annotated[list[ShardRecord], Meta(min_length=1)]
    tokens: Tokens | None = None


class _Expressions(Struct):
    file: Annotated[str, Meta(max_length=255)]
    bytes: Count
    text: str


class _Task(Struct):
    settings: dict[Word, Word | int | bool | None | list[Word | int] | dict[Word, int | TokenizerName]]
    identity: Identity
    machine: dict[str, Any] | None = None
    expressions: _Expressions | None = None


class _Plan(Struct):
    identity: Identity
    tasks: dict[Task, _Task]
    shards: list[ShardPath]
    versions: dict[Word, Count] = {}
    source: str | None = None


class _Manifest(Struct):
    caef_data: Word
    versions: dict[Word, Count]
    built_with: dict[Word, Word]
    identity: Identity
    tasks: dict[Task, _Task]
    configs: dict[ConfigName, Annotated[dict[str, _Split], Meta(min_length=1)]]
    repo: Annotated[str, _whole(REPO.pattern)] | None = None
    card: Identity | None = None


class WrongError(ValueError):
    """What is wrong with a file of a folder; its text can be printed."""


def is_shard(path: str) -> bool:
    """Tell whether a path inside a dataset is that of a shard."""
    config, _, name = path.partition("/")
    return CONFIG.fullmatch(config) is not None and SHARD.fullmatch(name) is not None


def manifest_from(text: bytes) -> dict[str, Any]:
    """Return the manifest that a file holds; raises ``WrongError`` where it is none, or of a later version."""
    return understood(text, _check_manifest)


def plan_from(text: bytes) -> dict[str, Any]:
    """Return the plan of an unfinished build that a file holds; raises ``WrongError`` where it is none."""
    return understood(text, lambda plan: msgspec.convert(plan, _Plan))


def define_machines(manifest: Mapping[str, Any], where: str) -> None:
    """Make the Turing machines that a manifest describes tasks, and its expressions known.

    Args:
        manifest: the manifest, or the plan of an unfinished build.
        where: names it in messages.

    Raises:
        UserError: one is none.
    """
    for task, own in manifest.get("tasks", {}).items():
        try:
            if given := own.get("expressions"):
                from .expression_file import define

                define(task, given, own["settings"].get("expressions"))
            if spec := own.get("machine"):
                from ..tm.turing import define_spec

                if spec.get("name") != task:
                    raise UserError(f"the machine is called {quoted(spec.get('name'))}")
                define_spec(spec, f"the machine {task} in {MANIFEST}")
        except (ValueError, LookupError, TypeError, OSError, UserError) as error:
            told = error.what if isinstance(error, UserError) else quoted(str(error), 160)
            what = f"{MANIFEST} cannot be understood: {task}: {told}"
            raise UserError(what, where=where, next_step="build the dataset again with caef-data build") from error


def understood(text: bytes, check: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Return the JSON object that a file holds, once ``check`` finds nothing wrong with it; else ``WrongError``."""
    try:
        content: dict[str, Any] = json.loads(text.decode("utf-8"))
        check(content)
    except WrongError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise WrongError(quoted(str(error), 200)) from error
    return content


def shard_record(values: object) -> ShardRecord:
    """Return a record from its JSON form; raises ``ValueError`` where it is none."""
    return msgspec.convert(values, ShardRecord)


def shard_records(manifest: Mapping[str, Any]) -> dict[str, ShardRecord]:
    """Return the shards that a manifest names, by path."""
    return {shard["path"]: shard_record(shard) for _, _, entry in split_entries(manifest) for shard in entry["shards"]}


def split_entries(manifest: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return config, split and what a manifest says of it, in the order in which people read them."""
    configs = sorted(manifest.get("configs", {}).items())
    return [(name, split, splits[split]) for name, splits in configs for split in SPLITS if split in splits]


def json_bytes(value: object) -> bytes:
    """Return readable JSON text."""
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _check_manifest(values: dict[str, Any]) -> None:
    if values["format"] != FORMAT:
        raise WrongError(f"it has format {quoted(values['format'])}, this version reads format {FORMAT}")
    manifest = msgspec.convert(values, _Manifest)
    for config, splits in manifest.configs.items():
        if config.rpartition("-")[0] not in manifest.tasks:
            raise WrongError(f"no task has the config {config}")
        for split, entry in splits.items():
            if split not in SPLITS:
                raise WrongError(f"{config} has no split {quoted(split)}")
            if not is_ours(entry.command, "build"):
                raise WrongError(f"command is {quoted(entry.command)}")
            for shard in entry.shards:
                if not shard.path.startswith(f"{config}/{split}-"):
                    raise WrongError(f"{shard.path} does not belong to {config} {split}")
