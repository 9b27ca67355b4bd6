"""Environments for reinforcement learning: one step, or a whole run of a machine on the model's own answers.

In a run the model's answer is the next prompt. What follows it is what its own command leads to, by the interpreter:
after a slip the run goes on exactly from what the model wrote.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ...errors import UserError, quoted, whole_number
from ...pipelines.declaration import Declared, declared
from ...pipelines.settings import check_field
from ...pipelines.spelling import PLAIN
from ...pipelines.stream import LAST, Stream
from ...tm import machine
from ...tm.composer import Composer
from ...tm.machine import HALT, MAX_DIGITS
from ...tm.score import Judge, Score, judge_of, text_score
from .. import resolved

TURN_SHARE = 0.5  # of a run's reward, what its turns share equally; the rest is paid for the right last entry


class Turn(NamedTuple):
    """What the environment says: the next prompt, and what the last answer was worth.

    Args:
        prompt: what the model is asked; None when the episode is over.
        reward: of the last answer; those of an episode are 1 in sum if every answer is right, and never more.
        done: the episode is over.
        score: of the last answer; None after ``reset``.
        info: the row's ``number``, ``task``, ``a``, ``b``; ``right``, whether every answer so far was right; after the
            end ``end``: ``answered``, ``halted``, ``no entry follows`` or ``too many turns``.
    """

    prompt: str | None
    reward: float
    done: bool
    score: Score | None
    info: dict[str, Any]


class Run:
    """A run of a machine on answers that somebody gives.

    Args:
        task: the machine.
        prompt: its first entry.
        calls: who runs the machines that it calls.

    Attributes:
        prompt: the entry to answer; None when nothing follows.
        expected: the right answer to it.
        task: the machine whose entry it is.
        halted: the entry that the machine has halted with.

    Raises:
        UserError: the prompt is no entry of the machine.
    """

    def __init__(self, task: str, prompt: str, calls: str) -> None:
        self.calls, self.halted = calls, ""
        self.caller: tuple[str, str] | None = None  # whose call is run, and its two lines
        self._ask(task, prompt)

    def _ask(self, task: str, prompt: str) -> None:
        self.judge: Judge = judge_of(task)
        self.expected = self.judge.successor(prompt)
        self.task, self.prompt = task, prompt

    def take(self, answer: str) -> None:
        """Go on from an answer, right or wrong.

        Raises:
            UserError: nothing follows it.
        """
        task, self.prompt = self.task, ""
        lines = answer.split("\n")
        if len(lines) > 1 and lines[1] == HALT:
            if self.caller is None:
                self.halted = answer
            else:
                (task, called), self.caller = self.caller, None
                self._ask(task, called + answer)
        elif len(lines) == 4 and isinstance(machine(task), Composer):
            self._call(task, f"{lines[0]}\n{lines[1]}\n", f"{lines[2]}\n{lines[3]}\n")
        else:
            self._ask(task, answer)

    def _call(self, task: str, call: str, entry: str) -> None:
        """Run the machine that is called, or have the model run it."""
        called = entry.partition(",")[0].lower()
        own = machine(task)
        assert isinstance(own, Composer)
        into = {one.line: bool(one.into) for one in own.calls if one.task == called}.get(call.split("\n")[1])
        if into is None:
            raise UserError(f"{task} makes no such call", where=quoted(call + entry, 200))
        if self.calls == "model":
            result = "|0" if into else "True"
            judge_of(task).successor(f"{call}{called.upper()}, qH,  {result}\n{HALT}\n")  # what follows must be known
            self._ask(called, entry)
            self.caller = task, call
        else:
            self._ask(task, call + _halted(called, entry))


def _halted(task: str, entry: str) -> str:
    """Return the entry that a machine halts with; raises UserError where it does not."""
    follow, digits = judge_of(task).successor, entry.count("|") + 1
    if digits > 4 * MAX_DIGITS:  # two operands of a right run have fewer; a model that rambles is not waited for
        raise UserError(f"{task} is called with {digits:,} digits", where=quoted(entry, 200))
    for _ in range(machine(task).max_num_steps(digits, digits)):
        entry = follow(entry)
        if entry.split("\n")[1] == HALT:
            return entry
    raise UserError(f"{task} does not halt", where=quoted(entry, 200))


@dataclass(eq=False)
class Environment:
    """Episodes on the rows of a declaration. ``environment`` makes one, and says what the others are.

    Attributes:
        rows: the rows, by their numbers: a stream, which has no end.
    """

    rows: Stream
    view: str
    mode: Literal["step", "run"]
    calls: Literal["environment", "model"]
    partial: bool
    _next: int = 0
    _row: Mapping[str, Any] | None = None

    def reset(self, number: int | None = None, *, seed: int | None = None) -> Turn:
        """Begin an episode on row ``number``, on one that a seed draws, or else on the row after the last one.

        Raises:
            UserError: the number is none, or a number and a seed are given.
        """
        if number is not None and seed is not None:
            raise UserError("a number and a seed are given", allowed="one of them")
        for name, value in (("number", number), ("seed", seed)):
            if value is not None:
                whole_number(name, value, 0, LAST)
        if seed is not None:
            number = random.Random(f"environment {seed}").randrange(self.rows.epoch_rows)
        self._number = self._next if number is None else int(number)
        self._next = self._number + 1
        self._row = row = self.rows[self._number]
        self._turns, self._right, self._run = 0, True, None
        if self.mode == "run":
            self._run = Run(row["task"], row["prompt"], self.calls)
            self._length = self._right_turns(row)
        return self._turn(0.0, None, "")

    def step(self, answer: str) -> Turn:
        """Score an answer and go on from it.

        Raises:
            UserError: there is no episode, or the answer is no text.
        """
        if self._row is None:
            raise UserError("there is no episode", next_step="call reset() first; again after each end")
        if not isinstance(answer, str):
            raise UserError(f"the answer must be a text, not {quoted(repr(answer))}")
        if self._run is None:
            score = row_score(self._row, self.view, answer)
            self._right = score.right
            return self._turn(worth(score, self.partial), score, "answered")
        run, end = self._run, ""
        score = run.judge.score(run.expected, answer)
        self._right &= score.right
        self._turns += 1
        reward = TURN_SHARE / self._length * worth(score, self.partial) if self._turns <= self._length else 0.0
        try:
            run.take(answer)
        except UserError:
            end = "no entry follows"
        if run.halted:
            end = "halted"
            reward += (1 - TURN_SHARE) * (run.halted == self._row["completion"])
        elif not end and self._turns >= 2 * self._length + 8:
            end = "too many turns"
        return self._turn(reward, score, end)

    def _right_turns(self, row: Mapping[str, Any]) -> int:
        """Return the number of turns of the right run."""
        if self.calls == "environment" or not machine(row["task"]).composer:
            return int(row["n_steps"])
        run, turns = Run(row["task"], row["prompt"], "model"), 0
        while not run.halted:
            run.take(run.expected)
            turns += 1
        return turns

    def _turn(self, reward: float, score: Score | None, end: str) -> Turn:
        row = self._row
        assert row is not None
        info = {"number": self._number, "right": self._right, **{name: row[name] for name in ("task", "a", "b")}}
        if end:
            self._row = None
            return Turn(None, reward, True, score, {**info, "end": end})
        prompt = row["prompt"] if self._run is None else self._run.prompt
        return Turn(prompt, reward, False, score, info)


def worth(score: Score, partial: bool) -> float:
    """Return the reward of an answer: 1 if it is right, else nothing, or the share of its parts that are right."""
    if score.right or not partial:
        return float(score.right)
    return sum(score.parts.values()) / max(1, len(score.parts))


def row_score(row: Mapping[str, Any], view: str, answer: str) -> Score:
    """Compare an answer to a row's prompt with its completion; parts are told where that is one entry."""
    if view in ("one_step", "slips", "full") or row.get("direction") == "in":
        return judge_of(row["task"]).score(row["completion"], answer)
    return text_score(row["completion"], answer)


