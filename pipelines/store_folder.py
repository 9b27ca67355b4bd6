"""A dataset folder on an object store: the same files, by the same rules, where nothing can be locked or renamed.

An object appears whole or not at all, so a worker that has rendered a shard puts it where it belongs by itself.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import sys
import tempfile
import uuid
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import FULL, UserError, shown
from .folder import Folder
from .manifest import CARD, MANIFEST, PLAN, STATE, is_shard, json_bytes, shard_record
from .shard import ShardRecord, render_shard
from .store import Store, at_once, scrub

if TYPE_CHECKING:
    from .plan import Config

NOTES = f"{STATE}/shards"  # an object a finished shard: nothing can be appended to one
CHANGED = "wait for the other build, or stop it; then run the same command again: what is right is kept"


class StoreFolder(Folder):
    """A folder on a store.

    Its notes are ``.caef/plan.json``, what the build under way makes and which build that is, and one small object for
    each finished shard, ``.caef/shards/<config>/<shard>.json``.

    Whether a finished shard is still there is told from its size in the store's listing: what it holds was hashed while
    it was written, and a build that goes on does not load gigabytes to hash them again. ``caef-data verify`` does.

    Args:
        store: the files below its URL.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store.url)
        self.store = store
        self._plan: dict[str, Any] | None = None  # of the build that this process is at, once it has begun
        self._sizes: dict[str, int] | None = None  # of the shards that this build found

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_plan": None, "_sizes": None}

    @property
    def _store(self) -> Store:
        """Return the store; requests are made again after errors that may pass."""
        if self.store.retries is None:
            try:
                from ..retry import Retries
            except ModuleNotFoundError as error:
                raise UserError(
                    f"this needs the package {error.name}, which is not installed",
                    next_step="pip install 'caef-data[s3]'",
                ) from None
            self.store.retries = Retries("the same command", _say, scrub)
        return self.store

    # Reading

    def read(self, path: str) -> bytes | None:
        return self._store.read(path)

    def open(self, path: str) -> BinaryIO:
        return self._store.open(path)

    def free(self) -> int | None:
        return None

    def finished(self) -> dict[str, ShardRecord]:
        """Return the records of the unfinished build's finished shards, by path.

        A note of another build's shard, one that was thought dead, says nothing about this one's.
        """
        tasks = self.unfinished().get("tasks", {})
        records = {}
        for text in at_once(self._store.read, self._store.sizes(NOTES)):
            try:
                values = json.loads(text)
                record = shard_record(values)
                ours = values["identity"] == tasks[_task(record.path)]["identity"]
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                continue  # its shard is made anew
            if ours:
                records[record.path] = record
        return records

    def holds(self, record: ShardRecord) -> bool:
        if self._sizes is None:
            self._sizes = self._store.sizes()
        return self._sizes.get(record.path) == record.bytes

    def check_ours(self) -> None:
        if self.read(MANIFEST) is None and self.read(PLAN) is None and self._store.names():
            raise UserError(
                "this place holds files that caef-data did not write; it is left alone",
                where=shown(self.name),
                allowed="a new or empty prefix, or one that caef-data built into",
                next_step="caef-data build ... --out URL/NEW_PREFIX",
            )

    # Writing

    @contextmanager
    def lock(self, *, shared: bool = False) -> Iterator[None]:
        """Do nothing: a store has no locks. ``begin`` marks the folder, ``write`` looks whether the mark stands."""
        self._plan = self._sizes = None
        yield

    def put(self, path: str, content: bytes) -> None:
        self._store.write(path, content)

    def begin(self, plan: dict[str, Any], *, go_on: bool) -> None:
        """Note what a build will make, and that it is this build.

        Raises:
            UserError: another one began at the same moment.
        """
        if not go_on:
            self._store.remove(self._store.sizes(NOTES))
        self._plan = {**plan, "build": uuid.uuid4().hex}
        content = json_bytes(self._plan)
        if self.read(PLAN) is not None:
            self.put(PLAN, content)
        elif not self._store.create(PLAN, content):
            raise self._displaced()

    def write_shard(self, config: Config, shard: int) -> ShardRecord:
        """Render a shard into a temporary file of this machine, then put it where it belongs in one step.

        The file has no name: it is gone when the worker ends, however it ends.

        Raises:
            UserError: there is no room for the file, or the store refuses it.
        """
        path = config.shard_path(shard)
        try:
            with tempfile.TemporaryFile() as file:
                rows, chars = render_shard(config, shard, file)
                file.seek(0)
                content = file.read()
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise UserError(
                "there is no room for temporary files, of about 100 MB for every worker",
                where=shown(tempfile.gettempdir()),
                next_step="make room, or set TMPDIR; then run the same command again: finished shards are kept",
            ) from error
        self._store.write(path, content)
        return ShardRecord(path, rows, len(content), hashlib.sha256(content).hexdigest(), chars)

    def place(self, record: ShardRecord) -> None:
        """Do nothing: it is there."""

    def note(self, record: ShardRecord) -> None:
        if self._plan is None:
            raise RuntimeError("a shard was finished before its build began")
        identity = self._plan["tasks"][_task(record.path)]["identity"]
        self.put(f"{NOTES}/{record.path}.json", json_bytes({**asdict(record), "identity": identity}))

    def write(self, manifest: dict[str, Any], card: str) -> None:
        """Write the card, then the manifest; at a build's end only if nobody else wrote into the folder meanwhile.

        Raises:
            UserError: somebody did. Nothing is overwritten.
        """
        if self._plan is not None:
            if self.unfinished().get("build") != self._plan["build"]:
                raise self._displaced()
            self._check_shards(manifest, set(self._plan["shards"]))
        super().write(manifest, card)

    def _check_shards(self, manifest: dict[str, Any], paths: Container[str]) -> None:
        splits = [split for splits in manifest["configs"].values() for split in splits.values()]
        sizes = self._store.sizes()
        for shard in (shard for split in splits for shard in split["shards"] if shard["path"] in paths):
            if sizes.get(shard["path"]) != shard["bytes"]:
                raise UserError(
                    "a finished shard is gone, or was replaced, while this build went on",
                    where=self.where(shard["path"]),
                    next_step=CHANGED,
                )

    def _displaced(self) -> UserError:
        return UserError("another build has begun in this folder", where=shown(self.name), next_step=CHANGED)

    def forget(self) -> None:
        self._store.remove(self._store.sizes(NOTES))
        self._store.remove([PLAN])  # the last one: it says what the others are

    def sweep(self, keep: Container[str], tasks: Container[str]) -> None:
        sizes = self._store.sizes()
        gone = [path for path in sizes if is_shard(path) and _task(path) in tasks and path not in keep]
        self._store.remove(gone)
        self._sizes = {path: size for path, size in sizes.items() if path not in set(gone)}

    def sweep_aside(self) -> None:
        """Do nothing: what a killed worker was writing never appears."""

    @contextmanager
    def on_disk(self) -> Iterator[Path]:
        text = self.read(MANIFEST)
        if text is None:
            raise UserError(
                f"there is no finished dataset here: {MANIFEST}, written last, is missing", where=shown(self.name)
            )
        self.manifest()  # or a message that names it
        there = {path: size for path, size in self._store.sizes().items() if is_shard(path)}
        with tempfile.TemporaryDirectory(prefix="caef-data-") as name:
            copy = Path(name)
            free, needed = shutil.disk_usage(copy).free, sum(there.values())
            if needed > free:
                raise UserError(
                    f"a copy needs {needed / 1e6:,.1f} MB of disk, {free / 1e6:,.1f} MB are free",
                    where=shown(copy.parent),
                    next_step="set TMPDIR to a folder with more room",
                )
            (copy / MANIFEST).write_bytes(text)
            card = self.read(CARD)
            if card is not None:
                (copy / CARD).write_bytes(card)

            def fetch(path: str) -> None:
                (copy / path).parent.mkdir(exist_ok=True)
                self._store.fetch(path, copy / path)

            for _ in at_once(fetch, there):
                pass
            yield copy


def _task(path: str) -> str:
    return path.partition("/")[0].rpartition("-")[0]


def _say(text: str) -> None:
    """Tell the user of a wait; workers wait in silence."""
    if multiprocessing.parent_process() is None:
        print(text, file=sys.stderr, flush=True)
