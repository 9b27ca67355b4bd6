"""How far a push is: bytes that were checked, then files and bytes that were moved."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

from ...errors import shown
from ..console import LINE_EVERY, _size
from ..terminal import Bar


@dataclass(frozen=True)
class File:
    """A file of a dataset: its path inside the dataset, bytes and sha256 (hex)."""

    path: str
    bytes: int
    sha256: str


class Progress:
    """A bar on a terminal, plain lines otherwise."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.start = self.said = time.perf_counter()
        self.files = self.bytes = self.total_files = self.total = 0
        columns = (TextColumn("{task.description}", markup=False), BarColumn(None), TextColumn("{task.fields[rate]}"))
        self.bar = Bar(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)
        self.task = self.bar.add_task("checking", total=None, rate="")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def say(self, text: str) -> None:
        """Say what the user should know now, one line."""
        self.console.print(text, soft_wrap=True)

    def check(self, done: int, total: int) -> None:
        """Tell how many bytes of the folder are checked, and how many there are."""
        self.bar.update(self.task, completed=done, total=total, rate=_size(done))
        self._line(f"checked {_size(done)} of {_size(total)}")

    def begin(self, files: Sequence[File]) -> None:
        """Tell what is going to be moved."""
        self.start = self.said = time.perf_counter()
        self.files = self.bytes = 0
        self.total_files, self.total = len(files), sum(file.bytes for file in files)
        self.bar.reset(self.task, total=self.total, description="pushing", rate="")

    def moved(self, file: File) -> None:
        """Tell that a file has arrived."""
        self.files, self.bytes = self.files + 1, self.bytes + file.bytes
        rate = self.bytes / max(time.perf_counter() - self.start, 1e-6) / 1e6
        done = f"{self.files:,} of {self.total_files:,} files, {rate:,.1f} MB/s"
        self.bar.update(self.task, completed=self.bytes, description=shown(file.path), rate=done)
        self._line(f"{shown(file.path)}: {_size(self.bytes)} of {_size(self.total)}, {done}")

    def _line(self, text: str) -> None:
        """Say it where there is no bar, now and then."""
        now = time.perf_counter()
        if not self.console.is_terminal and now - self.said >= LINE_EVERY:
            self.said = now
            self.say(text)
