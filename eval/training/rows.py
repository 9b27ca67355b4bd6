"""The rows that each step of a training reads, as tokens: a function of the step's number alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ...errors import UserError, printable_path
from ...pipelines.stream import Stream
from ..backends.tokens import Tokens

BLOCK = 4096  # rows that are rendered together

Pairs = tuple[tuple[str, str], ...]
Spelled = tuple[list[int], list[int]]  # the tokens of a prompt, those of its completion with the end


@dataclass(frozen=True)
class Stage:
    """A part of a training.

    Args:
        name: ``first`` puts each row's instruction before its prompt, ``second`` leaves it out.
        steps: of the optimiser.
        rows: that a step reads.
        first: the number of its first row.
        mean: tokens of a row, about.
        longest: tokens of the longest row that was looked at.
        digits: of the longest operands that it reaches.
    """

    name: str
    steps: int
    rows: int
    first: int
    mean: float
    longest: int
    digits: int = 0

    @property
    def tokens(self) -> float:
        """Tokens of all its rows, about."""
        return self.steps * self.rows * self.mean


def spell(tokens: Tokens, rows: Iterable[dict[str, Any]], stage: str) -> list[Spelled]:
    """Return rows as the tokens that evaluation asks for: no token spans the border of prompt and completion."""
    rows = list(rows)
    prompts = [(row["instruction"] if stage == "first" else "") + row["prompt"] for row in rows]
    return tokens.rows(prompts, [row["completion"] for row in rows])


class Job:
    """The training of one adapter, or of one model: to torch a data set of the rows of each part of each step.

    Item ``step * parts + part`` holds the rows of a part of a step, as tokens.

    Args:
        name: where it belongs: ``executors/add`` for an adapter, ``all`` for one of all tasks, ``model`` for a model.
        pairs: kind (executors or aligners) and task of what evaluation asks it.
        stream: the rows.
        tokens: the base model's tokenizer.
        base: the base model, for messages.
        most: tokens that it reads of a row; None where there is no limit.

    Attributes:
        stages: the stages, one after the other.
        parts: in which the rows of a step go through the model, of all processes together.
        identity: changes with everything that changes what it learns.
    """

    def __init__(self, name: str, pairs: Pairs, stream: Stream, tokens: Tokens, base: str, most: int | None) -> None:
        self.name, self.pairs, self.stream, self.tokens = name, pairs, stream, tokens
        self.base, self.most = base, most
        self.stages: list[Stage] = []
        self.parts, self.identity = 1, ""
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
                rows = spell(self.tokens, [self._block(number // BLOCK)[number % BLOCK] for number in own], stage.name)
                self.lengths(rows, stage.name)
                return rows
            step -= stage.steps
        raise IndexError(item)

    def tokens_to(self, step: int) -> float:
        """Return the tokens that are read up to a step, about."""
        found = 0.0
        for stage in self.stages:
            found += min(step, stage.steps) * stage.rows * stage.mean
            step = max(0, step - stage.steps)
        return found

    def lengths(self, rows: Iterable[Spelled], stage: str) -> list[int]:
        """Return the tokens of each row of a stage; rows are never cut.

        Raises:
            UserError: the model does not read so many.
        """
        found = [len(prompt) + len(answer) for prompt, answer in rows]
        if self.most is not None and max(found, default=0) > self.most:
            what = f"a row of {self.name}, {stage} stage, has {max(found):,} tokens, the model reads {self.most:,}"
            raise UserError(
                f"{what}: rows are never cut",
                where=printable_path(self.base),
                allowed=f"rows of up to {self.most:,} tokens",
                next_step='shorter operands (max = ...), stages = ["second"] if the instruction is what is too long, or'
                " another base model",
            )
        return found

    def _rendered(self, block: int) -> list[dict[str, Any]]:
        names = ("instruction", "prompt", "completion")
        end = min((block + 1) * BLOCK, max(stage.first + stage.steps * stage.rows for stage in self.stages))
        rows = self.stream.__getitems__(range(block * BLOCK, end))
        return [{name: row[name] for name in names} for row in rows]
