"""The text of exported files: rows of prompt and completion as JSON, in the layouts that training tools read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

BATCH = 1024  # rows made into text at once: they fit the processor's cache; 8192 took twice the time with instructions
TEXTS = {"first": ["instruction", "prompt", "completion"], "second": ["prompt", "completion"]}  # columns, by stage


@dataclass(frozen=True)
class Layout:
    """How the rows of a file are written.

    Args:
        suffix: ends the file's name.
        opening: the file's first bytes.
        separator: stands between a row's text and the one before.
        row: a row's text around the JSON strings of prompt and completion: before, between and after them.
        closing: the file's last bytes.
    """

    suffix: str
    opening: str
    separator: str
    row: tuple[str, str, str]
    closing: str


@dataclass(frozen=True)
class Around:
    """The text that stands around a row: of the tokens that begin and end a text in a model's vocabulary.

    Args:
        tokenizer: folder or name of the model; empty where nothing stands around rows.
        begin: text before each prompt.
        end: text behind each completion.
    """

    tokenizer: str = ""
    begin: str = ""
    end: str = ""


BARE = Around()
LAYOUTS = {
    "jsonl": Layout("jsonl", "", "", ('{"prompt":', ',"completion":', "}\n"), ""),
    "alpaca": Layout(  # what json.dump(rows, file, indent=4, ensure_ascii=False) writes
        "json",
        "[",
        ",",
        (
            '\n    {\n        "instruction": ',
            ',\n        "input": "",\n        "output": ',
            "\n    }",
        ),
        "\n]",
    ),
    "chat": Layout(
        "jsonl",
        "",
        "",
        ('{"messages":[{"role":"user","content":', '},{"role":"assistant","content":', "}]}\n"),
        "",
    ),
}


def write_rows(source: BinaryIO, sink: BinaryIO, layout: Layout, stage: str, around: Around = BARE) -> Iterator[int]:
    """Write the rows of a Parquet file as JSON, in their order, and yield the number of rows of each batch written.

    Args:
        source: a shard.
        sink: takes the text.
        layout: how the text looks.
        stage: ``first`` puts each row's instruction before its prompt, ``second`` leaves it out.
        around: text around each row.

    Raises:
        ValueError: a text is missing, or is no UTF-8.
        pyarrow.ArrowException: this is no Parquet file with these columns.
    """
    written = 0
    sink.write(layout.opening.encode())
    with pq.ParquetFile(source) as file:
        for group in range(file.num_row_groups):  # a batch never spans two: the rows of some are megabytes long
            for batch in file.iter_batches(BATCH, row_groups=[group], columns=TEXTS[stage], use_threads=False):
                text = row_texts(batch, layout, stage, around)
                sink.write(text if written else text[len(layout.separator) :])
                written += batch.num_rows
                yield batch.num_rows
    sink.write(layout.closing.encode())


def row_texts(batch: pa.RecordBatch, layout: Layout, stage: str, around: Around = BARE) -> memoryview:
    """Return the text of rows with these texts, as UTF-8; each begins with the separator.

    Raises:
        ValueError: a text is missing, or is no UTF-8.
    """
    batch.validate(full=True)
    if set(batch.schema.names) != set(TEXTS[stage]) or any(column.null_count for column in batch.columns):
        raise ValueError(f"a row has no {', '.join(TEXTS[stage])}")
    opening, middle, end = layout.row
    prompt = pl.concat_str(pl.lit(around.begin), *(pl.col(name) for name in TEXTS[stage][:-1]))
    completion = pl.concat_str(pl.col("completion"), pl.lit(around.end))
    parts = (layout.separator + opening, _json_string(prompt), middle, _json_string(completion), end)
    row = pl.concat_str(pl.lit(part) if isinstance(part, str) else part for part in parts)
    texts = pl.DataFrame(batch).select(row.alias("row")).to_series().to_arrow(compat_level=pl.CompatLevel.oldest())
    _, ends, data = texts.buffers()  # large strings: 64-bit ends, and the texts one behind the other
    numbers = memoryview(ends).cast("q")
    return memoryview(data)[numbers[texts.offset] : numbers[texts.offset + len(texts)]]


def _json_string(text: pl.Expr) -> pl.Expr:
    """Return texts as JSON strings, quoted and escaped as JSON demands, other characters kept.

    Only structs can be encoded: what their encoding adds is taken off again. It was ten times as fast as ``json``.
    """
    return pl.struct(text.alias("")).struct.json_encode().str.strip_prefix('{"":').str.strip_suffix("}")
