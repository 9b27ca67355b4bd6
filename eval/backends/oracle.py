"""The machines themselves answer: a dry run of an evaluation, without a model. Their tokens are characters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from ...errors import UserError
from ...tm import VERSIONED, align_in, machine, operands, tasks
from ...tm.expression import parse_raw
from ...tm.machine import HALT
from ...tm.successor import successor
from ..calls import SLACK, Answer, Backend, Request
from ..problems import operands_of, raw_question

BATCH = 1024  # requests
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

    def __init__(self, change: Callable[[str, str, str], str] = lambda adapter, prompt, answer: answer) -> None:
        self.change = change

    def verify_batches(self, adapter: str, requests: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        """Compare the machines' answers with what is expected."""
        for batch in self._batches(adapter, requests):
            yield [(index, replace(answer, text=None, ended=False, decoded=0)) for index, answer in batch]

    def decode_batches(self, adapter: str, requests: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        """Give the machines' answers, cut where a model's decoding would give up."""
        return self._batches(adapter, requests)

    def _batches(self, adapter: str, requests: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        for start in range(0, len(requests), BATCH):
            some = requests[start : start + BATCH]
            yield [(start + index, self._answer(adapter, request)) for index, request in enumerate(some)]

    def _answer(self, adapter: str, request: Request) -> Answer:
        text = self.answer(adapter, request.prompt, request.completion)
        room = len(request.completion) + SLACK
        spelled = request.prompt, request.completion, text
        decoded = min(len(text), room) - request.known
        return Answer.to(request, spelled, text[:room], ended=len(text) < room, decoded=decoded)

    def answer(self, adapter: str, prompt: str, expected: str) -> str:
        """Return the answer to a prompt; an empty text where it cannot be understood."""
        kind, _, task = adapter.partition("/")
        try:
            if kind == "executors":
                answer = successor(prompt, task=task)
            elif kind == "aligners":
                answer = _aligned(task, prompt)
            else:
                owner, a, b = operands(*parse_raw(prompt))
                answer = str(owner.answer(a, b))
        except (UserError, LookupError, ValueError):  # a model that errs may hand on anything
            # Entries of a user's own machine may not show all that it knows; those of a Turing machine do.
            told = task in VERSIONED or (task in tasks() and not machine(task).numbers)
            answer = expected if kind == "executors" and not told else ""
        return self.change(adapter, prompt, answer)


def _aligned(task: str, prompt: str) -> str:
    """Return the initial entry of a question, or the question and answer of a halting entry."""
    state, _, rest = prompt.partition("\n")
    if not rest:
        return align_in(prompt)
    result = _RESULT.search(state)
    if result is None or rest.removesuffix("\n") != HALT or not machine(task).has_raw:
        return ""
    a, b = operands_of(_HEAD.sub("", state[: result.start()]))
    value = result[0].replace("|", "")
    return raw_question(task, str(a), str(b)) + (value if value.isalpha() else value[::-1])