def environment(
    declaration: Declared | None = None,
    *,
    split: str = "train",
    view: str | None = None,
    mode: Literal["step", "run"] = "step",
    calls: Literal["environment", "model"] = "environment",
    partial: bool = False,
    **settings: object,
) -> Environment:
    """Return an environment on the rows of a declaration: ``reset(number)`` or ``reset(seed=...)``, ``step(answer)``.

    A right answer is the expected text to the character, as ``score`` and ``caef-data eval`` have it.

    Args:
        declaration: a name, a path or a dict.
        split: train, test or stress.
        view: the rows that are asked, in mode ``step`` (one_step).
        mode: ``step``: an episode is one row. ``run``: it is a whole run, a turn a step, from the first entry until
            the model's answer halts, until no valid entry follows it, or after twice as many turns as are needed.
        calls: who runs the machines that a composer calls in a run: the environment, or the model, in turns of its own.
        partial: a wrong answer is worth its share of right parts, in place of nothing.
        settings: in place of a declaration.

    Raises:
        UserError: the declaration has no such rows, or a setting is refused.
    """
    for name, value in (("mode", mode), ("calls", calls), ("partial", partial)):
        check_field(Environment, name, value, PLAIN)
    if mode == "run" and view not in (None, "full"):
        what = f"view is {quoted(view)}, and an episode of mode run is a whole run"
        raise UserError(what, allowed='no view; or mode="step", whose episodes are rows of a view')
    view = view or ("full" if mode == "run" else "one_step")
    wanted = resolved(declared(declaration, **settings))
    if mode == "run" and (
        odd := [one.task for one in wanted.tasks if one.dialect == "published" and machine(one.task).composer]
    ):
        what = f"there are no runs of published rows of {', '.join(odd)}: these quote what no called machine gives"
        raise UserError(what, allowed='mode="step"; or dialect = "consistent"')
    return Environment(Stream(wanted, split, view), view, mode, calls, partial)
