"""Pushes a built folder to a store, or into another folder, whole: readers who look for the manifest never see half.

Files are put aside first, below ``.caef/push/<identity>/``, read back and hashed: until all are right, what was there
before is not touched. Then the old manifest goes, the files are moved to their places, stale shards go, and the new
manifest comes last. A push that was killed leaves either the old dataset, or no manifest and the new one's aside.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from ...errors import UserError, printable_path, telling_of_full_disk
from ..card import first_split, loads_from
from ..folder import Folder
from ..manifest import CARD, MANIFEST, PLAN, STATE, manifest_from, shard_records
from ..store import at_once, open_folder
from .dataset import Changes, Dataset, File, Progress, Pushed, PushSettings, listed, manifest_there, open_dataset

ASIDE = f"{STATE}/push"
BEFORE = f"{ASIDE}/{MANIFEST}"  # the old manifest, while there is none
UPLOADS = 4  # files under way at a time; the client holds each in memory
AGAIN = "run the same command again: files that arrived are kept, and what was there is untouched"


def push_to_store(wanted: PushSettings, to: str, progress: Progress) -> Pushed:
    """Push a folder to a URL or a path.

    Raises:
        UserError: the folder is not finished or damaged, the place holds something else or may not be written, or
            what arrived is not what was sent.
    """
    target = open_folder(to).absolute()
    where, full = printable_path(target.name), f"make room, then: {wanted.again}"
    loads = loads_from(target.name)
    with open_dataset(wanted.directory, loads, progress) as dataset, telling_of_full_disk(where, full):
        if target.local:
            same = target.path.is_dir() and os.path.samefile(target.path, dataset.folder.path)
            if same or (target.path.exists() and not target.path.is_dir()):
                what = "this is the folder itself" if same else "this is a file, not a folder"
                raise UserError(what, where=where, next_step="choose another --to")
            target.check_links()
        with nullcontext() if wanted.dry_run else target.lock():  # a store has no locks
            return _Push(dataset, target, progress).run(wanted.dry_run)


class _Push:
    """One push of a checked dataset to one place."""

    def __init__(self, dataset: Dataset, target: Folder, progress: Progress) -> None:
        self.dataset, self.target, self.progress = dataset, target, progress
        self.where, self.aside = printable_path(target.name), f"{ASIDE}/{dataset.identity}"

    def run(self, dry_run: bool) -> Pushed:
        """Push, or look only."""
        before, card, there = self.target.read(MANIFEST), self.target.read(CARD), self.target.sizes()
        manifest = self.manifest(before, there)
        self.dataset = self.dataset.settled(card, manifest, self.target.where(CARD))
        records = shard_records(manifest).values() if before is not None else ()  # it was written last: it is believed
        known = {record.path: (there.get(record.path), record.sha256) for record in records}
        same = {path for path, text in self.dataset.texts.items() if path in there and self.target.read(path) == text}
        same |= {file.path for file in self.dataset.shards if known.get(file.path) == (file.bytes, file.sha256)}
        changes = self.dataset.changes(there, same)
        if not dry_run and changes.paths:
            self.target.put(f"{ASIDE}/access", b"")  # better told now than after hours
            self.target.remove([f"{ASIDE}/access"])
            moved = {MANIFEST, *(file.path for file in changes.moved)}
            files = [file for path, file in self.dataset.files.items() if path in moved]
            self.put_aside(files)
            if self.target.read(MANIFEST) != before or self.target.read(CARD) != card:
                raise self.changed("the dataset there has changed during this push")
            self.put_in_place(files, changes, before)
        if not dry_run:
            self.target.remove(self.target.sizes(ASIDE))
        load = loads_from(self.target.name)(*first_split(self.dataset.manifest))
        notes = {"identity": self.dataset.identity, **self.dataset.notes}
        url = f"file://{self.target.name}" if self.target.local else self.target.name
        return Pushed(url, load, changes, dry_run, notes)

    def manifest(self, before: bytes | None, there: Mapping[str, int]) -> dict[str, Any]:
        """Return the manifest there, or the one that a stopped push took away; refuse a place of somebody else's."""
        if PLAN in there:
            next_step = f"caef-data info {self.where}"
            raise UserError("an unfinished build lies there", where=self.where, next_step=next_step)
        stopped = any(path.startswith(f"{ASIDE}/") for path in there)
        if before is not None or (there and not stopped):
            return manifest_there(before, self.where, "--to")
        try:
            return manifest_from(self.target.read(BEFORE) or b"")
        except ValueError:
            return {}  # there is none, or what lies aside is anybody's

    def put_aside(self, files: Sequence[File]) -> None:
        """Upload files beside the dataset, and read each back; those of a stopped push that are right stay."""
        self.progress.begin(files)
        there, wrong = self.target.sizes(self.aside), []

        def upload(file: File) -> bool:
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
                where = printable_path(here)
                raise UserError("this shard has vanished during the push", where=where, next_step=AGAIN)
            if not self.target.equals(path, file.bytes, file.sha256):
                self.target.remove([path])
                return False
            return True

        for file, arrived in zip(files, at_once(upload, files, UPLOADS), strict=True):
            if arrived:
                self.progress.done("uploaded", file)
            else:
                wrong.append(file.path)
        if wrong:
            what = f"what arrived is not what was sent: {listed(wrong)}"
            raise UserError(what, where=self.where, next_step=AGAIN)

    def put_in_place(self, files: Sequence[File], changes: Changes, before: bytes | None) -> None:
        """Replace the old dataset by the new one, whose files all lie aside."""
        if before is not None:
            self.target.put(BEFORE, before)
        self.target.remove([MANIFEST])
        list(at_once(self.move, [file.path for file in files if file.path not in self.dataset.texts]))
        self.target.remove(file.path for file in changes.deleted)
        if CARD in changes.paths:
            self.move(CARD)
        there, wanted = self.target.sizes(), self.dataset.files
        missing = [path for path, file in wanted.items() if path != MANIFEST and there.get(path) != file.bytes]
        if missing:
            raise self.changed(f"files there have changed during this push: {listed(missing)}")
        self.move(MANIFEST)

    def move(self, path: str) -> None:
        self.target.move(f"{self.aside}/{path}", path)

    def changed(self, what: str) -> UserError:
        next_step = "when nobody else pushes there, run the same command again"
        return UserError(what, where=self.where, next_step=next_step)
