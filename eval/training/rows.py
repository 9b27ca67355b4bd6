"""The rows that each step of a training reads, as tokens: a function of the step's number alone."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import UserError
from ...pipelines.stream import Stream
from ..backends.tokens import Tokens

WORK = ".train"  # under the folder of the adapters: states of unfinished ones, histories of all
BLOCK = 4096  # rows that are rendered together

Pairs = tuple[tuple[str, str], ...]
Spelled = tuple[list[int], list[int]]  # the tokens of a prompt, those of its completion with the end


class Stage(NamedTuple):
    """A part of a training."""

    name: str  # ``first`` puts each row's instruction before its prompt, ``second`` leaves it out
    steps: int  # of the optimiser
    rows: int  # that a step reads
    first: int  # the number of its first row
    mean: float  # tokens of a row, about
    longest: int  # tokens of the longest row that was looked at
    digits: int = 0  # of the longest operands that it reaches


class Job:
    """The training of one adapter, or of one model: to torch a data set of the rows of each part of each step.

    Item ``step * parts + part`` holds the rows of a part of a step, as tokens.

    Args:
        name: where it belongs: ``executors/add`` for an adapter, ``all`` for one of all tasks, ``model`` for a model.
        pairs: kind (executors or aligners) and task of what evaluation asks it.
        stream: the rows.
        tokens: the base model's tokenizer.
        most: tokens that a row may have; None where there is no limit.
        why: the reason.

    Attributes:
        stages: the stages, one after the other.
        parts: in which the rows of a step go through the model, of all processes together.
        identity: changes with everything that changes what it learns, and what is asked on the way.
    """

    def __init__(
        self, name: str, pairs: Pairs, stream: Stream, tokens: Tokens, most: int | None, why: str = ""
    ) -> None:
        self.name, self.pairs, self.stream, self.tokens, self.most, self.why = name, pairs, stream, tokens, most, why
        self.stages, self.parts, self.identity = list[Stage](), 1, ""
        self._block = lru_cache(maxsize=2)(self._rendered)

    @property
    def steps(self) -> int:
        """Steps of the optimiser."""
        return sum(stage.steps for stage in self.stages)

    def __len__(self) -> int:
        return self.steps * self.parts

    def __getitem__(self, item: int) -> list[Spelled]:
        step, part = divmod(item, self.parts)
        for stage in self.stages:
            if step < stage.steps:
                begin = stage.first + step * stage.rows
                own = range(begin + stage.rows * part // self.parts, begin + stage.rows * (part + 1) // self.parts)
                return self.spell((self._block(number // BLOCK)[number % BLOCK] for number in own), stage.name)
            step -= stage.steps
        raise IndexError(item)

    def work(self, out: str) -> Path:
        """Return the folder of its states, below that of the adapters."""
        return Path(out, WORK, self.name.replace("/", "-"))

    def tokens_to(self, step: int) -> float:
        """Return the tokens that are read up to a step, about."""
        found = 0.0
        for stage in self.stages:
            found += min(step, stage.steps) * stage.rows * stage.mean
            step = max(0, step - stage.steps)
        return found

    def spell(self, rows: Iterable[dict[str, Any]], stage: str) -> list[Spelled]:
        """Return rows of a stage as the tokens that evaluation asks for, never cut.

        Raises:
            UserError: a row has too many.
        """
        spelled = self.tokens.rows(*map(list, zip(*texts_of(rows, stage), strict=True)))
        longest = max(map(size_of, spelled), default=0)
        if self.most is not None and longest > self.most:
            raise UserError(
                f"a row of {self.name}, {stage} stage, has {longest:,} tokens, {self.why}",
                allowed=f"rows of up to {self.most:,} tokens: they are never cut",
                next_step='shorter operands (max = ...), another base model, or stages = ["second"]: no instruction',
            )
        return spelled

    def _rendered(self, block: int) -> list[dict[str, Any]]:
        names = ("instruction", "prompt", "completion")
        end = min((block + 1) * BLOCK, max(stage.first + stage.steps * stage.rows for stage in self.stages))
        rows = self.stream.__getitems__(range(block * BLOCK, end))
        return [{name: row[name] for name in names} for row in rows]


def texts_of(rows: Iterable[dict[str, Any]], stage: str) -> list[tuple[str, str]]:
    """Return prompt and completion of rows in a stage."""
    return [((row["instruction"] if stage == "first" else "") + row["prompt"], row["completion"]) for row in rows]


def size_of(row: Spelled) -> int:
    """Return the tokens of a row."""
    return len(row[0]) + len(row[1])
