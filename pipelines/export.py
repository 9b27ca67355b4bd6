"""Exports the rows of a dataset as JSON files for other training tools, into a new folder.

export.json                              what is exported, and from what
dataset_info.json                        names the splits for LLaMA-Factory (alpaca only)
llamafactory.yaml                        how it trains on one of train (alpaca with --tokenizer only)
<task>-<view>/<split>/*.jsonl            one file a shard, a row a line, in their order
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, BinaryIO

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ..atomic import TEMPORARY, put, sync
from ..errors import UserError, check_name, printable_path, quoted, shell_quoted, telling_of_full_disk
from ..tm import machine
from ..tm.instructions import instruction
from .folder import Folder, no_dataset
from .manifest import ShardRecord, define_machines, json_bytes, shard_record
from .settings import SPLITS
from .store import open_folder
from .terminal import new_table, open_console, print_table, size_text
from .workers import default_workers

BATCH = 1024  # rows made into text at once: they fit the processor's cache; 8192 took twice the time with instructions
COLUMNS = {"first": ["instruction", "prompt", "completion"], "second": ["prompt", "completion"]}  # by stage
FORMATS = ("jsonl", "alpaca", "chat")
RECIPE = "llamafactory.yaml"

Progress = Callable[[str, ShardRecord, bool], None]
Entries = dict[tuple[str, str], dict[str, int]]  # rows and bytes, by config and split


@dataclass(frozen=True)
class Style:
    """How rows are written.

    Args:
        format: ``jsonl``, ``alpaca`` or ``chat``.
        stage: ``first`` puts each row's instruction before its prompt, ``second`` leaves it out.
        tokenizer: the model whose tokens stand around rows, for alpaca: no template of LLaMA-Factory adds just these.
        begin: text of the token before each prompt.
        end: text of the token behind each completion.

    Raises:
        UserError: there is no such format or stage, or the format takes no text around rows.
    """

    format: str = "jsonl"
    stage: str = "second"
    tokenizer: str = ""
    begin: str = ""
    end: str = ""

    def __post_init__(self) -> None:
        check_name("--format", self.format, FORMATS)
        check_name("--stage", self.stage, COLUMNS)
        if self.tokenizer and self.format != "alpaca":
            what = f"rows of the format {self.format} are written as they are: their trainers add the end token"
            raise UserError(what, where="--tokenizer", allowed="--format alpaca --tokenizer MODEL")

    def rows(self) -> dict[str, pl.Expr]:
        """Return what makes rows of this style of the columns of a dataset."""
        prompt = pl.concat_str(pl.lit(self.begin), *COLUMNS[self.stage][:-1])
        completion = pl.concat_str("completion", pl.lit(self.end))
        if self.format == "jsonl":
            return {"prompt": prompt, "completion": completion}
        if self.format == "alpaca":
            return {"instruction": prompt, "input": pl.lit(""), "output": completion}
        said = {"user": prompt, "assistant": completion}
        turns = [pl.struct(role=pl.lit(role), content=text) for role, text in said.items()]
        return {"messages": pl.concat_list(*turns)}


@dataclass(frozen=True)
class Part:
    """One split of a config, and its shards in order."""

    name: str
    split: str
    shards: tuple[ShardRecord, ...]


def select(source: Folder, configs: Sequence[str], splits: Sequence[str]) -> list[Part]:
    """Return the splits of a finished dataset that are asked for, in the order of their names; all by default.

    Raises:
        UserError: nothing is finished there, or there is no such config or split.
    """
    known = source.manifest().get("configs")
    if not known:
        raise no_dataset(source)
    for name in configs:
        check_name("--config", name, sorted(known))
    for name in splits:
        check_name("--split", name, SPLITS)
    names, wanted = sorted(set(configs) or known), [split for split in SPLITS if not splits or split in splits]
    without = [name for name in names if not known[name].keys() & wanted]
    if (configs and without) or without == names:
        what = f"there is no split {' or '.join(wanted)} of {', '.join(without)} in {printable_path(source.name)}"
        allowed = ", ".join(split for split in SPLITS if any(split in known[name] for name in without))
        raise UserError(what, where="--split", allowed=allowed)
    return [
        Part(name, split, tuple(map(shard_record, known[name][split]["shards"])))
        for name in names
        for split in wanted
        if split in known[name]
    ]


@contextmanager
def opened(source: Folder, shard: ShardRecord) -> Iterator[BinaryIO]:
    """Open a shard for reading, if its bytes are those that the manifest says.

    Raises:
        UserError: they are not, or what is read in the block is no Parquet file.
    """
    try:
        if not source.equals(shard.path, shard.bytes, shard.sha256):
            raise ValueError("it is missing, or its sha256 is another one")
        with source.open(shard.path) as file:
            yield file
    except (pa.ArrowException, ValueError, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise  # Arrow's own OSError has no number
        raise UserError(
            f"a shard is not what the manifest says: {quoted(str(error), 160)}",
            where=source.where(shard.path),
            next_step=f"caef-data verify {shell_quoted(source.name)}, then build it again: what is intact is kept",
        ) from error


def export(
    directory: str,
    out: str,
    style: Style,
    *,
    configs: Sequence[str] = (),
    splits: Sequence[str] = (),
    progress: Progress | None = None,
) -> Entries:
    """Export a finished dataset; return the rows and bytes of each split. A stopped export leaves nothing.

    Args:
        directory: the dataset, a path or an fsspec URL.
        out: the folder to export to, a new or an empty one.
        style: how the rows are written.
        configs: those to export; all by default.
        splits: those to export; all by default.
        progress: called with every file written.

    Raises:
        UserError: there is no such dataset, config or split, or a shard is damaged; there is something in the folder;
            or the disk is full.
    """
    source, into, where = open_folder(directory), open_folder(out), printable_path(out)
    if not into.local:
        advice = "export to a folder with --out, then copy it there"
        raise UserError("an export is written to a folder on this machine", where=where, next_step=advice)
    parts, target = select(source, configs, splits), into.path.absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        advice = f"choose another one with --out, or remove it: rm -r {shell_quoted(out)}"
        raise UserError("an export needs a new folder, and something is here", where=where, next_step=advice)
    aside = target.with_name(f"{TEMPORARY}{target.name}")
    with telling_of_full_disk(where, "make room and run the same command again"):
        try:
            shutil.rmtree(aside, ignore_errors=True)
            made = _write_all(source, aside, style, parts, progress)
            _describe(aside, target, style, source, parts, made)
            os.replace(aside, target)
            sync(target.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return made


def _write_all(source: Folder, aside: Path, style: Style, parts: Sequence[Part], progress: Progress | None) -> Entries:
    """Write all files under ``aside``. Threads do it: reading Parquet, making JSON and writing hold no lock."""
    made: Entries = {(part.name, part.split): {"rows": 0, "bytes": 0} for part in parts}
    jobs = [
        (part, shard, aside / part.name / part.split / f"{number:05d}-of-{len(part.shards):05d}.jsonl")
        for part in parts
        for number, shard in enumerate(part.shards)
    ]
    with ThreadPoolExecutor(default_workers()) as pool:  # an error ends what has not begun
        sizes = pool.map(lambda job: _write(source, style, *job[1:]), jobs)
        for (part, shard, path), size in zip(jobs, sizes, strict=True):
            made[part.name, part.split]["rows"] += shard.rows
            made[part.name, part.split]["bytes"] += size
            if progress is not None:
                progress(part.name, ShardRecord(str(path), shard.rows, size, "", {}), False)
    return made


def _write(source: Folder, style: Style, shard: ShardRecord, path: Path) -> int:
    """Write the rows of a shard as JSON; return the bytes of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with opened(source, shard) as file, open(path, "wb") as sink:
        if (rows := write_rows(file, style, sink)) != shard.rows:
            raise ValueError(f"it has {rows:,} rows, not {shard.rows:,}")
        sink.flush()
        os.fsync(sink.fileno())
        return sink.tell()


