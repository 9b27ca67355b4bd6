"""Result tables on disk: whole or not there, readable by any tool; accuracies and their intervals."""

import hashlib
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import binomtest

from caef_data.eval.tables import CLASS, RunTables, class_accuracy, key_column, run_id, wilson
from caef_data.schemas import RESULT_TEXT, RESULTS, part_schema, result_schema

CALLS = {
    "call": [1, 2, 3],
    "correct": [True, False, None],
    "text": [None, "1+1\x00\n", ""],
    "margin": [0.5, -2.0, None],
}


@pytest.fixture
def tables(tmp_path: Path) -> RunTables:
    return RunTables(tmp_path / "results", run_id("a run"))


def test_every_column_is_described() -> None:
    assert set(RESULT_TEXT) == set(RESULTS) == {"runs", "calls", "class_accuracy", "problems", "failures"}
    for table, columns in RESULTS.items():
        schema = result_schema(table)
        assert schema.names == list(columns) and schema.names[0] == "run_id"
        assert part_schema(table).names == schema.names[1:]
        for field in schema:
            text = field.metadata[b"description"].decode()
            assert text[0].isupper() or text.startswith(field.name) or text.split()[0].rstrip(",:.") in text
            assert text.endswith((".", ")")) and 10 < len(text) < 160, field.name
    with pytest.raises(KeyError):
        result_schema("call")


def test_a_part_comes_back_as_written(tables: RunTables) -> None:
    more = pa.table({"call": pa.array([4], pa.int32()), "text": ["lone \ufffd"]})
    tables.write_part("calls", "0", [CALLS, more])
    found = tables.read_part("calls", "0")
    assert found is not None and found.schema.equals(part_schema("calls"))
    assert found.column("call").to_pylist() == [1, 2, 3, 4]
    assert found.column("text").to_pylist() == [None, "1+1\x00\n", "", "lone \ufffd"]
    assert found.column("correct").to_pylist() == [True, False, None, None]
    assert found.column("prompt").null_count == 4
    tables.write_part("calls", "0", [])  # replaced; a part without rows is whole
    found = tables.read_part("calls", "0")
    assert found is not None and len(found) == 0
    assert tables.parts("calls") == ["0"] and tables.parts("failures") == []
    assert tables.read_part("calls", "1") is None


def test_the_run_is_written_over_itself(tables: RunTables) -> None:
    assert tables.read_run() is None
    tables.write_run({"status": "unfinished", "tasks": ["add"], "adapters": {"executors/add": "ab"}})
    tables.write_run({"status": "finished", "tasks": ["add"], "adapters": {"executors/add": "ab"}, "calls": 7})
    row = tables.read_run()
    assert row is not None
    assert (row["status"], row["tasks"], row["adapters"], row["calls"], row["peft"]) == (
        *("finished", ["add"], {"executors/add": "ab"}, 7, None),
    )


def test_what_the_table_has_not_is_refused(tables: RunTables) -> None:
    with pytest.raises(KeyError, match="right"):
        tables.write_part("calls", "0", [{"call": [1], "right": [True]}])
    with pytest.raises(KeyError):
        tables.write_part("cals", "0", [CALLS])
    with pytest.raises(pa.ArrowInvalid):
        tables.write_part("calls", "0", [{"call": [1, 2], "text": ["a"]}])
    assert [path for path in tables.results.rglob("*") if path.is_file()] == []


def test_a_failed_write_leaves_the_old_part(tables: RunTables) -> None:
    def breaks() -> Iterator[dict[str, Any]]:
        yield CALLS
        raise OSError(28, "No space left on device")

    tables.write_part("calls", "0", [CALLS])
    with pytest.raises(OSError, match="No space"):
        tables.write_part("calls", "0", breaks())
    found = tables.read_part("calls", "0")
    assert found is not None and len(found) == 3
    assert [path.name for path in tables.folder("calls").iterdir()] == ["0.parquet"]


