"""A dataset folder on an object store, through fsspec; and which folder a name means."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from ..atomic import sha256_of
from ..errors import FULL, UserError, printable_path
from .folder import Folder, task_of
from .manifest import CARD, MANIFEST, PLAN, STATE, ShardRecord, is_shard, json_bytes
from .store import Damaged, at_once, connect, split_url, told

NOTES = f"{STATE}/shards"  # an object a finished shard: nothing can be appended to one
BLOCK, WHOLE = 1 << 20, 16 << 20  # bytes that a reader fetches at least, of some rows and of all


def open_folder(name: str | os.PathLike[str]) -> Folder:
    """Return the dataset folder of a path or of an fsspec URL (``s3://bucket/prefix``).

    Raises:
        UserError: this cannot be the name of a folder, or of a place on a store.
    """
    url = split_url(os.fspath(name))
    if url is None:
        return Folder(Path(name))
    return Folder(Path(url[1])) if url[0] == "file" else StoreFolder("://".join(url))


class StoreFolder(Folder):
    """A folder on an object store: the same files, by the same rules, where nothing can be locked or renamed.

    An object appears whole or not at all, so a worker that has rendered a shard puts it where it belongs by itself.
    Whether a finished shard is still there is told from its size in the store's listing: what it holds was hashed while
    it was written, and a build that goes on does not load gigabytes to hash them again. ``caef-data verify`` does.

    Args:
        url: ``s3://bucket/prefix``, or that of another store.
    """

    local = False

    def __init__(self, url: str) -> None:
        self.name = url
        self._connection: Any = None  # every process makes its own
        self._listing: dict[str, int] | None = None  # as the build began

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_connection": None, "_listing": None}

    def absolute(self) -> Folder:
        return self

    @contextmanager
    def _store(self, doing: str, path: str = "") -> Iterator[Any]:
        """Yield fsspec's file system below the URL; its errors are told in our words."""
        if self._connection is None:
            self._connection = connect(self.name)
        with told(doing, f"{self.name}/{path}" if path else self.name, self.name):
            yield self._connection

    # Files

    def read(self, path: str) -> bytes | None:
        with suppress(FileNotFoundError), self._store("reading", path) as store:
            return bytes(store.cat_file(path))
        return None

    @contextmanager
    def open(self, path: str, block: int = BLOCK) -> Iterator[BinaryIO]:
        with self._store("reading", path) as store:
            file = store.open(path, "rb", block_size=block)
        with file:
            try:
                yield file
            except (ValueError, LookupError, TypeError):  # the reader's, of what the file holds
                raise
            except Exception as error:
                if isinstance(error, OSError) and error.errno is None:  # Arrow's own
                    raise
                with self._store("reading", path):
                    raise

    def equals(self, path: str, size: int, sha256: str) -> bool:
        with suppress(Damaged, FileNotFoundError), self.open(path, WHOLE) as file:
            return file.seek(0, os.SEEK_END) == size and sha256_of(file) == sha256
        return False

    def sizes(self, under: str = "") -> dict[str, int]:
        with suppress(FileNotFoundError), self._store("listing", under) as store:
            found: dict[str, Any] = store.find(under, detail=True)
            # What is the place itself, or an empty object that marks a folder, is no file in it.
            return {path: int(info["size"] or 0) for path, info in found.items() if path and not path.endswith("/")}
        return {}

    def names(self) -> set[str]:
        """Return the first parts of the paths of all objects, without a look at all of them."""
        with suppress(FileNotFoundError), self._store("listing") as store:
            return {name.strip("/") for name in store.ls("", detail=False)} - {""}
        return set()

    def put(self, path: str, content: bytes) -> None:
        with self._store("writing", path) as store:
            store.pipe_file(path, content)

    def send(self, source: Path, path: str) -> None:
        with self._store("writing", path) as store:
            store.put_file(str(source), path)

    def move(self, source: str, target: str) -> None:
        with self._store("writing", target) as store:
            store.cp_file(source, target)
        self.remove([source])

    def remove(self, paths: Iterable[str]) -> None:
        def remove(path: str) -> None:
            with suppress(FileNotFoundError), self._store("removing", path) as store:
                store.rm_file(path)

        list(at_once(remove, paths))

    @contextmanager
    def new_file(self, path: str) -> Iterator[BinaryIO]:
        """Write a temporary file of this machine, then put it where it belongs in one step.

        It has no name: it is gone when the worker ends, however it ends.

        Raises:
            UserError: there is no room for the file, or the store refuses it.
        """
        try:
            with tempfile.TemporaryFile() as file:
                yield file
                file.seek(0)
                content = file.read()
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise UserError(
                "there is no room for temporary files, of about 100 MB for every worker",
                where=printable_path(tempfile.gettempdir()),
                next_step="make room, or set TMPDIR; then run the same command again: finished shards are kept",
            ) from error
        self.put(path, content)

    def place(self, path: str) -> None:
        """Do nothing: it is there."""

    # The whole folder

    def check_ours(self) -> None:
        if self.read(MANIFEST) is None and self.read(PLAN) is None and self.names():
            raise self.not_ours()

    def check_links(self) -> None:
        """Do nothing: a store has no links."""

    @contextmanager
    def lock(self, *, shared: bool = False) -> Iterator[None]:
        """Hold nothing: a store has no locks."""
        yield

    def free(self) -> int | None:
        return None

    @contextmanager
    def on_disk(self) -> Iterator[Path]:
        if not self.manifest():
            missing = f"there is no finished dataset here: {MANIFEST}, written last, is missing"
            raise UserError(missing, where=printable_path(self.name))
        there = {path: size for path, size in self.sizes().items() if is_shard(path) or path in (MANIFEST, CARD)}
        with tempfile.TemporaryDirectory(prefix="caef-data-") as name:
            copy = Path(name)
            free, needed = shutil.disk_usage(copy).free, sum(there.values())
            if needed > free:
                raise UserError(
                    f"a copy needs {needed / 1e6:,.1f} MB of disk, {free / 1e6:,.1f} MB are free",
                    where=printable_path(copy.parent),
                    next_step="set TMPDIR to a folder with more room",
                )

            def fetch(path: str) -> None:
                (copy / path).parent.mkdir(exist_ok=True)
                with self._store("reading", path) as store:
                    store.get_file(path, str(copy / path))

            list(at_once(fetch, there))
            yield copy

    # Notes of a build under way

    def note(self, record: ShardRecord) -> None:
        self.put(f"{NOTES}/{record.path}.json", json_bytes(asdict(record)))

    def notes(self) -> Iterable[bytes]:
        return (text for text in at_once(self.read, self.sizes(NOTES)) if text is not None)

    def holds(self, record: ShardRecord) -> bool:
        if self._listing is None:
            self._listing = self.sizes()
        return self._listing.get(record.path) == record.bytes

    def sweep(self, keep: Container[str], tasks: Container[str]) -> None:
        sizes = self.sizes()
        gone = {path for path in sizes if is_shard(path) and task_of(path) in tasks and path not in keep}
        self.remove(gone)
        self._listing = {path: size for path, size in sizes.items() if path not in gone}

    def sweep_aside(self) -> None:
        """Do nothing: what a killed worker was writing never appears."""