def write_rows(file: BinaryIO, style: Style, sink: BinaryIO) -> int:
    """Write the rows of a shard as lines of JSON, in their order; return how many there are.

    Raises:
        ValueError: a text is missing, or is no UTF-8.
        pyarrow.ArrowException: this is no Parquet file.
    """
    columns, rows = COLUMNS[style.stage], 0
    with pq.ParquetFile(file) as parquet:
        for group in range(parquet.num_row_groups):  # a batch never spans two: the rows of some are megabytes long
            for batch in parquet.iter_batches(BATCH, row_groups=[group], columns=columns, use_threads=False):
                batch.validate(full=True)
                if set(batch.schema.names) != set(columns) or any(column.null_count for column in batch.columns):
                    raise ValueError(f"a row has no {', '.join(columns)}")
                text = io.BytesIO()  # what polars raises where a disk is full names no cause
                pl.DataFrame(batch).select(**style.rows()).write_ndjson(text)
                sink.write(text.getbuffer())
                rows += batch.num_rows
    return rows


def _describe(aside: Path, target: Path, style: Style, source: Folder, parts: Sequence[Part], made: Entries) -> None:
    """Write what stands beside the rows: where they are from, and what LLaMA-Factory reads."""
    from .. import __version__

    manifest, configs = source.manifest(), dict[str, dict[str, Any]]()
    for (name, split), entry in made.items():
        configs.setdefault(name, {})[split] = entry
    origin = {key: manifest[key] for key in ("identity", "versions")}
    about = {"format": style.format, "stage": style.stage, "begin": style.begin, "end": style.end}
    put(aside / "export.json", json_bytes({**about, "caef_data": __version__, "source": origin, "configs": configs}))
    if style.format == "alpaca":  # it reads all files of a folder
        how = {"formatting": "alpaca", "columns": {"prompt": "instruction", "query": "input", "response": "output"}}
        info = {f"{name}-{split}": {"file_name": f"{name}/{split}", **how} for name, split in made}
        put(aside / "dataset_info.json", json_bytes(info))
    if style.tokenizer and (train := [part for part in parts if part.split == "train"]):
        define_machines(manifest, source.name)
        first = min(train, key=lambda part: not part.name.endswith("-one_step"))
        task, _, view = first.name.rpartition("-")
        kind = {"one_step": "executors", "slips": "executors", "aligner": "aligners"}.get(view, view)
        is_folder = os.path.isdir(style.tokenizer)  # the recipe is read from anywhere
        recipe = Template(files(__package__).joinpath(RECIPE).read_text("utf-8")).substitute(
            model=json.dumps(os.path.abspath(style.tokenizer) if is_folder else style.tokenizer),
            folder=json.dumps(str(target)),
            adapter=f"{kind}/{task}",
            dataset=f"{first.name}-{first.split}",
            longest=max(_longest(part, style) for part in parts),
        )
        put(aside / RECIPE, recipe.encode())


