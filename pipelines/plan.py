"""From a declaration to configs: which expressions, how many rows and bytes, cut into how many shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import UserError
from ..tm import machine
from ..tm.columns import I64, U64, Operands
from .expressions import notes_of_own
from .rows import STEP_VIEWS, Work, planned_rows, render_rows
from .sampling.classes import TOGETHER, ClassSampler, Wanted, class_cells, merged, short_run_cells
from .sampling.enumerate_small import DRAWN, MOST_LISTED, Told, in_parts, known_to_fit, resolve, too_many
from .sampling.random import splitmix64, text_key
from .sampling.split import PAIR, distinct, expression_hash
from .settings import OF_STREAMS, Declaration, TaskSettings

SHARD_TEXT = 100_000_000  # bytes of text a shard holds at most, about
SMALL_SHARD, EVEN_SHARDS = 16_000_000, 8  # smaller configs still make up to 8 shards of this size to share out
MOST_SHARDS = 99_999  # five digits in a shard's name
BLOCK_TEXT = 10_000_000  # bytes of text rendered at once, a row group: more falls out of the processor's cache
SAMPLE = 64  # expressions rendered to estimate a config
RUN_VIEWS = ("full", "scratchpad", "commands")  # they write whole runs
# Compressed bytes a byte of text, measured on operands of 1 to 100 digits; one task may have half as many, or twice.
DISK_RATIO = {
    "one_step": 0.24,
    "aligner": 0.38,
    "raw": 0.9,
    "full": 0.07,
    "scratchpad": 0.055,
    "commands": 0.1,
    "slips": 0.24,
}
FOOTER = 4000  # bytes of a shard that describe the rest, about
TEXT_RATE, SLIP_RATE = 130e6, 20e6  # bytes of text a second and worker, measured; only for the time that plan prints

Draw = Callable[[ClassSampler, I64], tuple[Operands, I64]]  # ``ClassSampler.operands``, or what keeps them


@dataclass(frozen=True, eq=False)
class ExpressionSet:
    """The expressions of a config, numbered: those of some cells, or some of them.

    Args:
        parts: cells, each with the numbers of the expressions taken from them (None for all).
    """

    parts: tuple[tuple[ClassSampler, I64 | None], ...]

    @cached_property
    def sizes(self) -> list[int]:
        """Number of expressions of each part."""
        return [cells.num_expressions if kept is None else len(kept) for cells, kept in self.parts]

    def __len__(self) -> int:
        return sum(self.sizes)

    @property
    def names(self) -> tuple[str, ...]:
        """The variants' names."""
        return tuple(name for cells, _ in self.parts for name in cells.names)

    @cached_property
    def classes(self) -> dict[tuple[int, int], int]:
        """Number of expressions of each class (len a, len b)."""
        total: Counter[tuple[int, int]] = Counter()
        for cells, kept in self.parts:
            total.update(cells.classes(kept))
        return dict(total)

    @cached_property
    def sample(self) -> tuple[I64, Operands, I64]:
        """A few expressions from all over the set, as (numbers, operands, variant)."""
        numbers = self.spread(SAMPLE)
        return numbers, *self.operands(numbers)

    def spread(self, most: int) -> I64:
        """Return numbers from all over the set: in the order of the classes, so that chance decides little."""
        return distinct(np.linspace(0, len(self) - 1, min(most, len(self))).astype(np.int64))

    def operands(self, numbers: I64, draw: Draw = ClassSampler.operands) -> tuple[Operands, I64]:
        """Return the expressions of these numbers, and the index of each one's variant in ``names``."""
        drawn: list[tuple[I64, Operands]] = []
        variant = np.zeros(len(numbers), np.int64)
        start = named = 0
        for (cells, kept), size in zip(self.parts, self.sizes, strict=True):
            every = np.flatnonzero((numbers >= start) & (numbers < start + size))
            for rows in np.split(every, range(DRAWN, len(every), DRAWN)):
                if len(rows):
                    own = numbers[rows] - start
                    operands, which = draw(cells, own if kept is None else kept[own])
                    drawn.append((rows, operands))
                    variant[rows] = which + named
            start, named = start + size, named + len(cells.names)
        return merged(drawn, len(numbers)), variant


