"""Runs commands in this process, and reads what they leave."""

import json
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


def call_json(*words: object) -> Any:
    """Run a command; return the JSON that it printed on stdout alone."""
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def everything(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder, and its folders, which hold nothing themselves."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    return {name: path.read_bytes() if path.is_file() else b"" for name, path in found.items()}


@contextmanager
def full_disk(most: int) -> Iterator[None]:
    """Refuse files of more bytes than these, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def changed(flags: list[str], option: str, *value: object) -> list[object]:
    """Return a command's words with another value of an option, which stands once."""
    place = flags.index(option) if option in flags else len(flags)
    return [*flags[:place], option, *value, *flags[place + 2 :]]
