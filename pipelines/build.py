"""Builds a plan into a folder: resumable, one at a time, done only when the manifest is written."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import UserError, check_name, printable_path, telling_of_full_disk
from ..tm import machine
from .budget import tokenizer_name
from .card import card_there, renewed_card
from .declaration import rebuild_command
from .differences import differences
from .engine import Engine, run_tasks
from .expressions import own_expressions
from .folder import Folder, task_of
from .manifest import FORMAT, ShardRecord, shard_records
from .plan import Plan
from .rebuild import renamed, without_tasks
from .settings import digest
from .store import open_folder
from .versions import built_with, rules
from .workers import default_workers

ENGINES = ("local", "ray")


def choose_engine(name: str = "local", workers: int | None = None) -> AbstractContextManager[Engine]:
    """Return what runs a build's shards, for the time of a block.

    Args:
        name: ``local`` or ``ray``.
        workers: shards made at once at most; None for all processors, of this machine or of the cluster.

    Raises:
        UserError: there is no such engine, or, as the block begins, Ray cannot be used.
    """
    check_name("--engine", name, ENGINES)
    if name == "ray":
        from .ray_engine import ray_engine

        return ray_engine(workers)
    return nullcontext(partial(run_tasks, workers=workers or default_workers()))


@dataclass(frozen=True)
class ConfigResult:
    """What became of one config: its rows and bytes, the seconds its shards took together, shards built and kept."""

    name: str
    split: str
    classes: int
    rows: int
    bytes: int
    seconds: float
    built: int
    kept: int


Progress = Callable[[str, ShardRecord, bool], None]  # a config's name, a shard, whether it was there already


def build(
    plan: Plan,
    out: str | Path,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    engine: Engine | None = None,
) -> list[ConfigResult]:
    """Build a plan into a folder, or finish an earlier build of it.

    Args:
        plan: what to build.
        out: the folder, a path or an fsspec URL; another dataset of ours in it is added to.
        workers: processes; all processors by default.
        overwrite: rebuild tasks that stand in the folder with other settings.
        progress: called with every shard; True for one that was there already.
        engine: what runs the shards, ``workers`` processes of this machine by default.

    Raises:
        UserError: the folder is not ours, is being built into, holds other settings, or the disk is full.
    """
    folder = open_folder(out)
    folder.check_ours()
    run = engine or partial(run_tasks, workers=workers or default_workers())
    go_on = "make room and run the same command again: finished shards are kept"
    with folder.lock(), telling_of_full_disk(printable_path(out), go_on):
        return _build(plan, folder, run, overwrite, progress or (lambda *_: None))


def _build(plan: Plan, folder: Folder, engine: Engine, overwrite: bool, progress: Progress) -> list[ConfigResult]:
    paths = {
        (number, shard): config.shard_path(shard)
        for number, config in enumerate(plan.configs)
        for shard in range(config.num_shards)
    }
    wanted = _notes(plan, list(paths.values()))
    resuming = _resumes(wanted, folder, overwrite)
    tasks = {*wanted["tasks"], *folder.unfinished().get("tasks", {})}
    card_there(folder)  # one that cannot be renewed is told before the work
    manifest = _agreed(plan, folder, wanted, overwrite)
    known = shard_records(manifest) | (folder.finished() if resuming else {})
    folder.sweep(known, tasks)
    records = {path: known[path] for path in paths.values() if path in known and folder.holds(known[path])}
    kept = frozenset(records)
    todo = [task for task, path in paths.items() if path not in kept]
    _check_space(folder, sum(plan.configs[number].disk / plan.configs[number].num_shards for number, _ in todo))
    folder.begin(wanted, resuming=resuming)
    for (number, _), path in paths.items():
        if path in kept:
            progress(plan.configs[number].name, records[path], True)
    seconds = [0.0] * len(plan.configs)
    last = time.perf_counter()
    try:
        with closing(engine(plan.configs, todo, folder)) as running:  # its workers end with this block
            for (number, _), record in running:
                folder.note(record)
                records[record.path] = record
                now = time.perf_counter()
                seconds[number], last = seconds[number] + now - last, now
                progress(plan.configs[number].name, record, False)
    except BaseException:
        folder.sweep_aside()  # killed workers left what they were writing
        raise
    by_config = [[records[config.shard_path(shard)] for shard in range(config.num_shards)] for config in plan.configs]
    finished = _manifest(plan, manifest, by_config)
    folder.write(finished, renewed_card(finished, folder))
    folder.forget()
    results = []
    for config, own, spent in zip(plan.configs, by_config, seconds, strict=True):
        entry, num_kept = finished["configs"][config.name][config.split], sum(record.path in kept for record in own)
        counts = (entry["classes"], entry["rows"], entry["bytes"], spent, len(own) - num_kept, num_kept)
        results.append(ConfigResult(config.name, config.split, *counts))
    return results


def _check_space(folder: Folder, needed: float) -> None:
    free = shutil.disk_usage(folder.path).free if folder.local else needed  # a store does not tell
    if needed > free:
        raise UserError(
            f"the build needs about {needed / 1e6:,.1f} MB of disk, {free / 1e6:,.1f} MB are free",
            where=printable_path(folder.name),
            next_step="make room, choose another folder with --out, or build less (caef-data plan shows the sizes)",
        )


def _notes(plan: Plan, paths: Sequence[str]) -> dict[str, Any]:
    """Return what a half-built folder says about its build."""
    return {
        "identity": plan.declaration.identity(),
        "versions": rules(),
        "tasks": _task_notes(plan),
        "shards": paths,
    }


def _task_notes(plan: Plan) -> dict[str, dict[str, Any]]:
    notes: dict[str, dict[str, Any]] = {}
    for settings in plan.declaration.tasks:
        notes[settings.task] = {"settings": settings.to_dict(), "identity": settings.identity()}
        if spec := machine(settings.task).spec():
            notes[settings.task]["machine"] = spec
        if settings.expressions is not None:
            notes[settings.task]["expressions"] = own_expressions(settings.expressions).record()
    return notes


def _resumes(wanted: dict[str, Any], folder: Folder, overwrite: bool) -> bool:
    """Tell whether the build goes on with an unfinished one: all that is wanted there is wanted now.

    Raises:
        UserError: something else is unfinished, and ``overwrite`` does not say that it may go.
    """
    unfinished = folder.unfinished()
    if not unfinished:
        return False
    theirs, mine = unfinished["tasks"], wanted["tasks"]
    changed = [task for task in theirs if task in mine and mine[task]["identity"] != theirs[task]["identity"]]
    if not changed and set(unfinished["shards"]) <= set(wanted["shards"]):
        return True
    if not overwrite:
        what = "".join(f"; {task}: {differences(task, unfinished, wanted)}" for task in changed[:1])
        raise UserError(
            f"an unfinished build of something else lies in this folder{what}",
            where=printable_path(folder.name),
            next_step="finish it with the command that began it, or add --overwrite to drop it",
        )
    return False


def _agreed(plan: Plan, folder: Folder, wanted: dict[str, Any], overwrite: bool) -> dict[str, Any]:
    """Return the folder's manifest once it agrees with the plan; with ``overwrite`` what does not agree goes.

    Raises:
        UserError: a task stands in the folder with other settings.
    """
    manifest = folder.manifest()
    known = manifest.get("tasks", {})
    own = [(one, known[one.task]) for one in plan.declaration.tasks if one.task in known]
    changed = [(one, there) for one, there in own if there["identity"] != one.identity()]
    if overwrite and changed:
        without_tasks(manifest, {settings.task for settings, _ in changed}, printable_path(folder.name))
    for settings, _ in changed:
        if not overwrite:
            told = differences(settings.task, manifest, wanted)
            raise UserError(
                f"{settings.task} stands in this folder with other settings: {told}",
                where=printable_path(folder.name),
                next_step="add --overwrite to replace it, or choose another folder with --out",
            )
        del manifest["tasks"][settings.task]
        configs = manifest["configs"]
        manifest["configs"] = {name: splits for name, splits in configs.items() if task_of(name) != settings.task}
        # The manifest forgets a task before its shards go, so that it never names what is not there.
        manifest["identity"] = _identity(manifest["configs"])
        folder.write(manifest, renewed_card(manifest, folder))
    return manifest


def _manifest(plan: Plan, manifest: dict[str, Any], records: list[list[ShardRecord]]) -> dict[str, Any]:
    name = plan.declaration.tokenizer
    again = rebuild_command(replace(plan.declaration, tokenizer=name and tokenizer_name(name)))
    configs = {name: dict(splits) for name, splits in manifest.get("configs", {}).items()}
    renamed(manifest, again, {(config.name, config.split) for config in plan.configs})
    for config, own in zip(plan.configs, records, strict=True):
        rows = sum(record.rows for record in own)
        splits = configs.setdefault(config.name, {})
        there = splits.get(config.split, {}) if splits.get(config.split, {}).get("identity") == config.identity else {}
        tokens = plan.tokens.get((config.name, config.split), there.get("tokens"))
        splits[config.split] = {
            "identity": config.identity,
            "command": again,
            "classes": len(config.population.classes),
            "expressions": len(config.population),
            "rows": rows,
            "bytes": sum(record.bytes for record in own),
            "chars": {
                text: {
                    "mean": round(sum(record.chars[text][0] for record in own) / rows, 1),
                    "max": max(record.chars[text][1] for record in own),
                }
                for text in ("prompt", "completion")
            },
            "shards": [asdict(record) for record in own],
            **({"tokens": {key: tokens[key] for key in tokens if key not in ("config", "split")}} if tokens else {}),
        }
    repo = plan.declaration.repo or manifest.get("repo")
    packages = built_with()
    return {
        "format": FORMAT,
        "caef_data": packages["caef_data"],
        "versions": rules(),
        "built_with": packages,
        "identity": _identity(configs),
        "tasks": {**manifest.get("tasks", {}), **_task_notes(plan)},
        "configs": configs,
        **({"repo": repo} if repo else {}),  # where `caef-data push` takes it
    }


def _identity(configs: dict[str, Any]) -> str:
    return digest(sorted(split["identity"] for splits in configs.values() for split in splits.values()))
