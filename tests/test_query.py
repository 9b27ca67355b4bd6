"""``caef-data query`` reads the result tables, and can do nothing else."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caef_data.errors import UserError
from caef_data.eval.query import SETTINGS, Database
from caef_data.eval.tables import RunTables, run_id
from caef_data.schemas import RESULTS
from caef_data.tests.querying import ask, refusal
from caef_data.tests.results_data import RUNS

FILES = {  # statements that would reach files, network or settings: DuckDB's own walls hold them too
    "replacement": "FROM 'rows.csv'",
    "parquet": "SELECT * FROM 'rows.parquet'",
    "url": "FROM 'https://example.org/rows.parquet'",
    "read_csv": "FROM read_csv('rows.csv')",
    "read_csv in a subquery": "SELECT (SELECT max(a) FROM Read_CSV('rows.csv')) FROM runs",
    "read_parquet": "FROM read_parquet('rows.parquet')",
    "read_text": "SELECT content FROM read_text('rows.csv')",
    "read_json": "FROM read_json('https://example.org/x.json')",
    "glob": "FROM glob('*')",
    "parquet_metadata": "FROM parquet_metadata('rows.parquet')",
    "sniff_csv": "FROM sniff_csv('rows.csv')",
    "query_table": "FROM query_table('rows.csv')",
    "query": "FROM query('FROM read_csv(''rows.csv'')')",
    "describe": "DESCRIBE SELECT * FROM read_csv('rows.csv')",
    "summarize": "SUMMARIZE 'rows.csv'",
    "copy": "COPY runs TO 'out.csv'",
    "copy from": "COPY runs FROM 'rows.csv'",
    "copy in with": "WITH a AS (COPY (SELECT 1) TO 'out.csv') FROM a",
    "explained copy": "EXPLAIN ANALYZE COPY runs TO 'out.csv'",
    "export": "EXPORT DATABASE 'out'",
    "import": "IMPORT DATABASE 'out'",
    "attach": "ATTACH 'out.db'",
    "install": "INSTALL httpfs",
    "load": "LOAD httpfs",
    "set": "SET threads = 1",
    "reset": "RESET lock_configuration",
    "global": "SET GLOBAL enable_external_access = true",
    "pragma": "PRAGMA threads = 1",
    "profiling": "FROM enable_profiling(save_location = 'out.json')",
    "logging": "FROM enable_logging(storage = 'file', storage_path = 'out')",
    "secrets": "FROM duckdb_secrets()",
    "getenv": "SELECT getenv('HOME')",
    "python variable": "FROM a_local_table",
    "macro in with": "WITH a AS (INSERT INTO runs BY NAME SELECT 1 AS calls RETURNING *) FROM a",
}
OTHERS = {  # harmless in an empty database that is thrown away; refused all the same
    "create": "CREATE TABLE x (i INTEGER)",
    "create as": "CREATE TEMP TABLE x AS FROM runs",
    "view": "CREATE VIEW x AS FROM runs",
    "macro": "CREATE MACRO x() AS TABLE FROM runs",
    "secret": "CREATE SECRET x (TYPE s3)",
    "insert": "INSERT INTO runs VALUES (1)",
    "update": "UPDATE runs SET calls = 0",
    "delete": "DELETE FROM runs",
    "drop": "DROP VIEW runs",
    "alter": "ALTER VIEW runs RENAME TO x",
    "begin": "BEGIN",
    "prepare": "PREPARE x AS SELECT 1",
    "call": "CALL pragma_version()",
    "checkpoint": "CHECKPOINT",
    "vacuum": "VACUUM",
    "use": "USE memory",
    "variable": "SET VARIABLE x = 1",
    "pivot": "PIVOT class_accuracy ON task USING avg(accuracy)",
    "second": "SELECT 1; DROP VIEW runs",
}


@pytest.fixture
def database(results: Path) -> Any:
    with Database(results) as opened:
        yield opened


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with files that must neither be read nor become more."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "rows.parquet")
    return tmp_path


def rows(database: Database, sql: str) -> list[tuple[Any, ...]]:
    (statement,) = database.statements(sql)
    return list(database.run(statement)[1])


@pytest.mark.parametrize("sql", [*FILES.values(), *OTHERS.values()], ids=[*FILES, *OTHERS])
def test_whatever_does_not_only_read_is_refused(database: Database, elsewhere: Path, sql: str) -> None:
    a_local_table = pa.table({"a": [1]})
    before = sorted(elsewhere.rglob("*"))
    with pytest.raises(UserError) as refused:
        for statement in database.statements(sql):
            print(list(database.run(statement)[1]))
    assert refused.value.allowed is not None or refused.value.next_step is not None
    assert sorted(elsewhere.rglob("*")) == before
    assert len(rows(database, "FROM runs")) == len(RUNS) and len(a_local_table) == 1


@pytest.mark.parametrize("sql", FILES.values(), ids=FILES)
def test_the_second_wall_holds_alone(database: Database, elsewhere: Path, sql: str) -> None:
    a_local_table = pa.table({"a": [1]})
    before = sorted(elsewhere.rglob("*"))
    with pytest.raises(duckdb.Error):
        database.connection.execute(sql).fetchall()
    assert sorted(elsewhere.rglob("*")) == before and len(a_local_table) == 1


def test_the_settings_hold(database: Database) -> None:
    held = dict(rows(database, "SELECT name, value FROM duckdb_settings()"))
    assert {name: held[name] for name in SETTINGS} == {**SETTINGS, "memory_limit": held["memory_limit"]}


@pytest.mark.parametrize(
    "sql",
    [
        *("FROM runs", "TABLE runs", "VALUES (1), (2)", "SHOW TABLES", "SHOW runs", "DESCRIBE calls", "SUMMARIZE runs"),
        *("DESCRIBE SELECT 1", "EXPLAIN SELECT 1", "EXPLAIN ANALYZE FROM calls", "explain(format json) select 1"),
        "-- a plan\nEXPLAIN SELECT 1",
        "WITH a AS (SELECT 1 AS i), b AS MATERIALIZED (FROM a) SELECT * FROM b UNION ALL BY NAME FROM a ORDER BY ALL;",
        "WITH RECURSIVE t(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM t WHERE i < 5) SELECT sum(i) FROM t",
        "PIVOT class_accuracy ON task IN ('add', 'sub') USING avg(accuracy) GROUP BY len_a",
        "SELECT unnest(tasks), adapters['executors/add'] FROM runs",
        "SELECT * FROM range(3) JOIN unnest([1, 2]) AS t(i) ON i = range",
        "SELECT [x * 2 FOR x IN [1, 2]], {'a': 'COPY_QUERY_NODE', 'type': 'INSERT_QUERY_NODE'}",
        "SELECT 'COPY runs TO ''x''; DROP TABLE runs' AS \"type\" -- ; DROP",
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'runs'",
        "SELECT now()::TIMESTAMP - max(finished) FROM runs",
    ],
)
def test_reading_is_allowed(database: Database, sql: str) -> None:
    assert rows(database, sql)


def test_every_name_is_written_without_quotes(database: Database) -> None:
    for view, columns in RESULTS.items():
        names = [column for column, *_ in rows(database, f"DESCRIBE {view}")]
        assert names == list(columns)
        for name in names:
            rows(database, f"SELECT {name} AS x, max({name}) FROM {view} WHERE {name} IS NOT NULL GROUP BY {name}")


def test_the_views_are_the_tables(database: Database, results: Path) -> None:
    for view in RESULTS:
        count = sum(len(pq.read_table(path)) for path in (results / view).rglob("*.parquet"))
        assert rows(database, f"SELECT count(*) FROM {view}") == [(count,)] and count
    found = rows(
        database, f"SELECT n, correct, accuracy, low FROM class_accuracy WHERE n = 0 AND run_id = '{RUNS[0].id}'"
    )
    assert found and set(found) == {(0, 0, None, None)}


def test_what_is_missing_is_null_or_empty(tmp_path: Path) -> None:
    tables = RunTables(tmp_path, run_id("x"))
    tables.write_part("calls", "new", [{"call": [1], "margin": [0.5]}])
    old = pa.table({"call": pa.array([2], pa.int32()), "removed": ["x"]})
    pq.write_table(old, tables.path("calls", "old"))
    (tables.folder("calls") / ".writing-1.parquet").write_bytes(b"half")
    for name in ("run_id=0123", "run_id=../../x", "elsewhere"):
        folder = tmp_path / "calls" / name.replace("/", "_")
        folder.mkdir()
        pq.write_table(old, folder / "x.parquet")
    with Database(tmp_path) as database:
        assert rows(database, "SELECT run_id, call, margin FROM calls ORDER BY call") == [
            *[(tables.run_id, 1, 0.5), (tables.run_id, 2, None)],
        ]
        assert rows(database, "FROM failures") == []
        assert len(rows(database, "DESCRIBE failures")) == len(RESULTS["failures"])


def test_an_unfinished_run_is_only_a_row_of_runs(results: Path, tmp_path: Path) -> None:
    copied, run = tmp_path / "results", RUNS[0].id
    shutil.copytree(results, copied)
    tables = RunTables(copied, run)
    tables.write_run({**(tables.read_run() or {}), "status": "unfinished"})
    with Database(copied) as database:
        for table in RESULTS:
            count = f"SELECT count(*) FILTER (run_id = '{run}'), count(DISTINCT run_id) FROM {table}"
            ((own, runs),) = rows(database, count)
            assert own == (table == "runs") and runs > 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_part_is_named(tmp_path: Path, damage: str) -> None:
    tables = RunTables(tmp_path, run_id("x"))
    for part in ("a", "b", "c"):
        tables.write_part(
            "calls", part, [{"call": list(range(1000)), "text": [f"text {i * 7919}" for i in range(1000)]}]
        )
    path = tables.path("calls", "b")
    whole = path.read_bytes()
    flipped = whole[:300] + bytes([whole[300] ^ 255]) + whole[301:]
    path.write_bytes({"cut": whole[:-30], "flipped": flipped, "empty": b""}[damage])
    assert str(path) in refusal(tmp_path, "SELECT max(text), sum(call) FROM calls")
    assert ask(tmp_path, "FROM runs").exit_code == 0
    other = RunTables(tmp_path, run_id("y"))
    other.write_part("calls", "a", [{"call": [1], "text": ["x"]}])
    assert ask(tmp_path, f"SELECT max(text) FROM calls WHERE run_id = '{other.run_id}'").exit_code == 0


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT accurcy FROM class_accuracy", 'Candidate bindings: "accuracy"'),
        ("SELECT taks FROM class_accuracy", '"task"'),
        ("SELCT 1", "caef-data query --tables lists"),
        ("FROM 'x.parquet'", "from runs, calls, class_accuracy"),
        ("SELECT text FROM class_accuracy", "Candidate bindings"),
        ("SELECT c.Len_C FROM class_accuracy c", "does not have a column named"),
        ("SELECT * FROM class_acuracy", "class_acuracy does not exist"),
        ("SELEC 1", 'syntax error at or near "SELEC"'),
        ("SELECT 1; SELECT FROM", "syntax error"),
        ("SELECT foo(1)", "foo does not exist"),
        ("SELECT 'x'::INTEGER", "Could not convert"),
        ("SELECT $1", "parameters: 1"),
        ("  -- nothing", "no statement"),
        ("SELECT error('\x1b[31mred\x07')", "\\x1b[31mred\\x07"),
        ("\udcff", "no text"),
        ("SELECT " + "(" * 5000 + "1" + ")" * 5000, ""),
    ],
)
def test_errors_say_what_is_wrong(results: Path, sql: str, said: str) -> None:
    message = refusal(results, sql)
    assert said in message and "\x1b" not in message


def test_nothing_runs_where_a_later_statement_is_refused(results: Path) -> None:
    result = ask(results, "SELECT 41 + 1; DROP VIEW runs")
    assert isinstance(result.exception, UserError) and result.output == ""


def test_no_results_no_format(tmp_path: Path, results: Path) -> None:
    for folder in (tmp_path, tmp_path / "none", Path(__file__)):
        assert "caef-data eval" in refusal(folder, "FROM runs")
    assert "did you mean 'json'?" in refusal(results, "--format", "jsn", "FROM runs")


def test_a_bad_query_exits_with_2(results: Path) -> None:
    words = [sys.executable, "-m", "caef_data", "query", "--results", str(results), "FROM rums"]
    result = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("error: ") and "Traceback" not in result.stderr