def test_a_kill_leaves_no_part_and_no_rest(tables: RunTables) -> None:
    code = (
        "import os, sys; from pathlib import Path; from caef_data.eval.tables import RunTables\n"
        "def chunks():\n"
        "    yield {'call': list(range(5000))}\n"
        "    os.kill(os.getpid(), 9)\n"
        "RunTables(Path(sys.argv[1]), sys.argv[2]).write_part('calls', '0', chunks())\n"
    )
    words = [sys.executable, "-c", code, str(tables.results), tables.run_id]
    assert subprocess.run(words, timeout=60, check=False).returncode == -9
    assert len(list(tables.folder("calls").iterdir())) == 1, "the kill came while the part was written"
    assert tables.parts("calls") == [] and tables.read_part("calls", "0") is None
    tables.sweep()
    assert list(tables.folder("calls").iterdir()) == []


def test_a_damaged_part_is_never_trusted(tables: RunTables) -> None:
    tables.write_part("calls", "0", [{"call": [1, 2], "text": ["ab", None]}, {"call": [3], "correct": [True]}])
    path = tables.path("calls", "0")
    whole, good = path.read_bytes(), tables.read_part("calls", "0")
    assert good is not None
    refused = 0
    for position in range(0, len(whole), 11):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ (1 << position % 8)]) + whole[position + 1 :])
        found = tables.read_part("calls", "0")
        refused += found is None
        assert found is None or found.schema != good.schema or found.equals(good), position
    assert refused > len(whole) // 44  # much of a small file is description; a flip there may change nothing
    for length in range(0, len(whole), 41):
        path.write_bytes(whole[:length])
        assert tables.read_part("calls", "0") is None
    path.write_bytes(whole)
    assert tables.read_part("calls", "0") is not None


def test_what_the_system_refuses_is_no_damage(tables: RunTables) -> None:
    tables.path("calls", "0").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        tables.read_part("calls", "0")


def test_one_chunk_is_held_at_a_time(tables: RunTables) -> None:
    class Column(list):  # type: ignore[type-arg]
        """A list that can be watched."""

    alive: list[weakref.ref[Column]] = []

    def chunks() -> Iterator[dict[str, Column]]:
        for start in range(0, 5000, 500):
            assert sum(one() is not None for one in alive) <= 1
            column = Column(range(start, start + 500))
            alive.append(weakref.ref(column))
            yield {"call": column}
            del column

    tables.write_part("calls", "0", chunks())
    with pq.ParquetFile(tables.path("calls", "0")) as file:
        assert (file.num_row_groups, file.metadata.num_rows) == (10, 5000)


def test_other_tools_read_the_folders(tables: RunTables) -> None:
    tables.write_part("calls", "0", [CALLS])
    other = RunTables(tables.results, run_id("another"))
    other.write_part("calls", "0", [{"call": [9]}])
    (other.folder("calls") / ".writing-1.parquet").write_bytes(b"PAR1")
    files = str(tables.results / "calls" / "run_id=*" / "[!.]*.parquet")
    frames = {
        "polars": pl.read_parquet(tables.results / "calls" / "**" / "[!.]*.parquet", hive_partitioning=True).to_dicts(),
        "duckdb": duckdb.sql(f"FROM read_parquet('{files}', hive_partitioning = true)").to_arrow_table().to_pylist(),
        "pyarrow": pq.read_table(tables.results / "calls").to_pylist(),
    }
    for name, rows in frames.items():
        found = sorted((row["run_id"], row["call"]) for row in rows)
        assert found == sorted([(tables.run_id, 1), (tables.run_id, 2), (tables.run_id, 3), (other.run_id, 9)]), name


def test_ids_are_no_numbers_to_any_tool() -> None:
    ids = [run_id(str(number)) for number in range(200)]
    assert len(set(ids)) == 200
    assert all(RunTables(Path(), one).run_id[0] in "abcdef" for one in ids)
    keys = key_column([b"a\0b\0c", b"a\0bc\0", b"ab\0\0c"]).to_pylist()
    assert len(set(keys)) == 3 and keys[0] == hashlib.blake2b(b"a\0b\0c", digest_size=16).hexdigest()


