"""Files below a URL: on an object store, or in a folder of this machine (``file:///...``), through fsspec."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import FULL, UserError, clip, shown
from .store_url import INSTALL, split_url

if TYPE_CHECKING:
    from ..retry import Retries

T = TypeVar("T")

EXCLUSIVE = frozenset({"s3", "s3a", "gs", "gcs"})  # where fsspec can ask for an object that must not be there yet
AT_ONCE = 8  # requests under way at a time
PIECE = 16 << 20  # bytes read back at a time
BLOCK = 1 << 20  # bytes that a reader fetches at least
NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"}
WRONG = {"FlexibleChecksumError", "ChecksumError"}


class Damaged(UserError):
    """What was read is not what was written, as a checksum tells that the store keeps."""


class Store:
    """The objects below a URL, by their paths relative to it. It can be sent to other processes, and used by threads.

    Where the store is and who may write follows from its usual places: ``AWS_*``, its configuration files, fsspec's.
    Every process makes its own connection, and none keeps listings: others write, too.

    Args:
        url: ``s3://bucket/prefix``, or that of another store in ``INSTALL``.
        retries: runs every request, again where an error may pass.

    Raises:
        UserError: it is no such URL, or a package is not installed.
    """

    def __init__(self, url: str, retries: Retries | None = None) -> None:
        found = split_url(url)
        if found is None or "::" in url:  # fsspec would take it for a chain of places
            raise UserError("this is no URL", where=shown(url), allowed="s3://bucket/prefix, file:///a/folder")
        self.kind, rest = found
        self.url = f"{self.kind}://{rest}"
        self.retries = retries
        self._connection: tuple[Any, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_connection": None, "retries": None}

    @property
    def _fs(self) -> tuple[Any, str]:
        """Return fsspec's file system and what it calls the URL's place."""
        if self._connection is None:
            try:
                import fsspec

                self._connection = fsspec.core.url_to_fs(self.url, **self._options())
            except ImportError:
                install = INSTALL.get(self.kind, INSTALL["s3"])
                raise UserError(f"a package that {self.kind}:// needs is not installed", next_step=install) from None
            except Exception as error:
                raise self._refusal("connecting", error) from None
        return self._connection

    def _options(self) -> dict[str, Any]:
        return {"use_listings_cache": False}

    def _at(self, path: str) -> str:
        return f"{self._fs[1]}/{path}" if path else self._fs[1]

    def where(self, path: str = "") -> str:
        """Return the place of an object, for a message."""
        return shown(f"{self.url}/{path}" if path else self.url)

    # Reading

    def sizes(self, under: str = "") -> dict[str, int]:
        """Return the bytes of every object, by path, of those below a folder if one is given."""
        found: dict[str, Any] = self._do("listing", under, lambda fs, at: fs.find(at, detail=True), {})
        begin = f"{self._fs[1]}/"  # what is the place itself, or an empty object that marks a folder, is no file in it
        files = {name: info for name, info in found.items() if name.startswith(begin) and not name.endswith("/")}
        return {name.removeprefix(begin): int(info["size"] or 0) for name, info in files.items()}

    def names(self) -> set[str]:
        """Return the first parts of the paths of all objects, without a look at all of them."""
        found: list[str] = self._do("listing", "", lambda fs, at: fs.ls(at, detail=False), [])
        return {name.rstrip("/").removeprefix(f"{self._fs[1]}/") for name in found} - {self._fs[1]}

    def read(self, path: str) -> bytes | None:
        """Return the bytes of a small object; None where there is none."""
        return self._do("reading", path, lambda fs, at: fs.cat_file(at), None)

    def size(self, path: str) -> int:
        """Return the bytes of an object.

        Raises:
            FileNotFoundError: there is none.
        """
        return int(self._do("reading", path, lambda fs, at: fs.info(at)["size"]))

    def read_range(self, path: str, start: int, end: int) -> bytes:
        """Return some bytes of an object.

        Raises:
            FileNotFoundError: there is none.
        """
        return self._do("reading", path, lambda fs, at: fs.cat_file(at, start=start, end=end))

    def open(self, path: str) -> io.BufferedReader:
        """Open an object for reading, piece by piece.

        Raises:
            FileNotFoundError: there is none.
        """
        return io.BufferedReader(_Reader(self, path, self.size(path)), BLOCK)

    def sha256(self, path: str, size: int) -> str:
        """Read an object of this many bytes back, and return what it really holds, as a sha256 (hex)."""
        digest = hashlib.sha256()
        for start in range(0, size, PIECE):
            digest.update(self.read_range(path, start, min(start + PIECE, size)))
        return digest.hexdigest()

    def fetch(self, path: str, target: Path) -> None:
        """Copy an object to a file of this machine."""
        self._do("reading", path, lambda fs, at: fs.get_file(at, str(target)))

    # Writing

    def write(self, path: str, content: bytes) -> None:
        """Write an object in one step."""
        self._do("writing", path, lambda fs, at: fs.pipe_file(at, content))

    def create(self, path: str, content: bytes) -> bool:
        """Write an object that must not be there yet, and tell whether it was not, as far as the store can."""
        if self.kind not in EXCLUSIVE:
            self.write(path, content)
            return True
        with suppress(FileExistsError):
            try:
                self._do("writing", path, lambda fs, at: fs.pipe_file(at, content, mode="create"))
            except NotImplementedError:  # S3 of another maker
                self.write(path, content)
            return True
        return self.read(path) == content  # ours: written by a first try, whose answer was lost

    def send(self, source: Path, path: str) -> None:
        """Copy a file of this machine to an object."""
        self._do("writing", path, lambda fs, at: fs.put_file(str(source), at))

    def move(self, source: str, target: str) -> None:
        """Give an object another path; its bytes do not travel."""
        self._do("writing", target, lambda fs, at: fs.cp_file(self._at(source), at))
        self.remove([source])

    def remove(self, paths: Iterable[str]) -> None:
        """Remove objects; those that are not there are none the worse for it."""
        for _ in at_once(lambda path: self._do("removing", path, lambda fs, at: fs.rm_file(at), None), paths):
            pass

    # Errors

    def _do(self, doing: str, path: str, work: Callable[[Any, str], T], *absent: T) -> T:
        """Run a request, given fsspec's file system and what it calls the path.

        Raises:
            FileNotFoundError: there is no such object to be read, and ``absent`` is not given, to be returned then.
            FileExistsError, NotImplementedError: what they say.
            Damaged: a checksum is wrong.
            UserError: anything else: the client's errors are of many packages, and may hold what must not be shown.
        """
        (fs, _), at, what = self._fs, self._at(path), f"{doing} {self.where(path)}"
        try:
            return self.retries(what, lambda: work(fs, at)) if self.retries is not None else work(fs, at)
        except (UserError, FileExistsError, NotImplementedError):
            raise
        except FileNotFoundError as error:
            if _code(error) == "NoSuchBucket":
                raise UserError("there is no such bucket", where=self.where(), next_step="create it first") from None
            if absent:
                return absent[0]
            if doing == "writing":
                why = "the bucket, or the file that is to be put there, does not exist"
                raise UserError(f"{what} failed: {why}") from None
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSYS:
                raise NotImplementedError from None
            raise self._refusal(what, error) from None

    def _refusal(self, what: str, error: Exception) -> UserError:
        """Return what the user should know of an error; texts of a server are not repeated."""
        names = {type(one).__name__ for one in _chain(error)}
        if names & WRONG:
            return Damaged(f"{what}: its checksum is wrong", next_step="run the same command again")
        if names & NO_CREDENTIALS:
            return UserError(
                f"no credentials for {self.kind}:// were found",
                where=self.where(),
                next_step="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE;"
                " for another server than Amazon's AWS_ENDPOINT_URL too",
            )
        if isinstance(error, OSError) and error.errno in FULL:
            return UserError(f"{what} failed: the disk is full", next_step="make room and run the same command again")
        if isinstance(error, PermissionError) or getattr(error, "errno", None) == errno.EROFS:
            return UserError(
                f"{what} is not allowed ({_code(error) or _plain(error)})",
                next_step="check whose credentials are in use, and what they may do in this place",
            )
        return UserError(
            f"{what} failed: {_code(error) or _plain(error)}", next_step="run the same command again: it goes on"
        )


class DiskStore(Store):
    """The files below ``file:///...``, through fsspec's local file system."""

    def _options(self) -> dict[str, Any]:
        return {"auto_mkdir": True}

    def send(self, source: Path, path: str) -> None:
        super().send(source, path)
        self._do("writing", path, lambda _, at: _sync(at))

    def move(self, source: str, target: str) -> None:
        def move(_: Any, at: str) -> None:
            os.makedirs(os.path.dirname(at), exist_ok=True)
            os.replace(self._at(source), at)
            _sync(os.path.dirname(at))

        self._do("writing", target, move)
        self._tidy(source)

    def remove(self, paths: Iterable[str]) -> None:
        gone = list(paths)
        super().remove(gone)
        for path in gone:
            self._tidy(path)

    def _tidy(self, path: str) -> None:
        """Remove the folders that a file was the last one of."""
        for parent in Path(path).parents[:-1]:
            with suppress(OSError):
                os.rmdir(self._at(parent.as_posix()))


