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
from ..pipelines.token_table import LENGTHS, print_costs
from . import resolved
from .files import VOCABULARIES

if TYPE_CHECKING:
    from .backends.tokens import Tokens

BATCH = 1024  # rows tokenised at once
PLANNED = 1000  # rows of a split that are rendered of a declaration, unless more or fewer are asked for
BANDS = 10  # of lengths, for each view, at most
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


def planned(plan: Sequence[Config], configs: Sequence[str], splits: Sequence[str]) -> list[Source]:
    """Return the splits of a plan: rows are rendered as they are counted, in the order of their shards.

    Raises:
        UserError: there is no such config or split.
    """

    def batches(config: Config) -> Iterator[pa.RecordBatch]:
        block = min(config.block, BATCH)
        for numbers in map(config.numbers, range(config.num_shards)):
            yield from (config.render(numbers[start : start + block]) for start in range(0, len(numbers), block))

    for option, names, known in (
        ("--config", configs, {config.name for config in plan}),
        ("--split", splits, {one.split for one in plan if not configs or one.name in configs}),
    ):
        for name in names:
            check_name(option, name, sorted(known))
    wanted = (one for one in plan if (not configs or one.name in configs) and (not splits or one.split in splits))
    return [Source(config.name, config.split, config.rows, partial(batches, config)) for config in wanted]


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
        found = next(filter(None, (cached_file(self.name, file, **missing) for file in VOCABULARIES)), None)
        if found is None:
            what, allowed = "this tokenizer has no file of its vocabulary", f"one with {', '.join(VOCABULARIES)}"
            raise UserError(what, where=printable_path(self.name), allowed=allowed)
        with open(found, "rb") as file:
            return sha256_of(file)

    def lengths(self, rows: pa.RecordBatch) -> list[int]:
        """Return the tokens of each row: prompt, completion and end token."""
        texts = (rows.column(name).to_pylist() for name in TEXTS)
        return [len(prompt) + len(answer) for prompt, answer in self.tokens.rows(*texts)]

    def costs(self, config: Config, told: Told) -> dict[str, Any]:
        """Return the summary of a split's first rows, as many as ``caef-data tokens`` looks at."""
        told(f"tokens of {config.name} {config.split}")
        [source] = planned([config], [], [])
        [found] = summary(count(self.tokens, source, "second", PLANNED), "config", "split")
        rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in found.items()}
        return {**rounded, "tokenizer": tokenizer_name(self.name), "sha256": self.sha256}


def count(
    tokens: Tokens, source: Source, stage: str, most: int, told: Callable[[int], object] = lambda rows: None
) -> pl.DataFrame:
    """Count the tokens of rows.

    Args:
        tokens: the tokenizer.
        source: the rows.
        stage: ``first`` puts each row's instruction before its prompt, ``second`` leaves it out.
        most: rows to look at, the first ones, which are a fair sample: rows are shuffled.
        told: called with the number of rows of each batch counted.

    Returns:
        Of each row the config, view and split, ``length``: tokens of prompt, completion and end token; ``digits`` of
        the longer operand, and of ``both``; ``unspelled``: its text does not come back from its tokens;
        ``merged``: a token would span the border, were prompt and completion tokenised as one text.
    """
    frames = []
    for batch in source.batches():
        frames.append(_counted(tokens, batch.slice(0, most), stage))
        most -= len(frames[-1])
        told(len(frames[-1]))
        if not most:
            break
    names = {"config": source.config, "view": source.config.rpartition("-")[2], "split": source.split}
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
            "digits": operands.max_horizontal().cast(pl.Int32),
            "both": operands.sum_horizontal().cast(pl.Int32),
            "unspelled": [text.removeprefix(tokens.lead) != prompt + answer for text, prompt, answer in texts],
            "merged": tokens.merging(prompts, answers),
        }
    )


def summary(rows: pl.DataFrame, *by: str) -> list[dict[str, Any]]:
    """Return for each group of rows their number, means, sums, and how many are longer than each of ``LENGTHS``."""
    length = pl.col("length")
    found = rows.group_by(by, maintain_order=True).agg(
        pl.sum("unspelled", "merged"),
        counted=pl.len(),
        mean=length.mean(),
        longest=length.max(),
        per_digit=length.sum() / pl.sum("both"),
        over=pl.struct((length > most).sum().alias(str(most)) for most in LENGTHS),
    )
    return found.to_dicts()


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
    tokens, wanted = TokenCounter(tokenizer).tokens, [min(part.rows, rows or part.rows) for part in sources]
    with Bar(console=log, disable=not log.is_terminal) as bar:
        advance = partial(bar.advance, bar.add_task("counting", total=sum(wanted)))
        parts = zip(sources, wanted, strict=True)
        counted = pl.concat(count(tokens, part, stage, most, advance) for part, most in parts)
    tape, number = (len(found) / len(DIGITS) for found in tokens.encode(["|" + "|".join(DIGITS), DIGITS]))
    if as_json:
        totals = {(part.config, part.split): part.rows for part in sources}
        by_config = [
            {**one, "rows": totals[one["config"], one["split"]]} for one in summary(counted, "config", "split")
        ]
        lengths = summary(counted.sort("view", "digits"), "view", "digits")
        costs = {"tape": tape, "number": number}
        found = {"tokenizer": tokenizer, "stage": stage, "tokens_a_digit": costs, "configs": by_config}
        print(json.dumps({**found, "lengths": lengths}))
        return
    console, step = open_console(), -(-counted["digits"].n_unique() // BANDS)
    first = (pl.col("digits") - 1).clip(lower_bound=0) // step * step + 1
    bands = counted.sort("view", "digits").with_columns(digits=pl.format("{}-{}", first, first + step - 1))
    print_costs(console, summary(counted, "config"), "config")
    print_costs(
        console, summary(counted.sort("view", "digits") if step == 1 else bands, "view", "digits"), "view", "digits"
    )
    told = f"a digit costs {tape:.2f} on a tape, {number:.2f} in a number; digits: of the longer operand"
    console.print(f"tokens of prompt, completion and end token in {printable_path(tokenizer)}: {told}")
    if len(counted) < sum(part.rows for part in sources):
        console.print("of a sample of the rows: the longest of all may be longer")
