"""What an evaluation reads: where adapters and problems come from, and which tasks and modes these allow.

Adapters and datasets are folders of this machine, or repositories of the Hub copied into its cache. The published
checkpoints hold ``ckpt/executors/addition`` and ``ckpt/aligners/addition`` at some depth; so may yours.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from ..errors import UserError, printable_path, quoted
from ..pipelines.folder import Folder, no_dataset
from ..pipelines.hub_source import HubFiles, HubPlace, Say, download, is_parquet, local_or_hub, look_up
from ..pipelines.manifest import CARD, MANIFEST, define_machines, shard_record
from ..pipelines.settings import SPLITS
from ..pipelines.store import open_folder
from ..tm import machine
from ..tm import tasks as all_tasks
from ..tm.instructions import instruction
from .checkpoint import EVERY, KINDS, LAYOUT, MODEL
from .dataset_rows import CHOOSING, batches, refused
from .files import CONFIG, read_json
from .problems import MODES, RAW, VIEWS, aligner, executor, needed
from .published import ExpressionFolder, PublishedFolder, raw_files
from .settings import EvalSettings

TaskModes = tuple[tuple[str, str], ...]
EITHER = f"a dataset that caef-data built, with its {MANIFEST}, or published raw files (addition/test_5_5.jsonl)"


def checkpoints(paths: Iterable[str]) -> dict[str, set[str]]:
    """Return the folders below one that hold ``executors/<task>/``, ``aligners/<task>/`` or ``all/``, with these.

    ``paths`` are those of files, with slashes. The folder itself, an empty text, is the only one where it is one.
    """
    found: dict[str, set[str]] = {}
    for path in paths:
        *root, kind, folder, name = ["", "", *path.split("/")]
        if name == CONFIG and (kind in KINDS or folder == EVERY):
            root += [] if kind in KINDS else [kind]
            found.setdefault("/".join(root[2:]), set()).add(posixpath.dirname(path))
    return {"": found[""]} if "" in found else dict(sorted(found.items()))


def checkpoint_folder(text: str, say: Say, *, base_named: bool = False) -> Path:
    """Return the folder with the executors and aligners that a text names, or with the one adapter.

    Args:
        text: a folder, or a place on the Hub: what its adapters need is downloaded.
        say: is told what the user should know.
        base_named: the base model is named elsewhere.

    Raises:
        UserError: it is on the Hub and cannot be had; or it holds several such folders, or on the Hub none.
    """
    place = local_or_hub(text, "model", "--adapters", say)
    if isinstance(place, Path):
        holds = any((place / kind).is_dir() for kind in (*KINDS, EVERY))  # else it is looked through
        root = "" if holds else _only(checkpoints(_below(place, CONFIG)), text)
        if root:
            say(f"the adapters are those in {printable_path(place / root)}")
        return place / (root or "")
    files = look_up(place, say)
    found = checkpoints(files.sizes)
    root = _only(found, str(place))
    if root is None and CONFIG not in files.sizes:
        raise UserError(
            "there are no adapters in this repository",
            where=str(place),
            allowed=f"{LAYOUT}; in one of its folders",
        )
    folders = {""} if root is None else found[root]
    whole = _download(files, folders)
    if not base_named and (base := set(_bases(whole, folders, root or "", files))):
        whole = _download(files, folders | base)
    return whole / (root or "")


def _download(files: HubFiles, folders: Collection[str]) -> Path:
    return download(files, lambda path: posixpath.dirname(path) in folders and not path.endswith(".parquet"))


def _bases(whole: Path, folders: Iterable[str], root: str, files: HubFiles) -> Iterator[str]:
    """Yield the folders of the repository that adapters name as their base model."""
    for folder in folders:
        base = read_json(whole / folder / CONFIG).get("base_model_name_or_path")
        for start in (folder, root):
            path = posixpath.normpath(posixpath.join(start, base)) if isinstance(base, str) and base else ""
            if f"{path}/{MODEL}" in files.sizes:
                yield path


def _only(found: Collection[str], where: str) -> str | None:
    """Return the one folder that was found; None where there is none.

    Raises:
        UserError: there are several.
    """
    if len(found) > 1:
        listed = [printable_path(folder) for folder in found]
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise UserError(
            f"{len(found)} checkpoints are in here: {', '.join(listed[:5])}{more}",
            where=printable_path(where),
            next_step=f"name one of them: --adapters {printable_path(where.rstrip('/'))}/{listed[0]}",
        )
    return next(iter(found), None)


def _below(folder: Path, ending: str) -> Iterator[str]:
    """Yield the paths of files below a folder whose names end so; hidden folders are not looked into."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name).relative_to(folder).as_posix() for name in names if name.endswith(ending))


