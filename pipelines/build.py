"""Builds a plan into a folder: resumable, one at a time, done only when the manifest is written."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from .card import card
from .engine import Task, default_workers, run_tasks
from .folder import FORMAT, Folder, shard_record
from .plan import DISK_RATIO, Config, Plan
from .settings import digest
from .shard import ShardRecord
from .versions import SAMPLING_VERSION, SPLIT_VERSION, TEXT_VERSION

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class ConfigResult:
    """What became of one config: its rows and bytes, and the seconds its shards took together."""

    name: str
    split: str
    classes: int
    rows: int
    bytes: int
    seconds: float
    built: int
    kept: int


Progress = Callable[[Config, ShardRecord, bool], None]


def build(
    plan: Plan,
    out: Path,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[ConfigResult]:
    """Build a plan into a folder, or finish an earlier build of it.

    Args:
        plan: what to build.
        out: the folder; another dataset of ours in it is added to.
        workers: processes; all processors by default.
        overwrite: rebuild tasks that stand in the folder with other settings.
        progress: called with every shard; True for one that was there already.

    Raises:
        UserError: the folder is not ours, is being built into, holds other settings, or the disk is full.
    """
    folder = Folder(out)
    folder.check_ours()
    with folder.lock():
        try:
            return _build(plan, folder, workers or default_workers(), overwrite, progress or (lambda *_: None))
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise UserError(
                "the disk is full",
                where=str(out),
                next_step="make room and run the same command again: finished shards are kept",
            ) from error


def _build(plan: Plan, folder: Folder, workers: int, overwrite: bool, progress: Progress) -> list[ConfigResult]:
    manifest = _agreed(plan, folder, overwrite)
    folder.sweep({config.settings.task for config in plan.configs})
    wanted = _notes(plan)
    known = _known(manifest) | (folder.finished() if folder.unfinished() == wanted else {})
    kept: dict[Task, ShardRecord] = {}
    todo: list[Task] = []
    for at, config in enumerate(plan.configs):
        for shard in range(config.num_shards):
            record = known.get(config.shard_path(shard))
            if record is not None and folder.holds(record):
                kept[at, shard] = record
            else:
                todo.append((at, shard))
    _check_space(plan, folder.path, todo)
    if folder.unfinished() != wanted:
        folder.forget()
    folder.begin(wanted)
    for (at, _), record in kept.items():
        progress(plan.configs[at], record, True)
    seconds = [0.0] * len(plan.configs)
    records = dict(kept)
    last = time.perf_counter()
    for (at, shard), record in run_tasks(plan.configs, todo, folder.path, workers):
        folder.note(record)
        records[at, shard] = record
        now = time.perf_counter()
        seconds[at], last = seconds[at] + now - last, now
        progress(plan.configs[at], record, False)
    finished = _manifest(plan, manifest, records)
    folder.finish(finished, card(finished, folder.path))
    return [
        ConfigResult(
            config.name,
            config.split,
            len(config.population.classes()),
            sum(records[at, shard].rows for shard in range(config.num_shards)),
            sum(records[at, shard].bytes for shard in range(config.num_shards)),
            seconds[at],
            sum((at, shard) not in kept for shard in range(config.num_shards)),
            sum((at, shard) in kept for shard in range(config.num_shards)),
        )
        for at, config in enumerate(plan.configs)
    ]


def versions() -> dict[str, int]:
    """Return the version constants that every identity covers."""
    return {"text": TEXT_VERSION, "split": SPLIT_VERSION, "sampling": SAMPLING_VERSION}


def _notes(plan: Plan) -> dict[str, Any]:
    """Return what a half-built folder says about its build."""
    return {
        "identity": plan.declaration.identity(),
        "command": command(plan),
        "versions": versions(),
        "tasks": {settings.task: settings.identity() for settings in plan.declaration.tasks},
        "shards": [config.shard_path(shard) for config in plan.configs for shard in range(config.num_shards)],
    }


def command(plan: Plan) -> str:
    """Return the command that builds the plan again."""
    from .declaration import rebuild_command

    return rebuild_command(plan.declaration)


def _agreed(plan: Plan, folder: Folder, overwrite: bool) -> dict[str, Any]:
    """Return the folder's manifest once it agrees with the plan; with ``overwrite`` what does not agree goes.

    Raises:
        UserError: a task stands in the folder, whole or half-built, with other settings.
    """
    manifest, unfinished = folder.manifest(), folder.unfinished()
    if unfinished and unfinished.get("identity") != plan.declaration.identity():
        mine = {settings.task: settings.identity() for settings in plan.declaration.tasks}
        theirs = unfinished.get("tasks", {})
        clash = [task for task in theirs if mine.get(task, theirs[task]) != theirs[task]]
        if not overwrite and (clash or not set(theirs) <= set(mine)):
            raise UserError(
                "an unfinished build of something else lies in this folder",
                where=str(folder.path),
                next_step=f"finish it with `{unfinished.get('command', '?')}`, or add --overwrite to drop it",
            )
        for task in clash if not overwrite else theirs:
            if task not in manifest.get("tasks", {}):
                folder.remove_shards(task, set())
        if overwrite:
            folder.forget()
    for settings in plan.declaration.tasks:
        there = manifest.get("tasks", {}).get(settings.task)
        if there is None or there["identity"] == settings.identity():
            continue
        if not overwrite:
            raise UserError(
                f"{settings.task} stands in this folder with other settings: {_differences(settings.to_dict(), there)}",
                where=str(folder.path),
                next_step="add --overwrite to replace it, or choose another folder with --out",
            )
        manifest["tasks"].pop(settings.task)
        for name in [name for name in manifest["configs"] if name.rpartition("-")[0] == settings.task]:
            manifest["configs"].pop(name)
        # The manifest forgets a task before its shards go, so that it never names what is not there.
        folder.finish(manifest, card(manifest, folder.path))
        folder.remove_shards(settings.task, set())
    return manifest


def _differences(settings: dict[str, Any], there: dict[str, Any]) -> str:
    old = there.get("settings", {})
    changed = [
        f"{key} {old.get(key)} -> {value}"
        for key, value in settings.items()
        if key not in ("splits", "views") and old.get(key) != value
    ]
    return ", ".join(changed) or "built by another version of caef-data"


def _known(manifest: dict[str, Any]) -> dict[str, ShardRecord]:
    return {
        shard["path"]: shard_record(shard)
        for splits in manifest.get("configs", {}).values()
        for config in splits.values()
        for shard in config["shards"]
    }


def _check_space(plan: Plan, out: Path, todo: list[Task]) -> None:
    needed = sum(int(plan.configs[at].text * DISK_RATIO) // plan.configs[at].num_shards for at, _ in todo)
    free = shutil.disk_usage(out).free
    if needed > free:
        raise UserError(
            f"the build needs about {needed / 1e9:,.1f} GB of disk, {free / 1e9:,.1f} GB are free",
            where=str(out),
            next_step="make room, choose another folder with --out, or build less (caef-data plan shows the sizes)",
        )


def _manifest(plan: Plan, manifest: dict[str, Any], records: dict[Task, ShardRecord]) -> dict[str, Any]:
    import numpy
    import pyarrow

    from .. import __version__

    tasks = dict(manifest.get("tasks", {}))
    for settings in plan.declaration.tasks:
        tasks[settings.task] = {"settings": settings.to_dict(), "identity": settings.identity(), "command": command(plan)}
    configs = {name: dict(splits) for name, splits in manifest.get("configs", {}).items()}
    for at, config in enumerate(plan.configs):
        own = [records[at, shard] for shard in range(config.num_shards)]
        configs.setdefault(config.name, {})[config.split] = {
            "identity": config.identity,
            "classes": len(config.population.classes()),
            "expressions": len(config.population),
            "rows": sum(record.rows for record in own),
            "bytes": sum(record.bytes for record in own),
            "chars": _chars(own),
            "shards": [asdict(record) for record in own],
        }
    built_with = {"caef_data": __version__, "numpy": numpy.__version__, "pyarrow": pyarrow.__version__}
    identities = sorted(split["identity"] for splits in configs.values() for split in splits.values())
    return {
        "format": FORMAT,
        "caef_data": __version__,
        "versions": versions(),
        "built_with": built_with,
        "identity": digest(identities),
        "tasks": tasks,
        "configs": configs,
    }


def _chars(records: list[ShardRecord]) -> dict[str, dict[str, float]]:
    rows = sum(record.rows for record in records)
    return {
        name: {
            "mean": round(sum(record.chars[name][0] for record in records) / rows, 1),
            "max": max(record.chars[name][1] for record in records),
        }
        for name in ("prompt", "completion")
    }
