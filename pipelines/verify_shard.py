"""Verify one part of a shard: runs in a worker process and gives back findings and hashes, never rows."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .. import tm
from ..atomic import sha256_of
from ..errors import quoted
from ..schemas import row_schema
from ..tm.check.entries import problem as closed_problem
from ..tm.columns import I64, Operands
from ..tm.instructions import instruction
from .plan import Config, ExpressionSet
from .rows import python_values
from .sampling.classes import ClassSampler
from .sampling.split import sides
from .settings import TaskSettings
from .verify_own import OwnProblem
from .verify_rows import Known, check_rows, known_tasks

KEPT = 50  # findings kept per part; the rest is counted
TEXTS = ("prompt", "completion")
_BATCH, _BATCH_TEXT = 32_768, 20_000_000  # rows looked at together, and bytes: a row group of ours has half of these
_OPERANDS = ("a", "b")
_KEYS = {  # what tells rows apart
    "one_step": ("a", "b", "step", "far"),
    "slips": ("a", "b", "step", "slip", "prompt"),
    "aligner": ("a", "b", "direction"),
}
_OF_ROWS = ("task", "len_a", "len_b", "variant", "instruction")  # checked in columns
HELD = 48_000_000  # digits that a worker keeps of the expressions that it has drawn, a byte each
_DECIMAL, _LONGEST = "^(0|[1-9][0-9]*)$", 4_000  # an operand that the split function takes
_TOGETHER = 500  # expressions given to it at a time: it makes matrices of digits


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: the rule that fails (of ``verify.CHECKS``), the file, its row (None for all), and what.

    ``path`` is relative to the dataset's folder.
    """

    kind: str
    path: str
    row: int | None
    message: str


@dataclass(frozen=True, eq=False)
class Part:
    """Some row groups of a shard, as one piece of work.

    Args:
        directory: the dataset's folder.
        path: of the shard, relative to it.
        task, view, split, dialect: what the rows are.
        groups: the row groups to read.
        first_row: index of their first row in the shard.
        rows: how many rows they hold.
        sha256: of the whole file, checked with its first part; None for the others.
        fraction: which share of the rows to re-execute.
        plan: the config, the number of the shard and its blocks that the declaration gives; None if not known.
        other_rules: rules (text, split, sampling) that are not those of this caef-data: they are not asked.
        max_steps: where no plan says it, of a run that is walked.
    """

    directory: Path
    path: str
    task: str
    view: str
    split: str
    dialect: str
    groups: tuple[int, ...]
    first_row: int
    rows: int
    sha256: str | None
    fraction: float
    plan: tuple[Config, int, slice] | None
    other_rules: tuple[str, ...]
    max_steps: int = 10_000


@dataclass
class PartResult:
    """What a part gives back.

    Attributes:
        path: of the shard.
        findings: at most ``KEPT``; ``num_findings``: how many there were.
        checked: rows re-executed; ``transitions``: transitions among them.
        chars: of each text, the characters in all and those of the longest.
        rows: 128 bits of hash (h1, h2) per row, in order, of what must not occur twice, and its row.
        expressions: distinct expressions, the row where each stands first, their hash (h1, h2), and that of their
            operands in sorted order (s1, s2) where the split takes no account of it.

    """

    path: str
    findings: list[Finding] = field(default_factory=list)
    num_findings: int = 0
    checked: int = 0
    transitions: int = 0
    chars: dict[str, list[int]] = field(default_factory=lambda: {text: [0, 0] for text in TEXTS})
    rows: pl.DataFrame = field(default_factory=pl.DataFrame)
    expressions: pl.DataFrame = field(default_factory=pl.DataFrame)

    def add(self, kind: str, row: int | None, message: str) -> None:
        """Count a finding and keep it if there is room."""
        self.num_findings += 1
        if len(self.findings) < KEPT:
            self.findings.append(Finding(kind, self.path, row, message))


