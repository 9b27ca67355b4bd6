"""``caef-data contamination``: which lines of texts, and rows of tables, hold test or stress expressions."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from rich.text import Text

from ..atomic import aside, place
from ..errors import UserError, printable_path, quoted, shell_quoted
from ..tm import machine
from .held_out import HeldOut, Hit
from .hub_source import dataset_here
from .manifest import MANIFEST
from .store import open_folder
from .terminal import Meter, open_console
from .text_columns import plain_schema, text_columns
from .verify_manifest import read_manifest
from .workers import default_workers

SIZE = 2 << 20  # bytes of rows that are looked at together: polars takes many times the memory of it
BATCH = 4096  # rows of a table, at most
PLACES = 10  # of a file, that are told
CELLS = (".csv", ".tsv")
PACKED = {".gz": "gzip", ".zst": "zstd --long=31", ".bz2": "bzip2", ".lz4": "lz4 -m"}  # what unpacks them
CANNOT = {  # sound archives that pyarrow does not unpack, by what it says of them
    "too much memory": "it was packed by zstd with a window larger than 128 MiB (--long=28 to 31)",
    "frameType_unknown": "it holds something that is no LZ4 frame, such as what lz4 -l packs",
}
SUFFIXES = (".txt", ".md", ".json", ".jsonl", ".parquet", *CELLS)
# A quote opens a cell where a cell begins, and nowhere else; inside of it a line break ends no row.
CSV_CELL = rb'(?:"(?:[^"]++|"")*+"|(?!"))[^,;\t\n]*+'
CSV_ROW = re.compile(rb"%b(?:[,;\t]%b)*+\n" % (CSV_CELL, CSV_CELL))
CSV_ROWS = re.compile(rb"%b|[\0-\xff]++" % CSV_ROW.pattern)  # at last what is no whole row yet
KINDS, SPLITS = ("expressions", "entries"), ("test", "stress")
NOT_LOOKED_AT = (pa.ArrowNotImplementedError, pl.exceptions.PolarsError, pl.exceptions.PanicException)
Rows: TypeAlias = list[bytes] | pa.RecordBatch


@dataclass
class Found:
    """What was found in a file: of ``lines``, or rows of a table, ``lines_found`` hold something."""

    path: str
    lines: int = 0
    lines_found: int = 0
    counts: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)  # of hits, by task, kind and split
    places: list[dict[str, Any]] = field(default_factory=list)  # the first ones
    unread: str = ""  # a table's columns without text

    def take(self, rows: Rows, hits: Sequence[Hit]) -> Rows:
        """Take what was found in the next rows; return those that hold nothing."""
        for hit in hits:
            split, counts = SPLITS[hit.stress], self.counts.setdefault(hit.task, {}).setdefault(KINDS[hit.entry], {})
            counts[split] = counts.get(split, 0) + 1
            if len(self.places) < PLACES:
                line = self.lines + hit.row + 1
                self.places.append({"line": line, "task": hit.task, "split": split, "text": hit.text})
        own = {hit.row for hit in hits}
        self.lines, self.lines_found = self.lines + len(rows), self.lines_found + len(own)
        if own and isinstance(rows, pa.RecordBatch):
            return rows.filter(pa.array(row not in own for row in range(len(rows))))
        return [row for number, row in enumerate(rows) if number not in own] if own else rows


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
    log, count, files = open_console(stderr=True), workers or default_workers(), files_of(names)
    one = len(files) == 1 and Path(names[0]).is_file()
    targets = {file: Path(out) if one else Path(out) / name for file, name in files.items()} if out else {}
    if there := next(filter(os.path.exists, targets.values()), None):
        what = "this is there already, and a copy would replace it"
        raise UserError(what, where=printable_path(there), next_step="name another --clean")
    held, results = held_out_of(against, log.print), list[Found]()
    with ThreadPoolExecutor(count) as threads, Meter(log, "looking", sum(map(os.path.getsize, files))) as meter:
        for file in files:
            results.append(scan(file, held, threads, 2 * count, targets.get(file), meter))
            if unread := results[-1].unread:
                log.print(Text(f"{printable_path(file)}: not looked at: columns {unread}"))
    if as_json:
        print(json.dumps({"against": against, "files": [*map(asdict, results)]}, indent=1))
    else:
        _print(results, against)
    return any(found.lines_found for found in results)


def held_out_of(directory: str, say: Callable[[str], object]) -> HeldOut:
    """Return the expressions of a dataset's test and stress splits; ``say`` is told of downloads."""
    frames = list[pl.LazyFrame]()
    folder = open_folder(dataset_here(directory, say, shards=lambda path: "/train-" not in path))
    with folder.on_disk() as path:
        manifest = read_manifest(path)
        tasks = {config.rpartition("-")[0] for config in manifest["configs"]}
        for config, splits in sorted(manifest["configs"].items()):
            if not machine(config.rpartition("-")[0]).numbers:
                say(f"{config}: the words of Turing machines are not looked for")
                continue
            for split in SPLITS:
                for shard in splits[split]["shards"] if split in splits else ():
                    own = pl.scan_parquet(path / shard["path"]).select(pl.col("task", "a", "b").cast(pl.String))
                    frames.append(own.with_columns(stress=pl.lit(split == "stress")).unique())
        if not frames and not any(machine(task).numbers for task in tasks):
            what = "this dataset holds words of Turing machines alone, which are not looked for"
            raise UserError(what, where=printable_path(directory), allowed="a dataset of expressions, such as 12+9=")
        if not frames:
            what, advice = "this dataset has no test or stress rows", "build them: caef-data build ... --split test"
            raise UserError(what, where=printable_path(directory), next_step=advice)
        return HeldOut(pl.concat(frames).unique().collect())


