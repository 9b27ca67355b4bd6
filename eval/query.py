"""SQL over the result tables: a DuckDB that can read these tables, and do nothing else.

Three walls, each of which would do for most of what could be tried:

- What the parser says of a statement: only SELECT (which DESCRIBE, SHOW and SUMMARIZE are to it) and EXPLAIN of one. A
  SELECT can hold statements that write (``WITH x AS (COPY ...)``), and functions that read files: its tree is looked
  through.
- The database is in memory and empty: the tables are views of Arrow datasets that this module opened.
- DuckDB itself may not reach files, network, extensions or Python's variables, and its settings are locked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.dataset as ds

from ..errors import UserError, did_you_mean, printable_path, quoted
from ..schemas import RESULTS, result_schema
from .tables import RUN_ID, read_runs, read_whole, results_folder

if TYPE_CHECKING:
    import duckdb

VIEWS = tuple(RESULTS)
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
CHUNK = 256  # rows fetched at once
LESS = "fewer rows (WHERE, LIMIT) or columns; not SELECT *"
POLL = 0.05  # seconds between looks whether Ctrl-C was pressed
_EXPLAIN = re.compile(r"\s*EXPLAIN(?:\s+ANALYZE\b)?\s*(?:\([^()]*\))?", re.IGNORECASE)
_UNKNOWN_COLUMN = re.compile(r'Referenced column "(.+?)" not found|does not have a column named "(.+?)"')
_UNKNOWN_TABLE = re.compile(r"Table with name (.+?) does not exist")
_UNREADABLE = re.compile(r"reading the stream registered as '(\w+)' failed")

Result = TypeVar("Result")


class Answer(NamedTuple):
    """What a statement gives: the columns' names, which need not differ, and rows, whose reading runs the statement."""

    names: list[str]
    rows: Iterator[tuple[Any, ...]]