def verify_part(part: Part, keep_drawn: bool) -> PartResult:
    """Check a part's file and its rows, and collect the hashes for the checks across files.

    Args:
        part: the part.
        keep_drawn: whether the expressions of its split are drawn once, and kept for other parts.
    """
    result = PartResult(part.path)
    known: Known = {}
    keys = [_keys(pa.RecordBatch.from_pylist([], schema=row_schema(part.view)), part.view)]
    for at, batch in _batches(part, result):
        keys.append(_keys(batch, part.view))
        wrong = _check_columns(part, batch, at, result)
        if "text" not in part.other_rules:
            wrong |= _check_texts(part, batch, at, result, known)
        for row, message in sorted(wrong.items()):
            result.add("row", row, message)
    found, num_findings = pl.concat(keys), result.num_findings
    _hash(part, found, result)
    if len(found) < part.rows:
        result.add("file", None, f"{part.rows - len(found):,} rows from row {part.first_row:,} on cannot be read")
        return result
    if part.plan is not None:
        config, shard, blocks = part.plan
        draw = drawn_once if keep_drawn else ClassSampler.operands
        planned = [_keys(config.planned(numbers, draw), part.view) for numbers in config.blocks(shard)[blocks]]
        _compare(part, found, pl.concat([keys[0], *planned]), result)
    any_side = part.plan is not None and part.plan[0].settings.allow_test
    if "split" not in part.other_rules and not any_side and (part.plan is None or result.num_findings > num_findings):
        _check_sides(part, found, result)  # else the same function chose them
    return result


def verify_rows(batch: pa.RecordBatch, settings: TaskSettings, view: str, split: str) -> PartResult:
    """Check rows that stand in no file, and their split."""
    task, dialect, most = settings.task, settings.dialect, settings.max_steps
    part = Part(Path(), "", task, view, split, dialect, (), 0, batch.num_rows, None, 1.0, None, (), most)
    result, keys = PartResult(part.path), _keys(batch, view)
    wrong = _check_columns(part, batch, 0, result)
    for row, message in sorted((wrong | _check_texts(part, batch, 0, result, {})).items()):
        result.add("row", row, message)
    _hash(part, keys, result)
    _check_sides(part, keys, result)
    return result


# ----------------------------------------------------------------------------------------------------------
# Reading


def _batches(part: Part, result: PartResult) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield the rows of a part, a few thousand at a time, with the index of the first; repeating texts coded."""
    path, at = part.directory / part.path, part.first_row
    schema = row_schema(part.view)
    repeating = [name for name in schema.names if pa.types.is_dictionary(schema.field(name).type)]
    try:
        if part.sha256 is not None:
            with path.open("rb") as file:
                digest = sha256_of(file)
            if digest != part.sha256:
                result.add("file", None, f"sha256 is {digest}, the manifest says {part.sha256}")
        with path.open("rb") as source, pq.ParquetFile(source, read_dictionary=repeating) as file:
            for group in part.groups:
                held = file.metadata.row_group(group)
                size = max(1, min(_BATCH, _BATCH_TEXT * held.num_rows // max(held.total_byte_size, 1)))
                for batch in file.iter_batches(size, row_groups=[group], columns=schema.names):
                    batch.validate(full=True)  # a damaged file may decode to offsets out of bounds or to no UTF-8
                    yield at, _as_declared(batch, schema)
                    at += batch.num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        result.add("file", None, f"cannot be read: {quoted(str(error), 200)}")


def _as_declared(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch whose texts are stored as Arrow can take them: other writers have texts of other layouts."""
    for index, column in enumerate(batch.columns):
        kind = schema.field(index).type
        if not pa.types.is_dictionary(kind) and column.type != kind:
            batch = batch.set_column(index, schema.names[index], column.cast(kind))
        elif pa.types.is_string_view(column.type):
            batch = batch.set_column(index, schema.names[index], column.cast(pa.string()))
    return batch


def _frame(batch: pa.RecordBatch, *names: str) -> pl.DataFrame:
    """Return columns with their texts as plain strings."""
    columns = [batch.column(name) for name in names]
    plain = [column.dictionary_decode() if pa.types.is_dictionary(column.type) else column for column in columns]
    return pl.DataFrame([pl.Series(name, pl.from_arrow(column)) for name, column in zip(names, plain, strict=True)])


