"""How far a push is: bytes that were checked, then files and bytes that were moved."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

from ...errors import printable_path
from ..terminal import LINE_EVERY, Bar, size_text


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
        self.bar.update(self.task, completed=done, total=total, rate=size_text(done))
        self._line(f"checked {size_text(done)} of {size_text(total)}")

    def begin(self, files: int, size: int) -> None:
        """Tell how many files are going to be moved, and their bytes."""
        self.start = self.said = time.perf_counter()
        self.files, self.bytes, self.total_files, self.total = 0, 0, files, size
        self.bar.reset(self.task, total=size, description="pushing", rate="")

    def moved(self, path: str, size: int) -> None:
        """Tell that a file has arrived."""
        self.files, self.bytes = self.files + 1, self.bytes + size
        rate = self.bytes / max(time.perf_counter() - self.start, 1e-6) / 1e6
        done = f"{self.files:,} of {self.total_files:,} files, {rate:,.1f} MB/s"
        self.bar.update(self.task, completed=self.bytes, description=printable_path(path), rate=done)
        self._line(f"{printable_path(path)}: {size_text(self.bytes)} of {size_text(self.total)}, {done}")

    def _line(self, text: str) -> None:
        """Say it where there is no bar, now and then."""
        if not self.console.is_terminal and time.perf_counter() - self.said >= LINE_EVERY:
            self.said = time.perf_counter()
            self.say(text)
