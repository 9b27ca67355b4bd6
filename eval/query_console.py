"""The command ``caef-data query``: SQL from the command line, standard input or a prompt; what it gives in four forms.

A table for people; CSV, JSON and Markdown for programs, which hold exactly what was found.
"""

from __future__ import annotations

import json
import math
import re
import sys
from code import InteractiveConsole
from collections.abc import Iterable
from contextlib import suppress
from datetime import date, time
from decimal import Decimal
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from ..errors import UserError, did_you_mean, quoted
from ..schemas import RESULT_TEXT, RESULTS, result_schema
from .query import Database, visible

ROWS, CELL = 100, 60  # rows of a table, characters of a value
ROWS_UPRIGHT, CELL_UPRIGHT = 20, 500  # of a table that is too wide: each row is shown as lines of name and value
MORE = "--format csv prints all"
BANNER = f"""\
SQL over {", ".join(RESULTS)}. A statement ends with a semicolon and may span lines; Ctrl-C cancels it.
Reads only: SELECT, EXPLAIN, SUMMARIZE, DESCRIBE. The command .tables tells what the columns mean, .exit leaves."""
Rows = Iterable[tuple[Any, ...]]
_SPECIAL = re.compile(r'[",\r\n]')
_MARKDOWN = re.compile(r"[\\`*\[\]<>|~&]")


def query(sql: str | None, results: str, form: str) -> None:
    """Run statements; without any, those of standard input; on a terminal, ask for them.

    Raises:
        UserError: there are no results, or a statement is refused or wrong; statements before it have been answered
            unless it cannot even be parsed or is not allowed.
    """
    _check_form(form)
    with Database(Path(results)) as database:
        if sql is not None or not sys.stdin.isatty():
            _answer(database, sys.stdin.read() if sql is None else sql, form)
            return
    with suppress(ImportError):
        import readline  # noqa: F401  line editing, and the lines of this session
    _Prompt(results, form).interact(BANNER, exitmsg="")


def _check_form(form: str) -> None:
    if form not in FORMS:
        what = f"no format {quoted(form)}{did_you_mean(form, FORMS)}"
        raise UserError(what, where="--format", allowed=", ".join(FORMS))


def _answer(database: Database, sql: str, form: str) -> None:
    for statement in database.statements(sql):
        plan = statement.type.name == "EXPLAIN" and form == "table"
        (_plan if plan else FORMS[form])(*database.run(statement), sys.stdout)
        sys.stdout.flush()


class _Prompt(InteractiveConsole):
    """Python's own prompt: it reads lines until a text is whole, goes on after Ctrl-C and ends with Ctrl-D."""

    def __init__(self, results: str, form: str) -> None:
        super().__init__()
        self.results, self.form = results, form
        sys.ps1, sys.ps2 = "query> ", "   ...> "

    def runsource(self, source: str, filename: str = "", symbol: str = "") -> bool:
        """Answer a whole text; tell whether more lines have to come."""
        text = source.strip()
        if text.removesuffix(";") in (".exit", "exit", ".quit", "quit", "\\q"):
            sys.exit()
        if text == ".tables":
            print_tables(self.form, sys.stdout)
        elif not text.endswith(";"):
            return bool(text)
        else:
            try:
                with Database(Path(self.results)) as database:  # evaluations may have gone on
                    _answer(database, source, self.form)
            except UserError as error:
                print(f"error: {error}", file=sys.stderr)
        return False


def print_tables(form: str, out: TextIO) -> None:
    """Print the tables and their columns, each with its type and meaning.

    Raises:
        UserError: there is no such form.
    """
    import duckdb

    _check_form(form)
    columns: dict[str, list[tuple[str, ...]]] = {}
    for table, meanings in RESULTS.items():
        view = duckdb.from_arrow(result_schema(table).empty_table())
        kinds = zip(view.columns, view.types, strict=True)
        columns[table] = [(name, str(kind), meanings[name][1]) for name, kind in kinds]
    if form in ("csv", "json"):
        rows = ((table, *row) for table, own in columns.items() for row in own)
        FORMS[form](["view", "column", "type", "meaning"], rows, out)
        return
    for table, own in columns.items():
        if form == "md":
            out.write(f"### {table}\n\n{RESULT_TEXT[table]}\n\n")
            _markdown(["column", "type", "meaning"], own, out)
        else:
            _console(out).print(f"{table}: {RESULT_TEXT[table]}", _grid(own), sep="\n")
        out.write("\n")


def _console(out: TextIO) -> Console:
    return Console(file=out, highlight=False, markup=False, emoji=False)