def _keys(batch: pa.RecordBatch, view: str) -> pl.DataFrame:
    """Return what tells rows apart, and their variants; ``far`` is the prompt of a row whose step is null.

    Where a slip was drawn, the prompt says which one of its kind.
    """
    names = ["variant", *_KEYS.get(view, _OPERANDS)]
    if view != "one_step" or "far" in batch.schema.names:  # as planned
        return _frame(batch, *names)
    if not batch.column("step").null_count:  # the texts are not kept
        return _frame(batch, *names[:-1]).with_columns(far=pl.lit(None, pl.String))
    far = pl.when(pl.col("step").is_null()).then("prompt").alias("far")
    return _frame(batch, *names[:-1], "prompt").with_columns(far).select(names)


# ----------------------------------------------------------------------------------------------------------
# What each row holds


def _check_columns(part: Part, batch: pa.RecordBatch, at: int, result: PartResult) -> dict[int, str]:
    """Measure the texts, check the instruction, and return what is wrong with columns that the operands give."""
    for text in TEXTS:
        sizes, (total, longest) = pc.binary_length(batch.column(text)), result.chars[text]
        result.chars[text] = [total + (pc.sum(sizes).as_py() or 0), max(longest, pc.max(sizes).as_py() or 0)]
    right = instruction(tm.machine(part.task), part.view)
    for row in _others(batch, "instruction", right)[: "text" not in part.other_rules]:
        result.add("instruction", at + row, f"this is not the instruction of {part.task} for {part.view} rows")
    wrong = {at + row: f"task: expected {quoted(part.task)}" for row in _others(batch, "task", part.task)}
    frame = _frame(batch, *_OPERANDS, "len_a", "len_b").with_row_index("row", at)
    for name in _OPERANDS:
        length = pl.col(name).str.len_bytes().fill_null(0).cast(pl.Int64)
        if name == "a" and not tm.machine(part.task).numbers:
            length = pl.lit(pl.Series([tm.machine(part.task).length(word) for word in frame["a"]], dtype=pl.Int64))
        off = frame.select("row", f"len_{name}", right=length).filter(pl.col(f"len_{name}").ne_missing(pl.col("right")))
        wrong |= {row: f"len_{name}: expected {right}, found {found}" for row, found, right in off.iter_rows()}
    return wrong


def _others(batch: pa.RecordBatch, name: str, text: str) -> list[int]:
    """Return the rows of a column that hold another text than all should."""
    if batch.column(name).unique().to_pylist() == [text]:
        return []
    return [row for row, value in enumerate(python_values(batch.column(name))) if value != text]


def _check_texts(part: Part, batch: pa.RecordBatch, at: int, result: PartResult, known: Known) -> dict[int, str]:
    """Re-execute the rows that the fraction asks for, always the same ones, and return what is wrong with them."""
    rows = np.arange(at, at + batch.num_rows)
    if part.fraction < 1:
        rows = rows[(rows * 2_654_435_761 % 2**32 < int(part.fraction * 2**32)) | (rows == 0)]
        batch = batch.take(pa.array(rows - at))
    names = [name for name in batch.schema.names if name not in _OF_ROWS]
    columns = {name: python_values(batch.column(name)) for name in names}
    most = part.plan[0].settings.max_steps if part.plan is not None else part.max_steps
    problem = closed_problem if part.task in known_tasks() else partial(OwnProblem.of, most=most)
    wrong, transitions = check_rows(part.task, part.view, part.dialect, columns, known, problem)
    result.checked += batch.num_rows
    result.transitions += transitions
    return {int(rows[index]): message for index, message in wrong}


# ----------------------------------------------------------------------------------------------------------
# Which rows there are


@lru_cache(maxsize=3)
def drawn(cells: ClassSampler) -> tuple[Operands, I64]:
    """Return all expressions of a split's cells."""
    return ExpressionSet(((cells, None),)).operands(np.arange(cells.num_expressions))


def drawn_once(cells: ClassSampler, numbers: I64) -> tuple[Operands, I64]:
    """Return the same as ``cells.operands``: all expressions are drawn when the first are asked for, and kept."""
    digits = int(cells.len_a.max(initial=1)) + int(cells.len_b.max(initial=0))
    if (cells.len_a == 0).any() or digits * cells.num_expressions > HELD:
        return cells.operands(numbers)
    operands, law = drawn(cells)
    return operands.take(numbers), law[numbers]