def outcome(len_a: int, right: bool | None, final: bool | None = None, **others: str) -> dict[str, Any]:
    row = {"task": "add", "mode": "executor", "split": "test", "dialect": "consistent", "variant": "any"}
    told = {"right": right, "right_stripped": right, "near_tie": False, "final_right": final}
    return {**row, "len_a": len_a, "len_b": 1, **others, **told}


OUTCOMES = pa.schema(
    [
        *[pa.field(name, part_schema("class_accuracy").field(name).type) for name in CLASS],
        pa.field("right", pa.bool_()),
        pa.field("right_stripped", pa.bool_()),
        pa.field("near_tie", pa.bool_()),
        pa.field("final_right", pa.bool_()),
    ]
)


def accuracies(outcomes: list[dict[str, Any]], classes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    given = [pa.Table.from_pylist(rows, schema=OUTCOMES) for rows in (outcomes, classes)]
    return class_accuracy(given[0].to_reader(), given[1].select(CLASS)).to_pylist()


@pytest.mark.parametrize("sizes", [range(1, 26), [97, 1000, 20_011]], ids=["small", "large"])
def test_intervals_are_scipys(sizes: list[int]) -> None:
    cases = [(n, k) for n in sizes for k in sorted({*range(min(n, 40)), n // 2, n - 1, n})]
    rows = [(index // 150 + 1, index % 150, n, k) for index, (n, k) in enumerate(cases)]
    with duckdb.connect() as database:
        database.execute("CREATE TABLE cases (a SMALLINT, b SMALLINT, n BIGINT, k BIGINT)")
        database.executemany("INSERT INTO cases VALUES (?, ?, ?, ?)", rows)
        outcomes = database.sql(
            "SELECT 'add' task, 'm' AS mode, 'test' split, 'c' dialect, 'any' variant, a len_a, b len_b,"
            ' i < k AS "right", i < k AS right_stripped, false near_tie, NULL::BOOLEAN final_right'
            " FROM cases, range(n) r(i)"
        ).to_arrow_reader()
        found = class_accuracy(outcomes, pa.table({name: [] for name in CLASS}, schema=pa.schema(list(OUTCOMES)[:7])))
    assert len(found) == len(cases)
    for row, (n, k) in zip(found.to_pylist(), cases, strict=True):
        interval = binomtest(k, n).proportion_ci(method="wilson")
        assert (row["n"], row["correct"], row["accuracy"]) == (n, k, k / n)
        assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high), abs=1e-12)
        assert wilson(k, n) == pytest.approx((interval.low, interval.high), abs=1e-12)
        assert 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1
        assert (row["low"] == 0) == (k == 0) and (row["high"] == 1) == (k == n)
    assert wilson(0, 0) == (0, 1)


def test_a_class_without_outcome_has_no_accuracy() -> None:
    outcomes = [outcome(1, True), outcome(1, False), outcome(3, None)]
    found = accuracies(outcomes, [outcome(2, None), outcome(1, None), outcome(1, None)])
    assert [(row["len_a"], row["n"], row["correct"], row["accuracy"]) for row in found] == [
        *[(1, 2, 1, 0.5), (2, 0, 0, None), (3, 0, 0, None)],
    ]
    for row in found[1:]:
        assert (row["low"], row["high"], row["final_correct"]) == (None, None, None)
    assert accuracies([], []) == []


def test_final_answers_are_counted_where_they_are_known() -> None:
    found = accuracies(
        [outcome(1, False, True), outcome(1, False, False), outcome(1, True, True), outcome(2, True)],
        [outcome(3, None)],
    )
    assert [(row["n"], row["correct"], row["final_correct"]) for row in found] == [
        (3, 1, 2),
        (1, 1, None),
        (0, 0, None),
    ]


def test_every_part_of_a_class_tells_classes_apart_and_sorts_them() -> None:
    others = [{"task": "sub"}, {"mode": "process"}, {"split": "stress"}, {"dialect": "published"}, {"variant": "carry"}]
    found = accuracies([outcome(1, True, **one) for one in [{}, *others]], [])
    assert [row["n"] for row in found] == [1] * 6
    keys = [tuple(row[name] for name in CLASS) for row in found]
    assert keys == sorted(keys) and len(set(keys)) == 6
