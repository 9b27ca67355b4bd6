"""The rows that each step of a training reads, as tokens: a function of the step's number alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ...errors import UserError, printable_path
from ...pipelines.stream import Stream
from ..backends.tokens import Tokens

BLOCK = 4096  # rows that are rendered together

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
    answers = tokens.completions([row["completion"] for row in rows])
    pairs = zip(tokens.prompts(prompts), answers, strict=True)
    return [(prompt, [*answer, tokens.end]) for prompt, answer in pairs]


def check_length(rows: Sequence[Spelled], most: int | None, where: str, which: str) -> int:
    """Return the tokens of the longest row; rows are never cut.

    Raises:
        UserError: the model does not read so many.
    """
    longest = max((len(prompt) + len(answer) for prompt, answer in rows), default=0)
    if most is not None and longest > most:
        raise UserError(
            f"a row of {which} has {longest:,} tokens, the model reads {most:,}: rows are never cut",
            where=printable_path(where),
            allowed=f"rows of up to {most:,} tokens",
            next_step='shorter operands (max = ...), stages = ["second"] if the instruction is what is too long, or'
            " another base model",
        )
    return longest


class Steps:
    """The rows of each part of each step: item ``step * parts + part``, to torch a data set.

    Args:
        stream: the rows.
        tokens: the base model's tokenizer.
        stages: the stages, one after the other.
        parts: in which the rows of a step go through the model, of all processes together.
        most: tokens that the model reads of a row; None where there is no limit.
        name: of the adapter, for messages.
    """

    def __init__(
        self, stream: Stream, tokens: Tokens, stages: Sequence[Stage], parts: int, most: int | None, name: str
    ) -> None:
        self.stream, self.tokens, self.stages, self.parts = stream, tokens, stages, parts
        self.most, self.name = most, name
        self._block = lru_cache(maxsize=2)(self._rendered)

    def __len__(self) -> int:
        return sum(stage.steps for stage in self.stages) * self.parts

    def __getitem__(self, item: int) -> list[Spelled]:
        step, part = divmod(item, self.parts)
        for stage in self.stages:
            if step < stage.steps:
                begin = stage.first + step * stage.rows
                own = range(begin + stage.rows * part // self.parts, begin + stage.rows * (part + 1) // self.parts)
                rows = spell(self.tokens, [self._block(number // BLOCK)[number % BLOCK] for number in own], stage.name)
                self.check(rows, stage.name)
                return rows
            step -= stage.steps
        raise IndexError(item)

    def check(self, rows: Sequence[Spelled], stage: str) -> int:
        """Refuse rows that are longer than the model reads; return the tokens of the longest."""
        return check_length(rows, self.most, self.tokens.where, f"{self.name}, {stage} stage,")

    def _rendered(self, block: int) -> list[dict[str, Any]]:
        names = ("instruction", "prompt", "completion")
        end = min((block + 1) * BLOCK, max(stage.first + stage.steps * stage.rows for stage in self.stages))
        rows = self.stream.__getitems__(range(block * BLOCK, end))
        return [{name: row[name] for name in names} for row in rows]
