"""Makes shards: rendered block by block, hashed, written aside; by worker processes of this machine."""

from __future__ import annotations

import base64
import os
import pickle
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from functools import cache
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from ..atomic import sha256_of
from ..schemas import row_schema
from ..tm import machine
from .folder import Folder
from .manifest import ShardRecord
from .plan import Config, text_bytes
from .workers import by_workers, hand_back_memory, keep_freed_memory

Task = tuple[int, int]  # index of the config, shard
Shards = Generator[tuple[Task, ShardRecord], None, None]
Engine = Callable[[Sequence[Config], Sequence[Task], Folder], Shards]
Source = tuple[str, str, bytes]  # module, file, text
Work = tuple[tuple[Config, ...], Folder]

AGAIN = (
    "run the same command again with fewer --workers, finished shards are kept; a Python script that builds needs"
    ' `if __name__ == "__main__":` around its own code'
)
LEVEL = 1  # zstd: 3 is 5% smaller and twice as slow on these texts

_worker: Work = ((), Folder(Path(os.devnull)))  # what a worker process works on
_begun = count(1)  # shards that it has begun


def write_shard(config: Config, shard: int, folder: Folder) -> ShardRecord:
    """Write a shard of a config, in a worker; the folder's ``place`` puts it where it belongs.

    Raises:
        OSError: the disk is full or cannot be written; nothing is left behind.
    """
    path = config.shard_path(shard)
    with folder.new_file(path) as file:
        rows, chars = render_shard(config, shard, file)
        return ShardRecord(path, rows, file.tell(), sha256_of(file), chars)


def render_shard(config: Config, shard: int, sink: BinaryIO) -> tuple[int, dict[str, tuple[int, int]]]:
    """Write the bytes of a shard to a file, and return its rows and the sizes of its texts."""
    schema = row_schema(config.view)
    rows, chars = 0, {"prompt": (0, 0), "completion": (0, 0)}
    with pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        compression_level=LEVEL,
        use_dictionary=[field.name for field in schema if pa.types.is_dictionary(field.type)],
        write_statistics=["len_a", "len_b"],
        store_schema=False,
        dictionary_pagesize_limit=16 << 20,
    ) as writer:
        for numbers in config.blocks(shard):
            batch = config.render(numbers)
            for name, (total, longest) in chars.items():
                column = batch.column(name)
                most = int(pa.compute.max(pa.compute.binary_length(column)).as_py() or 0)
                chars[name] = (total + text_bytes(column), max(longest, most))
            writer.write_batch(batch, row_group_size=batch.num_rows)
            rows += batch.num_rows
            del batch, column  # else they are there while the next ones are made
        writer.add_key_value_metadata(_file_metadata(config.view))
    return rows, chars


@cache
def _file_metadata(view: str) -> dict[str, str]:
    """Return the key-value metadata of a shard: the Arrow schema with plain strings and each column's description.

    Dictionary-encoded columns are strings to every reader: the datasets library does not know dictionaries.
    """
    fields = []
    for field in row_schema(view):
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        fields.append(pa.field(field.name, kind, metadata=field.metadata))
    return {"ARROW:schema": base64.b64encode(pa.schema(fields).serialize()).decode()}


def run_tasks(configs: Sequence[Config], tasks: Sequence[Task], folder: Folder, workers: int) -> Shards:
    """Yield every task with the record of its shard, in its place, as they finish.

    Shards are put in their place by this process while its workers render the next ones.

    Raises:
        UserError: a worker was killed, most often for lack of memory.
        OSError: a shard could not be written.
    """
    written: Shards = ((task, write_shard(configs[task[0]], task[1], folder)) for task in tasks)
    if workers > 1 and len(tasks) > 1:
        given = packed(configs, folder)
        hand_back_memory()  # what planning needed
        written = by_workers(_work, tasks, min(workers, len(tasks)), _start, given, AGAIN)
    with closing(written):
        for task, record in written:
            folder.place(record.path)
            yield task, record


def packed(configs: Sequence[Config], folder: Folder) -> tuple[tuple[Source, ...], bytes]:
    """Return what ``unpacked`` takes in another process: the files of users' own machines, and the pickled rest."""
    machines = [machine(task) for task in dict.fromkeys(config.settings.task for config in configs)]
    files = {(type(one).__module__, one.source) for one in machines}
    own = [(name, file) for name, file in sorted(files) if not name.startswith("caef_data.") and Path(file).is_file()]
    return tuple((name, file, Path(file).read_bytes()) for name, file in own), pickle.dumps(
        (machines, tuple(configs), folder)
    )


def unpacked(sources: Iterable[Source], rest: bytes) -> Work:
    """Return configs and folder in a worker process, where users' own machines are defined now."""
    for name, file, text in sources:
        if name not in sys.modules:  # another machine does not have the file
            module = sys.modules[name] = ModuleType(name)
            module.__file__ = file
            exec(compile(text, file, "exec"), module.__dict__)
    _, configs, folder = pickle.loads(rest)  # a machine of a declaration is a task again once it is read
    return configs, folder


def _start(sources: tuple[Source, ...], rest: bytes) -> None:
    global _worker
    keep_freed_memory(256 << 20, below=4 << 20)  # block after block: a tenth of the time was page faults
    _worker = unpacked(sources, rest)


def _work(task: Task) -> ShardRecord:
    configs, folder = _worker
    if next(_begun) % 4 == 0:  # what is freed in pieces grows; each time it costs a shard 5% more
        hand_back_memory()
    return write_shard(configs[task[0]], task[1], folder)
