"""``caef-data contamination``: which lines of texts, and rows of tables, hold test or stress expressions."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from rich.text import Text

from ..errors import UserError, printable_path, quoted, shell_quoted, telling_of_full_disk
from ..tm import machine
from .held_out import HeldOut
from .hub_source import dataset_here
from .manifest import MANIFEST
from .scanned import KINDS, SPLITS, Found, clean, refusal, scan, unpacked
from .store import open_folder
from .terminal import Meter, new_table, open_console, print_table
from .verify_manifest import read_manifest
from .workers import default_workers

SHOWN = 5  # places of a file that are printed for people
SUFFIXES = (".txt", ".md", ".json", ".jsonl", ".csv", ".tsv", ".parquet")
Say = Callable[[str], object]


def held_out_of(directory: str, say: Say) -> HeldOut:
    """Return the expressions of a dataset's test and stress splits.

    Args:
        directory: a path, a URL or ``hf://datasets/user/name``.
        say: is told of what is left out, and of downloads.

    Raises:
        UserError: there is no dataset, or it has no such rows, or a file of it cannot be read.
    """
    found, words = dict[str, list[pl.DataFrame]](), set[str]()
    folder = open_folder(dataset_here(directory, say, shards=lambda path: "/train-" not in path))
    with folder.on_disk() as path:
        for config, splits in sorted(read_manifest(path)["configs"].items()):
            task = config.rpartition("-")[0]
            if not machine(task).numbers:
                words.add(task)
                continue
            for split, entry in splits.items():
                for shard in entry["shards"] if split != "train" else ():
                    rows = _operands(path, shard["path"]).with_columns(stress=pl.lit(split == "stress"))
                    found.setdefault(task, []).append(rows)
    if words:
        say(f"{', '.join(sorted(words))}: the words of Turing machines are not looked for")
    if not found:
        advice = "build them: caef-data build ... --split test"
        raise UserError("this dataset has no test or stress rows", where=printable_path(directory), next_step=advice)
    return HeldOut({task: pl.concat(frames).unique(maintain_order=True) for task, frames in found.items()})


def _operands(path: Path, shard: str) -> pl.DataFrame:
    try:
        with (path / shard).open("rb") as file:
            rows = pl.DataFrame(pl.from_arrow(pq.read_table(file, columns=["a", "b"])))
        return rows.cast(pl.String).unique()
    except (OSError, pa.ArrowException, ValueError, pl.exceptions.PolarsError) as error:
        what, advice = f"this cannot be read: {quoted(str(error), 160)}", f"caef-data verify {shell_quoted(path)}"
        raise UserError(what, where=printable_path(path / shard), next_step=advice) from error


def files_of(names: Sequence[str], say: Say) -> dict[Path, Path]:
    """Return the files that are meant, each with its name in a folder of cleaned copies.

    Of a folder these are the files whose names end in ``SUFFIXES``, of a dataset of ours the shards of train.

    Raises:
        UserError: one is not there, or a folder holds none.
    """
    files = dict[Path, Path]()
    for path in map(Path, names):
        where = printable_path(path)
        if path.is_file():
            files[path] = Path(path.name)
            continue
        if not path.is_dir():
            problem = "this is no regular file" if path.exists() else "there is no such file"
            raise UserError(problem, where=where, allowed="files of text, Parquet tables, or folders of them")
        below = sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())
        ours = (path / MANIFEST).exists()
        if ours:
            told = "its train rows are looked at, which hold entries of machines that sub, mul and div call"
            say(f"{where} is a dataset of caef-data: {told}")
            own = [file for file in below if file.match("*-*/train-*.parquet")]
        else:
            own = [file for file in below if unpacked(file).endswith(SUFFIXES)]
            own = [file for file in own if not any(part.startswith(".") for part in file.parts)]
        if not own:
            allowed = "a train split" if ours else f"files that end in {', '.join(SUFFIXES)}; and .gz or .zst behind it"
            raise UserError("there is nothing in this folder to look at", where=where, allowed=allowed)
        files |= {path / file: file for file in own}
    return files


def look_for(  # noqa: PLR0913
    names: Sequence[str], against: str, out: str | None, workers: int | None, *, as_json: bool
) -> bool:
    """Look for a dataset's test and stress expressions, print what is found, and tell whether there is any.

    Args:
        names: files and folders.
        against: the dataset.
        out: where copies without the lines that were found are written: the file of one, the folder of several.
        workers: threads; None for one a processor.
        as_json: print JSON.

    Raises:
        UserError: something cannot be read, or a copy would replace a file.
    """
    log, notes = open_console(stderr=True), list[str]()
    files = files_of(names, notes.append)
    targets = _targets(files, names, out)
    held, count = held_out_of(against, notes.append), workers or default_workers()
    for note in notes:
        log.print(note)
    total, done, results = sum(os.path.getsize(file) for file in files), 0, list[Found]()
    with ThreadPoolExecutor(count) as threads, Meter(log, "looking", total) as meter:
        for file in files:
            before = os.stat(file)

            def told(found: Found, file: Path = file, begun: int = done, most: int = before.st_size) -> None:
                line = f"{printable_path(file)}: {found.lines:,} lines, {found.hit_lines:,} with hits"
                meter.update(line, completed=begun + min(found.size, most))

            results.append(scan(file, held, threads, 2 * count, told))
            if unread := results[-1].unread:
                notes.append(f"{printable_path(file)}: not looked at: columns {unread}")
                log.print(Text(notes[-1]))
            done += before.st_size
            meter.update("", completed=done)
            if targets:
                with telling_of_full_disk(printable_path(targets[file]), "make room and run the same command again"):
                    clean(results[-1], targets[file])
            after = os.stat(file)
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                if targets:
                    targets[file].unlink()
                raise UserError("this file was changed while it was read", where=printable_path(file))
    hit = any(found.hit_lines for found in results)
    if as_json:
        told_ = {"against": against, "found": hit, "files": [_as_json(found, targets) for found in results]}
        print(json.dumps({**told_, "notes": notes}, indent=1))
    else:
        _print(results, against, targets)
    return hit


def _targets(files: dict[Path, Path], names: Sequence[str], out: str | None) -> dict[Path, Path]:
    """Return where the copy of each file is written; nothing that is there is replaced."""
    if out is None:
        return {}
    one = len(files) == 1 and Path(names[0]).is_file()
    targets = {file: Path(out) if one else Path(out) / name for file, name in files.items()}
    if len({*targets.values()}) < len(targets):
        what = "two of the files would have the same name in one folder"
        raise UserError(what, where=f"--clean {printable_path(out)}", next_step="clean them one at a time")
    for target in targets.values():
        if target.exists():
            raise refusal(target)
    return targets


def _as_json(found: Found, targets: dict[Path, Path]) -> dict[str, Any]:
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for (task, kind, split), count in sorted(found.counts.items()):
        counts.setdefault(task, {}).setdefault(kind, {})[split] = count
    told: dict[str, Any] = {"path": str(found.path), "table": found.table, "lines": found.lines}
    told |= {"lines_found": found.hit_lines, "counts": counts, "places": found.places}
    return told | ({"clean": str(targets[found.path])} if targets else {})


def _print(results: Sequence[Found], against: str, targets: dict[Path, Path]) -> None:
    console, table = open_console(), new_table(*KINDS, *SPLITS, first=("file", "task"))
    for found in results:
        for task in sorted({task for task, _, _ in found.counts}):
            own = {key: count for key, count in found.counts.items() if key[0] == task}
            sums = (sum(count for key, count in own.items() if name in key) for name in (*KINDS, *SPLITS))
            table.add_row(printable_path(found.path), task, *(f"{count:,}" for count in sums))
    if table.row_count:
        print_table(console, table)
    for found in results:
        for one in found.places[:SHOWN]:
            column = f", {printable_path(one['column'])}" if one["column"] else ""
            place = f"{printable_path(found.path)}, {'row' if found.table else 'line'} {one['line']:,}{column}"
            console.print(Text(f"{place}: {one['task']}, {one['split']}: {printable_path(one['text'])}"))
        if (more := sum(found.counts.values()) - SHOWN) > 0:
            console.print(Text(f"{printable_path(found.path)}: and {more:,} more"))
    lines, hit = sum(found.lines for found in results), sum(found.hit_lines for found in results)
    told = f"{hit:,} of {lines:,} lines and rows hold" if hit else f"none of {lines:,} lines and rows holds"
    console.print(Text(f"{told} an expression or entry of test or stress of {printable_path(against)}"))
    for target in targets.values():
        console.print(Text(f"without these lines: {printable_path(target)}"))