class Database:
    """The result tables of a folder, open for reading; one statement runs at a time.

    Args:
        results: the folder that evaluations wrote their tables into.

    Raises:
        UserError: there are no results.
    """

    def __init__(self, results: Path) -> None:
        import duckdb

        self.results = results_folder(results)
        if not any(_parts(results, table) for table in VIEWS):
            raise UserError(
                "there are no results here",
                where=printable_path(results),
                next_step="caef-data eval --adapters ckpt/ --out RESULTS, or name their folder with --results",
            )
        self.worker = ThreadPoolExecutor(1)  # DuckDB does not hear Ctrl-C: this thread runs it, the main one listens
        self.connection = duckdb.connect(":memory:")
        for name, value in SETTINGS.items():
            self.connection.execute(f"SET {name} = '{value}'")
        self.refresh()

    def refresh(self) -> None:
        """Look which tables there are now: evaluations may have gone on."""
        unfinished = _unfinished(self.results)
        for table in VIEWS:
            self.connection.register(table, _dataset(self.results, table, unfinished))

    def close(self) -> None:
        """End it."""
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
            found = duckdb.extract_statements(sql)
            for statement in found:
                self._check(statement)
        except duckdb.Error as error:
            raise self._explained(error) from None
        if not found:
            advice = 'caef-data query "SELECT task, len_a, len_b, n, accuracy FROM class_accuracy"'
            raise UserError("there is no statement here", where=quoted(sql), next_step=advice)
        return found

    def run(self, statement: duckdb.Statement) -> Answer:
        """Run a statement up to its first rows; the rest is made as it is read.

        Raises:
            UserError: it cannot be run; says why, and what the unknown name may have meant.
            KeyboardInterrupt: it was cancelled; others can be run. The same while rows are read.
        """
        started = self._work(lambda: self.connection.execute(statement))
        return Answer([column[0] for column in started.description], self._rows())

    def each(self, sql: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of one statement's answer by their columns; other statements have to wait for its end.

        Raises:
            UserError: it is refused or cannot be run.
        """
        answer = self.run(self.statements(sql)[0])
        for row in answer.rows:
            yield dict(zip(answer.names, row, strict=True))

    def _rows(self) -> Iterator[tuple[Any, ...]]:
        while chunk := self._work(partial(self.connection.fetchmany, CHUNK)):
            yield from chunk

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
        except MemoryError:
            raise UserError("there is not enough memory for this answer", next_step=LESS) from None
        except duckdb.Error as error:
            raise self._explained(error) from None

    def _check(self, statement: duckdb.Statement) -> None:
        """Refuse a statement that does more than read the tables."""
        sql, kind = statement.query, statement.type.name
        if kind == "MULTI":
            raise _refusal("PIVOT without its values makes a type of its own", sql, "PIVOT ... ON column IN (...)")
        if kind not in ("SELECT", "EXPLAIN"):
            raise _refusal(f"{kind.replace('_', ' ')} is refused: results are only read", sql)
        selected = _EXPLAIN.sub("", sql, count=1) if kind == "EXPLAIN" else sql
        options = "skip_null := true, skip_empty := true, skip_default := true"
        try:
            row = self.connection.execute(f"SELECT json_serialize_sql(?, {options})", [selected]).fetchone()
            tree = json.loads(row[0] if row else "")
        except RecursionError:
            raise _refusal("this statement is nested too deeply", sql) from None
        if tree["error"] or len(tree["statements"]) != 1:  # of all statements only SELECT has a tree
            raise _refusal(f"this {kind} is refused: results are only read", sql)
        waiting = [tree]
        while waiting:
            node = waiting.pop()
            waiting += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
            if isinstance(node, dict):
                _check_node(node, sql)

    def _explained(self, error: duckdb.Error) -> UserError:
        """Return DuckDB's message, with the nearest of our names."""
        import duckdb

        text = str(error)
        if isinstance(error, duckdb.PermissionException) or "configuration has been locked" in text:
            return _refusal("a query reads the results and nothing else: no files, network, settings", text)
        if isinstance(error, duckdb.OutOfMemoryException):
            return UserError(visible(text, "\n\t"), next_step=LESS)
        if "'pytz'" in text:
            return UserError("times with a time zone cannot be shown", next_step="cast them: now()::TIMESTAMP")
        unreadable = _UNREADABLE.search(text)
        for path in _parts(self.results, unreadable[1]) if unreadable else ():
            if read_whole(path) is None:
                advice = "remove this file, and evaluate again to make it anew"
                return UserError("a part of the results is damaged", where=printable_path(path), next_step=advice)
        return _misnamed(text.strip())


def _misnamed(text: str) -> UserError:
    """Return DuckDB's message; of an unknown name, with the one of ours that is most like it."""
    first, *more = visible(text, "\n\t").split("\n")
    if unknown := _UNKNOWN_TABLE.search(text):
        more = [line for line in more if not line.startswith("Did you mean")]  # DuckDB's own tables are not meant
        return UserError("\n".join([first + did_you_mean(unknown[1].lower(), VIEWS), *more]), allowed=", ".join(VIEWS))
    if unknown := _UNKNOWN_COLUMN.search(text):
        name = (unknown[1] or unknown[2]).lower()
        holders = [table for table, own in RESULTS.items() if name in own]
        close = did_you_mean(name, sorted({column for table in RESULTS.values() for column in table}))
        hint = f" (it is a column of {', '.join(holders)})" if holders else close
        return UserError("\n".join([first + hint, *more]), next_step="caef-data query --tables lists all columns")
    return UserError("\n".join([first, *more]))


def visible(text: str, keep: str = "") -> str:
    r"""Return a text in which nothing moves the cursor or hides: what does not print is escaped, as ``\n`` or ``\x1b``.

    Args:
        text: any text, such as a model's answer.
        keep: characters that stay as they are.
    """
    return "".join(
        one if (one.isprintable() and one != "\\") or one in keep else one.encode("unicode_escape").decode()
        for one in text
    )


def _parts(results: Path, table: str, unfinished: Collection[str] = ()) -> list[Path]:
    """Return the files of a table over all runs, sorted; of an unfinished run only its row of the table runs."""
    found = []
    for folder in sorted((results / table).glob("run_id=*")):
        run = folder.name.partition("=")[2]
        if RUN_ID.fullmatch(run) and (table == "runs" or run not in unfinished):
            found += [path for path in sorted(folder.glob("*.parquet")) if not path.name.startswith(".")]
    return found


def _unfinished(results: Path) -> set[str]:
    """Return the ids of the runs whose rows say that they are not finished."""
    return {row["run_id"] for row in read_runs(results) if row["status"] != "finished"}


class _Frugal(ds.FileSystemDataset):  # type: ignore[misc]
    """A dataset that is read no further than asked: Arrow's threads would run ahead to its end, all in memory."""

    def scanner(self, **options: Any) -> ds.Scanner:
        return super().scanner(**options, batch_readahead=0, fragment_readahead=0, use_threads=False)


def _dataset(results: Path, table: str, unfinished: Collection[str]) -> ds.Dataset:
    """Return a table over all runs: columns that its parts lack are null, a table without parts is empty."""
    checked = ds.ParquetFragmentScanOptions(page_checksum_verification=True, pre_buffer=False)
    found = ds.dataset(
        [str(path) for path in _parts(results, table, unfinished)],
        schema=result_schema(table),
        format=ds.ParquetFileFormat(default_fragment_scan_options=checked),
        partitioning=ds.partitioning(pa.schema([("run_id", pa.string())]), flavor="hive"),
        partition_base_dir=str(results / table),  # a folder above may be named run_id=7
    )
    if not isinstance(found, ds.FileSystemDataset):
        return found
    return _Frugal(list(found.get_fragments()), found.schema, found.format, found.filesystem)


def _check_node(node: dict[str, Any], sql: str) -> None:
    """Refuse a node of a SELECT's tree that does more than read the tables."""
    kind = str(node.get("type", ""))
    if kind.endswith("_NODE") and kind not in QUERY_NODES:
        raise _refusal(f"{kind.partition('_')[0]} is refused: results are only read", sql)
    if kind == "TABLE_FUNCTION":
        name = str(node.get("function", {}).get("function_name", ""))
        if name.lower() not in TABLE_FUNCTIONS:
            raise _refusal(f"the table function {quoted(name)} is refused", sql, ", ".join(sorted(TABLE_FUNCTIONS)))
    if str(node.get("function_name", "")).lower() in REFUSED_FUNCTIONS:
        raise _refusal(f"the function {node['function_name']} is refused", sql)


def _refusal(what: str, sql: str, allowed: str = ALLOWED) -> UserError:
    return UserError(what, where=quoted(sql.strip(), 200), allowed=allowed)
