"""``caef-data query`` on a terminal: the prompt, Ctrl-C and Ctrl-D."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from caef_data.eval.tables import RunTables, run_id
from caef_data.tests.querying import ENDLESS, HOSTILE_SQL, Terminal
from caef_data.tests.results_data import RUNS


@pytest.mark.parametrize("leaving", ["\x04", ".exit\n", "\\q\n"])
def test_the_prompt(results: Path, tmp_path: Path, leaving: str) -> None:
    copied = tmp_path / "results"
    shutil.copytree(results, copied)
    terminal = Terminal(["--results", str(copied)], tmp_path / "state")
    terminal.until("query> ")
    terminal.send("SELECT count(*) AS c,\n")
    terminal.until("...> ")
    terminal.send("';' AS s FROM runs;\n")
    assert f"{len(RUNS)} \u2502 ;" in terminal.until("1 row\r\n")
    RunTables(copied, run_id("new")).write_run({"status": "unfinished"})
    terminal.until("query> ")
    terminal.send("SELECT count(*) FROM runs;\n")
    assert f"{len(RUNS) + 1} \u2502" in terminal.until("1 row\r\n")
    terminal.send("SELECT accurcy FROM class_accuracy;\n")
    terminal.until("did you mean 'accuracy'")
    terminal.send("DROP VIEW runs;\n.tables\n")
    terminal.until("DROP is refused")
    terminal.until("Each row is one failed problem")
    terminal.until("first_wrong_char")
    terminal.until("query> ")
    terminal.send("SELECT half\n")
    terminal.until("...> ")
    time.sleep(0.5)  # Python's readline draws the prompt a moment before it listens for signals
    terminal.send("\x03")
    terminal.until("KeyboardInterrupt")
    terminal.send(f"{ENDLESS};\n")
    time.sleep(0.5)  # it runs, or is about to: both are cancelled
    terminal.send("\x03")
    terminal.until("KeyboardInterrupt")
    terminal.send("SELECT text FROM failures WHERE text LIKE '%alert%' LIMIT 1;\n")
    assert "\x1b[31mred" not in terminal.until("1 row\r\n")
    terminal.until("query> ")
    terminal.send(leaving)
    assert terminal.end() == 0


def test_ctrl_c_stops_a_statement_of_the_command_line(results: Path) -> None:
    sql = f"SELECT 1 AS begun; {ENDLESS}"
    words = [sys.executable, "-m", "caef_data", "query", "--results", str(results), "--format", "csv", sql]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in said


def test_control_characters_of_csv_reach_no_terminal(results: Path, tmp_path: Path) -> None:
    terminal = Terminal(["--results", str(results), "--format", "csv", HOSTILE_SQL], tmp_path)
    seen = terminal.until("onerror")
    assert "\x1b" not in seen and "\\x1b[31m" in seen
    assert terminal.end() == 0
