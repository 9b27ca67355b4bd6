"""The raw files of the published data, ``raw/addition/test_5_5.jsonl``, seen as a dataset that problems come from.

A row is ``{"prompt": "12+9=", "response": "21"}``; the full answer is both texts, one behind the other. The rows give
raw questions; whole runs, aligner rows and single steps follow from their operands, steps in the published dialect.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import UserError, printable_path, quoted
from ..pipelines.folder import Folder
from ..pipelines.hub_source import Say
from ..pipelines.manifest import FORMAT, ShardRecord
from ..pipelines.rows import Work, render_rows
from ..pipelines.sampling.laws import class_parts
from ..schemas import row_schema
from ..tm import machine, operands
from ..tm.columns import Number, Operands
from ..tm.expression import parse_raw
from ..tm.machine import Dialect

FOLDERS = {"addition": "add", "subtraction": "sub", "multiplication": "mul", "division": "div"}
FOLDERS |= {name: name for name in ("add", "sub", "mul", "div", "equal", "greater_than", "less_than")}
FILE = re.compile(r"(train|test)(_\d+_\d+)?\.jsonl", re.ASCII)
DIALECT: Dialect = "published"
MAX_STEPS = 10_000  # longer runs are not asked whole
BLOCK = 1024  # expressions rendered at once
WHOLE = ["task", "a", "b", "len_a", "len_b", "variant"]  # what is read of a run


def raw_files(paths: Iterable[str], split: str, where: str) -> dict[str, tuple[str, str]]:
    """Find the raw files of a split among paths.

    Args:
        paths: paths below a folder or repository, with slashes.
        split: train or test.
        where: its name, for messages.

    Returns:
        Their paths, each with its task and split; none where there are no raw files at all.

    Raises:
        UserError: several folders hold such files; or there are some, but none of this split.
    """
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for path in sorted(paths):
        above, _, name = path.rpartition("/")
        root, _, folder = above.rpartition("/")
        named = FILE.fullmatch(name)
        if named is not None and folder in FOLDERS:
            found.setdefault(root, {})[path] = (FOLDERS[folder], named[1])
    if len(found) > 1:
        listed = ", ".join(printable_path(root or ".") for root in sorted(found)[:5])
        raise UserError(
            f"raw files are in several folders: {listed}",
            where=printable_path(where),
            next_step=f"name one of them: --data {printable_path(where.rstrip('/'))}/{printable_path(max(found))}",
        )
    held = next(iter(found.values()), {})
    own = {path: named for path, named in held.items() if named[1] == split}
    if held and not own:
        there = ", ".join(sorted({named for _, named in held.values()}))
        raise UserError(
            f"there are no raw files of split {split}", where=printable_path(where), allowed=f"--split {there}"
        )
    return own


@dataclass
class _Rows:
    """The expressions of one task and split, and what became of the rows.

    Args:
        pairs: operands, each once.
        left_out: rows that are no expression of the task, or whose answer is wrong: how many.
        example: one of them, and why.
        repeated: rows that say again what another one said.
    """

    pairs: dict[tuple[str, str], None] = field(default_factory=dict)
    left_out: int = 0
    example: str = ""
    repeated: int = 0


class PublishedFolder(Folder):
    """A folder of published raw files, read as a dataset: rows are made when a file of it is opened.

    Args:
        path: the folder.
        files: of ``raw_files``, below it.
        say: is told, a line each, of rows that are left out.

    Raises:
        UserError: a row is not what the published files hold; or no row is left.
    """

    def __init__(self, path: Path, files: dict[str, tuple[str, str]], say: Say) -> None:
        super().__init__(path)
        self.rows: dict[tuple[str, str], _Rows] = {}
        for name, (task, split) in files.items():
            self._read(name, task, self.rows.setdefault((task, split), _Rows()))
        for (task, split), rows in self.rows.items():
            total = len(rows.pairs) + rows.repeated + rows.left_out
            if rows.left_out:
                say(f"{task} {split}: {rows.left_out:,} of {total:,} rows are left out, such as {rows.example}")
            if rows.repeated:
                say(f"{task} {split}: {rows.repeated:,} of {total:,} rows repeat an expression; each is asked once")
            if long := len(rows.pairs) - len(self._expressions(task, split, "full")):
                say(f"{task} {split}: not asked whole: {long:,} of {total:,}, which take over {MAX_STEPS:,} steps")
        self._manifest = self._described()

    def _read(self, name: str, task: str, rows: _Rows) -> None:
        with super().open(name) as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    prompt, response = _texts(line)
                    named, a, b = parse_raw(prompt)
                    if named != task:
                        raise ValueError(f"{quoted(prompt)} is no question of {task}")
                except (ValueError, UserError, RecursionError) as error:
                    why = error.what if isinstance(error, UserError) else str(error)
                    raise UserError(
                        f"this is no row of a published raw file: {why}",
                        where=f"{self.where(name)}, line {number}",
                        allowed='{"prompt": "12+9=", "response": "21"}',
                    ) from error
                try:
                    found, x, y = operands(task, a, b)
                    answer = str(found.answer(x, y))
                    why = "" if response == answer else f"the answer is {quoted(answer, 120)}"
                except UserError as error:
                    why = error.what
                if why:
                    rows.left_out += 1
                    rows.example = rows.example or f"{quoted(prompt + response, 120)} ({name}, line {number}): {why}"
                elif (a, b) in rows.pairs:
                    rows.repeated += 1
                else:
                    rows.pairs[a, b] = None

    def _expressions(self, task: str, split: str, view: str) -> list[tuple[str, str]]:
        """Return the operands of a view's rows."""
        pairs, found = list(self.rows[task, split].pairs), machine(task)
        if view != "full":
            return pairs
        return [(a, b) for a, b in pairs if found.num_steps(int(a), int(b)) <= MAX_STEPS]

    def _described(self) -> dict[str, Any]:
        configs: dict[str, dict[str, Any]] = {}
        digests = []
        for (task, split), rows in sorted(self.rows.items()):
            told = "\n".join([DIALECT, task, *(f"{a} {b}" for a, b in rows.pairs)])
            identity = hashlib.sha256(told.encode()).hexdigest()
            digests.append(f"{split} {identity}")
            for view in ("one_step", "full", "aligner", "raw") if rows.pairs else ():
                count = len(self._expressions(task, split, view))
                path = f"{task}-{view}/{split}-00000-of-00001.parquet"
                shard = {"path": path, "rows": count, "bytes": 0, "sha256": identity, "chars": {}}
                held = {"identity": identity, "rows": count, "expressions": count, "shards": [shard]}
                if count:
                    configs.setdefault(f"{task}-{view}", {})[split] = held
        if not configs:
            raise UserError("the raw files here hold no row that can be asked", where=printable_path(self.name))
        identity = hashlib.sha256("\n".join(digests).encode()).hexdigest()
        held_tasks = sorted({task for task, _ in self.rows})
        tasks = {task: {"settings": {"dialect": DIALECT}, "identity": identity} for task in held_tasks}
        return {"format": FORMAT, "identity": identity, "tasks": tasks, "configs": configs}

    def manifest(self) -> dict[str, Any]:
        return self._manifest

    def holds(self, record: ShardRecord) -> bool:
        return True  # rows are made from what was read

    def open(self, path: str) -> BinaryIO:
        """Open the rows of a split of a view as a Parquet file.

        Raises:
            FileNotFoundError: there are none.
        """
        config, _, name = path.partition("/")
        task, _, view = config.rpartition("-")
        split = name.partition("-")[0]
        if split not in self._manifest["configs"].get(config, {}):
            raise FileNotFoundError(path)
        return io.BytesIO(_parquet(task, view, tuple(self._expressions(task, split, view))))


