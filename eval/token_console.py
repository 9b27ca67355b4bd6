"""What ``caef-data tokens`` prints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import UserError, printable_path
from ..pipelines.console import _table
from ..pipelines.declaration import load_declaration, shipped_declarations
from ..pipelines.export_rows import Style
from ..pipelines.terminal import Bar, open_console, print_table
from .token_counts import LENGTHS, PLANNED, Counts, built, count, digit_costs, planned


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
    declared = source.endswith(".toml") or (source in shipped_declarations() and not Path(source).exists())
    if declared:
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
        task = bar.add_task("counting", total=sum(min(one.rows, rows or one.rows) for one in sources))
        found = [
            count(tokens, one, stage=stage, most=rows, told=lambda more: bar.update(task, advance=more))
            for one in sources
        ]
    costs = digit_costs(tokens)
    if as_json:
        configs_json = [counts.as_json() for counts in found]
        print(json.dumps({"tokenizer": tokenizer, "stage": stage, "tokens_a_digit": costs, "configs": configs_json}))
        return
    _print(found, tokenizer, costs)


def _print(found: Sequence[Counts], tokenizer: str, costs: dict[str, float]) -> None:
    """Print a line for each config, its splits together, and what there is to know of all."""
    console = open_console()
    configs: dict[str, Counts] = {}
    for counts in found:
        configs[counts.config] = configs[counts.config] + counts if counts.config in configs else counts
    lengths = [most for most in LENGTHS if any(counts.over[most] for counts in found)]
    table = _table("rows", "mean", "longest", "a digit", *(f">{most:,}" for most in lengths), first=("config",))
    for name, counts in configs.items():
        over = [f"{counts.over[most] / max(counts.counted, 1):.1%}" for most in lengths]
        numbers = (f"{counts.counted:,}", f"{counts.mean:,.0f}", f"{counts.longest:,}", f"{counts.per_digit:.1f}")
        table.add_row(name, *numbers, *over)
    print_table(console, table)
    for line in _lines(list(configs.values()), tokenizer, costs):
        console.print(line, soft_wrap=True)


def _lines(configs: Sequence[Counts], tokenizer: str, costs: dict[str, float]) -> Iterator[str]:
    yield (
        f"tokens of prompt, completion and end token in {printable_path(tokenizer)}:"
        f" a digit costs {costs['tape']:.2f} on a tape, {costs['number']:.2f} in a number"
    )
    if any(counts.counted < counts.rows for counts in configs):
        yield "of a sample of the rows: the longest of all may be longer"
    unspelled = sum(counts.unspelled for counts in configs)
    yield (
        f"{unspelled:,} rows do not come back from their tokens: this tokenizer cannot spell them"
        if unspelled
        else "every text comes back from its tokens unchanged"
    )
    if merged := ", ".join(f"{counts.merged:,} rows of {counts.config}" for counts in configs if counts.merged):
        yield (
            f"were prompt and completion tokenised as one text, a token would span their border in {merged}:"
            " train on tokens apart (docs/training.md)"
        )
