"""Reads expressions of one's own from a file, and those that a manifest records.

A file holds ``12+9=`` or ``task a b`` a line; or it is a table, CSV or Parquet, with a column ``expression`` of these,
or with task, a and b. What is no expression of a task is refused with its line; what stands twice counts once.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from ..errors import UserError, printable_path, quoted
from ..tm import machine, operands, tasks
from ..tm.expression import parse_expression, signs
from ..tm.machine import MAX_DIGITS, Machine
from .expressions import Own, remember
from .sampling.split import SIDES

MOST, MOST_DIGITS = 1_000_000, 20_000_000  # of a file: a manifest holds its expressions
MOST_BYTES = 1 << 30
ALLOWED = "lines such as 12+9= or left_mask 1050; CSV or Parquet with a column expression, or with task, a and b"
COLUMNS = ["expression", "task", "a", "b"]  # of a table: the first one, or the others
SEPARATORS = {".csv": ",", ".tsv": "\t"}


def define(task: str, record: Mapping[str, Any], key: object) -> None:
    """Make known what a manifest records of a task; raises ValueError where it is not what ``key`` names."""
    if not 0 <= record["bytes"] <= 3 * MOST_DIGITS:
        raise ValueError("too many expressions")
    packed = base64.b64decode(record["text"], validate=True)
    text = pa.Codec("zstd").decompress(packed, record["bytes"], asbytes=True).decode("ascii")
    rows = pl.DataFrame({"text": [f"{task} {line}" for line in text.split("\n")[:-1]]}).with_row_index("line", 1)
    own = Own(task, record["file"], str(list(key)[0]), _parsed(rows, "the recorded expressions")[task])  # type: ignore[call-overload]
    if list(own.key) != key:
        raise ValueError("the recorded expressions are not those of the settings")
    remember(own)


def read_expressions(name: str) -> dict[str, Own]:
    """Return the expressions in a file, by task.

    Raises:
        UserError: the file cannot be read, or holds none, or too many, or something else; the message names the line.
    """
    path, where = Path(name), printable_path(name)
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            problem = f"is larger than {MOST_BYTES:,} bytes" if path.is_file() else "is not there, or no file"
            raise UserError(f"the file of expressions {problem}", where=where, allowed=ALLOWED)
        data = path.read_bytes()
        table = data[:4] == b"PAR1" or path.suffix.lower() in SEPARATORS
        rows = _of_table(data, path.suffix.lower(), where) if table else _of_lines(data, where)
    except (pl.exceptions.PolarsError, ValueError) as error:
        raise UserError(f"this cannot be read: {quoted(str(error), 160)}", where=where, allowed=ALLOWED) from error
    if rows.is_empty():
        raise UserError("there is no expression in this file", where=where, allowed=ALLOWED)
    digest = hashlib.sha256(data).hexdigest()
    word = "row" if table else "line"
    found = {}
    for task, parsed in _parsed(rows, f"{where}, {word}").items():
        unique = parsed.unique(["a", "b"], keep="first", maintain_order=True)
        own = found[task] = Own(task, path.name, digest, unique, len(parsed) - len(unique))
        remember(own)
    return found


def in_order(own: Mapping[str, Own]) -> list[tuple[int, str, str, str | None, str]]:
    """Return line, task, a, b and split of all expressions of a file, in its order."""
    found = [
        (line, task, a, b, SIDES[side])
        for task, one in own.items()
        for (line, a, b), side in zip(one.rows.select("line", "a", "b").rows(), one.sides.tolist(), strict=True)
    ]
    return sorted(found, key=lambda row: row[0])


def _of_lines(data: bytes, where: str) -> pl.DataFrame:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError("this is not UTF-8 text", where=f"{where}, line {line:,}", allowed=ALLOWED) from None
    _check_count(text.count("\n"), where)
    lines = pl.Series("text", [text]).str.split("\n").explode().str.strip_chars().to_frame()
    return lines.with_row_index("line", 1).filter(pl.col("text") != "")


def _of_table(data: bytes, suffix: str, where: str) -> pl.DataFrame:
    parquet, separator = data[:4] == b"PAR1", SEPARATORS.get(suffix, ",")
    rows = pl.read_parquet(data) if parquet else pl.read_csv(data, infer_schema=False, separator=separator)
    _check_count(len(rows), where)
    found = [name for name in COLUMNS if name in rows.columns]
    named = COLUMNS[1:] if found and COLUMNS[0] not in found else COLUMNS[:1]
    twice = [f"column {name} stands twice" for name in found if f"{name}_duplicated_0" in rows.columns]
    twice += [f"column {name} stands beside {named[0]}" for name in found if name not in named]
    if twice:
        what = f"{twice[0]}: which one counts?"
        raise UserError(what, where=where, allowed=ALLOWED, next_step="leave out one of them")
    if lacking := [name for name in named if name not in found]:
        close = {name.strip().lower(): name for name in rows.columns}
        near = next((name for name in (*lacking, *COLUMNS) if name in close and name not in found), None)
        have = f"it has {', '.join(quoted(name) for name in rows.columns[:8]) or 'none'}"
        advice = f"write {near}, not {quoted(close[near])}, in its header" if near else None
        raise UserError(f"there is no column {lacking[0]}; {have}", where=where, allowed=ALLOWED, next_step=advice)
    rows = rows.select(pl.col(name).cast(pl.String) for name in named).with_row_index("line", 1)
    text = pl.col(named[0]).fill_null("")
    if len(named) > 1:
        text = pl.concat_str(text, pl.col("a").fill_null("?"), "b", separator=" ", ignore_nulls=True)
    return rows.select("line", text.str.strip_chars().alias("text"))


def _check_count(count: int, where: str) -> None:
    if count > MOST:
        what = f"there are {count:,} expressions in this file"
        raise UserError(what, where=where, allowed=f"at most {MOST:,}", next_step="cut it into several files")


def _parsed(rows: pl.DataFrame, where: str) -> dict[str, pl.DataFrame]:
    """Return the columns line, a and b by task of texts with their lines; the first that is none is refused."""
    of_sign = {sign: task for sign, task in signs().items() if sign}
    named = [task for task in tasks() if machine(task).numbers]
    sign, number = "|".join(map(re.escape, of_sign)), "(0|[1-9][0-9]*)"
    pattern = rf"^(?:{number}({sign}){number}=?|({'|'.join(named)})[ \t]+{number}(?:[ \t]+{number})?)$"
    groups = pl.col("text").str.extract_groups(pattern).struct.rename_fields([*"xsytuv"])
    found = rows.with_columns(groups.struct.unnest()).select(
        "line",
        "text",
        task=pl.coalesce(pl.col("s").replace_strict(of_sign, default=None), "t"),
        a=pl.coalesce("x", "u"),
        b=pl.coalesce("y", "v"),
    )
    digits = pl.col("a", "b").str.len_bytes().fill_null(0)
    unary = pl.col("task").is_in([task for task in named if machine(task).unary])
    fits = (pl.col("b").is_null() == unary) & (pl.max_horizontal(digits) <= MAX_DIGITS)
    wrong = found.filter(pl.col("task").is_null() | ~fits)
    for line, text in wrong.select("line", "text").head(1).iter_rows():
        _check(line, text, where)
        raise UserError(f"this is no expression: {quoted(text)}", where=f"{where} {line:,}", allowed=ALLOWED)
    if found.select(pl.sum_horizontal(digits).sum()).item() > MOST_DIGITS:
        raise UserError("the expressions have too many digits", where=where, allowed=f"at most {MOST_DIGITS:,} in all")
    by_task = {str(task): own for (task,), own in found.partition_by("task", as_dict=True, maintain_order=True).items()}
    for task, own in by_task.items():
        if type(machine(task)).domain_error is not Machine.domain_error:
            error = machine(task).domain_error
            for line, text, a, b in own.select("line", "text", "a", pl.col("b").fill_null("0")).iter_rows():
                if error(int(a), int(b)) is not None:
                    _check(line, text, where)
    return {task: own.select("line", "a", "b") for task, own in by_task.items()}


def _check(line: int, text: str, where: str) -> None:
    """Refuse a text that is no expression of a task, with its line."""
    try:
        word, *rest = text.split() if text[:1].isalpha() else parse_expression(text)
        if not machine(word).numbers or len(rest) not in (1, 2):
            raise UserError(f"{quoted(text)} is no expression of a task with numbers")
        operands(word, *rest)
    except UserError as error:
        place = f"{where} {line:,}"
        raise UserError(f"{error.what}: {quoted(text)}", where=place, allowed=error.allowed or ALLOWED) from None
