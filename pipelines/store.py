"""URLs of stores: which ones can hold a dataset, how fsspec connects to them, and what their errors mean."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

from ..errors import FULL, UserError, printable_path, quoted

T = TypeVar("T")

# Object stores: an object appears whole or not at all, which builds and pushes rely on; how to install their package.
INSTALL = {
    **dict.fromkeys(("s3", "s3a"), "pip install 'caef-data[s3]'"),
    **dict.fromkeys(("gs", "gcs"), "pip install 'caef-data[s3]' gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss"), "pip install 'caef-data[s3]' adlfs"),
}
URL = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]*)://(.*)", re.DOTALL)
SLIP = re.compile(r"(s3a?|gs|gcs|az|abfss?|file|hf):(/?[^/].*)?", re.DOTALL | re.IGNORECASE)
NOT_IN_PATHS = re.compile(r"[?*\[\]#\\]|::|[^ -~\u00a0-\U0010ffff]")  # queries, wildcards, chains, controls
NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"}
WRONG_CHECKSUM = {"FlexibleChecksumError", "ChecksumError"}
AT_ONCE = 8  # requests under way at a time


def split_url(name: str) -> tuple[str, str] | None:
    """Return the kind of store of a URL, in lower case, and what follows ``://``; None for a path.

    Raises:
        UserError: it is a URL, but of no store that keeps what a dataset needs; or it holds a password.
    """
    match = URL.fullmatch(name)
    if match is None:
        if slip := SLIP.fullmatch(name):
            raise UserError(
                "this is neither a URL nor the name of a folder here",
                where=printable_path(name),
                allowed=f"{slip[1].lower()}://... with two slashes; ./{printable_path(name)} for a folder of this name",
            )
        return None
    kind, rest = match[1].lower(), match[2]
    user, at, _ = rest.partition("/")[0].rpartition("@")
    if at and (":" in user or kind not in ("az", "abfs", "abfss")):  # Azure writes container@account
        raise UserError(
            "a URL must not hold a user name or password",
            where=f"{kind}://***@...",
            next_step="leave them out: they are taken from where the store's own tools take them (AWS_PROFILE, ...)",
        )
    if kind == "hf":
        raise UserError(
            "the Hub can be read here, not written or built into",
            where=printable_path(name),
            allowed="verify, info and eval --data read hf://datasets/user/name",
            next_step="build into a folder, then: caef-data push DIR --repo user/name",
        )
    if kind != "file" and kind not in INSTALL:
        raise UserError(
            f"{quoted(match[1])} is no kind of store that can hold a dataset",
            where=printable_path(name),
            allowed="a folder, or a URL: s3://bucket/prefix, gs://..., az://..., file:///...",
        )
    parts = rest.rstrip("/").split("/")
    if kind == "file":
        if not rest.startswith("/") or not any(parts):
            raise UserError("this URL names no folder", where=printable_path(name), allowed="file:///a/folder")
    elif NOT_IN_PATHS.search(rest) or any(part in ("", ".", "..") for part in parts):
        raise UserError(
            "this cannot be the URL of a folder",
            where=printable_path(name),
            allowed=f"{kind}://bucket/prefix, without ? * [ ] # \\ :: and empty parts",
        )
    return kind, "/".join(parts)


def connect(url: str) -> Any:
    """Return fsspec's file system below a URL of a store.

    Where the store is, who may write and how often a request is made again follows from the usual places of the store's
    own client: ``AWS_*``, its configuration files, fsspec's. Listings are not kept: others write, too.

    Raises:
        UserError: a package is not installed, or nobody can be connected to.
    """
    kind = url.partition(":")[0]
    try:
        import fsspec
        from fsspec.implementations.dirfs import DirFileSystem

        with told("connecting to", url, url):
            fs, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError:
        raise UserError(f"a package that {kind}:// needs is not installed", next_step=INSTALL[kind]) from None
    return DirFileSystem(path, fs)


class Damaged(UserError):
    """What was read is not what was written, as a checksum tells that the store keeps."""


@contextmanager
def told(doing: str, where: str, store: str) -> Iterator[None]:
    """Raise what the user should know of an error of a store's client; texts of a server are not repeated.

    Args:
        doing: what is being done.
        where: the object.
        store: the store's URL.

    Raises:
        FileNotFoundError: there is no such object to be read.
        Damaged: a checksum is wrong.
        UserError: anything else: the clients' errors are of many packages, and may hold what must not be shown.
    """
    what, kind = f"{doing} {printable_path(where)}", store.partition(":")[0]
    try:
        yield
    except (UserError, ImportError):
        raise
    except Exception as error:
        code, names = _code(error), {type(one).__name__ for one in _chain(error)}
        if code == "NoSuchBucket":
            raise UserError(
                "there is no such bucket", where=printable_path(store), next_step="create it first"
            ) from None
        if isinstance(error, FileNotFoundError) and doing != "writing":
            raise
        if isinstance(error, FileNotFoundError):
            why = "the bucket, or the file that is to be put there, does not exist"
            raise UserError(f"{what} failed: {why}") from None
        if names & WRONG_CHECKSUM:
            raise Damaged(f"{what}: its checksum is wrong", next_step="run the same command again") from None
        if names & NO_CREDENTIALS:
            raise UserError(
                f"no credentials for {kind}:// were found",
                where=printable_path(store),
                next_step="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE;"
                " for another server than Amazon's AWS_ENDPOINT_URL too",
            ) from None
        if isinstance(error, OSError) and error.errno in FULL:
            room = "make room and run the same command again"
            raise UserError(f"{what} failed: the disk is full", next_step=room) from None
        if isinstance(error, PermissionError) or getattr(error, "errno", None) == errno.EROFS:
            raise UserError(
                f"{what} is not allowed ({code or _plain(error)})",
                next_step="check whose credentials are in use, and what they may do in this place",
            ) from None
        raise UserError(
            f"{what} failed: {code or _plain(error)}", next_step="run the same command again: it goes on"
        ) from None


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
            return code if re.fullmatch(r"\w{1,60}", code) else quoted(code)
    return None


def _plain(error: Exception) -> str:
    """Return the kind of an error, and the system's own text where it is the system's."""
    number = error.errno if isinstance(error, OSError) and error.filename is not None else None
    return f"{type(error).__name__}{f', {os.strerror(number)}' if number else ''}"
