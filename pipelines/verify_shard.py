"""Verify one part of a shard: runs in a worker process and gives back findings and hashes, never rows."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
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
from ..errors import UserError, clip
from ..tm.check.rows import COLUMNS, Known, check_rows, count_transitions, known_tasks
from .split import sides

KEPT = 50  # findings kept per part; the rest is counted
BATCH = 8_192
_SIDES, _CELLS = 10_000, 2_000_000  # expressions, and digits, given to the split function at a time
_LONGEST = 4_000  # digits of an operand that a build can hold
# (n, 2): 128 bits each; the chance that two of 10**7 different texts collide is below 10**-24
Hashes = npt.NDArray[np.uint64]
NO_HASHES: Hashes = np.zeros((0, 2), np.uint64)
_STEP = ("state", "next_state", "call")
UNORDERED = frozenset({"add", "mul", "equal"})  # a op b and b op a are one expression for the split
_NOT_PARQUET = (pa.ArrowException, OSError, ValueError)  # what reading a damaged file raises


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Args:
        kind: manifest, file, schema, row, duplicate, overlap, split or instruction.
        path: the file, relative to the dataset's folder.
        row: index of the row in the file, None where the whole file is meant.
        message: what is wrong.

    """

    kind: str
    path: str
    row: int | None
    message: str


@dataclass(frozen=True)
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


@dataclass
class PartResult:
    """What a part gives back.

    Attributes:
        checked: rows re-executed; ``transitions``: transitions among them.
        findings: at most ``KEPT``; ``num_findings``: how many there were.
        rows: 128 bits of hash per row read, in order, of what must not occur twice.
        expressions: the same per distinct expression; ``first``: the row where each stands first.
        pairs: the same with the operands in sorted order where the split takes no account of it.
        instructions: the distinct instructions seen.

    """

    checked: int = 0
    transitions: int = 0
    findings: list[Finding] = field(default_factory=list)
    num_findings: int = 0
    rows: Hashes = field(default_factory=lambda: NO_HASHES)
    expressions: Hashes = field(default_factory=lambda: NO_HASHES)
    pairs: Hashes = field(default_factory=lambda: NO_HASHES)
    first: list[int] = field(default_factory=list)
    instructions: set[str] = field(default_factory=set)

    def add(self, finding: Finding) -> None:
        """Count a finding and keep it if there is room."""
        self.num_findings += 1
        if len(self.findings) < KEPT:
            self.findings.append(finding)


def verify_part(part: Part) -> PartResult:
    """Check a part's file, re-execute its rows and collect the digests for the checks across files."""
    result, path = PartResult(), part.directory / part.path
    try:
        if part.sha256 is not None:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != part.sha256:
                result.add(Finding("file", part.path, None, f"sha256 is {found}, the manifest says {part.sha256}"))
    except OSError as error:
        result.add(Finding("file", part.path, None, f"cannot be read: {error.strerror or error}"))
        return result
    collector = _Collector(part, result)
    batches = _batches(path, part)
    while True:
        try:
            batch = next(batches, None)
        except _NOT_PARQUET as error:
            result.add(Finding("file", part.path, None, f"cannot be read: {clip(str(error), 200)}"))
            break
        if batch is None:
            break
        collector.batch(batch)
    collector.finish()
    return result


