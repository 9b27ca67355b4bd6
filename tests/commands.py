"""Runs commands in this process, and reads what they leave."""

from pathlib import Path

from typer.testing import CliRunner

from caef_data.cli import app
from caef_data.errors import UserError


def call(*words: object) -> tuple[int, str]:
    """Run a command; return its exit code and what it printed, or the error's message."""
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "NO_COLOR": "1"})
    if isinstance(result.exception, UserError):
        return 2, str(result.exception)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
