"""Pushes a built folder to a store, or into another folder, whole: readers who look for the manifest never see half.

Files are put aside first, below ``.caef/push/<identity>/``, read back and hashed: until all are right, what was there
before is not touched. Then the old manifest goes, the files are moved to their places, stale shards go, and the new
manifest comes last. A push that was killed leaves either the old dataset, or no manifest and the new one's aside.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ...errors import UserError, printable_path, telling_of_full_disk
from ..card import first_split, loads_from
from ..folder import Folder
from ..manifest import CARD, MANIFEST, PLAN, STATE, manifest_from, shard_records
from ..store import at_once, open_folder
from .card import settled
from .dataset import Changes, Dataset, File, Pushed, compare, listed, manifest_there, open_dataset
from .progress import Progress

ASIDE = f"{STATE}/push"
BEFORE = f"{ASIDE}/{MANIFEST}"  # the old manifest, while there is none
UPLOADS = 4  # files under way at a time; the client holds each in memory
AGAIN = "when nobody else pushes there, run the same command again"


def push_to_store(directory: str, to: str, *, dry_run: bool, again: str, progress: Progress) -> Pushed:
    """Push a folder to a URL or a path; the parameters are those of ``push_with_progress``.

    Raises:
        UserError: the folder is not finished or damaged, the place holds something else or may not be written, or
            what arrived is not what was sent.
    """
    target = open_folder(to).absolute()
    with open_dataset(directory, loads_from(target.name), progress) as dataset, _held(target, dataset, dry_run):
        with telling_of_full_disk(printable_path(target.name), f"make room, then: {again}"):
            return _Push(dataset, target, progress).run(dry_run)


@contextmanager
def _held(target: Folder, dataset: Dataset, dry_run: bool) -> Iterator[None]:
    """Keep builds out of the place, where it is a folder of this machine. Stores have no locks."""
    if target.local:
        what = "this is a file, not a folder" if target.path.exists() and not target.path.is_dir() else ""
        if target.path.is_dir() and os.path.samefile(target.path, dataset.folder.path):
            what = "this is the folder itself"
        if what:
            raise UserError(what, where=printable_path(target.name), next_step="choose another --to")
        target.check_links()
    if dry_run:
        yield
        return
    with target.lock():
        yield


class _Push:
    """One push of a checked dataset to one place."""

    def __init__(self, dataset: Dataset, target: Folder, progress: Progress) -> None:
        self.dataset, self.target, self.progress = dataset, target, progress
        self.aside = f"{ASIDE}/{dataset.identity}"

    def run(self, dry_run: bool) -> Pushed:
        """Push, or look only."""
        before, card, there = self.target.read(MANIFEST), self.target.read(CARD), self.target.sizes()
        known = self.manifest(before, there)
        self.dataset = settled(self.dataset, card, known, self.target.where(CARD))
        changes = compare(self.dataset.files, there, self.same(there, known if before is not None else {}))
        if not dry_run and changes.paths:
            self.target.put(f"{ASIDE}/access", b"")  # better told now than after hours
            self.target.remove([f"{ASIDE}/access"])
            moved = {MANIFEST, *(file.path for file in changes.moved)}
            files = [file for path, file in self.dataset.files.items() if path in moved]
            self.put_aside(files)
            self.put_in_place(files, changes, before, card)
        if not dry_run:
            self.target.remove(self.target.sizes(ASIDE))
        load = loads_from(self.target.name)(*first_split(self.dataset.manifest))
        notes = {"identity": self.dataset.identity, **self.dataset.notes}
        url = f"file://{self.target.name}" if self.target.local else self.target.name
        return Pushed(url, load, changes, dry_run, notes)

    # What is there

    def manifest(self, before: bytes | None, there: Mapping[str, int]) -> dict[str, Any]:
        """Return the manifest there, or the one that a stopped push took away; refuse a place of somebody else's."""
        where = printable_path(self.target.name)
        if PLAN in there:
            raise UserError("an unfinished build lies there", where=where, next_step=f"caef-data info {where}")
        stopped = any(path.startswith(f"{ASIDE}/") for path in there)
        if before is not None or (there and not stopped):
            return manifest_there(before, where, "--to")
        try:
            return manifest_from(self.target.read(BEFORE) or b"")
        except ValueError:
            return {}  # there is none, or what lies aside is anybody's

    def same(self, there: Mapping[str, int], manifest: Mapping[str, Any]) -> set[str]:
        """Return the paths of files that are there as they should be.

        The manifest there is believed, it was written last; sizes are compared with the listing. Where a push was
        stopped while it put files in their places there is none: what lies there is read back.
        """
        texts = self.dataset.texts
        same = {path for path, text in texts.items() if path in there and self.target.read(path) == text}
        shards = [one for one in self.dataset.shards if there.get(one.path) == one.bytes]
        if MANIFEST in there:
            known = shard_records(manifest)
            return same | {one.path for one in shards if one.path in known and known[one.path].sha256 == one.sha256}
        if shards:
            self.progress.say(f"an earlier push was stopped at its end: reading back {len(shards):,} files")
        right = at_once(lambda file: self.target.equals(file.path, file.bytes, file.sha256), shards)
        return same | {file.path for file, one in zip(shards, right, strict=True) if one}

    # What is moved

    def put_aside(self, files: Sequence[File]) -> None:
        """Upload files beside the dataset, and read each back; those of a stopped push that are right stay."""
        self.progress.begin(len(files), sum(file.bytes for file in files))
        there, wrong = self.target.sizes(self.aside), []
        arrived = at_once(lambda file: self.upload(file, there), files, UPLOADS)
        for file, right in zip(files, arrived, strict=True):
            if right:
                self.progress.moved(file.path, file.bytes)
            else:
                wrong.append(file.path)
        if wrong:
            raise UserError(
                f"what arrived is not what was sent: {listed(wrong)}",
                where=printable_path(self.target.name),
                next_step="run the same command again: files that arrived are kept, and what was there is untouched",
            )

    def upload(self, file: File, there: Mapping[str, int]) -> bool:
        """Put one file aside, unless it is, and tell whether it arrived."""
        path = f"{self.aside}/{file.path}"
        if path in there and self.target.equals(path, file.bytes, file.sha256):
            return True
        text, here = self.dataset.texts.get(file.path), self.dataset.folder.path / file.path
        if text is not None:
            self.target.put(path, text)
        elif here.is_file():
            self.target.send(here, path)
        else:
            raise UserError(
                "this shard has vanished during the push",
                where=printable_path(here),
                next_step="put it back and run the same command again: files that arrived are kept",
            )
        if self.target.equals(path, file.bytes, file.sha256):
            return True
        self.target.remove([path])
        return False

    def put_in_place(self, files: Sequence[File], changes: Changes, before: bytes | None, card: bytes | None) -> None:
        """Replace the old dataset by the new one, whose files all lie aside, unless somebody else pushes there too."""
        if self.target.read(MANIFEST) != before or self.target.read(CARD) != card:
            where = printable_path(self.target.name)
            raise UserError("the dataset there has changed during this push", where=where, next_step=AGAIN)
        if before is not None:
            self.target.put(BEFORE, before)
        self.target.remove([MANIFEST])
        list(at_once(self.move, [file.path for file in files if file.path not in self.dataset.texts]))
        self.target.remove(changes.deleted)
        if CARD in changes.paths:
            self.move(CARD)
        there, wanted = self.target.sizes(), self.dataset.files
        missing = [path for path, file in wanted.items() if path != MANIFEST and there.get(path) != file.bytes]
        if missing:
            raise UserError(
                f"files there have changed during this push: {listed(missing)}",
                where=printable_path(self.target.name),
                next_step=AGAIN,
            )
        self.move(MANIFEST)

    def move(self, path: str) -> None:
        self.target.move(f"{self.aside}/{path}", path)
