"""What ``caef-data query`` prints: tables for people; CSV, JSON and Markdown that hold exactly what was found."""

import csv
import io
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from caef_data.cli import app
from caef_data.errors import UserError
from caef_data.eval.query import ROWS, Database, visible
from caef_data.eval.tables import RunTables, run_id
from caef_data.schemas import RESULTS
from caef_data.tests.querying import ENDLESS, HOSTILE_SQL, Terminal, ask, refusal
from caef_data.tests.results_data import HOSTILE

ACCURACY = "SELECT task, len_a, n, accuracy FROM class_accuracy ORDER BY accuracy, len_a LIMIT 3"


def test_csv_is_exact(results: Path) -> None:
    output = ask(results, "--format", "csv", HOSTILE_SQL).stdout_bytes.decode()
    found = list(csv.reader(io.StringIO(output, newline="")))
    assert found[0] == ["text", "adapter", "nothing", "blank"]
    assert len(found) > 1 and {(row[0], *row[2:]) for row in found[1:]} == {(HOSTILE, "", "")}
    plain = ask(results, "--format", "csv", "SELECT NULL, '' AS a, 'x,\"y' AS b, 0.1 AS c, [1, 2] AS d, true AS e")
    assert plain.output == 'NULL,a,b,c,d,e\n,"","x,""y",0.1,"[1, 2]",true\n'


def test_json_is_an_array_of_objects(results: Path) -> None:
    output = ask(results, "--format", "json", HOSTILE_SQL).output
    found = json.loads(output)
    assert found[0]["text"] == HOSTILE and found[0]["nothing"] is None and found[0]["blank"] == ""
    assert output.isascii() and "\x1b" not in output
    values = "1 AS a, 2 AS a, DATE '2026-01-02' AS d, adapters AS m"
    sql = f"SELECT {values} FROM runs WHERE status = 'unfinished'"
    (row,) = json.loads(ask(results, "--format", "json", sql).output)
    assert (row["a"], row["a_1"], row["d"]) == (1, 2, "2026-01-02")
    assert len(row["m"]["executors/add"]) == 64
    sql = "SELECT 1.25 AS short, 12345678901234567890.12 AS long, 170141183460469231731687303715884105727 AS whole"
    (row,) = json.loads(ask(results, "--format", "json", sql).output)
    assert row == {"short": 1.25, "long": "12345678901234567890.12", "whole": 2**127 - 1}  # no digit is lost
    assert json.loads(ask(results, "--format", "json", "FROM runs WHERE false").output) == []


def test_infinities_are_the_same_words_in_json_and_csv_and_no_null(results: Path) -> None:
    sql = "SELECT x, [x] AS l FROM (VALUES ('inf'::DOUBLE), ('-inf'::FLOAT), ('nan'::DOUBLE), (NULL)) AS v(x)"
    rows = json.loads(ask(results, "--format", "json", sql).output)
    assert [(row["x"], *row["l"]) for row in rows] == [(x, x) for x in ("inf", "-inf", "nan", None)]
    written = list(csv.DictReader(io.StringIO(ask(results, "--format", "csv", sql).output)))
    assert [row["x"] for row in written] == ["inf", "-inf", "nan", ""]
    assert [json.loads(row["l"]) for row in written] == [row["l"] for row in rows]


def test_markdown_holds_hostile_text(results: Path) -> None:
    lines = ask(results, "--format", "md", HOSTILE_SQL).output.splitlines()
    assert lines[:2] == ["| text | adapter | nothing | blank |", "| --- | --- | --- | --- |"]
    for line in lines[2:]:
        assert len(re.findall(r"(?<!\\)\|", line)) == 5
        assert not re.search(r"(?<!\\)[<`\[]", line) and line.isprintable()


def test_a_table_fits_and_says_what_it_leaves_out(results: Path) -> None:
    output = ask(results, ACCURACY, env={"COLUMNS": "60"}).output
    assert "accuracy" in output and "0.0" in output
    output = ask(results, HOSTILE_SQL, env={"COLUMNS": "80"}).output
    assert "(2 shown)" in output
    assert output.replace("\n", "").isprintable() and "</script" in output
    many = ask(results, f"SELECT * FROM range({2 * ROWS})").output
    assert f"{2 * ROWS} rows" in many and f"({ROWS} shown)" in many
    assert "\u2502 NULL" in ask(results, "SELECT NULL AS a").output
    assert "0 rows" in ask(results, "FROM runs WHERE false").output


