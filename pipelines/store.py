"""A dataset folder on an object store, through fsspec; and which folder a path or a URL means."""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from ..atomic import sha256_of
from ..errors import FULL, UserError, printable_path, quoted
from .folder import Folder, no_dataset, task_of
from .manifest import CARD, MANIFEST, PLAN, STATE, ShardRecord, is_shard, json_bytes

T = TypeVar("T")

# Object stores: an object appears whole or not at all, which builds and pushes rely on; what their clients come with.
STORES = {"s3": "", "s3a": "", "gs": " gcsfs", "gcs": " gcsfs", "az": " adlfs", "abfs": " adlfs", "abfss": " adlfs"}
URL = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]*)://(.*)", re.DOTALL)
SLIP = re.compile(r"(s3a?|gs|gcs|az|abfss?|file|hf):(?!//)", re.IGNORECASE)
_PART = r"(?!\.{1,2}(?:/|$))[^/?*#\[\]\\\x00-\x1f\x7f]+"  # no wildcards, queries or controls
PLACE = re.compile(rf"(?!.*::|[^/]*[:\s]){_PART}(/{_PART})*")
AT_ONCE = 8  # requests under way at a time
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


def split_url(name: str) -> tuple[str, str] | None:
    """Return the kind of store of a URL, in lower case, and what follows ``://``; None for a path.

    Raises:
        UserError: it is a URL, but of no store that keeps what a dataset needs.
    """
    match = URL.fullmatch(name)
    kind, rest = (match[1].lower(), match[2].rstrip("/")) if match else ("", "")
    if kind == "file" and rest.startswith("/") or (kind in STORES and PLACE.fullmatch(rest)):
        return kind, rest
    if match is None and SLIP.match(name) is None:
        return None
    raise UserError(
        "this is no place that can hold a dataset",
        where=printable_path(re.sub(r"//[^/]*@", "//***@", name)),
        allowed="a folder, s3://bucket/prefix, gs://..., az://... or file:///a/folder; to read,"
        " hf://datasets/user/name, too",
        next_step="to write to the Hub: caef-data push DIR --repo user/name" if kind == "hf" else None,
    )


def at_once(work: Callable[[T], Any], items: Iterable[T], count: int = AT_ONCE) -> Iterator[Any]:
    """Yield what ``work`` returns of each item, in order, several being under way; an error stops those not begun."""
    pool = ThreadPoolExecutor(count)
    try:
        for running in [pool.submit(work, item) for item in items]:
            while not running.done():  # Ctrl-C does not end a wait without a limit: polars' handler has it restarted
                wait([running], 0.5)
            yield running.result()
    finally:  # Ctrl-C does not wait for what is under way; the process ends
        pool.shutdown(wait=isinstance(sys.exception(), Exception | None), cancel_futures=True)


