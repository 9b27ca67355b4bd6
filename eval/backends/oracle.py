"""The machines themselves answer: a dry run of an evaluation, without a model. Their tokens are characters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from os.path import commonprefix

from ...errors import UserError
from ...tm import VERSIONED, align_in, machine, operands
from ...tm.expression import parse_raw
from ...tm.machine import HALT
from ...tm.successor import successor
from ..calls import SLACK, Backend, GenerateRequest, Generation, Score, ScoreRequest
from ..problems import operands_of, raw_question

Change = Callable[[str, str, str], str]
BATCH = 1024  # questions
_HEAD = re.compile(r"\[HEAD\d?\]")
_RESULT = re.compile(r"(True|False|(?:\|\d)+)$")


class OracleBackend(Backend):
    """Answers as a perfect model does.

    Entries are run from their texts by the plain interpreter, ``tm.successor``: what a model that errs hands on is
    answered as exactly as a right entry.

    Args:
        change: is given adapter, prompt and answer, and returns the answer to give: how tests make a model that errs.
    """

    name = "oracle"

    def __init__(self, change: Change = lambda adapter, prompt, answer: answer) -> None:
        self.change = change

    def verify_batches(self, adapter: str, calls: Sequence[ScoreRequest]) -> Iterator[list[tuple[int, Score]]]:
        """Compare the machines' answers with what is expected."""
        for start in range(0, len(calls), BATCH):
            part = enumerate(calls[start : start + BATCH], start)
            yield [(index, self._verdict(adapter, call)) for index, call in part]

    def decode_batches(self, adapter: str, asks: Sequence[GenerateRequest]) -> Iterator[list[tuple[int, Generation]]]:
        """Give the machines' answers, cut where a model's decoding would give up."""
        for start in range(0, len(asks), BATCH):
            yield [(index, self._decoded(adapter, ask)) for index, ask in enumerate(asks[start : start + BATCH], start)]

    def _verdict(self, adapter: str, call: ScoreRequest) -> Score:
        text = self.answer(adapter, call.prompt, call.completion)
        right = text == call.completion
        at = None if right else len(commonprefix([text, call.completion]))
        return Score(right, at, None, len(call.prompt) + len(call.completion) + 1, len(call.completion) + 1)

    def _decoded(self, adapter: str, ask: GenerateRequest) -> Generation:
        text = self.answer(adapter, ask.prompt, ask.expected)
        room = len(ask.expected) + SLACK
        cut, ended = text[:room], len(text) < room
        return Generation.to(ask.prompt, ask.expected, text, text=cut, ended=ended, decoded=len(cut) - ask.known)

    def answer(self, adapter: str, prompt: str, expected: str) -> str:
        """Return the answer to a prompt; an empty text where it cannot be understood."""
        folder, _, task = adapter.partition("/")
        if folder == "executors":
            found = _next(task, prompt, expected)
        elif folder == "aligners":
            found = _aligned(task, prompt)
        else:
            found = _raw(prompt)
        return self.change(adapter, prompt, found)


def _next(task: str, prompt: str, expected: str) -> str:
    """Return the entry that follows."""
    try:
        return successor(prompt, task=task)
    except UserError:  # no entry of the machine: a model that errs may write anything
        return "" if task in VERSIONED else expected  # entries of a user's own machine may not show all that it knows


def _aligned(task: str, prompt: str) -> str:
    """Return the initial entry of a question, or the question and answer of a halting entry."""
    state, _, rest = prompt.partition("\n")
    try:
        if not rest:
            return align_in(prompt)
        result = _RESULT.search(state)
        if result is None or rest.removesuffix("\n") != HALT or not machine(task).has_raw:
            return ""
        a, b = operands_of(_HEAD.sub("", state[: result.start()]))
    except (UserError, LookupError, ValueError):  # what a model that errs hands on may be anything
        return ""
    value = result[0].replace("|", "")
    return raw_question(task, str(a), str(b)) + (value if value.isalpha() else value[::-1])


def _raw(prompt: str) -> str:
    try:
        found, a, b = operands(*parse_raw(prompt))
    except UserError:
        return ""
    return str(found.answer(a, b))
