"""Running ``caef-data query``: in this process, and on a terminal."""

import os
import pty
import select
import sys
import time
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from caef_data.cli import app
from caef_data.errors import UserError
from caef_data.tests.results_data import RUNS

HOSTILE_SQL = (
    "SELECT text, adapter, NULL AS nothing, '' AS blank FROM failures"
    f" WHERE text LIKE '%alert%' AND run_id = '{RUNS[0].id}'"
)
ENDLESS = "SELECT count(*) FROM range(1000000000) a, range(1000000) b WHERE (a.range * b.range) % 7 = 3"


def ask(results: Path, *words: str, given: str | None = None, env: dict[str, str] | None = None) -> Any:
    return CliRunner().invoke(app, ["query", "--results", str(results), *words], input=given, env=env)


def refusal(results: Path, *words: str) -> str:
    result = ask(results, *words)
    assert isinstance(result.exception, UserError), result.output
    return str(result.exception)


class Terminal:
    """A process on a terminal of its own."""

    def __init__(self, words: list[str], home: Path) -> None:
        self.seen = ""
        self.pid, self.handle = pty.fork()
        if self.pid == 0:
            os.environ.update({"XDG_STATE_HOME": str(home), "TERM": "dumb", "COLUMNS": "80", "NO_COLOR": "1"})
            os.execv(sys.executable, [sys.executable, "-m", "caef_data", "query", *words])

    def until(self, wanted: str, seconds: float = 60) -> str:
        """Read on until a text comes; return what was read, and it."""
        end = time.monotonic() + seconds
        while wanted not in self.seen:
            assert time.monotonic() < end, f"no {wanted!r} in {self.seen!r}"
            if select.select([self.handle], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.handle, 65536).decode()
                except OSError:  # the other side is gone
                    raise AssertionError(f"ended without {wanted!r}: {self.seen!r}") from None
        before, _, self.seen = self.seen.partition(wanted)
        return before + wanted

    def send(self, text: str) -> None:
        os.write(self.handle, text.encode())

    def end(self) -> int:
        with open(self.handle, "rb", buffering=0) as rest:
            try:
                while rest.read(4096):
                    pass
            except OSError:
                pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
