"""Shards as an evaluation reads them: batches of some columns; what is no shard of ours is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import UserError, quoted, shell_quoted
from ..pipelines.folder import Folder
from ..pipelines.verify_rows import Known, check_rows, known_tasks
from ..schemas import row_schema
from ..tm import machine
from ..tm.check.closed_composers import problem
from ..tm.columns import Number, Operands
from ..tm.machine import Dialect, Rows
from ..tm.render import int_array, string_array

BATCH = 4096  # rows


def batches(folder: Folder, path: str, columns: Sequence[str], size: int = BATCH) -> Iterator[pa.RecordBatch]:
    """Yield columns of a shard, in their order.

    Raises:
        UserError: it lacks one of them, holds another type, or is no Parquet file.
    """
    check_columns(folder, path, columns)
    try:
        with folder.open(path) as file, pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(size, columns=list(columns)):
                yield batch.select(list(columns))
    except pa.ArrowException as error:
        raise refused(folder, path, quoted(error, 160)) from error


def check_columns(folder: Folder, path: str, columns: Sequence[str]) -> None:
    """Look whether a shard has these columns.

    Raises:
        UserError: it lacks one of them, holds another type, or is no Parquet file.
    """
    schema = row_schema(path.partition("/")[0].rpartition("-")[2])
    try:
        with folder.open(path) as file, pq.ParquetFile(file) as parquet:
            held = parquet.schema_arrow
    except pa.ArrowException as error:
        raise refused(folder, path, quoted(error, 160)) from error
    for name in columns:
        if name not in held.names:
            raise refused(folder, path, f"it has no column {name}")
        if _plain(held.field(name).type) != _plain(schema.field(name).type):
            raise refused(folder, path, f"{name} is of type {quoted(str(held.field(name).type))}")


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
    """Return what is wrong with one of these rows; None if nothing is.

    Args:
        task: their task; of a machine of the user's own nothing else tells what it answers.
        view: full, whose expressions are looked at alone; one_step, aligner or raw.
        dialect: of one_step.
        rows: the columns that are needed of the view.
        known: kept between the rows of a task.
    """
    if task not in known_tasks():
        return None
    if _expressions(task, rows) and (view == "full" or view == "one_step" and _steps_as_rendered(task, dialect, rows)):
        return None
    return _wrong(task, view, dialect, rows.to_pydict(), known)


def _steps_as_rendered(task: str, dialect: Dialect, rows: pa.RecordBatch) -> bool:
    """Tell whether steps of a machine that calls no other are what it renders: twenty times as fast as ``_wrong``.

    False where they are not, and where they cannot be rendered: ``_wrong`` knows what is wrong, if anything is.
    """
    found = machine(task)
    names = ["a"] if found.unary else ["a", "b"]
    if found.composer:
        return False
    keys = expression_keys(rows.column("a"), rows.column("b")).dictionary_encode()
    e = keys.indices.to_numpy().astype(np.int64)
    _, first = np.unique(e, return_index=True)
    texts = [rows.column(name).take(int_array(first)).to_pylist() for name in names]
    operands = Operands(Number.of(texts[0]), None if found.unary else Number.of(texts[1]))
    batch = found.batch(operands, dialect)
    count = batch.num_steps[e]
    steps = rows.column("step").fill_null(-1).to_numpy()
    if not ((steps >= 0) & (steps < count)).all():
        return False
    asked = Rows(e, steps)
    prompts, completions = batch.prompts(asked), batch.completions(asked)
    rendered = {
        "prompt": prompts.text,
        "completion": completions.text,
        "n_steps": int_array(count),
        "state": string_array(list(prompts.states)).take(int_array(prompts.state)),
        "next_state": string_array(list(completions.states)).take(int_array(completions.state)),
        "call": pa.nulls(len(rows), pa.string()),
    }
    return all(rows.column(name).cast(column.type).equals(column) for name, column in rendered.items())


def _expressions(task: str, rows: pa.RecordBatch) -> bool:
    """Tell whether the operands of all rows are expressions of a task, of the lengths that they say."""
    found, none = machine(task), rows.column("b").null_count == len(rows)
    if found.unary != none or not all(_decimal(rows, name) for name in "ab"[: 2 - none]):
        return False
    if none and pc.any(pc.not_equal(rows.column("len_b"), 0)).as_py():
        return False
    a, b = (rows.column(name).to_pylist() for name in "ab")
    return all(found.domain_error(int(x), int(y or 0)) is None for x, y in zip(a, b, strict=True))


def _decimal(rows: pa.RecordBatch, name: str) -> bool:
    """Tell whether all operands of a column are decimal numbers, as long as the column of their lengths says."""
    column = rows.column(name).cast(pa.string())
    right = pc.match_substring_regex(column, "^(0|[1-9][0-9]*)$")
    return (
        column.null_count == 0
        and pc.all(right).as_py() is not False
        and pc.utf8_length(column).cast(pa.int16()).equals(rows.column(f"len_{name}"))
    )


def _wrong(task: str, view: str, dialect: str, columns: dict[str, list[Any]], known: Known) -> str | None:
    """Return what is wrong with a row of a batch, computed from integers as ``verify`` does; None if nothing is."""
    for a, b, len_a, len_b in zip(*(columns[name] for name in ("a", "b", "len_a", "len_b")), strict=True):
        if view == "full" and isinstance(found := problem(task, a, b), str):
            return found
        if (len(a or ""), len(b or "")) != (len_a, len_b):
            return f"{quoted(a)} and {quoted(b)} have other lengths than {len_a} and {len_b}"
    findings = [] if view == "full" else check_rows(task, view, dialect, columns, known, common=False)
    return findings[0][1] if findings else None