def problem_folder(settings: EvalSettings, say: Say) -> tuple[Folder, str]:
    """Return the dataset that problems come from, and its name for the tables: with the commit, where it is the Hub's.

    Args:
        settings: of the evaluation.
        say: is told what the user should know.

    Raises:
        UserError: there is neither a built dataset nor published raw files; or they cannot be had.
    """
    if settings.expressions is not None:
        return ExpressionFolder(settings.expressions, settings.splits, say), settings.expressions
    place = local_or_hub(settings.data, "dataset", "--data", say)
    if isinstance(place, HubPlace):
        files = look_up(place, say)
        if MANIFEST in files.sizes:
            wanted = partial(_is_needed, tasks=settings.task, split=settings.split)
            return HeldFolder(download(files, wanted)), str(files.place)
        raw = raw_files(files.sizes, settings.split, str(place))
        if raw:
            return PublishedFolder(download(files, raw.__contains__), raw, say), str(files.place)
    else:
        folder = open_folder(settings.data)
        if not folder.local:
            raise UserError(
                "problems are read from a dataset folder on this machine", where=printable_path(settings.data)
            )
        if folder.manifest():
            return HeldFolder(folder.path), settings.data
        raw = raw_files(_below(folder.path, ".jsonl"), settings.split, settings.data)
        if raw:
            return PublishedFolder(folder.path, raw, say), settings.data
        raise no_dataset(folder, EITHER)
    raise UserError("there is no dataset in this repository", where=str(files.place), allowed=EITHER)


class HeldFolder(Folder):
    """A dataset whose manifest is read once: whoever builds there meanwhile does not change what is evaluated."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._manifest = super().manifest()
        define_machines(self._manifest, self.where(MANIFEST))

    def manifest(self) -> dict[str, Any]:
        return self._manifest


def _is_needed(path: str, tasks: Collection[str], split: str) -> bool:
    """Tell whether a file of a built dataset is needed: the manifest, and a split's shards of tasks (none: of all)."""
    config, _, name = path.partition("/")
    task, _, view = config.rpartition("-")
    shard = (
        is_parquet(path) and view in VIEWS.values() and (not tasks or task in tasks) and name.startswith(f"{split}-")
    )
    return shard or path in (MANIFEST, CARD)


# Tasks and modes


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
        own = [task for task in tasks if executor(task) in adapters or aligner(task) in adapters]
        if others := [task for task in tasks if task in manifest["tasks"] and task not in own]:
            notes.append(f"{', '.join(others)}: left out, no adapter is theirs")
        tasks = own
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
    more = f"; and {len(notes) - 2} more" if len(notes) > 2 else ""
    next_step = f"name another --task or --mode, or other rows than those of {printable_path(place)}"
    if lacking:
        next_step = f"caef-data adapters --task {','.join(lacking)} lists those that each mode needs"
    return UserError(
        f"nothing can be evaluated: {'; '.join(notes[:2]) or 'no adapter of any task was found'}{more}",
        where=", ".join(printable_path(place) for place in (settings.adapters, place) if place),
        allowed="adapters in executors/<task>/ and aligners/<task>/, and rows of these tasks",
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