def test_the_tables_are_listed_without_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    text = runner.invoke(app, ["query", "--tables"], env={"COLUMNS": "200"}).output
    listed = json.loads(runner.invoke(app, ["query", "--tables", "--format", "json"]).output)
    assert [(row["view"], row["column"]) for row in listed] == [(t, c) for t, cs in RESULTS.items() for c in cs]
    for row in listed:
        assert row["meaning"] in text and row["type"] in text
    assert {row["column"]: row["type"] for row in listed}["adapters"] == "MAP(VARCHAR, VARCHAR)"


def test_statements_come_from_standard_input(results: Path) -> None:
    result = ask(results, "--format", "csv", given="SELECT 1 AS a;\nSELECT 2 AS b\n")
    assert result.output == "a\n1\nb\n2\n"
    assert isinstance(ask(results, given="").exception, UserError)


TIMES = """SELECT 1 AS a, 2 AS a, TIMESTAMPTZ '2026-01-02 03:04:05.5+02' AS zoned, INTERVAL 3 MONTH AS months,
    {'DATE': [TIMESTAMPTZ 'infinity']} AS "s", TIMESTAMP_NS '2026-01-02 00:00:00.123456789' AS ns, 'it''s' AS q -- so
    ORDER BY zoned;"""


@pytest.mark.parametrize("form", ["csv", "json", "md"])
def test_times_are_printed_as_a_table_prints_them(results: Path, form: str) -> None:
    """A zone needed a package that nothing installs; months became days, and infinity the year 9999."""
    shown = ask(results, "--format", form, TIMES).output
    texts = ("2026-01-02 01:04:05.5+00", "3 months", "infinity", "2026-01-02 00:00:00.123456789", "it's")
    assert all(text in shown for text in texts), shown
    if form == "csv":
        assert shown.splitlines()[0] == "a,a,zoned,months,s,ns,q"
    assert "now()" in ask(results, "--format", form, "SELECT now()").output
    assert "Traceback" not in refusal(results, "--format", form, "SELECT now()::VARIANT")


def test_times_keep_the_order_of_rows(results: Path) -> None:
    order = "FROM range(5000) ORDER BY hash(range)"
    plain, timed = (
        ask(results, "--format", "csv", f"SELECT range AS n{more} {order}").output for more in ("", ", now() AS t")
    )
    assert [line.partition(",")[0] for line in timed.split("\n")] == plain.split("\n")


def test_a_big_answer_streams(tmp_path: Path) -> None:
    tables = RunTables(tmp_path, run_id("x"))
    text = ["x" * 2000 + str(i) for i in range(500)]
    for part in range(4):
        tables.write_part("calls", str(part), ({"call": list(range(500)), "prompt": text} for _ in range(20)))
    held, count, most = pa.total_allocated_bytes(), 0, 0
    with Database(tmp_path) as database:
        for _ in database.each("SELECT prompt, call FROM calls"):
            count += 1
            most = max(most, pa.total_allocated_bytes() - held)
    assert count == 40_000
    assert most < 20e6, f"{most:,} bytes of {count * 2000:,}"


def test_visible_keeps_text_and_escapes_the_rest() -> None:
    assert visible("12+9=21 é 漢 🙂") == "12+9=21 é 漢 🙂"
    assert visible("a\n\t\x1b\x00\x7f\x9b\u202e\u2028\\") == "a\\n\\t\\x1b\\x00\\x7f\\x9b\\u202e\\u2028\\\\"
    assert visible("a\nb\t", "\n") == "a\nb\\t"


def test_ctrl_c_stops_a_statement(results: Path) -> None:
    words = [sys.executable, "-m", "caef_data", "query", "--results", str(results), "--format", "csv"]
    process = subprocess.Popen([*words, f"SELECT 1 AS begun; {ENDLESS}"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT


def test_control_characters_of_csv_reach_no_terminal(results: Path, tmp_path: Path) -> None:
    terminal = Terminal(["--results", str(results), "--format", "csv", HOSTILE_SQL], tmp_path)
    seen = terminal.until("onerror")
    assert "\x1b" not in seen and "\\x1b[31m" in seen
    assert terminal.end() == 0
