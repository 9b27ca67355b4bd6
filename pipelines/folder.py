"""A dataset folder on disk: its lock, its manifest, the notes of a build under way, and what may be touched.

    manifest.json           what is finished; written last
    README.md               the dataset card
    <task>-<view>/          shards
    .caef/plan.json         what the build under way makes; there only while (or after) a build is unfinished
    .caef/shards.jsonl      its finished shards, one line each
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import UserError, clip
from .shard import TEMPORARY, ShardRecord, put

MANIFEST, CARD, STATE = "manifest.json", "README.md", ".caef"
PLAN, FINISHED = f"{STATE}/plan.json", f"{STATE}/shards.jsonl"
FORMAT = 1
SHARD = re.compile(r"(train|test|stress)-(\d{5})-of-(\d{5})\.parquet")


class Folder:
    """A dataset folder; reads and writes go through here.

    Args:
        path: the folder, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    # Reading

    def manifest(self) -> dict[str, Any]:
        """Return the manifest; an empty one where there is none.

        Raises:
            UserError: it cannot be read, or is of a later version.
        """
        manifest = self._json(MANIFEST)
        if manifest and manifest.get("format") != FORMAT:
            raise UserError(
                f"the manifest has format {clip(manifest.get('format'))}, this version reads format {FORMAT}",
                where=str(self.path / MANIFEST),
                next_step="pip install --upgrade caef-data",
            )
        return manifest

    def unfinished(self) -> dict[str, Any]:
        """Return the plan of an unfinished build, empty where there is none."""
        return self._json(PLAN)

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        if not path.exists():
            return {}
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{name} cannot be read: {clip(error)}",
                where=str(path),
                next_step="build into another folder (--out), or remove this one",
            ) from error
        if not isinstance(content, dict):
            raise UserError(f"{name} is no JSON object", where=str(path))
        return content

    def finished(self) -> dict[str, ShardRecord]:
        """Return the records of the unfinished build's finished shards, by path."""
        path = self.path / FINISHED
        records = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                values = json.loads(line)
            except ValueError:  # the last line of a killed build may be cut short
                continue
            records[values["path"]] = shard_record(values)
        return records

    def holds(self, record: ShardRecord) -> bool:
        """Tell whether a shard is on disk, byte for byte."""
        path = self.path / record.path
        if not path.is_file() or path.stat().st_size != record.bytes:
            return False
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == record.sha256

    def check_ours(self) -> None:
        """Refuse a folder that holds something, but no dataset of ours.

        Raises:
            UserError: it does, or it is a file.
        """
        if self.path.is_dir() and any(self.path.iterdir()):
            if not (self.path / MANIFEST).exists() and not (self.path / STATE).is_dir():
                raise UserError(
                    "this folder holds files that caef-data did not write; it is left alone",
                    where=str(self.path),
                    allowed="an empty or new folder, or one that caef-data built",
                    next_step="caef-data build ... --out NEW_FOLDER",
                )
        elif self.path.exists() and not self.path.is_dir():
            raise UserError("this is a file, not a folder", where=str(self.path), next_step="choose another --out")

    # Writing

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one build.

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
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    "another build is writing into this folder",
                    where=str(self.path),
                    next_step="wait for it, or choose another folder with --out",
                ) from None
            yield
        finally:
            os.close(handle)
            if created and not any(self.path.iterdir()):
                self.path.rmdir()

    def begin(self, plan: dict[str, Any]) -> None:
        """Note what a build will make, before its first shard."""
        put(self.path / PLAN, json_bytes(plan))

    def note(self, record: ShardRecord) -> None:
        """Note a finished shard."""
        with open(self.path / FINISHED, "a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record), sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def finish(self, manifest: dict[str, Any], card: str) -> None:
        """Write the card, then the manifest, then forget the notes."""
        put(self.path / CARD, card.encode())
        put(self.path / MANIFEST, json_bytes(manifest))
        self.forget()

    def forget(self) -> None:
        """Remove the notes of an unfinished build."""
        shutil.rmtree(self.path / STATE, ignore_errors=True)

    def sweep(self, task_names: set[str]) -> None:
        """Remove what killed builds left aside."""
        for config in self._config_folders(task_names):
            for path in config.glob(f"{TEMPORARY}*"):
                path.unlink()
        for path in [*self.path.glob(f"{TEMPORARY}*"), *(self.path / STATE).glob(f"{TEMPORARY}*")]:
            path.unlink()

    def remove_shards(self, task: str, keep: set[str]) -> None:
        """Remove the shards of a task except those to keep; other files stay."""
        for config in self._config_folders({task}):
            for path in config.iterdir():
                if SHARD.fullmatch(path.name) and f"{config.name}/{path.name}" not in keep:
                    path.unlink()
            if not any(config.iterdir()):
                config.rmdir()

    def _config_folders(self, task_names: set[str]) -> list[Path]:
        if not self.path.is_dir():
            return []
        return [
            path
            for path in self.path.iterdir()
            if path.is_dir() and not path.is_symlink() and path.name.rpartition("-")[0] in task_names
        ]


def shard_record(values: dict[str, Any]) -> ShardRecord:
    """Return a record from its JSON form."""
    chars = {name: (int(total), int(longest)) for name, (total, longest) in values["chars"].items()}
    return ShardRecord(values["path"], values["rows"], values["bytes"], values["sha256"], chars)


def json_bytes(value: object) -> bytes:
    """Return readable JSON text."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode()
