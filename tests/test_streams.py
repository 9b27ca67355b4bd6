"""Processes in odd surroundings: no folder to stand in, closed or broken streams, odd terminals, long paths."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.table import Table
from typer.testing import CliRunner

from caef_data.cli import app
from caef_data.pipelines.terminal import Bar, print_table
from caef_data.tests.commands import call

BUILD = ["build", "--task", "add", "--max", "2", "--num", "1", "--workers", "2"]
PYTHON = [sys.executable, "-c", "from caef_data.__main__ import run; run()"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished dataset; tests only read it."""
    out = tmp_path_factory.mktemp("built") / "data"
    assert call("build", "--task", "add", "--max", 2, "--num", 2, "--out", out, "--workers", 1)[0] == 0
    return out


def shell(script: str, *words: object, cwd: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run a command as a line of the shell has it: ``exec "$@" >&-``."""
    command = ["sh", "-c", script, "sh", *PYTHON, *map(str, words)]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, timeout=100, check=False
    )


def commands(data: Path, place: Path) -> list[list[object]]:
    return [[*BUILD, "--out", place / "new"], ["verify", data], ["info", data], ["show", "1+2="], ["nonsense"]]


def test_the_current_folder_is_gone(built: Path, tmp_path: Path) -> None:
    for words in commands(built, tmp_path):
        gone = tmp_path / "gone"
        gone.mkdir()
        done = shell('rmdir "$PWD"; exec "$@"', *words, cwd=gone)
        assert done.returncode == 2
        assert done.stderr.startswith("error: the current folder does not exist any more")
        assert len(done.stderr.splitlines()) == 2


def test_standard_output_is_closed(built: Path, tmp_path: Path) -> None:
    for words in commands(built, tmp_path):
        done = shell('exec "$@" >&-', *words, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith("error: standard output is closed")
        assert len(done.stderr.splitlines()) == 2
    assert not list(tmp_path.iterdir())


def test_other_streams_are_closed(tmp_path: Path) -> None:
    """What is opened next must not take their place, and be written into."""
    script, out = 'exec "$@" <&- 2>&-', tmp_path / "new"
    done = shell(script, *BUILD, "--out", out, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert shell(script, "verify", out, cwd=tmp_path).returncode == 0
    assert shell(script, "info", tmp_path / "nowhere", cwd=tmp_path).returncode == 2


def test_nobody_reads_the_output(built: Path, tmp_path: Path) -> None:
    for stream, code in (("stdout", 1), ("stderr", 2)):
        reader, writer = os.pipe()
        os.close(reader)
        words = ["info", built] if stream == "stdout" else ["info", tmp_path / "nowhere"]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: writer}
        done = subprocess.run([*PYTHON, *map(str, words)], text=True, timeout=100, check=False, **streams)  # type: ignore[call-overload]
        os.close(writer)
        assert done.returncode == code
        assert not done.stdout
        assert not done.stderr


@pytest.mark.parametrize("length", [75, 76])
def test_the_folder_of_temporary_files_has_a_long_name(tmp_path: Path, length: int) -> None:
    """Addresses of sockets have 107 bytes at most."""
    place = tmp_path / "t"
    place = place.with_name("t" * (length - len(str(tmp_path)) - 1)) if length > len(str(tmp_path)) + 1 else place
    place.mkdir()
    done = shell('exec "$@"', *BUILD, "--out", tmp_path / "new", cwd=tmp_path, TMPDIR=str(place))
    assert done.returncode == 0, done.stderr
    done = shell('exec "$@"', "verify", tmp_path / "new", "--workers", 2, cwd=tmp_path, TMPDIR=str(place))
    assert done.returncode == 0, done.stderr
    assert not list(place.iterdir())


def test_a_terminal_that_knows_ascii_alone(built: Path, tmp_path: Path) -> None:
    for words in commands(built, tmp_path)[:-1]:
        done = shell('exec "$@"', *words, cwd=tmp_path, PYTHONIOENCODING="ascii:strict", LANG="C", LC_ALL="C")
        assert done.returncode == 0, done.stderr
        assert done.stdout.isascii()


# Tables


def narrow(*words: object, columns: int) -> str:
    """Return what a command prints on a terminal of so many columns."""
    result = CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": str(columns), "NO_COLOR": "1"})
    assert result.exit_code == 0, result.output
    return result.stdout


def test_numbers_are_never_cut(built: Path, tmp_path: Path) -> None:
    for words in (["info", built], ["plan", "--task", "add", "--max", 3, "--num", 12345]):
        texts = [narrow(*words, columns=columns) for columns in (1, 40, 60, 300)]
        numbers = [sorted(re.findall(r"\d[\d,.]*", text)) for text in texts]
        assert all(found == numbers[-1] for found in numbers)
    for words in (
        ["verify", built, "--workers", 1],
        ["push", built, "--to", tmp_path / "to", "--dry-run"],
        ["export", built, "--out", tmp_path / "export"],
        ["eval", "--backend", "oracle", "--task", "add", "--data", built, "--out", tmp_path / "results"],
    ):
        assert "\u2026" not in narrow(*words, columns=40)


def test_a_table_breaks_at_blanks_alone() -> None:
    table = Table()
    for name in ("name", "95% interval", "a long heading"):
        table.add_column(name, justify="right")
    table.add_row("one_step", "70.1% - 100.0%", "1,234,567,890")
    for width in (1, 10, 30, 45, 50, 80):
        out = io.StringIO()
        print_table(Console(file=out, width=width), table)
        words = out.getvalue().replace("\u2502", " ").split()
        for word in ("one_step", "70.1%", "100.0%", "1,234,567,890", "interval", "heading"):
            assert word in words, (width, out.getvalue())


def test_a_bar_leaves_room_for_what_ctrl_c_writes() -> None:
    """``^C`` after a full line goes on in the next one, and the bar would stand twice."""
    for width in (20, 80, 120):
        out = io.StringIO()
        console = Console(file=out, width=width, force_terminal=True, color_system=None)
        with Bar(TextColumn("{task.description}"), BarColumn(None), console=console) as bar:
            bar.update(bar.add_task("building"), total=10, completed=5, refresh=True)
        lines = re.split(r"[\r\n]", re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", out.getvalue()))
        assert any("building" in line for line in lines)
        assert max(map(len, lines)) == width - 3
