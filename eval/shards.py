"""Shards as an evaluation reads them: batches of some columns; what is no shard of ours is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import UserError, clip, shell_quoted
from ..pipelines.folder import Folder
from ..schemas import row_schema

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
        raise refused(folder, path, clip(error, 160)) from error


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
        raise refused(folder, path, clip(error, 160)) from error
    for name in columns:
        if name not in held.names:
            raise refused(folder, path, f"it has no column {name}")
        if _plain(held.field(name).type) != _plain(schema.field(name).type):
            raise refused(folder, path, f"{name} is of type {clip(str(held.field(name).type))}")


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
