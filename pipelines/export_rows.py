"""Rows of a dataset as training tools read them: which splits, their checked shards, their texts as JSON."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import UserError, closest, did_you_mean, printable_path, quoted, shell_quoted
from .folder import Folder, no_dataset
from .manifest import ShardRecord, shard_record
from .settings import SPLITS

BATCH = 1024  # rows made into text at once: they fit the processor's cache; 8192 took twice the time with instructions
COLUMNS = {"first": ["instruction", "prompt", "completion"], "second": ["prompt", "completion"]}  # by stage


class Layout(NamedTuple):
    """How rows are written: the file's suffix, first bytes, what parts two rows, a row around its texts, last bytes."""

    suffix: str
    opening: str
    separator: str
    row: tuple[str, str, str]
    closing: str


_ALPACA = ('\n    {\n        "instruction": ', ',\n        "input": "",\n        "output": ', "\n    }")
_CHAT = ('{"messages":[{"role":"user","content":', '},{"role":"assistant","content":', "}]}\n")
LAYOUTS = {
    "jsonl": Layout("jsonl", "", "", ('{"prompt":', ',"completion":', "}\n"), ""),
    # what json.dump(rows, file, indent=4, ensure_ascii=False) writes
    "alpaca": Layout("json", "[", ",", _ALPACA, "\n]"),
    "chat": Layout("jsonl", "", "", _CHAT, ""),
}


@dataclass(frozen=True)
class Style:
    """How rows are written.

    Args:
        format: ``jsonl``, ``alpaca`` or ``chat``.
        stage: ``first`` puts each row's instruction before its prompt, ``second`` leaves it out.
        tokenizer: the model whose tokens stand around rows, for alpaca: no template of LLaMA-Factory adds just these.
        begin: text of the token before each prompt.
        end: text of the token behind each completion.

    Raises:
        UserError: there is no such format or stage, or the format takes no text around rows.
    """

    format: str = "jsonl"
    stage: str = "second"
    tokenizer: str = ""
    begin: str = ""
    end: str = ""

    def __post_init__(self) -> None:
        check_name("--format", self.format, LAYOUTS)
        check_name("--stage", self.stage, COLUMNS)
        if self.tokenizer and self.format != "alpaca":
            raise UserError(
                f"rows of the format {self.format} are written as they are: their trainers add the end token",
                where="--tokenizer",
                allowed="--format alpaca --tokenizer MODEL",
            )

    @property
    def mark(self) -> dict[str, str]:
        """What two exports into one folder must share."""
        ends = {"begin": self.begin, "end": self.end} if self.tokenizer else {}
        return {"format": self.format, "stage": self.stage, **ends}


@dataclass(frozen=True)
class Part:
    """One split of a config: the identity of its rows, and its shards in order."""

    name: str
    split: str
    identity: str
    shards: tuple[ShardRecord, ...]

    @property
    def rows(self) -> int:
        """Rows of all shards."""
        return sum(shard.rows for shard in self.shards)


def check_name(option: str, name: str, known: Collection[str]) -> None:
    """Refuse a name that an option does not know."""
    if name not in known:
        what = f"there is no {option.removeprefix('--')} {quoted(name)}{did_you_mean(name, known)}"
        likely = closest(name, known) or next(iter(known))
        raise UserError(what, where=option, allowed=", ".join(known), next_step=f"such as {option} {likely}")


def select(source: Folder, configs: Sequence[str], splits: Sequence[str]) -> list[Part]:
    """Return the splits of a finished dataset that are asked for, in the order of their names; all by default.

    Raises:
        UserError: nothing is finished there, or there is no such config or split.
    """
    known = source.manifest().get("configs")
    if not known:
        raise no_dataset(source)
    for name in configs:
        check_name("--config", name, sorted(known))
    for name in splits:
        check_name("--split", name, SPLITS)
    names, wanted = sorted(set(configs) or known), [split for split in SPLITS if not splits or split in splits]
    without = [name for name in names if not known[name].keys() & wanted]
    if (configs and without) or without == names:
        raise UserError(
            f"there is no split {' or '.join(wanted)} of {', '.join(without)} in {printable_path(source.name)}",
            where="--split",
            allowed=", ".join(split for split in SPLITS if any(split in known[name] for name in without)),
        )
    return [
        Part(name, split, entry["identity"], tuple(shard_record(shard) for shard in entry["shards"]))
        for name in names
        for split in wanted
        if (entry := known[name].get(split))
    ]


@contextmanager
def opened(source: Folder, shard: ShardRecord) -> Iterator[BinaryIO]:
    """Open a shard for reading, once its bytes are those that the manifest says; else raise ``UserError``."""
    if not source.equals(shard.path, shard.bytes, shard.sha256):
        raise damaged(source, shard, "it is missing, or its sha256 is another one")
    with source.open(shard.path) as file:
        yield file


def damaged(source: Folder, shard: ShardRecord, why: str) -> UserError:
    """Return the error for a shard that is not what the manifest says."""
    return UserError(
        f"a shard is not what the manifest says: {why}",
        where=source.where(shard.path),
        next_step=f"caef-data verify {shell_quoted(source.name)}, then build it again: what is intact is kept",
    )


def row_texts(file: BinaryIO, style: Style) -> Iterator[tuple[int, bytes | pa.Buffer]]:
    """Yield the JSON text of a shard's rows in their order, some at a time, each with the number of rows in it.

    Raises:
        ValueError: a text is missing, or is no UTF-8.
        pyarrow.ArrowException: this is no Parquet file.
    """
    layout, columns = LAYOUTS[style.format], COLUMNS[style.stage]
    before, between, after = layout.row
    prompt = pl.concat_str(pl.lit(style.begin), *columns[:-1])
    completion = pl.concat_str("completion", pl.lit(style.end))
    row = pl.concat_str(pl.lit(before), _json(prompt), pl.lit(between), _json(completion), pl.lit(after))
    lead = layout.opening
    with pq.ParquetFile(file) as parquet:
        for group in range(parquet.num_row_groups):  # a batch never spans two: the rows of some are megabytes long
            for batch in parquet.iter_batches(BATCH, row_groups=[group], columns=columns, use_threads=False):
                batch.validate(full=True)
                if set(batch.schema.names) != set(columns) or any(column.null_count for column in batch.columns):
                    raise ValueError(f"a row has no {', '.join(columns)}")
                yield 0, lead.encode()
                joined = pl.DataFrame(batch).select(row.str.join(layout.separator)).to_series()
                yield batch.num_rows, joined.to_arrow()[0].as_buffer()
                lead = layout.separator
    yield 0, (layout.opening * (lead == layout.opening) + layout.closing).encode()


def _json(text: pl.Expr) -> pl.Expr:
    """Return texts as JSON strings, other characters than JSON's own kept.

    Only structs can be encoded: what their encoding adds is taken off again. It was ten times as fast as ``json``.
    """
    return pl.struct(text.alias("")).struct.json_encode().str.strip_prefix('{"":').str.strip_suffix("}")
