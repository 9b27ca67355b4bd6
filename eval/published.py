"""The raw files of the published data, ``raw/addition/test_5_5.jsonl``, seen as a dataset that problems come from.

A row is ``{"prompt": "12+9=", "response": "21"}``; the full answer is both texts, one behind the other. The rows give
raw questions; whole runs, aligner rows and single steps follow from their operands, steps in the published dialect.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import UserError, printable_path, quoted
from ..pipelines.expression_file import in_order, read_expressions
from ..pipelines.folder import Folder
from ..pipelines.hub_source import Say
from ..pipelines.manifest import FORMAT, ShardRecord
from ..pipelines.rows import Work, render_rows
from ..pipelines.sampling.laws import class_parts
from ..pipelines.sampling.split import PAIR
from ..pipelines.settings import HELD_OUT_VIEWS, SPLITS, TaskSettings
from ..schemas import row_schema
from ..tm import machine, operands
from ..tm.columns import Number, Operands
from ..tm.expression import parse_raw
from ..tm.machine import Dialect

Pairs = tuple[tuple[str, str | None], ...]  # operands of expressions

FOLDERS = {"addition": "add", "subtraction": "sub", "multiplication": "mul", "division": "div"}
FOLDERS |= {name: name for name in ("add", "sub", "mul", "div", "equal", "greater_than", "less_than")}
FILE = re.compile(r"(train|test)(_\d+_\d+)?\.jsonl", re.ASCII)
DIALECT: Dialect = "published"
MAX_STEPS = 10_000  # longer runs are not asked whole
BLOCK = 1024  # expressions rendered at once
WHOLE = ["task", "a", "b", "len_a", "len_b", "variant"]  # what is read of a run


def raw_files(paths: Iterable[str], split: str, where: str) -> dict[str, tuple[str, str]]:
    """Return the raw files of a split among the paths below a folder, each with its task and split; maybe none.

    Raises:
        UserError: several folders hold such files; or there are some, but none of this split.
    """
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for path in sorted(paths):
        above, _, name = path.rpartition("/")
        root, _, folder = above.rpartition("/")
        if folder in FOLDERS and (named := FILE.fullmatch(name)):
            found.setdefault(root, {})[path] = (FOLDERS[folder], named[1])
    if len(found) > 1:
        raise UserError(
            f"raw files are in several folders: {', '.join(printable_path(root or '.') for root in sorted(found)[:5])}",
            where=printable_path(where),
            next_step=f"name one of them: --data {printable_path(where.rstrip('/'))}/{printable_path(max(found))}",
        )
    held = next(iter(found.values()), {})
    own = {path: named for path, named in held.items() if named[1] == split}
    if held and not own:
        splits = ", ".join(sorted({named for _, named in held.values()}))
        raise UserError(
            f"there are no raw files of split {split}", where=printable_path(where), allowed=f"--split {splits}"
        )
    return own


class RawRow(msgspec.Struct):
    """A row of a published file."""

    prompt: str
    response: str


class MadeFolder(Folder):
    """Expressions seen as a dataset: rows are made when a file of it is opened.

    Args:
        path: where they come from.
        found: the expressions of each task and split.
        dialect: of single steps.
        say: is told of runs that are too long to be asked whole.
    """

    views: tuple[str, ...] = HELD_OUT_VIEWS

    def __init__(self, path: Path, found: dict[tuple[str, str], Pairs], dialect: Dialect, say: Say) -> None:
        super().__init__(path)
        self._views: dict[str, Pairs] = {}  # the expressions of each shard, by its path
        self._dialect: Dialect = dialect
        configs: dict[str, dict[str, Any]] = {}
        digests = []
        for (task, split), pairs in found.items():
            identity = _sha256([dialect, task, *(f"{a} {b}" for a, b in pairs)])
            digests.append(f"{split} {identity}")
            short = tuple((a, b) for a, b in pairs if machine(task).num_steps(int(a), int(b or 0)) <= MAX_STEPS)
            if long := len(pairs) - len(short):
                what = f"{task} {split}: not asked whole: {long:,} of {len(pairs):,}"
                say(f"{what}, which take over {MAX_STEPS:,} steps")
            for view in (view for view in self.views if view not in machine(task).missing_views()):
                if own := short if view == "full" else pairs:
                    name = f"{task}-{view}/{split}-00000-of-00001.parquet"
                    self._views[name] = own
                    shard = {"path": name, "rows": len(own), "bytes": 0, "sha256": identity, "chars": {}}
                    held = {"identity": identity, "rows": len(own), "expressions": len(own), "shards": [shard]}
                    configs.setdefault(f"{task}-{view}", {})[split] = held
        identity = _sha256(digests)
        tasks = {task: {"settings": {"dialect": dialect}, "identity": identity} for task, _ in sorted(found)}
        self._manifest = {"format": FORMAT, "identity": identity, "tasks": tasks, "configs": configs}

    def manifest(self) -> dict[str, Any]:
        return self._manifest

    def holds(self, record: ShardRecord) -> bool:
        return True  # rows are made from what was read

    def open(self, path: str) -> BinaryIO:
        """Open the rows of a split of a view as a Parquet file."""
        if path not in self._views:
            raise FileNotFoundError(path)
        task, _, view = path.partition("/")[0].rpartition("-")
        return io.BytesIO(_parquet(task, view, self._dialect, self._views[path]))


class ExpressionFolder(MadeFolder):
    """The expressions of a file, as a dataset of the dialect consistent.

    Args:
        file: the file.
        splits: the splits that are asked for.
        say: is told, a line each, of what is left out.

    Raises:
        UserError: it cannot be read, or holds no expression of these splits.
    """

    views = (*HELD_OUT_VIEWS, "slips")

    def __init__(self, file: str, splits: Sequence[str], say: Say) -> None:
        own = read_expressions(file)
        found: dict[tuple[str, str], list[tuple[str, str | None]]] = {}
        for _, task, a, b, split in in_order(own):
            found.setdefault((task, split), []).append((a, b))
        for task, one in own.items():
            counts = ", ".join(f"{split} {count:,}" for split, count in one.counts().items())
            say(f"{task}: {len(one.rows):,} expressions of {printable_path(file)}, by split: {counts}")
            if one.repeated:
                say(f"{task}: {one.repeated:,} more repeat one of these; each is asked once")
        asked = {key: tuple(pairs) for key, pairs in sorted(found.items()) if key[1] in splits}
        if not asked:
            there = [split for split in SPLITS if any(split == own for _, own in found)]
            what = f"no expression of this file is of {', '.join(splits)}"
            advice = "leave out --split: every expression of the file is asked, whatever its split"
            raise UserError(
                what, where=printable_path(file), allowed=f"--split {', '.join(there)}, or all", next_step=advice
            )
        super().__init__(Path(file), asked, "consistent", say)


class PublishedFolder(MadeFolder):
    """A folder of published raw files, read as a dataset: rows are made when a file of it is opened.

    Args:
        path: the folder.
        files: of ``raw_files``, below it.
        say: is told, a line each, of rows that are left out.

    Raises:
        UserError: a row is not what the published files hold; or no row is left.
    """

    def __init__(self, path: Path, files: dict[str, tuple[str, str]], say: Say) -> None:
        by_split: dict[tuple[str, str], list[str]] = {}
        for name, task_and_split in files.items():
            by_split.setdefault(task_and_split, []).append(name)
        found = {
            (task, split): self._read(path, names, task, f"{task} {split}", say)
            for (task, split), names in sorted(by_split.items())
        }
        if not any(found.values()):
            raise UserError("the raw files here hold no row that can be asked", where=printable_path(path))
        super().__init__(path, found, DIALECT, say)

    def _read(self, path: Path, names: list[str], task: str, what: str, say: Say) -> Pairs:
        """Return the expressions of files of a task, each once; say what is left out, and what is not asked whole."""
        pairs: dict[tuple[str, str | None], None] = {}
        odd: list[str] = []
        total = 0
        for name in names:
            with Folder(path).open(name) as file:
                lines = [(number, line) for number, line in enumerate(file, 1) if line.strip()]
            total += len(lines)
            for number, line in lines:
                prompt, response, (a, b) = self._row(line, task, f"{Folder(path).where(name)}, line {number}")
                if fault := _fault(task, a, b, response):
                    odd.append(f"{quoted(prompt + response, 120)} ({name}, line {number}): {fault}")
                else:
                    pairs[a, b] = None
        if odd:
            say(f"{what}: {len(odd):,} of {total:,} rows are left out, such as {odd[0]}")
        if repeated := total - len(odd) - len(pairs):
            say(f"{what}: {repeated:,} of {total:,} rows repeat an expression; each is asked once")
        return tuple(pairs)

    def _row(self, line: bytes, task: str, where: str) -> tuple[str, str, tuple[str, str]]:
        """Return prompt, response and operands of a row."""
        try:
            row = msgspec.json.decode(line, type=RawRow)
            named, a, b = parse_raw(row.prompt)
            if named != task:
                raise UserError(f"{quoted(row.prompt)} is no question of {task}")
            return row.prompt, row.response, (a, b)
        except (msgspec.MsgspecError, UserError) as error:
            raise UserError(
                f"this is no row of a published raw file: {error.what if isinstance(error, UserError) else error}",
                where=where,
                allowed='{"prompt": "12+9=", "response": "21"}',
            ) from None


def _sha256(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _fault(task: str, a: str, b: str, response: str) -> str:
    """Return why an expression is left out; an empty text where it is not."""
    try:
        owner, x, y = operands(task, a, b)
    except UserError as error:
        return error.what
    answer = str(owner.answer(x, y))
    return "" if response == answer else f"the answer is {quoted(answer, 120)}"


@lru_cache(maxsize=8)  # problems and classes are read one after the other
def _parquet(task: str, view: str, dialect: Dialect, pairs: Pairs) -> bytes:
    """Return the rows of a view of some expressions, in their order by blocks, as a Parquet file."""
    schema = row_schema("raw" if view == "full" else view)
    if view == "full":
        schema = pa.schema([schema.field(name) for name in WHOLE])
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for start in range(0, len(pairs), BLOCK):
            writer.write_batch(_block(task, view, dialect, pairs[start : start + BLOCK]).select(schema.names))
    return sink.getvalue()


def _block(task: str, view: str, dialect: Dialect, pairs: Pairs) -> pa.RecordBatch:
    own = machine(task)
    second = None if own.unary else Number.of([b for _, b in pairs if b is not None])
    whole = Operands(Number.of([a for a, _ in pairs]), second)
    lengths = whole.a.length * PAIR + (0 if whole.b is None else whole.b.length)
    variants: dict[str, int] = {}  # of the part of its class that each expression belongs to
    variant = np.zeros(len(pairs), np.int64)
    for pair in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == pair)
        for name, _, law in class_parts(own, *divmod(pair, PAIR)):
            variant[rows[law.holds(whole.take(rows))]] = variants.setdefault(name, len(variants))
    return render_rows(
        Work(
            settings=TaskSettings(task=task, dialect=dialect, seed=0),
            view="raw" if view == "full" else view,
            operands=whole,
            variant=variant,
            variants=tuple(variants),
        )
    )
