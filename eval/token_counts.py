"""What rows cost in tokens of a real tokenizer, and whether its vocabulary keeps their texts and their border."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import UserError, did_you_mean, quoted
from ..pipelines.export_rows import COLUMNS, damaged, opened, select
from ..pipelines.hub_source import Say, dataset_here
from ..pipelines.plan import Config, make_plan
from ..pipelines.settings import Declaration
from ..pipelines.store_folder import open_folder

if TYPE_CHECKING:
    from .backends.tokens import Tokens

LENGTHS = (1024, 2048, 4096, 8192)  # that trainers cut rows at
BATCH = 1024  # rows tokenised at once
PLANNED = 1000  # rows of a split that are rendered of a declaration, unless more or fewer are asked for
DIGITS = "8247391650" * 20  # that a tape and a number are made of, to tell what a digit costs
READ = ["len_a", "len_b", *COLUMNS["first"]]


@dataclass(frozen=True)
class Source:
    """One split of a config: its rows, batch by batch."""

    config: str
    split: str
    rows: int
    batches: Callable[[], Iterator[pa.RecordBatch]]


@dataclass
class Counts:
    """Tokens of the rows of one split of a config: of prompt, completion and end token.

    Args:
        config: its name.
        split: its name.
        rows: of the split; about, where nothing is built yet.
        counted: of these, the rows looked at.
        tokens: of these, in all.
        longest: tokens of the longest row.
        digits: of the operands of these rows, in all.
        over: rows of more tokens than each of ``LENGTHS``.
        unspelled: rows whose text does not come back from its tokens.
        merged: rows of which tokens would span the border, were prompt and completion tokenised as one text.
    """

    config: str
    split: str
    rows: int
    counted: int = 0
    tokens: int = 0
    longest: int = 0
    digits: int = 0
    over: dict[int, int] = field(default_factory=lambda: dict.fromkeys(LENGTHS, 0))
    unspelled: int = 0
    merged: int = 0

    @property
    def mean(self) -> float:
        """Tokens a row."""
        return self.tokens / max(self.counted, 1)

    @property
    def per_digit(self) -> float:
        """Tokens for each digit of the operands."""
        return self.tokens / max(self.digits, 1)

    def __add__(self, other: Counts) -> Counts:
        """Return the counts of both splits of a config."""
        names = ("rows", "counted", "tokens", "digits", "unspelled", "merged")
        sums = {name: getattr(self, name) + getattr(other, name) for name in names}
        over = {most: self.over[most] + other.over[most] for most in LENGTHS}
        longest = max(self.longest, other.longest)
        return Counts(self.config, f"{self.split} {other.split}", **sums, longest=longest, over=over)

    def as_json(self) -> dict[str, Any]:
        """Return the counts for programs."""
        names = ("config", "split", "rows", "counted", "mean", "longest", "per_digit", "unspelled", "merged")
        return {name: getattr(self, name) for name in names} | {"over": {str(k): v for k, v in self.over.items()}}

    def add(self, tokens: Tokens, batch: pa.RecordBatch, stage: str) -> None:
        """Count the rows of a batch."""
        before, questions, answers = (batch.column(name).to_pylist() for name in COLUMNS["first"])
        if stage == "first":
            questions = [first + text for first, text in zip(before, questions, strict=True)]
        prompts, completions = tokens.prompts(questions), tokens.completions(answers)
        lengths = np.array([len(p) + len(c) + 1 for p, c in zip(prompts, completions, strict=True)])
        self.counted += len(lengths)
        self.tokens += int(lengths.sum())
        self.longest = max(self.longest, int(lengths.max(initial=0)))
        self.digits += sum(int(pa.compute.sum(batch.column(name)).as_py() or 0) for name in ("len_a", "len_b"))
        for most in LENGTHS:
            self.over[most] += int((lengths > most).sum())
        rows = [question + answer for question, answer in zip(questions, answers, strict=True)]
        spelled = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
        self.merged += sum(tokens.merging(questions, answers))
        texts = tokens.decode([apart[len(tokens.start) :] for apart in spelled])
        self.unspelled += sum(text.removeprefix(tokens.lead) != row for text, row in zip(texts, rows, strict=True))


def digit_costs(tokens: Tokens) -> dict[str, float]:
    """Return the tokens that a digit costs on a tape, ``|8|2``, and in a number."""
    tape, number = tokens.encode(["".join(f"|{digit}" for digit in DIGITS), DIGITS])
    return {"tape": len(tape) / len(DIGITS), "number": len(number) / len(DIGITS)}


def built(directory: str, configs: Sequence[str], splits: Sequence[str], say: Say) -> list[Source]:
    """Return the splits of a finished dataset; ``say`` is told of downloads.

    Raises:
        UserError: there is no such dataset, config or split; while it is read, that a shard is damaged.
    """
    folder = open_folder(dataset_here(directory, say, shards=lambda path: True))

    def batches(shards: Sequence[Any]) -> Iterator[pa.RecordBatch]:
        for shard in shards:
            with opened(folder, shard) as file:
                try:
                    yield from pq.ParquetFile(file).iter_batches(BATCH, columns=READ)
                except pa.ArrowException as error:
                    raise damaged(folder, shard, quoted(error, 160)) from error

    parts = select(folder, configs, splits)
    return [
        Source(part.name, part.split, sum(shard.rows for shard in part.shards), partial(batches, part.shards))
        for part in parts
    ]


def planned(declaration: Declaration, configs: Sequence[str], splits: Sequence[str]) -> list[Source]:
    """Return the splits that a declaration would build: their rows are rendered as they are counted.

    Raises:
        UserError: it builds no rows, or no such config or split.
    """
    plan = make_plan(declaration).configs

    def batches(config: Config) -> Iterator[pa.RecordBatch]:
        for shard in range(config.num_shards):
            numbers = config.numbers(shard)
            block = min(config.block, BATCH)
            for start in range(0, len(numbers), block):
                yield config.render(numbers[start : start + block])

    for wanted, known, option in (
        (configs, sorted({config.name for config in plan}), "--config"),
        (splits, sorted({config.split for config in plan}), "--split"),
    ):
        for name in wanted:
            if name not in known:
                raise UserError(
                    f"nothing planned is named {quoted(name)}{did_you_mean(name, known)}",
                    where=option,
                    allowed=", ".join(known),
                )
    return [
        Source(config.name, config.split, config.rows, partial(batches, config))
        for config in plan
        if (not configs or config.name in configs) and (not splits or config.split in splits)
    ]


def count(
    tokens: Tokens, source: Source, *, stage: str = "second", most: int | None = None, told: Callable[[int], None]
) -> Counts:
    """Count the tokens of rows.

    Args:
        tokens: the tokenizer.
        source: the rows.
        stage: ``first`` puts each row's instruction before its prompt, ``second`` leaves it out.
        most: rows to look at, the first ones, which are a fair sample: rows are shuffled; None for all.
        told: called with the number of rows of each batch counted.
    """
    counts = Counts(source.config, source.split, source.rows)
    for batch in source.batches():
        for start in range(0, batch.num_rows, BATCH):
            part = batch.slice(start, BATCH if most is None else min(BATCH, most - counts.counted))
            if part.num_rows:
                counts.add(tokens, part, stage)
                told(part.num_rows)
        if counts.counted == most:
            break
    return counts
