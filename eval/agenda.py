"""What an evaluation has to do, on disk: its problems, and every call once, adapter by adapter."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import UserError
from ..pipelines.shard import put
from ..tm.columns import I64
from .calls import Call
from .files import sha256_of
from .runs import Problem, Step
from .tables import CLASS, call_key

WINDOW = 4096  # calls held in memory, and sorted by length, at once: a row group
DONE, PATH = "agenda.json", "problems.parquet"
FILE = re.compile(r"problems\.parquet|calls-\d{3,}\.parquet", re.ASCII)
WHOLE = [*CLASS, "a", "b", "asked_step"]  # what a problem is, without its calls
PROBLEMS = pa.schema(
    [
        *[pa.field(name, pa.string()) for name in ("task", "mode", "split", "dialect", "variant", "a", "b")],
        *[pa.field(name, pa.int16()) for name in ("len_a", "len_b")],
        pa.field("asked_step", pa.int64()),
        pa.field("calls", pa.list_(pa.int64())),
    ]
)
CALLS = pa.schema(
    [
        pa.field("call", pa.int64()),
        *[pa.field(name, pa.string()) for name in ("task", "kind", "state", "prompt", "completion")],
    ]
)


@dataclass(frozen=True)
class Window:
    """Some calls to one adapter.

    Args:
        ids: their numbers in the evaluation, shape (n,).
        calls: the calls.
        tasks: the machine or task that each call is about.
        kinds: executor, aligner_in, aligner_out or raw, one a call.
        states: the machine's state in the prompt; None for aligners.
    """

    ids: I64
    calls: list[Call]
    tasks: list[str]
    kinds: list[str]
    states: list[str | None]


class Agenda:
    """The problems and calls of an evaluation, read from the folder that ``write_agenda`` filled.

    Memory: some bytes a problem and a call; texts and operands are read window by window.

    Attributes:
        problems: the columns ``CLASS``, dictionaries of texts, shape (num_problems, ...).
        flat: the numbers of all problems' calls, one problem after the other, shape (calls,).
        starts: where each problem begins in ``flat``, shape (num_problems + 1,).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        noted: dict[str, Any] = json.loads((folder / DONE).read_text("utf-8"))
        self.counts: dict[str, int] = noted["counts"]  # calls of each adapter, in the order of their files
        self.adapters = list(self.counts)
        self.num_calls: int = sum(self.counts.values())
        table = pq.read_table(folder / PATH, columns=[*CLASS, "calls"], read_dictionary=CLASS[:5])
        self.problems = table.drop_columns("calls").unify_dictionaries()  # each row group has its own
        column = table.column("calls").combine_chunks()
        self.flat: I64 = column.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
        self.starts: I64 = column.offsets.to_numpy(zero_copy_only=False).astype(np.int64)

    @property
    def num_problems(self) -> int:
        """Number of problems."""
        return len(self.starts) - 1

    @property
    def num_repeated(self) -> int:
        """Number of calls that need no evaluation of their own: another problem makes the same one."""
        return len(self.flat) - self.num_calls

    def whole_problems(self, problems: I64) -> pa.Table:
        """Return some problems, in ascending order of their numbers, with their operands.

        Args:
            problems: their numbers, ascending, shape (n,).
        """
        found = [pa.schema([PROBLEMS.field(name) for name in WHOLE]).empty_table()]
        with pq.ParquetFile(self.folder / PATH) as file:
            for group in np.unique(problems // WINDOW).tolist():
                rows = problems[problems // WINDOW == group] - group * WINDOW
                found.append(file.read_row_group(group, columns=WHOLE).take(pa.array(rows)))
        return pa.concat_tables(found)

    def windows(self, adapter: str, most: int | None = None) -> Iterator[Window]:
        """Yield the calls to an adapter, window by window; ``most`` windows, spread evenly, if that is given."""
        path = self.folder / _file(self.adapters.index(adapter))
        with pq.ParquetFile(path) as file:
            for group in _spread(file.num_row_groups, most):
                columns = file.read_row_group(group).to_pydict()
                texts = zip(columns["prompt"], columns["completion"], strict=True)
                calls = [Call(adapter, prompt, completion) for prompt, completion in texts]
                yield Window(
                    np.array(columns["call"], np.int64), calls, columns["task"], columns["kind"], columns["state"]
                )


def write_agenda(folder: Path, problems: Iterable[Problem]) -> Agenda:
    """Write the agenda of some problems into a folder, in one step, unless it is there already.

    A call that several problems make is written once: LESS_THAN(1,3) is asked once.

    Raises:
        OSError: the disk is full or cannot be written; nothing is left behind.
    """
    if not _is_whole(folder):
        aside = folder.with_name(f"{folder.name}.writing")
        for old in (aside, folder):
            shutil.rmtree(old, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            with closing(_Writer(aside)) as writer:
                for problem in problems:
                    writer.add(problem)
                writer.finish()
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        os.replace(aside, folder)
    return Agenda(folder)


def _is_whole(folder: Path) -> bool:
    """Tell whether every file is there as it was written."""
    try:
        digests = json.loads((folder / DONE).read_text("utf-8"))["sha256"]
        return all(
            FILE.fullmatch(name) is not None and sha256_of(folder / name) == digest for name, digest in digests.items()
        )
    except (UserError, FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
        return False


class _Writer:
    """Fills the files of an agenda; holds one window of each adapter."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.numbers = _Numbers(folder / "numbers.db")
        self.problems = _Rows(folder / PATH, PROBLEMS)
        self.calls: dict[str, _Rows] = {}

    def add(self, problem: Problem) -> None:
        keys = (problem.task, problem.mode, problem.split, problem.dialect, problem.variant, problem.a, problem.b)
        self.problems.add(
            (
                *keys,
                problem.len_a,
                problem.len_b,
                problem.asked_step,
                [self._number(step, problem.task) for step in problem.steps],
            )
        )

    def _number(self, step: Step, task: str) -> int:
        """Return a call's number; write the call when it is new."""
        key = bytes.fromhex(call_key(step.adapter, step.prompt, step.completion))
        number, new = self.numbers.of(key)
        if new:
            if step.adapter not in self.calls:
                self.calls[step.adapter] = _Rows(self.folder / _file(len(self.calls)), CALLS)
            own = step.adapter.partition("/")[2] or task
            self.calls[step.adapter].add((number, own, step.kind, step.state, step.prompt, step.completion))
        return number

    def finish(self) -> None:
        self.numbers.remove()
        for rows in (self.problems, *self.calls.values()):
            rows.close()
        counts = {adapter: rows.count for adapter, rows in self.calls.items()}
        digests = {path.name: sha256_of(path) for path in self.folder.glob("*.parquet")}
        put(self.folder / DONE, json.dumps({"counts": counts, "sha256": digests}).encode())

    def close(self) -> None:
        """Let go of the files, finished or not."""
        self.numbers.table.close()
        for rows in (self.problems, *self.calls.values()):
            rows.let_go()


class _Numbers:
    """Numbers keys in the order in which they first come; they are held on disk, whatever their number."""

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0
        path.touch()  # an error of the system's, where that is not allowed
        self.table = sqlite3.connect(path, isolation_level=None)
        # Who is stopped writes the agenda anew: nothing here need outlive the process.
        for line in (
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            "BEGIN",
            "CREATE TABLE numbers (key BLOB PRIMARY KEY, number INTEGER) WITHOUT ROWID",
        ):
            self._do(line)

    def of(self, key: bytes) -> tuple[int, bool]:
        """Return a key's number, and whether it came for the first time.

        Raises:
            OSError: the disk is full or cannot be written.
        """
        if self._do("INSERT OR IGNORE INTO numbers VALUES (?, ?)", key, self.count).rowcount:
            self.count += 1
            return self.count - 1, True
        (number,) = self._do("SELECT number FROM numbers WHERE key = ?", key).fetchone()
        return number, False

    def _do(self, line: str, *values: object) -> sqlite3.Cursor:
        try:
            return self.table.execute(line, values)
        except sqlite3.OperationalError as error:
            # It has a word of its own for a full disk, and none for a limit on files or on the user's share.
            full = error.sqlite_errorname in ("SQLITE_FULL", "SQLITE_IOERR_WRITE")
            code = errno.ENOSPC if full else errno.EIO
            raise OSError(code, os.strerror(code), str(self.path)) from error

    def remove(self) -> None:
        self.table.close()
        self.path.unlink()


class _Rows:
    """A Parquet file written row by row, a window at a time."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.writer, self.schema = pq.ParquetWriter(path, schema, compression="zstd"), schema
        self.waiting: list[tuple[Any, ...]] = []
        self.count = 0

    def add(self, row: tuple[Any, ...]) -> None:
        self.waiting.append(row)
        self.count += 1
        if len(self.waiting) >= WINDOW:
            self._flush()

    def close(self) -> None:
        self._flush()
        self.writer.close()

    def let_go(self) -> None:
        with suppress(OSError):
            self.writer.close()
        self.writer.is_open = False  # else it tries again when it is collected, and prints a traceback on a full disk

    def _flush(self) -> None:
        if self.waiting:
            columns = zip(*self.waiting, strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, self.schema, strict=True)]
            self.writer.write_table(pa.Table.from_arrays(arrays, schema=self.schema))
            self.waiting = []


def _spread(count: int, most: int | None) -> list[int]:
    """Return the first ``count`` numbers, or ``most`` of them, spread evenly from the first to the last."""
    if most is None or most >= count:
        return list(range(count))
    return [place * (count - 1) // max(1, most - 1) for place in range(most)]


def _file(index: int) -> str:
    return f"calls-{index:03}.parquet"