@dataclass(frozen=True, eq=False)
class Config:
    """One view of one split of a task: what is written under ``<task>-<view>/<split>-*``.

    Args:
        settings: the task's settings.
        view: the view.
        split: the split.
        population: its expressions.
        rows: rows expected, from a rendered sample.
        text: bytes of prompts, completions and traces expected.
    """

    settings: TaskSettings
    view: str
    split: str
    population: ExpressionSet
    rows: int
    text: int

    @property
    def name(self) -> str:
        """The config's name on disk and on the Hub."""
        return f"{self.settings.task}-{self.view}"

    @property
    def identity(self) -> str:
        """Identity of the rows."""
        return self.settings.config_identity(self.view, self.split)

    @property
    def num_shards(self) -> int:
        """Shards: as ``rows_per_shard`` asks, or a power of two, so that 2, 4 or 8 readers get the same share each."""
        if self.settings.rows_per_shard is not None:
            return max(1, min(-(-self.rows // self.settings.rows_per_shard), len(self.population)))
        least = max(-(-self.text // SHARD_TEXT), min(EVEN_SHARDS, -(-self.text // SMALL_SHARD)))
        return int(min(2 ** max(0, (least - 1).bit_length()), MOST_SHARDS))

    @property
    def block(self) -> int:
        """Expressions rendered at once."""
        return max(16, BLOCK_TEXT * len(self.population) // max(self.text, 1))

    @property
    def disk(self) -> int:
        """Bytes on disk, about."""
        return int(self.text * DISK_RATIO[self.view]) + self.num_shards * FOOTER

    @property
    def seconds(self) -> float:
        """Seconds that one worker takes, about; slips are drawn row by row."""
        return self.text / (SLIP_RATE if self.view == "slips" else TEXT_RATE)

    def shard_path(self, shard: int) -> str:
        """Return the path of a shard inside the dataset folder."""
        return f"{self.name}/{self.split}-{shard:05d}-of-{self.num_shards:05d}.parquet"

    def numbers(self, shard: int) -> I64:
        """Return the expressions of a shard in their order: every ``num_shards``-th one, shuffled."""
        numbers = np.arange(shard, len(self.population), self.num_shards)
        key = np.uint64(text_key(f"order {self.settings.seed} {self.name} {self.split}"))
        return numbers[np.argsort(splitmix64(numbers.astype(np.uint64) + key), kind="stable")]

    def blocks(self, shard: int) -> list[I64]:
        """Return the expressions of a shard in their order, cut into those rendered at once: a row group each."""
        numbers = self.numbers(shard)
        return [numbers[start : start + self.block] for start in range(0, len(numbers), self.block)]

    def render(self, numbers: I64) -> pa.RecordBatch:
        """Return the rows of these expressions."""
        return render_rows(self.work(numbers))

    def planned(self, numbers: I64, draw: Draw = ClassSampler.operands) -> pa.RecordBatch:
        """Return what tells the rows of these expressions apart, without their texts: see ``rows.planned_rows``."""
        return planned_rows(self.work(numbers, draw))

    def num_rows(self, numbers: I64) -> I64:
        """Return how many rows each of these expressions has."""
        parts = np.split(numbers, range(DRAWN, len(numbers), DRAWN))
        return np.concatenate([np.bincount(self.work(part).expressions, minlength=len(part)) for part in parts])

    def work(self, numbers: I64, draw: Draw = ClassSampler.operands) -> Work:
        """Return the work of rendering these expressions."""
        return Work(self.settings, self.view, *self.population.operands(numbers, draw), self.population.names)


class TokenCounter(Protocol):
    """A tokenizer, as plans need one; ``eval`` has it."""

    @property
    def sha256(self) -> str:
        """Of the file that holds its vocabulary."""
        ...

    def lengths(self, rows: pa.RecordBatch) -> list[int]:
        """Return the tokens of each row: prompt, completion and end token."""
        ...

    def costs(self, config: Config, told: Told) -> dict[str, Any]:
        """Return what is to be known of some rows of a config: see ``eval.token_counts.summary``."""
        ...


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that a declaration builds, and what it leaves out (sentences for people).

    ``tokens`` says what rows cost, by the names of config and split, where the declaration names a tokenizer.
    """

    declaration: Declaration
    configs: tuple[Config, ...]
    notes: tuple[str, ...]
    tokens: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)


def make_plan(declaration: Declaration, told: Told = lambda text: None, counter: TokenCounter | None = None) -> Plan:
    """Return the plan of a declaration: exact classes and expressions, rows and bytes from a rendered sample.

    Args:
        declaration: the declaration; a budget in it is resolved.
        told: is told what is being planned; a plan of many classes takes minutes.
        counter: the tokenizer that the declaration names.

    Raises:
        UserError: nothing at all would be built, or more than a plan can list; a budget cannot be met.
    """
    if declaration.unresolved:
        from .resolve_budget import resolve_budget  # inside: it plans, too

        declaration = resolve_budget(declaration, counter, told)
    configs, notes = list[Config](), list[str]()
    if budgets := [task.budget for task in declaration.tasks if task.budget]:
        asked, rows = f"{budgets[0].asked:,} {budgets[0].unit}", sum(budget.rows for budget in budgets)
        notes.append(f"{asked} of train are asked for: {rows:,} rows")
    if of_streams := [name for name in OF_STREAMS if getattr(declaration, name) is not None]:
        notes.append(f"{' and '.join(of_streams)}: of streams alone (caef_data.stream); a build writes all rows")
    for settings in declaration.tasks:
        notes += [*machine(settings.task).notes(), *notes_of_own(settings)]
        missing = machine(settings.task).missing_views()
        notes += [f"{settings.task}: {view} is left out, {missing[view]}" for view in settings.left_out()]
        for split in settings.splits:
            own, left_out = split_configs(settings, split, settings.views_of(split), told)
            configs += own
            notes += left_out
    if not configs:
        why = "".join(f"; {note}" for note in notes[:2] if "left out" in note or "--max-steps" in note)
        more = f"raise --max-steps{', or give other words' * ('words' in why)}"
        advice = more if why else "raise --max, --num or --num-test"
        if any(settings.expressions for settings in declaration.tasks):
            advice = "ask for their splits too (--split), or name other expressions"
        raise UserError(f"this declaration builds no rows at all{why}", next_step=advice)
    tokens = {(one.name, one.split): counter.costs(one, told) for one in configs} if counter else {}
    return Plan(declaration, tuple(configs), tuple(dict.fromkeys(notes)), tokens)


def split_configs(
    settings: TaskSettings, split: str, views: Iterable[str], told: Told = lambda text: None
) -> tuple[list[Config], list[str]]:
    """Return the configs of a task's split, in the order of the views, and notes on what is left out."""
    expressions = _SplitExpressions(settings, split, told)
    configs, notes = [], []
    for view in views:
        told(f"{settings.task} {split} {view}")
        population = expressions.of(view)
        if len(population):
            configs.append(_config(settings, view, split, population))
        else:
            notes.append(f"{settings.task}-{view}: the split {split} has no rows and is not written")
    return configs, notes + expressions.notes


class _SplitExpressions:
    """The expressions of one split of a task, view by view."""

    def __init__(self, settings: TaskSettings, split: str, told: Told) -> None:
        self.settings, self.split, self.told = settings, split, told
        self.machine = settings.machine()
        self.notes: list[str] = []

    def of(self, view: str) -> ExpressionSet:
        """Return the expressions of a view."""
        if view in RUN_VIEWS:
            return self.short_halting if self.wanted_halting else self.short
        return self.with_halting if self.wanted_halting and view not in STEP_VIEWS else self.classes

    @cached_property
    def wanted(self) -> Wanted:
        """The cells of the classes."""
        return class_cells(self.settings, self.split)

    @cached_property
    def wanted_halting(self) -> Wanted:
        """The cells of the extra expressions that halt soon, of a task whose other runs are long."""
        return short_run_cells(self.settings, self.split) if self.split != "stress" else []

    @cached_property
    def classes(self) -> ExpressionSet:
        """Those of the classes; of a machine that may run on for ever those that halt within ``max_steps``."""
        resolved = self._resolved(self.wanted)
        return resolved if known_to_fit(self.settings, whole=False) else self._that_halt(resolved, "are left out")

    def _that_halt(self, resolved: ExpressionSet, fate: str = "get no rows of whole runs") -> ExpressionSet:
        [(cells, _)], most, own = resolved.parts, self.settings.max_steps, self.machine
        about = f"{self.settings.task} {self.split}"
        steps = in_parts(cells, lambda some: own.run_lengths(some, most), lambda text: self.told(f"{about}, {text}"))
        what = "words" if self.machine.numbers is False else "expressions"
        for count, why in (
            ((steps < 0).sum(), f"do not halt within {most:,} steps (--max-steps changes that)"),
            ((steps == 0).sum(), "halt before their first step"),
        ):
            if count:
                told = f"{count:,} of {len(steps):,} {self.split} {what}"
                self.notes.append(f"{self.settings.task}: {told} {why} and {fate}")
        return ExpressionSet(((cells, np.flatnonzero(steps > 0)),))

    @cached_property
    def halting(self) -> ExpressionSet:
        """The extra expressions that halt soon."""
        return self._resolved(self.wanted_halting)

    @cached_property
    def short_halting(self) -> ExpressionSet:
        """Those of them whose runs are short enough to be written whole."""
        return self.halting if known_to_fit(self.settings, whole=True) else self._that_halt(self.halting)

    @cached_property
    def short(self) -> ExpressionSet:
        """Those of the classes whose runs are short enough to be written whole."""
        most = self.settings.max_steps
        if self.settings.expressions is not None and not self.machine.walks:
            return self._that_halt(self.classes)
        if not self.machine.halts:
            return self.classes
        short = [cell for cell in self.wanted if self.machine.max_num_steps(*cell[:2]) <= most]
        if len(short) == len(self.wanted):
            return self.classes
        kept, every = self._resolved(short), len(self.classes.classes)  # as configs are counted: those with rows
        if left := every - len(kept.classes):
            self.notes.append(
                f"{self.settings.task}: {left:,} of {every:,} {self.split} classes have runs of more than {most:,}"
                " transitions and get no rows of whole runs (--max-steps changes that)"
            )
        return kept

    @cached_property
    def with_halting(self) -> ExpressionSet:
        """Those of the classes, and the halting ones that these do not hold already."""
        (classes, _), (halting, _) = (*self.classes.parts, *self.halting.parts)
        if halting.num_expressions > MOST_LISTED:
            raise too_many(self.settings, self.split, halting.num_expressions)
        pairs, hashes = self._looked_at(halting, np.arange(halting.num_expressions))
        shared = np.flatnonzero(np.isin(classes.len_a * PAIR + classes.len_b, pairs))
        runs = [np.arange(n) + start for start, n in zip(classes.start[shared], classes.count[shared], strict=True)]
        _, held = self._looked_at(classes, np.concatenate([np.empty(0, np.int64), *runs]))
        return ExpressionSet(((classes, None), (halting, np.flatnonzero(~np.isin(hashes, held)))))

    def _resolved(self, wanted: Wanted) -> ExpressionSet:
        return ExpressionSet(((resolve(self.settings, self.split, wanted, self.told), None),))

    def _looked_at(self, cells: ClassSampler, numbers: I64) -> tuple[I64, U64]:
        """Return the pairs of lengths that occur among some expressions, and the hash of each, some at a time."""
        pairs: set[int] = set()
        hashes = np.empty(len(numbers), np.uint64)
        for start in range(0, len(numbers), TOGETHER):
            self.told(f"{self.settings.task} {self.split}, {start:,} of {len(numbers):,} expressions compared")
            operands, _ = cells.operands(numbers[start : start + TOGETHER])
            pairs.update(distinct(operands.a.length * PAIR + operands.second.length).tolist())
            hashes[start : start + TOGETHER] = expression_hash(self.machine, operands)
        return np.array(sorted(pairs), np.int64), hashes


def _config(settings: TaskSettings, view: str, split: str, population: ExpressionSet) -> Config:
    numbers, operands, variant = population.sample
    batch = render_rows(Work(settings, view, operands, variant, population.names))
    texts = [text_bytes(batch[name]) for name in ("prompt", "completion", "trace") if name in batch.schema.names]
    total = len(population)
    rows, text = batch.num_rows * total // len(numbers), sum(texts) * total // len(numbers)
    config = Config(settings, view, split, population, rows, text)
    if config.num_shards > MOST_SHARDS:
        raise UserError(
            f"{settings.task}: {rows:,} rows in shards of {settings.rows_per_shard:,} are {config.num_shards:,} shards",
            where="rows_per_shard (--rows-per-shard)",
            allowed=f"at most {MOST_SHARDS:,} shards: {-(-rows // MOST_SHARDS):,} rows a shard or more",
        )
    return config


def text_bytes(column: pa.Array) -> int:
    """Return the bytes of text of a string column, or of a column of lists of strings."""
    if pa.types.is_list(column.type):
        column = column.flatten()
    return int(pc.sum(pc.binary_length(column)).as_py() or 0)