def files_of(names: Sequence[str]) -> dict[Path, Path]:
    """Return the files that are meant, each with its name in a folder of cleaned copies.

    Of a folder these are the files whose names end in ``SUFFIXES``, of a dataset of ours the shards of train.

    Raises:
        UserError: one is not there, or a folder holds none.
    """
    files = dict[Path, Path]()
    for path in map(Path, names):
        own = [path]
        if path.is_dir():
            below = path.glob("*-*/train-*.parquet" if (path / MANIFEST).exists() else "**/*")
            own = sorted(file for file in below if file.is_file() and unpacked(file).endswith(SUFFIXES))
        if not own or not path.exists():
            what = "there is nothing in this folder to look at" if path.exists() else "there is no such file"
            allowed = f"files that end in {', '.join((*SUFFIXES, *PACKED))}; a dataset with a train split"
            raise UserError(what, where=printable_path(path), allowed=allowed)
        if not own[0].is_file():  # a pipe or a device: each file is opened again after a look at how it begins
            what, advice = "this is no file on a disk", "write it to a file first: ... > corpus.txt"
            raise UserError(what, where=printable_path(path), next_step=advice)
        files |= {file: file.relative_to(path) if path.is_dir() else Path(file.name) for file in own}
    return files


def unpacked(path: Path) -> str:
    """Return the name of a file without the suffix that says how it is packed."""
    return path.stem if path.suffix in PACKED else path.name


def scan(  # noqa: PLR0913
    path: Path, held: HeldOut, threads: Executor, most: int, target: Path | None, meter: Meter
) -> Found:
    """Look for expressions in a file.

    Args:
        path: the file.
        held: what is looked for.
        threads: look at rows.
        most: blocks of rows that are read ahead.
        target: where a copy without the rows that were found is written; its name says whether it is packed.
        meter: is told how far it is, after each block.

    Raises:
        UserError: it cannot be read, or it is a table without a column of text.
    """
    found, waiting, cells = Found(str(path)), deque[tuple[Rows, Future[list[Hit]]]](), unpacked(path).endswith(CELLS)
    where = printable_path(path)
    try:
        with open(path, "rb") as file:
            table = pq.ParquetFile(file) if file.peek(4)[:4] == b"PAR1" else None
            blocks = _lines(path, cells) if table is None else _batches(table, found)
            with nullcontext() if target is None else _copy(target, table) as write:
                for rows in chain(blocks, [None] * most):
                    if rows is not None:
                        waiting.append((rows, threads.submit(lambda rows: held.find(_texts(rows), cells), rows)))
                    if waiting and (rows is None or len(waiting) > most):
                        first, hits = waiting.popleft()
                        kept = found.take(first, hits.result())
                        if write is not None:
                            write(kept)
                        line = f"{where}: {found.lines:,} lines, {found.lines_found:,} with hits"
                        meter.update(line, advance=sum(map(len, first)) if isinstance(first, list) else first.nbytes)
    except (pa.ArrowException, OSError, EOFError, zlib.error, *NOT_LOOKED_AT) as error:
        if getattr(error, "errno", None) is not None:  # the system's
            raise
        raise _unreadable(path, error) from error
    return found


