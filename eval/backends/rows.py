"""Questions in tokens, and what the tokens that a model gives say of the answer: what all backends share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import NamedTuple

from ..calls import SLACK, GenerateRequest, Generation, Score
from .tokens import NO_WORD, Tokens

# A lead smaller than this, in logits, can turn with the shape of a batch. Measured on the architectures of
# tests/test_architectures.py and on SmolLM2-135M, batch against alone: leads differ by up to 5e-5 in float32, 0.06 in
# float16 and 0.4 in bfloat16; the larger ones leave room for models of many more layers.
NEAR = {"float32": 1e-3, "float16": 0.25, "bfloat16": 1.0}


@dataclass(frozen=True, slots=True)
class Row:
    """A question in tokens."""

    index: int  # of the question
    question: GenerateRequest
    tokens: Tokens
    given: list[int]  # what the model reads
    expected: list[int]  # the right answer, without the end
    target: str  # what these tokens must be: the right answer, and before it what ``given`` lacks of the prompt
    exact: bool  # they are it; where not, only decoding can tell
    merges: bool  # the tokenizer merges the end of the prompt with the answer
    known: int  # how many of the expected tokens the model is given when it decodes
    limit: int  # tokens to decode, at most
    least: float = float("inf")  # smallest lead of the known tokens
    alone: bool = False  # it shares no batch

    @property
    def length(self) -> int:
        """Number of tokens of the prompt and the right answer."""
        return len(self.given) + len(self.expected)

    @property
    def begun(self) -> list[int]:
        """The tokens that decoding begins with."""
        return self.given + self.expected[: self.known]

    def may_become_right(self, answer: Sequence[int]) -> bool:
        """Tell whether a right answer can begin with some tokens; the end token stands for the answer's end."""
        ended = bool(answer) and answer[-1] == self.tokens.end
        text = self.tokens.text(self.given, answer[:-1] if ended else answer)
        if ended or not self.tokens.words.issuperset(answer):
            return text == self.target
        # The bytes of one character may lie in several tokens.
        return self.target.startswith(text.rstrip(NO_WORD))

    def gave_up(self, given: Sequence[int]) -> bool:
        """Tell whether decoding gave up, after these tokens, on what may still become the right answer in more."""
        ended = bool(given) and given[-1] == self.tokens.end
        return self.question.certain and not ended and self.may_become_right([*self.expected[: self.known], *given])

    @property
    def most(self) -> int:
        """Number of tokens that the right answer can take, whatever they are."""
        return len(self.target.encode()) + SLACK

    def answer(self, given: Sequence[int], *, margin: float | None, near: float) -> Generation:
        """Return the answer that decoding gave.

        Args:
            given: the tokens decoded, with the end token where it came.
            margin: their smallest lead over the next best ones; None where unknown.
            near: leads below this are near ties.
        """
        ended = bool(given) and given[-1] == self.tokens.end
        whole = [*self.expected[: self.known], *(given[:-1] if ended else given)]
        text, piece = self.tokens.text(self.given, whole), self.target[: len(self.target) - len(self.question.expected)]
        # What does not go on with the prompt is no answer to it, whatever it says.
        text = text[len(piece) :] if text.startswith(piece) else NO_WORD + text
        least = None if margin is None else min(margin, self.least) if self.known else margin
        found = Generation.to(self.given, self.expected, whole, text=text, ended=ended, decoded=len(given))
        return replace(found, margin=least, near_tie=least is not None and least < near, merges=self.merges)

    def verdict(self, answer: Generation, margin: float | None = None) -> Score:
        """Return the verdict that a decoded answer gives; ``margin``: of the forward pass, where there was one."""
        right = answer.ended and answer.text == self.question.expected
        missed = margin if margin is not None and margin <= 0 else None
        return Score(
            right,
            None if right else answer.at,
            answer.margin if right else missed,
            answer.tokens,
            answer.completion_tokens,
            answer,
            answer.near_tie,
            self.merges,
        )


def spell_rows(tokens: Tokens, questions: Sequence[GenerateRequest], indices: Sequence[int]) -> Iterator[Row]:
    """Yield some of all questions in tokens, whatever a model can take."""
    chosen = [questions[index] for index in indices]
    spelled = tokens.spell([one.prompt for one in chosen], [one.expected for one in chosen])
    for index, question, one in zip(indices, chosen, spelled, strict=True):
        target = one.piece + question.expected
        exact = tokens.text(one.given, one.answer) == target
        known = min(question.known, len(one.answer)) if exact else 0
        limit = len(one.answer) - known + SLACK
        yield Row(index, question, tokens, one.given, one.answer, target, exact, one.merges, known, limit)


class Found(NamedTuple):
    """What a forward pass over a question and its right answer found."""

    first: int  # index of the first token of the right answer that is not the likeliest; more than there are if all are
    top: int  # the likeliest token there
    margin: float  # smallest lead of a right token over the best other one, up to the first wrong one: that is negative
    before: float  # the same, without the wrong one
    closest: float  # smallest distance of the likeliest token from the next one, up to the first wrong one


def judge(row: Row, found: Found, near: float, *, alone: bool) -> Score | Row:
    """Return the verdict of a forward pass; where only decoding can tell, the row as it is to be decoded.

    Args:
        row: the question.
        found: what the pass found.
        near: distances below this are near ties.
        alone: near ties are decoded alone; else the pass judges them too.
    """
    size = len(row.expected) + 1
    right, close = found.first >= size, found.closest < near
    if close and alone:
        return replace(row, alone=True)
    if not row.exact:
        return row
    if not right and row.may_become_right([*row.expected[: found.first], found.top]):
        return replace(row, known=found.first, limit=row.limit - found.first, least=found.before)
    margin = found.margin if isfinite(found.margin) else None
    at = None if right else found.first
    return Score(right, at, margin, len(row.given) + size, size, None, close, row.merges)
