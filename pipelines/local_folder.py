"""A dataset folder on a disk of this machine, or on one that all nodes see."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import UserError, clip, shown
from .folder import Folder
from .manifest import CONFIG, MANIFEST, PLAN, SHARD, STATE, is_shard, json_bytes, shard_record
from .shard import TEMPORARY, ShardRecord, place, put, write_shard

if TYPE_CHECKING:
    from .plan import Config

FINISHED = f"{STATE}/shards.jsonl"  # one line a finished shard
ASIDE = re.compile(rf"{re.escape(TEMPORARY)}([0-9a-f]{{8}}-)?{SHARD.pattern}")


class LocalFolder(Folder):
    """A folder of the file system.

    Its notes are ``.caef/plan.json``, what the build under way makes, and ``.caef/shards.jsonl``, its finished shards.

    Args:
        path: the folder, which need not exist yet.

    Raises:
        UserError: this cannot be the name of a folder.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        try:
            possible = b"\0" not in os.fsencode(path)
        except UnicodeEncodeError:
            possible = False
        if not possible:
            raise UserError(f"{clip(str(path))} cannot be the name of a folder")
        self.path = path

    def absolute(self) -> Folder:
        return LocalFolder(self.path.absolute())

    # Reading

    def read(self, path: str) -> bytes | None:
        whole = self.path / path
        return whole.read_bytes() if whole.exists() else None

    def open(self, path: str) -> BinaryIO:
        return open(self.path / path, "rb")

    def free(self) -> int | None:
        return shutil.disk_usage(self.path).free

    def finished(self, is_path: Callable[[str], bool] = is_shard) -> dict[str, ShardRecord]:
        path = self.path / FINISHED
        records = {}
        for line in path.read_bytes().splitlines() if path.exists() else []:
            try:
                record = shard_record(json.loads(line), is_path)
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                continue  # the last line of a killed build may be cut short: its shard is made anew
            records[record.path] = record
        return records

    def holds(self, record: ShardRecord) -> bool:
        path = self.path / record.path
        if not path.is_file() or path.stat().st_size != record.bytes:
            return False
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == record.sha256

    def on_disk(self) -> AbstractContextManager[Path]:
        return nullcontext(self.path)

    def check_links(self) -> None:
        """Refuse a folder where links stand in the places of our own folders: what lies behind them is not ours.

        Raises:
            UserError: they do.
        """
        found = [folder for folder in self.path.glob("*") if folder.name == STATE or CONFIG.fullmatch(folder.name)]
        found += (self.path / STATE).rglob("*") if not (self.path / STATE).is_symlink() else []
        for path in found:
            if path.is_symlink():
                raise UserError(
                    "this is a link, and what it leads to is left alone",
                    where=shown(path),
                    next_step="remove the link, or choose another folder",
                )

    def check_ours(self) -> None:
        if (self.path / STATE).is_symlink():
            self.check_links()
        if self.path.is_dir() and any(self.path.iterdir()):
            if not (self.path / MANIFEST).exists() and not self._has_notes():
                raise UserError(
                    "this folder holds files that caef-data did not write; it is left alone",
                    where=shown(self.path),
                    allowed="an empty or new folder, or one that caef-data built",
                    next_step="caef-data build ... --out NEW_FOLDER",
                )
        elif self.path.exists() and not self.path.is_dir():
            raise UserError("this is a file, not a folder", where=shown(self.path), next_step="choose another --out")

    def _has_notes(self) -> bool:
        """Tell whether notes of an unfinished build lie here, and nothing else where they lie."""
        state = self.path / STATE
        if not state.is_dir() or state.is_symlink():
            return False
        known = {Path(PLAN).name, Path(FINISHED).name}
        return all(path.name in known or path.name.startswith(TEMPORARY) for path in state.iterdir())

    # Writing

    @contextmanager
    def lock(self, *, shared: bool = False) -> Iterator[None]:
        """Hold the folder for one build, or with others who only read it.

        The lock is on the folder itself: nothing is left over when a build is killed. Workers do not inherit it, the
        file is closed when they are started.

        Raises:
            UserError: another build holds it.
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
                    where=shown(self.path),
                    next_step="wait for it, or choose another folder with --out",
                ) from None
            yield
        finally:
            if created and not any(self.path.iterdir()):
                self.path.rmdir()
            os.close(handle)

    def begin(self, plan: dict[str, Any], *, go_on: bool) -> None:
        if not go_on:
            (self.path / FINISHED).unlink(missing_ok=True)
        self.put(PLAN, json_bytes(plan))

    def note(self, record: ShardRecord) -> None:
        with open(self.path / FINISHED, "a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record), sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def put(self, path: str, content: bytes) -> None:
        put(self.path / path, content)

    def write_shard(self, config: Config, shard: int) -> ShardRecord:
        return write_shard(config, shard, self.path, self.attempt)

    def place(self, record: ShardRecord) -> None:
        place(self.path / record.path, self.attempt)

    def forget(self) -> None:
        if (self.path / STATE).is_dir():
            shutil.rmtree(self.path / STATE)

    def sweep(self, keep: Container[str], tasks: Container[str]) -> None:
        self.sweep_aside()
        for config in [config for config in self._configs() if config.name.rpartition("-")[0] in tasks]:
            for path in config.iterdir():
                if SHARD.fullmatch(path.name) and f"{config.name}/{path.name}" not in keep and not path.is_dir():
                    path.unlink()
            if not any(config.iterdir()):
                config.rmdir()

    def sweep_aside(self) -> None:
        for path in [*self.path.glob(f"{TEMPORARY}*"), *(self.path / STATE).glob(f"{TEMPORARY}*")]:
            path.unlink()
        for config in self._configs():
            for path in config.glob(f"{TEMPORARY}*"):
                if ASIDE.fullmatch(path.name):
                    path.unlink()

    def _configs(self) -> list[Path]:
        found = [path for path in self.path.iterdir() if CONFIG.fullmatch(path.name)]
        return [path for path in found if path.is_dir() and not path.is_symlink()]
