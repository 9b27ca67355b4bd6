"""SQL over the result tables: a DuckDB that can read these tables, and do nothing else.

Three walls, each of which would do for most of what could be tried:

- What the parser says of a statement: only SELECT (which DESCRIBE, SHOW and SUMMARIZE are to it) and EXPLAIN of one. A
  SELECT can hold statements that write (``WITH x AS (COPY ...)``), and functions that read files: its tree is searched.
- The database is in memory and empty: the tables are views of Arrow datasets that this module opened.
- DuckDB itself may not reach files, network, extensions or Python's variables, and its settings are locked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow.dataset as ds
from pyarrow.fs import LocalFileSystem

from ..errors import UserError, did_you_mean, printable_path, quoted
from ..schemas import RESULTS, result_schema
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
ALLOWED = "SELECT (also FROM, WITH, VALUES, PIVOT ... ON ... IN (...)), EXPLAIN SELECT, DESCRIBE, SHOW, SUMMARIZE"
QUERY_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "CTE_NODE", "RECURSIVE_CTE_NODE"}
TABLE_FUNCTIONS = {  # those that make rows of their arguments, or list what the database knows
    *("unnest", "range", "generate_series", "repeat", "json_each", "json_tree", "summary", "histogram"),
    *("duckdb_columns", "duckdb_functions", "duckdb_keywords", "duckdb_settings", "duckdb_tables", "duckdb_types"),
    *("duckdb_views", "pragma_table_info", "pragma_version"),
}
REFUSED_FUNCTIONS = {"json_serialize_plan", "json_execute_serialized_sql", "write_log"}  # SQL in a text; the log
LISTED = "caef-data query --tables lists tables and columns"
CHUNK = 256  # rows fetched at once
LESS = "ask for fewer rows (WHERE, LIMIT) or columns, not SELECT *"
POLL = 0.05  # seconds between looks whether Ctrl-C was pressed
_EXPLAIN = re.compile(r"(\s|--[^\n]*\n)*EXPLAIN\b(\s+ANALYZE\b)?(\s*\([\w\s,]*\))?", re.IGNORECASE)
_UNKNOWN = re.compile(r'(?:Table with name|Referenced column|have a column named) "?([^\s"]+)')
_UNREADABLE = re.compile(r"reading the stream registered as '(\w+)' failed")

Result = TypeVar("Result")


class Database:
    """The result tables of a folder as they are now, open for reading; one statement runs at a time.

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
        self.worker = ThreadPoolExecutor(1)  # DuckDB does not hear Ctrl-C: this thread runs it, the main one listens
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
        self.worker.shutdown(wait=True)
        self.connection.close()

    def statements(self, sql: str) -> list[duckdb.Statement]:
        """Return the statements of a text, all of them allowed.

        Raises:
            UserError: there is none, one cannot be parsed, or does something else than read the tables.
        """
        import duckdb

        if sql.encode(errors="replace").decode() != sql:
            raise UserError("this is no text", where=quoted(sql))
        try:
            statements = duckdb.extract_statements(sql)
            for statement in statements:
                self._check(statement.query, statement.type.name)
        except duckdb.Error as error:
            raise self._explained(error) from None
        if not statements:
            advice = 'caef-data query "SELECT task, len_a, len_b, n, accuracy FROM class_accuracy"'
            raise UserError("there is no statement here", where=quoted(sql), next_step=advice)
        return statements

    def run(self, statement: duckdb.Statement) -> tuple[list[str], Iterator[tuple[Any, ...]]]:
        """Return the columns' names, which need not differ, and rows, which the statement makes as they are read.

        Raises:
            UserError: it cannot be run; says why, and what the unknown name may have meant.
            KeyboardInterrupt: it was cancelled; others can be run. The same while rows are read.
        """

        def rows() -> Iterator[tuple[Any, ...]]:
            while chunk := self._work(partial(self.connection.fetchmany, CHUNK)):
                yield from chunk

        started = self._work(partial(self.connection.execute, statement))
        return [column[0] for column in started.description], rows()

    def each(self, sql: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of one statement's answer by their columns; other statements have to wait for its end.

        Raises:
            UserError: it is refused or cannot be run.
        """
        names, rows = self.run(self.statements(sql)[0])
        for row in rows:
            yield dict(zip(names, row, strict=True))

    def _work(self, work: Callable[[], Result]) -> Result:
        """Let the database work; stop it where the user does."""
        import duckdb

        future = self.worker.submit(work)
        try:
            while not wait([future], POLL).done:  # a signal does not wake every wait: some libraries see to that
                pass
            return future.result()
        except KeyboardInterrupt:
            while not wait([future], POLL).done:
                self.connection.interrupt()
            raise
        except (MemoryError, duckdb.OutOfMemoryException):
            raise UserError("there is not enough memory for this answer", next_step=LESS) from None
        except duckdb.Error as error:
            raise self._explained(error) from None

    def _check(self, sql: str, kind: str) -> None:
        """Refuse a statement that does more than read the tables."""
        explain = _EXPLAIN.match(sql) if kind == "EXPLAIN" else None  # a comment in it could hide what is explained
        selected = sql[explain.end() :] if explain else sql
        options = "skip_null := true, skip_empty := true, skip_default := true"
        row = self.connection.execute(f"SELECT json_serialize_sql(?, {options})", [selected]).fetchone()
        try:
            tree = json.loads(row[0] if row else "", object_hook=partial(_check_node, sql))
        except RecursionError:
            raise _refusal("this statement is nested too deeply", sql) from None
        if tree["error"] or len(tree["statements"]) != 1:  # of all statements only SELECT has a tree
            raise _refusal(f"{kind.replace('_', ' ')} is refused: results are only read", sql)

    def _explained(self, error: duckdb.Error) -> UserError:
        """Return DuckDB's message with what helps: the damaged file, the nearest of our names, what is allowed."""
        import duckdb

        text = visible(str(error).strip(), "\n\t")
        unreadable, unknown = _UNREADABLE.search(text), _UNKNOWN.search(text)
        for _, path in part_files(self.results, unreadable[1]) if unreadable else ():
            if read_whole(path) is None:
                advice = "remove this file, and evaluate again to make it anew"
                return UserError("a part of the results is damaged", where=printable_path(path), next_step=advice)
        if unknown:
            name = unknown[1].lower()
            asked = [own for table, own in RESULTS.items() if re.search(rf"\b{table}\b", text)]  # DuckDB cites the line
            columns = {column for own in asked or RESULTS.values() for column in own}
            holders = ", ".join(table for table, own in RESULTS.items() if name in own)
            likely = did_you_mean(name, RESULTS if "Table with" in text else sorted(columns))
            hint = f" (it is a column of {holders})" if holders else likely
            first, *more = (line for line in text.split("\n") if not line.startswith("Did you mean"))  # DuckDB's own
            return UserError("\n".join([first + hint, *more]), next_step=LISTED)
        if "'pytz'" in text:
            return UserError("times with a time zone cannot be shown", next_step="cast them: now()::TIMESTAMP")
        refused = isinstance(error, duckdb.PermissionException)
        return UserError(text, allowed=f"{ALLOWED}; from {', '.join(RESULTS)}" if refused else None, next_step=LISTED)


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


def _check_node(sql: str, node: dict[str, Any]) -> dict[str, Any]:
    """Return a node of a SELECT's tree; refuse one that does more than read the tables."""
    kind, name = str(node.get("type", "")), str(node.get("function_name", ""))
    if kind.endswith("_NODE") and kind not in QUERY_NODES:
        raise _refusal(f"{kind.partition('_')[0]} is refused: results are only read", sql)
    if kind == "TABLE_FUNCTION":
        called = str(node.get("function", {}).get("function_name", ""))
        if called.lower() not in TABLE_FUNCTIONS:
            raise _refusal(f"the table function {quoted(called)} is refused", sql, ", ".join(sorted(TABLE_FUNCTIONS)))
    if name.lower() in REFUSED_FUNCTIONS:
        raise _refusal(f"the function {name} is refused", sql)
    return node


def _refusal(what: str, sql: str, allowed: str = ALLOWED) -> UserError:
    return UserError(what, where=quoted(sql.strip(), 200), allowed=allowed)


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
