"""What an evaluation has to do and what it knows so far, in one SQLite file: problems, requests, answers.

Requests, and problems, are numbered in the order in which they are first made.

    texts     in batches to one adapter, what requests are: their numbers, and the columns ``problems.REQUESTS``
    problems  in batches, what problems are: the columns ``problems.PROBLEMS``, and the requests that they make
    answers   in batches as they came, what the model did with a request: rows of ``ANSWER``; what it wrote, if wrong,
              is in the table ``wrong``
    finals    of rollouts: whether a problem's last text was right

Columns are packed: SQLite would take longer for a million small rows than all else does. In memory a request's answer
is a row of ``ResultStore.known``. What is left to ask is where ``correct`` is not known: a stopped evaluation goes on
from the file alone. There is no write-ahead log, whose shared memory disks of a network lack; who evaluates holds
the file's lock to the end.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import UserError, printable_path
from ..tm.columns import I64, Bool
from .calls import Answer
from .plan import BATCH, PLAN, PlanWriter, take, unpack
from .problems import Problems

VERSION = 7  # of the file's tables
PAUSE = 0.05  # seconds between commits, each of which waits for the disk: batches of a model take longer
CACHE = 8  # MB of the file that are held in memory
FULL = ("SQLITE_FULL", "SQLITE_IOERR_WRITE")  # a limit on files, or on the user's share, is the second
BROKEN = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
TABLES = (
    "TABLE answers (batch INTEGER PRIMARY KEY, rows BLOB NOT NULL)",
    "TABLE wrong (request INTEGER PRIMARY KEY, text TEXT NOT NULL)",
    "TABLE finals (problem INTEGER PRIMARY KEY, correct INTEGER NOT NULL)",
)
# A request and its answer, 27 bytes; not known are -1 in correct, failed and first_wrong_token, no tokens, no margin
ANSWER = np.dtype(
    [
        *[(name, "u4") for name in ("request", "tokens", "completion_tokens")],
        *[("first_wrong_token", "i4"), ("margin", "f4")],
        *[(name, "i1") for name in ("correct", "stripped", "failed", "decoded", "ended", "near_tie", "merges")],
    ]
)
# What every answer tells: columns, and the attributes that hold them
TOLD = {name: name for name in ("margin", "tokens", "completion_tokens", "merges")}
TOLD["first_wrong_token"] = "at"


class ResultStore:
    """The file of one evaluation.

    Args:
        path: the file; made where it is not there.

    Attributes:
        known: what is known of each request, rows of ``ANSWER``, shape (num_requests,).
        finals: of rollouts: whether each problem's last text was right, -1 where that is not known.

    Raises:
        UserError: another process holds it, or it cannot be read.
        OSError: the disk is full or cannot be written.
    """

    known: NDArray[np.void]
    finals: NDArray[np.int8]

    def __init__(self, path: Path) -> None:
        self.path, self.committed = path, 0.0
        self.unsaved: list[NDArray[np.void]] = []
        self.texts: list[tuple[int, str]] = []
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
            if whole:
                self._read_answers()
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorname", "") not in BROKEN:
                raise
            return False
        except (ValueError, IndexError):  # bytes that are no answers to these requests
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

    def close(self) -> None:
        self.base.close()

    def remove(self) -> None:
        """Remove the file: everything is in the tables, or nothing is worth keeping."""
        self.base.close()
        shutil.rmtree(self.path.parent, ignore_errors=True)

    # What there is to do

    def plan(self, problems: Iterable[Problems]) -> None:
        """Write down what there is to do, in one step; of a plan that fails nothing is left behind."""
        try:
            with self._errors():
                self.base.execute("BEGIN EXCLUSIVE")
                for line in (*PLAN, *TABLES):
                    self.base.execute(f"CREATE {line}")
                writer = PlanWriter(self.base)
                for some in problems:
                    writer.add(some)
                counts = (writer.num_requests, writer.num_problems, writer.num_steps)
                self.base.execute("INSERT INTO counts VALUES (?, ?, ?)", counts)
                self.base.execute(f"PRAGMA user_version = {VERSION}")
                self.base.execute("COMMIT")
        except BaseException:
            self.remove()
            raise
        self._read_answers()
        self.planned = True

    @cached_property
    def adapters(self) -> list[str]:
        """The adapters that are asked, in the order in which they are first needed."""
        return [name for (name,) in self.execute("SELECT adapter FROM texts GROUP BY adapter ORDER BY min(batch)")]

    def batches(self, adapter: str) -> list[int]:
        """Return the numbers of the batches of requests to an adapter."""
        found = self.execute("SELECT batch FROM texts WHERE adapter = ? ORDER BY batch", adapter)
        return [batch for (batch,) in found.fetchall()]

    def requests(self, adapter: str, wanted: Bool, among: Iterable[int] = ()) -> Iterator[tuple[I64, pa.Table]]:
        """Yield requests to an adapter, about ``BATCH`` at once: their numbers, and what they are.

        Args:
            adapter: the adapter.
            wanted: which requests, of all, shape (num_requests,).
            among: numbers of batches; of all where there are none.
        """
        ids: list[I64] = []
        tables: list[pa.Table] = []
        for batch in among or self.batches(adapter):
            [(packed,)] = self.execute("SELECT ids FROM texts WHERE batch = ?", batch)
            held = np.frombuffer(packed, np.int64)
            rows = np.flatnonzero(wanted[held])
            if not len(rows):
                continue
            [(packed,)] = self.execute("SELECT requests FROM texts WHERE batch = ?", batch)
            ids.append(held[rows])
            tables.append(take(unpack(packed), rows))
            if sum(map(len, ids)) >= BATCH:
                yield np.concatenate(ids), pa.concat_tables(tables)
                ids, tables = [], []
        if tables:
            yield np.concatenate(ids), pa.concat_tables(tables)

    def problems(self) -> Iterator[tuple[int, pa.Table]]:
        """Yield the number of a problem, and what it and those that follow are, with the columns ``PROBLEMS``."""
        for first, packed in self.execute("SELECT first, problems FROM problems ORDER BY first"):
            yield first, unpack(packed)

    def steps(self) -> Iterator[tuple[int, I64, I64]]:
        """Yield the number of a problem, the requests of it and those that follow, and where each problem's begin."""
        for first, starts, steps in self.execute("SELECT first, starts, steps FROM problems ORDER BY first"):
            yield first, np.frombuffer(starts, np.int64), np.frombuffer(steps, np.int64)

    def problems_at(self, numbers: I64) -> pa.Table:
        """Return what some problems are, by their numbers in ascending order."""
        firsts = np.array(self.execute("SELECT first FROM problems ORDER BY first").fetchall()).ravel()
        places, found = np.searchsorted(firsts, numbers, side="right") - 1, []
        for place in np.unique(places):
            first = int(firsts[place])
            [(packed,)] = self.execute("SELECT problems FROM problems WHERE first = ?", first)
            found.append(take(unpack(packed), numbers[places == place] - first))
        return pa.concat_tables(found)

    # What is known

    def _read_answers(self) -> None:
        [(self.num_requests, self.num_problems, steps)] = self.execute("SELECT * FROM counts")
        # Requests that need no evaluation of their own: another problem makes the same one.
        self.num_repeated = steps - self.num_requests
        self.known = np.zeros(self.num_requests, ANSWER)
        self.known["request"], self.known["margin"] = np.arange(self.num_requests), np.nan
        for name in ("correct", "failed", "first_wrong_token"):
            self.known[name] = -1
        for (packed,) in self.execute("SELECT rows FROM answers ORDER BY batch"):
            rows = np.frombuffer(packed, ANSWER)
            self.known[rows["request"]] = rows
        self.finals = np.full(self.num_problems, -1, np.int8)
        self._take_finals(self.execute("SELECT problem, correct FROM finals").fetchall())

    def _take_finals(self, finals: Sequence[tuple[int, bool]]) -> None:
        for problem, correct in finals:
            self.finals[problem] = correct

    def record(
        self,
        requests: I64,
        completions: Sequence[str],
        results: Sequence[tuple[int, Answer]],
        *,
        passed: bool = False,
        walked: bool = False,
    ) -> None:
        """Take what came back, each with the place of its request; of a wrong answer the text.

        ``passed`` through a forward pass, of which decoding leaves what it told; ``walked`` requests need none.
        """
        answers = [answer for _, answer in results]
        expected = [completions[place] for place, _ in results]
        rows = self.known[requests[np.array([place for place, _ in results], np.int64)]]
        told = {name: [getattr(answer, attribute) for answer in answers] for name, attribute in TOLD.items()}
        told["first_wrong_token"] = [-1 if place is None else place for place in told["first_wrong_token"]]
        scored = rows["tokens"] > 0  # by a pass before
        for name, values in told.items():
            rows[name] = np.where(scored, rows[name], np.array(values, ANSWER[name]))
        rows["near_tie"] |= np.array([answer.near_tie for answer in answers], np.int8)
        pairs = list(zip(answers, expected, strict=True))
        rows["correct"] = [one.right if one.text is None else one.ended and one.text == text for one, text in pairs]
        rows["stripped"] = [
            one.right if one.text is None else one.ended and one.text.strip() == text.strip() for one, text in pairs
        ]
        rows["decoded"] |= np.array([answer.text is not None for answer in answers], np.int8)
        rows["ended"] = [answer.ended for answer in answers]
        if passed or walked:
            rows["failed"] = 1 - rows["correct" if passed else "stripped"]
        self.known[rows["request"]] = rows
        self.unsaved += [rows] * (len(rows) > 0)
        for request, answer, right in zip(rows["request"].tolist(), answers, rows["correct"].tolist(), strict=True):
            if answer.text is not None and not right:
                # A server may send a lone surrogate, which no file of texts can hold.
                self.texts.append((request, answer.text.encode("utf-8", "backslashreplace").decode()))

    def save(self) -> None:
        """Write what was recorded of a batch; on disk it is at once, unless batches take less than ``PAUSE``."""
        with self._errors():
            self._begin()
            if self.unsaved:
                rows = b"".join(rows.tobytes() for rows in self.unsaved)
                self.base.execute("INSERT INTO answers (rows) VALUES (?)", (rows,))
            self.base.executemany("INSERT OR REPLACE INTO wrong VALUES (?, ?)", self.texts)
        self.unsaved, self.texts = [], []
        if time.monotonic() - self.committed >= PAUSE:
            self.commit()

    def commit(self, finals: Sequence[tuple[int, bool]] = ()) -> None:
        """Put on disk what was saved, and whether the last texts of some problems were right."""
        self._take_finals(finals)
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
        correct = self.known["correct"]
        return int((correct >= 0).sum()), int((correct == 1).sum()), int(self.known["tokens"].sum(dtype=np.int64))

    def answer(self, request: int, expected: str) -> Answer | None:
        """Return the decoded answer to a request, whose right one is given; None where there is none."""
        known = self.known[request]
        if not known["decoded"]:
            return None
        [text] = self.wrong_texts(np.array([request]))
        return Answer(text is None, text=expected if text is None else text, ended=bool(known["ended"]))

    def wrong_texts(self, requests: I64) -> list[str | None]:
        """Return what the model answered to requests in ascending order; None where that is right, or not decoded."""
        known = self.known[requests]
        wrong = (known["decoded"] == 1) & (known["correct"] == 0)
        if not wrong.any():
            return [None] * len(requests)
        span = int(requests[0]), int(requests[-1])
        texts = dict(self.execute("SELECT request, text FROM wrong WHERE request BETWEEN ? AND ?", *span).fetchall())
        return [texts[one] if is_wrong else None for one, is_wrong in zip(requests.tolist(), wrong, strict=True)]
