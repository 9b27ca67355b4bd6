"""Verify one part of a shard: runs in a worker process and gives back findings and hashes, never rows."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .. import tm
from ..atomic import sha256_of
from ..errors import quoted
from ..tm.instructions import instruction
from .sampling.split import sides
from .verify_machine import check_by_machine
from .verify_plan import Comparison, Draws, Planned, plain
from .verify_rows import COLUMNS, Known, check_rows, count_transitions, known_tasks

KEPT = 50  # findings kept per part; the rest is counted
BATCH, BATCH_TEXT = 32_768, 20_000_000  # rows looked at together, and bytes: a row group of ours has half of these
_SIDES, _CELLS = 10_000, 2_000_000  # expressions, and digits, given to the split function at a time
_LONGEST = 4_000  # digits of an operand that a build can hold
# (n, 2): 128 bits each; the chance that two of 10**7 different texts collide is below 10**-24
Hashes = npt.NDArray[np.uint64]
NO_HASHES: Hashes = np.zeros((0, 2), np.uint64)
TEXTS = ("prompt", "completion")
_NOT_NULL = ("variant", "instruction", *TEXTS)
_REPEATING = frozenset(("task", "a", "b", "variant", "instruction", "state", "next_state", "call", "direction"))
_OPERAND = pa.large_string()  # those of a whole part are more than 2 GB perhaps
_NULL = np.array([[0x9E37, 0x79B9]], np.uint64)  # the hash of a null
UNORDERED = frozenset({"add", "mul", "equal"})  # a op b and b op a are one expression for the split
_NOT_PARQUET = (pa.ArrowException, OSError, ValueError)  # what reading a damaged file raises


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Args:
        kind: the rule that fails, one of ``verify_report.CHECKS``.
        path: the file, relative to the dataset's folder.
        row: index of the row in the file, None where the whole file is meant.
        message: what is wrong.

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
        plan: what the declaration gives for it; None where that is not known.
        other_rules: rules (text, split, sampling) that are not those of this caef-data: they are not asked.

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
    plan: Planned | None
    other_rules: tuple[str, ...]


@dataclass
class PartResult:
    """What a part gives back.

    Attributes:
        checked: rows re-executed; ``transitions``: transitions among them.
        findings: at most ``KEPT``; ``num_findings``: how many there were.
        rows: 128 bits of hash per row read, in order, of what must not occur twice.
        expressions: the same per distinct expression; ``first``: the row where each stands first.
        pairs: the same with the operands in sorted order where the split takes no account of it.
        chars: of each text, the characters in all and those of the longest.

    """

    checked: int = 0
    transitions: int = 0
    findings: list[Finding] = field(default_factory=list)
    num_findings: int = 0
    rows: Hashes = field(default_factory=lambda: NO_HASHES)
    expressions: Hashes = field(default_factory=lambda: NO_HASHES)
    pairs: Hashes = field(default_factory=lambda: NO_HASHES)
    first: list[int] = field(default_factory=list)
    chars: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        """Count a finding and keep it if there is room."""
        self.num_findings += 1
        if len(self.findings) < KEPT:
            self.findings.append(finding)


def verify_part(part: Part, draws: Draws) -> PartResult:
    """Check a part's file and its rows, and collect the digests for the checks across files."""
    result, path = PartResult(), part.directory / part.path
    try:
        if part.sha256 is not None:
            with path.open("rb") as file:
                found = sha256_of(file)
            if found != part.sha256:
                result.add(Finding("file", part.path, None, f"sha256 is {found}, the manifest says {part.sha256}"))
    except OSError as error:
        result.add(Finding("file", part.path, None, f"cannot be read: {error.strerror or error}"))
        return result
    collector = _Collector(part, result, draws)
    batches = _batches(path, part)
    while True:
        try:
            batch = next(batches, None)
        except _NOT_PARQUET as error:
            result.add(Finding("file", part.path, None, f"cannot be read: {quoted(str(error), 200)}"))
            break
        if batch is None:
            break
        collector.batch(batch)
    collector.finish()
    return result


