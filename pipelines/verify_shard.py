"""Check one shard, in a worker process: what it gives back is what is wrong, and hashes, never rows."""

from collections.abc import Iterable, Iterator
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
from .manifest import MANIFEST, ShardRecord
from .plan import Config, Draw, ExpressionSet
from .rows import plain_schema, python_values
from .sampling.classes import ClassSampler
from .sampling.split import sides
from .settings import TaskSettings
from .verify_own import OwnProblem
from .verify_report import Findings
from .verify_rows import Known, check_rows, known_tasks

TEXTS = ("prompt", "completion")
_BATCH, _BATCH_TEXT = 32_768, 20_000_000  # rows looked at together, and bytes: a row group of ours has half of these
_OPERANDS = ("a", "b")
_KEYS = {  # what tells rows apart; far: the prompt of a row whose step does not fit 64 bits
    "one_step": ("a", "b", "step", "far"),
    "slips": ("a", "b", "step", "slip", "prompt"),
    "aligner": ("a", "b", "direction"),
}
_OF_ROWS = ("task", "len_a", "len_b", "variant", "instruction")  # checked in columns
HELD = 48_000_000  # digits that a worker keeps of the expressions that it has drawn, a byte each
_DECIMAL, _LONGEST = "^(0|[1-9][0-9]*)$", 4_000  # an operand that the split function takes
_TOGETHER = 500  # expressions given to it at a time: it makes matrices of digits


@dataclass(frozen=True, eq=False)
class Shard:
    """A shard to be checked: one piece of work.

    Args:
        directory: the dataset's folder.
        record: what the manifest says of the shard.
        config: what the declaration gives, and ``number``: of the shard there.
        fraction: the share of its rows to compute again.
    """

    directory: Path
    record: ShardRecord
    config: Config
    number: int
    fraction: float = 1.0

    @property
    def task(self) -> str:
        """Name of its task."""
        return self.config.settings.task

    @property
    def weight(self) -> float:
        """Bytes of its texts, about: the work that it is."""
        return self.config.text / self.config.num_shards


@dataclass
class ShardResult(Findings):
    """What the check of a shard gives.

    Attributes:
        complete: whether all rows could be read.
        rows: how many were read; ``checked``: those computed again; ``transitions``: steps among them.
        chars: of each text, the characters in all and those of the longest.
        hashes: pairs of frames. The first has the number of each row, and 128 bits of hash (h1, h2) of what must not
            occur twice. The second has the distinct expressions: the row where each stands first, and its hash, that of
            its operands in sorted order where the split takes no account of it.
    """

    complete: bool = False
    rows: int = 0
    checked: int = 0
    transitions: int = 0
    chars: dict[str, tuple[int, int]] = field(default_factory=lambda: dict.fromkeys(TEXTS, (0, 0)))
    hashes: list[tuple[pl.DataFrame, pl.DataFrame]] = field(default_factory=list)


def check_shard(shard: Shard, draw: Draw) -> ShardResult:
    """Check a shard's file and its rows, and collect the hashes for the checks across files.

    Args:
        shard: the shard.
        draw: draws the expressions that the declaration gives.
    """
    result, due = ShardResult(shard.record.path), _Due(shard.config, shard.number, draw)
    _check_batches(shard, _batches(shard, result), due, result)
    if result.complete and result.chars != shard.record.chars:
        result.add("counts", f"{result.path}: its texts have other numbers of characters", path=MANIFEST)
    if result.complete:
        due.compare(result)
    return result


def verify_rows(batch: pa.RecordBatch, settings: TaskSettings, view: str, split: str) -> Findings:
    """Check rows that stand in no file, and their split."""
    config = Config(settings, view, split, ExpressionSet(()), batch.num_rows, 0)
    result = ShardResult("")
    _check_batches(Shard(Path(), ShardRecord("", 0, 0, "", {}), config, 0), [(0, batch)], None, result)
    return result


# ----------------------------------------------------------------------------------------------------------
# Reading


