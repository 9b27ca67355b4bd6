"""``caef-data query``: SQL over the result tables, by a DuckDB that can read these tables, and do nothing else.

The database is in memory and empty: the tables are views of Arrow datasets that this module opened. DuckDB itself may
not reach files, network, extensions or Python's variables, and its settings are locked.
"""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stdout
from decimal import Decimal
from functools import partial
from itertools import chain, count, groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.dataset as ds
from pyarrow.fs import LocalFileSystem

from ..errors import UserError, did_you_mean, printable_path, quoted
from ..schemas import RESULT_TEXT, RESULTS, result_schema
from .tables import part_files, read_runs, read_whole, results_folder

if TYPE_CHECKING:
    import duckdb

SETTINGS = {  # in this order: the last two close the door behind them
    "TimeZone": "UTC",
    "enable_progress_bar": "false",
    "temp_directory": "",  # nothing is written, not even what does not fit into memory
    "memory_limit": "50%",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
    "python_scan_all_frames": "false",
    "enable_external_access": "false",
    "lock_configuration": "true",
}
ALLOWED = "SELECT (also FROM, WITH, VALUES, PIVOT ... ON ... IN (...)), EXPLAIN, DESCRIBE, SHOW, SUMMARIZE"
LISTED = "caef-data query --tables lists tables and columns"
CHUNK = 256  # rows fetched at once
ROWS, CELL = 100, 60  # rows of a table, characters of a value
Rows = Iterable[tuple[Any, ...]]
_UNREADABLE = re.compile(r"reading the stream registered as '(\w+)' failed")
_TIME = re.compile(r"\b(?:TIMESTAMP|TIME|DATE|INTERVAL)(?:_\w+)?(?: WITH TIME ZONE)?(?=[\[,)]|$)")  # in a column's type
_SPECIAL = re.compile(r'[",\r\n]')
_MARKDOWN = re.compile(r"[\\`*\[\]<>|~&]")


