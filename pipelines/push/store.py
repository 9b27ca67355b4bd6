"""Pushes a built folder to a store, or into another folder, whole: readers who look for the manifest never see half.

Files are put aside first, below ``.caef/push/<identity>/``, read back and hashed: until all are right, what was there
before is not touched. Then the old manifest goes, the files are moved to their places, stale shards go, and the new
manifest comes last. A push that was killed leaves either the old dataset, or no manifest and the new one's aside.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import UserError, shown
from ...retry import Retries
from ..card import first_split, loads_from
from ..local_folder import LocalFolder
from ..manifest import CARD, MANIFEST, PLAN, STATE, manifest_from
from ..store import Damaged, Store, at_once, open_store, scrub
from ..store_url import split_url
from .card import settled
from .dataset import SHOWN, Changes, Dataset, Pushed, compare, open_dataset
from .progress import File, Progress

ASIDE = f"{STATE}/push"
BEFORE = f"{ASIDE}/{MANIFEST}"  # the old manifest, while there is none
UPLOADS = 4  # files under way at a time; the client holds each in memory


def push_to_store(directory: str, to: str, *, dry_run: bool, again: str, progress: Progress) -> Pushed:
    """Push a folder to a store, or bring what is there to the same state.

    Args:
        directory: the folder; everything in it is checked against its manifest before a byte moves.
        to: ``s3://bucket/prefix``, ``file:///a/folder`` or the like; a path is taken for a folder of this machine.
        dry_run: say what would change, and change nothing.
        again: the command that goes on where this push stopped.
        progress: told of what is done.

    Raises:
        UserError: the folder is not finished or damaged, the place holds something else or may not be written, or
            what arrived is not what was sent.
    """
    url = to if split_url(to) is not None else f"file://{Path(to).absolute()}"
    store = open_store(url, Retries(again, progress.say, scrub))
    with open_dataset(directory, loads_from(store.url), progress) as dataset, _held(store, dataset, dry_run):
        return _Push(dataset, store, progress).run(dry_run)


@contextmanager
def _held(store: Store, dataset: Dataset, dry_run: bool) -> Iterator[None]:
    """Keep builds out of the place, where it is a folder of this machine. Stores have no locks."""
    found = split_url(store.url)
    if found is None or found[0] != "file":
        yield
        return
    target = LocalFolder(Path(found[1]))
    if target.path.is_dir() and os.path.samefile(target.path, dataset.folder.path):
        raise UserError("this is the folder itself", where=shown(store.url), next_step="choose another --to")
    if target.path.exists() and not target.path.is_dir():
        raise UserError("this is a file, not a folder", where=shown(store.url), next_step="choose another --to")
    target.check_links()
    if dry_run:
        yield
        return
    with target.lock():
        yield


class _Push:
    """One push of a checked dataset to one place."""

    def __init__(self, dataset: Dataset, store: Store, progress: Progress) -> None:
        self.dataset, self.store, self.progress = dataset, store, progress
        self.wanted = dataset.files
        self.card: bytes | None = None  # that lies there
        self.aside = f"{ASIDE}/{dataset.identity}"

    def run(self, dry_run: bool) -> Pushed:
        """Push, or look only."""
        before = self.store.read(MANIFEST)
        known, self.card = self.check_ours(before), self.store.read(CARD)
        self.dataset = settled(self.dataset, self.card, self.manifest(before), self.store.where(CARD))
        self.wanted = self.dataset.files
        there = self.store.sizes()
        changes = compare(self.wanted, there, self.same(there, known))
        if not dry_run:
            if changes.paths:
                self.try_to_write()
                moved = {MANIFEST, *(file.path for file in changes.moved)}
                files = [file for path, file in self.wanted.items() if path in moved]
                self.put_aside(files)
                self.put_in_place(files, changes, before)
            self.store.remove(self.store.sizes(ASIDE))
        load = loads_from(self.store.url)(*first_split(self.dataset.manifest))
        notes = {"identity": self.dataset.identity, **self.dataset.notes}
        return Pushed(self.store.url, load, changes, dry_run, notes)

    # What is there

    def check_ours(self, before: bytes | None) -> dict[str, str]:
        """Refuse a place that holds something else; return the sha256 that the manifest there names, by path.

        Raises:
            UserError: it holds files, but no manifest of ours, and no push of ours was stopped there.
        """
        where, why = self.store.where(), ""
        if self.store.read(PLAN) is not None:
            raise UserError("an unfinished build lies there", where=where, next_step=f"caef-data info {where}")
        if before is not None:
            try:
                configs = manifest_from(before)["configs"].values()
                shards = [shard for splits in configs for split in splits.values() for shard in split["shards"]]
                return {shard["path"]: shard["sha256"] for shard in shards}
            except ValueError as error:
                why = f": {MANIFEST} cannot be understood: {error}"
        elif self.store.names() <= {STATE} or self.store.sizes(ASIDE):
            return {}
        raise UserError(
            f"this place holds something else{why}",
            where=where,
            next_step="choose another --to; this one is left alone",
        )

    def manifest(self, before: bytes | None) -> dict[str, Any]:
        """Return the manifest there, or the one that a stopped push took away; an empty one where there was none."""
        text = self.store.read(BEFORE) if before is None else before
        try:
            return {} if text is None else manifest_from(text)
        except ValueError:
            return {}  # what lies aside may be anybody's

    def same(self, there: Mapping[str, int], known: Mapping[str, str]) -> set[str]:
        """Return the paths of files that are there as they should be.

        The manifest there is believed, it was written last; sizes are compared with the listing. Where a push was
        stopped while it put files in their places there is none: what lies there is read back.
        """
        sized = [file for path, file in self.wanted.items() if there.get(path) == file.bytes]
        texts = [file for file in sized if file.path in self.dataset.texts]
        shards = [file for file in sized if file.path not in self.dataset.texts]
        same = {file.path for file in texts if self.store.read(file.path) == self.dataset.texts[file.path]}
        if MANIFEST in there:
            return same | {file.path for file in shards if known.get(file.path) == file.sha256}
        if shards:
            self.progress.say(f"an earlier push was stopped at its end: reading back {len(shards):,} files")
        right = at_once(lambda file: self.is_right(file, file.path), shards)
        return same | {file.path for file, one in zip(shards, right, strict=True) if one}

    def is_right(self, file: File, path: str) -> bool:
        """Read a file back from a path, and tell whether every byte is what it should be."""
        try:
            return self.store.size(path) == file.bytes and self.store.sha256(path, file.bytes) == file.sha256
        except (FileNotFoundError, Damaged):
            return False

    def try_to_write(self) -> None:
        """Write and remove an empty file: better told now than after hours."""
        self.store.write(f"{ASIDE}/access", b"")
        self.store.remove([f"{ASIDE}/access"])

    # What is moved

    def put_aside(self, files: Sequence[File]) -> None:
        """Upload files beside the dataset, and read each back; those of a stopped push that are right stay.

        Raises:
            UserError: one did not arrive as it should.
        """
        self.progress.begin(files)
        there = self.store.sizes(self.aside)
        wrong = []
        arrived = at_once(lambda file: self.upload(file, there), files, UPLOADS)
        for file, right in zip(files, arrived, strict=True):
            if right:
                self.progress.moved(file)
            else:
                wrong.append(file.path)
        if wrong:
            more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
            raise UserError(
                f"what arrived is not what was sent: {', '.join(wrong[:SHOWN])}{more}",
                where=self.store.where(),
                next_step="run the same command again: files that arrived are kept, and what was there is untouched",
            )

    def upload(self, file: File, there: Mapping[str, int]) -> bool:
        """Put one file aside, unless it is, and tell whether it arrived."""
        path = f"{self.aside}/{file.path}"
        if path in there and self.is_right(file, path):
            return True
        text = self.dataset.texts.get(file.path)
        if text is not None:
            self.store.write(path, text)
        else:
            here = self.dataset.folder.path / file.path
            if not here.is_file():
                raise UserError("this shard has vanished during the push", where=shown(here), next_step=BACK)
            self.store.send(here, path)
        if self.is_right(file, path):
            return True
        self.store.remove([path])
        return False

    def put_in_place(self, files: Sequence[File], changes: Changes, before: bytes | None) -> None:
        """Replace the old dataset by the new one, whose files all lie aside.

        Raises:
            UserError: somebody else pushed there meanwhile; or files vanished.
        """
        if self.store.read(MANIFEST) != before or self.store.read(CARD) != self.card:
            raise UserError("the dataset there has changed during this push", where=self.store.where(), next_step=AGAIN)
        if before is not None:
            self.store.write(BEFORE, before)
        self.store.remove([MANIFEST])
        for _ in at_once(self.move, [file.path for file in files if file.path not in self.dataset.texts]):
            pass
        self.store.remove(changes.deleted)
        if self.wanted[CARD] in files:
            self.move(CARD)
        there = self.store.sizes()
        missing = [path for path, file in self.wanted.items() if path != MANIFEST and there.get(path) != file.bytes]
        if missing:
            raise UserError(
                f"files there have changed during this push: {', '.join(missing[:SHOWN])}",
                where=self.store.where(),
                next_step=AGAIN,
            )
        self.move(MANIFEST)

    def move(self, path: str) -> None:
        self.store.move(f"{self.aside}/{path}", path)


BACK = "put it back and run the same command again: files that arrived are kept"
AGAIN = "when nobody else pushes there, run the same command again"