def check_file(directory: Path, record: ShardRecord, found: Findings) -> bool:
    """Compare a file's size and sha256 with what the manifest says, and tell whether it can be read."""
    path, wrong = directory / record.path, ""
    try:
        with path.open("rb") as file:
            size, digest = path.stat().st_size, sha256_of(file)
        if size != record.bytes:
            wrong = f"has {size:,} bytes, the manifest says {record.bytes:,}"
        elif digest != record.sha256:
            wrong = f"sha256 is {digest}, the manifest says {record.sha256}"
    except FileNotFoundError:
        wrong = "is missing"
    except OSError as error:
        wrong = f"cannot be read: {quoted(str(error), 160)}"
    if wrong:
        found.add("file", wrong, path=record.path)
    return path.is_file()


def _batches(shard: Shard, result: ShardResult) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield the rows of a shard, a few thousand at a time, with the number of the first; repeating texts coded."""
    if not check_file(shard.directory, shard.record, result):
        return
    first, schema = 0, row_schema(shard.config.view)
    repeating = [name for name in schema.names if pa.types.is_dictionary(schema.field(name).type)]
    try:
        with (shard.directory / result.path).open("rb") as source:  # Arrow opens no name that is not UTF-8
            metadata = pq.read_metadata(source)
            if metadata.num_rows != shard.record.rows:
                result.add("file", f"has {metadata.num_rows:,} rows, the manifest says {shard.record.rows:,}")
            if wrong := _other_columns(metadata.schema.to_arrow_schema(), plain_schema(schema)):
                result.add("schema", wrong)
                return
            with pq.ParquetFile(source, metadata=metadata, read_dictionary=repeating) as file:
                for group in range(file.num_row_groups):
                    held = metadata.row_group(group)
                    size = max(1, min(_BATCH, _BATCH_TEXT * held.num_rows // max(held.total_byte_size, 1)))
                    for batch in file.iter_batches(size, row_groups=[group]):
                        batch.validate(full=True)  # a damaged file may decode to offsets out of bounds or to no UTF-8
                        yield first, batch
                        first += batch.num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        told = f" from row {first:,} on" if first else ""
        result.add("file", f"is not a readable Parquet file{told}: {quoted(str(error), 160)}")
        return
    result.complete = True


def _other_columns(there: pa.Schema, right: pa.Schema) -> str:
    """Say how columns and their types differ from what they must be; nothing where they do not."""
    if there.names != right.names:
        return f"columns are {', '.join(there.names)}; expected {', '.join(right.names)}"
    pairs = zip(there, right, strict=True)
    return "; ".join(f"column {x.name} has type {x.type}, expected {y.type}" for x, y in pairs if x.type != y.type)


def _keys(batch: pa.RecordBatch, view: str, *more: str) -> pl.DataFrame:
    """Return what tells rows apart, and other columns: their variants unless more are named."""
    some = batch.select([*(more or ("variant",)), *_KEYS.get(view, _OPERANDS)])
    return pl.DataFrame(pl.from_arrow(some.cast(plain_schema(some.schema))))


# ----------------------------------------------------------------------------------------------------------
# What each row holds


def _check_batches(
    shard: Shard, batches: Iterable[tuple[int, pa.RecordBatch]], due: "_Due | None", result: ShardResult
) -> None:
    """Check rows, a batch at a time with the number of its first row, and collect what is checked across files."""
    known: Known = {}
    for first, batch in batches:
        wrong = _check_columns(shard, batch, first, result) | _check_texts(shard, batch, first, result, known)
        for row, message in sorted(wrong.items()):
            result.add("row", message, row)
        if shard.config.view == "one_step":
            far = pc.if_else(pc.is_null(batch["step"]), batch["prompt"], pa.scalar(None, pa.string()))
            batch = batch.append_column("far", far)
        keys = _keys(batch, shard.config.view).with_row_index("row", first)
        if due is None or not due.are_next(keys, first):  # else the split function has chosen them just now
            _check_sides(shard, keys, result)
        result.hashes.append(_hashed(shard, keys))
        result.rows += batch.num_rows


def _check_columns(shard: Shard, batch: pa.RecordBatch, first: int, result: ShardResult) -> dict[int, str]:
    """Measure the texts, check the instruction, and return what is wrong with columns that the operands give."""
    task, view, own = shard.task, shard.config.view, tm.machine(shard.task)
    for text in TEXTS:
        sizes, (total, longest) = pc.binary_length(batch.column(text)), result.chars[text]
        result.chars[text] = total + (pc.sum(sizes).as_py() or 0), max(longest, pc.max(sizes).as_py() or 0)
    for row in _others(batch, "instruction", instruction(own, view)):
        result.add("instruction", f"this is not the instruction of {task} for {view} rows", first + row)
    wrong = {first + row: f"task: expected {quoted(task)}" for row in _others(batch, "task", task)}
    frame = _keys(batch, "", "len_a", "len_b").with_row_index("row", first)
    for name in _OPERANDS:
        length = pl.col(name).str.len_bytes().fill_null(0).cast(pl.Int64)
        if name == "a" and not own.numbers:
            length = pl.lit(pl.Series([own.length(word) for word in frame["a"]], dtype=pl.Int64))
        off = frame.select("row", f"len_{name}", right=length).filter(pl.col(f"len_{name}").ne_missing(pl.col("right")))
        wrong |= {row: f"len_{name}: expected {right}, found {found}" for row, found, right in off.iter_rows()}
    return wrong


def _others(batch: pa.RecordBatch, name: str, text: str) -> list[int]:
    """Return the rows of a column that hold another text than all should."""
    if batch.column(name).unique().to_pylist() == [text]:
        return []
    return [row for row, value in enumerate(python_values(batch.column(name))) if value != text]


def _check_texts(shard: Shard, batch: pa.RecordBatch, first: int, result: ShardResult, known: Known) -> dict[int, str]:
    """Compute the rows again that the fraction asks for, always the same ones; return what is wrong with them."""
    rows = np.arange(first, first + batch.num_rows)
    if shard.fraction < 1:
        rows = rows[(rows * 2_654_435_761 % 2**32 < int(shard.fraction * 2**32)) | (rows == 0)]
        batch = batch.take(pa.array(rows - first))
    columns = {name: python_values(batch.column(name)) for name in batch.schema.names if name not in _OF_ROWS}
    settings = shard.config.settings
    problem = closed_problem if settings.task in known_tasks() else partial(OwnProblem.of, most=settings.max_steps)
    wrong, transitions = check_rows(settings.task, shard.config.view, settings.dialect, columns, known, problem)
    result.checked += batch.num_rows
    result.transitions += transitions
    return {int(rows[index]): message for index, message in wrong}


# ----------------------------------------------------------------------------------------------------------
# Which rows there are


def drawn_once() -> Draw:
    """Return what draws expressions as ``ClassSampler.operands`` does: all when the first are asked for, and once."""

    @lru_cache(maxsize=3)
    def every(cells: ClassSampler) -> tuple[Operands, I64]:
        return ExpressionSet(((cells, None),)).operands(np.arange(cells.num_expressions))

    def draw(cells: ClassSampler, numbers: I64) -> tuple[Operands, I64]:
        digits = int(cells.len_a.max(initial=1)) + int(cells.len_b.max(initial=0))
        if (cells.len_a == 0).any() or digits * cells.num_expressions > HELD:
            return cells.operands(numbers)
        operands, law = every(cells)
        return operands.take(numbers), law[numbers]

    return draw


class _Due:
    """The rows that the declaration gives to a shard, in their order, against those that are found.

    Args:
        config: the shard's config.
        number: of the shard.
        draw: draws the expressions.
    """

    def __init__(self, config: Config, number: int, draw: Draw) -> None:
        self.task, self.view = config.settings.task, config.view
        self.blocks = (_keys(config.planned(numbers, draw), self.view) for numbers in config.blocks(number))
        schema = row_schema(self.view).append(pa.field("far", pa.string()))
        self.ahead = _keys(pa.RecordBatch.from_pylist([], schema), self.view)
        self.differing: list[tuple[pl.DataFrame, pl.DataFrame]] = []  # rows found, and those due in their place

    def are_next(self, found: pl.DataFrame, first: int) -> bool:
        """Tell whether rows, of which ``first`` is the number of the first one, are those that are due now."""
        blocks = [self.ahead]
        while sum(map(len, blocks)) < len(found) and (block := next(self.blocks, None)) is not None:
            blocks.append(block)
        every = pl.concat(blocks)
        self.ahead = every.slice(len(found))
        due = every.head(len(found)).with_row_index("row", first)
        if found.equals(due):
            return True
        self.differing.append((found, due))
        return False

    def compare(self, result: ShardResult) -> None:
        """Say what differs, once all rows are found: which are missing, added or moved, or have another variant."""
        rest = pl.concat([self.ahead, *self.blocks]).with_row_index("row", result.rows)
        if not self.differing and rest.is_empty():
            return
        names = _KEYS.get(self.view, _OPERANDS)
        found, due = (
            pl.concat(frames).with_columns(copy=pl.int_range(pl.len()).over(names))
            for frames in zip(*self.differing, (rest.clear(), rest), strict=True)
        )
        rows = found.join(
            due, on=[*names, "copy"], how="full", coalesce=True, nulls_equal=True, maintain_order="left_right"
        )
        there, meant = pl.col("row"), pl.col("row_right")
        kept = rows.filter(there.is_not_null() & meant.is_not_null())
        others = kept.filter(pl.col("variant").ne_missing(pl.col("variant_right")))
        for row, variant, right in others.select("row", "variant", "variant_right").iter_rows():
            result.add("variant", f"variant: expected {quoted(right)}, found {quoted(variant)}", row)
        wrong = {
            "added": (rows.filter(meant.is_null()), "that the declaration does not give"),
            "missing": (rows.filter(there.is_null()), "that the declaration gives not there"),
        }
        if len(kept) == len(rows):
            wrong = {"order": (rows.filter(there != meant), "in another place")}
        for kind, (some, what) in wrong.items():
            for first in some.head(1).iter_rows(named=True):
                shown = [name for name in names if first[name] is not None and name not in ("far", "prompt")]
                told = " ".join([self.task, *(f"{name} {quoted(first[name], 30)}" for name in shown)])
                message = f"{len(some):,} row{'s' * (len(some) > 1)} {what}, the first: {told}"
                result.add(kind, message, first["row"])


def _hashed(shard: Shard, keys: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return hashes of what must not occur twice, the operands and the step, and those of distinct expressions."""
    operands = keys.select(_OPERANDS)
    if tm.machine(shard.task).commutative:
        operands = operands.select(a=pl.min_horizontal("a", "b"), b=pl.max_horizontal("a", "b"))
    of_rows = keys.select(_KEYS.get(shard.config.view, _OPERANDS))
    rows, expressions = (
        keys.select("row", h1=frame.hash_rows(1), h2=frame.hash_rows(2)) for frame in (of_rows, operands)
    )
    return rows, expressions.unique(["h1", "h2"], keep="first", maintain_order=True)


def _check_sides(shard: Shard, keys: pl.DataFrame, result: Findings) -> None:
    """Ask the split function about distinct expressions; what is no operand belongs to no side."""
    task, split, own = shard.task, shard.config.split, tm.machine(shard.task)
    if shard.config.settings.allow_test:
        return
    proper = [pl.col(name).str.contains(_DECIMAL) & (pl.col(name).str.len_bytes() <= _LONGEST) for name in _OPERANDS]
    if not own.numbers:
        proper[0] = pl.col("a").map_elements(lambda word: own.length(word) is not None, pl.Boolean)
    if own.unary:
        proper[1] = pl.col("b").is_null()
    expressions = keys.unique(_OPERANDS, keep="first", maintain_order=True)
    for some in expressions.filter(*proper).iter_slices(_TOGETHER):
        a, b = some["a"].to_list(), some["b"].to_list()
        for row, one, other, side in zip(some["row"], a, b, sides(task, a, b), strict=True):
            if side not in ({split, "test"} if split == "stress" else {split}):
                shown = " ".join(quoted(text, 30) for text in (one, other) if text is not None)
                message = f"{task} {shown} stands in {split}, the split function says {side}"
                result.add("split", message, row)
