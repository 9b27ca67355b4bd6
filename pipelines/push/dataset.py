"""What is pushed: a finished folder, every byte as the manifest says; how it differs from what is there; reports."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ...errors import UserError, printable_path, shell_quoted
from ..build import resumed
from ..card import Loads, card, renewed_card, replaceable_card
from ..folder import Folder
from ..manifest import CARD, MANIFEST, is_shard, json_bytes, manifest_from
from ..store import open_folder
from ..verify_manifest import check_files, read_manifest
from ..verify_report import remove
from .progress import Progress

SHOWN = 5  # files that a message names


@dataclass(frozen=True)
class File:
    """A file of a dataset: its path inside the dataset, bytes and sha256 (hex)."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Dataset:
    """A checked folder, ready to be pushed."""

    folder: Folder
    manifest: dict[str, Any]
    shards: tuple[File, ...]  # in order of their paths
    card: str  # of the folder, with the call that loads from the target
    untouched: str  # the card as nobody has edited it
    texts: dict[str, bytes]  # the bytes of the other files, card and then manifest, by path
    notes: Mapping[str, str] = field(default_factory=dict)  # what there is to say of the card

    @property
    def identity(self) -> str:
        """Identity of the rows; names the tag, and the place aside on a store."""
        return str(self.manifest["identity"])

    @property
    def files(self) -> dict[str, File]:
        """All files, by path; shards first, the manifest last."""
        texts = (File(path, len(text), hashlib.sha256(text).hexdigest()) for path, text in self.texts.items())
        return {file.path: file for file in (*self.shards, *texts)}


@contextmanager
def open_dataset(directory: str, loads: Loads, progress: Progress) -> Iterator[Dataset]:
    """Read a folder that is to be pushed, and keep builds out of it until the block ends.

    Raises:
        UserError: it is no finished dataset, a build is writing into it, or it differs from its manifest: something is
            missing, left over, or has another sha256.
    """
    folder = open_folder(directory)
    if not folder.local:
        raise UserError("push takes a folder on this machine", where=printable_path(directory))
    if not folder.path.is_dir():
        read_manifest(folder.path)  # which says what is wrong
    with folder.lock(shared=True):
        if unfinished := folder.unfinished():
            again = resumed(unfinished, directory)
            raise UserError("a build of this folder is not finished", where=printable_path(directory), next_step=again)
        shards = _checked(folder, directory, progress)
        manifest = folder.manifest()
        mine = renewed_card(manifest, folder, replaceable_card(manifest, folder), loads)
        texts = {CARD: mine.encode(), MANIFEST: json_bytes(manifest)}
        yield Dataset(folder, manifest, shards, mine, card(manifest, folder, loads), texts)


def _checked(folder: Folder, directory: str, progress: Progress) -> tuple[File, ...]:
    """Return the shards of a folder, in order of their paths, once every byte is what the manifest says."""
    manifest = read_manifest(folder.path)
    if not manifest.shards:
        raise UserError(
            "this dataset has no shards", where=printable_path(directory), next_step="caef-data build --help"
        )
    findings = check_files(folder.path, manifest)
    off = [f"{printable_path(finding.path)} {finding.message}" for finding in findings]
    shards = tuple(File(one.path, one.bytes, one.sha256) for one in sorted(manifest.shards, key=lambda one: one.path))
    done, total = 0, sum(shard.bytes for shard in shards)
    for shard in shards if not off else ():
        if not folder.equals(shard.path, shard.bytes, shard.sha256):
            off.append(f"{shard.path} is missing, or is not what the manifest says (size, sha256)")
        done += shard.bytes
        progress.check(done, total)
    if off:
        foreign = [finding.path for finding in findings if finding.kind == "foreign"]
        again = f"caef-data verify {shell_quoted(directory)}, then build it again: what is intact is kept"
        raise UserError(
            f"the folder differs from its manifest: {listed(off, '; ')}",
            where=printable_path(directory),
            next_step=remove(foreign) if len(foreign) == len(off) else again,
        )
    return shards


def listed(names: Sequence[str], mark: str = ", ") -> str:
    """Return the first few of some names, and how many more there are."""
    more = f" (and {len(names) - SHOWN} more)" if len(names) > SHOWN else ""
    return f"{mark.join(names[:SHOWN])}{more}"


def manifest_there(text: bytes | None, where: str, option: str) -> dict[str, Any]:
    """Return the manifest of a place that holds files; refuse one that holds something else."""
    why = ""
    try:
        if text is not None:
            return manifest_from(text)
    except ValueError as error:
        why = f": {MANIFEST} cannot be understood: {error}"
    next_step = f"choose another {option}; this one is left alone"
    raise UserError(f"this place holds something else{why}", where=where, next_step=next_step)


@dataclass(frozen=True)
class Changes:
    """What a push moves: files that are new there, that differ, that are the same, and stale shards that go."""

    new: list[File]
    changed: list[File]
    unchanged: list[File]
    deleted: list[str]

    @property
    def moved(self) -> list[File]:
        """The files whose bytes travel."""
        return [*self.new, *self.changed]

    @property
    def bytes(self) -> int:
        """The bytes that travel."""
        return sum(file.bytes for file in self.moved)

    @property
    def paths(self) -> list[str]:
        """The paths of all that differs."""
        return [*(file.path for file in self.moved), *self.deleted]


def compare(wanted: Mapping[str, File], there: Collection[str], same: Collection[str]) -> Changes:
    """Compare a dataset with what lies at its target.

    Shards of ours that the dataset does not have are stale: they were left by an earlier, larger push, and would match
    the patterns by which readers find a split's files. Nothing else is ever deleted. Paths in ``same`` hold the same
    bytes.
    """
    changes = Changes([], [], [], sorted(path for path in there if path not in wanted and is_shard(path)))
    for path, file in wanted.items():
        kind = changes.new if path not in there else changes.unchanged if path in same else changes.changed
        kind.append(file)
    return changes


@dataclass(frozen=True)
class Pushed:
    """What a push did; with ``dry_run`` what it would do."""

    place: str  # a URL
    load: str  # the Python call that loads a split of it from there
    changes: Changes
    dry_run: bool
    notes: Mapping[str, str]  # what else there is to say of the place, such as the tag, in the order to be shown

    def to_json(self) -> dict[str, Any]:
        """Return it for programs; files as paths, sizes in bytes."""
        return {
            "place": self.place,
            "dry_run": self.dry_run,
            **self.notes,
            "new": [file.path for file in self.changes.new],
            "changed": [file.path for file in self.changes.changed],
            "deleted": self.changes.deleted,
            "unchanged": len(self.changes.unchanged),
            "bytes": self.changes.bytes,
            "load": self.load,
        }
