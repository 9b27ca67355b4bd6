"""What rows cost in tokens of a real tokenizer, and whether its vocabulary keeps their texts: ``caef-data tokens``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ..atomic import sha256_of
from ..errors import UserError, check_name, installed, printable_path, quoted
from ..pipelines.budget import tokenizer_name
from ..pipelines.declaration import load_declaration, shipped_declarations
from ..pipelines.export import COLUMNS, Part, opened, select
from ..pipelines.folder import Folder
from ..pipelines.hub_source import dataset_here
from ..pipelines.plan import Config, make_plan
from ..pipelines.sampling.enumerate_small import Told
from ..pipelines.store import open_folder
from ..pipelines.terminal import Meter, open_console
from ..pipelines.token_table import LENGTHS, print_costs
from . import resolved
from .calls import Request
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
Batches = Iterator[pa.RecordBatch]


class Source(NamedTuple):
    """One split of a config: how many rows it has (about so many, where nothing is built yet), and they themselves."""

    config: str
    split: str
    rows: int
    batches: Batches


def built(directory: str, configs: Sequence[str], splits: Sequence[str], say: Told) -> list[Source]:
    """Return the splits of a finished dataset; ``say`` is told of downloads. Reading raises where a shard is damaged.

    Raises:
        UserError: there is no such dataset, config or split.
    """
    folder = open_folder(dataset_here(directory, say, shards=lambda path: True))
    parts = select(folder, configs, splits)
    return [Source(one.name, one.split, sum(shard.rows for shard in one.shards), _read(folder, one)) for one in parts]


def _read(folder: Folder, part: Part) -> Batches:
    for shard in part.shards:
        with opened(folder, shard) as file:
            yield from pq.ParquetFile(file).iter_batches(BATCH, columns=READ)


def planned(plan: Iterable[Config], configs: Sequence[str], splits: Sequence[str]) -> list[Source]:
    """Return the splits of a plan: rows are rendered as they are counted, in the order of their shards.

    Raises:
        UserError: there is no such config or split.
    """
    for option, key, names in (("--config", "name", configs), ("--split", "split", splits)):
        for name in names:
            check_name(option, name, sorted({getattr(config, key) for config in plan}))
        plan = [config for config in plan if not names or getattr(config, key) in names]
    return [Source(config.name, config.split, config.rows, _rendered(config)) for config in plan]


def _rendered(config: Config) -> Batches:
    block = min(config.block, BATCH)
    for numbers in map(config.numbers, range(config.num_shards)):
        yield from (config.render(numbers[start : start + block]) for start in range(0, len(numbers), block))


class TokenCounter:
    """A tokenizer as plans and budgets need it.

    Args:
        name: its folder, or its name on the Hub.

    Raises:
        UserError: also in all methods: it cannot be loaded, or fails.
    """

    def __init__(self, name: str) -> None:
        with installed("counting tokens", "eval"):
            from .backends.tokens import load_tokenizer

            self.name, self.tokens = name, load_tokenizer(name)

    @cached_property
    def sha256(self) -> str:
        """Of the file that holds its vocabulary: ``tokenizer.json``, where there is one."""
        from transformers.utils import cached_file

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
        [found] = summary(pl.concat(count(self.tokens, source, "second", PLANNED)), "config", "split")
        rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in found.items()}
        return {**rounded, "tokenizer": tokenizer_name(self.name), "sha256": self.sha256}


def around_rows(
    tokenizer: str, directory: str, configs: Sequence[str] = (), splits: Sequence[str] = ()
) -> tuple[str, str]:
    """Return the texts of the tokens that begin and end a row in a vocabulary, tried on some rows of each split.

    Raises:
        UserError: there is no such tokenizer or dataset, or tokens of these texts would not be those that evaluation
            asks for.
    """
    tokens = TokenCounter(tokenizer).tokens
    from .backends.tokens import check_spelling

    begin = tokens.tokenizer.decode(tokens.start, skip_special_tokens=False)
    end = tokens.tokenizer.convert_ids_to_tokens(tokens.end)
    for source in built(directory, configs, splits, lambda _: None):
        batch = next(source.batches).slice(0, TRIED)
        prompts, answers = (batch.column(name).to_pylist() for name in TEXTS)
        check_spelling(tokens, map(Request, prompts, answers), "take another tokenizer")
        for prompt, answer, row in zip(prompts, answers, tokens.rows(prompts, answers), strict=True):
            if tokens.encode([begin + prompt, answer + end]) != [*row]:
                raise UserError(
                    f"a tool that tokenises {quoted(answer)} by itself gets other tokens than follow a prompt",
                    where=printable_path(tokenizer),
                    allowed="vocabularies whose texts begin with no blank mark: no SentencePiece",
                    next_step="train on the tokens of caef_data.tokenize_row instead (docs/training.md)",
                )
    return begin, end


def count(tokens: Tokens, source: Source, stage: str, most: int) -> Iterator[pl.DataFrame]:
    """Count the tokens of rows, and yield them some at a time.

    Args:
        tokens: the tokenizer.
        source: the rows.
        stage: ``first`` puts each row's instruction before its prompt, ``second`` leaves it out.
        most: rows to look at, the first ones, which are a fair sample: rows are shuffled.

    Yields:
        Of each row the config, view and split, ``length``: tokens of prompt, completion and end token; ``digits`` of
        the longer operand, and of ``both``; ``unspelled``: its text does not come back from its tokens;
        ``merged``: a token would span the border, were prompt and completion tokenised as one text.
    """
    for batch in source.batches:
        batch = batch.slice(0, most)
        instructions, prompts, answers = (batch.column(name).to_pylist() for name in COLUMNS["first"])
        if stage == "first":
            prompts = [instruction + prompt for instruction, prompt in zip(instructions, prompts, strict=True)]
        spelled = [prompt + answer for prompt, answer in tokens.rows(prompts, answers)]
        back = tokens.decode([row[len(tokens.start) : -1] for row in spelled])
        texts = zip(back, prompts, answers, strict=True)
        yield pl.DataFrame(batch.select(["len_a", "len_b"])).select(
            pl.lit(source.config).alias("config"),
            pl.lit(source.config.rpartition("-")[2]).alias("view"),
            pl.lit(source.split).alias("split"),
            length=pl.Series([len(row) for row in spelled], dtype=pl.Int32),
            digits=pl.max_horizontal("len_a", "len_b").cast(pl.Int32),
            both=pl.sum_horizontal("len_a", "len_b").cast(pl.Int32),
            unspelled=pl.Series([text.removeprefix(tokens.lead) != prompt + answer for text, prompt, answer in texts]),
            merged=pl.Series(tokens.merging(prompts, answers)),
        )
        most -= len(batch)
        if not most:
            return


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
    log, console = open_console(stderr=True), open_console()
    if source.endswith(".toml") or (source in shipped_declarations() and not Path(source).exists()):
        plan, rows = make_plan(resolved(load_declaration(source))), rows or PLANNED
        sources = planned(plan.configs, configs, splits)
    else:
        sources = built(source, configs, splits, log.print)
    tokens, wanted = TokenCounter(tokenizer).tokens, [min(part.rows, rows or part.rows) for part in sources]
    frames = list[pl.DataFrame]()
    with Meter(log, "counting", sum(wanted)) as meter:
        for part, most in zip(sources, wanted, strict=True):
            for frame in count(tokens, part, stage, most):
                frames.append(frame)
                meter.update(f"tokens of {part.config} {part.split}", advance=len(frame))
    counted = pl.concat(frames)
    tape, number = (len(found) / len(DIGITS) for found in tokens.encode(["|" + "|".join(DIGITS), DIGITS]))
    lengths = counted.sort("view", "digits")
    if as_json:
        by_config = zip(summary(counted, "config", "split"), sources, strict=True)
        found = {"configs": [{**one, "rows": part.rows} for one, part in by_config]}
        found["lengths"] = summary(lengths, "view", "digits")
        digit = {"tape": tape, "number": number}
        print(json.dumps({"tokenizer": tokenizer, "stage": stage, "tokens_a_digit": digit, **found}))
        return
    step = -(-counted["digits"].n_unique() // BANDS)
    print_costs(console, summary(counted, "config"), "config")
    bands = lengths.with_columns(digits=(pl.col("digits") + step - 1) // step * step)
    print_costs(console, summary(bands, "view", "digits"), "view", "digits")
    told = f"a digit costs {tape:.2f} on a tape, {number:.2f} in a number; digits: of the longer operand, at most"
    console.print(f"tokens of prompt, completion and end token in {printable_path(tokenizer)}: {told}")
    if len(counted) < sum(part.rows for part in sources):
        console.print("of a sample of the rows: the longest of all may be longer")
