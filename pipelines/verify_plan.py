"""The rows of a part of a shard, beside those that the plan gives for it: none missing, none added, in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import quoted
from ..tm.columns import I64, Number, Operands
from .plan import Config, ExpressionSet
from .rows import planned_rows
from .sampling.classes import TOGETHER, ClassSampler, merged

KEYS = {"one_step": ("a", "b", "step", "far"), "aligner": ("a", "b", "direction")}  # what tells rows apart
OPERANDS = ("a", "b")
Key = tuple[Any, ...]
HELD = 64_000_000  # digits that a worker keeps of the expressions that it has drawn, a byte each


class Draws:
    """The expressions of cells, drawn once for all the views and shards that hold them.

    Args:
        keep: whether they are: else each block is drawn when it is wanted.
    """

    def __init__(self, keep: bool) -> None:
        self.keep = keep
        self.held: dict[int, tuple[ClassSampler, Operands, I64]] = {}

    def operands(self, population: ExpressionSet, numbers: I64) -> tuple[Operands, I64]:
        """Return the same as ``population.operands``."""
        if not self.keep:
            return population.operands(numbers)
        found: list[tuple[I64, Operands]] = []
        variant = np.zeros(len(numbers), np.int64)
        start = named = 0
        for (cells, kept), size in zip(population.parts, population.sizes, strict=True):
            rows = np.flatnonzero((numbers >= start) & (numbers < start + size))
            if len(rows):
                own = numbers[rows] - start
                operands, law = self._of(cells, own if kept is None else kept[own])
                found.append((rows, operands))
                variant[rows] = law + named
            start, named = start + size, named + len(cells.names)
        return merged(found, len(numbers)), variant

    def _of(self, cells: ClassSampler, numbers: I64) -> tuple[Operands, I64]:
        held = self.held.get(id(cells))
        if held is None:
            widths = int(cells.len_a.max(initial=1)), int(cells.len_b.max(initial=0))
            if (cells.len_a == 0).any() or sum(widths) * cells.num_expressions > HELD:
                return cells.operands(numbers)
            held = self.held[id(cells)] = cells, *_drawn(cells, widths)
        _, operands, law = held
        return operands.take(numbers), law[numbers]


def _drawn(cells: ClassSampler, widths: tuple[int, int]) -> tuple[Operands, I64]:
    """Return all expressions of cells, whose operands have at most so many digits."""
    total = cells.num_expressions
    columns = [(np.zeros((width, total), np.uint8), np.zeros(total, np.int64)) for width in widths]
    laws = np.zeros(total, np.int64)
    unary = False
    for start in range(0, total, TOGETHER):
        numbers = np.arange(start, min(start + TOGETHER, total))
        operands, laws[numbers] = cells.operands(numbers)
        unary = operands.b is None
        for number, (planes, length) in zip((operands.a, operands.b), columns, strict=True):
            if number is not None:
                width = min(number.width, len(planes))  # what is above is zero
                planes[:width, start : start + len(numbers)] = number.planes[:width]
                length[numbers] = number.length
    a, b = (Number(*column) for column in columns)
    return Operands(a, None if unary else b), laws


@dataclass(frozen=True, eq=False)
class Planned:
    """What the plan gives for a part.

    Args:
        config: what the shard is a part of.
        shard: its number.
        first: the first block of expressions.
        stop: the block that ends the part; None for all that follow.
    """

    config: Config
    shard: int
    first: int = 0
    stop: int | None = None

    def batches(self, draws: Draws) -> Iterator[pa.RecordBatch]:
        """Yield the columns that tell rows apart, and their variants, plainly stored."""
        for numbers in self.config.blocks(self.shard)[self.first : self.stop]:
            batch = planned_rows(self.config.work(*draws.operands(self.config.population, numbers)))
            yield pa.record_batch([plain(column) for column in batch.columns], names=batch.schema.names)


class Comparison:
    """Compares batches of rows, one after another, with the planned ones.

    As long as both are the same, columns are compared whole. From the first batch on that differs, the keys of both
    are kept, to say at the end what is missing, what was added, or that the order is another.
    """

    def __init__(self, planned: Planned, draws: Draws) -> None:
        self.keys = KEYS.get(planned.config.view, OPERANDS)
        self.task = planned.config.settings.task
        self.batches = planned.batches(draws)
        self.waiting: pa.RecordBatch | None = None  # planned rows that no found row stands beside yet
        self.found: list[Key] = []  # from the first difference on
        self.wanted: dict[Key, list[str]] = {}  # the same of planned rows, with their variants
        self.order: list[Key] = []
        self.begin: int | None = None  # the row where that begins
        self.variants: list[tuple[int, str, str]] = []  # row, planned and found variant

    def batch(self, held: pa.RecordBatch, at: int) -> None:
        """Compare the next rows, the first of which stands at row ``at``."""
        columns = {name: plain(held.column(name)) for name in held.schema.names if name in (*self.keys, "variant")}
        if "far" in self.keys:
            columns["far"] = _far(held)
        wanted = self._next(held.num_rows)
        same = wanted.num_rows == held.num_rows and all(
            name in columns and columns[name].equals(wanted.column(name)) for name in self.keys
        )
        variants = columns.get("variant", pa.nulls(held.num_rows, pa.string()))
        if same and self.begin is None:
            self._variants(variants, wanted.column("variant"), at)
            return
        if self.begin is None:
            self.begin = at
        self._keep(wanted)
        keys = zip(*(_listed(columns.get(name), held.num_rows) for name in self.keys), strict=True)
        self.found += [(*key, variant) for key, variant in zip(keys, variants.to_pylist(), strict=True)]

    def _next(self, rows: int) -> pa.RecordBatch:
        """Return the next planned rows, as many as there are up to ``rows``."""
        held = [] if self.waiting is None else [self.waiting]
        while sum(one.num_rows for one in held) < rows or not held:
            following = next(self.batches, None)
            if following is None:
                break
            held.append(following)
        if not held:
            return pa.record_batch([], names=[])
        joined = held[0] if len(held) == 1 else pa.concat_batches(held)
        self.waiting = joined.slice(rows)
        return joined.slice(0, rows)

    def _variants(self, found: pa.Array, wanted: pa.Array, at: int) -> None:
        if found.equals(wanted):
            return
        off = pc.fill_null(pc.not_equal(found, wanted), True)
        for row in pc.indices_nonzero(off).to_pylist():
            self.variants.append((at + row, wanted[row].as_py(), found[row].as_py()))

    def _keep(self, wanted: pa.RecordBatch) -> None:
        if not wanted.num_rows:
            return
        keys = zip(*(wanted.column(name).to_pylist() for name in self.keys), strict=True)
        for key, variant in zip(keys, wanted.column("variant").to_pylist(), strict=True):
            self.wanted.setdefault(key, []).append(variant)
            self.order.append(key)

    def finish(self) -> list[tuple[str, int | None, str]]:
        """Return (kind, row, message) of all that differs."""
        while (left := self._next(1 << 20)).num_rows:
            if self.begin is None:
                self.begin = 0
            self._keep(left)
        found = [("variant", row, _variant(wanted, value)) for row, wanted, value in self.variants]
        return found + (self._sorted_out() if self.begin is not None else [])

    def _sorted_out(self) -> list[tuple[str, int | None, str]]:
        begin = self.begin or 0
        said: list[tuple[str, int | None, str]] = []
        left = {key: list(variants) for key, variants in self.wanted.items()}
        added = []
        for row, (*parts, variant) in enumerate(self.found, begin):
            key = tuple(parts)
            planned = left.get(key)
            if not planned:
                added.append((row, key))
                continue
            right = planned.pop()
            if variant != right:
                said.append(("variant", row, _variant(right, variant)))
        missing = [key for key, planned in left.items() if planned]
        if added:
            row, key = added[0]
            message = f"{_rows(len(added))} that the declaration does not give, the first: {self._shown(key)}"
            said.append(("added", row, message))
        if missing:
            count = sum(map(len, left.values()))
            message = f"{_rows(count)} that the declaration gives {'is' if count == 1 else 'are'} not there, the first:"
            said.append(("missing", None, f"{message} {self._shown(missing[0])}"))
        if not added and not missing:
            kept = [tuple(parts) for *parts, _ in self.found]
            moved = [at for at, pair in enumerate(zip(kept, self.order, strict=True)) if pair[0] != pair[1]]
            if moved:  # none: a column is of another type, which is said of the schema
                message = (
                    f"the rows stand in another order from here on: {self._shown(self.order[moved[0]])} comes here"
                )
                said.append(("order", begin + moved[0], message))
        return said

    def _shown(self, key: Key) -> str:
        named = dict(zip(self.keys, key, strict=True))
        words = [self.task, *(quoted(named[name], 30) for name in OPERANDS if named[name] is not None)]
        words += [f"{name} {quoted(named[name])}" for name in ("step", "direction") if named.get(name) is not None]
        return " ".join(words)


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _variant(wanted: object, found: object) -> str:
    return f"variant: expected {quoted(wanted)}, found {quoted(found)}"


def _listed(column: pa.Array | None, size: int) -> list[Any]:
    return [None] * size if column is None else list(column.to_pylist())


def _far(held: pa.RecordBatch) -> pa.Array:
    """Return the prompts of the rows whose step is null: these tell such rows apart."""
    step = held.column("step") if "step" in held.schema.names else pa.nulls(held.num_rows, pa.int64())
    if not step.null_count:
        return pa.nulls(held.num_rows, pa.string())
    return pc.if_else(step.is_null(), plain(held.column("prompt")), pa.scalar(None, pa.string()))


def plain(column: pa.Array) -> pa.Array:
    """Return a column as it is, texts as plain strings."""
    if pa.types.is_dictionary(column.type):
        return column.dictionary_decode()
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        return column.cast(pa.string())
    return column
