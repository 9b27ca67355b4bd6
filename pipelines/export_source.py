"""What is exported: splits of a finished dataset, their shards checked against the manifest before they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from typing import Any, BinaryIO, cast

from ..errors import UserError, clip, nearest, shown
from .build import argument, resumed
from .folder import Folder
from .manifest import CONFIG, ShardRecord, shard_record
from .settings import SPLITS


@dataclass(frozen=True)
class Part:
    """One split of a config: the identity of its rows, and its shards in order."""

    name: str
    split: str
    identity: str
    shards: tuple[ShardRecord, ...]


def read_manifest(source: Folder) -> dict[str, Any]:
    """Return the manifest of a dataset.

    Raises:
        UserError: nothing is finished there, or the manifest cannot be read.
    """
    manifest = source.manifest()
    if manifest.get("configs"):
        return manifest
    unfinished = source.unfinished()
    raise UserError(
        "the build of this dataset is not finished" if unfinished else "there is no dataset here",
        where=shown(source.name),
        next_step=resumed(unfinished, source.name) if unfinished else "caef-data build --help",
    )


def select(source: Folder, manifest: dict[str, Any], configs: Sequence[str], splits: Sequence[str]) -> tuple[Part, ...]:
    """Return the parts of a dataset that are asked for, in the order of their names.

    Args:
        source: the dataset.
        manifest: its manifest.
        configs: names of configs; all of them if empty.
        splits: names of splits; all of them if empty.

    Raises:
        UserError: there is no such config or split, or the manifest names what cannot be its shards.
    """
    known = manifest["configs"]
    for name, choices, option in (
        *((name, known, "--config") for name in configs),
        *((name, SPLITS, "--split") for name in splits),
    ):
        if name not in choices:
            raise UserError(
                f"there is no {option.removeprefix('--')} {clip(name)} in {shown(source.name)}{nearest(name, choices)}",
                where=option,
                allowed=", ".join(choices if choices is SPLITS else sorted(choices)),
            )
    wanted = [split for split in SPLITS if not splits or split in splits]
    names = sorted(set(configs) or known)
    parts = tuple(
        _part(source, name, split, known[name][split]) for name in names for split in wanted if split in known[name]
    )
    without = [name for name in configs if not any(split in known[name] for split in wanted)]
    if without or not parts:
        held = {split for name in without or names for split in known[name]}
        raise UserError(
            f"there is no split {' or '.join(wanted)} of {', '.join(without) or 'any config'} in {shown(source.name)}",
            where="--split",
            allowed=", ".join(split for split in SPLITS if split in held),
        )
    return parts


def _part(source: Folder, name: str, split: str, entry: dict[str, Any]) -> Part:
    shards = tuple(shard_record(shard) for shard in entry["shards"])
    for number, shard in enumerate(shards):
        path = f"{name}/{split}-{number:05d}-of-{len(shards):05d}.parquet"
        if not CONFIG.fullmatch(name) or shard.path != path:
            raise UserError(
                f"the manifest names {clip(shard.path)} as shard {number} of {clip(name)} {split}",
                where=shown(source.name),
                next_step=f"caef-data verify {argument(source.name)}",
            )
    return Part(name, split, entry["identity"], shards)


@contextmanager
def opened(source: Folder, shard: ShardRecord) -> Iterator[BinaryIO]:
    """Open a shard for reading, once its bytes are those that the manifest says.

    Raises:
        UserError: it is missing or differs.
    """
    try:
        file = source.open(shard.path)
    except FileNotFoundError:
        raise damaged(source, shard, "it is missing") from None
    with file:
        # A BinaryIO that a store opens reads like any file; the type's name says less than the function asks for.
        if hashlib.file_digest(cast(BufferedReader, file), "sha256").hexdigest() != shard.sha256:
            raise damaged(source, shard, "its sha256 is another one")
        file.seek(0)
        yield file


def damaged(source: Folder, shard: ShardRecord, why: str) -> UserError:
    """Return the error for a shard that is not what the manifest says."""
    return UserError(
        f"a shard is not what the manifest says: {why}",
        where=source.where(shard.path),
        next_step=f"caef-data verify {argument(source.name)}, then build it again: what is intact is kept",
    )
