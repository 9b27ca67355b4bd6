"""Requests in tokens, and what the tokens that a model gives say of the answer: what all backends share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import NamedTuple

from ..calls import SLACK, Answer, Request
from .tokens import NO_WORD, Tokens

# A lead smaller than this, in logits, can turn with the shape of a batch. Measured on the architectures of
# tests/test_architectures.py and on SmolLM2-135M, batch against alone: leads differ by up to 5e-5 in float32, 0.06 in
# float16 and 0.4 in bfloat16; the larger ones leave room for models of many more layers.
NEAR = {"float32": 1e-3, "float16": 0.25, "bfloat16": 1.0}


@dataclass(frozen=True, slots=True)
class Row:
    """A request in tokens."""

    index: int  # of the request
    request: Request
    tokens: Tokens
    prompt_ids: list[int]
    answer_ids: list[int]  # of the right answer, without the end
    target: str  # the right answer's text, and before it what ``prompt_ids`` lack of the prompt
    exact: bool  # ``answer_ids`` are this text; where not, only decoding can tell
    merges: bool  # the tokenizer merges the end of the prompt with the answer
    num_given_tokens: int  # so many of ``answer_ids`` are given to the model when it decodes
    limit: int  # tokens to decode, at most
    given_margin: float = inf  # smallest lead of the given tokens
    alone: bool = False  # it shares no batch
    pass_margin: float | None = None  # of the forward pass, where there was one

    @property
    def length(self) -> int:
        """Number of tokens of the prompt and the right answer."""
        return len(self.prompt_ids) + len(self.answer_ids)

    @property
    def decode_from(self) -> list[int]:
        """The tokens that decoding begins with."""
        return self.prompt_ids + self.answer_ids[: self.num_given_tokens]

    @property
    def most(self) -> int:
        """Number of tokens that the right answer can take, whatever they are."""
        return len(self.target.encode()) + SLACK

    def may_become_right(self, answer: Sequence[int]) -> bool:
        """Tell whether a right answer can begin with these tokens."""
        ended = bool(answer) and answer[-1] == self.tokens.end
        text = self.tokens.text(self.prompt_ids, answer[:-1] if ended else answer)
        if ended or not self.tokens.words.issuperset(answer):
            return text == self.target
        # The bytes of one character may lie in several tokens.
        return self.target.startswith(text.rstrip(NO_WORD))

    def stopped_early(self, decoded: Sequence[int]) -> bool:
        """Tell whether decoding gave up on what may still become the right answer in more tokens."""
        if not self.request.certain or (decoded and decoded[-1] == self.tokens.end):
            return False
        return self.may_become_right([*self.answer_ids[: self.num_given_tokens], *decoded])

    def answer(self, decoded: Sequence[int], *, margin: float | None, near: float) -> Answer:
        """Return the answer that decoded tokens are, whose smallest lead over the next best ones is ``margin``."""
        ended = bool(decoded) and decoded[-1] == self.tokens.end
        whole = [*self.answer_ids[: self.num_given_tokens], *(decoded[:-1] if ended else decoded)]
        text = self.tokens.text(self.prompt_ids, whole)
        piece = self.target.removesuffix(self.request.completion)
        # What does not go on with the prompt is no answer to it, whatever it says.
        text = text.removeprefix(piece) if text.startswith(piece) else NO_WORD + text
        if margin is not None and self.num_given_tokens:
            margin = min(margin, self.given_margin)
        spelled = self.prompt_ids, self.answer_ids, whole
        found = Answer.to(self.request, spelled, text, ended=ended, decoded=len(decoded))
        found.near_tie, found.merges = margin is not None and margin < near, self.merges
        missed = self.pass_margin if self.pass_margin is not None and self.pass_margin <= 0 else None
        found.margin = margin if found.right else missed
        return found


def make_rows(tokens: Tokens, requests: Sequence[Request], indices: Sequence[int]) -> Iterator[Row]:
    """Yield some of all requests in tokens, whatever a model can take."""
    chosen = [requests[index] for index in indices]
    spelled = tokens.spell([request.prompt for request in chosen], [request.completion for request in chosen])
    for index, request, (prompt_ids, answer_ids, piece, merges) in zip(indices, chosen, spelled, strict=True):
        target = piece + request.completion
        exact = tokens.text(prompt_ids, answer_ids) == target
        given = min(request.known, len(answer_ids)) if exact else 0
        limit = len(answer_ids) - given + SLACK
        yield Row(index, request, tokens, prompt_ids, answer_ids, target, exact, merges, given, limit)


class PassResult(NamedTuple):
    """What a forward pass over a prompt and its right answer tells."""

    first_wrong: int  # index of the first token that is not the likeliest one; more than there are if all are
    top: int  # the likeliest token there
    margin: float  # smallest lead of a right token over the best other one, up to the first wrong one: that is negative
    margin_before: float  # the same, without the wrong one
    closest: float  # smallest distance of the likeliest token from the next one, up to the first wrong one


def judge(row: Row, result: PassResult, near: float, *, alone: bool) -> Answer | Row:
    """Return the answer that a forward pass tells; where only decoding can tell, the row as it is to be decoded.

    Distances below ``near`` are near ties: decoded ``alone``, or else judged by the pass, too.
    """
    size, first_wrong = len(row.answer_ids) + 1, result.first_wrong
    right, close = first_wrong >= size, result.closest < near
    if close and alone:
        return replace(row, alone=True, pass_margin=result.margin)
    if not row.exact:
        return replace(row, pass_margin=result.margin)
    if not right and row.may_become_right([*row.answer_ids[:first_wrong], result.top]):
        row = replace(row, num_given_tokens=first_wrong, limit=row.limit - first_wrong)
        return replace(row, given_margin=result.margin_before, pass_margin=result.margin)
    margin = result.margin if isfinite(result.margin) else None
    at = None if right else first_wrong
    return Answer(right, at, margin, len(row.prompt_ids) + size, size, near_tie=close, merges=row.merges)