def _batches(path: Path, part: Part) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a part, a few thousand at a time; repeating texts as dictionaries."""
    with open(path, "rb") as source, pq.ParquetFile(source) as file:  # Arrow opens no name that is not UTF-8
        schema = file.schema_arrow
    names = [name for name in COLUMNS[part.view] if name in schema.names]
    repeating = [name for name in names if name in _REPEATING and _is_text(schema.field(name).type)]
    with open(path, "rb") as source, pq.ParquetFile(source, read_dictionary=repeating) as file:
        for group in part.groups:  # one after the other: a batch then goes with a block of the plan
            held = file.metadata.row_group(group)
            size = max(1, min(BATCH, BATCH_TEXT * held.num_rows // max(held.total_byte_size, 1)))
            for batch in file.iter_batches(size, row_groups=[group], columns=names):
                batch.validate(full=True)  # a damaged file may decode to offsets out of bounds or to no UTF-8
                yield batch


class _Lists(dict[str, list[Any]]):
    """The columns of a batch as Python lists, each made when it is asked for; one that is not there holds nothing."""

    def __init__(self, held: pa.RecordBatch) -> None:
        super().__init__()
        self.held = held

    def __missing__(self, name: str) -> list[Any]:
        there = name in self.held.schema.names
        self[name] = _to_list(self.held.column(name)) if there else [None] * self.held.num_rows
        return self[name]


def _to_list(column: pa.Array) -> list[Any]:
    """Return a column as Python values: through numpy, some five times as fast as ``to_pylist``."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        flat, ends = _to_list(column.flatten()), pc.list_value_length(column).to_pylist()
        values, at = [], 0
        for length in ends:
            values.append(None if length is None else flat[at : at + length])
            at += length or 0
        return values
    if pa.types.is_dictionary(column.type):
        values = [*_to_list(column.dictionary), None]
        return [values[index] for index in column.indices.fill_null(-1).to_numpy().tolist()]
    if column.null_count and not _is_text(column.type):
        return list(column.to_pylist())
    return list(column.to_numpy(zero_copy_only=False).tolist())


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _text_hashes(column: pa.Array) -> Hashes:
    """Return two 64-bit hashes of each text under different keys, (n, 2); equal texts have equal ones."""
    if pa.types.is_dictionary(column.type):
        values = np.concatenate([_text_hashes(column.dictionary), _NULL])
        return values[column.indices.fill_null(len(column.dictionary)).to_numpy()]
    texts = pl.Series(pl.from_arrow(column)).cast(pl.String)
    hashes = np.stack([texts.hash(seed=seed).to_numpy() for seed in (1, 2)], axis=1)
    if column.null_count:
        hashes[column.is_null().to_numpy(zero_copy_only=False)] = _NULL
    return hashes


def _mixed(one: Hashes, other: Hashes) -> Hashes:
    """Combine two columns of hashes; the order of the two matters."""
    return one * np.uint64(0x9E37_79B9_7F4A_7C15) + other


def _constant(column: pa.Array, text: str) -> int | None:
    """Return the first row that holds another text; None where there is none."""
    if pa.types.is_dictionary(column.type) and column.dictionary.to_pylist() == [text] and not column.null_count:
        return None
    same = pc.fill_null(pc.equal(plain(column), text), False)
    return None if pc.all(same).as_py() else int(pc.index(same, False).as_py())


def _lengths(column: pa.Array) -> pa.Array:
    """Return the number of characters of each text, 0 for a null."""
    if pa.types.is_dictionary(column.type):
        return pc.fill_null(pc.utf8_length(column.dictionary).take(column.indices), 0)
    return pc.fill_null(pc.utf8_length(column), 0)


def _value_type(column: pa.Array) -> pa.DataType:
    return column.type.value_type if pa.types.is_dictionary(column.type) else column.type


