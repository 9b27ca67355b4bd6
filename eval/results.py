"""What an evaluation has to do and what it knows so far, in one SQLite file: problems, requests, answers.

    requests  one row a distinct request; what the model answered, null until it has
    steps     which request a problem makes in which step; kept as ``spans`` of requests that follow one another
    texts     adapter by adapter, the texts of ``BATCH`` requests in a row: request ``id`` is row ``id % BATCH`` of
              batch ``id // BATCH``
    problems  what ``BATCH`` problems in a row are
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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import UserError, printable_path
from ..tm.columns import I64
from ..tm.render import int_array
from . import plan
from .calls import Generation, Score, ScoreRequest
from .plan import PlanWriter, unpack
from .problems import PROBLEMS, Problems

VERSION = 4  # of the file's tables
PAUSE = 0.05  # seconds between commits, each of which waits for the disk: batches of a model take longer
CACHE = 32  # MB of the file that are held in memory
FULL = ("SQLITE_FULL", "SQLITE_IOERR_WRITE")  # a limit on files, or on the user's share, is the second
BROKEN = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
ANSWER = (
    "correct, stripped, failed, decoded, first_wrong_token, margin, tokens, completion_tokens, near_tie, merges, text,"
    " ended"
)
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
# A problem's requests that failed the forward pass or had none, in windows of 1, 2, 4 ... of them: of the first window
# with one that is wrong still, those that are not decoded. What is decoded in the end depends on no stop or process.
_WINDOW = " ".join(f"WHEN place < {2 << window} THEN {window}" for window in range(40))
FIRST_WRONG = f"""
WITH numbered AS (
    SELECT problem, id, decoded IS 1 AS decoded, stripped IS NOT 1 AS wrong,
        row_number() OVER (PARTITION BY problem ORDER BY step) AS place
    FROM steps WHERE failed IS NOT 0
), windows AS (SELECT *, CASE {_WINDOW} END AS window FROM numbered)
SELECT DISTINCT id FROM windows
JOIN (SELECT problem, min(window) AS window FROM windows WHERE wrong GROUP BY problem) USING (problem, window)
WHERE NOT decoded ORDER BY id
"""


@dataclass(frozen=True, eq=False)
class RequestBatch:
    """Requests to one adapter.

    Args:
        adapter: the adapter.
        first: the id of the first one; the others follow.
        table: the columns ``problems.REQUESTS``.
    """

    adapter: str
    first: int
    table: pa.Table

    def calls(self, ids: Sequence[int]) -> list[ScoreRequest]:
        """Return some of them, as a backend is asked them."""
        rows = self.table.take(pa.array([id - self.first for id in ids], pa.int64()))
        texts = (rows.column(name).to_pylist() for name in ("prompt", "completion"))
        return [ScoreRequest(self.adapter, prompt, completion) for prompt, completion in zip(*texts, strict=True)]


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
        self.path = path
        self.scores: list[tuple[Any, ...]] = []
        self.generations: list[tuple[Any, ...]] = []
        self.committed = 0.0
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()  # an error of the system's, where that is not allowed
        with self._errors():
            self.planned = self.resumed = self._opened()
            if not self.planned and path.stat().st_size:  # damaged, or of another version
                self.base.close()
                path.unlink()
                self._opened()

    def _opened(self) -> bool:
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
            if name in FULL:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path)) from error
            if name.startswith("SQLITE_IOERR"):
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(self.path)) from error
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

    def columns(self, sql: str, *values: object) -> dict[str, list[Any]]:
        """Return what a query finds, column by column."""
        cursor = self.execute(sql, *values)
        names = [name for name, *_ in cursor.description]
        columns = list(zip(*cursor.fetchall(), strict=True)) or [()] * len(names)
        return {name: list(column) for name, column in zip(names, columns, strict=True)}

    def close(self) -> None:
        """Let go of the file."""
        self.base.close()

    def remove(self) -> None:
        """Remove the file, and those of other processes: everything is in the tables, or nothing is worth keeping."""
        self.base.close()
        shutil.rmtree(self.path.parent, ignore_errors=True)

    # What there is to do

    def plan(self, problems: Iterable[Problems]) -> None:
        """Write down what there is to do, in one step.

        A request that several problems make is written once: LESS_THAN(1,3) is asked once.

        Raises:
            OSError: the disk is full or cannot be written; nothing is left behind.
        """
        try:
            with self._errors():
                self.base.execute("BEGIN EXCLUSIVE")
                writer = PlanWriter(self.base)
                for some in problems:
                    writer.add(some)
                writer.finish()
                self.base.execute(f"PRAGMA user_version = {VERSION}")
                self.base.execute("COMMIT")
        except BaseException:
            self.remove()
            raise
        self.planned = True

    @cached_property
    def adapters(self) -> list[str]:
        """The adapters that are asked, in the order in which they are first needed."""
        return [name for (name,) in self.execute("SELECT adapter FROM texts GROUP BY adapter ORDER BY min(batch)")]

    @cached_property
    def num_requests(self) -> int:
        """Number of requests, each counted once."""
        return self._count("SELECT count(*) FROM requests")

    @cached_property
    def num_problems(self) -> int:
        """Number of problems."""
        return self._count("SELECT ifnull(max(problem) + 1, 0) FROM spans")

    @cached_property
    def num_repeated(self) -> int:
        """Number of requests that need no evaluation of their own: another problem makes the same one."""
        return self._count("SELECT ifnull(sum(count), 0) FROM spans") - self.num_requests

    def _count(self, sql: str, *values: object) -> int:
        return int(self.execute(sql, *values).fetchone()[0])

    def batches(self, adapter: str) -> list[int]:
        """Return the numbers of the batches of an adapter's requests."""
        found = self.execute("SELECT batch FROM texts WHERE adapter = ? ORDER BY batch", adapter)
        return [batch for (batch,) in found]

    def span(self, batch: int) -> tuple[int, int]:
        """Return the id of a batch's first request, and the one behind its last."""
        return batch * plan.BATCH, (batch + 1) * plan.BATCH

    def batch_of(self, request: int) -> int:
        """Return the number of a request's batch."""
        return request // plan.BATCH

    def batch(self, batch: int) -> RequestBatch:
        """Return a batch of requests."""
        adapter, packed = self.execute("SELECT adapter, requests FROM texts WHERE batch = ?", batch).fetchone()
        return RequestBatch(adapter, batch * plan.BATCH, unpack(packed))

    def problems(self) -> Iterator[tuple[int, pa.Table]]:
        """Yield the number of a problem, and what it and those that follow are, with the columns ``PROBLEMS``."""
        for batch, packed in self.execute("SELECT batch, problems FROM problems ORDER BY batch"):
            yield batch * plan.BATCH, unpack(packed)

    def problems_at(self, places: I64) -> pa.Table:
        """Return what some problems are, by their numbers, ascending."""
        found = [PROBLEMS.empty_table()]
        for batch in np.unique(places // plan.BATCH).tolist():
            (packed,) = self.execute("SELECT problems FROM problems WHERE batch = ?", batch).fetchone()
            found.append(unpack(packed).take(int_array(places[places // plan.BATCH == batch] - batch * plan.BATCH)))
        return pa.concat_tables(found)

    # What is known

    def unanswered(self, batch: int) -> list[int]:
        """Return the ids of a batch's requests that have no answer yet."""
        sql = "SELECT id FROM requests WHERE id >= ? AND id < ? AND correct IS NULL"
        return [id for (id,) in self.execute(sql, *self.span(batch))]

    def proved(self, batch: RequestBatch) -> dict[int, int]:
        """Return how many tokens of the right answer are proved, of a batch's requests that fail behind them."""
        sql = "SELECT id, first_wrong_token FROM requests WHERE id >= ? AND id < ? AND first_wrong_token > 0"
        return dict(self.execute(sql, *self.span(self.batch_of(batch.first))))

    def first_wrong(self) -> list[int]:
        """Return the requests to decode next, of each problem whose first wrong one is not known.

        A request that fails the forward pass can still be right, in another tokenisation or up to white space at its
        ends; then the next one counts.
        """
        return [id for (id,) in self.execute(FIRST_WRONG)]

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
            if not self.base.in_transaction:
                self.base.execute("BEGIN IMMEDIATE")
            self.base.executemany(SCORED, self.scores)
            self.base.executemany(GENERATED, self.generations)
        self.scores, self.generations = [], []
        if time.monotonic() - self.committed >= PAUSE:
            self.commit()

    def commit(self, finals: Iterable[tuple[int, bool]] = ()) -> None:
        """Put on disk what was saved, and whether the last texts of some problems were right."""
        with self._errors():
            if known := list(finals):
                self.base.execute("SAVEPOINT finals")
                self.base.executemany("INSERT OR REPLACE INTO finals VALUES (?, ?)", known)
                self.base.execute("RELEASE finals")
            if self.base.in_transaction:
                self.base.execute("COMMIT")
        self.committed = time.monotonic()

    def counts(self) -> tuple[int, int, int]:
        """Return how many requests are answered, how many of them right, and their tokens."""
        found = self.execute("SELECT count(correct), ifnull(sum(correct), 0), ifnull(sum(tokens), 0) FROM requests")
        known, right, tokens = found.fetchone()
        return known, right, tokens

    def count(self, flag: str) -> int:
        """Return of how many requests a flag, ``near_tie`` or ``merges``, is set."""
        return self._count(f"SELECT count(*) FROM requests WHERE {flag}")

    def answer(self, request: int) -> tuple[bool, Generation] | None:
        """Return whether the decoded answer to a request is right, and the answer; None where there is none."""
        sql = "SELECT correct, text, ended FROM requests WHERE id = ? AND decoded"
        found = self.execute(sql, request).fetchone()
        return None if found is None else (bool(found[0]), Generation(found[1] or "", bool(found[2])))

    def read(self, other: Path, *, held: bool = True) -> None:
        """Read the answers in another process's file; ``take`` takes them over.

        Args:
            other: the file.
            held: the process holds it, and does not write meanwhile.
        """
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
