"""Files of text and tables as blocks in which expressions are looked for, and what was found in a file.

A block ends with a line; of a table it is some rows of a column. A line of many blocks is cut, and each part sees what
stands around it. Threads look at blocks; what they find is counted in order.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..atomic import aside, place
from ..errors import UserError, printable_path, quoted
from ..tm.columns import I64
from .held_out import HeldOut, Hit

SIZE = 2 << 20  # bytes of a block: polars takes many times the memory of it
AHEAD, BEFORE = 1 << 20, 16  # bytes that a part of a line sees of what follows it, and of what it follows
ROWS = 8192  # of a table together, at most
PLACES = 10  # of a file, that are told
CELLS = (".csv", ".tsv")
PACKED = {".gz": "gzip", ".zst": "zstd"}
MAGIC = {b"\x1f\x8b\x08": "gzip", b"\x28\xb5\x2f": "zstd"}
KINDS, SPLITS = ("expressions", "entries"), ("test", "stress")


class Block(NamedTuple):
    """A part of a file.

    Args:
        data: its bytes; where a line is cut, those around it too.
        at: place of the first of them in the file.
        begin: where what belongs to the block begins in them.
        stop: and where that stops.
        quoted: of a CSV file: whether they begin inside of quotes, where a line break ends no row; else None.
        ends: of a table: where the text of each row ends.
        rows: of a table: the number of each.
        column: of a table: the column.
    """

    data: bytes
    at: int
    begin: int
    stop: int
    quoted: bool | None = None
    ends: I64 | None = None
    rows: I64 | None = None
    column: str | None = None

    def find(self, held: HeldOut) -> tuple[list[Hit], I64]:
        """Return what is found, and where lines or rows end."""
        text, quotes, ends = np.frombuffer(self.data, np.uint8), None, self.ends
        if self.quoted is not None:
            quotes = np.append(np.full(int(self.quoted), -1), np.flatnonzero(text == ord('"')))
        if ends is None:
            ends = self.begin + np.flatnonzero(text[self.begin : self.stop] == ord("\n"))
            ends = ends if quotes is None else ends[np.searchsorted(quotes, ends) % 2 == 0]
        return [hit for hit in held.find(self.data, quotes) if self.begin <= hit.start < self.stop], ends


@dataclass(eq=False)
class Found:
    """What was found in a file.

    Attributes:
        path: the file.
        table: whether it is one; ``lines`` are its rows then.
        lines: how many it has.
        hit_lines: those with hits.
        counts: of hits, by (task, kind, split).
        places: the first ones.
        left_out: where lines with hits begin and end, shape (n, 2); of a table the numbers of such rows.
        unread: of a table: its columns that hold no text, by type; empty if all do.
        size: bytes of text so far.
    """

    path: Path
    table: bool = False
    lines: int = 0
    hit_lines: int = 0
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    places: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[I64] = field(default_factory=list)
    unread: str = ""
    size: int = 0
    _open_at: int = 0  # where a line begins that has not ended
    _open_hit: bool = False

    def take(self, block: Block, hits: Sequence[Hit], ends: I64) -> None:
        """Take what was found in the next block."""
        line = np.searchsorted(ends, np.array([hit.start for hit in hits], np.int64))
        self.counts.update((hit.task, KINDS[hit.entry], SPLITS[hit.stress]) for hit in hits)
        for hit, at in zip(hits[: PLACES - len(self.places)], line.tolist(), strict=False):
            first = int(ends[at - 1]) + 1 if at else block.begin
            last = int(ends[at]) if at < len(ends) else len(block.data)
            shown = block.data[
                max(first, hit.start - 30) : min(last, max(hit.stop + 20, hit.start + 70), hit.start + 200)
            ]
            number = self.lines + at if block.rows is None else int(block.rows[at])
            told = {"line": 1 + number, "column": block.column, "task": hit.task, "split": SPLITS[hit.stress]}
            self.places.append({**told, "text": shown.decode("utf-8", "replace").strip()})
        if block.rows is not None:
            self.left_out.append(block.rows[line])
            return
        # The last line may go on in the next block.
        own = np.unique(np.append(line, 0)) if self._open_hit else np.unique(line)
        self._open_hit = len(own) > 0 and int(own[-1]) == len(ends)
        own, starts = own[: len(own) - self._open_hit], np.append(self._open_at, block.at + ends + 1)
        self.left_out.append(np.stack([starts[own], starts[own + 1]], axis=1))
        self.hit_lines += len(own)
        self.lines += len(ends)
        self._open_at, self.size = int(starts[-1]), block.at + block.stop

    def finish(self) -> None:
        """Take note of the file's end."""
        if self.table:
            self.left_out = [np.unique(np.concatenate([np.empty(0, np.int64), *self.left_out]))]
            self.hit_lines = len(self.left_out[0])
            return
        self.lines += self._open_at < self.size
        self.hit_lines += self._open_hit
        if self._open_hit:
            self.left_out.append(np.array([[self._open_at, self.size]]))


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO | pq.ParquetFile]:
    """Open a file of text, unpacked if need be, or a Parquet table; what it holds tells which it is.

    Raises:
        UserError: it is neither, or damaged.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(1 << 16)
            file.seek(0)
            packing = MAGIC.get(head[:3])
            if head[:4] == b"PAR1":
                yield pq.ParquetFile(file)
            elif packing is not None:
                yield pa.CompressedInputStream(pa.PythonFile(file, "r"), packing)
            elif b"\0" in head:
                allowed = "text in UTF-8, or in another encoding that holds ASCII; Parquet; either .gz or .zst"
                raise UserError("this is no text", where=printable_path(path), allowed=allowed)
            else:
                yield file
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:  # the system's
            raise
        what = f"this cannot be read to its end: {quoted(str(error), 160)}"
        raise UserError(what, where=printable_path(path), next_step="look whether the file is whole") from error


def unpacked(path: Path) -> str:
    """Return the name of a file without the suffix that says how it is packed."""
    return path.stem if path.suffix in PACKED else path.name


def scan(path: Path, held: HeldOut, threads: Executor, most: int, told: Callable[[Found], None]) -> Found:
    """Look for expressions in a file.

    Args:
        path: the file.
        held: what is looked for.
        threads: look at blocks.
        most: blocks that are read ahead.
        told: is told how far it is, after each block.

    Raises:
        UserError: it cannot be read, or it is a table without a column of text.
    """
    found, waiting = Found(path), deque[tuple[Block, Future[tuple[list[Hit], I64]]]]()
    with opened(path) as source:
        if isinstance(source, pq.ParquetFile):
            found.table, found.lines = True, source.metadata.num_rows
            found.unread = _unread(source.schema_arrow, printable_path(path))
            blocks = table_blocks(source)
        else:
            blocks = text_blocks(source, unpacked(path).endswith(CELLS), printable_path(path))
        for block in blocks:
            waiting.append((block, threads.submit(block.find, held)))
            if len(waiting) > most:
                first, result = waiting.popleft()
                found.take(first, *result.result())
                told(found)
    for block, result in waiting:
        found.take(block, *result.result())
    found.finish()
    return found


def text_blocks(stream: BinaryIO, cells: bool, where: str) -> Iterator[Block]:
    """Yield the blocks of a text; ``cells``: of a CSV file."""
    data, at, begin, quoted, last_quote = b"", 0, 0, False, 0
    while new := stream.read(SIZE):
        data += new
        stop = end = data.rfind(b"\n", begin) + 1
        if not stop:
            if len(data) <= begin + SIZE + AHEAD:
                continue
            stop, end = len(data) - AHEAD, len(data)
        yield Block(data[:end], at, begin, stop, quoted if cells else None)
        cut = max(0, stop - BEFORE)
        if cells:
            last_quote = max(last_quote, at + data.rfind(b'"', 0, cut))
            quoted ^= data.count(b'"', 0, cut) % 2 == 1
        data, at, begin = data[cut:], at + cut, stop - cut
    if cells and quoted != (data.count(b'"') % 2 == 1):
        what, place = "a quote is opened and never closed: its rows cannot be told apart", at + data.rfind(b'"')
        where = f"{where}, behind byte {max(last_quote, place):,}"
        raise UserError(what, where=where, next_step="name it .txt to take its lines")
    if len(data) > begin:
        yield Block(data, at, begin, len(data), quoted if cells else None)


def table_blocks(table: pq.ParquetFile) -> Iterator[Block]:
    """Yield the blocks of a table's columns of text, some rows at a time."""
    at = 0
    for group in range(table.num_row_groups):
        held = table.metadata.row_group(group)
        size = max(1, min(ROWS, SIZE * held.num_rows // max(held.total_byte_size, 1)))
        for batch in table.iter_batches(size, row_groups=[group]):
            every = np.arange(at, at + len(batch))
            for field_, column in zip(batch.schema, batch.columns, strict=True):
                for name, texts, rows in _leaves(field_.name, column, every):
                    if _is_text(texts.type):
                        values = texts.cast(pa.large_binary()).fill_null(b"").to_pylist()
                        data, ends = b"\n".join(values), np.cumsum([len(value) + 1 for value in values]) - 1
                        yield Block(data, 0, 0, len(data) + 1, None, ends.astype(np.int64), rows, name)
            at += len(batch)


def _leaves(name: str, column: pa.Array, rows: I64) -> Iterator[tuple[str, pa.Array, I64]]:
    """Yield the names and values in a column, of lists and structs too, with the row of each value."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        yield from _leaves(name, column.storage, rows)
    elif pa.types.is_dictionary(kind):
        yield from _leaves(name, column.dictionary_decode(), rows)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _leaves(name, pc.list_flatten(column), rows[pc.list_parent_indices(column).to_numpy()])
    elif pa.types.is_struct(kind):
        for child, values in zip(kind, column.flatten(), strict=True):
            yield from _leaves(f"{name}.{child.name}", values, rows)
    else:
        yield name, column, rows


def _is_text(kind: pa.DataType) -> bool:
    return re.fullmatch(r"(large_)?(string|binary)(_view)?|fixed_size_binary\[\d+\]", str(kind)) is not None


def _unread(schema: pa.Schema, where: str) -> str:
    """Return the columns that hold no text, by type.

    Raises:
        UserError: none holds any.
    """
    none, names, texts = np.empty(0, np.int64), dict[str, list[str]](), 0
    for own in schema:
        for name, values, _ in _leaves(own.name, pa.nulls(0, own.type), none):
            if _is_text(values.type):
                texts += 1
            else:
                names.setdefault(str(values.type), []).append(printable_path(name))
    told = "; ".join(f"{', '.join(own)} ({kind})" for kind, own in names.items())
    if not texts:
        what = f"no column of this table can be looked at: {told or 'it has none'}"
        raise UserError(what, where=where, allowed="columns of strings or bytes, in lists and structs too")
    return told


def clean(found: Found, target: Path) -> None:
    """Write a copy of a file without the lines or rows that were found; the name says whether it is packed."""
    attempt = f"{secrets.token_hex(4)}-"  # two commands may write the same copy at once
    with opened(found.path) as source, aside(target, attempt) as file:
        if isinstance(source, pq.ParquetFile):
            _clean_table(source, found.left_out[0], file)
        elif packing := PACKED.get(target.suffix):
            with pa.CompressedOutputStream(pa.PythonFile(file, "w"), packing) as packed:
                _clean_text(source, found.left_out, packed)
        else:
            _clean_text(source, found.left_out, file)
    try:
        place(target, attempt, new=True)
    except FileExistsError as error:
        raise refusal(target) from error


def refusal(target: Path) -> UserError:
    """Return the error of a copy whose place is taken."""
    what = "this is there already, and a copy would replace it"
    return UserError(what, where=printable_path(target), next_step="name another --clean")


def _clean_text(source: BinaryIO, left_out: list[I64], sink: BinaryIO) -> None:
    at, kept = 0, True
    for border in chain.from_iterable(spans.ravel().tolist() for spans in [*left_out, np.array([1 << 62])]):
        while at < border and (data := source.read(min(SIZE, border - at))):
            at += len(data)
            if kept:
                sink.write(data)
        kept = not kept


def _clean_table(source: pq.ParquetFile, left_out: I64, sink: BinaryIO) -> None:
    columns, at = source.metadata.row_group(0) if source.num_row_groups else None, 0
    codec = columns.column(0).compression if columns is not None and columns.num_columns else "NONE"
    with pq.ParquetWriter(sink, source.schema_arrow, compression=codec) as writer:
        for group in range(source.num_row_groups):
            table = source.read_row_group(group)
            kept = np.ones(len(table), np.bool_)
            kept[left_out[(left_out >= at) & (left_out < at + len(table))] - at] = False
            if kept.any():
                writer.write_table(table.filter(pa.array(kept)), row_group_size=len(table))
            at += len(table)
