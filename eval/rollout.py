"""Rollouts: each step is asked about the model's own text, many problems in lock-step, whatever the model says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from .calls import Backend, GenerateRequest, Generation
from .problems import WALKED, Problems, Walk, walk, whole_runs
from .results import ResultStore
from .score import Progress, Rank

AT_ONCE = 100_000  # requests of the problems in lock-step: their right answers are held in memory
# Problems whose end is not known, and how many requests a perfect model is asked.
OPEN = """
SELECT problem, sum(count) FROM spans WHERE problem >= ? AND problem < ? AND problem NOT IN (SELECT problem FROM finals)
GROUP BY problem ORDER BY problem
"""


@dataclass
class _Run:
    """A problem under way.

    Args:
        requests: ids of the requests that a perfect model is asked.
        completions: the right answers to them.
        walk: what turns answers into questions.
        longest: the longest of the right answers.
        ask: adapter and prompt of the next question; None at the end.
    """

    problem: int
    requests: list[int]
    completions: list[str]
    walk: Walk
    longest: str
    ask: tuple[str, str] | None = None
    asked: int = 0
    on_track: bool = True
    final: str | None = None

    @property
    def request(self) -> int | None:
        """The request that is made next; None off the track."""
        return self.requests[self.asked] if self.on_track and self.ask is not None else None

    def feed(self, answer: Generation) -> None:
        """Take the answer to the last question."""
        right = self.completions[self.asked] if self.on_track else None
        self.on_track &= answer.ended and answer.text == right
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


def roll_out(store: ResultStore, backend: Backend, *, rank: Rank, progress: Progress) -> None:
    """Roll out every problem of the walked modes.

    Keeps the answers to requests that a perfect model is asked too. Answers off the track are not kept: after a kill
    the problems that had not ended are rolled out again, on the answers that were.

    Args:
        store: what there is to do and what is known already; filled.
        backend: the model.
        rank: this process.
        progress: called after every batch.
    """
    for problems in _groups(store, rank):
        runs = _begun(store, problems)
        _lock_step(store, backend, runs, progress)
        store.commit([(run.problem, run.final == run.completions[-1]) for run in runs])


def _groups(store: ResultStore, rank: Rank) -> Iterator[dict[int, pa.Table]]:
    """Yield the problems to roll out, some at once, by their numbers."""
    group: dict[int, pa.Table] = {}
    total = 0
    for first, table in store.problems():
        walked = {first + row for row, mode in enumerate(table.column("mode").to_pylist()) if mode in WALKED}
        if not walked:
            continue
        for problem, count in store.execute(OPEN, first, first + len(table)).fetchall():
            if problem in walked and rank.own([problem]):
                group[problem] = table.slice(problem - first, 1)
                total += count
                if total >= AT_ONCE:
                    yield group
                    group, total = {}, 0
    if group:
        yield group


def _begun(store: ResultStore, problems: dict[int, pa.Table]) -> list[_Run]:
    """Return the runs of some problems, each with its first question."""
    rows = pa.concat_tables(problems.values())
    jobs = zip(*(rows.column(name).to_pylist() for name in ("task", "mode", "split")), strict=True)
    places: dict[tuple[str, str, str], list[int]] = {}
    for row, job in enumerate(jobs):
        places.setdefault(job, []).append(row)
    numbers, runs = list(problems), []
    for (task, mode, split), own in places.items():
        number = (numbers[row] for row in own)
        for some in whole_runs(task, mode, split, rows.take(pa.array(own))):
            runs += [_begin(store, next(number), some, row, task, mode) for row in range(len(some))]
    return sorted(runs, key=lambda run: run.problem)


def _begin(store: ResultStore, problem: int, some: Problems, row: int, task: str, mode: str) -> _Run:
    steps = some.requests.take(pa.array(some.steps[some.starts[row] : some.starts[row + 1]]))
    completions = steps.column("completion").to_pylist()
    found = store.execute("SELECT id FROM steps WHERE problem = ? ORDER BY step", problem)
    walking = walk(task, mode, steps.column("prompt")[0].as_py())
    run = _Run(problem, [request for (request,) in found], completions, walking, max(completions, key=len))
    run.ask = next(run.walk)
    return run


def _lock_step(store: ResultStore, backend: Backend, runs: list[_Run], progress: Progress) -> None:
    """Roll out some problems to their ends."""
    given: dict[tuple[str, str], Generation] = {}
    waiting = runs
    while waiting:
        for run in waiting:
            _catch_up(run, store, given)
        # A model's own text may call a machine whose adapter there is not.
        waiting = [run for run in waiting if run.ask is not None and run.ask[0] in store.adapters]
        for adapter, asks in _questions(waiting).items():
            keys = list(asks)
            for results in backend.decode_batches(adapter, list(asks.values())):
                for index, answer in results:
                    prompt, request = keys[index]
                    if request is None:
                        given[adapter, prompt] = answer
                    else:
                        store.record_generation(request, asks[prompt, request].expected, answer, rolled_out=True)
                store.save()
                progress(store)


def _questions(runs: list[_Run]) -> dict[str, dict[tuple[str, int | None], GenerateRequest]]:
    """Return what to ask each adapter, by prompt and request; each once.

    Off the track there is no request, no right answer, and no telling how long an answer may be: it is asked on its
    own.
    """
    questions: dict[str, dict[tuple[str, int | None], GenerateRequest]] = {}
    for run in runs:
        assert run.ask is not None  # those that have ended are not asked
        (adapter, prompt), request = run.ask, run.request
        asks = questions.setdefault(adapter, {})
        if request is not None:
            asks[prompt, request] = GenerateRequest(prompt, run.completions[run.asked])
        elif (prompt, None) not in asks or len(asks[prompt, None].expected) < len(prompt + run.longest):
            asks[prompt, None] = GenerateRequest(prompt, prompt + run.longest, certain=False)
    return questions


def _catch_up(run: _Run, store: ResultStore, given: dict[tuple[str, str], Generation]) -> None:
    """Feed a run the answers that are known already, until it asks something new or ends."""
    while run.ask is not None:
        request = run.request
        if request is None and run.ask in given:
            run.feed(given[run.ask])
        elif request is not None and (found := store.answer(request)) is not None:
            correct, answer = found
            run.feed(Generation(run.completions[run.asked], True) if correct else answer)
        else:
            return
