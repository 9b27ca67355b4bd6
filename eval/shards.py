"""Shards as an evaluation reads them: batches of some columns; what is no shard of ours is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import UserError, quoted, shell_quoted
from ..pipelines.folder import Folder
from ..pipelines.verify_rows import Known, check_rows, known_tasks
from ..schemas import row_schema
from ..tm import machine
from ..tm.check.entries import MAX_DIGITS, operand_error
from ..tm.columns import Operands
from ..tm.machine import Dialect, Rows
from ..tm.render import int_array, string_array

BATCH = 4096  # rows
OPERANDS = ("a", "b", "len_a", "len_b")
FEW_COLUMNS = 65_536  # rows at once of columns without texts


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
                held = parquet.schema_arrow
                for name in columns:
                    if name not in held.names:
                        raise refused(folder, path, f"it has no column {name}")
                    if _plain(held.field(name).type) != _plain(schema.field(name).type):
                        raise refused(folder, path, f"{name} is of type {quoted(str(held.field(name).type))}")
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
    kinds = pa.schema([(field.name, _plain(field.type)) for field in rows.schema])
    return pl.DataFrame(pl.from_arrow(rows.cast(kinds)))


def refused(folder: Folder, path: str, why: str) -> UserError:
    """Return the refusal of a shard, and why."""
    return UserError(
        f"these rows cannot be evaluated: {why}",
        where=folder.where(path),
        allowed="datasets that caef-data verify finds right: beside other answers a verdict says nothing",
        next_step=f"caef-data verify {shell_quoted(folder.name)}",
    )


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def expression_keys(a: pa.Array, b: pa.Array) -> pa.Array:
    """Return one text an expression, ``47 12``; an operand that is null leaves its place empty."""
    texts = (pc.fill_null(pc.cast(column, pa.string()), "") for column in (a, b))
    joined = pc.binary_join_element_wise(*texts, " ")
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def wrong_row(task: str, view: str, dialect: Dialect, rows: pa.RecordBatch, known: Known) -> str | None:
    """Return what is wrong with one of these rows, computed from integers as ``verify`` does; None if nothing is.

    Args:
        task: their task; of a machine of the user's own nothing else tells what it answers.
        view: full, whose expressions are looked at alone; one_step, aligner or raw.
        dialect: of one_step.
        rows: the columns that are needed of the view.
        known: kept between the rows of a task.
    """
    if task not in known_tasks():
        return None
    for a, b, len_a, len_b in _doubtful(task, _frame(rows.select(OPERANDS))).iter_rows():
        if why := operand_error(task, a, b):
            return why
        if (len(a), len(b or "")) != (len_a, len_b):
            return f"{quoted(a)} and {quoted(b)} have other lengths than {len_a} and {len_b}"
    if view == "full" or (view == "one_step" and _steps_as_rendered(task, dialect, rows)):
        return None
    findings, _ = check_rows(task, view, dialect, rows.to_pydict(), known)
    return findings[0][1] if findings else None


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