def _texts(line: bytes) -> tuple[str, str]:
    """Return prompt and response of a row.

    Raises:
        ValueError: it has none.
    """
    row = json.loads(line.decode("utf-8"))
    texts = [row.get(name) for name in ("prompt", "response")] if isinstance(row, dict) else []
    if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
        raise ValueError("prompt and response are not two texts")
    return str(texts[0]), str(texts[1])


@lru_cache(maxsize=8)  # problems and classes are read one after the other
def _parquet(task: str, view: str, pairs: tuple[tuple[str, str], ...]) -> bytes:
    """Return the rows of a view of some expressions, in their order by blocks, as a Parquet file."""
    schema = row_schema("raw" if view == "full" else view)
    if view == "full":
        schema = pa.schema([schema.field(name) for name in WHOLE])
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for start in range(0, len(pairs), BLOCK):
            writer.write_batch(_block(task, view, pairs[start : start + BLOCK]).select(schema.names))
    return sink.getvalue()


def _block(task: str, view: str, pairs: tuple[tuple[str, str], ...]) -> pa.RecordBatch:
    found = machine(task)
    whole = Operands(Number.of([a for a, _ in pairs]), Number.of([b for _, b in pairs]))
    names = [_variant(task, whole, row) for row in range(len(pairs))]
    variants = tuple(dict.fromkeys(names))
    return render_rows(
        Work(
            task=found.name,
            view="raw" if view == "full" else view,
            dialect=DIALECT,
            all_steps=False,
            max_steps=MAX_STEPS,
            seed=0,
            operands=whole,
            variant=np.array([variants.index(name) for name in names], np.int64),
            variants=variants,
        )
    )


def _variant(task: str, whole: Operands, row: int) -> str:
    """Return the part of its class that an expression belongs to."""
    at = np.array([row])
    one = Operands(whole.a.take(at), whole.second.take(at))
    parts = class_parts(machine(task), int(one.a.length[0]), int(one.second.length[0]))
    return next(name for name, _, law in parts if law.holds(one)[0])
