"""What is pushed: a finished folder, every byte as the manifest says; its card; how it differs from what is there."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from ...errors import UserError, printable_path, shell_quoted
from ..card import Loads, card, card_there, renewed_card
from ..card_merge import BEGIN, END_MARK, Card, UnmarkedError, conflict, newer, text_of, without_place
from ..folder import Folder, no_dataset
from ..manifest import CARD, MANIFEST, TAKEN, is_shard, json_bytes, manifest_from, shard_records
from ..store import open_folder
from ..terminal import Meter, size_text
from ..verify_manifest import check_files, read_manifest

SHOWN = 5  # files that a message names


@dataclass(frozen=True)
class PushSettings:
    """What is to be pushed, and where.

    Args:
        directory: the folder.
        repo: a dataset repository of the Hub, ``user/name``; if None the one that the folder's manifest names.
        to: push to this URL of a store, or into this folder, and not to the Hub.
        private: make the repository private, if it has to be made.
        dry_run: say what would change, and change nothing.
    """

    directory: str
    repo: str | None = None
    to: str | None = None
    private: bool = False
    dry_run: bool = False

    @property
    def command(self) -> str:
        """The command that pushes it."""
        options = {"--repo": self.repo, "--to": self.to}
        named = [f"{option} {shlex.quote(printable_path(value))}" for option, value in options.items() if value]
        return " ".join(["caef-data push", shell_quoted(self.directory), *named, *["--private"] * self.private])

    @property
    def again(self) -> str:
        """The command that goes on where a push stopped, or a dry run."""
        return self.command + " --dry-run" * self.dry_run


class Progress(Meter):
    """How far a push is, in bytes."""

    bytes = total = 0

    def begin(self, files: Iterable[File]) -> None:
        """Tell which files are going to be read or moved."""
        self.bytes, self.total = 0, sum(file.bytes for file in files)

    def done(self, doing: str, file: File) -> None:
        """Tell that a file is read, or has arrived."""
        self.bytes += file.bytes
        text, rate = f"{doing} {printable_path(file.path)}", f"{size_text(self.bytes)} of {size_text(self.total)}"
        self.update(f"{text}: {rate}", description=text, completed=self.bytes, total=self.total, rate=rate)


@dataclass(frozen=True)
class File:
    """A file of a dataset: its path inside the dataset, bytes and sha256 (hex)."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Changes:
    """What a push moves: files that are new there, that differ, that are the same, and stale shards that go."""

    new: list[File]
    changed: list[File]
    unchanged: list[File]
    deleted: list[File]

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
        return [file.path for file in (*self.moved, *self.deleted)]


