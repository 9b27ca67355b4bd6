"""Which tasks are evaluated in which modes: what was asked for, as far as adapters and rows are there."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from itertools import product
from typing import Any

import pyarrow.compute as pc

from ..errors import UserError, printable_path, quoted
from ..pipelines.folder import Folder
from ..pipelines.manifest import shard_record
from ..pipelines.settings import SPLITS
from ..tm import machine
from ..tm import tasks as all_tasks
from ..tm.instructions import instruction
from .limit import CHOOSING
from .problems import MODES, RAW, VIEWS, aligner, executor, needed
from .settings import EvalSettings
from .shards import batches, refused

TaskModes = tuple[tuple[str, str], ...]


def task_modes(
    settings: EvalSettings, manifest: dict[str, Any], adapters: Collection[str] | None
) -> tuple[TaskModes, list[str]]:
    """Choose tasks and modes; return them, and lines that say what is left out, and why.

    Args:
        settings: what was asked for.
        manifest: of the dataset.
        adapters: names of the adapters there are; None where every one is (the oracle).

    Raises:
        UserError: nothing is left to evaluate; the message says why.
    """
    chosen, notes, lacking = list[tuple[str, str]](), list[str](), dict[str, None]()
    tasks = list(settings.task or all_tasks())
    if adapters is not None and not settings.task and not settings.baseline:
        tasks = [task for task in tasks if executor(task) in adapters or aligner(task) in adapters]
    absent = [task for task in tasks if not settings.task and task not in manifest["tasks"]]
    by_name = (RAW,) if settings.baseline else settings.mode
    for task, mode in product([task for task in tasks if task not in absent], by_name or MODES):
        why = _obstacle(task, mode, settings.splits, manifest)
        missing = [] if why or adapters is None else sorted(needed(task, mode).difference(adapters))
        if missing:
            why = f"there is no {', no '.join(missing)}"
            lacking[task] = None
        if why is None:
            chosen.append((task, mode))
        elif by_name or mode in ("one_step", "executor") or "aligner" not in machine(task).missing_views():
            notes.append(f"{task} {mode} is left out: {why}")
    if absent:
        notes.append(f"{', '.join(absent)}: the dataset has no rows of {'it' if len(absent) == 1 else 'them'}")
    if not chosen:
        raise _nothing_left(settings, manifest, tasks, notes, lacking)
    return tuple(chosen), notes


def _nothing_left(
    settings: EvalSettings, manifest: dict[str, Any], tasks: list[str], notes: list[str], lacking: Collection[str]
) -> UserError:
    """Return the refusal of settings that leave nothing to evaluate."""
    own = [splits for name, splits in manifest["configs"].items() if name.rpartition("-")[0] in tasks]
    splits = [split for split in SPLITS if any(split in of_config for of_config in own)]
    if splits and settings.split not in ("all", *splits):
        what, where = f"the dataset has no {settings.split} rows of {', '.join(tasks)}", f"--split {settings.split}"
        return UserError(what, where=where, allowed=", ".join(splits), next_step=f"--split {splits[-1]}")
    place = settings.expressions or settings.data
    data, more = printable_path(place), f"; and {len(notes) - 2} more" if len(notes) > 2 else ""
    if lacking:
        next_step = f"caef-data adapters --task {','.join(lacking)} lists those that each mode needs"
    elif settings.expressions:
        next_step = "name another --task or --mode, or a file that holds such expressions"
    else:
        advice = "name another dataset with --data, or another --task or --mode"
        next_step = f"{advice}; caef-data info {data} shows what is there"
    return UserError(
        f"nothing can be evaluated: {'; '.join(notes[:2]) or 'no adapter of any task was found'}{more}",
        where=", ".join(printable_path(place) for place in (settings.adapters, place) if place),
        allowed=f"adapters in executors/<task>/ and aligners/<task>/; {data} holds"
        f" {', '.join(sorted(manifest['tasks'])) or 'nothing'}",
        next_step=next_step,
    )


def _obstacle(task: str, mode: str, splits: Sequence[str], manifest: dict[str, Any]) -> str | None:
    """Return why a task cannot be evaluated in a mode, whatever adapters there are; None where it can."""
    if why := machine(task).missing_views().get("aligner" if mode == "process" else VIEWS[mode]):
        return why
    config = f"{task}-{VIEWS[mode]}"
    held = manifest["configs"].get(config, {})
    return None if {*splits} & {*held} else f"the dataset has no {', '.join(splits)} rows of {config}"


def used_configs(folder: Folder, pairs: TaskModes, splits: Sequence[str], limited: bool) -> set[tuple[str, str]]:
    """Return the configs and splits that problems are taken from, or that tell a limit which ones."""
    configs = {f"{task}-{VIEWS[mode]}" for task, mode in pairs}
    if limited:
        configs |= {f"{task}-{view}" for task, _ in pairs for view in CHOOSING}
    held = folder.manifest()["configs"]
    return {(config, split) for config in configs for split in splits if split in held.get(config, {})}


def check_rows(folder: Folder, pairs: TaskModes, splits: Sequence[str], limited: bool) -> dict[str, str]:
    """Check the shards that problems come from, byte for byte; return a hash of what each config holds.

    Raises:
        UserError: a shard is missing or damaged.
    """
    manifest, identities = folder.manifest(), {}
    for config, split in sorted(used_configs(folder, pairs, splits, limited)):
        held = manifest["configs"][config][split]
        for shard in held["shards"]:
            if not folder.holds(shard_record(shard)):
                raise UserError(
                    f"{shard['path']} is missing, or is not what the manifest says",
                    where=printable_path(folder.name),
                    next_step=f"caef-data verify {printable_path(folder.name)}",
                )
        told = [held["identity"], *(shard["sha256"] for shard in held["shards"])]  # what is declared, and what is there
        identities[f"{config}/{split}"] = hashlib.sha256(" ".join(told).encode()).hexdigest()
    return identities


def check_instructions(folder: Folder, pairs: TaskModes, splits: Sequence[str]) -> None:
    """Check that rows hold the instructions that this version's machines have: models are asked with these.

    Raises:
        UserError: a row has another one.
    """
    for config, split in sorted(used_configs(folder, pairs, splits, limited=False)):
        task, _, view = config.rpartition("-")
        right = instruction(machine(task), view)
        for path, batch in batches(folder, config, split, ["instruction"]):
            for text in pc.unique(batch.column(0)).to_pylist():
                if text != right:
                    what = f"their instruction is not that of the machine {task} here: {quoted(text, 120)}"
                    raise refused(folder, path, what)
