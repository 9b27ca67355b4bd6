"""What an evaluation asks of a model, and what comes back: the words that backends and the rest share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from os.path import commonprefix
from typing import Any, Self

BASE = ""  # the adapter's name for the base model alone
SLACK = 16  # tokens that an answer may be longer than expected before decoding gives up


@dataclass(frozen=True, slots=True)
class Request:
    """A question to a model.

    Args:
        completion: what it must answer, character by character, and then end; or a text of about the length.
        known: tokens of ``completion`` that greedy decoding is proved to begin with.
        certain: ``completion`` is the right answer; else it only tells a length, after whose tokens, and ``SLACK``,
            decoding gives up; an answer too long for the model is no answer rather than an error.
    """

    prompt: str
    completion: str
    known: int = 0
    certain: bool = True


@dataclass(slots=True)  # frozen ones take three times as long to make
class Answer:
    """What plain greedy decoding gives: as far as one forward pass tells that beyond doubt, or in full.

    Args:
        right: it writes the completion's text and then ends.
        at: index in the completion's tokens of the first one that it would not give, their number where only the end is
            wrong; None when right. The tokens before it are proved.
        margin: smallest lead of a right token (up to the first wrong one: there it is negative) over the best other
            one, in logits; of a decoded answer, of the tokens decoded, if it is right. None where nobody can tell.
        tokens: tokens of prompt, completion and end.
        completion_tokens: of these, those of completion and end.
        text: the decoded answer, without the end token; None where a forward pass was enough.
        ended: the model ended it; False where decoding gave up.
        decoded: tokens decoded, those known beforehand not counted.
        near_tie: a token's lead over the next one is so small that rounding could have decided.
        merges: the tokenizer merges the end of the prompt with the completion.
    """

    right: bool
    at: int | None = None
    margin: float | None = None
    tokens: int = 0
    completion_tokens: int = 0
    text: str | None = None
    ended: bool = False
    decoded: int = 0
    near_tie: bool = field(default=False, compare=False)
    merges: bool = field(default=False, compare=False)

    @classmethod
    def to(cls, request: Request, spelled: Sequence[Sequence[Any]], text: str, *, ended: bool, decoded: int) -> Self:
        """Return a decoded answer to a request; ``spelled``: prompt, completion and answer in tokens, without ends."""
        prompt, expected, given = spelled
        right = ended and text == request.completion
        at = None if right else len(commonprefix([list(given), list(expected)]))
        size = len(expected) + 1
        return cls(right, at, None, len(prompt) + size, size, text, ended, decoded)


class Backend(ABC):
    """A base model with its adapters, somewhere.

    Both ways of asking take any number of questions to one adapter, batch them by themselves, and yield the results of
    a batch as soon as it is done, with the index of each question, in any order; each index once.
    """

    name: str  # transformers, openai, oracle

    @abstractmethod
    def verify_batches(self, adapter: str, requests: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        """Tell of each request whether greedy decoding gives its completion; decode only where that takes it."""

    @abstractmethod
    def decode_batches(self, adapter: str, requests: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        """Decode greedily."""

    def verify(self, adapter: str, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """Yield what ``verify_batches`` does, one by one."""
        for batch in self.verify_batches(adapter, requests):
            yield from batch

    def decode(self, adapter: str, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """Yield what ``decode_batches`` does, one by one."""
        for batch in self.decode_batches(adapter, requests):
            yield from batch

    def provenance(self) -> dict[str, object]:
        """Return what computes, as columns of the table runs: device, dtype, batch_tokens, versions."""
        return {}

    def close(self) -> None:  # noqa: B027  most backends hold nothing
        """Give back what the backend holds."""
