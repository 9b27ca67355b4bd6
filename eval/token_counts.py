"""What rows cost in tokens of a real tokenizer, and whether its vocabulary keeps their texts: ``caef-data tokens``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
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


def count(
    tokens: Tokens, source: Source, *, stage: str, most: int | None, told: Callable[[int], object]
) -> pl.DataFrame:
    """Count the tokens of rows.

    Args:
        tokens: the tokenizer.
        source: the rows.
        stage: ``first`` puts each row's instruction before its prompt, ``second`` leaves it out.
        most: rows to look at, the first ones, which are a fair sample: rows are shuffled; None for all.
        told: called with the number of rows of each batch counted.

    Returns:
        Of each row the config and split, ``length``: tokens of prompt, completion and end token; ``digits`` of its
        operands; ``unspelled``: its text does not come back from its tokens; ``merged``: a token would span the border,
        were prompt and completion tokenised as one text.
    """
    frames, left = [], source.rows if most is None else most
    for whole in source.batches():
        for start in range(0, whole.num_rows if left else 0, BATCH):
            batch = whole.slice(start, min(BATCH, left))
            frames.append(_counted(tokens, batch, stage))
            left -= batch.num_rows
            told(batch.num_rows)
        if not left:
            break
    return pl.concat(frames).with_columns(config=pl.lit(source.config), split=pl.lit(source.split))


def _counted(tokens: Tokens, batch: pa.RecordBatch, stage: str) -> pl.DataFrame:
    instructions, prompts, answers = (batch.column(name).to_pylist() for name in COLUMNS["first"])
    if stage == "first":
        prompts = [instruction + prompt for instruction, prompt in zip(instructions, prompts, strict=True)]
    parts = zip(tokens.prompts(prompts), tokens.completions(answers), strict=True)
    spelled = [prompt + answer for prompt, answer in parts]
    back = tokens.decode([row[len(tokens.start) :] for row in spelled])
    texts = zip(back, prompts, answers, strict=True)
    digits = pl.DataFrame(batch.select(["len_a", "len_b"])).sum_horizontal()
    return pl.DataFrame(
        {
            "length": pl.Series([len(row) + 1 for row in spelled], dtype=pl.Int32),
            "digits": digits.cast(pl.Int32),
            "unspelled": [text.removeprefix(tokens.lead) != prompt + answer for text, prompt, answer in texts],
            "merged": tokens.merging(prompts, answers),
        }
    )


def summary(rows: pl.DataFrame, *by: str) -> list[dict[str, Any]]:
    """Return for each group of rows their number, means, sums, and how many are longer than each of ``LENGTHS``."""
    length = pl.col("length")
    return (
        rows.group_by(by, maintain_order=True)
        .agg(
            pl.sum("unspelled", "merged"),
            counted=pl.len(),
            mean=length.mean(),
            longest=length.max(),
            per_digit=length.sum() / pl.sum("digits"),
            over=pl.struct((length > most).sum().alias(str(most)) for most in LENGTHS),
        )
        .to_dicts()
    )


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
        rows_counted = pl.concat(count(tokens, part, stage=stage, most=rows, told=advance) for part in sources)
    tape, number = tokens.encode(["".join(f"|{digit}" for digit in DIGITS), DIGITS])
    costs = {"tape": len(tape) / len(DIGITS), "number": len(number) / len(DIGITS)}
    if as_json:
        totals = {(part.config, part.split): part.rows for part in sources}
        told = summary(rows_counted, "config", "split")
        configs_json = [{**row, "rows": totals[row["config"], row["split"]]} for row in told]
        print(json.dumps({"tokenizer": tokenizer, "stage": stage, "tokens_a_digit": costs, "configs": configs_json}))
    else:
        whole = len(rows_counted) >= sum(part.rows for part in sources)
        _print(summary(rows_counted, "config"), tokenizer, costs, whole=whole)


def _print(configs: Sequence[dict[str, Any]], tokenizer: str, costs: dict[str, float], *, whole: bool) -> None:
    """Print a line for each config, its splits together, and what there is to know of all."""
    console = open_console()
    lengths = [most for most in map(str, LENGTHS) if any(row["over"][most] for row in configs)]
    headings = [f">{int(most):,}" for most in lengths]
    table = new_table("rows", "mean", "longest", "tokens per operand digit", *headings, first=("config",))
    for row in configs:
        over = [f"{row['over'][most] / row['counted']:.1%}" for most in lengths]
        mean, per_digit = f"{row['mean']:,.0f}", f"{row['per_digit']:.1f}"
        table.add_row(row["config"], f"{row['counted']:,}", mean, f"{row['longest']:,}", per_digit, *over)
    print_table(console, table)
    lines = [
        f"tokens of prompt, completion and end token in {printable_path(tokenizer)}:"
        f" a digit costs {costs['tape']:.2f} on a tape, {costs['number']:.2f} in a number;"
        " tokens per operand digit: all tokens, divided by the operands' digits"
    ]
    if not whole:
        lines.append("of a sample of the rows: the longest of all may be longer")
    unspelled = sum(row["unspelled"] for row in configs)
    lines.append(
        f"{unspelled:,} rows do not come back from their tokens: this tokenizer cannot spell them"
        if unspelled
        else "every text comes back from its tokens unchanged"
    )
    if merged := ", ".join(f"{row['merged']:,} rows of {row['config']}" for row in configs if row["merged"]):
        lines.append(
            "were prompt and completion tokenised as one text, a token would span their border in"
            f" {merged}: train on tokens apart (docs/training.md)"
        )
    for line in lines:
        console.print(line, soft_wrap=True)
