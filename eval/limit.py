"""Which problems ``--limit N`` takes: N expressions of a task and split, the same ones in every mode and run.

    candidates  the expressions, as pairs (a, b), of which all of the views full, aligner and raw that the dataset
                holds have rows; one_step has candidates of its own where the dataset holds no other view of them
    first       those of which one_step has rows too: mul and div have few, since their long runs are written step by
                step and their short ones whole
    order       round over the classes (len_a, len_b, variant): the first expression of each, the second of each, ...;
                in a class and in a round the lowest hash first
    hash        mix(u(a) + mix(u(b) + KEY_task)) with ``mix`` and ``u`` of ``sampling.split``; KEY_task is the FNV-1a
                hash of "problems" and the task's name, mixed; u(b) = 0 without b; nothing is swapped

The choice looks at the dataset alone, never at the modes that run: a process and the baseline, or last week's run and
today's, answer the same questions. Of a chosen expression all rows are problems. Changing anything here changes what
results mean: see ``RULE``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..pipelines.folder import Folder
from ..pipelines.sampling.random import splitmix64, text_key
from ..pipelines.sampling.split import digit_sums
from ..tm.columns import I64, U64, Number
from .shards import batches, check_columns, expression_keys

RULE = 1  # version of this choice; stands in the identity of every run with a limit
WHOLE = ("full", "aligner", "raw")  # views of whole expressions; a class's variant is told by the first one held
CHOOSING = (*WHOLE, "one_step")  # the views that any mode takes its problems from
# One row an expression: its class, and in ``views`` a bit for each view that has rows of it.
EXPRESSIONS = """
SELECT a, coalesce(b, '') AS b, any_value(len_a) AS len_a, any_value(len_b) AS len_b,
    arg_min(variant, place) AS variant, bit_or(1 << place) AS views
FROM ({held}) GROUP BY ALL
"""
READ = 65_536  # rows of these columns at once
HELD = pa.schema(
    [
        *[pa.field(name, pa.string()) for name in ("a", "b", "variant")],
        *[pa.field(name, pa.int16()) for name in ("len_a", "len_b")],
    ]
)


@dataclass(frozen=True)
class Chosen:
    """The expressions that a limit takes.

    Args:
        keys: by view: the expressions, as ``expression_keys`` writes them.
        note: one line where there are fewer than asked for, or where one_step has others; None otherwise.
    """

    keys: Mapping[str, pa.Array]
    note: str | None


def choosing_configs(folder: Folder, task: str, split: str) -> list[str]:
    """Return the configs whose rows decide which expressions of a task are chosen."""
    configs = folder.manifest()["configs"]
    return [f"{task}-{view}" for view in CHOOSING if split in configs.get(f"{task}-{view}", {})]


@lru_cache(maxsize=32)  # the modes of a task ask one after the other
def choose_expressions(folder: Folder, task: str, split: str, limit: int) -> Chosen:
    """Choose the expressions of a task that a limit takes; reads the columns of operands, no texts.

    Args:
        folder: a finished dataset.
        task: a task that it holds.
        split: train, test or stress.
        limit: how many expressions.
    """
    views = [config.rpartition("-")[2] for config in choosing_configs(folder, task, split)]
    found = _expressions(folder, task, split, views)
    held = found.column("views").to_numpy()
    bits = {view: 1 << CHOOSING.index(view) for view in views}
    whole = sum(bits[view] for view in views if view in WHOLE)
    everywhere = held & sum(bits.values()) == sum(bits.values())
    shared = held & whole == whole if whole else everywhere
    hashes = _hashes(task, found)
    keys: dict[str, pa.Array] = {}
    for view in views:
        own = held & bits[view] > 0
        rows = np.flatnonzero(own & shared if view in WHOLE and shared.any() else own)
        rows = rows[_in_order(found.take(rows), ~everywhere[rows], hashes[rows])[:limit]]
        keys[view] = expression_keys(found.column("a").take(rows), found.column("b").take(rows))
    return Chosen(keys, _note(task, split, limit, keys, int(everywhere.sum())))


def _expressions(folder: Folder, task: str, split: str, views: list[str]) -> pa.Table:
    import duckdb

    with duckdb.connect(":memory:", config={"temp_directory": ""}) as database:
        for view in views:
            shards = folder.manifest()["configs"][f"{task}-{view}"][split]["shards"]
            for shard in shards:  # here: what DuckDB reads from tells it what is wrong, not us
                check_columns(folder, shard["path"], HELD.names)
            database.register(view, pa.RecordBatchReader.from_batches(HELD, _batches(folder, shards)))
        parts = [f'SELECT *, {CHOOSING.index(view)} AS place FROM "{view}"' for view in views]
        return database.sql(EXPRESSIONS.format(held=" UNION ALL ".join(parts))).to_arrow_table().combine_chunks()


def _batches(folder: Folder, shards: list[dict[str, Any]]) -> Iterator[pa.RecordBatch]:
    for shard in shards:
        for batch in batches(folder, shard["path"], HELD.names, READ):
            yield from pa.Table.from_batches([batch]).cast(HELD).to_batches()


def _hashes(task: str, found: pa.Table) -> U64:
    first, second = (splitmix64(digit_sums(Number.of(found.column(name).to_pylist()))) for name in ("a", "b"))
    second[pc.equal(found.column("b"), "").to_numpy()] = 0
    return splitmix64(first + splitmix64(second + np.uint64(text_key(f"problems {task}"))))


def _in_order(found: pa.Table, later: npt.NDArray[np.bool_], hashes: U64) -> I64:
    """Return the rows in the order in which they are taken; those that are ``later`` after all others."""
    variants = found.column("variant").combine_chunks().dictionary_encode().indices.to_numpy()
    parts = [later, found.column("len_a").to_numpy(), found.column("len_b").to_numpy(), variants]
    order = np.lexsort([hashes, *parts[::-1]])
    sorted_parts = np.stack([part[order] for part in parts])
    begins = np.append(True, (sorted_parts[:, 1:] != sorted_parts[:, :-1]).any(axis=0))[: len(order)]
    places = np.arange(len(order))
    rounds = np.empty_like(places)
    rounds[order] = places - np.maximum.accumulate(np.where(begins, places, 0))
    return np.lexsort([hashes, rounds, later])


def _note(task: str, split: str, limit: int, keys: Mapping[str, pa.Array], common: int) -> str | None:
    if all(len(chosen) == limit for chosen in keys.values()) and common >= limit:
        return None
    taken = ", ".join(f"{view} {len(chosen):,}" for view, chosen in keys.items())
    return (
        f"{task}: the {split} rows of {', '.join(keys)} share {common:,} expressions, fewer than --limit {limit:,};"
        f" taken: {taken}"
    )