class StoreFolder(Folder):
    """A folder on an object store: the same files, by the same rules, where nothing can be locked or renamed.

    An object appears whole or not at all, so a worker that has rendered a shard puts it where it belongs by itself.
    Whether a finished shard is still there is told from its size in the store's listing: what it holds was hashed while
    it was written, and a build that goes on does not load gigabytes to hash them again. ``caef-data verify`` does.

    Where the store is, who may write and how often a request is made again follows from the usual places of the store's
    own client: ``AWS_*``, its configuration files, fsspec's.

    Args:
        url: ``s3://bucket/prefix``, or that of another store.
    """

    local = False

    def __init__(self, url: str) -> None:
        self.name = url
        self._connection: Any = None  # every process makes its own
        self._listing: dict[str, int] = {}  # as the build began

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_connection": None, "_listing": {}}

    def absolute(self) -> Folder:
        return self

    @contextmanager
    def _store(self, doing: str, path: str = "") -> Iterator[Any]:
        """Yield fsspec's file system below the URL. Listings are not kept: others write, too.

        Raises:
            FileNotFoundError: there is no such object to be read.
            UserError: whatever else the store's client raises, by the name of the error.
        """
        kind = self.name.partition(":")[0]
        try:
            if self._connection is None:
                import fsspec
                from fsspec.implementations.dirfs import DirFileSystem

                fs, place = fsspec.core.url_to_fs(self.name, use_listings_cache=False)
                self._connection = DirFileSystem(place, fs)
            yield self._connection
        except UserError:
            raise
        except ImportError:
            what = f"a package that {kind}:// needs is not installed"
            raise UserError(what, next_step=f"pip install 'caef-data[s3]'{STORES[kind]}") from None
        except Exception as error:
            missing, root = isinstance(error, FileNotFoundError) and doing != "writing", error.__cause__ or error
            if missing or (isinstance(error, OSError) and error.errno in FULL):  # of this machine's disk
                raise
            code = getattr(root, "response", {}).get("Error", {}).get("Code", type(root).__name__)  # texts hold secrets
            told = f"{doing} {printable_path(f'{self.name}/{path}'.rstrip('/'))} failed: {quoted(code)[1:-1]}"
            raise UserError(told, next_step="mend that, then run the same command again: it goes on") from None

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
            except Exception as error:
                # The reader's own, of what the file holds; an OSError without a number is Arrow's.
                own = isinstance(error, (ValueError, LookupError, TypeError)) or getattr(error, "errno", 0) is None
                with nullcontext() if own else self._store("reading", path):
                    raise

    def equals(self, path: str, size: int, sha256: str) -> bool:
        try:
            with self.open(path, WHOLE) as file:
                return file.seek(0, os.SEEK_END) == size and sha256_of(file) == sha256
        except FileNotFoundError:
            return False
        except UserError as error:
            if "ChecksumError" not in error.what:  # the store keeps one of its own
                raise
            return False

    def sizes(self, under: str = "") -> dict[str, int]:
        with suppress(FileNotFoundError), self._store("listing", under) as store:
            objects: dict[str, Any] = store.find(under, detail=True)
            # What is the place itself, or an empty object that marks a folder, is no file in it.
            return {path: int(info["size"] or 0) for path, info in objects.items() if path and not path.endswith("/")}
        return {}

    def put(self, path: str, content: bytes) -> None:
        with self._store("writing", path) as store:
            store.pipe_file(path, content)

    def remove(self, paths: Iterable[str]) -> None:
        def remove(path: str) -> None:
            with suppress(FileNotFoundError), self._store("removing", path) as store:
                store.rm_file(path)

        list(at_once(remove, paths))

    @contextmanager
    def new_file(self, path: str) -> Iterator[BinaryIO]:
        """Collect the bytes of a shard in memory, some tens of MB; then put it where it belongs in one step."""
        with io.BytesIO() as file:
            yield file
            self.put(path, file.getvalue())

    def place(self, path: str) -> None:
        """Do nothing: it is there."""

    # The whole folder

    def check_ours(self) -> None:
        if self.read(MANIFEST) is None and self.read(PLAN) is None:
            with suppress(FileNotFoundError), self._store("listing") as store:
                if any(name.strip("/") for name in store.ls("", detail=False)):
                    raise self.not_ours()

    @contextmanager
    def lock(self, *, shared: bool = False) -> Iterator[None]:
        """Hold nothing: a store has no locks."""
        yield

    @contextmanager
    def on_disk(self) -> Iterator[Path]:
        if not self.manifest():
            raise no_dataset(self)
        with tempfile.TemporaryDirectory(prefix="caef-data-") as name:

            def fetch(path: str) -> None:
                file = Path(name, path)
                file.parent.mkdir(exist_ok=True)
                with self._store("reading", path) as store:
                    store.get_file(path, str(file))

            list(at_once(fetch, [path for path in self.sizes() if is_shard(path) or path in (MANIFEST, CARD)]))
            yield Path(name)

    # Notes of a build under way

    def note(self, record: ShardRecord) -> None:
        self.put(f"{NOTES}/{record.path}.json", json_bytes(asdict(record)))

    def notes(self) -> Iterable[bytes]:
        return (text for text in at_once(self.read, self.sizes(NOTES)) if text is not None)

    def holds(self, record: ShardRecord) -> bool:
        return self._listing.get(record.path) == record.bytes

    def sweep(self, keep: Container[str], tasks: Container[str]) -> None:
        self._listing = self.sizes()
        self.remove(path for path in self._listing if is_shard(path) and task_of(path) in tasks and path not in keep)

    def sweep_aside(self) -> None:
        """Do nothing: what a killed worker was writing never appears."""
