"""Exports a built folder's rows as JSON files: resumable, one at a time, done only when export.json is written."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ..errors import UserError, clip, nearest, shown, telling_of_full_disk
from ..tm import machine, tasks
from ..tm.instructions import instruction
from .build import again_in, argument
from .export_folder import INFO, RECIPE, ExportFolder, is_export, records
from .export_formats import BARE, LAYOUTS, TEXTS, Around, write_rows
from .export_recipe import recipe
from .export_source import Part, damaged, opened, read_manifest, select
from .folder import Folder
from .manifest import json_bytes
from .settings import digest
from .shard import ShardRecord, aside, place
from .store_folder import open_folder
from .workers import default_workers

ESCAPED, FRAME = 1.05, 120  # bytes of a JSON string for a byte of text, and of what stands around a row: about


@dataclass(frozen=True)
class Style:
    """How rows are written: as ``jsonl``, ``alpaca`` or ``chat``, for the ``first`` or the ``second`` training stage.

    Rows for LLaMA-Factory (``alpaca``) may hold the tokens that begin and end a text, since none of its templates adds
    just these.

    Raises:
        UserError: there is no such format or stage, or the format takes no text around rows.
    """

    format: str = "jsonl"
    stage: str = "second"
    around: Around = BARE

    def __post_init__(self) -> None:
        for name, value, known in (("format", self.format, LAYOUTS), ("stage", self.stage, TEXTS)):
            if value not in known:
                raise UserError(
                    f"there is no {name} {clip(value)}{nearest(value, known)}",
                    where=f"--{name}",
                    allowed=", ".join(known),
                )
        if self.around.tokenizer and self.format != "alpaca":
            raise UserError(
                f"rows of the format {self.format} are written as they are: their trainers add the end token",
                where="--tokenizer",
                allowed="--format alpaca --tokenizer MODEL",
            )


@dataclass(frozen=True)
class Job:
    """What is exported from where to where, how it is written, what export.json says of the dataset, the command."""

    source: Folder
    target: ExportFolder
    style: Style
    parts: tuple[Part, ...]
    origin: dict[str, Any]
    command: str

    def files(self, part: Part) -> list[tuple[ShardRecord, str]]:
        """Return the files of a part: the shard in the dataset, and the path in the target."""
        suffix = LAYOUTS[self.style.format].suffix
        return [
            (shard, f"{part.name}/{part.split}/{number:05d}-of-{len(part.shards):05d}.{suffix}")
            for number, shard in enumerate(part.shards)
        ]

    @property
    def mark(self) -> dict[str, str]:
        """What two exports into one folder must share."""
        around = self.style.around
        ends = {"begin": around.begin, "end": around.end} if around.tokenizer else {}
        return {"format": self.style.format, "stage": self.style.stage, **ends}


@dataclass(frozen=True)
class PartResult:
    """What became of one split of a config: its files, their rows and bytes, and how many were there already."""

    name: str
    split: str
    files: int
    rows: int
    bytes: int
    kept: int


Progress = Callable[[Part, ShardRecord, bool], None]
File = tuple[Part, ShardRecord, str]  # what it is a part of, the shard in the dataset, the path in the target


def export(
    directory: str,
    out: str,
    style: Style,
    *,
    configs: Sequence[str] = (),
    splits: Sequence[str] = (),
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[PartResult]:
    """Export a finished dataset, or finish an earlier export of it.

    Args:
        directory: the dataset, a path or an fsspec URL.
        out: the folder to export to; another export of the same style in it is added to.
        style: how the rows are written.
        configs: those to export; all by default.
        splits: those to export; all by default.
        workers: threads; one a processor by default.
        overwrite: replace what was exported there in another style, or from other rows.
        progress: called with every file; True for one that was there already.

    Raises:
        UserError: there is no such dataset, config or split, a shard is damaged; the folder is not ours, is being
            exported to, or holds something else; or the disk is full.
    """
    source, target = open_folder(directory), ExportFolder(out)
    read_manifest(source)  # a folder that is not there shall not be locked: that would make it
    target.check_ours()
    with source.lock(shared=True):
        manifest = read_manifest(source)
        parts = select(source, manifest, configs, splits)
        origin = {key: manifest[key] for key in ("identity", "versions")}
        job = Job(source, target, style, parts, origin, command(directory, out, style, configs, splits))
        go_on = "make room and run the same command again: finished files are kept"
        with target.lock(), telling_of_full_disk(shown(out), go_on):
            return _export(job, workers or default_workers(), overwrite, progress or (lambda *_: None))


def command(directory: str, out: str, style: Style, configs: Sequence[str] = (), splits: Sequence[str] = ()) -> str:
    """Return the command line of an export."""
    options = [f"--config {argument(name)}" for name in configs] + [f"--split {argument(name)}" for name in splits]
    if style.around.tokenizer:
        options.insert(0, f"--tokenizer {argument(style.around.tokenizer)}")
    line = " ".join([f"caef-data export {argument(directory)} --format {style.format} --stage {style.stage}", *options])
    return again_in(line, out)


def _export(job: Job, workers: int, overwrite: bool, progress: Progress) -> list[PartResult]:
    target = job.target
    go_on = _goes_on(job, overwrite)
    there = target.done()
    left = _agreed(job, there, overwrite or go_on)
    known = _records(left) | (target.disk.finished(is_export) if go_on else {})
    files = [(part, shard, path) for part in job.parts for shard, path in job.files(part)]
    finished = {path: known[path] for _, _, path in files if path in known and target.disk.holds(known[path])}
    todo = [file for file in files if file[2] not in finished]
    _check_space(job, todo)
    target.begin({**job.mark, "command": job.command, "configs": _identities(job)}, go_on=go_on)
    if left != there.get("configs", {}):  # export.json forgets what is replaced before the files go
        target.drop({**there, "configs": left})
    kept = frozenset(finished)
    target.sweep(kept | (_records(left).keys() - {path for _, _, path in files}))
    for part, _, path in files:
        if path in kept:
            progress(part, finished[path], True)
    with closing(_run(job, todo, workers)) as running:  # its threads end with this block
        for part, record in running:
            target.disk.note(record)
            finished[record.path] = record
            progress(part, record, False)
    configs = {name: dict(splits) for name, splits in left.items()}
    results = []
    for part in job.parts:
        own = [finished[path] for _, path in job.files(part)]
        entry = _entry(part, own, job.style)
        configs.setdefault(part.name, {})[part.split] = entry
        number = sum(record.path in kept for record in own)
        results.append(PartResult(part.name, part.split, len(own), entry["rows"], entry["bytes"], number))
    target.finish(_done(job, configs), _files(job, configs))
    return results


def _goes_on(job: Job, overwrite: bool) -> bool:
    """Tell whether the export goes on with an unfinished one: all that is wanted there is wanted now.

    Raises:
        UserError: something else is unfinished, and ``overwrite`` does not say that it may go.
    """
    notes, wanted = job.target.notes(), _identities(job)
    if not notes:
        return False
    same = _mark(notes) == job.mark and all(
        wanted.get(name, {}).get(split) == entry
        for name, splits in notes["configs"].items()
        for split, entry in splits.items()
    )
    if not same and not overwrite:
        raise UserError(
            "an unfinished export of something else lies in this folder",
            where=shown(job.target.name),
            next_step=f"finish it with `{_resumed(job, notes)}`, or add --overwrite to drop it",
        )
    return same


def _mark(content: dict[str, Any]) -> dict[str, str]:
    return {key: content[key] for key in ("format", "stage", "begin", "end") if key in content}


def _resumed(job: Job, notes: dict[str, Any]) -> str:
    """Return the command that goes on with an unfinished export, spelled out from what its notes say of it."""
    configs = notes["configs"]
    words = ["caef-data export DATASET", f"--format {notes['format']}", f"--stage {notes['stage']}"]
    words += ["--tokenizer TOKENIZER"] if "begin" in notes else []
    words += [f"--config {name}" for name in sorted(configs)]
    words += [f"--split {split}" for split in sorted({split for splits in configs.values() for split in splits})]
    return again_in(" ".join(words), job.target.name)


def _agreed(job: Job, there: dict[str, Any], replace: bool) -> dict[str, Any]:
    """Return what may stay of an earlier export: its configs, as export.json has them.

    Raises:
        UserError: something of it does not agree with this export, and ``replace`` does not say that it may go.
    """
    configs = {name: dict(splits) for name, splits in there.get("configs", {}).items()}
    other = ""
    if there and _mark(there) != job.mark:
        other = f"an export in format {clip(there['format'])} for the stage {clip(there['stage'])}"
        configs = {}
    for part in job.parts:
        entry = configs.get(part.name, {}).get(part.split)
        if entry is not None and entry["identity"] != part.identity:
            other = other or f"{part.name} {part.split} of another dataset"
            configs[part.name].pop(part.split)
    if other and not replace:
        raise UserError(
            f"this folder holds {other}",
            where=shown(job.target.name),
            next_step="add --overwrite to replace it, or choose another folder with --out",
        )
    return {name: splits for name, splits in configs.items() if splits}


def _check_space(job: Job, todo: Sequence[File]) -> None:
    needed = 0.0
    for part, shard, _ in todo:
        needed += ESCAPED * sum(total for total, _ in shard.chars.values())
        needed += shard.rows * (_instruction(part, job.style.stage) + FRAME)
    free = job.target.disk.free()
    if free is not None and needed > free:
        raise UserError(
            f"the export needs about {needed / 1e6:,.1f} MB of disk, {free / 1e6:,.1f} MB are free",
            where=shown(job.target.name),
            next_step="make room, choose another folder with --out, or export less (--config, --split)",
        )


def _run(job: Job, todo: Sequence[File], workers: int) -> Generator[tuple[Part, ShardRecord], None, None]:
    """Yield the part and the record of every file as they are finished.

    Threads do the work: reading Parquet, making JSON, hashing and writing hold no lock of Python's.
    """
    stopped = threading.Event()
    pool = ThreadPoolExecutor(workers)
    try:
        waiting = {pool.submit(_write, job, shard, path, stopped): part for part, shard, path in todo}
        for future in as_completed(waiting):
            yield waiting[future], future.result()
    finally:
        stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)


class _StoppedError(Exception):
    """Ends a thread whose file nobody waits for any more."""


def _write(job: Job, shard: ShardRecord, path: str, stopped: threading.Event) -> ShardRecord:
    """Write a file aside, then put it in its place.

    Raises:
        UserError: the shard is not what the manifest says.
        OSError: the disk is full or cannot be written; nothing is left behind.
    """
    rows, layout = 0, LAYOUTS[job.style.format]
    with opened(job.source, shard) as source, aside(job.target.path / path) as sink:
        try:
            for count in write_rows(source, sink, layout, job.style.stage, job.style.around):
                rows += count
                if stopped.is_set():
                    raise _StoppedError
        except (pa.ArrowException, ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise damaged(job.source, shard, clip(error, 160)) from error  # Arrow's own OSError has no number
        if rows != shard.rows:
            raise damaged(job.source, shard, f"it has {rows:,} rows, not {shard.rows:,}")
        sink.seek(0)
        sha256 = hashlib.file_digest(sink, "sha256").hexdigest()
        size = sink.tell()
    place(job.target.path / path)
    return ShardRecord(path, rows, size, sha256, {})


def _identities(job: Job) -> dict[str, dict[str, dict[str, str]]]:
    """Return what an unfinished export says about the rows that it will hold, by config and split."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for part in job.parts:
        found.setdefault(part.name, {})[part.split] = {"identity": part.identity}
    return found


