"""Expressions of one's own: read from a file, told their splits, and recorded in the dataset that is built of them.

A file holds ``12+9=`` or ``task a b`` a line; or it is a table, CSV or Parquet, with a column ``expression`` of these,
or with task, a and b. What is no expression of a task is refused with its line; what stands twice counts once.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from ..errors import UserError, printable_path, quoted
from ..tm import machine, operands, tasks
from ..tm.classes import Coordinates, OperandDistribution
from ..tm.columns import I64, Bool, Operands
from ..tm.expression import parse_expression, signs
from ..tm.machine import MAX_DIGITS, Machine
from .sampling.laws import class_parts
from .sampling.split import PAIR, SIDES, side_codes
from .spelling import Spelling, literal

if TYPE_CHECKING:
    from .settings import TaskSettings

MOST, MOST_DIGITS = 1_000_000, 20_000_000  # of a file: a manifest holds its expressions
MOST_BYTES = 1 << 30
TOGETHER = 20_000  # expressions whose splits are asked for together
ALLOWED = "lines such as 12+9= or left_mask 1050; CSV or Parquet with a column expression, or with task, a and b"
COLUMNS = ["expression", "task", "a", "b"]  # of a table: the first one, or the others
SEPARATORS = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True, eq=False)
class Own:
    """The expressions of one task in a file.

    Args:
        task: the task.
        file: the file's name.
        sha256: of the file.
        rows: the columns a and b (null for one operand), and line, each expression once, in the file's order.
        repeated: how many lines were left out for that.
    """

    task: str
    file: str
    sha256: str
    rows: pl.DataFrame
    repeated: int = 0

    @cached_property
    def text(self) -> str:
        """The expressions, a line each."""
        return "".join(self.rows.select(pl.concat_str("a", "b", separator=" ", ignore_nulls=True) + "\n").to_series())

    @cached_property
    def key(self) -> tuple[str, str]:
        """What settings hold of them: the file's sha256, and that of the task's expressions in it."""
        return self.sha256, hashlib.sha256(f"{self.task}\n{self.text}".encode()).hexdigest()

    @cached_property
    def operands(self) -> Operands:
        """The expressions in columns."""
        own = machine(self.task)
        second = None if own.unary else own.column(self.rows["b"].to_list())
        return Operands(own.column(self.rows["a"].to_list()), second)

    @cached_property
    def sides(self) -> I64:
        """The split of each expression, as an index into ``SIDES``."""
        parts = [self.operands.rows(slice(at, at + TOGETHER)) for at in range(0, len(self.rows), TOGETHER)]
        return np.concatenate([side_codes(machine(self.task), part) for part in parts])

    @property
    def lengths(self) -> tuple[int, int]:
        """The digits of the shortest and of the longest operand."""
        found = [number.length for number in self.operands.numbers]
        return int(min(one.min() for one in found)), int(max(one.max() for one in found))

    def counts(self) -> dict[str, int]:
        """Return how many expressions each split has."""
        return dict(zip(SIDES, np.bincount(self.sides, minlength=len(SIDES)).tolist(), strict=True))

    def parts(self, any_side: bool) -> Iterator[tuple[int, int, str, OperandDistribution, int]]:
        """Yield the cells of the expressions, as ``sampling.classes.Wanted`` has them."""
        own, given = machine(self.task), self.operands
        pairs = given.a.length * PAIR + (0 if given.b is None else given.b.length)
        named: dict[str, list[I64]] = {}
        for pair in np.unique(pairs).tolist():
            rows = np.flatnonzero(pairs == pair)
            for name, _, part in class_parts(own, *divmod(pair, PAIR)):
                named.setdefault(name, []).append(rows[part.holds(given.take(rows))])
        for name, found in named.items():
            rows = np.concatenate(found)
            listed = Given(given.take(rows), pairs[rows], any_side)
            for pair, count in zip(listed.pairs.tolist(), listed.count.tolist(), strict=True):
                yield *divmod(pair, PAIR), name, listed, count

    def record(self) -> dict[str, Any]:
        """Return what a manifest holds of them; ``define`` reads it."""
        packed = pa.Codec("zstd").compress(self.text.encode(), asbytes=True)
        return {"file": self.file, "bytes": len(self.text), "text": base64.b64encode(packed).decode()}


class Given(OperandDistribution):
    """Expressions that are given, by their number in their class.

    Args:
        operands: the expressions, those of a class behind one another.
        pairs: the lengths of each.
        any_side: every split may hold each of them.
    """

    def __init__(self, operands: Operands, pairs: I64, any_side: bool) -> None:
        self.operands, self.any_side = operands, any_side
        self.pairs, self.first, self.count = np.unique(pairs, return_index=True, return_counts=True)

    def lengths(self, len_a: int, len_b: int) -> tuple[int, int]:
        return 0, 0

    def selector(self, len_a: int, len_b: int) -> tuple[int, int]:
        counts: Any = self.count[np.searchsorted(self.pairs, len_a * PAIR + len_b)]
        return 0, counts

    def size(self, len_a: int, len_b: int) -> int:
        return int(self.selector(len_a, len_b)[1])

    def shape(self, draw: Coordinates) -> tuple[Operands, Bool]:
        first = self.first[np.searchsorted(self.pairs, draw.len_a * PAIR + draw.len_b)]
        found = self.operands.take(first + draw.selector)
        return found, np.ones(len(found), np.bool_)


_KNOWN: dict[str, Own] = {}  # by the second half of their keys


def own_expressions(key: tuple[str, str]) -> Own:
    """Return the expressions that settings name; raises UserError where they were neither read nor recorded."""
    if key[1] not in _KNOWN or _KNOWN[key[1]].sha256 != key[0]:
        raise UserError("the expressions that these settings name are not at hand", allowed="the file's name")
    return _KNOWN[key[1]]


def check_own(settings: TaskSettings, spelling: Spelling) -> None:
    """Refuse settings that name no expressions that are at hand, or not those of the task."""
    given: Any = settings.expressions
    name, train = spelling.name("allow_test"), spelling.setting("splits", ("train",))
    if given is None:
        what = f"{name} is for {spelling.name('expressions')}"
        raise spelling.refusal(what, "allow_test", allowed="both, or neither")
    if not isinstance(given, tuple | list) or [type(one) for one in given] != [str, str]:
        raise spelling.refusal(f"expressions is {literal(given)}", "expressions", allowed="the name of a file")
    object.__setattr__(settings, "expressions", tuple(given))
    own = own_expressions((given[0], given[1]))
    if own.task != settings.task or (settings.min, settings.max) != own.lengths:
        what = f"these expressions are not those of {settings.task}"
        raise spelling.refusal(what, "expressions", allowed="those of the task, with their lengths")
    if settings.max > settings.max_len:
        long = pl.max_horizontal(pl.col("a", "b").str.len_bytes()) > settings.max_len
        what, advice = f"an operand has more than {settings.max_len:,} digits", f"write max_len = {settings.max} there"
        where = f"{own.file}, line {own.rows.filter(long)['line'][0]:,}"
        allowed = f"up to {settings.max_len:,} digits, or as many as max_len says, {MAX_DIGITS:,} at most"
        if spelling.options is not None:
            lines = f'expressions = "{own.file}" and max_len = {settings.max}'
            advice = f"write {lines} into a declaration, then: caef-data build my.toml"
        raise UserError(what, where=where, allowed=allowed, next_step=advice)
    if settings.allow_test and settings.splits != ("train",):
        raise spelling.refusal(f"{name} is for a build of train alone", "allow_test", "splits", allowed=train)


def notes_of_own(settings: TaskSettings) -> list[str]:
    """Return what there is to say of expressions of a file: their splits, and which are left out."""
    if settings.expressions is None:
        return []
    own, task = own_expressions(settings.expressions), settings.task
    told = ", ".join(f"{split} {count:,}" for split, count in own.counts().items())
    notes = [f"{task}: {len(own.rows):,} expression{'s' * (len(own.rows) > 1)} of {own.file}, by split: {told}"]
    if own.repeated:
        notes.append(f"{task}: {own.repeated:,} more repeat one of these, and are built once")
    others = sum(count for split, count in own.counts().items() if split not in settings.splits)
    if others and not settings.allow_test:
        notes.append(f"{task}: {others:,} belong to another split than {', '.join(settings.splits)}: left out")
    return notes + allowed_test({task: settings.to_dict()})


def allowed_test(tasks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what there is to say where train may hold expressions of test, from the settings of tasks."""
    notes = []
    for task, settings in sorted(tasks.items()):
        own = own_expressions(tuple(settings["expressions"])) if settings.get("allow_test") else None
        if own is not None and (count := int(np.count_nonzero(own.sides))):
            notes.append(f"{task}: built with --allow-test: {count:,} of its expressions are of test or stress")
    return notes


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
    _KNOWN[own.key[1]] = own


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
        _KNOWN[own.key[1]] = own
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
    one, two = (
        "|".join(task for task in tasks() if machine(task).numbers and machine(task).unary is unary)
        for unary in (True, False)
    )
    sign, number = "|".join(map(re.escape, of_sign)), "(0|[1-9][0-9]*)"
    pattern = rf"^(?:{number}({sign}){number}=?|({two})[ \t]+{number}[ \t]+{number}|({one})[ \t]+{number})$"
    groups = pl.col("text").str.extract_groups(pattern).struct.rename_fields([*"xsyt", "u", "v", "o", "w"])
    found = rows.with_columns(groups.struct.unnest()).select(
        "line",
        "text",
        task=pl.coalesce(pl.col("s").replace_strict(of_sign, default=None), "t", "o"),
        a=pl.coalesce("x", "u", "w"),
        b=pl.coalesce("y", "v"),
    )
    digits = pl.col("a", "b").str.len_bytes().fill_null(0)
    wrong = found.filter(pl.col("task").is_null() | (pl.max_horizontal(digits) > MAX_DIGITS))
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
