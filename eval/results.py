"""What an evaluation has to do and what it knows so far, in one SQLite file: problems, requests, answers.

    requests  one row a distinct request, with its ``number`` in the order in which they are first made; what the model
              answered, null until it has
    steps     which request a problem makes in which step; kept as ``spans`` of requests that follow one another
    texts     in batches to one adapter, what requests are: the columns ``problems.REQUESTS``
    problems  in batches, what problems are: the columns ``problems.PROBLEMS``
    finals    of rollouts: whether a problem's last text was right

What is left to ask is a query, ``correct IS NULL``: a stopped evaluation goes on from the file alone. Each of several
processes has a file of its own, a copy of the first one's, and reads the others' answers when all wait. There is no
write-ahead log, whose shared memory disks of a network lack; the first process holds the file's lock to the end.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..errors import UserError, printable_path
from ..tm.columns import I64
from ..tm.render import int_array
from .calls import Generation, Score
from .problems import Problems

VERSION = 5  # of the file's tables
BATCH = 4096  # requests that are read, and sorted by length, at once
PAUSE = 0.05  # seconds between commits, each of which waits for the disk: batches of a model take longer
CACHE = 32  # MB of the file that are held in memory
FULL = ("SQLITE_FULL", "SQLITE_IOERR_WRITE")  # a limit on files, or on the user's share, is the second
BROKEN = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
ANSWER = (
    "correct, stripped, failed, decoded, first_wrong_token, margin, tokens, completion_tokens, near_tie, merges, text,"
    " ended"
)
TABLES = (
    """TABLE requests (
        id INTEGER PRIMARY KEY, number INTEGER NOT NULL,
        correct INTEGER, stripped INTEGER, failed INTEGER, decoded INTEGER, first_wrong_token INTEGER, margin REAL,
        tokens INTEGER, completion_tokens INTEGER, near_tie INTEGER, merges INTEGER, text TEXT, ended INTEGER
    )""",
    """TABLE spans (
        problem INTEGER, step INTEGER, request INTEGER, count INTEGER, PRIMARY KEY (problem, step)
    ) WITHOUT ROWID""",
    """VIEW steps AS SELECT problem, step + id - request AS step, requests.*
    FROM spans CROSS JOIN requests WHERE id >= request AND id < request + count""",
    "TABLE texts (first INTEGER PRIMARY KEY, adapter TEXT NOT NULL, count INTEGER, requests BLOB NOT NULL)",
    "TABLE problems (first INTEGER PRIMARY KEY, problems BLOB NOT NULL)",
    "TABLE finals (problem INTEGER PRIMARY KEY, correct INTEGER NOT NULL)",
)
OWN = "WITH own AS (SELECT * FROM requests WHERE id >= ? AND id < ?)"  # the requests of one batch
SCORED = """
UPDATE requests SET correct = ?, stripped = ?1, failed = NOT ?1, decoded = 0, first_wrong_token = ?, margin = ?,
    tokens = nullif(?, 0), completion_tokens = nullif(?, 0), near_tie = ?, merges = ?
WHERE id = ?
"""
# A decoded answer stands beside what a forward pass has told before it.
GENERATED = """
UPDATE requests SET correct = ?, stripped = ?, failed = ifnull(?, failed), decoded = 1, text = ?, ended = ?,
    first_wrong_token = iif(tokens IS NULL, ?, first_wrong_token), margin = iif(tokens IS NULL, ?, margin),
    completion_tokens = ifnull(completion_tokens, nullif(?, 0)), tokens = ifnull(tokens, nullif(?, 0)),
    near_tie = max(?, ifnull(near_tie, 0)), merges = ?
WHERE id = ?
"""
# What other files know better: read while nobody writes, and taken over once all have read.
NEWS = (
    f"CREATE TEMP TABLE IF NOT EXISTS news AS SELECT id, {ANSWER} FROM requests LIMIT 0",
    "CREATE TEMP TABLE IF NOT EXISTS ended AS SELECT * FROM finals LIMIT 0",
    f"""INSERT INTO news SELECT id, {", ".join(f"other.{name}" for name in ANSWER.split(", "))}
    FROM other.requests AS other JOIN requests AS own USING (id)
    WHERE other.correct IS NOT NULL AND (own.correct IS NULL OR other.decoded > own.decoded)""",
    "INSERT INTO ended SELECT * FROM other.finals",
)
TAKEN = (
    f"""UPDATE requests SET ({ANSWER}) = ({", ".join(f"news.{name}" for name in ANSWER.split(", "))})
    FROM news WHERE news.id = requests.id""",
    "INSERT OR REPLACE INTO finals SELECT * FROM ended",
    "DELETE FROM news",
    "DELETE FROM ended",
)


def file_name(rank: int) -> str:
    """Return the name of a process' file."""
    return f"rank-{rank}.sqlite" if rank else "results.sqlite"