def _longest(part: Part, style: Style) -> int:
    """Return the bytes of the longest row, or more: rows have no more tokens."""
    task, _, view = part.name.rpartition("-")
    more = instruction(machine(task), view) if style.stage == "first" else ""
    texts = max(sum(most for _, most in shard.chars.values()) for shard in part.shards)
    return texts + len(f"{more}{style.begin}{style.end}".encode())


def export_with_progress(directory: str, out: str, style: Style, configs: Sequence[str], splits: Sequence[str]) -> None:
    """Export, with progress on stderr and a summary on stdout."""
    from .console import ShardMeter

    rows = sum(shard.rows for part in select(open_folder(directory), configs, splits) for shard in part.shards)
    with ShardMeter(open_console(stderr=True), "exporting", rows) as progress:
        made = export(directory, out, style, configs=configs, splits=splits, progress=progress)
    console, table = open_console(), new_table("rows", "size")
    for pair, entry in made.items():
        table.add_row(*pair, f"{entry['rows']:,}", size_text(entry["bytes"]))
    print_table(console, table)
    target, size = open_folder(out).path, size_text(sum(entry["bytes"] for entry in made.values()))
    config, split = min(made, key=lambda pair: (pair[1] != "train", not pair[0].endswith("-one_step")))
    paths = json.dumps(f"{target / config / split}/*.jsonl")
    console.print(f"{rows:,} rows, {size} in {printable_path(out)} after {progress.seconds:,.1f} s")
    console.print(f'read it:  load_dataset("json", data_files={{"{split}": {paths}}}, split="{split}")')
    if split != "train":
        if style.tokenizer:
            console.print(f"no {RECIPE}: no train split was exported")
    elif style.tokenizer:
        console.print(f"train on it: llamafactory-cli train {shell_quoted(target / RECIPE)}")
    elif style.format == "alpaca":
        console.print(f"LLaMA-Factory: --dataset_dir {shell_quoted(target)} --dataset {config}-{split}")
        advice = "export with --tokenizer to avoid that, or eval with its --template"
        console.print(f"it writes text around each prompt: {advice}")