def _unreadable(path: Path, error: BaseException) -> UserError:
    """Return the error for a file that is damaged, or that no library here reads."""
    where = printable_path(path)
    if isinstance(error, NOT_LOOKED_AT):
        what, advice = "this cannot be looked at", "write its columns of text to another file, as plain strings"
        return UserError(f"{what}: {quoted(error, 160)}", where=where, next_step=advice)
    why = next((why for sign, why in CANNOT.items() if sign in str(error)), quoted(error, 160))
    advice, tool = "look whether the file is whole", PACKED.get(path.suffix)
    if tool is not None:
        file = shell_quoted(path)
        advice += f": {tool} -t {file}; if so, unpack it ({tool} -dk {file}) and name what comes out"
    return UserError(f"this cannot be read to its end: {why}", where=where, next_step=advice)


def _lines(path: Path, cells: bool) -> Iterator[list[bytes]]:
    """Yield the lines of a text, some together; of a CSV file its rows."""
    where = printable_path(path)
    packed = gzip.open(path) if path.suffix == ".gz" else pa.input_stream(path)  # pyarrow takes no zeros behind gzip's
    with io.BufferedReader(packed, 1 << 16) as file:
        if b"\0" in file.peek():
            allowed = "text in UTF-8, or in a code that holds ASCII; Parquet"
            raise UserError("this is no text", where=where, allowed=allowed)
        rest = b""
        while lines := file.readlines(max(SIZE, len(rest))):
            if cells:
                *lines, rest = CSV_ROWS.findall(rest + b"".join(lines))
                if CSV_ROW.fullmatch(rest):
                    lines, rest = [*lines, rest], b""
            if lines:
                yield lines
        if rest and not CSV_ROW.fullmatch(rest + b"\n"):
            what = "a quote is opened and never closed: its rows cannot be told apart"
            raise UserError(what, where=where, next_step="name it .txt to take its lines")
        if rest:
            yield [rest]


def _batches(table: pq.ParquetFile, found: Found) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a table, some together; take note of the columns that hold no text."""
    texts, groups = text_columns(table.schema_arrow), map(table.metadata.row_group, range(table.num_row_groups))
    others = [f"{printable_path(own.name)} ({own.type})" for own in table.schema_arrow if own.name not in texts]
    found.unread = ", ".join(others)
    if not texts:
        what = f"no column of this table can be looked at: {found.unread or 'it has none'}"
        raise UserError(what, where=printable_path(found.path), allowed="columns of strings, in lists and structs too")
    row = max(1, sum(group.total_byte_size for group in groups) // max(1, table.metadata.num_rows))
    schema = plain_schema(table.schema_arrow)
    for rows in table.iter_batches(max(1, min(BATCH, SIZE // row))):
        columns = [
            own if own.type == plain.type else own.cast(plain.type)
            for own, plain in zip(rows.columns, schema, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _texts(rows: Rows) -> pl.Series:
    """Return the text of each row: a line each column; of lists and structs as JSON."""
    if not isinstance(rows, pa.RecordBatch):
        return pl.Series([row.decode("utf-8", "replace") for row in rows], dtype=pl.String)
    frame = pl.DataFrame(rows.select(text_columns(rows.schema)))
    columns = (
        pl.struct(name).struct.json_encode() if kind.is_nested() else pl.col(name).cast(pl.String)
        for name, kind in frame.schema.items()
    )
    return frame.select(pl.concat_str(columns, separator="\n", ignore_nulls=True)).to_series()


@contextmanager
def _copy(target: Path, table: pq.ParquetFile | None) -> Iterator[Callable[[Any], object]]:
    """Yield what writes rows to a new file, which is there when all are written."""
    attempt = f"{os.getpid()}-"  # two commands may write the same copy at once
    with aside(target, attempt) as file:
        if table is None:
            with pa.output_stream(file.name) as packed:  # as its name says
                yield packed.writelines
        else:
            with pq.ParquetWriter(file, plain_schema(table.schema_arrow), compression="zstd") as writer:
                yield writer.write_batch
    place(target, attempt, new=True)


def _print(results: Sequence[Found], against: str) -> None:
    told = []
    for found in results:
        path = printable_path(found.path)
        for task, kinds in sorted(found.counts.items()):
            told += [
                f"{path}: {n:,} {kind} of {task}, {split}" for kind, own in kinds.items() for split, n in own.items()
            ]
        for one in found.places:
            at, text = f"{path}, line or row {one['line']:,}", printable_path(one["text"])
            told.append(f"{at}: {one['task']}, {one['split']}: {text}")
    lines, hit = sum(found.lines for found in results), sum(found.lines_found for found in results)
    holds = f"{hit:,} of {lines:,} lines and rows hold" if hit else f"none of {lines:,} lines and rows holds"
    told.append(f"{holds} an expression or entry of test or stress of {printable_path(against)}")
    open_console().print(Text("\n".join(told)))
