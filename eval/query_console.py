"""The command ``caef-data query``: SQL from the command line, standard input or a prompt; what it gives in four forms.

A table for people; CSV, JSON and Markdown for programs, which hold exactly what was found.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from code import InteractiveConsole
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import date, datetime, time
from decimal import Decimal
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import UserError, did_you_mean, quoted
from ..schemas import RESULT_TEXT, RESULTS
from .query import Answer, Database, visible

ROWS = 100  # of a table
ROWS_UPRIGHT = 20  # of a table that is too wide: each row is shown as lines of name and value
CELL, CELL_UPRIGHT = 60, 500  # characters of a value
MORE = "--format csv prints all"
_SPECIAL = re.compile(r'[",\r\n]')
_MARKDOWN = re.compile(r"[\\`*\[\]<>|~&]")

Row = tuple[Any, ...]
HISTORY = 1000  # lines
BANNER = f"""\
SQL over {", ".join(RESULTS)}. A statement ends with a semicolon and may span lines; Ctrl-C cancels it.
Reads only: SELECT, EXPLAIN, SUMMARIZE, DESCRIBE. The command .tables tells what the columns mean, .exit leaves."""


def query(sql: str | None, results: str, form: str) -> None:
    """Run statements; without any, those of standard input; on a terminal, ask for them.

    Raises:
        UserError: there are no results, or a statement is refused or wrong; statements before it have been answered
            unless it cannot even be parsed or is not allowed.
    """
    _check_form(form)
    database = Database(Path(results))
    try:
        if sql is None and sys.stdin.isatty():
            _ask(database, form)
        else:
            _answer(database, sys.stdin.read() if sql is None else sql, form)
    finally:
        database.close()


def tables(form: str) -> None:
    """Print the views and their columns."""
    _check_form(form)
    print_tables(form, sys.stdout)


def _check_form(form: str) -> None:
    if form not in FORMS:
        raise UserError(
            f"no format {quoted(form)}{did_you_mean(form, FORMS)}", where="--format", allowed=", ".join(FORMS)
        )


def _answer(database: Database, sql: str, form: str) -> None:
    for statement in database.statements(sql):
        print_answer(database.run(statement), form, sys.stdout, plan=statement.type.name == "EXPLAIN")
        sys.stdout.flush()


class _Prompt(InteractiveConsole):
    """Python's own prompt: it reads lines until a text is whole, goes on after Ctrl-C and ends with Ctrl-D."""

    def __init__(self, database: Database, form: str) -> None:
        super().__init__()
        self.database, self.form = database, form
        sys.ps1, sys.ps2 = "query> ", "   ...> "

    def runsource(self, source: str, filename: str = "", symbol: str = "") -> bool:
        """Answer a whole text; tell whether more lines have to come."""
        word = source.strip().removesuffix(";")
        if word in (".exit", "exit", ".quit", "quit", "\\q"):
            sys.exit()
        if word == ".tables":
            print_tables(self.form, sys.stdout)
        elif word and not _ended(source):
            return True
        elif word:
            try:
                self.database.refresh()
                _answer(self.database, source, self.form)
            except UserError as error:
                print(f"error: {error}", file=sys.stderr)
        return False


def _ended(sql: str) -> bool:
    """Tell whether a text ends with a semicolon that stands in no text and no comment."""
    import duckdb

    encoded = sql.encode(errors="replace")
    tokens = [start for start, kind in duckdb.tokenize(encoded.decode()) if kind != duckdb.token_type.comment]
    return bool(tokens) and encoded[tokens[-1] :].lstrip()[:1] == b";"


def _ask(database: Database, form: str) -> None:
    """Ask for statements, with line editing and the lines of earlier times, where Python was built with readline."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    history = Path(state) / "caef-data" / "query_history"
    with suppress(ImportError, OSError):
        import readline

        readline.set_history_length(HISTORY)
        readline.read_history_file(history)
    try:
        _Prompt(database, form).interact(BANNER, exitmsg="")
    finally:
        with suppress(ImportError, OSError):  # a home that cannot be written: the history is a comfort
            import readline

            history.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            readline.write_history_file(history)
            history.chmod(0o600)


def print_answer(answer: Answer, form: str, out: TextIO, *, plan: bool) -> None:
    """Print the answer to a statement in one of ``FORMS``; that to an EXPLAIN, a plan, as DuckDB draws it."""
    if not plan or form != "table":
        FORMS[form](answer, out)
        return
    for row in answer.rows:
        out.write(visible(str(row[-1]).rstrip("\n"), "\n") + "\n")


def print_tables(form: str, out: TextIO, tables: Iterable[str] = RESULTS) -> None:
    """Print views and their columns, each with its type and meaning."""
    if form in ("csv", "json"):
        rows = [(table, *column) for table in tables for column in _columns(table)]
        FORMS[form](Answer(["view", "column", "type", "meaning"], iter(rows)), out)
        return
    for number, table in enumerate(tables):
        out.write("\n" if number else "")
        if form == "md":
            out.write(f"### {table}\n\n{RESULT_TEXT[table]}\n\n")
            _markdown(Answer(["column", "type", "meaning"], iter(_columns(table))), out)
            continue
        console = _console(out)
        console.print(f"{table}: {RESULT_TEXT[table]}", soft_wrap=True)
        grid = Table.grid(padding=(0, 2, 0, 0))
        for column in _columns(table):
            grid.add_row(*(Text(part) for part in column))
        grid.columns[0].no_wrap = grid.columns[1].no_wrap = True
        console.print(grid)


def _columns(table: str) -> list[Row]:
    """Return name, SQL type and meaning of a view's columns."""
    import duckdb

    from ..schemas import result_schema

    with duckdb.connect(":memory:") as database:
        database.register("columns_of", result_schema(table).empty_table())
        described = database.execute("DESCRIBE columns_of").fetchall()
    return [(name, kind, RESULTS[table][name][1]) for name, kind, *_ in described]


