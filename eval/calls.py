"""What an evaluation asks of a model, and what comes back: the words that backends and the rest share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from os.path import commonprefix
from typing import Any, NamedTuple, Self

Tokens = Sequence[Any]  # or the characters of a text
BASE = ""  # the adapter's name for the base model alone


class ScoreRequest(NamedTuple):
    """One question to a model, with its right answer."""

    adapter: str  # executors/add, aligners/sub ...; ``BASE`` for the base model
    prompt: str
    completion: str  # what it must answer, character by character, and then end


@dataclass(slots=True)  # frozen ones take three times as long to make
class Score:
    """Whether greedy decoding gives a call's completion, told by one forward pass where that is beyond doubt.

    Args:
        right: plain greedy decoding writes the completion's text and then ends.
        at: index in the completion's tokens of the first one that greedy decoding would not give, their number where
            only the end is wrong; None when right. The tokens before it are proved.
        margin: smallest difference over the positions (up to the first wrong one) between the logit of the right token
            and that of the best other one; negative when wrong. None where the backend cannot tell.
        tokens: tokens of prompt, completion and end.
        completion_tokens: of these, those of completion and end.
        answer: what decoding gave, where the forward pass left doubt.
        near_tie: a token's lead over the next one is so small that rounding could have decided.
        merges: the tokenizer merges the end of the prompt with the completion.
    """

    right: bool
    at: int | None
    margin: float | None
    tokens: int
    completion_tokens: int = 0
    answer: Generation | None = None
    near_tie: bool = field(default=False, compare=False)
    merges: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """A question whose answer is to be decoded.

    Args:
        expected: the right answer or a text of about its length; decoding gives up ``SLACK`` tokens after its number.
        known: tokens of ``expected`` that greedy decoding is proved to begin with.
        certain: ``expected`` is the right answer; else it only tells a length, and an answer too long for the model is
            no answer rather than an error.
    """

    prompt: str
    expected: str
    known: int = 0
    certain: bool = True


@dataclass(frozen=True, slots=True)
class Generation:
    """What greedy decoding gave.

    Args:
        text: the answer, without the end token.
        ended: the model ended it; False where decoding gave up.
        decoded: tokens decoded, those known beforehand not counted.
        at: index in the expected answer's tokens of the first one that was not given, as in ``Score``; None if right.
        tokens: tokens of prompt, expected answer and end, as in ``Score``.
        completion_tokens: of these, those of the expected answer and end.
        margin: smallest lead of a token decoded over the next best one; None where the backend cannot tell.
        near_tie: as in ``Score``.
        merges: as in ``Score``.
    """

    text: str
    ended: bool
    decoded: int = 0
    at: int | None = field(default=None, compare=False)
    tokens: int = field(default=0, compare=False)
    completion_tokens: int = field(default=0, compare=False)
    margin: float | None = field(default=None, compare=False)
    near_tie: bool = field(default=False, compare=False)
    merges: bool = field(default=False, compare=False)

    @classmethod
    def to(
        cls,
        prompt: Sequence[Any],
        expected: Sequence[Any],
        given: Sequence[Any],
        *,
        text: str,
        ended: bool,
        decoded: int,
    ) -> Self:
        """Return the answer that the tokens ``given`` are, to a prompt with an expected answer in tokens; no ends."""
        at = None if ended and given == expected else len(commonprefix([list(given), list(expected)]))
        size = len(expected) + 1
        return cls(text, ended, decoded, at, len(prompt) + size, size)


SLACK = 16  # tokens that an answer may be longer than expected before decoding gives up


class Backend(ABC):
    """A base model with its adapters, somewhere.

    Both ways of asking take any number of questions to one adapter, batch them by themselves, and yield the results of
    a batch as soon as it is done, with the index of each question, in any order; each index once.
    """

    name: str  # transformers, openai, oracle

    @abstractmethod
    def verify_batches(self, adapter: str, calls: Sequence[ScoreRequest]) -> Iterator[list[tuple[int, Score]]]:
        """Tell of each call whether greedy decoding gives its completion; decode only where that takes it."""

    @abstractmethod
    def decode_batches(self, adapter: str, asks: Sequence[GenerateRequest]) -> Iterator[list[tuple[int, Generation]]]:
        """Decode greedily."""

    def verify(self, adapter: str, calls: Sequence[ScoreRequest]) -> Iterator[tuple[int, Score]]:
        """Yield what ``verify_batches`` does, one by one."""
        for batch in self.verify_batches(adapter, calls):
            yield from batch

    def decode(self, adapter: str, asks: Sequence[GenerateRequest]) -> Iterator[tuple[int, Generation]]:
        """Yield what ``decode_batches`` does, one by one."""
        for batch in self.decode_batches(adapter, asks):
            yield from batch

    def provenance(self) -> dict[str, object]:
        """Return what computes, as columns of the table runs: device, dtype, batch_tokens, versions."""
        return {}

    def close(self) -> None:  # noqa: B027  most backends hold nothing
        """Give back what the backend holds."""