def _records(configs: dict[str, Any]) -> dict[str, ShardRecord]:
    """Return all files of some configs, by path."""
    found: dict[str, ShardRecord] = {}
    for splits in configs.values():
        for entry in splits.values():
            found |= records(entry)
    return found


def _entry(part: Part, own: Sequence[ShardRecord], style: Style) -> dict[str, Any]:
    longest = {"longest": _longest(part, style)} if style.around.tokenizer else {}
    return {
        **longest,
        "identity": part.identity,
        "rows": sum(record.rows for record in own),
        "bytes": sum(record.bytes for record in own),
        "files": [{key: getattr(record, key) for key in ("path", "rows", "bytes", "sha256")} for record in own],
    }


def _done(job: Job, configs: dict[str, Any]) -> dict[str, Any]:
    """Return what export.json says of a finished export."""
    from .. import __version__

    rows = sorted(entry["identity"] for splits in configs.values() for entry in splits.values())
    return {
        **job.mark,
        "caef_data": __version__,
        "identity": digest([job.mark, rows]),
        "source": job.origin,
        "configs": configs,
    }


def _files(job: Job, configs: dict[str, Any]) -> dict[str, bytes]:
    """Return what a training tool reads beside the rows, by name."""
    if job.style.format != "alpaca":
        return {}
    found = {INFO: json_bytes(_dataset_info(configs))}
    if job.style.around.tokenizer:
        first = min(job.parts, key=lambda part: (part.split != "train", not part.name.endswith("-one_step")))
        longest = max(entry["longest"] for splits in configs.values() for entry in splits.values())
        found[RECIPE] = recipe(job.style.around.tokenizer, str(job.target.path), first, longest).encode()
    return found


def _longest(part: Part, style: Style) -> int:
    """Return the bytes of the longest row, or more: rows have no more tokens."""
    ends = len(style.around.begin.encode()) + len(style.around.end.encode())
    texts = max(sum(most for _, most in shard.chars.values()) for shard in part.shards)
    return ends + _instruction(part, style.stage) + texts


def _instruction(part: Part, stage: str) -> int:
    task, _, view = part.name.rpartition("-")
    return len(instruction(machine(task), view).encode()) if stage == "first" and task in tasks() else 0


def _dataset_info(configs: dict[str, Any]) -> dict[str, Any]:
    """Return LLaMA-Factory's list of datasets: a split's folder each, all files of which it reads."""
    columns = {"prompt": "instruction", "query": "input", "response": "output"}
    return {
        f"{name}-{split}": {"file_name": f"{name}/{split}", "formatting": "alpaca", "columns": columns}
        for name, splits in configs.items()
        for split in splits
    }