def _console(out: TextIO) -> Console:
    return Console(file=out, highlight=False, markup=False, emoji=False)


def _table(answer: Answer, out: TextIO) -> None:
    console = _console(out)
    rows = list(islice(answer.rows, ROWS + 1))
    names = [visible(name) for name in answer.names]
    cells = [[_cell(value) for value in row] for row in rows[:ROWS]]
    widths = [
        max(min(cell_len(text), CELL) for text in column) for column in zip(names, *cells, strict=True)
    ]  # a border and two blanks beside each column
    if sum(widths) + 3 * len(widths) + 1 <= console.width:
        cut = any(len(text) > CELL for row in cells for text in row)
        table = Table()
        for name, column in zip(names, zip(*rows, strict=True) if rows else [()] * len(names), strict=True):
            numeric = all(isinstance(value, int | float | Decimal | None) for value in column) and bool(column)
            table.add_column(Text(name), justify="right" if numeric else "left", no_wrap=True)
        for row in cells:
            table.add_row(*(_clipped(text, CELL) for text in row))
        console.print(table)
        shown = len(cells)
    else:
        shown, cut = _upright(names, cells[:ROWS_UPRIGHT], console)
    if len(rows) > shown:
        console.print(f"the first {shown} rows; {MORE}", soft_wrap=True)
    else:
        console.print(f"{shown} row{'' if shown == 1 else 's'}", soft_wrap=True)
    if cut:
        console.print(f"long values are cut; {MORE}", soft_wrap=True)


def _upright(names: list[str], cells: list[list[str]], console: Console) -> tuple[int, bool]:
    """Print rows as lines of name and value; return their number, and whether a value was cut."""
    for number, row in enumerate(cells, 1):
        console.print(f"row {number}", style="bold")
        grid = Table.grid(padding=(0, 2, 0, 2))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for name, text in zip(names, row, strict=True):
            grid.add_row(Text(name), _clipped(text, CELL_UPRIGHT))
        console.print(grid)
    return len(cells), any(len(text) > CELL_UPRIGHT for row in cells for text in row)


def _clipped(text: str, length: int) -> Text:
    return Text(text if len(text) <= length else text[: length - 3] + "...")


def _cell(value: object) -> str:
    """Return a value as a person reads it."""
    if isinstance(value, float):
        return f"{value:,.0f}" if 1e6 <= abs(value) < 1e15 else f"{value:.6g}"
    return "NULL" if value is None else visible(_text(value)[: 2 * CELL_UPRIGHT])


def _text(value: object) -> str:
    """Return a value as text: exact, times in ISO form, lists and maps as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | list | dict | tuple):
        return json.dumps(_plain(value), ensure_ascii=False)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return value.isoformat(" ")
    return str(value)


def _plain(value: object) -> Any:
    """Return a value as JSON has it; what it has no word for becomes text, infinities and NaN null."""
    if isinstance(value, dict):
        return {_text(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, date | time):
        return value.isoformat()
    return value if value is None or isinstance(value, str | int | bool) else _text(value)


def _csv(answer: Answer, out: TextIO) -> None:
    """Print CSV: a NULL is empty, an empty text is quoted. Only a terminal gets control characters escaped."""
    keep = visible if out.isatty() else str
    for row in chain([answer.names], answer.rows):
        out.write(",".join("" if value is None else _quoted(keep(_text(value))) for value in row) + "\n")


def _quoted(text: str) -> str:
    """Return a field; the standard library's writer cannot tell an empty text from none."""
    return '"' + text.replace('"', '""') + '"' if not text or _SPECIAL.search(text) else text


def _json(answer: Answer, out: TextIO) -> None:
    """Print an array with an object for every row, a line each."""
    names: list[str] = []
    for name in answer.names:  # an object has no two members of one name
        free = (f"{name}_{number}" if number else name for number in count())
        names.append(next(one for one in free if one not in names))
    start = "[\n"
    for row in answer.rows:
        out.write(start + json.dumps(dict(zip(names, map(_plain, row), strict=True))))
        start = ",\n"
    out.write("\n]\n" if start != "[\n" else "[]\n")


def _markdown(answer: Answer, out: TextIO) -> None:
    """Print a table for GitHub and others."""
    for row in chain([answer.names, None], answer.rows):
        cells = ("" if value is None else _MARKDOWN.sub(r"\\\g<0>", visible(_text(value))) for value in row or ())
        out.write(f"| {' | '.join(cells)} |\n" if row else "|" + " --- |" * len(answer.names) + "\n")


FORMS: dict[str, Callable[[Answer, TextIO], None]] = {"table": _table, "csv": _csv, "json": _json, "md": _markdown}