class ResultStore:
    """The file of one evaluation, or of one of its processes.

    Args:
        path: the file; made where it is not there.

    Raises:
        UserError: another process holds it, or it cannot be read.
        OSError: the disk is full or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.committed = path, 0.0
        self.scores: list[tuple[Any, ...]] = []
        self.generations: list[tuple[Any, ...]] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()  # an error of the system's, where that is not allowed
        with self._errors():
            self.planned = self.resumed = self._open()
            if not self.planned and path.stat().st_size:  # damaged, or of another version
                self.base.close()
                path.unlink()
                self._open()

    def _open(self) -> bool:
        """Open the file and hold it; tell whether it is whole and says what there is to do."""
        uri = self.path.absolute().as_uri()
        self.base = sqlite3.connect(uri, timeout=0, isolation_level=None, uri=True, check_same_thread=False)
        try:
            for line in ("locking_mode = EXCLUSIVE", "synchronous = NORMAL", "journal_mode = TRUNCATE"):
                self.base.execute(f"PRAGMA {line}")
            self.base.execute(f"PRAGMA cache_size = {-1024 * CACHE}")
            self.base.execute("BEGIN EXCLUSIVE")
            (version,) = self.base.execute("PRAGMA user_version").fetchone()
            whole = version == VERSION and self.base.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
            self.base.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorname", "") not in BROKEN:
                raise
            return False
        return whole

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Tell errors of the disk as the system does, and what else may be wrong with the file in a line."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            name = getattr(error, "sqlite_errorname", "")
            if name.startswith((*FULL, "SQLITE_IOERR")):
                number = errno.ENOSPC if name in FULL else errno.EIO
                raise OSError(number, os.strerror(number), str(self.path)) from error
            busy = name.startswith("SQLITE_BUSY")
            raise UserError(
                "this run is being evaluated by another process" if busy else f"what is known of this run: {error}",
                where=printable_path(self.path),
                next_step="wait for it" if busy else "remove this file: what it holds is asked again",
            ) from error

    def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
        """Run a line of SQL."""
        with self._errors():
            return self.base.execute(sql, values)

    def table(self, sql: str, *values: object) -> pa.Table:
        """Return what a query finds."""
        cursor = self.execute(sql, *values)
        names = [name for name, *_ in cursor.description]
        columns = list(zip(*cursor.fetchall(), strict=True)) or [()] * len(names)
        return pa.table([pa.array(column) for column in columns], names)

    def close(self) -> None:
        self.base.close()

    def remove(self) -> None:
        """Remove the file, and those of other processes: everything is in the tables, or nothing is worth keeping."""
        self.base.close()
        shutil.rmtree(self.path.parent, ignore_errors=True)

    # What there is to do

    def plan(self, problems: Iterable[Problems]) -> None:
        """Write down what there is to do, in one step; of a plan that fails nothing is left behind."""
        try:
            with self._errors():
                self.base.execute("BEGIN EXCLUSIVE")
                writer = _PlanWriter(self.base)
                for some in problems:
                    writer.add(some)
                self.base.execute(f"PRAGMA user_version = {VERSION}")
                self.base.execute("COMMIT")
        except BaseException:
            self.remove()
            raise
        self.planned = True

    @cached_property
    def adapters(self) -> list[str]:
        """The adapters that are asked, in the order in which they are first needed."""
        return [name for (name,) in self.execute("SELECT adapter FROM texts GROUP BY adapter ORDER BY min(first)")]

    @cached_property
    def num_requests(self) -> int:
        return self._count("SELECT count(*) FROM requests")

    @cached_property
    def num_problems(self) -> int:
        return self._count("SELECT max(problem) + 1 FROM spans")

    @cached_property
    def num_repeated(self) -> int:
        """Number of requests that need no evaluation of their own: another problem makes the same one."""
        return self._count("SELECT sum(count) FROM spans") - self.num_requests

    def _count(self, sql: str) -> int:
        return int(self.execute(sql).fetchone()[0] or 0)

    def requests(self, adapter: str, sql: str) -> Iterator[pa.Table]:
        """Yield requests to an adapter, about ``BATCH`` at once: what they are, and what a query finds of them.

        Args:
            adapter: the adapter.
            sql: finds ``id`` and more in ``own``, the table requests with those of one batch alone.
        """
        tables: list[pa.Table] = []
        batches = self.execute("SELECT first, first + count FROM texts WHERE adapter = ? ORDER BY first", adapter)
        for first, end in batches.fetchall():
            found = self.table(f"{OWN} {sql}", first, end)
            if not len(found):
                continue
            [(packed,)] = self.execute("SELECT requests FROM texts WHERE first = ?", first)
            asked = unpack(packed).take(pc.subtract(found.column("id"), first))
            tables.append(pa.table([*found.columns, *asked.columns], [*found.column_names, *asked.column_names]))
            if sum(map(len, tables)) >= BATCH:
                yield pa.concat_tables(tables, promote_options="permissive")
                tables = []
        if tables:
            yield pa.concat_tables(tables, promote_options="permissive")

    def problems(self) -> Iterator[tuple[int, pa.Table]]:
        """Yield the number of a problem, and what it and those that follow are, with the columns ``PROBLEMS``."""
        for first, packed in self.execute("SELECT first, problems FROM problems ORDER BY first"):
            yield first, unpack(packed)

    def problems_at(self, numbers: I64) -> pa.Table:
        """Return what some problems are, by their numbers."""
        firsts = np.array(self.execute("SELECT first FROM problems ORDER BY first").fetchall()).ravel()
        batches = np.searchsorted(firsts, numbers, side="right") - 1
        order, found = np.argsort(batches, kind="stable"), []
        for batch in np.unique(batches).tolist():
            first = int(firsts[batch])
            [(packed,)] = self.execute("SELECT problems FROM problems WHERE first = ?", first)
            found.append(unpack(packed).take(int_array(numbers[batches == batch] - first)))
        return pa.concat_tables(found).take(int_array(np.argsort(order)))

    # What is known

    def record_score(self, request: int, score: Score) -> None:
        """Take what a forward pass found."""
        tokens = (score.tokens, score.completion_tokens, score.near_tie, score.merges)
        self.scores.append((score.right, score.at, score.margin, *tokens, request))

    def record_generation(self, request: int, expected: str, answer: Generation, *, rolled_out: bool = False) -> None:
        """Take what decoding gave, beside the right answer; of a wrong one the text."""
        correct = answer.ended and answer.text == expected
        stripped = answer.ended and answer.text.strip() == expected.strip()
        # A server may send a lone surrogate, which no file of texts can hold.
        text = None if correct else answer.text.encode("utf-8", "backslashreplace").decode()
        told = (answer.at, answer.margin if correct else None, answer.completion_tokens, answer.tokens)
        ties = (answer.near_tie, answer.merges)
        failed = not stripped if rolled_out else None
        self.generations.append((correct, stripped, failed, text, answer.ended, *told, *ties, request))

    def save(self) -> None:
        """Write what was recorded of a batch; on disk it is at once, unless batches take less than ``PAUSE``."""
        with self._errors():
            self._begin()
            self.base.executemany(SCORED, self.scores)
            self.base.executemany(GENERATED, self.generations)
        self.scores, self.generations = [], []
        if time.monotonic() - self.committed >= PAUSE:
            self.commit()

    def commit(self, finals: Iterable[tuple[int, bool]] = ()) -> None:
        """Put on disk what was saved, and whether the last texts of some problems were right."""
        with self._errors():
            self._begin()
            self.base.executemany("INSERT OR REPLACE INTO finals VALUES (?, ?)", finals)
            self.base.execute("COMMIT")
        self.committed = time.monotonic()

    def _begin(self) -> None:
        if not self.base.in_transaction:
            self.base.execute("BEGIN IMMEDIATE")

    def counts(self) -> tuple[int, int, int]:
        """Return how many requests are answered, how many of them right, and their tokens."""
        found = self.execute("SELECT count(correct), ifnull(sum(correct), 0), ifnull(sum(tokens), 0) FROM requests")
        answered, correct, tokens = found.fetchone()
        return answered, correct, tokens

    def answer(self, request: int) -> tuple[bool, Generation] | None:
        """Return whether the decoded answer to a request is right, and the answer; None where there is none."""
        sql = "SELECT correct, text, ended FROM requests WHERE id = ? AND decoded"
        found = self.execute(sql, request).fetchone()
        return None if found is None else (bool(found[0]), Generation(found[1] or "", bool(found[2])))

    def read(self, other: Path, *, held: bool = True) -> None:
        """Read the answers in another process's file, which it holds and does not write; ``take`` takes them over."""
        self.execute("ATTACH ? AS other", other.absolute().as_uri() + "?immutable=1" * held)
        try:
            for line in NEWS:
                self.execute(line)
        finally:
            self.execute("DETACH other")

    def take(self) -> None:
        """Take over the answers that were read."""
        self.execute("BEGIN")
        for line in TAKEN:
            self.execute(line)
        self.execute("COMMIT")


