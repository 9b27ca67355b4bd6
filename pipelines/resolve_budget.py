"""Finds how many expressions a class give the train rows, or the tokens, that a declaration asks for.

Between ``num`` and ``num + 1`` expressions a class some classes get one more, chosen by a hash of their lengths, so
that the rows come as close as whole expressions allow. A larger budget of the same seed holds a smaller one's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import ceil, log

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..errors import UserError
from ..tm.columns import I64
from .budget import MILLION, Budget, tokenizer_name
from .plan import DRAWN, STEP_VIEWS, Config, TokenCounter, split_configs
from .sampling.enumerate_small import Told
from .sampling.split import distinct
from .settings import Declaration

ROUNDS = 6
CLOSE, ALLOWED = 0.001, 0.01  # how far from a budget: where the search ends; where a budget is refused
MOST = 10**9 * MILLION  # the largest ``num``
TRIED, RENDERED = 256, 16_384  # expressions of a config that are tokenised, and whose texts are measured
TOGETHER = 256  # expressions rendered together

Key = tuple[str, str]  # task, view


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
    asked, unit = declaration.rows or declaration.tokens or 0, "rows" if declaration.rows else "tokens"
    search, scale = _Search(declaration, counter if unit == "tokens" else None, told), MILLION
    for _ in range(ROUNDS):
        search.weigh(scale)
        if abs(search.total(scale) - asked) <= CLOSE * asked:
            break
        scale = search.nearest(asked, unit)
    counted: dict[str, str | None] = {}
    if unit == "tokens" and counter is not None and declaration.tokenizer is not None:
        counted = {"tokenizer": tokenizer_name(declaration.tokenizer), "sha256": counter.sha256}
    found = {key: count_rows(config, told) for key, config in search.configs(scale).items()}
    tasks = []
    for task in declaration.tasks:
        rows = sum(count for key, count in found.items() if key[0] == task.task)
        budget = Budget(asked=asked, rows=max(rows, 1), extra=scale % MILLION, **counted)
        tasks.append(task.resolved(scale // MILLION, budget) if task in search.tasks else task)
    return replace(declaration, tasks=tuple(tasks))


class _Search:
    """The train rows of a declaration's tasks, or their tokens, at a number of expressions a class, in millionths."""

    def __init__(self, declaration: Declaration, counter: TokenCounter | None, told: Told) -> None:
        self.tasks = [task for task in declaration.tasks if task.views_of("train")]
        self.counter, self.told = counter, told
        self.per_row: dict[Key, float] = {}  # tokens; 1 if not said
        self.lines: dict[Key, tuple[float, float]] = {}  # see ``tokens_of_text``
        self.per_expression: dict[Key, float] = {}  # rows
        self.counts: dict[int, dict[Key, tuple[int, float | None]]] = {}  # expressions, rows of each if they are few

        self._last: tuple[int, dict[Key, Config]] = 0, {}

    def configs(self, scale: int) -> dict[Key, Config]:
        """Return the configs of the train split, by task and view."""
        if self._last[0] == scale:
            return self._last[1]
        found = list[Config]()
        for task in self.tasks:
            settings = task.resolved(scale // MILLION, Budget(asked=1, rows=1, extra=scale % MILLION))
            found += split_configs(settings, "train", settings.views_of("train"), self.told)[0]
        self._last = scale, {(config.settings.task, config.view): config for config in found}
        return self._last[1]

    def total(self, scale: int) -> float:
        """Return the rows of all, or their tokens."""
        if scale not in self.counts:
            self.counts[scale] = {key: _counted(config) for key, config in self.configs(scale).items()}
        return sum(
            count * (self.per_expression.get(key, 6) if each is None else each) * self.per_row.get(key, 1)
            for key, (count, each) in self.counts[scale].items()
        )

    def weigh(self, scale: int) -> None:
        """Find out how many rows an expression gives there, and how many tokens a row has: ``total`` is right there."""
        for key, config in self.configs(scale).items():
            self.per_expression[key] = rows_an_expression(config)
            if self.counter is not None:
                if key not in self.lines:
                    self.told(f"tokens of {config.name}")
                    self.lines[key] = tokens_of_text(config, self.counter)
                own, of_text = self.lines[key]
                self.per_row[key] = own + of_text * text_a_row(config)

    def nearest(self, asked: int, unit: str) -> int:
        """Return the scale whose total is closest to what is asked for.

        Raises:
            UserError: none is within 1%.
        """
        total = self.total
        if total(MILLION) > asked * (1 + ALLOWED):
            raise _refused(asked, unit, f"{total(MILLION):,.0f} {unit} or more, one expression of each class")
        low = max((scale for scale in self.counts if total(scale) <= asked), default=MILLION)
        high = min((scale for scale in self.counts if total(scale) > asked), default=0)
        first, power = low, 1.0
        while not high:
            guess = min(MOST, ceil(low * max(1.01, 1.01 * asked / total(low)) ** power))
            if total(guess) > asked:
                high = guess
            elif guess == MOST or (total(guess) == total(first) and guess > 1000 * first):
                if total(guess) >= asked * (1 - ALLOWED):
                    return first
                raise _refused(asked, unit, f"at most {total(guess):,.0f} {unit}: there are no more expressions")
            else:  # the more classes have run out, the larger the step that is needed
                grown = log(total(guess) / total(low)) / log(guess / low)
                power = min(2 * power, 1 / max(grown, 0.01))
                first, low = (first if total(guess) == total(first) else guess), guess
        tried = 0
        while high - low > 1 and min(abs(total(end) - asked) for end in (low, high)) > CLOSE * asked:
            tried += 1
            share = log(asked / total(low)) / log(total(high) / total(low)) if tried % 3 else 0.5
            guess = min(max(round(low * (high / low) ** share), low + 1), high - 1)
            low, high = (low, guess) if total(guess) > asked else (guess, high)
        best = min((low, high), key=lambda end: abs(total(end) - asked))
        if abs(total(best) - asked) > ALLOWED * asked:
            ends = " or ".join(f"{total(end):,.0f}" for end in (low, high))
            raise _refused(asked, unit, f"{ends} {unit}: expressions are whole")
        return best


def _counted(config: Config) -> tuple[int, float | None]:
    count = len(config.population)
    return count, None if count > DRAWN else rows_an_expression(config)


def count_rows(config: Config, told: Told = lambda text: None) -> int:
    """Return how many rows a config has, exactly."""
    total, rows = len(config.population), 0
    if config.view not in STEP_VIEWS:
        return total * (2 if config.view == "aligner" else 1)
    for start in range(0, total, DRAWN):
        told(f"{config.name}, {start:,} of {total:,} expressions counted")
        rows += _rows_of(config, np.arange(start, min(start + DRAWN, total)))
    return rows


def rows_an_expression(config: Config) -> float:
    """Return the mean number of rows of an expression, of one in some where they are many."""
    if config.view not in STEP_VIEWS or len(config.population) <= DRAWN:
        return count_rows(config) / len(config.population)
    numbers = _all_over(config, DRAWN)
    return _rows_of(config, numbers) / len(numbers)


def _rows_of(config: Config, numbers: I64) -> int:
    work = config.work(*config.population.operands(numbers))
    rows = work.kept()
    return (
        len(rows) if config.view == "one_step" else int(np.count_nonzero(work.batch.steps(rows)))
    )  # no slip at the first


def _all_over(config: Config, most: int) -> I64:
    """Return expressions from all over a config: in the order of their classes, so that chance decides little."""
    total = len(config.population)
    return distinct(np.linspace(0, total - 1, min(most, total)).astype(np.int64))


def text_a_row(config: Config) -> float:
    """Return the mean number of characters of a row."""
    return float(np.concatenate([_text_of(batch) for batch in _some(config, RENDERED)]).mean())


def tokens_of_text(config: Config, counter: TokenCounter) -> tuple[float, float]:
    """Return the tokens that each row has, and those that each character of its text adds: a line through some rows.

    Texts differ by their digits above all, and these cost the same everywhere: what rows are off the line is little.
    """
    batches = list(_some(config, TRIED))
    text = np.concatenate([_text_of(batch) for batch in batches])
    tokens = np.array([length for batch in batches for length in counter.lengths(batch)], np.float64)
    varies = ((text - text.mean()) ** 2).mean()
    slope = ((text - text.mean()) * (tokens - tokens.mean())).mean() / varies if varies else 0.0
    return float(tokens.mean() - slope * text.mean()), float(slope)


def _some(config: Config, most: int) -> Iterator[pa.RecordBatch]:
    numbers = _all_over(config, most)
    return (config.render(numbers[start : start + TOGETHER]) for start in range(0, len(numbers), TOGETHER))


def _text_of(rows: pa.RecordBatch) -> NDArray[np.float64]:
    lengths = [pc.utf8_length(rows.column(name)).to_numpy() for name in ("prompt", "completion")]
    return np.add(*lengths).astype(np.float64)


def _refused(asked: int, unit: str, allowed: str) -> UserError:
    return UserError(
        f"no number of expressions of each class gives {asked:,} {unit} in the train split",
        where=f"{unit} (--{unit})",
        allowed=f"within 1% of {allowed}" if allowed[0].isdigit() else allowed,
        next_step=f"change --{unit}, or --min, --max, --task and --view; caef-data plan shows what they give",
    )
