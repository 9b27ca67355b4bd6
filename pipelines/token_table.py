"""What rows cost in tokens, as plans, cards and ``caef-data tokens`` print it: plain dicts, whoever counted."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console

from .terminal import new_table, print_table

LENGTHS = (1024, 2048, 4096, 8192)  # that trainers cut rows at
HEADINGS = ("rows counted", "mean", "longest", *(f"over {most:,}" for most in LENGTHS))
Costs = Mapping[str, Any]


def print_costs(console: Console, rows: Sequence[Costs], *names: str) -> None:
    """Print a line for each group of rows, under its ``names``; of configs also whose texts do not survive."""
    table = new_table(*HEADINGS, first=names)
    for row in rows:
        table.add_row(*_cells(row, names))
    print_table(console, table)
    if names[0] == "config":
        for line in _remarks(rows):
            console.print(line)


def token_lines(splits: Iterable[tuple[str, str, Costs]]) -> list[str]:
    """Return the lines of a card on what rows cost: of config, split and what the manifest says of it."""
    counted = [{"config": name, "split": split, **one["tokens"]} for name, split, one in splits if "tokens" in one]
    lines: list[str] = []
    for name, sha256 in dict.fromkeys((row["tokenizer"], row["sha256"]) for row in counted):
        own = [row for row in counted if (row["tokenizer"], row["sha256"]) == (name, sha256)]
        lines += ["", f"In tokens of `{name}` (prompt, completion and end token; the first rows of each split):", ""]
        lines += [f"| config | split | {' | '.join(HEADINGS)} |", f"|---|---|{'---:|' * len(HEADINGS)}"]
        lines += [f"| {' | '.join(_cells(row, ('config', 'split')))} |" for row in own]
        told = " ".join(f"{line[:1].upper()}{line[1:]}." for line in _remarks(own))
        lines += ["", *textwrap.wrap(f"{told} Sha256 of its vocabulary's file: `{sha256}`.", 118)]
    return lines


def _cells(row: Costs, names: Sequence[str]) -> list[str]:
    over = (f"{row['over'].get(str(most), 0) / row['counted']:.1%}" for most in LENGTHS)
    numbers = f"{row['counted']:,}", f"{row['mean']:,.0f}", f"{row['longest']:,}"
    return [*(str(row[name]) for name in names), *numbers, *over]


def _remarks(rows: Sequence[Costs]) -> list[str]:
    """Return sentences on the rows whose texts do not survive, and on those whose border merges."""
    counted, unspelled, merged = (sum(row[key] for row in rows) for key in ("counted", "unspelled", "merged"))
    told = ["every text comes back from its tokens unchanged"]
    if unspelled:
        told = [f"{unspelled:,} rows do not come back from their tokens: this tokenizer cannot spell them"]
    if merged:
        configs = ", ".join(dict.fromkeys(row["config"] for row in rows if row["merged"]))
        told.append(
            "were prompt and completion tokenised as one text, a token would span their border in"
            f" {merged:,} of {counted:,} rows ({configs}): train on tokens apart (docs/training.md)"
        )
    return told
