"""What rows cost in tokens of a real tokenizer, and whether its vocabulary keeps their texts: ``caef-data tokens``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ..atomic import sha256_of
from ..errors import UserError, installed, printable_path, quoted
from ..pipelines.budget import tokenizer_name
from ..pipelines.declaration import load_declaration, shipped_declarations
from ..pipelines.export import COLUMNS, check_name, opened, select
from ..pipelines.hub_source import Say, dataset_here
from ..pipelines.plan import Config, make_plan
from ..pipelines.sampling.enumerate_small import Told
from ..pipelines.store import open_folder
from ..pipelines.terminal import Bar, open_console
from ..pipelines.token_table import LENGTHS, print_costs, remarks
from . import resolved
from .files import VOCABULARIES

if TYPE_CHECKING:
    from .backends.tokens import Tokens

BATCH = 1024  # rows tokenised at once
PLANNED = 1000  # rows of a split that are rendered of a declaration, unless more or fewer are asked for
BANDS = 10  # of lengths, for each view
DIGITS = "8247391650" * 20  # that a tape and a number are made of, to tell what a digit costs
TEXTS = ("prompt", "completion")
TRIED = 32  # rows of each split that are tried before an export
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
                yield from pq.ParquetFile(file).iter_batches(BATCH, columns=READ)

    return [
        Source(part.name, part.split, sum(shard.rows for shard in part.shards), partial(batches, part.shards))
        for part in select(folder, configs, splits)
    ]


def around_rows(
    tokenizer: str, directory: str, configs: Sequence[str] = (), splits: Sequence[str] = ()
) -> tuple[str, str]:
    """Return the texts of the tokens that begin and end a row in a vocabulary, tried on some rows of each split.

    Raises:
        UserError: there is no such tokenizer or dataset, or tokens of these texts would not be those that evaluation
            asks for.
    """
    tokens = TokenCounter(tokenizer).tokens
    begin = tokens.tokenizer.decode(tokens.start, skip_special_tokens=False)
    end = tokens.tokenizer.convert_ids_to_tokens(tokens.end)
    for source in built(directory, configs, splits, lambda _: None):
        batch = next(source.batches()).slice(0, TRIED)
        prompts, answers = (batch.column(name).to_pylist() for name in TEXTS)
        for prompt, answer, row in zip(prompts, answers, tokens.rows(prompts, answers), strict=True):
            if tokens.encode([begin + prompt, answer + end]) != [*row]:
                raise UserError(
                    f"a tool that tokenises {quoted(answer)} by itself gets other tokens than follow a prompt",
                    where=printable_path(tokenizer),
                    allowed="vocabularies whose texts begin with no blank mark: no SentencePiece",
                    next_step="train on the tokens of caef_data.tokenize_row instead (docs/training.md)",
                )
    return begin, end


def source_of(config: Config) -> Source:
    """Return a split that is planned: its rows are rendered as they are counted, in the order of its shards."""

    def batches() -> Iterator[pa.RecordBatch]:
        block = min(config.block, BATCH)
        for numbers in map(config.numbers, range(config.num_shards)):
            yield from (config.render(numbers[start : start + block]) for start in range(0, len(numbers), block))

    return Source(config.name, config.split, config.rows, batches)


def planned(plan: Sequence[Config], configs: Sequence[str], splits: Sequence[str]) -> list[Source]:
    """Return the splits of a plan that are asked for; raises ``UserError`` where there is no such config or split."""
    for name in configs:
        check_name("--config", name, sorted({config.name for config in plan}))
    for name in splits:
        check_name("--split", name, sorted({config.split for config in plan}))
    return [
        source_of(config)
        for config in plan
        if (not configs or config.name in configs) and (not splits or config.split in splits)
    ]


class TokenCounter:
    """A tokenizer as plans and budgets need it; it is loaded when something is counted.

    Args:
        name: its folder, or its name on the Hub.

    Raises:
        UserError: in all methods: it cannot be loaded, or fails.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @cached_property
    def tokens(self) -> Tokens:
        """The tokenizer."""
        with installed("counting tokens", "eval"):
            from .backends.tokens import load_tokenizer

            return load_tokenizer(self.name)

    @cached_property
    def sha256(self) -> str:
        """Of the file that holds its vocabulary: ``tokenizer.json``, where there is one."""
        from transformers.utils import cached_file

        _ = self.tokens  # what is wrong with it is told by that
        missing = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
        for file in VOCABULARIES:
            if found := cached_file(self.name, file, **missing):
                with open(found, "rb") as opened_file:
                    return sha256_of(opened_file)
        raise UserError(
            "this tokenizer has no file of its vocabulary",
            where=printable_path(self.name),
            allowed=f"one with {', '.join(VOCABULARIES)}",
        )

    def lengths(self, rows: pa.RecordBatch) -> list[int]:
        """Return the tokens of each row: prompt, completion and end token."""
        texts = (rows.column(name).to_pylist() for name in TEXTS)
        return [len(prompt) + len(answer) for prompt, answer in self.tokens.rows(*texts)]

    def costs(self, config: Config, told: Told) -> dict[str, Any]:
        """Return the summary of a split's first rows, as many as ``caef-data tokens`` looks at."""
        told(f"tokens of {config.name} {config.split}")
        rows = count(self.tokens, source_of(config), stage="second", most=PLANNED, told=lambda rows: None)
        [found] = summary(rows, "config", "split")
        rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in found.items()}
        return {**rounded, "tokenizer": tokenizer_name(self.name), "sha256": self.sha256}


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
        Of each row the config, view and split, ``length``: tokens of prompt, completion and end token; ``digits`` of
        its operands, those of the ``longer`` one; ``unspelled``: its text does not come back from its tokens;
        ``merged``: a token would span the border, were prompt and completion tokenised as one text.
    """
    frames, left = [], source.rows if most is None else most
    for whole in source.batches():
        whole = whole.slice(0, left)
        for start in range(0, whole.num_rows, BATCH):
            batch = whole.slice(start, BATCH)
            frames.append(_counted(tokens, batch, stage))
            left -= batch.num_rows
            told(batch.num_rows)
        if not left:
            break
    view = source.config.rpartition("-")[2]
    names = {"config": source.config, "view": view, "split": source.split}
    return pl.concat(frames).with_columns(pl.lit(value).alias(name) for name, value in names.items())


def _counted(tokens: Tokens, batch: pa.RecordBatch, stage: str) -> pl.DataFrame:
    instructions, prompts, answers = (batch.column(name).to_pylist() for name in COLUMNS["first"])
    if stage == "first":
        prompts = [instruction + prompt for instruction, prompt in zip(instructions, prompts, strict=True)]
    spelled = [prompt + answer for prompt, answer in tokens.rows(prompts, answers)]
    back = tokens.decode([row[len(tokens.start) : -1] for row in spelled])
    texts = zip(back, prompts, answers, strict=True)
    operands = pl.DataFrame(batch.select(["len_a", "len_b"]))
    return pl.DataFrame(
        {
            "length": pl.Series([len(row) for row in spelled], dtype=pl.Int32),
            "digits": operands.sum_horizontal().cast(pl.Int32),
            "longer": operands.max_horizontal().cast(pl.Int32),
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
    check_name("--stage", stage, COLUMNS)
    log = open_console(stderr=True)
    if source.endswith(".toml") or (source in shipped_declarations() and not Path(source).exists()):
        declaration = replace(resolved(load_declaration(source)), rows=None, tokens=None, tokenizer=None)
        sources, rows = planned(make_plan(declaration).configs, configs, splits), rows or PLANNED
    else:
        sources = built(source, configs, splits, lambda line: log.print(line, soft_wrap=True))
    tokens = TokenCounter(tokenizer).tokens
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
        by_length = summary(rows_counted.sort("view", "longer"), "view", "longer")
        lengths = [{"digits" if key == "longer" else key: row[key] for key in row} for row in by_length]
        found = {"tokenizer": tokenizer, "stage": stage, "tokens_a_digit": costs, "configs": configs_json}
        print(json.dumps({**found, "lengths": lengths}))
    else:
        whole = len(rows_counted) >= sum(part.rows for part in sources)
        _print(rows_counted, tokenizer, costs, whole=whole)


def _print(rows: pl.DataFrame, tokenizer: str, costs: dict[str, float], *, whole: bool) -> None:
    """Print a line for each config, its splits together, one for each view and some lengths, and what else is known."""
    console, configs = open_console(), summary(rows, "config")
    print_costs(console, configs, "config")
    if rows["longer"].n_unique() > 1:
        print_costs(console, _banded(rows), "view", "digits")
    console.print(
        f"tokens of prompt, completion and end token in {printable_path(tokenizer)}:"
        f" a digit costs {costs['tape']:.2f} on a tape, {costs['number']:.2f} in a number;"
        " tokens per operand digit: all tokens, divided by the operands' digits"
        f"{'' if rows['longer'].n_unique() == 1 else '; digits: of the longer operand'}"
    )
    if not whole:
        console.print("of a sample of the rows: the longest of all may be longer")
    for line in remarks(configs):
        console.print(line)


def _banded(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the summary by view and length of the longer operand, some lengths together where they are many."""
    low, high = rows["longer"].min(), rows["longer"].max()
    assert isinstance(low, int) and isinstance(high, int)
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if (high - low) // step < BANDS)
    band = (pl.col("longer") - 1).clip(lower_bound=0) // step * step + 1
    found = summary(rows.with_columns(band=band).sort("band", maintain_order=True), "view", "band")
    for row in found:
        row["digits"] = f"{row['band']}-{row['band'] + step - 1}" if step > 1 else str(row["band"])
    return sorted(found, key=lambda row: row["view"])
