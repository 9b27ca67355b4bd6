"""Rows of a dataset as an evaluation takes them: batches of some columns, checked; all of them, or what a limit takes.

``--limit N`` takes N expressions of a task and split, the same ones in every mode and run:

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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import UserError, quoted, shell_quoted
from ..pipelines.folder import Folder
from ..pipelines.rows import plain_schema
from ..pipelines.sampling.random import splitmix64, text_key
from ..pipelines.sampling.split import digit_sums
from ..pipelines.verify_rows import Known, check_rows, known_tasks
from ..schemas import row_schema
from ..tm import machine, operands
from ..tm.check.entries import MAX_DIGITS, operand_error
from ..tm.columns import U64, Operands
from ..tm.machine import Dialect, Rows
from ..tm.render import int_array, string_array

BATCH = 4096  # rows
OPERANDS = ("a", "b", "len_a", "len_b")
FEW_COLUMNS = 65_536  # rows at once of columns without texts
RULE = 1  # version of this choice; stands in the identity of every run with a limit
WHOLE = ("full", "aligner", "raw")  # views of whole expressions; a class's variant is told by the first one held
CHOOSING = (*WHOLE, "one_step", "slips")  # the views that any mode takes its problems from
EXPRESSION, CLASS = ("a", "b"), ("len_a", "len_b", "variant")


def batches(
    folder: Folder, config: str, split: str, columns: Sequence[str], size: int = BATCH
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Yield columns of the shards of a config, in their order, each batch with the path of its shard.

    Raises:
        UserError: a shard lacks one of them, holds another type, or is no Parquet file.
    """
    schema = row_schema(config.rpartition("-")[2])
    for path in (shard["path"] for shard in folder.manifest()["configs"][config][split]["shards"]):
        try:
            with folder.open(path) as file, pq.ParquetFile(file) as parquet:
                held, right = plain_schema(parquet.schema_arrow), plain_schema(schema)
                for name in columns:
                    if name not in held.names:
                        raise refused(folder, path, f"it has no column {name}")
                    if (kind := held.field(name).type) != right.field(name).type:
                        raise refused(folder, path, f"{name} is of type {quoted(str(kind))}")
                for batch in parquet.iter_batches(size, columns=list(columns), use_threads=False):
                    yield path, batch.select(list(columns))
        except pa.ArrowException as error:
            raise refused(folder, path, quoted(error, 160)) from error


def distinct_rows(folder: Folder, config: str, split: str, columns: Sequence[str]) -> pl.DataFrame:
    """Return what some columns of a config hold, each row once."""
    parts = [_frame(batch).unique() for _, batch in batches(folder, config, split, columns, FEW_COLUMNS)]
    schema = row_schema(config.rpartition("-")[2])
    return pl.concat([_frame(schema.empty_table().select(columns)), *parts]).unique()


def _frame(rows: pa.RecordBatch | pa.Table) -> pl.DataFrame:
    """Return rows as a frame; of dictionaries polars would make categories, which it keeps for ever."""
    return pl.DataFrame(pl.from_arrow(rows.cast(plain_schema(rows.schema))))


def refused(folder: Folder, path: str, why: str) -> UserError:
    """Return the refusal of a shard, and why."""
    return UserError(
        f"these rows cannot be evaluated: {why}",
        where=folder.where(path),
        allowed="datasets that caef-data verify finds right: beside other answers a verdict says nothing",
        next_step=f"caef-data verify {shell_quoted(folder.name)}",
    )


def expression_keys(a: pa.Array, b: pa.Array) -> pa.Array:
    """Return one text an expression, ``47 12``; an operand that is null leaves its place empty."""
    texts = (pc.fill_null(pc.cast(column, pa.string()), "") for column in (a, b))
    joined = pc.binary_join_element_wise(*texts, " ")
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def wrong_row(task: str, view: str, dialect: Dialect, rows: pa.RecordBatch, known: Known) -> str | None:
    """Return what is wrong with one of these rows, computed from integers as ``verify`` does; None if nothing is.

    Args:
        task: their task; of a machine of the user's own, whose answers nothing else tells, operands alone are checked.
        view: full, whose expressions are looked at alone; one_step, aligner or raw.
        dialect: of one_step.
        rows: the columns that are needed of the view.
        known: kept between the rows of a task.
    """
    if task not in known_tasks():
        return _wrong_operands(task, _frame(rows.select(OPERANDS)))
    for a, b, len_a, len_b in _doubtful(task, _frame(rows.select(OPERANDS))).iter_rows():
        if why := operand_error(task, a, b):
            return why
        if (len(a), len(b or "")) != (len_a, len_b):
            return f"{quoted(a)} and {quoted(b)} have other lengths than {len_a} and {len_b}"
    if view == "full" or (view == "one_step" and _steps_as_rendered(task, dialect, rows)):
        return None
    findings, _ = check_rows(task, view, dialect, rows.to_pydict(), known)
    return findings[0][1] if findings else None


