"""What rows cost in tokens of a real tokenizer, and whether its vocabulary keeps their texts: ``caef-data tokens``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import UserError, did_you_mean, printable_path, quoted
from ..pipelines.declaration import load_declaration, shipped_declarations
from ..pipelines.export_rows import COLUMNS, Style, damaged, opened, select
from ..pipelines.hub_source import Say, dataset_here
from ..pipelines.plan import Config, make_plan
from ..pipelines.settings import Declaration
from ..pipelines.store import open_folder
from ..pipelines.terminal import Bar, new_table, open_console, print_table

if TYPE_CHECKING:
    from .backends.tokens import Tokens

LENGTHS = (1024, 2048, 4096, 8192)  # that trainers cut rows at
BATCH = 1024  # rows tokenised at once
PLANNED = 1000  # rows of a split that are rendered of a declaration, unless more or fewer are asked for
DIGITS = "8247391650" * 20  # that a tape and a number are made of, to tell what a digit costs
READ = ["len_a", "len_b", *COLUMNS["first"]]


@dataclass(frozen=True)
class Source:
    """One split of a config: its rows (about so many, where nothing is built yet), batch by batch."""

    config: str
    split: str
    rows: int
    batches: Callable[[], Iterator[pa.RecordBatch]]


@dataclass(frozen=True)
class Counts:
    """Tokens of the rows of one split of a config, of which the first ones are looked at.

    Args:
        config: its name.
        split: its name.
        rows: of the split.
        lengths: tokens of prompt, completion and end token of each row looked at.
        digits: of the operands of these rows, in all.
        unspelled: rows whose text does not come back from its tokens.
        merged: rows of which tokens would span the border, were prompt and completion tokenised as one text.
    """

    config: str
    split: str
    rows: int
    lengths: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    digits: int = 0
    unspelled: int = 0
    merged: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the counts for programs."""
        counted, tokens = len(self.lengths), int(self.lengths.sum())
        return {
            **{name: getattr(self, name) for name in ("config", "split", "rows", "unspelled", "merged")},
            "counted": counted,
            "mean": tokens / max(counted, 1),
            "longest": int(self.lengths.max(initial=0)),
            "per_digit": tokens / max(self.digits, 1),
            "over": {str(most): int((self.lengths > most).sum()) for most in LENGTHS},
        }


def _total(counts: Sequence[Counts], rows: int) -> Counts:
    """Return the counts of the rows of all, so many."""
    sums = {name: sum(getattr(part, name) for part in counts) for name in ("digits", "unspelled", "merged")}
    return replace(counts[0], rows=rows, lengths=np.concatenate([part.lengths for part in counts]), **sums)


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

    return [
        Source(part.name, part.split, sum(shard.rows for shard in part.shards), partial(batches, part.shards))
        for part in select(folder, configs, splits)
    ]


def planned(declaration: Declaration, configs: Sequence[str], splits: Sequence[str]) -> list[Source]:
    """Return the splits that a declaration would build: their rows are rendered as they are counted.

    Raises:
        UserError: it builds no rows, or no such config or split.
    """
    plan = make_plan(declaration).configs

    def batches(config: Config) -> Iterator[pa.RecordBatch]:
        block = min(config.block, BATCH)
        for numbers in map(config.numbers, range(config.num_shards)):
            yield from (config.render(numbers[start : start + block]) for start in range(0, len(numbers), block))

    for option, wanted, names in (
        ("--config", configs, {config.name for config in plan}),
        ("--split", splits, {config.split for config in plan}),
    ):
        for name in sorted(set(wanted) - names):
            raise UserError(
                f"nothing planned is named {quoted(name)}{did_you_mean(name, names)}",
                where=option,
                allowed=", ".join(sorted(names)),
            )
    return [
        Source(config.name, config.split, config.rows, partial(batches, config))
        for config in plan
        if (not configs or config.name in configs) and (not splits or config.split in splits)
    ]


def count(tokens: Tokens, source: Source, *, stage: str, most: int | None, told: Callable[[int], object]) -> Counts:
    """Count the tokens of rows.

    Args:
        tokens: the tokenizer.
        source: the rows.
        stage: ``first`` puts each row's instruction before its prompt, ``second`` leaves it out.
        most: rows to look at, the first ones, which are a fair sample: rows are shuffled; None for all.
        told: called with the number of rows of each batch counted.
    """
    counts, left = [Counts(source.config, source.split, source.rows)], source.rows if most is None else most
    for whole in source.batches():
        for start in range(0, whole.num_rows if left else 0, BATCH):
            batch = whole.slice(start, min(BATCH, left))
            counts.append(replace(counts[0], **_counted(tokens, batch, stage)))
            left -= batch.num_rows
            told(batch.num_rows)
        if not left:
            break
    return _total(counts, source.rows)


