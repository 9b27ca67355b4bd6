"""What is pushed: a finished folder, every byte as the manifest says; how it differs from what is there; reports."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ...errors import UserError
from ..build import argument, resumed
from ..card import Loads, card, renewed_card, replaceable_card
from ..folder import open_folder, shown
from ..local_folder import LocalFolder
from ..manifest import CARD, MANIFEST, is_shard, json_bytes
from ..verify_manifest import check_files, read_manifest
from ..verify_report import remove

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
        card: the card of the folder, as it is read from the target.
        untouched: the card as nobody has edited it.
        texts: the bytes of its other files, card and manifest, by path; the manifest is the last one.
        theirs: whether what a person wrote in that card is from the target's.
    """

    folder: LocalFolder
    manifest: dict[str, Any]
    shards: tuple[File, ...]
    card: str
    untouched: str
    texts: dict[str, bytes]
    theirs: bool = False

    @property
    def notes(self) -> dict[str, str]:
        """What there is to say of the card."""
        return {"card": "keeps what was written in it there"} if self.theirs else {}

    @property
    def identity(self) -> str:
        """Identity of the declaration that the folder was built from; names what its rows are, and nothing else."""
        return str(self.manifest["identity"])

    @property
    def files(self) -> dict[str, File]:
        """All files, by path; shards first, the manifest last."""
        texts = (File(path, len(text), hashlib.sha256(text).hexdigest()) for path, text in self.texts.items())
        return {file.path: file for file in (*self.shards, *texts)}


@contextmanager
def open_dataset(directory: str, loads: Loads, progress: Callable[[int, int], None] | None = None) -> Iterator[Dataset]:
    """Read and check a folder as ``read_dataset`` does, and keep builds out of it until the block ends.

    Raises:
        UserError: as ``read_dataset``; or a build is writing into the folder.
    """
    folder = open_folder(directory)
    if not isinstance(folder, LocalFolder) or not folder.path.is_dir():
        yield read_dataset(directory, loads, progress)  # which says what is wrong
        return
    with folder.lock(shared=True):
        yield read_dataset(directory, loads, progress)


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
            next_step=resumed(unfinished, directory),
        )
    named = read_manifest(Path(directory))
    manifest = folder.manifest()
    if not named.shards:
        raise UserError("this dataset has no shards", where=shown(directory), next_step="caef-data build --help")
    findings = check_files(Path(directory), named)
    off = [f"{shown(finding.path)} {finding.message}" for finding in findings]
    shards = sorted((File(one.path, one.bytes, one.sha256) for one in named.shards), key=lambda one: one.path)
    done, total = 0, sum(shard.bytes for shard in shards)
    for shard in shards if not off else []:
        if _sha256(folder, shard) != shard.sha256:
            off.append(f"{shard.path} is missing, or is not what the manifest says (size, sha256)")
        done += shard.bytes
        if progress is not None:
            progress(done, total)
    if off:
        more = f" (and {len(off) - SHOWN} more)" if len(off) > SHOWN else ""
        foreign = [finding.path for finding in findings if finding.kind == "foreign"]
        again = f"caef-data verify {argument(directory)}, then build it again: what is intact is kept"
        raise UserError(
            f"the folder differs from its manifest: {'; '.join(off[:SHOWN])}{more}",
            where=shown(directory),
            next_step=remove(foreign) if len(foreign) == len(off) else again,
        )
    mine = renewed_card(manifest, folder, replaceable_card(manifest, folder), loads)
    texts = {CARD: mine.encode(), MANIFEST: json_bytes(manifest)}
    return Dataset(folder, manifest, tuple(shards), mine, card(manifest, folder, loads), texts)


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

    @property
    def operations(self) -> int:
        """How many files a commit of all this touches."""
        return len(self.moved) + len(self.deleted)

    def part(self, size: int) -> Changes:
        """Return the first ``size`` operations."""
        moved = self.moved[:size]
        return Changes(moved, (), (), self.deleted[: size - len(moved)])

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


class Progress(Protocol):
    """Follows a push; ``pipelines.push.console`` shows it."""

    def say(self, text: str) -> None:
        """Say what the user should know now, one line."""

    def check(self, done: int, total: int) -> None:
        """Tell how many bytes of the folder are checked, and how many there are."""

    def begin(self, files: Sequence[File]) -> None:
        """Tell what is going to be moved."""

    def moved(self, file: File) -> None:
        """Tell that a file has arrived."""


@dataclass(frozen=True)
class Pushed:
    """What a push did; with ``dry_run`` what it would do.

    Args:
        place: where the dataset is, a URL.
        load: the Python call that loads a split of it from there.
        changes: how the dataset differed from what was there.
        retries: how many requests were made again, after errors that passed.
        dry_run: nothing was moved or made.
        notes: what else there is to say of the place, such as the tag; names and values, in the order to be shown.
    """

    place: str
    load: str
    changes: Changes
    retries: int
    dry_run: bool
    notes: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it for programs; files as paths, sizes in bytes."""
        changes = self.changes
        return {
            "place": self.place,
            "dry_run": self.dry_run,
            **self.notes,
            "new": [file.path for file in changes.new],
            "changed": [file.path for file in changes.changed],
            "deleted": list(changes.deleted),
            "unchanged": len(changes.unchanged),
            "bytes": sum(file.bytes for file in changes.moved),
            "retries": self.retries,
            "load": self.load,
        }