def open_store(url: str, retries: Retries | None = None) -> Store:
    """Return the files below a URL. Raises ``UserError`` as ``Store`` does."""
    found = split_url(url)
    return (DiskStore if found is not None and found[0] == "file" else Store)(url, retries)


class _Reader(io.RawIOBase):
    """An object as a file."""

    def __init__(self, store: Store, path: str, size: int) -> None:
        super().__init__()
        self.store, self.path, self.size, self.position = store, path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        return self.position

    def readinto(self, buffer: Any) -> int:
        end = min(self.position + len(buffer), self.size)
        if end <= self.position:
            return 0
        found = self.store.read_range(self.path, self.position, end)
        buffer[: len(found)] = found
        self.position += len(found)
        return len(found)


def scrub(text: str) -> str:
    """Return a text that others wrote without what gives access to a store."""
    secrets = [os.environ.get(name) for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")]
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return re.sub(r"://[^/\s@]*@", "://***@", text)


def at_once(work: Callable[[T], Any], items: Iterable[T], count: int = AT_ONCE) -> Iterator[Any]:
    """Yield what ``work`` returns of each item, in order, several being under way; an error stops those not begun."""
    pool = ThreadPoolExecutor(count)
    try:
        for running in [pool.submit(work, item) for item in items]:
            while not running.done():  # Ctrl-C does not end a wait without a limit: polars' handler has it restarted
                wait([running], 0.5)
            yield running.result()
    except BaseException as error:
        # Ctrl-C does not wait for what is under way; the process ends.
        pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)
        raise
    pool.shutdown()


def _sync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _code(error: BaseException) -> str | None:
    """Return S3's name of an error, such as AccessDenied."""
    for one in _chain(error):
        response = getattr(one, "response", None)
        code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
        if isinstance(code, str):
            return code if re.fullmatch(r"\w{1,60}", code) else clip(code)
    return None


def _plain(error: Exception) -> str:
    """Return the kind of an error, and the system's own text where it is the system's."""
    strerror = error.strerror if isinstance(error, OSError) and error.filename is not None else None
    return f"{type(error).__name__}{f', {strerror}' if strerror else ''}"
