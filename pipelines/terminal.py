"""What all commands share of printing for people: consoles, and tables whose numbers are never cut."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress import Progress
from rich.table import Column, Table


@dataclass(frozen=True)
class _Narrower:
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


class _Quiet:
    """Whether progress and notes are left out: ``--quiet``."""

    wanted = False


def set_quiet(wanted: bool) -> None:
    """Leave out, or print, what goes to stderr: progress and notes. Errors are printed all the same."""
    _Quiet.wanted = wanted


def open_console(*, stderr: bool = False) -> Console:
    """Return a console that prints names of files as they are: `[/x]` and `:bug:` mean nothing."""
    return Console(stderr=stderr, quiet=stderr and _Quiet.wanted, highlight=False, markup=False, emoji=False)


def print_table(console: Console, table: Table) -> None:
    """Print a table that breaks its cells at blanks alone; where the console is too narrow its lines go on beyond.

    By itself rich cuts words, and so the last digits of numbers.
    """
    for column in table.columns:
        column.min_width = _least(column)
    # A blank on either side of a cell, and a line on either side of a column.
    least = sum((column.min_width or 0) + 3 for column in table.columns) + 1
    if least > console.width:
        table.width = least
    console.print(table, crop=False, no_wrap=True, overflow="ignore")


def _least(column: Column) -> int:
    """Return the width of the longest text of a column that must not be broken."""
    texts = [str(cell) for cell in (column.header, *column.cells)]
    return max(cell_len(word) for text in texts for word in ([text] if column.no_wrap else text.split() or [""]))
