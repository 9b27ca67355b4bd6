"""Writes one shard: rendered block by block, and hashed."""

import base64
from functools import cache
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from ..atomic import sha256_of
from ..schemas import row_schema
from .folder import Folder
from .manifest import ShardRecord
from .plan import Config, text_bytes

LEVEL = 1  # zstd: 3 is 5% smaller and twice as slow on these texts


@cache
def file_metadata(view: str) -> dict[str, str]:
    """Return the key-value metadata of a shard: the Arrow schema with plain strings and each column's description.

    Dictionary-encoded columns are strings to every reader: the datasets library does not know dictionaries.
    """
    fields = []
    for field in row_schema(view):
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        fields.append(pa.field(field.name, kind, metadata=field.metadata))
    return {"ARROW:schema": base64.b64encode(pa.schema(fields).serialize()).decode()}


def render_shard(config: Config, shard: int, sink: BinaryIO) -> tuple[int, dict[str, tuple[int, int]]]:
    """Write the bytes of a shard to a file, and return its rows and the sizes of its texts."""
    schema = row_schema(config.view)
    repeating = [field.name for field in schema if pa.types.is_dictionary(field.type)]
    rows, chars = 0, dict[str, tuple[int, int]]()
    with pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        compression_level=LEVEL,
        use_dictionary=repeating,
        write_statistics=["len_a", "len_b"],
        store_schema=False,
        dictionary_pagesize_limit=16 << 20,
    ) as writer:
        for numbers in config.blocks(shard):
            batch = config.render(numbers)
            for name in ("prompt", "completion"):
                total, longest = chars.get(name, (0, 0))
                column = batch.column(name)
                most = int(pa.compute.max(pa.compute.binary_length(column)).as_py() or 0)
                chars[name] = (total + text_bytes(column), max(longest, most))
            writer.write_batch(batch, row_group_size=batch.num_rows)
            rows += batch.num_rows
            del batch, column  # else they are there while the next ones are made
        writer.add_key_value_metadata(file_metadata(config.view))
    return rows, chars


def write_shard(config: Config, shard: int, folder: Folder) -> ShardRecord:
    """Write a shard of a config, in a worker; the folder's ``place`` puts it where it belongs.

    Raises:
        OSError: the disk is full or cannot be written; nothing is left behind.
    """
    path = config.shard_path(shard)
    with folder.new_file(path) as file:
        rows, chars = render_shard(config, shard, file)
        digest = sha256_of(file)
        size = file.tell()
    return ShardRecord(path, rows, size, digest, chars)
