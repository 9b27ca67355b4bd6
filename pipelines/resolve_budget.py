"""Finds how many expressions a class give the train rows, or the tokens, that a declaration asks for.

Between ``num`` and ``num + 1`` expressions a class some classes get one more, chosen by a hash of their lengths, so
that the rows come as close as whole expressions allow. A larger budget of the same seed holds a smaller one's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import UserError
from ..tm.columns import I64
from .budget import MILLION, Budget, tokenizer_name
from .plan import Config, TokenCounter, split_configs
from .sampling.enumerate_small import Told
from .settings import Declaration

CLOSE, ALLOWED = 0.001, 0.01  # how far from a budget: where the search ends; where a budget is refused
MOST = 10**9 * MILLION  # the largest ``num``, in millionths
NONE_YET = 1000 * MILLION  # expressions a class of which none has rows: the search ends, more would have none either
STEP = 100  # times as many expressions as were tried before, at most
TRIED, LOOKED_AT = 256, 4096  # expressions of a config that are tokenised, and those whose rows or texts are measured


def resolve_budget(
    declaration: Declaration, counter: TokenCounter | None, told: Told = lambda text: None
) -> Declaration:
    """Return a declaration whose tasks say what its budget came to.

    Args:
        declaration: one with a budget.
        counter: the tokenizer, for a budget of tokens.
        told: is told what is being looked at.

    Raises:
        UserError: no number of expressions gives so many rows, within 1%; or there is nothing to count tokens with.
    """
    asked, counted = declaration.rows or 0, dict[str, Any]()
    if declaration.tokens is not None:
        if counter is None:
            raise UserError("a budget of tokens is planned with what counts its tokens")
        asked = declaration.tokens
        counted = {"tokenizer": tokenizer_name(declaration.tokenizer or ""), "sha256": counter.sha256}
    tasks, lines = [task for task in declaration.tasks if task.views_of("train")], dict[str, Any]()

    def configs(scale: int) -> list[Config]:
        """Return the configs of train of so many millionths of an expression a class."""
        num, extra = divmod(scale, MILLION)
        of_tasks = (task.resolved(num, Budget(asked=asked, rows=0, extra=extra)) for task in tasks)
        return [one for own in of_tasks for one in split_configs(own, "train", own.views_of("train"), told)[0]]

    def measure(config: Config, numbers: I64) -> float:
        """Return the rows of some expressions, or their tokens."""
        if counter is None or not counted:
            return float(config.num_rows(numbers).sum())
        if config.name not in lines:
            # Texts differ by their digits above all, and these cost the same everywhere: rows are close to a line.
            told(f"tokens of {config.name}")
            rows = config.render(config.population.spread(TRIED))
            lines[config.name] = np.polyfit(_text_of(rows), counter.lengths(rows), 1)
        parts = np.split(numbers, range(TRIED, len(numbers), TRIED))
        return float(sum(np.polyval(lines[config.name], _text_of(config.render(part))).sum() for part in parts))

    def total(scale: int) -> float:
        """Return the rows of all, or their tokens: exact where expressions are few."""
        found = 0.0
        for config in configs(scale):
            some = config.population.spread(LOOKED_AT)
            found += measure(config, some) * len(config.population) / len(some)
        return found

    scale, rows = _nearest(total, asked, "tokens" if counted else "rows"), Counter[str]()
    for config in configs(scale):
        told(f"rows of {config.name}")
        rows[config.settings.task] += int(config.num_rows(np.arange(len(config.population))).sum())
    num, extra = divmod(scale, MILLION)
    budgets = {task: Budget(asked=asked, rows=rows[task.task], extra=extra, **counted) for task in tasks}
    found = (task.resolved(num, budgets[task]) if task in budgets else task for task in declaration.tasks)
    return replace(declaration, tasks=tuple(found))


def _text_of(rows: pa.RecordBatch) -> I64:
    prompts, answers = (pc.utf8_length(rows.column(name)).to_numpy() for name in ("prompt", "completion"))
    return (prompts + answers).astype(np.int64)


def _nearest(total: Callable[[int], float], asked: int, unit: str) -> int:
    """Return the scale whose total is closest to what is asked for.

    Raises:
        UserError: none is within 1%.
    """
    tried, scale = {0: 0.0}, MILLION
    while scale not in tried and all(abs(found - asked) > CLOSE * asked for found in tried.values()):
        tried[scale] = total(scale)
        scale = _next(tried, asked)
    best = min([*tried][1:], key=lambda scale: abs(tried[scale] - asked))
    if abs(tried[best] - asked) > ALLOWED * asked:
        below, above = max(found for found in tried.values() if found <= asked), max(tried.values())
        above = min((found for found in tried.values() if found > asked), default=below)
        nearest = f"within 1% of {below:,.0f} or {above:,.0f} {unit}"
        if not above:
            nearest = "none: nothing has rows"
        elif not below or below == above:  # the least that there is, or all that there is
            few = "where classes are few, not every number can be met within 1%"
            nearest = f"{'up to' if below else 'from'} {above:,.0f} {unit}; {few}"
        raise UserError(
            f"no number of expressions of each class gives {asked:,} {unit} in the train split",
            where=f"{unit} (--{unit})",
            allowed=nearest,
            next_step=f"change --{unit}, or --min, --max, --task and --view; caef-data plan shows what they give",
        )
    return best


def _next(tried: dict[int, float], asked: int) -> int:
    """Return the scale to try next, from the totals of others; one of them where there is nothing between."""
    low = max(scale for scale, total in tried.items() if total <= asked)
    high = min((scale for scale, total in tried.items() if total > asked), default=MOST)
    before = max((scale for scale in tried if scale < low), default=0)
    if not low:
        return MILLION
    other = high if high in tried else before  # totals are nearly straight lines, which bend where classes run out
    slope = (tried[other] - tried[low]) / (other - low)
    if not slope:
        return low if low >= (10 * before if tried[low] else NONE_YET) else 10 * low
    between = high in tried and len(tried) % 3 == 0
    guess = (low + high) // 2 if between else int(low + (asked - tried[low]) / slope)
    return min(max(guess, low + 1), high - 1, STEP * low)
