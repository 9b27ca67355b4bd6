"""Rollouts: each step is asked about the model's own text, many problems in lock-step, whatever the model says."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..tm.machine import HALT
from ..tm.render import int_array
from .calls import Backend, GenerateRequest, Generation
from .problems import WALKED, aligner, executor, whole_runs
from .results import ResultStore
from .score import Progress, Rank

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


@dataclass
class _Run:
    """A problem under way.

    Args:
        requests: ids of the requests that a perfect model is asked.
        completions: the right answers to them.
        walk: what turns answers into questions.
        ask: adapter and prompt of the next question; None at the end.
    """

    problem: int
    requests: list[int]
    completions: list[str]
    walk: Walk
    ask: tuple[str, str] | None
    asked: int = 0
    on_track: bool = True
    final: str | None = None

    @property
    def request(self) -> int | None:
        """The request that is made next; None off the track."""
        return self.requests[self.asked] if self.on_track and self.ask is not None else None

    def feed(self, answer: Generation) -> None:
        """Take the answer to the last question."""
        expected = self.completions[self.asked] if self.on_track else None
        self.on_track &= answer.ended and answer.text == expected
        self.asked += 1
        self.ask = None
        if not answer.ended or self.asked > 2 * len(self.requests) + 8:  # it rambles, or goes round in circles
            return
        try:
            self.ask = self.walk.send(answer.text)
        except StopIteration as end:
            self.final = end.value
        except RecursionError:  # calls within calls, without end
            pass

    def catch_up(self, store: ResultStore, answers: dict[tuple[str, str], Generation]) -> None:
        """Take the answers that are known already, until it asks something new or ends."""
        while self.ask is not None:
            request = self.request
            if request is None and self.ask in answers:
                self.feed(answers[self.ask])
            elif request is not None and (known := store.answer(request)) is not None:
                correct, answer = known
                self.feed(Generation(self.completions[self.asked], True) if correct else answer)
            else:
                return


def roll_out(store: ResultStore, backend: Backend, *, rank: Rank, progress: Progress) -> None:
    """Roll out every problem of the walked modes.

    Keeps the answers to requests that a perfect model is asked too. Answers off the track are not kept: after a kill
    the problems that had not ended are rolled out again, on the answers that were.
    """
    runs: list[_Run] = []
    held = 0
    for run in _open_runs(store, rank):
        runs.append(run)
        held += len(run.requests)
        if held >= AT_ONCE:
            _lock_step(store, backend, runs, progress)
            runs, held = [], 0
    _lock_step(store, backend, runs, progress)


def _open_runs(store: ResultStore, rank: Rank) -> Iterator[_Run]:
    """Yield the runs whose ends are not known, each with its first question."""
    for (first, table), (_, starts, requests) in zip(store.problems(), store.steps(), strict=True):
        task, mode, split = (table.column(name)[0].as_py() for name in ("task", "mode", "split"))  # of all
        numbers = np.arange(first, first + len(table))
        unknown = np.flatnonzero(rank.own(numbers) & (store.finals[numbers] < 0))
        if mode not in WALKED or not len(unknown):
            continue
        place = iter(unknown.tolist())
        for some in whole_runs(task, mode, split, table.take(int_array(unknown))):
            for start, end in pairwise(some.starts):
                steps, own = some.requests.take(int_array(some.steps[start:end])), next(place)
                asked = requests[starts[own] : starts[own + 1]].tolist()
                walking = walk(task, mode, steps.column("prompt")[0].as_py())
                completions = steps.column("completion").to_pylist()
                yield _Run(first + own, asked, completions, walking, next(walking))


def _lock_step(store: ResultStore, backend: Backend, runs: list[_Run], progress: Progress) -> None:
    """Roll out some problems to their ends."""
    answers: dict[tuple[str, str], Generation] = {}
    waiting = runs
    while waiting:
        for run in waiting:
            run.catch_up(store, answers)
        # A model's own text may call a machine whose adapter there is not.
        waiting = [run for run in waiting if run.ask is not None and run.ask[0] in store.adapters]
        for adapter, asks in _questions(waiting).items():
            prompts, requests = zip(*asks, strict=True)
            numbers = np.array([-1 if request is None else request for request in requests])
            expected = [ask.expected for ask in asks.values()]
            for results in backend.decode_batches(adapter, list(asks.values())):
                answers |= {(adapter, prompts[place]): answer for place, answer in results if numbers[place] < 0}
                on_track = [(place, answer) for place, answer in results if numbers[place] >= 0]
                store.record_generations(numbers, expected, on_track, walked=True)
                store.save()
                progress(store)
    store.commit([(run.problem, run.final == run.completions[-1]) for run in runs])


def _questions(runs: list[_Run]) -> dict[str, dict[tuple[str, int | None], GenerateRequest]]:
    """Return what to ask each adapter, by prompt and request; each once.

    Off the track there is no request, no right answer, and no telling how long an answer may be: it is asked on its
    own.
    """
    questions: dict[str, dict[tuple[str, int | None], GenerateRequest]] = {}
    for run in runs:
        assert run.ask is not None  # those that have ended are not asked
        (adapter, prompt), request, longest = run.ask, run.request, max(run.completions, key=len)
        expected = prompt + longest if request is None else run.completions[run.asked]
        new = GenerateRequest(prompt, expected, certain=request is not None)
        asks = questions.setdefault(adapter, {})
        asks[prompt, request] = max(asks.get((prompt, request), new), new, key=lambda ask: len(ask.expected))
    return questions
