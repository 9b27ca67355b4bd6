"""Files that ``contamination`` reads in unusual forms: views of strings in tables, archives that few programs write."""

import gzip
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caef_data.errors import UserError
from caef_data.pipelines import contamination
from caef_data.pipelines.held_out import HeldOut
from caef_data.pipelines.terminal import Meter, open_console

HELD = HeldOut(pl.DataFrame([("add", "12", "9", False)], ["task", "a", "b", "stress"], orient="row"))
STRINGS = pa.string_view()


def scan(path: Path, target: Path | None = None) -> contamination.Found:
    with ThreadPoolExecutor(1) as threads:
        return contamination.scan(path, HELD, threads, 2, target, Meter(open_console(), "looking"))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (STRINGS, lambda text: text),
        (pa.list_(STRINGS), lambda text: [text]),
        (pa.large_list(STRINGS), lambda text: [text]),
        (pa.list_(STRINGS, 1), lambda text: [text]),
        (pa.map_(pa.string(), STRINGS), lambda text: [("k", text)]),
        (pa.struct([("text", STRINGS)]), lambda text: {"text": text}),
    ],
)
def test_views_of_strings_are_text(tmp_path: Path, kind: pa.DataType, value: Any) -> None:
    columns = {"x": pa.array([value(text) for text in ("a long text with 12+9", "no", "x" * 40)], kind)}
    columns["raw"] = pa.array([b"a", b"b" * 40, None], pa.binary_view())
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    told = scan(tmp_path / "x.parquet", tmp_path / "clean.parquet")
    assert (told.lines, told.lines_found, told.unread) == (3, 1, "raw (binary_view)")
    assert pq.read_table(tmp_path / "clean.parquet").to_pylist() == pa.table(columns).to_pylist()[1:]


def test_columns_that_no_library_takes_are_named(tmp_path: Path) -> None:
    ids, texts = pa.array([b"x" * 16], pa.uuid()), pa.array(["12+9"])
    closed = pa.StructArray.from_arrays([ids, texts], ["id", "text"])
    columns = {"x": pa.array([["12+9"]], pa.list_view(pa.string())), "y": closed, "string": [1]}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(
        UserError,
        match=r"no column of this table can be looked at: x \(list_view.*\), y \(.*uuid.*\), string \(int64\)",
    ):
        scan(tmp_path / "x.parquet")


def test_zeros_behind_a_gzip_file_are_nothing(tmp_path: Path) -> None:
    whole = gzip.compress(b"12+9\nx\n", mtime=0)
    (tmp_path / "x.gz").write_bytes(whole + b"\0" * 512 + whole + b"\0" * 9)
    assert scan(tmp_path / "x.gz").lines_found == 2


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        # a header that asks for a window of 2 GiB; one block, not packed
        ("x.zst", b"\x28\xb5\x2f\xfd\x00\xa8\x29\x00\x00" + b"12+9\n", "window larger than 128 MiB"),
        ("x.lz4", b"\x02\x21\x4c\x18" + b"\x06\x00\x00\x00\x50" + b"12+9\n", "lz4 -l"),
        ("x.gz", gzip.compress(b"12+9\n", mtime=0)[:-9], "read to its end"),
        ("x.gz", gzip.compress(b"12+9\n", mtime=0)[:-8] + b"\1" * 8, "CRC"),
        ("x.gz", gzip.compress(b"12+9\n", mtime=0) + b"x", "read to its end"),
        ("x.gz", gzip.compress(b"12+9\n", mtime=0)[:12] + b"\xff" * 20, "read to its end"),
    ],
)
def test_archives_that_are_not_unpacked_here(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=why) as refused:
        scan(tmp_path / name)
    assert f"-t {tmp_path / name}; if so, unpack it" in str(refused.value.next_step)