@dataclass(frozen=True)
class Dataset:
    """A checked folder, ready to be pushed."""

    folder: Folder
    manifest: dict[str, Any]
    shards: tuple[File, ...]  # in order of their paths
    card: str  # of the folder, with the call that loads from the target
    untouched: str  # the card as nobody has edited it
    texts: dict[str, bytes] = field(default_factory=dict)  # the bytes of the card, then of the manifest, by path
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

    def with_card(self, text: str, taken: str | None, notes: Mapping[str, str]) -> Dataset:
        """Return it with the card that shall lie at the target, and a manifest that notes where that is from."""
        manifest = {key: value for key, value in self.manifest.items() if key != TAKEN}
        manifest |= {TAKEN: taken} if taken else {}
        return replace(self, texts={CARD: text.encode(), MANIFEST: json_bytes(manifest)}, notes=notes)

    def changes(self, there: Mapping[str, int], same: Collection[str]) -> Changes:
        """Compare it with what lies at its target.

        Shards of ours that it does not have are stale: they were left by an earlier, larger push, and would match the
        patterns by which readers find a split's files. Nothing else is ever deleted.

        Args:
            there: the bytes of the files at the target, by path.
            same: those of them that hold the same bytes.
        """
        wanted = self.files
        stale = [File(path, size, "") for path, size in sorted(there.items()) if path not in wanted and is_shard(path)]
        new = [file for path, file in wanted.items() if path not in there]
        changed = [file for path, file in wanted.items() if path in there and path not in same]
        return Changes(new, changed, [wanted[path] for path in wanted if path in same], stale)

    def settled(self, there: bytes | None, manifest_there: Mapping[str, Any], where: str) -> Dataset:
        """Return the dataset with a card that keeps what was written in the one ``there``, at the target.

        What is taken from the folder is noted in the manifest there, as a digest, so that a later push can tell who
        has changed a card since; where it is not noted, nobody had written anything. ``where`` is for messages.

        Raises:
            UserError: a person changed the card here and there, or the one there holds no part of ours.
        """
        mine, base, taken = Card.of(self.card), Card.of(self.untouched), manifest_there.get(TAKEN)
        own = mine.person if mine.person != base.person else None
        text, keeps = text_of(there, where), {"card": "keeps what was written in it there"}
        if text is None:
            return self.with_card(self.card, own, {})
        new = not (manifest_there or own or BEGIN in text or END_MARK in text)  # of a new repository
        try:
            theirs = Card.of(text.rstrip("\n") + f"\n\n{BEGIN}{END_MARK}\n" if new else text)
        except UnmarkedError as error:
            raise conflict(str(error), where, error.next_step) from None
        winner = theirs if new else newer(mine, theirs, base, taken)
        if winner is theirs:
            return self.with_card(theirs.renewed(mine), taken, keeps)
        if winner is mine:
            return self.with_card(self.card, own, {})
        same = manifest_there.get("identity") == self.identity
        raise conflict(
            f"it was changed there, and the {CARD} of the folder as well",
            where,
            f"keep a copy of your {CARD}, put the one from there in its place"
            f"{'' if same else ', build the folder again, which renews our part of it,'} and push; then write your"
            " changes into it",
        )


@contextmanager
def open_dataset(directory: str, loads: Loads, progress: Progress) -> Iterator[Dataset]:
    """Read a folder that is to be pushed, and keep builds out of it until the block ends.

    Raises:
        UserError: it is no finished dataset, a build is writing into it, or it differs from its manifest: something is
            missing, left over, or has another sha256.
    """
    folder, where = open_folder(directory), printable_path(directory)
    if not folder.local:
        raise UserError("push takes a folder on this machine", where=where)
    if not folder.path.is_dir():
        raise no_dataset(folder)
    with folder.lock(shared=True):
        if folder.unfinished():
            raise no_dataset(folder)
        manifest = read_manifest(folder.path)
        shards = tuple(File(one.path, one.bytes, one.sha256) for _, one in sorted(shard_records(manifest).items()))
        wrong = check_files(folder.path, manifest).findings
        off = [f"{printable_path(finding.path)} {finding.message}" for finding in wrong]
        progress.begin(shards)
        for shard in shards if not off else ():
            if not folder.equals(shard.path, shard.bytes, shard.sha256):
                off.append(f"{shard.path} is missing, or is not what the manifest says (size, sha256)")
            progress.done("checked", shard)
        if off or not shards:
            raise UserError(
                f"the folder differs from its manifest: {listed(off, '; ')}" if off else "this dataset has no shards",
                where=where,
                next_step=f"caef-data verify {shell_quoted(directory)}, which says what mends it",
            )
        mine = renewed_card(manifest, folder, loads)
        there = card_there(folder)
        if there is not None and without_place(there.block) != without_place(Card.of(mine).block):
            progress.console.print(f"{CARD}: its part between the marks was changed here, and is pushed as it was made")
        yield Dataset(folder, manifest, shards, mine, card(manifest, folder, loads)).with_card(mine, None, {})


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
class Pushed:
    """What a push did; with ``dry_run`` what it would do."""

    place: str  # a URL
    load: str  # the Python call that loads a split of it from there
    changes: Changes
    dry_run: bool
    notes: Mapping[str, str]  # what else there is to say of the place, such as the tag, in the order to be shown

    def to_json(self) -> dict[str, Any]:
        """Return it for programs; files as paths, sizes in bytes."""
        paths = {name: [file.path for file in getattr(self.changes, name)] for name in ("new", "changed", "deleted")}
        counts = {"unchanged": len(self.changes.unchanged), "bytes": self.changes.bytes}
        return {"place": self.place, "dry_run": self.dry_run, **self.notes, **paths, **counts, "load": self.load}
