"""Files of text and tables as blocks in which expressions are looked for, and what was found in a file.

A block ends with a line, of a table it is some rows of a column. A line of many blocks is cut, and each part sees what
stands around it. Threads look at blocks, what they find is counted in order.
"""

from __future__ import annotations

import os
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..atomic import TEMPORARY, aside, sync
from ..errors import UserError, printable_path, quoted
from ..tm.columns import I64
from .held_out import HeldOut, Hits

SIZE = 4 << 20  # bytes of a block: larger ones fall out of the processor's cache
AHEAD, BEFORE = 1 << 20, 16  # bytes that a part of a line sees of what follows it, and of what it follows
ROWS = 8192  # of a table together, at most
PLACES = 10  # of a file, that are told
CELLS = (".csv", ".tsv")
PACKED = {".gz": "gzip", ".zst": "zstd"}
MAGIC = {b"\x1f\x8b\x08": "gzip", b"\x28\xb5\x2f": "zstd"}
KINDS, SPLITS = ("expressions", "entries"), ("test", "stress")


@dataclass(frozen=True, eq=False)
class Block:
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

    def find(self, held: HeldOut) -> tuple[Hits, I64]:
        """Return what is found, and where lines or rows end."""
        text, quotes, ends = np.frombuffer(self.data, np.uint8), None, self.ends
        if self.quoted is not None:
            quotes = np.append(np.full(int(self.quoted), -1), np.flatnonzero(text == ord('"')))
        if ends is None:
            ends = self.begin + np.flatnonzero(text[self.begin : self.stop] == ord("\n"))
            ends = ends if quotes is None else ends[np.searchsorted(quotes, ends) % 2 == 0]
        hits = held.find(self.data, quotes)
        return hits[(hits["start"] >= self.begin) & (hits["start"] < self.stop)], ends


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
    """

    path: Path
    table: bool = False
    lines: int = 0
    hit_lines: int = 0
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    places: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[I64] = field(default_factory=list)
    _open_at: int = 0  # where a line begins that has not ended
    _open_hit: bool = False
    size: int = 0  # bytes of text so far
    unread: str = ""

    def take(self, block: Block, hits: Hits, ends: I64, held: HeldOut) -> None:
        """Take what was found in the next block."""
        line = np.searchsorted(ends, hits["start"])
        for code, count in enumerate(np.bincount(hits["task"] * 4 + hits["entry"] * 2 + hits["stress"]).tolist()):
            if count:
                self.counts[held.tasks[code // 4], KINDS[code // 2 % 2], SPLITS[code % 2]] += count
        for row in range(min(len(hits), PLACES - len(self.places))):
            at, start, stop = int(line[row]), int(hits["start"][row]), int(hits["stop"][row])
            first = int(ends[at - 1]) + 1 if at else block.begin
            last = int(ends[at]) if at < len(ends) else len(block.data)
            shown = block.data[max(first, start - 30) : min(last, max(stop + 20, start + 70), start + 200)]
            self.places.append(
                {
                    "line": 1 + (self.lines + at if block.rows is None else int(block.rows[at])),
                    "column": block.column,
                    "task": held.tasks[hits["task"][row]],
                    "split": SPLITS[int(hits["stress"][row])],
                    "text": shown.decode("utf-8", "replace").strip(),
                }
            )
        if block.rows is not None:
            self.left_out.append(np.unique(block.rows[line]))
        else:
            self._take_lines(block, line, ends)

    def _take_lines(self, block: Block, line: I64, ends: I64) -> None:
        """Note where lines with hits begin and end; the last one may go on in the next block."""
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
    found, waiting = Found(path), deque[tuple[Block, Future[tuple[Hits, I64]]]]()
    with opened(path) as source:
        if isinstance(source, pq.ParquetFile):
            found.table, found.lines = True, source.metadata.num_rows
            found.unread = _unread(source.schema_arrow, printable_path(path))
            blocks = table_blocks(source)
        else:
            cells = path.name.removesuffix(path.suffix if path.suffix in PACKED else "").endswith(CELLS)
            blocks = text_blocks(source, cells, printable_path(path))
        for block in blocks:
            waiting.append((block, threads.submit(block.find, held)))
            if len(waiting) > most:
                first, result = waiting.popleft()
                found.take(first, *result.result(), held)
                told(found)
    for block, result in waiting:
        found.take(block, *result.result(), held)
    found.finish()
    return found


def text_blocks(stream: BinaryIO, cells: bool, where: str) -> Iterator[Block]:
    """Yield the blocks of a text; ``cells``: of a CSV file."""
    rest, at, begin, quoted = b"", 0, 0, False
    while new := stream.read(SIZE):
        data = rest + new
        cut = _last_end(data, quoted, cells)
        if cut > begin:
            yield Block(data[:cut], at, begin, cut, quoted if cells else None)
            rest, at, begin, quoted = data[cut:], at + cut, 0, False
        elif len(data) <= begin + SIZE + AHEAD:
            rest = data
        else:
            cut = len(data) - AHEAD
            yield Block(data, at, begin, cut, quoted if cells else None)
            quoted ^= data.count(b'"', 0, cut - BEFORE) % 2 == 1
            rest, at, begin = data[cut - BEFORE :], at + cut - BEFORE, BEFORE
    if cells and quoted != (rest.count(b'"') % 2 == 1):
        what, advice = (
            "a quote is opened and never closed: its rows cannot be told apart",
            "name it .txt to take its lines",
        )
        raise UserError(what, where=f"{where}, behind byte {at:,}", next_step=advice)
    if len(rest) > begin:
        yield Block(rest, at, begin, len(rest), quoted if cells else None)


def _last_end(data: bytes, quoted: bool, cells: bool) -> int:
    """Return where the last line or row ends; 0 if none does."""
    cut = data.rfind(b"\n") + 1
    inside = cells and quoted != (data.count(b'"', 0, cut) % 2 == 1)
    while cut and inside:
        before = data.rfind(b"\n", 0, cut - 1) + 1
        inside ^= data.count(b'"', before, cut) % 2 == 1
        cut = before
    return cut


def table_blocks(table: pq.ParquetFile) -> Iterator[Block]:
    """Yield the blocks of a table's columns of text, some rows at a time."""
    at = 0
    for group in range(table.num_row_groups):
        held = table.metadata.row_group(group)
        size = max(1, min(ROWS, SIZE * held.num_rows // max(held.total_byte_size, 1)))
        for batch in table.iter_batches(size, row_groups=[group]):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                for texts, rows in _texts(column, np.arange(at, at + len(batch))):
                    values = texts.fill_null(b"").to_pylist()
                    data, ends = b"\n".join(values), np.cumsum([len(value) + 1 for value in values]) - 1
                    yield Block(data, 0, 0, len(data) + 1, None, ends.astype(np.int64), rows, name)
            at += len(batch)


TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)


def _is(kind: pa.DataType, those: tuple[Callable[[pa.DataType], bool], ...]) -> bool:
    return any(one(kind) for one in those)


def _texts(column: pa.Array, rows: I64) -> Iterator[tuple[pa.Array, I64]]:
    """Yield the texts in a column, of lists and structs too, with the row of each; ``_leaves`` goes the same way."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        yield from _texts(column.storage, rows)
    elif pa.types.is_dictionary(kind):
        yield from _texts(column.dictionary_decode(), rows)
    elif _is(kind, LISTS):
        yield from _texts(pc.list_flatten(column), rows[pc.list_parent_indices(column).to_numpy()])
    elif pa.types.is_struct(kind):
        for child in column.flatten():
            yield from _texts(child, rows)
    elif _is(kind, TEXTS):
        yield column.cast(pa.large_string()).cast(pa.large_binary()), rows
    elif _is(kind, BYTES):
        column = column.cast(pa.binary()) if pa.types.is_fixed_size_binary(kind) else column
        yield column.cast(pa.large_binary()), rows


def _leaves(kind: pa.DataType, name: str) -> Iterator[tuple[str, pa.DataType]]:
    """Yield the name and type of each column of values in a column."""
    if isinstance(kind, pa.BaseExtensionType):
        yield from _leaves(kind.storage_type, name)
    elif pa.types.is_dictionary(kind) or _is(kind, LISTS):
        yield from _leaves(kind.value_type, name)
    elif pa.types.is_struct(kind):
        for child in kind:
            yield from _leaves(child.type, f"{name}.{child.name}")
    else:
        yield name, kind


def _unread(schema: pa.Schema, where: str) -> str:
    """Return the columns that hold no text, by type.

    Raises:
        UserError: none holds any.
    """
    leaves = [leaf for one in schema for leaf in _leaves(one.type, one.name)]
    names = dict[str, list[str]]()
    for name, kind in leaves:
        if not _is(kind, TEXTS + BYTES):
            names.setdefault(str(kind), []).append(printable_path(name))
    told = "; ".join(f"{', '.join(own)} ({kind})" for kind, own in names.items())
    if sum(map(len, names.values())) == len(leaves):
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
    _publish(target.with_name(f"{TEMPORARY}{attempt}{target.name}"), target)


def refusal(target: Path) -> UserError:
    """Return the error of a copy whose place is taken."""
    what = "this is there already, and a copy would replace it"
    return UserError(what, where=printable_path(target), next_step="name another --clean")


def _publish(temporary: Path, target: Path) -> None:
    """Give a whole file its name, in one step that never replaces a file."""
    try:
        sync(temporary)
        try:
            os.link(temporary, target)
        except FileExistsError as error:
            raise refusal(target) from error
        except OSError:  # a file system without links: take the name, then replace what is ours
            try:
                open(target, "xb").close()
            except FileExistsError as error:
                raise refusal(target) from error
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    sync(target.parent)


def _clean_text(source: BinaryIO, left_out: list[I64], sink: BinaryIO) -> None:
    at, data = 0, memoryview(b"")  # the place of the first byte of what is read

    def go_on(to: int, kept: bool) -> bool:
        nonlocal at, data
        while at < to:
            data = data or memoryview(source.read(SIZE))
            if not data:
                return False
            count = min(len(data), to - at)
            if kept:
                sink.write(data[:count])
            at, data = at + count, data[count:]
        return True

    for spans in left_out:
        for start, stop in spans.tolist():
            go_on(start, kept=True)
            go_on(stop, kept=False)
    go_on(1 << 62, kept=True)


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
