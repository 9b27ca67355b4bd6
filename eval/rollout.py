"""Rollouts: each step is asked about the model's own text, many problems in lock-step, whatever the model says."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ..tm.machine import HALT
from ..tm.render import int_array
from .calls import Answer, Backend, Request
from .problems import WALKED, aligner, executor, whole_runs
from .results import ResultStore
from .score import Progress

AT_ONCE = 100_000  # requests of the problems in lock-step: their right answers are held in memory
Walk = Generator[tuple[str, str], str, str | None]  # asks (adapter, prompt), is sent the answer, returns the last text


def walk(task: str, mode: str, prompt: str) -> Walk:
    """Run a problem on whatever a model answers; return the last text, None where an answer could not be continued.

    The first prompt is the initial entry (mode executor) or the raw question (mode process).
    """
    if mode == "executor":
        return (yield from _run_machine(task, prompt))
    entry = yield aligner(task), prompt
    halted = yield from _run_machine(task, entry)
    return None if halted is None else (yield aligner(task), halted)


def _run_machine(task: str, entry: str) -> Walk:
    """Run one machine from an entry to its halting entry; the caller bounds how often it is asked."""
    while True:
        answer = yield executor(task), entry
        lines = answer.split("\n")
        if len(lines) < 2:
            return None
        if lines[1] == HALT:
            return answer
        if "[CALL]" not in lines[1]:
            entry = answer
            continue
        called = lines[2].partition(",")[0].lower() if len(lines) == 4 else ""
        if not called:
            return None
        halted = yield from _run_machine(called, f"{lines[2]}\n{lines[3]}\n")
        if halted is None:
            return None
        entry = f"{lines[0]}\n{lines[1]}\n{halted.removesuffix(chr(10))}\n"


class _Question(NamedTuple):
    """What a problem under way asks next; of a perfect model that is a ``request``, off its track None."""

    adapter: str
    ask: Request
    request: int | None


def _follow(walking: Walk, requests: list[int], completions: list[str]) -> Generator[_Question, Answer, bool]:
    """Run a problem on a model's answers, sent in return for questions; return whether the last text is right.

    ``requests`` are those of a perfect model, ``completions`` the right answers to them. Off the track there is no
    right answer, and no telling how long an answer may be.
    """
    (adapter, prompt), on_track, longest = next(walking), True, max(completions, key=len)
    for asked in range(2 * len(requests) + 8):  # what asks more goes round in circles
        if on_track:
            answer = yield _Question(adapter, Request(prompt, completions[asked]), requests[asked])
            on_track = answer.ended and answer.text == completions[asked]
        else:
            answer = yield _Question(adapter, Request(prompt, prompt + longest, certain=False), None)
        if not answer.ended:
            break
        try:
            adapter, prompt = walking.send(answer.text or "")
        except StopIteration as end:
            return bool(end.value == completions[-1])
        except RecursionError:  # calls within calls, without end
            break
    return False


class _Run:
    """A problem under way: its next question, None at the end, and whether it ended right."""

    def __init__(self, problem: int, requests: list[int], completions: list[str], walking: Walk) -> None:
        self.problem, self.size, self.right = problem, len(requests), False
        self.following = _follow(walking, requests, completions)
        self.question: _Question | None = next(self.following)

    def catch_up(self, store: ResultStore, answers: dict[tuple[str, str], Answer]) -> None:
        """Take the answers that are known already, until it asks something new or ends."""
        while self.question is not None:
            adapter, ask, request = self.question
            answer = answers.get((adapter, ask.prompt)) if request is None else store.answer(request, ask.completion)
            if answer is None:
                return
            try:
                self.question = self.following.send(answer)
            except StopIteration as end:
                self.question, self.right = None, end.value


def roll_out(store: ResultStore, backend: Backend, progress: Progress) -> None:
    """Roll out every problem of the walked modes.

    Keeps the answers to requests that a perfect model is asked too. Answers off the track are not kept: after a kill
    the problems that had not ended are rolled out again, on the answers that were.
    """
    runs: list[_Run] = []
    held = 0
    for run in _open_runs(store):
        runs.append(run)
        held += run.size
        if held >= AT_ONCE:
            _lock_step(store, backend, runs, progress)
            runs, held = [], 0
    _lock_step(store, backend, runs, progress)


def _open_runs(store: ResultStore) -> Iterator[_Run]:
    """Yield the runs whose ends are not known, each with its first question."""
    for (first, table), (_, starts, requests) in zip(store.problems(), store.steps(), strict=True):
        task, mode, split = (table.column(name)[0].as_py() for name in ("task", "mode", "split"))  # of all
        numbers = np.arange(first, first + len(table))
        unknown = np.flatnonzero(store.finals[numbers] < 0)
        if mode not in WALKED or not len(unknown):
            continue
        place = iter(unknown.tolist())
        for some in whole_runs(task, mode, split, table.take(int_array(unknown))):
            for start, end in pairwise(some.starts):
                steps, own = some.requests.take(int_array(some.steps[start:end])), next(place)
                asked = requests[starts[own] : starts[own + 1]].tolist()
                prompts, completions = (steps.column(name).to_pylist() for name in ("prompt", "completion"))
                yield _Run(first + own, asked, completions, walk(task, mode, prompts[0]))


def _lock_step(store: ResultStore, backend: Backend, runs: list[_Run], progress: Progress) -> None:
    """Roll out some problems to their ends."""
    answers: dict[tuple[str, str], Answer] = {}
    waiting = runs
    while waiting:
        for run in waiting:
            run.catch_up(store, answers)
        # A model's own text may call a machine whose adapter there is not.
        waiting = [run for run in waiting if run.question is not None and run.question.adapter in store.adapters]
        questions: dict[str, dict[tuple[str, int | None], Request]] = {}  # each once
        for adapter, ask, request in (run.question for run in waiting if run.question is not None):
            asks = questions.setdefault(adapter, {})
            asks[ask.prompt, request] = max(
                asks.get((ask.prompt, request), ask), ask, key=lambda one: len(one.completion)
            )
        for adapter, asks in questions.items():
            prompts, requests = zip(*asks, strict=True)
            numbers = np.array([-1 if request is None else request for request in requests])
            expected = [ask.completion for ask in asks.values()]
            for results in backend.decode_batches(adapter, list(asks.values())):
                answers |= {(adapter, prompts[place]): answer for place, answer in results if numbers[place] < 0}
                on_track = [(place, answer) for place, answer in results if numbers[place] >= 0]
                store.record(numbers, expected, on_track, walked=True)
                store.save()
                progress(store)
    store.commit([(run.problem, run.right) for run in runs])
