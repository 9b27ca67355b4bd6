"""Finds how many expressions a class give the train rows, or the tokens, that a declaration asks for.

Between ``num`` and ``num + 1`` expressions a class some classes get one more, chosen by a hash of their lengths, so
that the rows come as close as whole expressions allow. A larger budget of the same seed holds a smaller one's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import UserError
from ..tm.columns import I64
from .budget import MILLION, Budget, tokenizer_name
from .plan import Config, TokenCounter, split_configs
from .sampling.enumerate_small import DRAWN, Told
from .settings import Declaration

CLOSE, ALLOWED = 0.001, 0.01  # how far from a budget: where the search ends; where a budget is refused
MOST = 10**9 * MILLION  # the largest ``num``
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
        UserError: no number of expressions gives so many rows, within 1%; or tokens cannot be counted.
    """
    asked, counted = declaration.rows or 0, dict[str, str | None]()
    if declaration.tokens is not None and declaration.tokenizer is not None and counter is not None:
        asked, counted = declaration.tokens, {"tokenizer": tokenizer_name(declaration.tokenizer)}
        counted["sha256"] = counter.sha256
    search = _Search(declaration, counter if counted else None, told)
    scale = search.nearest(asked, "tokens" if counted else "rows")
    rows = count_rows(search.configs(scale), told)
    extra = scale % MILLION
    tasks = {
        task: task.resolved(scale // MILLION, Budget(asked=asked, rows=rows[task.task], extra=extra, **counted))
        for task in search.tasks
    }
    return replace(declaration, tasks=tuple(tasks.get(task, task) for task in declaration.tasks))


def count_rows(configs: Iterable[Config], told: Told) -> Counter[str]:
    """Return the exact rows of configs, by task."""
    rows = Counter[str]()
    for config in configs:
        for start in range(0, len(config.population), DRAWN):
            told(f"{config.name}, {start:,} of {len(config.population):,} expressions counted")
            numbers = np.arange(start, min(start + DRAWN, len(config.population)))
            rows[config.settings.task] += len(config.work(numbers).expressions)
    return rows


class _Search:
    """The train rows of a declaration's tasks, or their tokens, at a number of expressions a class, in millionths."""

    def __init__(self, declaration: Declaration, counter: TokenCounter | None, told: Told) -> None:
        self.tasks = [task for task in declaration.tasks if task.views_of("train")]
        self.counter, self.told = counter, told
        self.lines: dict[str, Any] = {}  # of each config: the tokens that a character adds, and those of each row

    def configs(self, scale: int) -> list[Config]:
        """Return the configs of the train split."""
        budget, found = Budget(asked=1, rows=0, extra=scale % MILLION), list[Config]()
        for task in self.tasks:
            settings = task.resolved(scale // MILLION, budget)
            found += split_configs(settings, "train", settings.views_of("train"), self.told)[0]
        return found

    def total(self, scale: int) -> float:
        """Return the rows of all, or their tokens: exact where expressions are few."""
        looked_at = [(config, config.population.spread(LOOKED_AT)) for config in self.configs(scale)]
        return sum(self._of(config, numbers) * len(config.population) / len(numbers) for config, numbers in looked_at)

    def _of(self, config: Config, numbers: I64) -> float:
        """Return the rows of some expressions, or their tokens."""
        if self.counter is None:
            return len(config.work(numbers).expressions)
        if config.name not in self.lines:
            # Texts differ by their digits above all, and these cost the same everywhere: rows are close to a line.
            self.told(f"tokens of {config.name}")
            rows = config.render(config.population.spread(TRIED))
            self.lines[config.name] = np.polyfit(_text_of(rows), self.counter.lengths(rows), 1)
        parts = (_text_of(config.render(numbers[at : at + TRIED])) for at in range(0, len(numbers), TRIED))
        return float(sum(np.polyval(self.lines[config.name], part).sum() for part in parts))

    def nearest(self, asked: int, unit: str) -> int:
        """Return the scale whose total is closest to what is asked for.

        Raises:
            UserError: none is within 1%.
        """
        tried, scale = {0: 0.0}, MILLION
        while scale not in tried and all(abs(total - asked) > CLOSE * asked for total in tried.values()):
            tried[scale] = self.total(scale)
            scale = _next(tried, asked)
        best = min([*tried][1:], key=lambda scale: abs(tried[scale] - asked))
        if abs(tried[best] - asked) > ALLOWED * asked:
            below = max(total for total in tried.values() if total <= asked)
            above = min((total for total in tried.values() if total > asked), default=0.0)
            raise UserError(
                f"no number of expressions of each class gives {asked:,} {unit} in the train split",
                where=f"{unit} (--{unit})",
                allowed=f"within 1% of {' or '.join(f'{total:,.0f}' for total in (below, above) if total)} {unit}",
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
        return low if low >= 10 * before else 10 * low
    between = high in tried and len(tried) % 3 == 0
    guess = (low + high) // 2 if between else int(low + (asked - tried[low]) / slope)
    return min(max(guess, low + 1), high - 1, STEP * low)


def _text_of(rows: pa.RecordBatch) -> I64:
    prompts, answers = (pc.utf8_length(rows.column(name)).to_numpy() for name in ("prompt", "completion"))
    return (prompts + answers).astype(np.int64)