def _wrong_operands(task: str, rows: pl.DataFrame) -> str | None:
    """Return what is wrong with the operands of a machine that nothing else knows, as the machine says it."""
    for a, b, len_a, len_b in rows.unique(maintain_order=True).iter_rows():
        try:
            found, *_ = operands(task, a, b)
        except UserError as error:
            return f"{quoted(a)} {quoted(b)}: {error.what}"
        if (found.length(a), len(b or "")) != (len_a, len_b):
            return f"{quoted(a)} and {quoted(b)} have other lengths than {len_a} and {len_b}"
    return None


def _doubtful(task: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of which it takes ``operand_error`` to say whether the operands are right: few, of most tasks."""
    if task in ("left_mask", "reflection"):
        return rows
    a, b, len_a, len_b = map(pl.col, OPERANDS)
    plain = (b != "0") if task in ("mul", "div") else pl.lit(True)
    if task == "sub":
        plain = (len_a > len_b) | ((len_a == len_b) & (a >= b))
    for text, length in ((a, len_a), (b, len_b)):
        plain &= text.str.contains(r"\A(0|[1-9][0-9]*)\z") & (text.str.len_bytes() == length) & (length <= MAX_DIGITS)
    return rows.filter(plain.fill_null(False).not_())


def _steps_as_rendered(task: str, dialect: Dialect, rows: pa.RecordBatch) -> bool:
    """Tell whether steps of a machine that calls no other are what it renders: twenty times as fast as one by one."""
    found = machine(task)
    if found.composer:
        return False
    a, b = (rows.column(name).to_pylist() for name in ("a", "b"))
    batch = found.batch(Operands(found.column(a), None if found.unary else found.column(b)), dialect)
    steps = rows.column("step").fill_null(-1).to_numpy()
    if not ((steps >= 0) & (steps < batch.num_steps)).all():
        return False
    asked = Rows(np.arange(len(rows)), steps)
    prompts, completions = batch.prompts(asked), batch.completions(asked)
    rendered = {
        "prompt": prompts.text,
        "completion": completions.text,
        "n_steps": int_array(batch.num_steps),
        "state": string_array(list(prompts.states)).take(int_array(prompts.state)),
        "next_state": string_array(list(completions.states)).take(int_array(completions.state)),
        "call": pa.nulls(len(rows), pa.string()),
    }
    return all(rows.column(name).cast(column.type).equals(column) for name, column in rendered.items())


# Of a limit


@dataclass(frozen=True)
class Chosen:
    """The expressions that a limit takes.

    Args:
        keys: by view: the expressions, as ``expression_keys`` writes them.
        notes: a line where there are fewer than asked for, or where one_step has others.
    """

    keys: Mapping[str, pa.Array]
    notes: list[str]


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
    return Chosen(keys, _notes(task, split, limit, keys, int(held["everywhere"].sum())))


def _expressions(folder: Folder, config: str, split: str, view: str) -> pl.DataFrame:
    """Return each expression of a config once, with its class, and that the view holds it."""
    found = distinct_rows(folder, config, split, (*EXPRESSION, *CLASS)).unique(EXPRESSION)
    return found.with_columns(pl.lit(True).alias(view), pl.col("b").fill_null(""))


def _hashes(task: str, held: pl.DataFrame) -> U64:
    first, second = (splitmix64(digit_sums(machine(task).column(held[name].to_list()))) for name in EXPRESSION)
    second[(held["b"] == "").to_numpy()] = 0
    return splitmix64(first + splitmix64(second + np.uint64(text_key(f"problems {task}"))))


def _notes(task: str, split: str, limit: int, keys: Mapping[str, pa.Array], common: int) -> list[str]:
    if all(len(chosen) == limit for chosen in keys.values()) and common >= limit:
        return []
    share = f"{task}: the {split} rows of {', '.join(keys)} share {common:,} expressions, fewer than --limit {limit:,}"
    return [f"{share}; taken: {', '.join(f'{view} {len(chosen):,}' for view, chosen in keys.items())}"]
