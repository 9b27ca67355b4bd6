"""A dataset folder: what lies in it, and how a build reads, writes and finishes it.

manifest.json           what is finished; written last
README.md               the dataset card
<task>-<view>/          shards
.caef/                  notes of a build under way; there only while (or after) a build is unfinished
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from ..atomic import TEMPORARY, aside, place, put, sha256_of
from ..errors import UserError, printable_path, quoted
from .manifest import (
    CARD,
    CONFIG,
    MANIFEST,
    PLAN,
    SHARD,
    STATE,
    ShardRecord,
    is_shard,
    json_bytes,
    manifest_from,
    plan_from,
    shard_record,
)

FINISHED = f"{STATE}/shards.jsonl"  # one line a finished shard
ASIDE = re.compile(rf"{re.escape(TEMPORARY)}([0-9a-f]{{8}}-)?{SHARD.pattern}")
GO_ON = "run the command that began the build again: finished shards are kept"


class Folder:
    """A dataset folder on a disk of this machine, or on one that all nodes see; it can be sent to worker processes.

    Paths are relative to it, with slashes. ``StoreFolder`` does the same on an object store.

    Args:
        path: the folder, which need not exist yet.

    Raises:
        UserError: this cannot be the name of a folder.
    """

    local = True  # it lies on this machine, at ``path``
    attempt = ""  # tells apart the files of two workers that were given the same shard, one of them thought lost

    def __init__(self, path: Path) -> None:
        try:
            if b"\0" in os.fsencode(path):
                raise ValueError
        except ValueError:  # or a lone surrogate
            raise UserError(f"{quoted(str(path))} cannot be the name of a folder") from None
        self.path, self.name = path, str(path)

    def absolute(self) -> Folder:
        """Return the same folder by a name that means the same in other processes and on other machines."""
        return Folder(self.path.absolute())

    def where(self, path: str) -> str:
        """Return the place of a file inside the folder, for a message."""
        return printable_path(f"{self.name.rstrip('/')}/{path}")

    # Files

    def read(self, path: str) -> bytes | None:
        """Return the bytes of a small file; None where there is none."""
        file = self.path / path
        return file.read_bytes() if file.exists() else None

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Open a file for reading, until the block ends; raises ``OSError`` where there is none."""
        return open(self.path / path, "rb")

    def equals(self, path: str, size: int, sha256: str) -> bool:
        """Read a file, and tell whether it is there and every byte is what it should be."""
        try:
            with self.open(path) as file:
                return file.seek(0, os.SEEK_END) == size and sha256_of(file) == sha256
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return False

    def sizes(self, under: str = "") -> dict[str, int]:
        """Return the bytes of every file, by path, of those below a folder if one is given."""
        files = [Path(place, name) for place, _, names in os.walk(self.path / under) for name in names]
        return {file.relative_to(self.path).as_posix(): file.lstat().st_size for file in files}

    def put(self, path: str, content: bytes) -> None:
        """Write a small file in one step."""
        put(self.path / path, content)

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files, where they are there, and the folders that they were the last ones of."""
        for path in list(paths):
            (self.path / path).unlink(missing_ok=True)
            with suppress(OSError):
                for parent in Path(path).parents[:-1]:
                    (self.path / parent).rmdir()

    def new_file(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Open a file to be written, in a worker, so that ``place`` can put it where it belongs."""
        return aside(self.path / path, self.attempt)

    def place(self, path: str) -> None:
        """Put a new file in its place in one step: a file of the final name is whole and stays."""
        place(self.path / path, self.attempt)

    # The whole folder

    def check_ours(self) -> None:
        """Refuse a file, and a folder that holds something, but no dataset of ours."""
        state = self.path / STATE
        if state.is_symlink():
            self.check_links()
        if not self.path.is_dir():
            if self.path.exists():
                where = printable_path(self.path)
                raise UserError("this is a file, not a folder", where=where, next_step="choose another --out")
            return
        notes = {Path(PLAN).name, Path(FINISHED).name}
        begun = state.is_dir() and all(
            file.name in notes or file.name.startswith(TEMPORARY) for file in state.iterdir()
        )
        if not begun and not (self.path / MANIFEST).exists() and any(self.path.iterdir()):
            raise self.not_ours()

    def not_ours(self) -> UserError:
        """Return the error for a folder that holds something, and neither a manifest nor a plan."""
        return UserError(
            f"this folder holds files, and no {MANIFEST} of caef-data; it is left alone",
            where=printable_path(self.name),
            allowed="an empty or new folder, or one that caef-data built into",
            next_step="choose another folder with --out",
        )

    def check_links(self) -> None:
        """Refuse a folder where links stand in the places of our own folders: what lies behind them is not ours."""
        own = [file for file in self.path.glob("*") if file.name == STATE or CONFIG.fullmatch(file.name)]
        for file in (*own, *(self.path / STATE).glob("*")):
            if file.is_symlink():
                raise UserError(
                    "this is a link, and what it leads to is left alone",
                    where=printable_path(file),
                    next_step="remove the link, or choose another folder",
                )

    @contextmanager
    def lock(self, *, shared: bool = False) -> Iterator[None]:
        """Hold the folder for one build, or with others who only read it.

        The lock is on the folder itself: nothing is left over when a build is killed. Workers do not inherit it.
        """
        created = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                if not os.path.samestat(os.fstat(handle), os.stat(self.path)):
                    raise BlockingIOError  # the build that made the folder took it away with its last breath
            except (BlockingIOError, FileNotFoundError):
                created = False
                raise UserError(
                    "another build is writing into this folder",
                    where=printable_path(self.path),
                    next_step="wait for it, or choose another folder with --out",
                ) from None
            yield
        finally:
            if created and not any(self.path.iterdir()):
                self.path.rmdir()
            os.close(handle)

    def on_disk(self) -> AbstractContextManager[Path]:
        """Yield where the dataset lies on this machine: the folder itself, or a copy that goes with the block."""
        return nullcontext(self.path)

    # What it says of itself

    def manifest(self) -> dict[str, Any]:
        """Return the manifest; an empty one where there is none."""
        return self._json(MANIFEST, manifest_from, "build into another folder (--out), or remove this one")

    def unfinished(self) -> dict[str, Any]:
        """Return the plan of an unfinished build; an empty one where there is none."""
        return self._json(PLAN, plan_from, "remove this file and build again: finished shards are made anew")

    def _json(self, path: str, read: Callable[[bytes], dict[str, Any]], next_step: str) -> dict[str, Any]:
        text = self.read(path)
        try:
            return {} if text is None else read(text)
        except ValueError as error:
            what = f"{path} cannot be understood: {error}"
            raise UserError(what, where=self.where(path), next_step=next_step) from error

    def write(self, manifest: dict[str, Any], card: str) -> None:
        """Write the card, then the manifest."""
        self.put(CARD, card.encode())
        self.put(MANIFEST, json_bytes(manifest))

    # Notes of a build under way

    def begin(self, plan: dict[str, Any], *, resuming: bool) -> None:
        """Note what a build will make, before its first shard.

        At no moment does the folder lose the mark that it is ours, or do old notes stand beside a new plan. Notes of
        finished shards stay where the build is ``resuming``: they are the new plan's too.
        """
        if not resuming:
            self._remove_notes()
        self.put(PLAN, json_bytes(plan))

    def forget(self) -> None:
        """Remove the notes of a build whose manifest is written; the plan, which says whose they are, goes last."""
        self._remove_notes()
        self.remove([PLAN])

    def _remove_notes(self) -> None:
        self.remove(path for path in self.sizes(STATE) if path != PLAN)

    def note(self, record: ShardRecord) -> None:
        """Note a finished shard."""
        with open(self.path / FINISHED, "a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record), sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def notes(self) -> Iterable[bytes]:
        """Return the notes of finished shards."""
        return (self.read(FINISHED) or b"").splitlines()

    def finished(self) -> dict[str, ShardRecord]:
        """Return the records of the unfinished build's finished shards, by path."""
        records = {}
        for text in self.notes():
            with suppress(ValueError, RecursionError):  # a killed build may cut its last line short
                record = shard_record(json.loads(text))
                records[record.path] = record
        return records

    def holds(self, record: ShardRecord) -> bool:
        """Tell whether a shard is there as a build of ours left it."""
        return self.equals(record.path, record.bytes, record.sha256)

    def sweep(self, keep: Container[str], tasks: Container[str]) -> None:
        """Remove what killed and replaced builds of these tasks left: files aside, and shards except those to keep.

        Nothing else is touched, not even a file with a shard's name that stands under another task.
        """
        self.sweep_aside()
        self.remove(path for path in self.sizes() if is_shard(path) and task_of(path) in tasks and path not in keep)
        for config in self.path.iterdir():  # a build that was killed may have made the folder, and nothing in it
            if CONFIG.fullmatch(config.name) and task_of(config.name) in tasks:
                with suppress(OSError):
                    config.rmdir()

    def sweep_aside(self) -> None:
        """Remove the files that were being written."""
        for path in self.sizes():
            folder, _, name = path.rpartition("/")
            own = folder in ("", STATE) and name.startswith(TEMPORARY)
            if own or (CONFIG.fullmatch(folder) and ASIDE.fullmatch(name)):
                (self.path / path).unlink()


def no_dataset(folder: Folder, allowed: str | None = None) -> UserError:
    """Return what there is to say of a place that holds no finished dataset."""
    where = printable_path(folder.name)
    if unfinished := folder.unfinished():
        what = f"this dataset is not finished: {len(folder.finished())} of {len(unfinished['shards'])} shards are there"
        return UserError(what, where=where, next_step=GO_ON)
    return UserError(
        "there is no dataset here",
        where=where,
        allowed=allowed or f"the folder of a dataset, with its {MANIFEST}",
        next_step="check the name, or build one: caef-data build --task sub --min 1 --max 100 --num 20",
    )


def task_of(path: str) -> str:
    """Return the task of a config, or of a path inside one."""
    return path.partition("/")[0].rpartition("-")[0]
