"""Files that are there whole or not at all: written aside under another name, synced, then renamed."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path
from typing import Any, BinaryIO

TEMPORARY = ".writing-"  # how the name of a file begins that is being written


@contextmanager
def aside(path: Path, attempt: str = "") -> Iterator[BufferedRandom]:
    """Open the file that is to become ``path``, under its temporary name; after an error nothing is left of it.

    Args:
        path: the file.
        attempt: goes into the temporary name: two processes that write the same file must differ in it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{attempt}{path.name}")
    try:
        with open(temporary, "w+b") as file:
            yield file
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def place(path: Path, attempt: str = "", *, new: bool = False) -> None:
    """Put a file written aside in its place in one step: synced, renamed, its folder synced.

    ``new``: it never replaces a file, but raises FileExistsError; nothing is left of it then.
    """
    temporary = path.with_name(f"{TEMPORARY}{attempt}{path.name}")
    sync(temporary)
    try:
        if new:
            open(path, "xb").close()  # takes the name
    except FileExistsError:
        temporary.unlink()
        raise
    os.replace(temporary, path)
    sync(path.parent)


def put(path: Path, content: bytes, attempt: str = "") -> None:
    """Write a file in one step."""
    with aside(path, attempt) as file:
        file.write(content)
    place(path, attempt)


def sync(path: str | Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_of(file: BinaryIO) -> str:
    """Return the sha256 (hex) of all that a file holds, read from its beginning."""
    readable: Any = file
    file.seek(0)
    return hashlib.file_digest(readable, "sha256").hexdigest()
