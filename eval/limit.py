"""Which problems ``--limit N`` takes: N expressions of a task and split, the same ones in every mode and run.

    candidates  the expressions, as pairs (a, b), of which all of the views full, aligner and raw that the dataset
                holds have rows; one_step has candidates of its own where the dataset holds no other view of them
    first       those of which one_step has rows too, and slips where the dataset holds it: mul and div have few, since
                their long runs are written step by step and their short ones whole
    order       round over the classes (len_a, len_b, variant): the first expression of each, the second of each, ...;
                in a class and in a round the lowest hash first
    hash        mix(u(a) + mix(u(b) + KEY_task)) with ``mix`` and ``u`` of ``sampling.split``; KEY_task is the FNV-1a
                hash of "problems" and the task's name, mixed; u(b) = 0 without b; nothing is swapped

The choice looks at the dataset alone, never at the modes that run: a process and the baseline, or last week's run and
today's, answer the same questions. Of a chosen expression all rows are problems. Changing anything here changes what
results mean: see ``RULE``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import polars as pl
import pyarrow as pa

from ..pipelines.folder import Folder
from ..pipelines.sampling.random import splitmix64, text_key
from ..pipelines.sampling.split import digit_sums
from ..tm.columns import U64
from ..tm.registry import machine
from .shards import distinct_rows, expression_keys

RULE = 1  # version of this choice; stands in the identity of every run with a limit
WHOLE = ("full", "aligner", "raw")  # views of whole expressions; a class's variant is told by the first one held
CHOOSING = (*WHOLE, "one_step", "slips")  # the views that any mode takes its problems from
EXPRESSION, CLASS = ("a", "b"), ("len_a", "len_b", "variant")


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
    configs = choosing_configs(folder, task, split)
    views = [config.rpartition("-")[2] for config in configs]
    frames = [_expressions(folder, config, split, view) for config, view in zip(configs, views, strict=True)]
    found = pl.concat(frames, how="diagonal").group_by(EXPRESSION, maintain_order=True)
    held = found.agg(pl.first(*CLASS), *(pl.col(view).any() for view in views))
    whole = [view for view in views if view in WHOLE] or views
    held = held.with_columns(everywhere=pl.all_horizontal(views), whole=pl.all_horizontal(whole))
    held = held.with_columns(pl.Series("hash", _hashes(task, held)))
    place = pl.col("hash").rank("ordinal").over("everywhere", *CLASS)
    keys: dict[str, pa.Array] = {}
    for view in views:
        own = held.filter(view)
        if view in WHOLE and held["whole"].any():
            own = own.filter("whole")
        taken = own.sort(~pl.col("everywhere"), place, "hash").head(limit).to_arrow()
        keys[view] = expression_keys(taken.column("a"), taken.column("b"))
    return Chosen(keys, _note(task, split, limit, keys, int(held["everywhere"].sum())))


def _expressions(folder: Folder, config: str, split: str, view: str) -> pl.DataFrame:
    """Return each expression of a config once, with its class, and that the view holds it."""
    found = distinct_rows(folder, config, split, (*EXPRESSION, *CLASS)).unique(EXPRESSION)
    return found.with_columns(pl.lit(True).alias(view), pl.col("b").fill_null(""))


def _hashes(task: str, held: pl.DataFrame) -> U64:
    first, second = (splitmix64(digit_sums(machine(task).column(held[name].to_list()))) for name in EXPRESSION)
    second[(held["b"] == "").to_numpy()] = 0
    return splitmix64(first + splitmix64(second + np.uint64(text_key(f"problems {task}"))))


def _note(task: str, split: str, limit: int, keys: Mapping[str, pa.Array], common: int) -> str | None:
    if all(len(chosen) == limit for chosen in keys.values()) and common >= limit:
        return None
    taken = ", ".join(f"{view} {len(chosen):,}" for view, chosen in keys.items())
    return (
        f"{task}: the {split} rows of {', '.join(keys)} share {common:,} expressions, fewer than --limit {limit:,};"
        f" taken: {taken}"
    )