def _common_right(held: pa.RecordBatch, task: str) -> bool:
    """Tell whether the columns that every view has are right, as far as they follow from the operands."""
    names = held.schema.names
    if any(name not in names or held.column(name).null_count for name in ("task", *_NOT_NULL)):
        return False
    if any(not _is_text(_value_type(held.column(name))) for name in ("task", *_NOT_NULL)):
        return False
    return _constant(held.column("task"), task) is None and all(
        f"len_{name}" in names
        and held.column(f"len_{name}").type == pa.int16()
        and held.column(f"len_{name}").equals(_lengths(held.column(name)).cast(pa.int16(), safe=False))
        for name in ("a", "b")
    )


class _Collector:
    """Checks batches one after another and gathers the hashes."""

    def __init__(self, part: Part, result: PartResult, draws: Draws) -> None:
        self.part, self.result, self.at = part, result, part.first_row
        self.rows: list[Hashes] = []
        self.expressions: list[Hashes] = []  # of each batch, the distinct ones ...
        self.first: list[int] = []  # ... the row where each stands first, and its operands
        self.operands: list[tuple[pa.Array, pa.Array]] = []
        self.known: Known = {}
        self.check = check_rows if part.task in known_tasks() else check_by_machine
        self.plan = Comparison(part.plan, draws) if part.plan is not None else None
        self.instruction, self.told = instruction(tm.machine(part.task), part.view), False

    def batch(self, held: pa.RecordBatch) -> None:
        part, result = self.part, self.result
        if self.plan is not None:
            self.plan.batch(held, self.at)
        self._instruction(held)
        for text in TEXTS:
            if text in held.schema.names:
                sizes = pc.binary_length(held.column(text))
                total, longest = result.chars.get(text, (0, 0))
                result.chars[text] = total + (pc.sum(sizes).as_py() or 0), max(longest, pc.max(sizes).as_py() or 0)
        self._collect(held)
        if "text" in part.other_rules:
            self.at += held.num_rows
            return
        chosen = self._sample(held.num_rows)
        picked = held if chosen is None else held.take(pa.array(chosen, pa.int64()))
        columns, common = _Lists(picked), not _common_right(picked, part.task)
        for index, message in self.check(part.task, part.view, part.dialect, columns, self.known, common=common):
            row = self.at + (index if chosen is None else chosen[index])
            result.add(Finding("row", part.path, row, message))
        result.checked += picked.num_rows
        result.transitions += count_transitions(part.view, columns)
        self.at += held.num_rows

    def _sample(self, rows: int) -> list[int] | None:
        """Choose the rows to re-execute by their index alone, always the same ones."""
        if self.part.fraction >= 1:
            return None
        bound = int(self.part.fraction * 2**32)
        return [i for i in range(rows) if (self.at + i) * 2_654_435_761 % 2**32 < bound or self.at + i == 0]

    def _instruction(self, held: pa.RecordBatch) -> None:
        """Hold the column to the one instruction that the machine has for the view."""
        if "instruction" not in held.schema.names or self.told or "text" in self.part.other_rules:
            return
        row = _constant(held.column("instruction"), self.instruction)
        if row is not None:
            self.told = True
            message = f"this is not the instruction of {self.part.task} for {self.part.view} rows"
            self.result.add(Finding("instruction", self.part.path, self.at + row, message))

    def _collect(self, held: pa.RecordBatch) -> None:
        """Gather what must not occur twice: hashes of the operands and of the step, not of the long texts."""
        a, b = held.column("a"), held.column("b")
        pairs = _mixed(_text_hashes(a), _text_hashes(b))
        self.rows.append(pairs)
        if self.part.view == "one_step":
            self.rows[-1] = _mixed(pairs, _step_hashes(held))
        elif "direction" in held.schema.names:
            self.rows[-1] = _mixed(pairs, _text_hashes(held.column("direction")))
        distinct, first = unique(pairs)
        self.expressions.append(distinct)
        self.first += (first + self.at).tolist()
        rows = pa.array(first)
        self.operands.append((a.take(rows).cast(_OPERAND), b.take(rows).cast(_OPERAND)))

    def finish(self) -> None:
        """Put the hashes together and ask the split function about the part's distinct expressions."""
        result = self.result
        off = self.plan.finish() if self.plan is not None else []
        for kind, row, message in off:
            result.add(Finding(kind, self.part.path, row, message))
        result.rows = np.concatenate([NO_HASHES, *self.rows])
        result.expressions, at = unique(np.concatenate([NO_HASHES, *self.expressions]))
        result.first = [self.first[i] for i in at.tolist()]
        result.pairs = result.expressions
        operands = [pa.concat_arrays([pa.array([], _OPERAND), *(pair[i] for pair in self.operands)]) for i in (0, 1)]
        a, b = (column.take(pa.array(at)) for column in operands)
        task = self.part.task
        if task in UNORDERED or (task not in known_tasks() and tm.machine(task).commutative):
            one, other = (_text_hashes(pc.fill_null(column, "None")) for column in (a, b))
            result.pairs = _mixed(np.minimum(one, other), np.maximum(one, other))
        if "split" not in self.part.other_rules and (self.plan is None or off):
            self._sides(list(zip(a.to_pylist(), b.to_pylist(), strict=True)))  # else the same function chose them

    def _sides(self, operands: list[tuple[Any, Any]]) -> None:
        part, task = self.part, self.part.task
        unary = tm.machine(task).unary
        good = [item for item in zip(operands, self.result.first, strict=True) if _expression(unary, *item[0])]
        good.sort(key=lambda item: len(item[0][0]) + len(item[0][1] or ""))
        allowed = {part.split, "test"} if part.split == "stress" else {part.split}
        found: list[str] = []
        while len(found) < len(good):  # the split function makes matrices of digits: bound their size
            longest = len(good[min(len(found) + _SIDES, len(good)) - 1][0][0]) + 1
            some = good[len(found) : len(found) + max(1, min(_SIDES, _CELLS // longest))]
            found += sides(task, [a for (a, _), _ in some], [b for (_, b), _ in some])
        for (key, row), side in zip(good, found, strict=True):
            if side not in allowed:
                shown = " ".join(quoted(x, 30) for x in key if x is not None)
                message = f"{task} {shown} stands in {part.split}, the split function says {side}"
                self.result.add(Finding("split", part.path, row, message))


def _step_hashes(held: pa.RecordBatch) -> Hashes:
    """Return hashes of the steps; of the prompts where a step does not fit its column, or is no integer."""
    names = held.schema.names
    if "step" not in names or not pa.types.is_integer(held.column("step").type):
        return _text_hashes(held.column("prompt"))
    step = held.column("step")
    steps = pc.fill_null(step, 0).to_numpy().astype(np.uint64)
    hashes = np.stack([steps * np.uint64(0xBF58_476D_1CE4_E5B9), steps * np.uint64(0x94D0_49BB_1331_11EB)], axis=1)
    if step.null_count:
        far = step.is_null().to_numpy(zero_copy_only=False)
        hashes[far] = _text_hashes(held.column("prompt").filter(step.is_null()))
    return hashes


def unique(hashes: Hashes) -> tuple[Hashes, npt.NDArray[np.intp]]:
    """Return the distinct rows, sorted, and where each stands first."""
    if not len(hashes):
        return hashes, np.zeros(0, np.intp)
    order, same = ranked(hashes)
    first = order[np.concatenate(([True], ~same))]
    return hashes[first], first


def ranked(hashes: Hashes) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Return a stable sorting order, and for each but the first whether it equals the one before."""
    order = np.argsort(hashes[:, 0], kind="stable")  # half of a hash nearly always tells two apart
    held = hashes[order]
    same = held[1:, 0] == held[:-1, 0]
    if not (held[1:, 1] == held[:-1, 1])[same].all():
        order = np.lexsort((hashes[:, 1], hashes[:, 0]))
        held = hashes[order]
        same = (held[1:] == held[:-1]).all(axis=1)
    return order, same


def _expression(unary: bool, a: object, b: object) -> bool:
    """Say whether a and b look like operands: others are reported with their rows and belong to no side."""
    return _operand(a) and (b is None if unary else _operand(b))


def _operand(text: object) -> bool:
    if not isinstance(text, str) or not 0 < len(text) <= _LONGEST:
        return False
    return text.isascii() and text.isdigit() and (text == "0" or text[0] != "0")
