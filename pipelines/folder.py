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
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import UserError, clip
from .settings import VIEWS
from .shard import TEMPORARY, ShardRecord, put

MANIFEST, CARD, STATE = "manifest.json", "README.md", ".caef"
PLAN, FINISHED = f"{STATE}/plan.json", f"{STATE}/shards.jsonl"
FORMAT = 1
CONFIG = re.compile(rf"[^-]+-({'|'.join(VIEWS)})")
SHARD = re.compile(r"(train|test|stress)-(\d{5})-of-(\d{5})\.parquet")
TASK_KEYS = {"settings": dict, "identity": str}
SPLIT_KEYS = {"identity": str, "classes": int, "expressions": int, "rows": int, "bytes": int, "command": str}
MANIFEST_KEYS = {"versions": dict, "built_with": dict, "identity": str, "tasks": dict, "configs": dict}
PLAN_KEYS = {"identity": str, "command": str, "tasks": dict, "shards": list}


class Folder:
    """A dataset folder; reads and writes go through here.

    Args:
        path: the folder, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        try:
            possible = b"\0" not in os.fsencode(path)
        except UnicodeEncodeError:
            possible = False
        if not possible:
            raise UserError(f"{clip(path)} cannot be the name of a folder")
        self.path = path

    # Reading

    def manifest(self) -> dict[str, Any]:
        """Return the manifest; an empty one where there is none.

        Raises:
            UserError: it cannot be read, or is of a later version.
        """
        return self._json(MANIFEST, _check_manifest, "build into another folder (--out), or remove this one")

    def unfinished(self) -> dict[str, Any]:
        """Return the plan of an unfinished build, empty where there is none.

        Raises:
            UserError: it cannot be read.
        """
        return self._json(PLAN, _check_plan, "remove this file and build again: finished shards are made anew")

    def _json(self, name: str, check: Callable[[dict[str, Any]], None], next_step: str) -> dict[str, Any]:
        path = self.path / name
        if not path.exists():
            return {}
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            check(content)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{name} cannot be understood: {clip(error, 200)}", where=shown(path), next_step=next_step
            ) from error
        return content

    def finished(self) -> dict[str, ShardRecord]:
        """Return the records of the unfinished build's finished shards, by path."""
        path = self.path / FINISHED
        records = {}
        for line in path.read_bytes().splitlines() if path.exists() else []:
            try:
                record = shard_record(json.loads(line))
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
                continue  # the last line of a killed build may be cut short: its shard is made anew
            records[record.path] = record
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
        """Note what a build will make, before its first shard.

        At no moment does the folder lose the mark that it is ours, or do old notes stand beside a new plan.

        Args:
            plan: the notes.
            go_on: keep the notes of finished shards: they are the plan's too.
        """
        if not go_on:
            (self.path / FINISHED).unlink(missing_ok=True)
        put(self.path / PLAN, json_bytes(plan))

    def note(self, record: ShardRecord) -> None:
        """Note a finished shard."""
        with open(self.path / FINISHED, "a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record), sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def write(self, manifest: dict[str, Any], card: str) -> None:
        """Write the card, then the manifest."""
        put(self.path / CARD, card.encode())
        put(self.path / MANIFEST, json_bytes(manifest))

    def forget(self) -> None:
        """Remove the notes of an unfinished build; the manifest is written."""
        if (self.path / STATE).is_dir():
            shutil.rmtree(self.path / STATE)

    def sweep(self, keep: Container[str], tasks: Container[str]) -> None:
        """Remove what killed and replaced builds of these tasks left: files aside, and shards except those to keep.

        Nothing else is touched, not even a file with a shard's name that stands under another task.
        """
        self.sweep_aside()
        for config in [config for config in self._configs() if config.name.rpartition("-")[0] in tasks]:
            for path in config.iterdir():
                if SHARD.fullmatch(path.name) and f"{config.name}/{path.name}" not in keep and not path.is_dir():
                    path.unlink()
            if not any(config.iterdir()):
                config.rmdir()

    def sweep_aside(self) -> None:
        """Remove the files that were being written."""
        for path in [*self.path.glob(f"{TEMPORARY}*"), *(self.path / STATE).glob(f"{TEMPORARY}*")]:
            path.unlink()
        for config in self._configs():
            for path in config.glob(f"{TEMPORARY}*"):
                if SHARD.fullmatch(path.name.removeprefix(TEMPORARY)):
                    path.unlink()

    def _configs(self) -> list[Path]:
        found = [path for path in self.path.iterdir() if CONFIG.fullmatch(path.name)]
        return [path for path in found if path.is_dir() and not path.is_symlink()]


def shown(path: Path) -> str:
    """Return a path for a message: as it is, or escaped where it would break the line or the terminal."""
    text = str(path)
    return text if text.isprintable() and len(text) <= 300 else clip(text, 300)


def _check(values: dict[str, Any], keys: Mapping[str, type | tuple[type, ...]]) -> None:
    for key, kind in keys.items():
        value = values[key]
        if not isinstance(value, kind) or (isinstance(value, int) and not 0 <= value < 2**63):
            raise TypeError(f"{key} is {clip(value)}")


def _check_manifest(manifest: dict[str, Any]) -> None:
    if manifest["format"] != FORMAT:
        raise ValueError(f"it has format {manifest['format']!r}, this version reads format {FORMAT}")
    _check(manifest, MANIFEST_KEYS)
    for task in manifest["tasks"].values():
        _check(task, TASK_KEYS)
    for splits in manifest["configs"].values():
        for split in splits.values():
            _check(split, SPLIT_KEYS)
            for shard in split["shards"]:
                shard_record(shard)
            for size in split["chars"].values():
                _check(size, {"mean": (int, float), "max": int})


def _check_plan(plan: dict[str, Any]) -> None:
    _check(plan, PLAN_KEYS)
    for task in plan["tasks"].values():
        _check(task, TASK_KEYS)


def shard_record(values: dict[str, Any]) -> ShardRecord:
    """Return a record from its JSON form."""
    _check(values, {"path": str, "rows": int, "bytes": int, "sha256": str})
    chars = {name: (int(total), int(longest)) for name, (total, longest) in values["chars"].items()}
    return ShardRecord(values["path"], values["rows"], values["bytes"], values["sha256"], chars)


def json_bytes(value: object) -> bytes:
    """Return readable JSON text."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode()
