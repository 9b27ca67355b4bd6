"""Exports the rows of a dataset as JSON files for other training tools.

export.json                              what is exported, and from what; written last
dataset_info.json                        names the splits for LLaMA-Factory (alpaca only)
llamafactory.yaml                        how it trains on one of them (alpaca with --tokenizer only)
<task>-<view>/<split>/00000-of-00004.*   one file a shard, its rows in their order
.writing/                                what is being written; there only while (or after) an export is unfinished
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import pyarrow as pa

from ..atomic import put
from ..errors import UserError, printable_path, quoted, shell_quoted, telling_of_full_disk
from ..tm import machine, tasks
from ..tm.instructions import instruction
from .export_rows import LAYOUTS, Part, Style, damaged, opened, row_texts, select
from .folder import Folder
from .manifest import CONFIG, ShardRecord, WrongError, check_identity, check_split, json_bytes, understood
from .settings import SPLITS, digest
from .store import open_folder
from .workers import default_workers

VERSION = 1  # of export.json
DONE, INFO, RECIPE, ASIDE = "export.json", "dataset_info.json", "llamafactory.yaml", ".writing"
FILE = re.compile(r"\d{5}-of-\d{5}\.(jsonl|json)")
ELSEWHERE = "choose another folder with --out"

Progress = Callable[[str, ShardRecord, bool], None]
Entries = dict[tuple[str, str], dict[str, Any]]  # what export.json says of a split, by config and split


def export(
    directory: str,
    out: str,
    style: Style,
    *,
    configs: Sequence[str] = (),
    splits: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Entries:
    """Export a finished dataset; return the entries of what was exported.

    Args:
        directory: the dataset, a path or an fsspec URL.
        out: the folder to export to; another export of the same style in it is added to.
        style: how the rows are written.
        configs: those to export; all by default.
        splits: those to export; all by default.
        overwrite: replace what was exported there in another style, or from other rows.
        progress: called with every file written.

    Raises:
        UserError: there is no such dataset, config or split, or a shard is damaged; the folder is none of ours or holds
            something else; or the disk is full.
    """
    source, into = open_folder(directory), open_folder(out)
    if not into.local:
        advice = "export to a folder with --out, then copy it there"
        raise UserError("an export is written to a folder on this machine", where=printable_path(out), next_step=advice)
    target = into.path
    select(source, configs, splits)  # a folder that is not there shall not be locked: that would make it
    full_disk = telling_of_full_disk(printable_path(out), "make room and run the same command again")
    with source.lock(shared=True), full_disk:
        parts, manifest = select(source, configs, splits), source.manifest()
        kept = _kept(target, style, parts, overwrite)
        origin, aside = {key: manifest[key] for key in ("identity", "versions")}, target / ASIDE
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            made = _write_all(source, aside, style, parts, progress)
            _note(target, style, origin, kept)  # never names what goes now, and marks the folder as ours
            for name in (INFO, RECIPE):
                (target / name).unlink(missing_ok=True)
            for folder in _split_folders(target):
                if (folder.parent.name, folder.name) not in kept:
                    shutil.rmtree(folder)
            for config in filter(lambda path: CONFIG.fullmatch(path.name), target.iterdir()):
                with suppress(OSError):  # a split is left in it
                    config.rmdir()
            for name, split in made:
                (target / name).mkdir(exist_ok=True)
                os.rename(aside / name / split, target / name / split)
            if style.format == "alpaca":
                _describe(target, style, parts, {**kept, **made})
            _note(target, style, origin, {**kept, **made})
        finally:
            shutil.rmtree(aside)
    return made


def _kept(target: Path, style: Style, parts: Sequence[Part], overwrite: bool) -> Entries:
    """Return the entries of an earlier export in the folder that stay.

    Raises:
        UserError: the folder is none of ours, or what it holds has to go and ``overwrite`` does not say that it may.
    """
    if target.exists() and not target.is_dir():
        raise UserError("this is a file, not a folder", where=printable_path(target), next_step=ELSEWHERE)
    if not target.is_dir() or not any(target.iterdir()):
        return {}
    ours = (target / DONE).exists() or (target / ASIDE).is_dir()
    # Tools read every file of a split's folder, whatever its name is.
    held = [path for folder in _split_folders(target) for path in folder.iterdir()] if ours else [target]
    for path in held:
        if path.is_dir() or not FILE.fullmatch(path.name):
            what = "this folder holds files that caef-data export did not write; it is left alone"
            raise UserError(what, where=printable_path(path), next_step=f"move them away, or {ELSEWHERE}")
    mark, kept = _read(target / DONE) if (target / DONE).exists() else (style.mark, {})
    other = ""
    if mark != style.mark:
        other, kept = f"an export in format {quoted(mark['format'])} for the stage {quoted(mark['stage'])}", {}
    for part in parts:
        entry = kept.pop((part.name, part.split), None)
        if entry and entry["identity"] != part.identity:
            other = other or f"{part.name} {part.split} of another dataset"
    if other and not overwrite:
        advice = f"add --overwrite to replace it, or {ELSEWHERE}"
        raise UserError(f"this folder holds {other}", where=printable_path(target), next_step=advice)
    return {pair: entry for pair, entry in kept.items() if target.joinpath(*pair).is_dir()}  # others were removed since


def _split_folders(target: Path) -> Iterator[Path]:
    """Yield the folders of splits in an export; links are none of ours."""
    for config in sorted(target.iterdir()):
        for folder in (config / split for split in SPLITS) if CONFIG.fullmatch(config.name) else ():
            if folder.is_dir() and not folder.is_symlink() and not config.is_symlink():
                yield folder


def _read(done: Path) -> tuple[dict[str, str], Entries]:
    """Return the mark and the entries of an export.json."""

    def check(content: dict[str, Any]) -> None:
        if content["version"] != VERSION:
            raise WrongError(f"it has version {quoted(content['version'])}, this one reads version {VERSION}")
        for name, splits in content["configs"].items():
            for split, entry in splits.items():
                check_split(name, split)
                check_identity(entry["identity"])
        content["format"], content["stage"]

    try:
        content = understood(done.read_bytes(), check)
    except ValueError as error:
        what, advice = f"{DONE} cannot be understood: {error}", f"{ELSEWHERE}, or remove this one"
        raise UserError(what, where=printable_path(done), next_step=advice) from error
    mark: dict[str, str] = {key: content[key] for key in ("format", "stage", "begin", "end") if key in content}
    configs = content["configs"].items()
    return mark, {(name, split): entry for name, splits in configs for split, entry in splits.items()}


def _write_all(source: Folder, aside: Path, style: Style, parts: Sequence[Part], progress: Progress | None) -> Entries:
    """Write all files under ``aside``; return their entries.

    Threads do the work: reading Parquet, making JSON, hashing and writing hold no lock of Python's.
    """
    made: Entries = {}
    jobs = []
    for part in parts:
        (aside / part.name / part.split).mkdir(parents=True)
        longest = {"longest": _longest(part, style)} if style.tokenizer else {}
        made[part.name, part.split] = {"identity": part.identity, "rows": 0, "bytes": 0, "files": [], **longest}
        for number, shard in enumerate(part.shards):
            name = f"{number:05d}-of-{len(part.shards):05d}.{LAYOUTS[style.format].suffix}"
            jobs.append((part, shard, f"{part.name}/{part.split}/{name}"))
    with ThreadPoolExecutor(default_workers()) as pool:  # an error ends what has not begun
        for part, record in pool.map(lambda job: (job[0], _write(source, aside, style, *job[1:])), jobs):
            entry = made[part.name, part.split]
            entry["rows"], entry["bytes"] = entry["rows"] + record.rows, entry["bytes"] + record.bytes
            entry["files"].append({key: getattr(record, key) for key in ("path", "rows", "bytes", "sha256")})
            if progress is not None:
                progress(part.name, record, False)
    return made


def _write(source: Folder, aside: Path, style: Style, shard: ShardRecord, path: str) -> ShardRecord:
    """Write the rows of a shard as JSON; return what the file holds."""
    rows, sha256 = 0, hashlib.sha256()
    with opened(source, shard) as file, open(aside / path, "wb") as sink:
        try:
            for count, text in row_texts(file, style):
                rows += count
                sha256.update(text)
                sink.write(text)
        except (pa.ArrowException, ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # Arrow's own OSError has no number
            raise damaged(source, shard, quoted(error, 160)) from error
        if rows != shard.rows:
            raise damaged(source, shard, f"it has {rows:,} rows, not {shard.rows:,}")
        sink.flush()
        os.fsync(sink.fileno())
        return ShardRecord(path, rows, sink.tell(), sha256.hexdigest(), {})


def _note(target: Path, style: Style, origin: dict[str, Any], entries: Entries) -> None:
    """Write export.json."""
    from .. import __version__

    identity = digest([style.mark, sorted(entry["identity"] for entry in entries.values())])
    own = {"version": VERSION, "caef_data": __version__, "identity": identity, "source": origin}
    configs: dict[str, dict[str, Any]] = {}
    for (name, split), entry in entries.items():
        configs.setdefault(name, {})[split] = entry
    put(target / DONE, json_bytes({**style.mark, **own, "configs": configs}))


def _describe(target: Path, style: Style, parts: Sequence[Part], entries: Entries) -> None:
    """Write what LLaMA-Factory reads beside the rows."""
    columns = {"prompt": "instruction", "query": "input", "response": "output"}
    about = {"formatting": "alpaca", "columns": columns}  # it reads all files of a folder
    info = {f"{name}-{split}": {"file_name": f"{name}/{split}", **about} for name, split in entries}
    put(target / INFO, json_bytes(info))
    if style.tokenizer:
        first = min(parts, key=lambda part: (part.split != "train", not part.name.endswith("-one_step")))
        task, _, view = first.name.rpartition("-")
        kind = {"one_step": "executors", "slips": "executors", "aligner": "aligners"}.get(view, view)
        is_folder = os.path.isdir(style.tokenizer)  # the recipe is read from anywhere
        recipe = Template(files(__package__).joinpath(RECIPE).read_text("utf-8")).substitute(
            model=json.dumps(os.path.abspath(style.tokenizer) if is_folder else style.tokenizer),
            folder=json.dumps(os.path.abspath(target)),
            adapter=f"{kind}/{task}",
            dataset=f"{first.name}-{first.split}",
            longest=max(entry["longest"] for entry in entries.values()),
        )
        put(target / RECIPE, recipe.encode())


def _longest(part: Part, style: Style) -> int:
    """Return the bytes of the longest row, or more: rows have no more tokens."""
    task, _, view = part.name.rpartition("-")
    more = instruction(machine(task), view) if style.stage == "first" and task in tasks() else ""
    texts = max(sum(most for _, most in shard.chars.values()) for shard in part.shards)
    return texts + len(f"{more}{style.begin}{style.end}".encode())


def export_with_progress(
    directory: str, out: str, style: Style, configs: Sequence[str], splits: Sequence[str], overwrite: bool
) -> None:
    """Export, with progress on stderr and a summary on stdout."""
    from .console import ShardMeter
    from .terminal import new_table, open_console, print_table, size_text

    rows = sum(part.rows for part in select(open_folder(directory), configs, splits))
    progress = ShardMeter(open_console(stderr=True), "exporting", rows)
    with progress:
        made = export(directory, out, style, configs=configs, splits=splits, overwrite=overwrite, progress=progress)
    console, table = open_console(), new_table("rows", "files", "size")
    for pair, entry in made.items():
        table.add_row(*pair, f"{entry['rows']:,}", f"{len(entry['files']):,}", size_text(entry["bytes"]))
    print_table(console, table)
    target, size = open_folder(out).path, size_text(sum(entry["bytes"] for entry in made.values()))
    config, split = min(made, key=lambda pair: not pair[0].endswith("-one_step"))
    paths = json.dumps(f"{target / config / split}/*.{LAYOUTS[style.format].suffix}")
    console.print(f"{rows:,} rows, {size} in {printable_path(out)} after {progress.seconds:,.1f} s")
    console.print(f'read it:  load_dataset("json", data_files={{"{split}": {paths}}}, split="{split}")')
    if style.tokenizer:
        console.print(f"train on it: llamafactory-cli train {shell_quoted(target / RECIPE)}")
    elif style.format == "alpaca":
        console.print(f"LLaMA-Factory: --dataset_dir {shell_quoted(target)} --dataset {config}-{split}")
        advice = "export with --tokenizer to avoid that, or eval with its --template"
        console.print(f"it writes text around each prompt: {advice}")
