"""What an evaluation has to do, as it is written into its file: problems, and each request once; columns in bytes."""

from __future__ import annotations

import sqlite3

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from ..tm.columns import I64, U64
from ..tm.render import int_array
from .problems import Problems

BATCH = 4096  # requests that are written, and read, at once
PLAN = (
    "TABLE texts (batch INTEGER PRIMARY KEY, adapter TEXT NOT NULL, ids BLOB NOT NULL, requests BLOB NOT NULL)",
    """TABLE problems (
        first INTEGER PRIMARY KEY, starts BLOB NOT NULL, steps BLOB NOT NULL, problems BLOB NOT NULL
    )""",
    "TABLE counts (requests INTEGER, problems INTEGER, steps INTEGER)",
)


class PlanWriter:
    """Writes problems, and each request once; what tells requests apart it holds in memory, 24 bytes each."""

    def __init__(self, base: sqlite3.Connection) -> None:
        self.base = base
        self.num_requests = self.num_problems = self.num_steps = 0
        self.runs: list[tuple[U64, I64]] = []  # keys of requests, sorted by their second halves, and their numbers

    def add(self, some: Problems) -> None:
        steps = self._identified(some.requests)[some.steps]
        packed = some.starts.tobytes(), steps.tobytes(), pack(some.table)
        self.base.execute("INSERT INTO problems VALUES (?, ?, ?, ?)", (self.num_problems, *packed))
        self.num_problems += len(some)
        self.num_steps += len(steps)

    def _identified(self, requests: pa.Table) -> I64:
        """Return the numbers of requests; write those that are new, adapter by adapter."""
        keys = keys_of(requests)
        order = np.lexsort(keys)
        begins = np.append(True, np.diff(keys[:, order]).any(axis=0))
        first, group = order[begins], np.cumsum(begins) - 1
        keys = keys[:, first]
        ids = self._find(keys)
        new = np.flatnonzero(ids < 0)
        rows = np.sort(first[new])
        ids[new] = self.num_requests + np.searchsorted(rows, first[new])
        adapters = requests.column("adapter").combine_chunks().dictionary_encode()
        codes = adapters.indices.to_numpy()[rows]
        for code, adapter in enumerate(adapters.dictionary.to_pylist()):
            mine = np.flatnonzero(codes == code)
            for part in (mine[start : start + BATCH] for start in range(0, len(mine), BATCH)):
                packed = (self.num_requests + part).tobytes(), pack(take(requests, rows[part]))
                self.base.execute("INSERT INTO texts VALUES (NULL, ?, ?, ?)", (adapter, *packed))
        self.num_requests += len(new)
        self._note(keys[:, new], ids[new])
        numbers = np.empty_like(group)
        numbers[order] = ids[group]
        return numbers

    def _find(self, keys: U64) -> I64:
        """Return the numbers of the requests with these keys; -1 where there is none.

        Of keys that share a half the first is found: the others' requests are asked again where they are repeated.
        """
        ids = np.full(keys.shape[1], -1)
        for held, numbers in self.runs:
            places = np.minimum(np.searchsorted(held[1], keys[1]), len(numbers) - 1)
            ids = np.where((held[:, places] == keys).all(axis=0), numbers[places], ids)
        return ids

    def _note(self, keys: U64, ids: I64) -> None:
        """Hold new keys; runs of about one size become one, so that each key is moved a few times in all."""
        while self.runs and len(self.runs[-1][1]) < 2 * len(ids):
            held, numbers = self.runs.pop()
            places = np.searchsorted(held[1], keys[1])
            keys, ids = np.insert(held, places, keys, axis=1), np.insert(numbers, places, ids)
        if len(ids):
            self.runs.append((keys, ids))


def keys_of(requests: pa.Table) -> U64:
    """Return a 128-bit hash of each request's adapter, prompt and right answer, as two halves, shape (2, n)."""
    texts = pc.binary_join_element_wise(*(requests.column(name) for name in ("adapter", "prompt", "completion")), "\0")
    column = pl.Series(texts)
    return np.stack([column.hash(seed).to_numpy() for seed in (1, 2)])


def pack(table: pa.Table) -> pa.Buffer:
    """Return a table as compressed bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue()


def unpack(packed: bytes) -> pa.Table:
    """Return a table from its compressed bytes."""
    return pa.ipc.open_stream(packed, options=pa.ipc.IpcReadOptions(use_threads=False)).read_all()


def take(table: pa.Table, rows: I64) -> pa.Table:
    """Return rows of a table; nothing is copied where they follow one another."""
    follow = len(rows) and rows[-1] - rows[0] + 1 == len(rows) and (np.diff(rows) == 1).all()
    return table.slice(int(rows[0]), len(rows)) if follow else table.take(int_array(rows))
