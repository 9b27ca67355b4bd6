"""What all commands share of printing for people: consoles, progress, and tables whose numbers are never cut."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

LINE_EVERY = 5.0  # seconds between progress lines where there is no terminal

_quiet = False


def set_quiet(wanted: bool) -> None:
    """Leave out, or print, what goes to stderr: progress and notes. Errors are printed all the same."""
    global _quiet
    _quiet = wanted


def open_console(*, stderr: bool = False) -> Console:
    """Return a console that prints names of files as they are: `[/x]` and `:bug:` mean nothing."""
    return Console(stderr=stderr, quiet=stderr and _quiet, highlight=False, markup=False, emoji=False, soft_wrap=True)


class _Narrower(NamedTuple):
    """A renderable in a few columns less."""

    inner: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self.inner, options.update_width(max(1, options.max_width - 3)))


class Bar(Progress):
    """A progress bar that leaves room at its end for the ``^C`` that a terminal writes there.

    In a full line that goes on in the next one, the bar is drawn once more, and the line above stays.
    """

    def get_renderables(self) -> Iterable[RenderableType]:
        for renderable in super().get_renderables():
            yield _Narrower(renderable)


class Meter:
    """Tells how far work is: by a bar on a terminal, elsewhere by a line now and then.

    Args:
        console: where.
        doing: what stands before the bar at first.
        total: of what is counted; None where that is not known yet: the bar goes with the block then.
    """

    def __init__(self, console: Console, doing: str, total: float | None = None) -> None:
        self.console = console
        self.start = self.said = time.perf_counter()
        columns = (TextColumn("{task.description}", markup=False), BarColumn(None), TextColumn("{task.fields[rate]}"))
        disabled, transient = not console.is_terminal, total is None
        self.bar = Bar(*columns, TimeRemainingColumn(), console=console, disable=disabled, transient=transient)
        self.task = self.bar.add_task(doing, total=total, rate="")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    @property
    def seconds(self) -> float:
        """Time since the work began."""
        return max(time.perf_counter() - self.start, 1e-6)

    def update(self, line: str, **fields: Any) -> None:
        """Move the bar, by fields of rich's task; or say a line, if it is time."""
        self.bar.update(self.task, **fields)
        now = time.perf_counter()
        if not self.console.is_terminal and now - self.said >= LINE_EVERY:
            self.said = now
            self.console.print(line)


def size_text(count: float) -> str:
    """Return a number of bytes in MB, in kB below one."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.0f} kB"


def new_table(*counts: str, first: Sequence[str] = ("config", "split")) -> Table:
    """Return a table with columns of names, which are never cut short, and of counts."""
    table = Table()
    for name in first:
        table.add_column(name, no_wrap=True)
    for name in counts:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def print_table(console: Console, table: Table) -> None:
    """Print a table that breaks its cells at blanks alone; where the console is too narrow its lines go on beyond.

    By itself rich cuts words, and so the last digits of numbers.
    """
    for column in table.columns:
        texts = [str(cell) for cell in (column.header, *column.cells)]
        words = (word for text in texts for word in ([text] if column.no_wrap else text.split()))
        column.min_width = max(map(cell_len, words), default=0)
    # A blank on either side of a cell, and a line on either side of a column.
    least = sum((column.min_width or 0) + 3 for column in table.columns) + 1
    if least > console.width:
        table.width = least
    console.print(table, crop=False, no_wrap=True, overflow="ignore")
