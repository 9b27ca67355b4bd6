"""Whether a tokenizer can spell the texts of an evaluation, told before a model is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from os.path import commonprefix
from typing import TYPE_CHECKING

from ..errors import UserError, clip
from .agenda import Agenda
from .calls import Call

if TYPE_CHECKING:
    from .backends.tokens import Tokens

SAMPLES = 64  # calls of each adapter and window, beside one of each state and the longest
WINDOWS = 8  # of each adapter


def sample(agenda: Agenda, adapter: str) -> Iterator[Call]:
    """Yield calls of an adapter, of every machine state."""
    for window in agenda.windows(adapter, WINDOWS):
        places = range(len(window.calls))
        states = dict(zip(zip(window.kinds, window.states, strict=True), places, strict=True))
        longest = max(places, key=lambda at: len(window.calls[at].prompt))
        for at in sorted({longest, *states.values(), *places[:: max(1, len(places) // SAMPLES)]}):
            yield window.calls[at]


def check_spelling(tokens: Tokens, calls: Iterable[Call]) -> None:
    """Check that texts come back from their tokens unchanged, without unknown ones, none of them the end.

    Args:
        tokens: the tokenizer.
        calls: prompts and completions to try.

    Raises:
        UserError: one of them does not come back; names the first characters that fail.
    """
    tried = list(calls)
    prompts = tokens.encode([call.prompt for call in tried])
    completions = tokens.encode([call.completion for call in tried])
    for call, prompt, completion in zip(tried, prompts, completions, strict=True):
        _check(tokens, call.prompt, prompt, [])
        _check(tokens, call.completion, completion, prompt)


def _check(tokens: Tokens, text: str, spelled: list[int], before: list[int]) -> None:
    if tokens.end in spelled:
        raise _unspeakable(tokens, f"takes a part of {clip(text)} for the end of the text")
    if tokens.unknown is not None and tokens.unknown in spelled:
        raise _unspeakable(tokens, f"does not know {_first_unknown(tokens, text)} in {clip(text)}")
    back = tokens.text(before, spelled)
    if back != text:
        at = len(commonprefix([back, text]))
        what = f"gives {clip(back[at : at + 12])} back for {clip(text[at : at + 12])}, which follows {clip(text[:at])}"
        raise _unspeakable(tokens, what)


def _first_unknown(tokens: Tokens, text: str) -> str:
    alone = next((one for one in text if tokens.unknown in tokens.encode([one])[0]), None)
    return "a part" if alone is None else clip(alone)


def _unspeakable(tokens: Tokens, what: str) -> UserError:
    return UserError(
        f"the tokenizer cannot spell the machines' texts: it {what}",
        where=tokens.where,
        allowed="a tokenizer that gives every text back unchanged, such as the byte-level ones of most models",
        next_step="take the tokenizer that the adapter was trained with: it belongs into the adapter's folder",
    )