def _batches(path: Path, part: Part) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a part, a few thousand at a time."""
    wanted = COLUMNS[part.view]
    with pq.ParquetFile(path) as file:
        names = [name for name in wanted if name in file.schema_arrow.names]
        for batch in file.iter_batches(BATCH, row_groups=list(part.groups), columns=names):
            batch.validate(full=True)  # a damaged file may decode to offsets out of bounds or to no UTF-8
            yield batch


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
        if len(column.dictionary) > len(column):
            return _to_list(column.dictionary_decode())
        values = [*_to_list(column.dictionary), None]
        return [values[index] for index in column.indices.fill_null(-1).to_numpy().tolist()]
    if column.null_count and not _is_text(column.type):
        return list(column.to_pylist())
    return list(column.to_numpy(zero_copy_only=False).tolist())


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _text_hashes(column: pa.Array) -> Hashes:
    """Return two 64-bit hashes of each text under different keys, (n, 2); equal texts have equal ones."""
    plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    texts = pl.Series(pl.from_arrow(plain)).cast(pl.String)
    return np.stack([texts.hash(seed=seed).to_numpy() for seed in (1, 2)], axis=1)


def _mixed(one: Hashes, other: Hashes) -> Hashes:
    """Combine two columns of hashes; the order of the two matters."""
    return one * np.uint64(0x9E37_79B9_7F4A_7C15) + other


class _Collector:
    """Checks batches one after another and gathers the hashes."""

    def __init__(self, part: Part, result: PartResult) -> None:
        self.part, self.result, self.at = part, result, part.first_row
        self.rows: list[Hashes] = []
        self.expressions: list[Hashes] = []  # of each batch, the distinct ones ...
        self.first: list[int] = []  # ... the row where each stands first, and its operands
        self.operands: list[tuple[Any, Any]] = []
        self.known: Known = {}
        self.check = check_rows if part.task in known_tasks() else check_by_machine

    def batch(self, held: pa.RecordBatch) -> None:
        part, result = self.part, self.result
        columns = {name: _to_list(held.column(name)) for name in held.schema.names}
        for name in COLUMNS[part.view]:
            columns.setdefault(name, [None] * held.num_rows)
        self._collect(held, columns)
        chosen, picked = self._sample(columns)
        for index, message in self.check(part.task, part.view, part.dialect, picked, self.known):
            row = self.at + (index if chosen is None else chosen[index])
            result.add(Finding("row", part.path, row, message))
        result.checked += len(picked["prompt"])
        result.transitions += count_transitions(part.view, picked)
        self.at += held.num_rows

    def _sample(self, columns: dict[str, list[Any]]) -> tuple[list[int] | None, dict[str, list[Any]]]:
        """Choose the rows to re-execute by their index alone, always the same ones."""
        if self.part.fraction >= 1:
            return None, columns
        bound, rows = int(self.part.fraction * 2**32), range(len(columns["prompt"]))
        chosen = [i for i in rows if (self.at + i) * 2_654_435_761 % 2**32 < bound or self.at + i == 0]
        return chosen, {name: [values[i] for i in chosen] for name, values in columns.items()}

    def _collect(self, held: pa.RecordBatch, columns: dict[str, list[Any]]) -> None:
        pairs = _mixed(_text_hashes(held.column("a")), _text_hashes(held.column("b")))
        if self.part.view == "one_step":
            self.rows.append(_text_hashes(held.column("prompt")))
        elif "direction" in held.schema.names:
            self.rows.append(_mixed(pairs, _text_hashes(held.column("direction"))))
        else:
            self.rows.append(pairs)
        distinct, first = unique(pairs)
        self.expressions.append(distinct)
        self.first += (first + self.at).tolist()
        a, b = columns["a"], columns["b"]
        self.operands += [(a[row], b[row]) for row in first.tolist()]
        self.result.instructions.update(str(text) for text in set(columns["instruction"]))

    def finish(self) -> None:
        """Put the hashes together and ask the split function about the part's distinct expressions."""
        result = self.result
        result.rows = np.concatenate([NO_HASHES, *self.rows])
        result.expressions, at = unique(np.concatenate([NO_HASHES, *self.expressions]))
        operands = [self.operands[i] for i in at.tolist()]
        result.first = [self.first[i] for i in at.tolist()]
        result.pairs = result.expressions
        task = self.part.task
        if task in UNORDERED or (task not in known_tasks() and tm.machine(task).commutative):
            columns = [pa.array([str(pair[i]) for pair in operands], pa.string()) for i in (0, 1)]
            one, other = (_text_hashes(column) for column in columns)
            result.pairs = _mixed(np.minimum(one, other), np.maximum(one, other))
        self._sides(operands)

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
                shown = " ".join(clip(x, 30) for x in key if x is not None)
                message = f"{task} {shown} stands in {part.split}, the split function says {side}"
                self.result.add(Finding("split", part.path, row, message))


