"""Reads expressions of one's own from a file, and those that a manifest records.

A file holds ``12+9=`` or ``task a b`` a line; or it is a table, CSV or Parquet, with a column ``expression`` of these,
or else with task, a and b. What is no expression of a task is refused with its line; what stands twice counts once.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from ..errors import UserError, printable_path, quoted
from ..tm import machine, operands
from ..tm.expression import parse_expression, signs
from .expressions import Own, remember
from .sampling.split import SIDES

MOST, MOST_DIGITS = 1_000_000, 20_000_000  # of a file: a manifest holds its expressions
ALLOWED = "lines such as 12+9= or left_mask 1050; CSV or Parquet with a column expression, or with task, a and b"
SEPARATORS = {".csv": ",", ".tsv": "\t"}
SCHEMA = {"task": pl.String, "line": pl.UInt32, "a": pl.String, "b": pl.String}


def define(task: str, record: Mapping[str, Any], key: object) -> None:
    """Make known what a manifest records of a task; raises ValueError where it is not what ``key`` names."""
    if not 0 <= record["bytes"] <= 3 * MOST_DIGITS:
        raise ValueError("too many expressions")
    packed = base64.b64decode(record["text"], validate=True)
    text = pa.Codec("zstd").decompress(packed, record["bytes"], asbytes=True).decode("ascii")
    lines = enumerate((f"{task} {line}" for line in text.split("\n")[:-1]), 1)
    [own] = _parsed(lines, "the recorded expressions", record["file"], str(list(key)[0]))  # type: ignore[call-overload]
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
        data = path.read_bytes()
        parquet, separator = data[:4] == b"PAR1", SEPARATORS.get(path.suffix.lower())
        if parquet:
            texts = _of_table(pl.read_parquet(data), where)
        elif separator:
            texts = _of_table(pl.read_csv(data, infer_schema=False, separator=separator), where)
        else:
            lines = data.decode("utf-8-sig").split("\n")
            texts = [(line, text.strip()) for line, text in enumerate(lines, 1) if text.strip()]
    except (pl.exceptions.PolarsError, ValueError, OSError) as error:
        raise UserError(f"this cannot be read: {quoted(str(error), 160)}", where=where, allowed=ALLOWED) from error
    if not 0 < len(texts) <= MOST:
        what, cut = f"there are {len(texts):,} expressions in this file", "cut it into several files"
        raise UserError(what, where=where, allowed=f"1 to {MOST:,}; {ALLOWED}", next_step=cut if texts else None)
    place = f"{where}, {'row' if parquet or separator else 'line'}"
    found = _parsed(texts, place, path.name, hashlib.sha256(data).hexdigest())
    found = [replace(own, path=name) for own in found]
    for own in found:
        remember(own)
    return {own.task: own for own in found}


def in_order(own: Mapping[str, Own]) -> list[tuple[int, str, str, str | None, str]]:
    """Return line, task, a, b and split of all expressions of a file, in its order."""
    return sorted(
        (line, task, a, b, SIDES[side])
        for task, one in own.items()
        for (line, a, b), side in zip(one.rows.iter_rows(), one.sides.tolist(), strict=True)
    )


def _of_table(rows: pl.DataFrame, where: str) -> list[tuple[int, str]]:
    names = ["expression"] if "expression" in rows.columns else ["task", "a", "b"]
    if lacking := [name for name in names if name not in rows.columns]:
        have = ", ".join(map(quoted, rows.columns[:8])) or "none"
        what = f"there is no column {' or '.join(['expression', *lacking])}; it has {have}"
        raise UserError(what, where=where, allowed=ALLOWED)
    cells = (pl.col(name).cast(pl.String).str.strip_chars() for name in names)
    # Without b it is an expression of one operand; without anything else it is none.
    cells = (cell if name == "b" else cell.fill_null("?") for cell, name in zip(cells, names, strict=True))
    return [*enumerate(rows.select(pl.concat_str(cells, separator=" ", ignore_nulls=True)).to_series(), 1)]


def _parsed(texts: Iterable[tuple[int, str]], where: str, file: str, digest: str) -> list[Own]:
    """Return the expressions of each task of texts with their lines; the first text that is none is refused."""
    of_sign, number = signs(), "(0|[1-9][0-9]{0,999})"
    match = re.compile(f"{number}({'|'.join(map(re.escape, filter(None, of_sign)))}){number}=?").fullmatch
    found, digits = list[tuple[str, int, str, str | None]](), 0
    for line, text in texts:
        try:
            usual = match(text)  # a fast look: the other way says what is wrong
            a, sign, b = usual.groups() if usual else ("", "", "")
            task, *pair = (
                (of_sign[sign], a, b) if usual else text.split() if text[:1].isalpha() else parse_expression(text)
            )
            own = machine(task)
            if not usual or own.domain_error(int(a), int(b)) is not None:
                if len(pair) not in (1, 2) or not own.numbers:
                    raise UserError("this is no expression of a task with numbers")
                operands(task, *pair)
        except UserError as error:
            what, place = f"{error.what}: {quoted(text)}", f"{where} {line:,}"
            raise UserError(what, where=place, allowed=error.allowed or ALLOWED) from None
        found.append((own.name, line, pair[0], pair[1] if pair[1:] else None))
        digits += len(text)
    if digits > MOST_DIGITS:
        raise UserError("the expressions have too many digits", where=where, allowed=f"about {MOST_DIGITS:,} in all")
    owns = list[Own]()
    for (task, *_), rows in pl.DataFrame(found, SCHEMA, orient="row").group_by("task", maintain_order=True):
        kept = rows.drop("task").unique(["a", "b"], keep="first", maintain_order=True)
        owns.append(Own(str(task), file, digest, kept, len(rows) - len(kept)))
    return owns
