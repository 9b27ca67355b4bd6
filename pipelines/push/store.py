"""Pushes a built folder to a store, or into another folder: while its manifest is there, a dataset is whole.

The old manifest goes first. Then the files that differ are written, and each is read back; stale shards go, and last
the new manifest is written. A push that was stopped leaves no manifest, and a note by which the next one goes on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ...errors import UserError, printable_path, telling_of_full_disk
from ..card import first_split, loads_from
from ..folder import Folder
from ..manifest import CARD, MANIFEST, PLAN, STATE, manifest_from, shard_records
from ..store import at_once, open_folder
from .dataset import Changes, Dataset, File, Progress, Pushed, PushSettings, listed, manifest_there, open_dataset

BEFORE = f"{STATE}/pushed.json"  # the old manifest, or nothing, while there is none
UPLOADS = 4  # files under way at a time, each in memory


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
            what, place = "", Path(os.path.realpath(target.path))
            if place.exists() and not place.is_dir():
                what = "this is a file, not a folder"
            elif place.is_dir() and place.samefile(dataset.folder.path):
                what = "this is the folder itself"
            elif any(above.is_dir() and above.samefile(dataset.folder.path) for above in place.parents):
                what = "this lies in the folder that is pushed"
            elif place.is_dir() and any(place.samefile(above) for above in dataset.folder.path.resolve().parents):
                what = "the folder that is pushed lies in this one"
            if what:
                raise UserError(what, where=where, next_step="choose another --to")
            target.check_links()
        with nullcontext() if wanted.dry_run else target.lock():  # a store has no locks
            return _Push(dataset, target, progress).run(wanted.dry_run)


class _Push:
    """One push of a checked dataset to one place."""

    def __init__(self, dataset: Dataset, target: Folder, progress: Progress) -> None:
        self.dataset, self.target, self.progress = dataset, target, progress
        self.where = printable_path(target.name)

    def run(self, dry_run: bool) -> Pushed:
        """Push, or look only."""
        before, there = self.target.read(MANIFEST), self.target.sizes()
        manifest = self.manifest(before, there)
        self.dataset = self.dataset.settled(self.target.read(CARD), manifest, self.target.where(CARD))
        changes = self.dataset.changes(there, self.same(manifest if before is not None else None, there))
        if not dry_run and changes.paths:
            self.replace(changes, before)
        if not dry_run and (changes.paths or BEFORE in there):
            self.target.remove([BEFORE])
        load = loads_from(self.target.name)(*first_split(self.dataset.manifest))
        notes = {"identity": self.dataset.identity, **self.dataset.notes}
        url = f"file://{self.target.name}" if self.target.local else self.target.name
        return Pushed(url, load, changes, dry_run, notes)

    def manifest(self, before: bytes | None, there: Mapping[str, int]) -> dict[str, Any]:
        """Return the manifest there, or the one that a stopped push took away; refuse a place of somebody else's."""
        if PLAN in there:
            next_step = f"caef-data info {self.where}"
            raise UserError("an unfinished build lies there", where=self.where, next_step=next_step)
        ours = BEFORE in there or all(path.startswith(f"{STATE}/") for path in there)
        if before is not None or not ours:
            return manifest_there(before, self.where, "--to")
        try:
            return manifest_from(self.target.read(BEFORE) or b"")
        except ValueError:
            return {}  # there was none, or what lies there is anybody's

    def same(self, manifest: dict[str, Any] | None, there: Mapping[str, int]) -> set[str]:
        """Return the files that are there already: a manifest is believed, it was written last; else they are read."""
        same = {path for path, text in self.dataset.texts.items() if path in there and self.target.read(path) == text}
        files = [file for file in self.dataset.shards if there.get(file.path) == file.bytes]
        if manifest is None:
            right = at_once(lambda file: self.target.equals(file.path, file.bytes, file.sha256), files, UPLOADS)
            return same | {file.path for file, equal in zip(files, right, strict=True) if equal}
        known = {record.path: record.sha256 for record in shard_records(manifest).values()}
        return same | {file.path for file in files if known.get(file.path) == file.sha256}

    def replace(self, changes: Changes, before: bytes | None) -> None:
        """Write what differs, the manifest last; until then there is none."""
        self.target.sweep_aside()
        if before is not None or BEFORE not in self.target.sizes():
            self.target.put(BEFORE, before or b"")
            self.target.remove([MANIFEST])
        *files, manifest = (file for file in self.dataset.files.values() if file.path in {*changes.paths, MANIFEST})
        self.progress.begin(files)
        wrong = []
        for file, arrived in zip(files, at_once(self.upload, files, UPLOADS), strict=True):
            if arrived:
                self.progress.done("uploaded", file)
            else:
                wrong.append(file.path)
        self.target.remove(file.path for file in changes.deleted)
        there = self.target.sizes()
        lacking = [path for path, file in self.dataset.files.items() if there.get(path) != file.bytes]
        if MANIFEST in there or lacking != [MANIFEST] or wrong or not self.upload(manifest):
            what = f"what is there is not what was sent: {listed(wrong or lacking or [MANIFEST])}"
            again = "when nobody else pushes there, run the same command again: files that arrived are kept"
            raise UserError(what, where=self.where, next_step=again)

    def upload(self, file: File) -> bool:
        """Write one file, and tell whether it arrived as it is; what did not is removed."""
        text = self.dataset.texts.get(file.path)
        self.target.put(file.path, (self.dataset.folder.path / file.path).read_bytes() if text is None else text)
        arrived = self.target.equals(file.path, file.bytes, file.sha256)
        if not arrived:
            self.target.remove([file.path])
        return arrived