def _counted(tokens: Tokens, batch: pa.RecordBatch, stage: str) -> dict[str, Any]:
    """Return what ``Counts`` tells of a batch."""
    instructions, questions, answers = (batch.column(name).to_pylist() for name in COLUMNS["first"])
    if stage == "first":
        questions = [first + text for first, text in zip(instructions, questions, strict=True)]
    spelled = [
        prompt + completion
        for prompt, completion in zip(tokens.prompts(questions), tokens.completions(answers), strict=True)
    ]
    texts = tokens.decode([row[len(tokens.start) :] for row in spelled])
    wanted = zip(texts, questions, answers, strict=True)
    return {
        "lengths": np.array([len(row) + 1 for row in spelled], np.int64),
        "digits": sum(int(pa.compute.sum(batch.column(name)).as_py() or 0) for name in ("len_a", "len_b")),
        "unspelled": sum(text.removeprefix(tokens.lead) != question + answer for text, question, answer in wanted),
        "merged": sum(tokens.merging(questions, answers)),
    }


def print_tokens(
    source: str,
    tokenizer: str,
    configs: Sequence[str],
    splits: Sequence[str],
    *,
    stage: str,
    rows: int | None,
    as_json: bool,
) -> None:
    """Count the tokens of a dataset's rows, or of a sample of those that a declaration plans, and print them.

    Raises:
        UserError: dataset, declaration or tokenizer are not there, or damaged.
    """
    Style(stage=stage)
    log = open_console(stderr=True)
    if source.endswith(".toml") or (source in shipped_declarations() and not Path(source).exists()):
        sources, rows = planned(load_declaration(source), configs, splits), rows or PLANNED
    else:
        sources = built(source, configs, splits, lambda line: log.print(line, soft_wrap=True))
    try:
        from .backends.tokens import load_tokenizer

        tokens = load_tokenizer(tokenizer)
    except ImportError as error:
        raise UserError(
            "tokens are counted with the library transformers", next_step="pip install transformers"
        ) from error
    with Bar(console=log, disable=not log.is_terminal) as bar:
        task = bar.add_task("counting", total=sum(min(part.rows, rows or part.rows) for part in sources))
        advance = partial(bar.advance, task)
        counts = [count(tokens, part, stage=stage, most=rows, told=advance) for part in sources]
    tape, number = tokens.encode(["".join(f"|{digit}" for digit in DIGITS), DIGITS])
    costs = {"tape": len(tape) / len(DIGITS), "number": len(number) / len(DIGITS)}
    if as_json:
        told = [entry.as_json() for entry in counts]
        print(json.dumps({"tokenizer": tokenizer, "stage": stage, "tokens_a_digit": costs, "configs": told}))
    else:
        _print(counts, tokenizer, costs)


def _print(counts: Sequence[Counts], tokenizer: str, costs: dict[str, float]) -> None:
    """Print a line for each config, its splits together, and what there is to know of all."""
    console = open_console()
    splits: dict[str, list[Counts]] = {}
    for entry in counts:
        splits.setdefault(entry.config, []).append(entry)
    by_config = {name: _total(parts, sum(part.rows for part in parts)) for name, parts in splits.items()}
    told = {name: entry.as_json() for name, entry in by_config.items()}
    lengths = [most for most in LENGTHS if any(entry["over"][str(most)] for entry in told.values())]
    table = new_table("rows", "mean", "longest", "a digit", *(f">{most:,}" for most in lengths), first=("config",))
    for name, row in told.items():
        over = [f"{row['over'][str(most)] / max(row['counted'], 1):.1%}" for most in lengths]
        mean, longest, per_digit = f"{row['mean']:,.0f}", f"{row['longest']:,}", f"{row['per_digit']:.1f}"
        table.add_row(name, f"{row['counted']:,}", mean, longest, per_digit, *over)
    print_table(console, table)
    lines = [
        f"tokens of prompt, completion and end token in {printable_path(tokenizer)}:"
        f" a digit costs {costs['tape']:.2f} on a tape, {costs['number']:.2f} in a number"
    ]
    if any(row["counted"] < row["rows"] for row in told.values()):
        lines.append("of a sample of the rows: the longest of all may be longer")
    unspelled = sum(entry.unspelled for entry in counts)
    lines.append(
        f"{unspelled:,} rows do not come back from their tokens: this tokenizer cannot spell them"
        if unspelled
        else "every text comes back from its tokens unchanged"
    )
    if merged := ", ".join(f"{entry.merged:,} rows of {name}" for name, entry in by_config.items() if entry.merged):
        lines.append(
            "were prompt and completion tokenised as one text, a token would span their border in"
            f" {merged}: train on tokens apart (docs/training.md)"
        )
    for line in lines:
        console.print(line, soft_wrap=True)