forget_drawn = drawn.cache_clear


def _compare(part: Part, found: pl.DataFrame, planned: pl.DataFrame, result: PartResult) -> None:
    """Compare rows with the planned ones: none missing, none added, in order, each with its variant."""
    if found.equals(planned):
        return
    names = _KEYS.get(part.view, _OPERANDS)
    found, planned = (
        frame.with_row_index("row", part.first_row).with_columns(copy=pl.int_range(pl.len()).over(names))
        for frame in (found, planned)
    )
    both = [*names, "copy"]
    pairs = found.join(planned, on=both, nulls_equal=True, suffix="_planned", maintain_order="left")
    for row, variant, right in (
        pairs.filter(pl.col("variant").ne_missing(pl.col("variant_planned")))
        .select("row", "variant", "variant_planned")
        .iter_rows()
    ):
        result.add("variant", row, f"variant: expected {quoted(right)}, found {quoted(variant)}")
    added = found.join(planned, on=both, how="anti", nulls_equal=True, maintain_order="left")
    missing = planned.join(found, on=both, how="anti", nulls_equal=True, maintain_order="left")
    moved = pairs.filter(pl.col("row") != pl.col("row_planned"))
    for kind, frame, what in (
        ("added", added, "that the declaration does not give, the first"),
        ("missing", missing, "that the declaration gives not there, the first"),
        ("order", moved if added.is_empty() and missing.is_empty() else moved.clear(), "in another place, the first"),
    ):
        for first in frame.head(1).iter_rows(named=True):
            words = [
                f"{name} {quoted(first[name], 30)}"
                for name in names
                if first[name] is not None and name not in ("far", "prompt")
            ]
            message = f"{len(frame):,} row{'s' * (len(frame) > 1)} {what}: {part.task} {' '.join(words)}"
            result.add(kind, None if kind == "missing" else first["row"], message)


def _hash(part: Part, keys: pl.DataFrame, result: PartResult) -> None:
    """Gather what must not occur twice: hashes of the operands and of the step, not of the long texts."""
    rows = pl.int_range(part.first_row, part.first_row + len(keys), eager=True).alias("row")
    of_rows = keys.select(_KEYS.get(part.view, _OPERANDS))
    operands = keys.select("a", "b")
    in_order = operands
    if tm.machine(part.task).commutative:
        in_order = operands.select(a=pl.min_horizontal("a", "b"), b=pl.max_horizontal("a", "b"))
    result.rows = pl.DataFrame({"row": rows, "h1": of_rows.hash_rows(1), "h2": of_rows.hash_rows(2)})
    hashes = {"h1": operands, "h2": operands, "s1": in_order, "s2": in_order}
    columns = {name: frame.hash_rows(int(name[1])) for name, frame in hashes.items()}
    distinct = pl.DataFrame({"row": rows, **columns})
    result.expressions = distinct.unique(["h1", "h2"], keep="first", maintain_order=True)


def _check_sides(part: Part, keys: pl.DataFrame, result: PartResult) -> None:
    """Ask the split function about the part's distinct expressions; what is no operand belongs to no side."""
    allowed = {part.split, "test"} if part.split == "stress" else {part.split}
    own = tm.machine(part.task)
    proper = [pl.col(name).str.contains(_DECIMAL) & (pl.col(name).str.len_bytes() <= _LONGEST) for name in _OPERANDS]
    if not own.numbers:
        proper[0] = pl.col("a").map_elements(lambda word: own.length(word) is not None, pl.Boolean)
    if own.unary:
        proper[1] = pl.col("b").is_null()
    rows = result.expressions["row"] - part.first_row
    for some in keys.with_row_index("row", part.first_row)[rows].filter(*proper).iter_slices(_TOGETHER):
        a, b = some["a"].to_list(), some["b"].to_list()
        for row, one, other, side in zip(some["row"], a, b, sides(part.task, a, b), strict=True):
            if side not in allowed:
                shown = " ".join(quoted(text, 30) for text in (one, other) if text is not None)
                message = f"{part.task} {shown} stands in {part.split}, the split function says {side}"
                result.add("split", row, message)