class _PlanWriter:
    """Writes problems, and each request once; what tells requests apart it holds in memory, 24 bytes each."""

    def __init__(self, base: sqlite3.Connection) -> None:
        self.base = base
        self.num_problems = 0
        self.keys, self.ids = np.empty(0, "S16"), np.empty(0, np.int64)  # of requests, sorted by key
        for line in TABLES:
            base.execute(f"CREATE {line}")

    def add(self, some: Problems) -> None:
        ids = self._identified(some.requests)[some.steps]
        begins = np.append(True, np.diff(ids) != 1)
        begins[some.starts[:-1]] = True
        places = np.flatnonzero(begins)
        problem = np.searchsorted(some.starts, places, side="right") - 1
        steps, counts = places - some.starts[problem], np.diff(places, append=len(ids))
        self._insert("spans", problem + self.num_problems, steps, ids[places], counts)
        self.base.execute("INSERT INTO problems VALUES (?, ?)", (self.num_problems, pack(some.table)))
        self.num_problems += len(some)

    def _identified(self, requests: pa.Table) -> I64:
        """Return the ids of requests; write those that are new, adapter by adapter."""
        keys, first, inverse = np.unique(keys_of(requests), return_index=True, return_inverse=True)
        places = np.searchsorted(self.keys, keys)
        new = np.flatnonzero(np.append(self.keys, b"")[places] != keys)
        ids = np.append(self.ids, -1)[places]
        adapters = requests.column("adapter").combine_chunks().dictionary_encode()
        codes = adapters.indices.to_numpy()[first[new]]
        order = np.lexsort([first[new], codes])
        ids[new[order]] = own = len(self.ids) + np.arange(len(new))
        self._insert("requests (id, number)", own, len(self.ids) + np.argsort(np.argsort(first[new]))[order])
        for code, adapter in enumerate(adapters.dictionary.to_pylist()):
            mine = np.flatnonzero(codes[order] == code)
            for part in (mine[start : start + BATCH] for start in range(0, len(mine), BATCH)):
                texts = pack(requests.take(int_array(first[new[order[part]]])))
                row = (int(own[part[0]]), adapter, len(part), texts)
                self.base.execute("INSERT INTO texts VALUES (?, ?, ?, ?)", row)
        self.keys = np.insert(self.keys, places[new], keys[new])
        self.ids = np.insert(self.ids, places[new], ids[new])
        return ids[inverse]

    def _insert(self, table: str, *columns: I64) -> None:
        rows = zip(*(column.tolist() for column in columns), strict=True)
        self.base.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})", rows)


def keys_of(requests: pa.Table) -> NDArray[np.bytes_]:
    """Return a 128-bit hash of each request's adapter, prompt and right answer."""
    texts = pc.binary_join_element_wise(*(requests.column(name) for name in ("adapter", "prompt", "completion")), "\0")
    column = pl.Series(texts)
    return np.stack([column.hash(seed).to_numpy() for seed in (1, 2)], axis=1).view("S16").ravel()


def pack(table: pa.Table) -> bytes:
    """Return a table as compressed bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table.combine_chunks())
    return bytes(sink.getvalue())


def unpack(packed: bytes) -> pa.Table:
    """Return a table from its compressed bytes."""
    return pa.ipc.open_stream(packed).read_all()
