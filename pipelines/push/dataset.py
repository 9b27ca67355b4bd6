"""What is pushed: a finished folder, every byte as the manifest says; and how it differs from what is there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import UserError
from ..build import again_in, argument
from ..card import Loads, card
from ..folder import CARD, CONFIG, MANIFEST, SHARD, json_bytes, open_folder, shown
from ..local_folder import LocalFolder
from ..verify_manifest import check_files, read_manifest

SHOWN = 5  # findings that a message names


@dataclass(frozen=True)
class File:
    """A file of a dataset: its path inside the dataset, bytes and sha256 (hex)."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Dataset:
    """A checked folder, ready to be pushed.

    Args:
        folder: where its shards lie.
        manifest: its manifest.
        shards: its shards, in order of their paths.
        texts: the bytes of its other files, card and manifest, by path; the manifest is the last one.
    """

    folder: LocalFolder
    manifest: dict[str, Any]
    shards: tuple[File, ...]
    texts: dict[str, bytes]

    @property
    def identity(self) -> str:
        """Identity of the declaration that the folder was built from; names what its rows are, and nothing else."""
        return str(self.manifest["identity"])

    @property
    def files(self) -> dict[str, File]:
        """All files, by path; shards first, the manifest last."""
        texts = (File(path, len(text), hashlib.sha256(text).hexdigest()) for path, text in self.texts.items())
        return {file.path: file for file in (*self.shards, *texts)}


def read_dataset(directory: str, loads: Loads, progress: Callable[[int, int], None] | None = None) -> Dataset:
    """Read a folder that is to be pushed, and check it: finished, nothing missing or left over, every sha256 right.

    Args:
        directory: the folder.
        loads: writes the call that will load a split, for the card.
        progress: called with the bytes checked so far, and those in all.

    Raises:
        UserError: it is no finished dataset, a build is writing into it, or it differs from its manifest.
    """
    folder = open_folder(directory)
    if not isinstance(folder, LocalFolder):
        raise UserError("push takes a folder on this machine", where=shown(directory))
    unfinished = folder.unfinished()
    if unfinished:
        raise UserError(
            "a build of this folder is not finished",
            where=shown(directory),
            next_step=again_in(unfinished["command"], directory),
        )
    named, counts = read_manifest(Path(directory))
    manifest = folder.manifest()
    if not named:
        raise UserError("this dataset has no shards", where=shown(directory), next_step="caef-data build --help")
    off = [f"{finding.path} {finding.message}" for finding in check_files(Path(directory), named, counts)]
    shards = sorted((File(one.path, one.bytes, one.sha256) for one in named), key=lambda one: one.path)
    done, total = 0, sum(shard.bytes for shard in shards)
    for shard in shards if not off else []:
        if _sha256(folder, shard) != shard.sha256:
            off.append(f"{shard.path} is missing, or is not what the manifest says (size, sha256)")
        done += shard.bytes
        if progress is not None:
            progress(done, total)
    if off:
        more = f" (and {len(off) - SHOWN} more)" if len(off) > SHOWN else ""
        raise UserError(
            f"the folder differs from its manifest: {'; '.join(off[:SHOWN])}{more}",
            where=shown(directory),
            next_step=f"caef-data verify {argument(directory)}, then build it again: what is intact is kept",
        )
    texts = {CARD: card(manifest, folder, loads).encode(), MANIFEST: json_bytes(manifest)}
    return Dataset(folder, manifest, tuple(shards), texts)


def _sha256(folder: LocalFolder, shard: File) -> str | None:
    path = folder.path / shard.path
    if not path.is_file() or path.stat().st_size != shard.bytes:
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Changes:
    """What a push moves: files that are new there, that differ, that are the same, and stale shards that go."""

    new: tuple[File, ...]
    changed: tuple[File, ...]
    unchanged: tuple[File, ...]
    deleted: tuple[str, ...]

    @property
    def moved(self) -> tuple[File, ...]:
        """The files whose bytes travel."""
        return (*self.new, *self.changed)

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.deleted)


def compare(wanted: Mapping[str, File], there: Iterable[str], same: Container[str]) -> Changes:
    """Compare a dataset with what lies at its target.

    Shards of ours that the dataset does not have are stale: they were left by an earlier, larger push, and would match
    the patterns by which readers find a split's files. Nothing else is ever deleted.

    Args:
        wanted: the files of the dataset, by path.
        there: paths at the target.
        same: those of them that hold the same bytes.
    """
    known = set(there)
    return Changes(
        tuple(file for path, file in wanted.items() if path not in known),
        tuple(file for path, file in wanted.items() if path in known and path not in same),
        tuple(file for path, file in wanted.items() if path in known and path in same),
        tuple(sorted(path for path in known if path not in wanted and is_shard(path))),
    )


def is_shard(path: str) -> bool:
    """Tell whether a path inside a dataset is that of a shard."""
    config, _, name = path.partition("/")
    return CONFIG.fullmatch(config) is not None and SHARD.fullmatch(name) is not None