def unique(hashes: Hashes) -> tuple[Hashes, npt.NDArray[np.intp]]:
    """Return the distinct rows, sorted, and where each stands first."""
    if not len(hashes):
        return hashes, np.zeros(0, np.intp)
    order, same = ranked(hashes)
    first = order[np.concatenate(([True], ~same))]
    return hashes[first], first


def ranked(hashes: Hashes) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Return a stable sorting order, and for each but the first whether it equals the one before."""
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))
    held = hashes[order]
    return order, (held[1:] == held[:-1]).all(axis=1)


def _expression(unary: bool, a: object, b: object) -> bool:
    """Say whether a and b look like operands: others are reported with their rows and belong to no side."""
    return _operand(a) and (b is None if unary else _operand(b))


def _operand(text: object) -> bool:
    if not isinstance(text, str) or not 0 < len(text) <= _LONGEST:
        return False
    return text.isascii() and text.isdigit() and (text == "0" or text[0] != "0")


# ----------------------------------------------------------------------------------------------------------
# A user's own machine has no hand-written grammar: its rows are compared with what the machine itself says


def check_by_machine(
    task: str, view: str, dialect: str, columns: Mapping[str, Sequence[Any]], known: Known
) -> list[tuple[int, str]]:
    """Compare rows with the public functions of ``caef_data.tm``; the same signature as ``check_rows``."""
    names, findings = COLUMNS[view], []
    for index, values in enumerate(zip(*(columns[name] for name in names), strict=True)):
        row = dict(zip(names, values, strict=True))
        try:
            wrong = _by_machine(task, view, dialect, row)
        except (UserError, ValueError, IndexError) as error:
            wrong = f"{task} {clip(row['a'])} {clip(row['b'])}: {str(error).splitlines()[0]}"
        if wrong is not None:
            findings.append((index, wrong))
    return findings


def _by_machine(task: str, view: str, dialect: str, row: Mapping[str, Any]) -> str | None:
    a, b = row["a"], row["b"]
    expected: dict[str, object] = {"task": task, "len_a": len(a), "len_b": len(b or "")}
    if view == "one_step":
        step = tm.transition(task, a, b, row["step"], dialect=dialect)
        expected |= {name: getattr(step, name) for name in ("prompt", "completion", "state", "next_state", "call")}
    elif view in ("aligner", "raw"):
        text, whole = tm.align_out(task, a, b)
        question, _, answer = whole.rpartition("=")
        texts = (text, whole)
        if view == "raw" or row["direction"] != "out":
            texts = (question + "=", answer if view == "raw" else tm.align_in(question + "="))
        expected |= dict(zip(("prompt", "completion"), texts, strict=True))
    else:
        expected |= _runs(view, list(tm.transitions(task, a, b, dialect=dialect)))
    for name, value in expected.items():
        if row[name] != value:
            return f"{name}: expected {clip(value)}, found {clip(row[name])}"
    return None


def _runs(view: str, steps: list[tm.Transition]) -> dict[str, object]:
    """Return the columns of a whole run's row."""
    texts = [step.completion for step in steps]
    ended = [text if text.endswith("\n") else text + "\n" for text in texts]
    columns: dict[str, object] = {"prompt": steps[0].prompt, "completion": texts[-1]}
    if view == "full":
        columns |= {"n_steps": len(texts), "trace": texts}
    elif view == "scratchpad":
        columns["completion"] = "".join(ended)
    else:
        columns["completion"] = "".join(text.split("\n")[1] + "\n" for text in texts[:-1]) + ended[-1]
    return columns
