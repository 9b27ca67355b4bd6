"""The command ``caef-data report``: reads the results, renders the page, puts it in its place in one step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ...errors import UserError, telling_of_full_disk
from ...pipelines.build import argument
from ...pipelines.folder import shown
from ...pipelines.shard import put
from ..query import Database
from .numbers import read_numbers
from .page import render
from .words import left_out


def report(results: str, runs: Sequence[str], out: str) -> None:
    """Write the report of some runs, and print where it is.

    Args:
        results: the folder of result tables.
        runs: ids of runs, or how they begin; none for all finished ones.
        out: the HTML file to write; one that is there is replaced.

    Raises:
        UserError: there are no results, a run is unknown or unfinished, ``out`` is a folder, or the extra ``report``
            is not installed.
    """
    path = Path(out)
    if not path.name or path.is_dir() or "://" in out:
        raise UserError(
            "a report is a file on this machine",
            where=f"--out {shown(out)}",
            allowed="a file name, such as report.html",
        )
    database = Database(Path(results))
    try:
        numbers = read_numbers(database, runs)
    finally:
        database.close()
    page = render(numbers).encode()
    with telling_of_full_disk(shown(out), "make room and run the same command again, or choose another --out"):
        put(path, page, f"{os.getpid()}-")
    size = f"{len(page) / 1e6:.1f} MB" if len(page) >= 1e6 else f"{len(page) / 1e3:.0f} kB"
    num = len(numbers.runs)
    print(f"{shown(out)}: {num} run{'s' * (num > 1)}, {len(numbers.panels)} tasks and modes, {size}")
    for why, command in left_out(numbers):
        print(why, command)
    print(f"open it:  {_opener()} {argument(out)}")


def _opener() -> str:
    return "open" if os.uname().sysname == "Darwin" else "xdg-open"
