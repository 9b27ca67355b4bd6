"""The folder that an export writes: what marks it as ours, what is finished in it, and what has no place there.

export.json                              what is exported, and from what; written last
dataset_info.json                        names the splits for LLaMA-Factory (alpaca only)
llamafactory.yaml                        how it trains on one of them (alpaca with --tokenizer only)
<task>-<view>/<split>/00000-of-00004.*   one file a shard, its rows in their order
.caef/                                   notes of an export under way; there only while (or after) it is unfinished
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ..errors import UserError, clip, shown
from .export_formats import LAYOUTS, TEXTS
from .local_folder import FINISHED, LocalFolder
from .manifest import CONFIG, STATE, WrongError, check_identity, check_split, json_bytes, shard_record, understood
from .settings import SPLITS
from .shard import TEMPORARY, ShardRecord
from .store import split_url

FORMAT = 1  # of export.json and of the notes
DONE, INFO, RECIPE, NOTES = "export.json", "dataset_info.json", "llamafactory.yaml", f"{STATE}/export.json"
FILE = re.compile(rf"({re.escape(TEMPORARY)})?\d{{5}}-of-\d{{5}}\.(jsonl|json)")
FOREIGN = "this folder holds files that caef-data export did not write; it is left alone"


class ExportFolder:
    """A folder on this machine that is exported to; it need not exist yet.

    Args:
        name: the folder as the user named it.

    Raises:
        UserError: this cannot be the name of a folder.
    """

    def __init__(self, name: str) -> None:
        url = split_url(name)
        if url is not None and url[0] != "file":
            raise UserError(
                "an export is written to a folder on this machine",
                where=shown(name),
                next_step="export to a folder with --out, then copy it there",
            )
        self.name = name
        self.disk = LocalFolder(Path(name if url is None else url[1]))
        self.path = self.disk.path

    def check_ours(self) -> None:
        """Refuse a folder that holds something, but no export of ours; and one with strange files among the rows.

        Training tools read every file of a split's folder, whatever its name is.

        Raises:
            UserError: it does, or it is a file.
        """
        elsewhere = "choose another folder with --out"
        if self.path.exists() and not self.path.is_dir():
            raise UserError("this is a file, not a folder", where=shown(self.name), next_step=elsewhere)
        if self.path.is_dir() and any(self.path.iterdir()) and not (self.path / DONE).exists() and not self._marked():
            raise UserError(FOREIGN, where=shown(self.name), next_step=elsewhere)
        for path in self._files() if self.path.is_dir() else ():
            if path.is_dir() or not FILE.fullmatch(path.name):
                raise UserError(FOREIGN, where=shown(path), next_step=f"move this file away, or {elsewhere}")

    def _marked(self) -> bool:
        """Tell whether notes of an unfinished export lie here, and nothing else where they lie."""
        state = self.path / STATE
        known = {Path(NOTES).name, Path(FINISHED).name}
        return (
            state.is_dir()
            and not state.is_symlink()
            and all(path.name in known or path.name.startswith(TEMPORARY) for path in state.iterdir())
        )

    def _files(self) -> Iterator[Path]:
        """Yield all that lies in the folders of splits."""
        for folder in self._folders():
            if folder.name in SPLITS:
                yield from sorted(folder.iterdir())

    def _folders(self) -> list[Path]:
        """Return the folders of splits and, after its splits, of each config; links are none of ours."""
        configs = sorted(path for path in self.path.iterdir() if CONFIG.fullmatch(path.name) and not path.is_symlink())
        found = [path for config in configs for path in (*(config / split for split in SPLITS), config)]
        return [path for path in found if path.is_dir() and not path.is_symlink()]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one export.

        Raises:
            UserError: another one holds it.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(self.disk.lock())
            except UserError as error:
                raise UserError(
                    "another export is writing into this folder",
                    where=error.where,
                    next_step="wait for it, or choose another folder with --out",
                ) from None
            yield

    def done(self) -> dict[str, Any]:
        """Return what is exported here, as export.json says; empty where there is none.

        Raises:
            UserError: it cannot be read, or is of a later version.
        """
        return self._json(DONE)

    def notes(self) -> dict[str, Any]:
        """Return what an unfinished export is making; empty where there is none.

        Raises:
            UserError: it cannot be read.
        """
        return self._json(NOTES)

    def _json(self, path: str) -> dict[str, Any]:
        text = self.disk.read(path)
        try:
            return {} if text is None else understood(text, _check)
        except ValueError as error:
            raise UserError(
                f"{path} cannot be understood: {error}",
                where=self.disk.where(path),
                next_step="choose another folder with --out, or remove this one",
            ) from error

    def begin(self, notes: dict[str, Any], *, go_on: bool) -> None:
        """Note what an export will make, before its first file.

        Args:
            notes: what it will make.
            go_on: keep the notes of finished files: they are this export's too.
        """
        if not go_on:
            (self.path / FINISHED).unlink(missing_ok=True)
        self.disk.put(NOTES, json_bytes({"version": FORMAT, **notes}))

    def drop(self, kept: dict[str, Any]) -> None:
        """Have export.json name only what is kept, before the rest is made anew or goes."""
        for name in (INFO, RECIPE):
            (self.path / name).unlink(missing_ok=True)
        if kept["configs"]:
            self.disk.put(DONE, json_bytes(kept))
        else:
            (self.path / DONE).unlink(missing_ok=True)

    def sweep(self, keep: Container[str]) -> None:
        """Remove files of rows except those to keep, files that were being written, and folders left empty."""
        self.disk.sweep_aside()
        for path in self._files():
            if path.relative_to(self.path).as_posix() not in keep:
                path.unlink()
        for folder in self._folders():
            if not any(folder.iterdir()):
                folder.rmdir()

    def finish(self, done: dict[str, Any], files: Mapping[str, bytes]) -> None:
        """Write what is exported here, the files beside the rows first, and forget the notes."""
        for name, content in files.items():
            self.disk.put(name, content)
        self.disk.put(DONE, json_bytes({"version": FORMAT, **done}))
        self.disk.forget()


def records(entry: dict[str, Any]) -> dict[str, ShardRecord]:
    """Return the files that export.json names for a split, by path."""
    return {one["path"]: shard_record({**one, "chars": {}}, is_export) for one in entry.get("files", [])}


def is_export(path: str) -> bool:
    """Tell whether a path inside an export is that of a file of rows."""
    config, _, rest = path.partition("/")
    split, _, name = rest.partition("/")
    return CONFIG.fullmatch(config) is not None and split in SPLITS and FILE.fullmatch(name) is not None


def _check(content: dict[str, Any]) -> None:
    if content["version"] != FORMAT:
        raise WrongError(f"it has version {clip(content['version'])}, this one reads version {FORMAT}")
    for key, known in (("format", LAYOUTS), ("stage", TEXTS)):
        if content[key] not in known:
            raise WrongError(f"{key} is {clip(content[key])}")
    for key in ("begin", "end"):
        if not isinstance(content.get(key, ""), str):
            raise WrongError(f"{key} is {clip(content[key])}")
    for name, splits in content["configs"].items():
        for split, entry in splits.items():
            check_split(name, split)
            check_identity(entry["identity"])
            records(entry)
            if not isinstance(entry.get("longest", 0), int):
                raise WrongError(f"longest is {clip(entry['longest'])}")
