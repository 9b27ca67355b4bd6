"""Lines of keys in TOML text: tomllib gives the values without their positions."""

import re
import tomllib
from dataclasses import dataclass, field

# Strings (the triple ones may end in up to two quotes of their own), comments, brackets, newlines, the rest.
_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|' + r"'''.*?'{3,5}|"
    r'"(?:\\.|[^"\\])*"|' + r"'[^']*'|"
    r"\#[^\n]*|\n|[\[\]{}]|[^\"'#\n\[\]{}]+",
    re.DOTALL,
)
_BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass
class KeyLines:
    """Lines, counted from 1, of the keys at the top of a text and in its ``[[task]]`` tables.

    Args:
        top: line of each key and table name before and outside the ``[[task]]`` tables.
        headers: line of the header of each ``[[task]]`` table.
        tables: line of each key of each ``[[task]]`` table.
    """

    top: dict[str, int] = field(default_factory=dict)
    headers: list[int] = field(default_factory=list)
    tables: list[dict[str, int]] = field(default_factory=list)


def key_lines(text: str) -> KeyLines:
    """Return the lines of the keys of ``text``, which tomllib has already accepted."""
    found = KeyLines()
    keys: dict[str, int] | None = found.top  # None inside a table that declarations do not have
    for line, statement in _statements(text):
        if statement.startswith("[["):
            keys = _enter(found, _path(statement[2:-2]), line, array=True)
        elif statement.startswith("["):
            keys = _enter(found, _path(statement[1:-1]), line, array=False)
        elif keys is not None:
            keys.setdefault(_path(_key(statement))[0], line)
    return found


def _enter(found: KeyLines, path: list[str], line: int, *, array: bool) -> dict[str, int] | None:
    """Note the table ``path`` and return where its keys are to be noted."""
    if path == ["task"] and array:
        found.headers.append(line)
        found.tables.append({})
        return found.tables[-1]
    if path[0] == "task" and len(path) > 1 and found.tables:
        found.tables[-1].setdefault(path[1], line)
    else:
        found.top.setdefault(path[0], line)
    return None


def _statements(text: str) -> list[tuple[int, str]]:
    """Return the first line and the text of every key-value pair and header, comments dropped."""
    statements: list[tuple[int, str]] = []
    line, start, depth = 1, 1, 0
    parts: list[str] = []
    for match in _TOKEN.finditer(text.replace("\r\n", "\n") + "\n"):
        token = match.group()
        if token == "\n" and depth == 0:
            statement = "".join(parts).strip(" \t")
            statements += [(start, statement)] if statement else []
            parts, start = [], line + 1
        elif not token.startswith("#"):
            parts.append(token)
            depth += (token in "[{") - (token in "]}")
        line += token.count("\n")
    return statements


def _key(statement: str) -> str:
    """Return what stands before the equals sign; a quoted part of the key may hold one itself."""
    match = re.match(r"""(?:"(?:\\.|[^"\\])*"|'[^']*'|[^"'=])*""", statement)
    return match.group() if match else ""


def _path(dotted: str) -> list[str]:
    """Return the parts of a dotted key, read by tomllib itself for quotes and escapes."""
    if _BARE.fullmatch(dotted.strip(" \t")):
        return [dotted.strip(" \t")]
    table: object = tomllib.loads(dotted + " = 0")
    path = []
    while isinstance(table, dict):
        key, table = next(iter(table.items()))
        path.append(key)
    return path