def _grid(rows: Iterable[tuple[str, ...]]) -> Table:
    """Return rows whose last column takes what width is left."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    for row in rows:
        grid.add_row(*map(Text, row))
    for column in grid.columns:
        column.no_wrap, column.overflow = column is not grid.columns[-1], "fold"
    return grid


def _plan(names: list[str], rows: Rows, out: TextIO) -> None:
    """Print a plan as DuckDB draws it."""
    for row in rows:
        out.write(visible(str(row[-1]).rstrip("\n"), "\n") + "\n")


def _table(names: list[str], rows: Rows, out: TextIO) -> None:
    """Print a table; one that is too wide as a list of rows."""
    console, first, longest = _console(out), list(islice(rows, ROWS + 1)), CELL
    texts = [[_cell(value) for value in row] for row in first[:ROWS]]
    table = Table(*(Column(visible(name), no_wrap=True) for name in names))
    for row in texts:
        table.add_row(*(Text(_cut(text, CELL)) for text in row))
    for column, values in zip(table.columns, zip(*first, strict=True), strict=False):
        if all(isinstance(value, int | float | Decimal | None) for value in values):
            column.justify = "right"
    if Measurement.get(console, console.options.update(width=10**6), table).maximum <= console.width:
        console.print(table)
    else:
        texts, longest = texts[:ROWS_UPRIGHT], CELL_UPRIGHT
        for number, row in enumerate(texts, 1):
            cells = zip(map(visible, names), row, strict=True)
            console.print(f"row {number}", _grid(("", name, _cut(text, longest)) for name, text in cells), sep="\n")
    shown = f"{len(texts)} row{'' if len(texts) == 1 else 's'}"
    console.print(f"the first {shown}; {MORE}" if len(first) > len(texts) else shown, soft_wrap=True)
    if any(len(text) > longest for row in texts for text in row):
        console.print(f"long values are cut; {MORE}", soft_wrap=True)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _cell(value: object) -> str:
    """Return a value as a person reads it."""
    if value is None:
        return "NULL"
    return f"{value:.6g}" if isinstance(value, float) else visible(_text(value)[: 2 * CELL_UPRIGHT])


def _text(value: object) -> str:
    """Return a value as text: exact, lists and maps as JSON."""
    if isinstance(value, bool | list | dict | tuple):
        return json.dumps(_plain(value), ensure_ascii=False)
    return value.hex() if isinstance(value, bytes) else str(value)


def _plain(value: object) -> Any:
    """Return a value as JSON has it; what it has no word for becomes text, infinities and NaN null."""
    match value:
        case dict():
            return {_text(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return list(map(_plain, value))
        case float():
            return value if math.isfinite(value) else None
        case Decimal():  # a number where that holds every digit
            return float(value) if Decimal(repr(float(value))) == value else str(value)
        case date() | time():
            return value.isoformat()
    return value if value is None or isinstance(value, str | int) else _text(value)


def _csv(names: list[str], rows: Rows, out: TextIO) -> None:
    """Print CSV: a NULL is empty, an empty text is quoted. Only a terminal gets control characters escaped."""

    def field(value: object) -> str:
        text = "" if value is None else visible(_text(value)) if out.isatty() else _text(value)
        bare = value is None or (text and not _SPECIAL.search(text))  # the library's writer quotes no empty text
        return text if bare else '"' + text.replace('"', '""') + '"'

    for row in chain([names], rows):
        out.write(",".join(map(field, row)) + "\n")


def _json(names: list[str], rows: Rows, out: TextIO) -> None:
    """Print an array with an object for every row, a line each."""
    members: list[str] = []
    for name in names:  # an object has no two members of one name
        numbered = chain([name], (f"{name}_{number}" for number in count(1)))
        members.append(next(one for one in numbered if one not in members))
    start = "[\n"
    for row in rows:
        out.write(start + json.dumps(dict(zip(members, map(_plain, row), strict=True))))
        start = ",\n"
    out.write("\n]\n" if start != "[\n" else "[]\n")


def _markdown(names: list[str], rows: Rows, out: TextIO) -> None:
    """Print a table for GitHub and others."""
    for row in chain([names, None], rows):
        cells = ("" if value is None else _MARKDOWN.sub(r"\\\g<0>", visible(_text(value))) for value in row or ())
        out.write(f"| {' | '.join(cells)} |\n" if row else "|" + " --- |" * len(names) + "\n")


FORMS = {"table": _table, "csv": _csv, "json": _json, "md": _markdown}
