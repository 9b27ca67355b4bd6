"""Writes down what an evaluation has to do: problems, and each request that they make once."""

from __future__ import annotations

import sqlite3
from collections import defaultdict

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ..tm.columns import I64
from ..tm.render import int_array
from .problems import PROBLEMS, REQUESTS, Problems

BATCH = 4096  # requests that are held in memory, and sorted by length, at once
# ``key`` tells requests apart while the plan is made; nothing else reads it, so another version may hash otherwise.
TABLES = (
    """TABLE requests (
        id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, number INTEGER NOT NULL,
        correct INTEGER, stripped INTEGER, failed INTEGER, decoded INTEGER, first_wrong_token INTEGER, margin REAL,
        tokens INTEGER, completion_tokens INTEGER, near_tie INTEGER, merges INTEGER, text TEXT, ended INTEGER
    )""",
    """TABLE spans (
        problem INTEGER, step INTEGER, request INTEGER, count INTEGER, PRIMARY KEY (problem, step)
    ) WITHOUT ROWID""",
    """VIEW steps AS SELECT problem, step + id - request AS step, requests.*
    FROM spans CROSS JOIN requests WHERE id >= request AND id < request + count""",
    "TABLE texts (batch INTEGER PRIMARY KEY, adapter TEXT NOT NULL, requests BLOB NOT NULL)",
    "TABLE problems (batch INTEGER PRIMARY KEY, problems BLOB NOT NULL)",
    "TABLE finals (problem INTEGER PRIMARY KEY, correct INTEGER NOT NULL)",
)


class PlanWriter:
    """Writes problems and requests into a database; holds the texts of the batches that are not full."""

    def __init__(self, base: sqlite3.Connection) -> None:
        self.base = base
        self.count = self.num_batches = self.num_problems = 0
        self.following: dict[str, int] = {}  # by adapter: the next request's id
        self.waiting: dict[int, list[pa.Table]] = defaultdict(list)
        self.adapters: dict[int, str] = {}
        self.problems: list[pa.Table] = []
        self.repeats = False  # the last requests were not all new
        for table in TABLES:
            base.execute(f"CREATE {table}")

    def add(self, some: Problems) -> None:
        """Write problems."""
        ids = self._identified(some.requests)[some.steps]
        begins = np.zeros(len(ids), np.bool_)
        begins[some.starts[:-1]] = True
        begins[1:] |= np.diff(ids) != 1
        places = np.flatnonzero(begins)
        problem = np.searchsorted(some.starts, places, side="right") - 1
        columns = (problem + self.num_problems, places - some.starts[problem], ids[places])
        rows = zip(*(column.tolist() for column in (*columns, np.diff(places, append=len(ids)))), strict=True)
        self.base.executemany("INSERT INTO spans VALUES (?, ?, ?, ?)", rows)
        before, self.num_problems = self.num_problems // BATCH, self.num_problems + len(some)
        self.problems.append(some.table)
        if self.num_problems // BATCH > before:
            whole = pa.concat_tables(self.problems)
            full = len(whole) // BATCH * BATCH
            self._put_problems(whole.slice(0, full), before)
            self.problems = [whole.slice(full)]

    def finish(self) -> None:
        """Write what waits."""
        for batch in list(self.waiting):
            self._put(batch)
        self._put_problems(pa.concat_tables(self.problems or [PROBLEMS.empty_table()]), self.num_problems // BATCH)

    def _identified(self, requests: pa.Table) -> I64:
        """Return the ids of requests; write those that are new."""
        keys = keys_of(requests)
        if not self.repeats:  # so it is mostly, and nothing need be looked up
            ids = self._new(requests, keys)
            if ids is not None:
                return ids
        known: dict[bytes, int] = {}
        for key in keys:
            if key not in known:
                found = self.base.execute("SELECT id FROM requests WHERE key = ?", (key,)).fetchone()
                known[key] = -1 if found is None else found[0]
        first = {key: row for row, key in reversed(list(enumerate(keys))) if known[key] == -1}
        rows = sorted(first.values())
        self.repeats = len(rows) < len(keys)
        if rows:
            new = self._new(requests.take(int_array(np.array(rows))), [keys[row] for row in rows])
            assert new is not None  # none of them is known, each is there once
            known.update(zip((keys[row] for row in rows), new.tolist(), strict=True))
        return np.array([known[key] for key in keys], np.int64)

    def _new(self, requests: pa.Table, keys: list[bytes]) -> I64 | None:
        """Write requests and return their ids; None, and nothing is written, where they are not all new."""
        adapters = requests.column("adapter").combine_chunks().dictionary_encode()
        codes, following, num_batches = adapters.indices.to_numpy(), dict(self.following), self.num_batches
        ids, opened = np.empty(len(keys), np.int64), dict[int, str]()
        for code, adapter in enumerate(adapters.dictionary.to_pylist()):
            rows, done = np.flatnonzero(codes == code), 0
            while done < len(rows):
                id = following.get(adapter, 0)
                if id % BATCH == 0:
                    id, opened[num_batches] = num_batches * BATCH, adapter
                    num_batches += 1
                size = min(BATCH - id % BATCH, len(rows) - done)
                ids[rows[done : done + size]] = np.arange(id, id + size)
                following[adapter], done = id + size, done + size
        before, listed = self.base.total_changes, ids.tolist()
        written = zip(listed, keys, range(self.count, self.count + len(keys)), strict=True)
        self.base.executemany("INSERT OR IGNORE INTO requests (id, key, number) VALUES (?, ?, ?)", written)
        if self.base.total_changes - before < len(keys):
            self.base.executemany("DELETE FROM requests WHERE id = ?", ((id,) for id in listed))
            return None
        self.following, self.num_batches, self.count = following, num_batches, self.count + len(keys)
        self.adapters.update(opened)
        for batch in np.unique(ids // BATCH).tolist():
            mine = np.flatnonzero(ids // BATCH == batch)
            self.waiting[batch].append(requests if len(mine) == len(ids) else requests.take(int_array(mine)))
            if following[self.adapters[batch]] >= (batch + 1) * BATCH:
                self._put(batch)
        return ids

    def _put(self, batch: int) -> None:
        packed = pack(pa.concat_tables(self.waiting.pop(batch)), REQUESTS)
        self.base.execute("INSERT INTO texts VALUES (?, ?, ?)", (batch, self.adapters[batch], packed))

    def _put_problems(self, table: pa.Table, first: int) -> None:
        for place in range(0, len(table), BATCH):
            packed = pack(table.slice(place, BATCH), PROBLEMS)
            self.base.execute("INSERT INTO problems VALUES (?, ?)", (first + place // BATCH, packed))


def keys_of(requests: pa.Table) -> list[bytes]:
    """Return a 128-bit hash of each request's adapter, prompt and right answer."""
    texts = pc.binary_join_element_wise(*(requests.column(name) for name in ("adapter", "prompt", "completion")), "\0")
    column = pl.Series(texts)
    both = np.stack([column.hash(seed).to_numpy() for seed in (1, 2)], axis=1).tobytes()
    return [both[start : start + 16] for start in range(0, len(both), 16)]


def pack(table: pa.Table, schema: pa.Schema) -> bytes:
    """Return a table as compressed bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table.combine_chunks())
    return bytes(sink.getvalue())


def unpack(packed: bytes) -> pa.Table:
    """Return a table from its compressed bytes."""
    return pa.ipc.open_stream(packed).read_all()
