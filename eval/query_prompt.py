"""The command ``caef-data query``: SQL from the command line, from standard input, or at a prompt with history."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from ..errors import UserError, clip, nearest
from ..schemas import RESULT_TEXT, RESULTS
from .query import Database
from .query_output import FORMS, print_answer, print_tables

HISTORY = 1000  # lines
HELP = """\
A statement ends with a semicolon and may span lines. Reads only: SELECT, EXPLAIN, DESCRIBE, SHOW, SUMMARIZE.
.tables          the views and what is in them
.tables calls    the columns of a view and what they mean
.exit            leave; so does Ctrl-D
Ctrl-C cancels a statement; the tab key completes names of views and columns."""


def query(sql: str | None, results: str, form: str) -> None:
    """Run statements; without any, those of standard input; on a terminal, ask for them.

    Raises:
        UserError: there are no results, or a statement is refused or wrong; statements before it have been answered
            unless it cannot even be parsed or is not allowed.
    """
    _check_form(form)
    database = Database(Path(results))
    try:
        if sql is not None:
            _answer(database, sql, form)
        elif sys.stdin.isatty():
            _prompt(database, form)
        else:
            _answer(database, sys.stdin.read(), form)
    finally:
        database.close()


def tables(form: str) -> None:
    """Print the views and their columns."""
    _check_form(form)
    print_tables(form, sys.stdout)


def _check_form(form: str) -> None:
    if form not in FORMS:
        raise UserError(f"no format {clip(form)}{nearest(form, FORMS)}", where="--format", allowed=", ".join(FORMS))


def _answer(database: Database, sql: str, form: str) -> None:
    for statement in database.statements(sql):
        print_answer(statement, database.run(statement), form, sys.stdout)
        sys.stdout.flush()


def _prompt(database: Database, form: str) -> None:
    history = _start_history()
    print(f"SQL over {', '.join(RESULTS)}; .help explains, .exit leaves")
    lines: list[str] = []
    while True:
        try:
            lines.append(input("   ...> " if lines else "query> "))
            if not lines[-1].strip() and len(lines) == 1 or _obeyed(lines, form):
                lines = []
            elif _ended(sql := "\n".join(lines)):
                lines = []
                database.refresh()
                _answer(database, sql, form)
        except KeyboardInterrupt:
            print("\ncancelled")
            lines = []
        except EOFError:
            print()
            break
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
        except _Leave:
            break
    _keep_history(history)


class _Leave(Exception):  # noqa: N818  no error
    """The user wants to leave the prompt."""


def _obeyed(lines: list[str], form: str) -> bool:
    """Do what a first line says that is no SQL; tell whether it was one."""
    word, *names = lines[0].strip().removesuffix(";").split() or [""]
    if len(lines) > 1 or not (word.startswith(".") or word in ("help", "exit", "quit", "\\q", "tables")):
        return False
    word = "." + word.lstrip(".\\")
    if word in (".exit", ".quit", ".q"):
        raise _Leave
    if word == ".tables" and set(names) <= set(RESULTS):
        if names:
            print_tables(form, sys.stdout, names)
        else:
            print("\n".join(f"{name:16}{RESULT_TEXT[name]}" for name in RESULTS))
    elif word == ".help":
        print(HELP)
    elif word == ".tables":
        print(f"error: there are only {', '.join(RESULTS)}", file=sys.stderr)
    else:
        print(f"error: {clip(word)} is unknown: .tables, .help, .exit", file=sys.stderr)
    return True


def _ended(sql: str) -> bool:
    """Tell whether a text ends with a semicolon that stands in no text and no comment."""
    import duckdb

    encoded = sql.encode(errors="replace")
    tokens = [start for start, kind in duckdb.tokenize(encoded.decode()) if kind != duckdb.token_type.comment]
    return bool(tokens) and encoded[tokens[-1] :].lstrip()[:1] == b";"


def _start_history() -> Path | None:
    """Give the prompt line editing, names to complete, and the lines of earlier databases; return where these are."""
    try:
        import readline
    except ImportError:  # a Python built without it: a prompt without history
        return None
    names = sorted({*RESULTS, *(column for columns in RESULTS.values() for column in columns)})

    def complete(text: str, state: int) -> str | None:
        return dict(enumerate(name for name in names if name.startswith(text.lower()))).get(state)

    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")
    readline.set_history_length(HISTORY)
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    path = Path(state) / "caef-data" / "query_history"
    with suppress(OSError):  # there is none yet, or it may not be read
        readline.read_history_file(path)
    return path


def _keep_history(path: Path | None) -> None:
    if path is None:
        return
    import readline

    with suppress(OSError):  # a home that cannot be written: the history is a comfort
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        readline.write_history_file(path)
        path.chmod(0o600)
