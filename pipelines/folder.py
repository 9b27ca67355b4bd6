"""A dataset folder: what lies in it, and how a build reads, writes and finishes it, wherever it is.

manifest.json           what is finished; written last
README.md               the dataset card
<task>-<view>/          shards
.caef/                  notes of a build under way; there only while (or after) a build is unfinished
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Container
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import UserError
from ..errors import shown as shown
from .manifest import CARD, MANIFEST, PLAN, json_bytes, manifest_from, plan_from
from .shard import ShardRecord

if TYPE_CHECKING:
    from .plan import Config


class Folder(ABC):
    """A dataset folder; reads and writes go through here. It can be sent to worker processes.

    Args:
        name: the folder as the user named it; it need not exist yet.
    """

    attempt = ""  # tells apart the files of two workers that were given the same shard, one of them thought lost

    def __init__(self, name: str) -> None:
        self.name = name

    def absolute(self) -> Folder:
        """Return the same folder by a name that means the same in other processes and on other machines."""
        return self

    # Reading

    @abstractmethod
    def read(self, path: str) -> bytes | None:
        """Return the bytes of a small file inside the folder; None where there is none."""

    @abstractmethod
    def open(self, path: str) -> BinaryIO:
        """Open a file inside the folder for reading.

        Raises:
            OSError: there is none, or it cannot be read.
        """

    @abstractmethod
    def finished(self) -> dict[str, ShardRecord]:
        """Return the records of the unfinished build's finished shards, by path."""

    @abstractmethod
    def holds(self, record: ShardRecord) -> bool:
        """Tell whether a shard is there as a build of ours left it."""

    @abstractmethod
    def on_disk(self) -> AbstractContextManager[Path]:
        """Yield where the dataset lies on this machine: the folder itself, or a copy that goes with the block.

        Raises:
            UserError: a copy is needed, but there is no finished dataset, or no room for it.
        """

    @abstractmethod
    def check_ours(self) -> None:
        """Refuse a folder that holds something, but no dataset of ours.

        Raises:
            UserError: it does, or it is a file.
        """

    @abstractmethod
    def free(self) -> int | None:
        """Return the bytes that can still be written; None where that is unknown."""

    def manifest(self) -> dict[str, Any]:
        """Return the manifest; an empty one where there is none.

        Raises:
            UserError: it cannot be read, or is of a later version.
        """
        return self._json(MANIFEST, manifest_from, "build into another folder (--out), or remove this one")

    def unfinished(self) -> dict[str, Any]:
        """Return the plan of an unfinished build, empty where there is none.

        Raises:
            UserError: it cannot be read.
        """
        return self._json(PLAN, plan_from, "remove this file and build again: finished shards are made anew")

    def where(self, path: str) -> str:
        """Return the place of a file inside the folder, for a message."""
        return shown(f"{self.name.rstrip('/')}/{path}")

    def _json(self, path: str, read: Callable[[bytes], dict[str, Any]], next_step: str) -> dict[str, Any]:
        text = self.read(path)
        if text is None:
            return {}
        try:
            return read(text)
        except ValueError as error:
            what = f"{path} cannot be understood: {error}"
            raise UserError(what, where=self.where(path), next_step=next_step) from error

    # Writing

    @abstractmethod
    def lock(self, *, shared: bool = False) -> AbstractContextManager[None]:
        """Hold the folder for one build, or with others who only read it.

        Raises:
            UserError: a build holds it.
        """

    @abstractmethod
    def put(self, path: str, content: bytes) -> None:
        """Write a small file in one step."""

    @abstractmethod
    def begin(self, plan: dict[str, Any], *, go_on: bool) -> None:
        """Note what a build will make, before its first shard.

        At no moment does the folder lose the mark that it is ours, or do old notes stand beside a new plan.

        Args:
            plan: the notes.
            go_on: keep the notes of finished shards: they are the plan's too.
        """

    @abstractmethod
    def write_shard(self, config: Config, shard: int) -> ShardRecord:
        """Write a shard, in a worker, so that ``place`` can put it where it belongs.

        Raises:
            OSError: the disk is full or cannot be written; nothing is left behind.
        """

    @abstractmethod
    def place(self, record: ShardRecord) -> None:
        """Put a shard that was written in its place in one step: a file of the final name is whole and stays."""

    @abstractmethod
    def note(self, record: ShardRecord) -> None:
        """Note a finished shard."""

    @abstractmethod
    def forget(self) -> None:
        """Remove the notes of an unfinished build; the manifest is written."""

    @abstractmethod
    def sweep(self, keep: Container[str], tasks: Container[str]) -> None:
        """Remove what killed and replaced builds of these tasks left: files aside, and shards except those to keep.

        Nothing else is touched, not even a file with a shard's name that stands under another task.
        """

    @abstractmethod
    def sweep_aside(self) -> None:
        """Remove the files that were being written."""

    def write(self, manifest: dict[str, Any], card: str) -> None:
        """Write the card, then the manifest."""
        self.put(CARD, card.encode())
        self.put(MANIFEST, json_bytes(manifest))


def open_folder(name: str | os.PathLike[str]) -> Folder:
    """Return the dataset folder of a path or of an fsspec URL (``s3://bucket/prefix``).

    Raises:
        UserError: this cannot be the name of a folder, or what its kind of store needs is not installed.
    """
    from .local_folder import LocalFolder
    from .store_url import split_url

    url = split_url(os.fspath(name))
    if url is None:
        return LocalFolder(Path(name))
    if url[0] == "file":
        return LocalFolder(Path(url[1]))
    from .store import Store
    from .store_folder import StoreFolder

    return StoreFolder(Store(os.fspath(name)))
