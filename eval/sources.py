"""Where adapters and problems come from: folders of this machine, or repositories of the Hub copied into its cache.

The published checkpoints hold ``ckpt/executors/addition`` and ``ckpt/aligners/addition`` at some depth; so may yours.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import UserError, printable_path
from ..pipelines.build import no_dataset
from ..pipelines.folder import Folder
from ..pipelines.hub_source import HubFiles, HubPlace, Say, download, is_parquet, local_or_hub, look_up
from ..pipelines.manifest import CARD, MANIFEST, define_machines
from ..pipelines.store import open_folder
from .files import CONFIG, read_json
from .problems import VIEWS
from .published import ExpressionFolder, PublishedFolder, raw_files
from .settings import EvalSettings

KINDS = ("executors", "aligners")
MODEL = "config.json"
EITHER = f"a dataset that caef-data built, with its {MANIFEST}, or published raw files (addition/test_5_5.jsonl)"


def checkpoints(paths: Iterable[str]) -> dict[str, set[str]]:
    """Return the folders below one that hold ``executors/<task>/`` or ``aligners/<task>/``, sorted, with these.

    ``paths`` are those of files, with slashes. The folder itself, an empty text, is the only one where it is one.
    """
    found: dict[str, set[str]] = {}
    for path in paths:
        *root, kind, _, name = ["", "", *path.split("/")]
        if name == CONFIG and kind in KINDS:
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
        holds = any((place / kind).is_dir() for kind in KINDS)  # else it is looked through
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
            allowed="executors/<task>/ and aligners/<task>/ in one of its folders, with adapters as peft saves them",
        )
    folders = {""} if root is None else found[root]
    whole = _download(files, folders, say)
    if not base_named and (base := set(_bases(whole, folders, root or "", files))):
        whole = _download(files, folders | base, say)
    return whole / (root or "")


def _download(files: HubFiles, folders: Collection[str], say: Say) -> Path:
    return download(files, lambda path: posixpath.dirname(path) in folders and not path.endswith(".parquet"), say)


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
            return HeldFolder(download(files, wanted, say)), str(files.place)
        raw = raw_files(files.sizes, settings.split, str(place))
        if raw:
            return PublishedFolder(download(files, raw.__contains__, say), raw, say), str(files.place)
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
        raise no_dataset(folder, "eval --data", EITHER)
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
