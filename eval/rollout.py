"""Rollouts: each step is asked about the model's own text, many problems in lock-step, whatever the model says."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ..pipelines.shard import TEMPORARY, aside, place
from .agenda import Agenda
from .calls import Answer, Ask, Backend
from .evaluate import Progress, Share, first_failing_places
from .kept import RIGHT, UNKNOWN, Kept
from .runs import Step, Walk, steps_of, walk
from .tables import read_whole

AT_ONCE = 100_000  # calls of the problems in lock-step: their right answers are held in memory
FINALS = pa.schema([pa.field("problem", pa.int64()), pa.field("right", pa.bool_())])
WALKED = ("executor", "process")  # modes whose problems ask more than once


class Finals:
    """Whether the last text of each walked problem was right, though a step before may have deviated; kept on disk.

    Attributes:
        right: UNKNOWN, WRONG or RIGHT, shape (num_problems,).
    """

    def __init__(self, folder: Path, num_problems: int, rank: int = 0) -> None:
        self.folder, self.rank = folder, rank
        self.right: npt.NDArray[np.int8] = np.full(num_problems, UNKNOWN, np.int8)
        folder.mkdir(parents=True, exist_ok=True)
        self.load()

    def load(self) -> None:
        """Read what all processes have found."""
        for path in self.folder.glob("*.parquet"):
            if path.name.startswith(TEMPORARY):
                continue
            table = read_whole(path)
            if table is None:  # damaged: its problems are rolled out again
                path.unlink(missing_ok=True)
            else:
                self.right[table.column("problem").to_numpy()] = table.column("right").to_numpy()

    def add(self, found: dict[int, bool]) -> None:
        """Keep what became of some problems."""
        path = self.folder / f"{self.rank:04}-{time.time_ns()}-{os.getpid()}.parquet"
        with aside(path) as file:
            table = pa.table([list(found), list(found.values())], schema=FINALS)
            pq.write_table(table, file, write_page_checksum=True)
        place(path)
        self.right[list(found)] = list(found.values())


@dataclass
class _Run:
    """A problem under way.

    Args:
        calls: numbers of the calls that a perfect model is asked.
        steps: these calls.
        walk: what turns answers into questions.
        longest: the longest of the right answers.
        ask: adapter and prompt of the next question; None at the end.
    """

    problem: int
    calls: list[int]
    steps: list[Step]
    walk: Walk
    longest: str
    ask: tuple[str, str] | None = None
    asked: int = 0
    on_track: bool = True
    final: str | None = None

    @property
    def call(self) -> int | None:
        """Number of the call that is asked next; None off the track."""
        return self.calls[self.asked] if self.on_track and self.ask is not None else None

    def feed(self, answer: Answer) -> None:
        """Take the answer to the last question."""
        right = self.steps[self.asked].completion if self.on_track else None
        self.on_track &= answer.ended and answer.text == right
        self.asked += 1
        self.ask = None
        if not answer.ended or self.asked > 2 * len(self.steps) + 8:  # it rambles, or goes round in circles
            return
        try:
            self.ask = self.walk.send(answer.text)
        except StopIteration as end:
            self.final = end.value
        except RecursionError:  # calls within calls, without end
            pass


def roll_out(
    agenda: Agenda, kept: Kept, backend: Backend, *, known: Iterable[str], share: Share, progress: Progress
) -> Finals:
    """Roll out every problem of the walked modes.

    Keeps the answers to calls that a perfect model is asked too. Answers off the track are not kept: after a kill the
    problems that had not ended are rolled out again, on the answers that were.

    Args:
        agenda: what there is to do.
        kept: answers known already; filled.
        backend: the model.
        known: names of the adapters there are; a model's own text may call a machine that does not exist.
        share: this process' part.
        progress: called after every kept answer.
    """
    finals = Finals(kept.folder.with_name("finals"), agenda.num_problems, share.rank)
    texts = {call: Answer(text, ended) for call, text, ended in kept.texts()}
    for problems in _groups(agenda, kept, finals, share):
        found = _lock_step(agenda, kept, backend, problems, (set(known), texts), progress)
        kept.flush()  # first: a problem whose end is known is not rolled out again
        finals.add(found)
    share.wait()
    kept.load()
    finals.load()
    return finals


def _groups(agenda: Agenda, kept: Kept, finals: Finals, share: Share) -> Iterator[list[int]]:
    modes = agenda.problems.column("mode").to_pylist()
    places = first_failing_places(agenda, kept.right)
    judged = (places < 0) | (kept.right[agenda.flat[places]] != UNKNOWN)  # what was kept may have been damaged since
    done = judged & (finals.right != UNKNOWN)
    group: list[int] = []
    total = 0
    for problem in range(agenda.num_problems):
        if modes[problem] not in WALKED or done[problem] or problem % share.size != share.rank:
            continue
        group.append(problem)
        total += int(agenda.starts[problem + 1] - agenda.starts[problem])
        if total >= AT_ONCE:
            yield group
            group, total = [], 0
    if group:
        yield group


def _begin(agenda: Agenda, problem: int, row: dict[str, Any]) -> _Run:
    steps = list(steps_of(row["task"], row["mode"], row["a"], row["b"]))
    calls = agenda.flat[agenda.starts[problem] : agenda.starts[problem + 1]].tolist()
    longest = max((step.completion for step in steps), key=len)
    run = _Run(problem, calls, steps, walk(row["task"], row["mode"], steps[0].prompt), longest)
    run.ask = next(run.walk)
    return run


def _lock_step(
    agenda: Agenda,
    kept: Kept,
    backend: Backend,
    problems: list[int],
    known: tuple[set[str], dict[int, Answer]],
    progress: Progress,
) -> dict[int, bool]:
    """Roll out some problems; return whether the last text of each was right."""
    adapters, texts = known
    rows = agenda.whole_problems(np.array(problems)).to_pylist()
    runs = [_begin(agenda, problem, row) for problem, row in zip(problems, rows, strict=True)]
    given: dict[tuple[str, str], Answer] = {}
    waiting = runs
    while waiting:
        for run in waiting:
            _catch_up(run, kept, texts, given)
        waiting = [run for run in waiting if run.ask is not None and run.ask[0] in adapters]
        for adapter, asks in _questions(waiting).items():
            keys = list(asks)
            for index, answer in backend.decode(adapter, list(asks.values())):
                prompt, call = keys[index]
                if call is None:
                    given[adapter, prompt] = answer
                    continue
                kept.answered(call, asks[prompt, call].expected, answer)
                if kept.right[call] != RIGHT:
                    texts[call] = answer
                progress(kept)
    return {run.problem: run.final == run.steps[-1].completion for run in runs}


def _questions(runs: list[_Run]) -> dict[str, dict[tuple[str, int | None], Ask]]:
    """Return what to ask each adapter, by prompt and number of the call; each once.

    Off the track there is no number, no right answer, and no telling how long an answer may be: it is asked on its own.
    """
    questions: dict[str, dict[tuple[str, int | None], Ask]] = {}
    for run in runs:
        assert run.ask is not None  # those that have ended are not asked
        (adapter, prompt), call = run.ask, run.call
        asks = questions.setdefault(adapter, {})
        if call is not None:
            asks[prompt, call] = Ask(prompt, run.steps[run.asked].completion)
        elif (prompt, None) not in asks or len(asks[prompt, None].expected) < len(prompt + run.longest):
            asks[prompt, None] = Ask(prompt, prompt + run.longest, certain=False)
    return questions


def _catch_up(run: _Run, kept: Kept, texts: dict[int, Answer], given: dict[tuple[str, str], Answer]) -> None:
    """Feed a run the answers that are known already, until it asks something new or ends."""
    while run.ask is not None:
        call = run.call
        if call is None and run.ask in given:
            run.feed(given[run.ask])
        elif call is not None and kept.decoded[call]:
            right = kept.right[call] == RIGHT
            run.feed(Answer(run.steps[run.asked].completion, True) if right else texts[call])
        else:
            return