class Database:
    """The result tables of a folder as they are now, open for reading.

    Args:
        results: the folder that evaluations wrote their tables into.

    Raises:
        UserError: there are no results.
    """

    def __init__(self, results: Path) -> None:
        import duckdb

        self.results = results_folder(results)
        parts = {table: part_files(self.results, table) for table in RESULTS}
        if not any(parts.values()):
            raise UserError(
                "there are no results here",
                where=printable_path(results),
                next_step="caef-data eval --adapters ckpt/ --out RESULTS, or name their folder with --results",
            )
        self.connection = duckdb.connect(":memory:")
        for name, value in SETTINGS.items():
            self.connection.execute(f"SET {name} = '{value}'")
        unfinished = {row["run_id"] for row in read_runs(self.results) if row["status"] != "finished"}
        for table in RESULTS:
            readable = [(run, path) for run, path in parts[table] if table == "runs" or run not in unfinished]
            self.connection.register(table, _dataset(table, readable))

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *error: object) -> None:
        self.connection.close()

    def statements(self, sql: str) -> list[duckdb.Statement]:
        """Return the statements of a text, all of them allowed.

        Raises:
            UserError: there is none, one cannot be parsed, or does something else than read the tables.
        """
        import duckdb

        if sql.encode(errors="replace").decode() != sql:
            raise UserError("this is no text", where=quoted(sql))
        statements: list[duckdb.Statement] = self._do(duckdb.extract_statements, sql)
        for statement in statements:
            if statement.type.name not in ("SELECT", "EXPLAIN"):  # DESCRIBE, SHOW and SUMMARIZE are SELECT to DuckDB
                what = f"{statement.type.name.replace('_', ' ')} is refused: results are only read"
                raise UserError(what, where=quoted(statement.query.strip(), 200), allowed=ALLOWED)
        if not statements:
            advice = 'caef-data query "SELECT task, len_a, len_b, n, accuracy FROM class_accuracy"'
            raise UserError("there is no statement here", where=quoted(sql), next_step=advice)
        return statements

    def run(self, statement: duckdb.Statement | str) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
        """Return the columns' names, which need not differ, and rows, which the statement makes as they are read.

        Raises:
            UserError: it cannot be run, and why; the same while rows are read.
        """
        started = self._do(self.connection.execute, statement)
        chunks = iter(partial(self._do, started.fetchmany, CHUNK), [])
        return [column[0] for column in started.description], chain.from_iterable(chunks)

    def printable(self, statement: duckdb.Statement) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
        """Return what ``run`` does, with times as DuckDB's text.

        Of Python's, none is infinite, counts months or nanoseconds, or has a zone without a package more.
        """
        if statement.type.name == "SELECT":
            answer = self._do(self.connection.sql, statement)  # asked for its columns, not run
            kinds = list(map(str, answer.types))
            columns = [f"#{place}::{_TIME.sub('VARCHAR', kind)}" for place, kind in enumerate(kinds, 1)]
            if any(map(_TIME.search, kinds)):
                whole = statement.query.replace("'", "''")
                return answer.columns, self.run(f"SELECT {', '.join(columns)} FROM query('{whole}')")[1]
        return self.run(statement)

    def each(self, sql: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of one statement's answer by their columns; other statements have to wait for its end."""
        names, rows = self.run(self.statements(sql)[0])
        for row in rows:
            yield dict(zip(names, row, strict=True))

    def box(self, statement: duckdb.Statement) -> str:
        """Return a statement's answer as DuckDB draws it: as many rows and columns as a terminal shows."""
        with redirect_stdout(io.StringIO()) as drawn:
            width = shutil.get_terminal_size().columns
            relation = self._do(self.connection.sql, statement)
            self._do(partial(relation.show, max_width=width, max_rows=ROWS, max_col_width=CELL, null_value="NULL"))
        return visible(drawn.getvalue(), "\n\\")  # most of it DuckDB has escaped

    def _do(self, work: Callable[..., Any], *args: Any) -> Any:
        """Let the database work; its errors become a line that says what helps."""
        import duckdb

        try:
            return work(*args)
        except (MemoryError, duckdb.OutOfMemoryException):
            advice = "ask for fewer rows (WHERE, LIMIT) or columns, not SELECT *"
            raise UserError("there is not enough memory for this answer", next_step=advice) from None
        except duckdb.Error as error:
            text, allowed = visible(str(error).partition("\nTraceback (")[0].strip(), "\n\t"), None
            unreadable = _UNREADABLE.search(text)
            for _, path in part_files(self.results, unreadable[1]) if unreadable else ():
                if read_whole(path) is None:
                    advice = "remove this file, and evaluate again to make it anew"
                    what = "a part of the results is damaged"
                    raise UserError(what, where=printable_path(path), next_step=advice) from None
            if isinstance(error, duckdb.PermissionException):
                allowed = f"{ALLOWED}; from {', '.join(RESULTS)}"
            raise UserError(text, allowed=allowed, next_step=LISTED) from None


class _LazyDataset(ds.FileSystemDataset):  # type: ignore[misc]
    """A dataset that is read no further than asked: Arrow's threads would run ahead to its end, all in memory."""

    def scanner(self, **options: Any) -> ds.Scanner:
        return super().scanner(**options, batch_readahead=0, fragment_readahead=0, use_threads=False)


def _dataset(table: str, parts: list[tuple[str, Path]]) -> ds.Dataset:
    """Return a table of (run, file): columns that a file lacks are null; a damaged page is an error."""
    checked = ds.ParquetFragmentScanOptions(page_checksum_verification=True, pre_buffer=False)
    parquet, disk = ds.ParquetFileFormat(default_fragment_scan_options=checked), LocalFileSystem()
    fragments = [
        parquet.make_fragment(str(path), disk, partition_expression=ds.field("run_id") == run) for run, path in parts
    ]
    return _LazyDataset(fragments, result_schema(table), parquet, disk)


def visible(text: str, keep: str = "") -> str:
    r"""Return a text in which nothing moves the cursor or hides: what does not print is escaped, as ``\n`` or ``\x1b``.

    Args:
        text: any text, such as a model's answer.
        keep: characters that stay as they are.
    """
    return "".join(
        char if (char.isprintable() and char != "\\") or char in keep else char.encode("unicode_escape").decode()
        for char in text
    )


# The command


def query(sql: str | None, results: str, form: str) -> None:
    """Run statements, without any those of standard input, and print what they give.

    Raises:
        UserError: there are no results, or a statement is refused or wrong; statements before it have been answered
            unless it cannot even be parsed or is not allowed.
    """
    _check_form(form)
    if sql is None and sys.stdin.isatty():
        advice = 'caef-data query "FROM runs", or caef-data query < questions.sql'
        raise UserError("there is no SQL to run", where="standard input", next_step=advice)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # DuckDB does not hear Ctrl-C
    with Database(Path(results)) as database:
        for statement in database.statements(sys.stdin.read() if sql is None else sql):
            if form == "table":
                sys.stdout.write(database.box(statement))
            else:
                WRITERS[form](*database.printable(statement))
            sys.stdout.flush()


def print_tables(form: str) -> None:
    """Print the tables and their columns, each with its type and meaning.

    Raises:
        UserError: there is no such form.
    """
    import duckdb

    _check_form(form)
    columns: list[tuple[str, ...]] = []
    for table, meanings in RESULTS.items():
        view = duckdb.from_arrow(result_schema(table).empty_table())
        kinds = zip(view.columns, view.types, strict=True)
        columns += [(table, name, str(kind), meanings[name][1]) for name, kind in kinds]
    if form != "table":
        WRITERS[form](["view", "column", "type", "meaning"], columns)
        return
    for table, group in groupby(columns, itemgetter(0)):
        print(f"{table}: {RESULT_TEXT[table]}")
        for _, name, kind, meaning in group:
            print(f"    {name} ({kind}): {meaning}")


def _check_form(form: str) -> None:
    if form not in FORMS:
        what = f"no format {quoted(form)}{did_you_mean(form, FORMS)}"
        raise UserError(what, where="--format", allowed=", ".join(FORMS))


def _text(value: object) -> str:
    """Return a value as text: exact, lists and maps as JSON."""
    if isinstance(value, bool | list | dict | tuple):
        return json.dumps(_plain(value), ensure_ascii=False)
    return value.hex() if isinstance(value, bytes) else str(value)


def _plain(value: object) -> Any:
    """Return a value as JSON has it; what it has no word for becomes text, such as "inf", "-inf" and "nan"."""
    match value:
        case dict():
            return {_text(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return list(map(_plain, value))
        case float():
            return value if math.isfinite(value) else str(value)
        case Decimal():  # a number where that holds every digit
            return float(value) if Decimal(repr(float(value))) == value else str(value)
    return value if value is None or isinstance(value, str | int) else _text(value)


def _csv(names: list[str], rows: Rows) -> None:
    """Print CSV: a NULL is empty, an empty text is quoted. Only a terminal gets control characters escaped."""
    shown: Callable[[str], str] = visible if sys.stdout.isatty() else str

    def field(value: object) -> str:
        text = "" if value is None else shown(_text(value))
        bare = value is None or (text and not _SPECIAL.search(text))  # the library's writer quotes no empty text
        return text if bare else '"' + text.replace('"', '""') + '"'

    for row in chain([names], rows):
        sys.stdout.write(",".join(map(field, row)) + "\n")


def _json(names: list[str], rows: Rows) -> None:
    """Print an array with an object for every row, a line each."""
    members: list[str] = []
    for name in names:  # an object has no two members of one name
        numbered = chain([name], (f"{name}_{number}" for number in count(1)))
        members.append(next(one for one in numbered if one not in members))
    start = "[\n"
    for row in rows:
        sys.stdout.write(start + json.dumps(dict(zip(members, map(_plain, row), strict=True))))
        start = ",\n"
    sys.stdout.write("\n]\n" if start != "[\n" else "[]\n")


def _markdown(names: list[str], rows: Rows) -> None:
    """Print a table for GitHub and others."""
    for row in chain([names, None], rows):
        cells = ("" if value is None else _MARKDOWN.sub(r"\\\g<0>", visible(_text(value))) for value in row or ())
        sys.stdout.write(f"| {' | '.join(cells)} |\n" if row else "|" + " --- |" * len(names) + "\n")


WRITERS = {"csv": _csv, "json": _json, "md": _markdown}
FORMS = ("table", *WRITERS)
