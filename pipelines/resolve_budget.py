"""Finds how many expressions a class give the train rows, or the tokens, that a declaration asks for.

Between ``num`` and ``num + 1`` expressions a class some classes get one more, chosen by a hash of their lengths, so
that the rows come as close as whole expressions allow. A larger budget of the same seed holds a smaller one's.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from math import ceil, log

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import UserError, printable_path
from ..tm.columns import I64
from .budget import MILLION, Budget, tokenizer_name
from .plan import Config, TokenCounter, split_configs
from .sampling.classes import class_cells, short_run_cells
from .sampling.enumerate_small import DRAWN, Told, room
from .settings import Declaration, TaskSettings

CLOSE, ALLOWED = 0.001, 0.01  # how far from a budget: where the search ends; where a budget is refused
MOST = 10**9 * MILLION  # the largest ``num``
PROBED, PARTS, MARGIN = 1_000, 64, 1.15  # of a budget far too large: expressions a class; parts of them; a factor
QUICK = 3_000_000  # expressions that are listed in seconds, so that what there is can be told exactly
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
    asked, unit = declaration.rows or declaration.tokens or 0, "rows" if declaration.rows else "tokens"
    counter = counter if unit == "tokens" else None
    search = _Search(declaration, counter, told)
    scale = search.nearest(asked, unit)
    counted: dict[str, str | None] = {}
    if counter is not None and declaration.tokenizer is not None:
        counted = {"tokenizer": tokenizer_name(declaration.tokenizer), "sha256": counter.sha256}
    rows = count_rows(search.configs(scale), told)
    extra, found = scale % MILLION, dict[TaskSettings, TaskSettings]()
    for task in search.tasks:
        budget = Budget(asked=asked, rows=rows.get(task.task, 0), extra=extra, **counted)
        found[task] = task.resolved(scale // MILLION, budget)
    return replace(declaration, tasks=tuple(found.get(task, task) for task in declaration.tasks))


def count_rows(configs: Iterable[Config], told: Told) -> Counter[str]:
    """Return the exact rows of configs, by task."""
    rows = Counter[str]()
    for config in configs:
        for start in range(0, len(config.population), DRAWN):
            told(f"{config.name}, {start:,} of {len(config.population):,} expressions counted")
            numbers = np.arange(start, min(start + DRAWN, len(config.population)))
            rows[config.settings.task] += len(config.work(numbers).expressions)
    return rows


def check_rows(declaration: Declaration, configs: Iterable[Config], told: Told) -> None:
    """Refuse budgets that were given as found, and whose rows are not those of the configs.

    Raises:
        UserError: the first one.
    """
    budgets = {task.task: task.budget for task in declaration.tasks if task.budget is not None}
    rows = count_rows((one for one in configs if one.split == "train" and one.settings.task in budgets), told)
    asked = defaultdict[int, list[int]](list)
    for task, budget in budgets.items():
        if budget.rows != rows[task]:
            what = f"budget.rows of {task} is {budget.rows:,}, but its other settings give {rows[task]:,} train rows"
            raise _forged(declaration, what, f"rows = {rows[task]}")
        if budget.sha256 is None:
            asked[budget.asked].append(budget.rows)
    for each, found in asked.items():
        builds = min(max(1, round(sum(found) / each)), len(found))  # into one folder, each with this budget
        if abs(sum(found) / builds - each) > ALLOWED * each:
            what = f"budget.asked is {each:,}, but the tasks of this budget have {sum(found):,} train rows"
            raise _forged(declaration, what, f"asked within 1% of {sum(found):,}")


def _forged(declaration: Declaration, what: str, allowed: str) -> UserError:
    where = None if declaration.source is None else printable_path(declaration.source)
    advice = "to ask for a number of rows, write rows or tokens at the top, in place of num and budget"
    return UserError(what, where=where, allowed=f"{allowed}: a budget says what was found", next_step=advice)


class _Search:
    """The train rows of a declaration's tasks, or their tokens, at a number of expressions a class, in millionths."""

    def __init__(self, declaration: Declaration, counter: TokenCounter | None, told: Told) -> None:
        self.tasks = [task for task in declaration.tasks if task.views_of("train")]
        self.counter, self.told = counter, told
        self.lines: dict[str, tuple[float, float]] = {}  # of each config, see ``_line``
        self.totals: dict[int, float] = {}

    def configs(self, scale: int) -> list[Config]:
        """Return the configs of the train split."""
        budget, found = Budget(asked=1, rows=0, extra=scale % MILLION), list[Config]()
        for task in self.tasks:
            settings = task.resolved(scale // MILLION, budget)
            found += split_configs(settings, "train", settings.views_of("train"), self.told)[0]
        return found

    def total(self, scale: int) -> float:
        """Return the rows of all, or their tokens: exact where expressions are few."""
        if scale not in self.totals:
            looked_at = [(config, config.population.spread(LOOKED_AT)) for config in self.configs(scale)]
            self.totals[scale] = sum(
                self._of(config, numbers) * len(config.population) / len(numbers) for config, numbers in looked_at
            )
        return self.totals[scale]

    def _of(self, config: Config, numbers: I64) -> float:
        """Return the rows of some expressions, or their tokens."""
        if self.counter is None:
            return len(config.work(numbers).expressions)
        if config.name not in self.lines:
            self.told(f"tokens of {config.name}")
            self.lines[config.name] = _line(config, self.counter)
        own, of_text = self.lines[config.name]
        text = [_text_of(config.render(numbers[at : at + TRIED])) for at in range(0, len(numbers), TRIED)]
        return float(sum(own * len(part) + of_text * part.sum() for part in text))

    def _check_room(self, asked: int, unit: str) -> None:
        """Refuse more than all expressions could give, with a margin: to list all takes minutes where many are."""
        if self.total(MILLION) * PROBED >= asked:
            return
        expressions = most = 0.0
        for config in self.configs(PROBED * MILLION):
            settings = config.settings.resolved(MOST // MILLION, Budget(asked=1, rows=0))
            found = room(settings, "train", [*class_cells(settings, "train"), *short_run_cells(settings, "train")])
            numbers = config.population.spread(LOOKED_AT)  # nearly all expressions are as those of the largest part
            parts = np.array_split(numbers, min(PARTS, len(numbers)))
            expressions += found
            most += found * max(self._of(config, part) / len(part) for part in parts)
        if expressions > QUICK and most * MARGIN < asked:
            raise _refused(asked, unit, f"at most about {most:,.0f} {unit}: there are no more expressions")

    def nearest(self, asked: int, unit: str) -> int:
        """Return the scale whose total is closest to what is asked for.

        Raises:
            UserError: none is within 1%.
        """
        total, low, high = self.total, MILLION, 0
        self._check_room(asked, unit)
        if total(low) > asked * (1 + ALLOWED):
            raise _refused(asked, unit, f"{total(low):,.0f} {unit} or more, what --num 1 gives")
        first, power = low, 1.0
        while total(low) < asked and not high:
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
        best = min((low, high or low), key=lambda end: abs(total(end) - asked))
        if abs(total(best) - asked) > ALLOWED * asked:
            ends = " or ".join(f"{total(end):,.0f}" for end in (low, high))
            raise _refused(asked, unit, f"{ends} {unit}: expressions are whole")
        return best


def _line(config: Config, counter: TokenCounter) -> tuple[float, float]:
    """Return the tokens that each row has, and those that each character of its text adds: a line through some rows.

    Texts differ by their digits above all, and these cost the same everywhere: what rows are off the line is little.
    """
    rows = config.render(config.population.spread(TRIED))
    text, tokens = _text_of(rows), np.array(counter.lengths(rows), np.float64)
    varies = ((text - text.mean()) ** 2).mean()
    slope = ((text - text.mean()) * (tokens - tokens.mean())).mean() / varies if varies else 0.0
    return float(tokens.mean() - slope * text.mean()), float(slope)


def _text_of(rows: pa.RecordBatch) -> I64:
    prompts, answers = (pc.utf8_length(rows.column(name)).to_numpy() for name in ("prompt", "completion"))
    return (prompts + answers).astype(np.int64)


def _refused(asked: int, unit: str, allowed: str) -> UserError:
    return UserError(
        f"no number of expressions of each class gives {asked:,} {unit} in the train split",
        where=f"{unit} (--{unit})",
        allowed=f"within 1% of {allowed}" if allowed[0].isdigit() else allowed,
        next_step=f"change --{unit}, or --min, --max, --task and --view; caef-data plan shows what they give",
    )
