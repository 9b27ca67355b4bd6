"""Environments for reinforcement learning: one step, or a whole run of a machine on the model's own answers.

In a run the model's answer is the next prompt. What follows it is what its own command leads to, by the interpreter:
after a slip the run goes on exactly from what the model wrote.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ...errors import UserError, quoted, whole_number
from ...pipelines.curriculum import mix_of
from ...pipelines.declaration import Declared, declared
from ...pipelines.settings import check_field
from ...pipelines.spelling import PLAIN
from ...pipelines.stream import LAST, Stream
from ...tm import machine
from ...tm.composer import Composer
from ...tm.machine import HALT
from ...tm.score import Score, judge_of, text_score
from .. import resolved


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


@dataclass(eq=False)
class Environment:
    """Episodes on the rows of a declaration, made by ``environment``."""

    rows: Stream  # by their numbers: it has no end
    mode: Literal["step", "run"]
    calls: Literal["environment", "model"]
    _number: int = -1
    _row: Mapping[str, Any] | None = None

    def reset(self, number: int | None = None) -> Turn:
        """Begin an episode on row ``number``, or else on the row after the last one."""
        self._number = self._number + 1 if number is None else whole_number("number", number, 0, LAST)
        self._row = row = self.rows[self._number]
        self._turns, self._right = 0, True
        if self.mode == "run":
            self._length = _right_turns(row, self.calls)
            self._run = _run(row["task"], row["prompt"], self.calls)
            self._asked = next(self._run)
        return self._turn(row["prompt"], 0.0, None)

    def step(self, answer: str) -> Turn:
        """Score an answer and go on from it."""
        row, end = self._row, ""
        if row is None:
            raise UserError("there is no episode", next_step="call reset() first; again after each end")
        self.rows.check_machines()
        if self.mode == "step":
            score = row_score(row, answer)
            self._right = score.right
            return self._turn(None, float(score.right), score, "answered")
        task, _, expected = self._asked
        score = judge_of(machine(task)).score(expected, answer)
        self._right &= score.right
        self._turns += 1
        reward = score.right * 0.5 / self._length if self._turns <= self._length else 0.0
        try:
            self._asked = self._run.send(answer)
            end = "too many turns" if self._turns >= 2 * self._length + 8 else ""
        except UserError:
            if self._right:  # the run itself goes on: its entries do not show how
                self._row = None
                raise
            end = "no entry follows"
        except StopIteration as halted:
            end, reward = "halted", reward + 0.5 * (halted.value == row["completion"])
        return self._turn(self._asked[1], reward, score, end)

    def _turn(self, prompt: str | None, reward: float, score: Score | None, end: str = "") -> Turn:
        row = self._row
        assert row is not None
        info = {"number": self._number, "right": self._right, **{name: row[name] for name in ("task", "a", "b")}}
        if not end:
            return Turn(prompt, reward, False, score, info)
        self._row = None
        return Turn(None, reward, True, score, {**info, "end": end})


def _run(task: str, prompt: str, calls: str) -> Generator[tuple[str, str, str], str, str]:
    """Run a machine on the answers that are sent, right or wrong; return the entry that it halts with.

    Yields the task whose entry is asked, the entry, and the right answer; raises UserError where nothing follows one.
    """
    own = machine(task)
    while True:
        answer = yield task, prompt, judge_of(machine(task)).successor(prompt)
        lines = answer.split("\n")
        if len(lines) == 4 and isinstance(own, Composer):
            called, entry = lines[2].partition(",")[0].lower(), f"{lines[2]}\n{lines[3]}\n"
            call = next((one for one in own.calls if (one.task, one.line) == (called, lines[1])), None)
            if call is None:
                raise UserError(f"{task} makes no such call", where=quoted(answer, 200))
            prompt = f"{lines[0]}\n{lines[1]}\n"
            if calls == "environment":
                prompt += _halted(called, entry)
            else:
                result = "|0" if call.into else "True"  # what follows the call must be known
                judge_of(machine(task)).successor(f"{prompt}{called.upper()}, qH,  {result}\n{HALT}\n")
                prompt += yield from _run(called, entry, calls)
        elif lines[1:2] == [HALT]:
            return answer
        else:
            prompt = answer


def _right_turns(row: Mapping[str, Any], calls: str) -> int:
    """Return the number of turns of the right run."""
    if calls == "environment" or not machine(row["task"]).composer:
        return int(row["n_steps"])
    run, turns = _run(row["task"], row["prompt"], calls), 0
    _, _, right = next(run)
    with suppress(StopIteration):
        while True:
            turns += 1
            _, _, right = run.send(right)
    return turns


def _halted(task: str, entry: str) -> str:
    """Return the entry that a machine halts with; raises UserError where it does not."""
    digits = entry.count("|") + 1
    for _ in range(machine(task).max_num_steps(digits, digits)):
        entry = judge_of(machine(task)).successor(entry)
        if entry.split("\n")[1] == HALT:
            return entry
    raise UserError(f"{task} does not halt", where=quoted(entry, 200))


def row_score(row: Mapping[str, Any], answer: str) -> Score:
    """Compare an answer to a row's prompt with its completion; parts are told where that is one entry."""
    if row.get("state") or row.get("trace") or row.get("direction") == "in":
        return judge_of(machine(row["task"])).score(row["completion"], answer)
    return text_score(row["completion"], answer)


def _no_run(named: str, allowed: str) -> UserError:
    what = f"{named}, and an episode of mode run is a whole run"
    return UserError(what, allowed=f'{allowed}; or mode="step", whose episodes are rows of a view')


def environment(
    declaration: Declared | None = None,
    *,
    split: str = "train",
    view: str | None = None,
    mode: Literal["step", "run"] = "step",
    calls: Literal["environment", "model"] = "environment",
    **settings: object,
) -> Environment:
    """Return an environment on the rows of a declaration: ``reset(number)``, then ``step(answer)``.

    A right answer is the expected text to the character, as ``score`` and ``caef-data eval`` have it. Of a run's reward
    its turns share one half; the other is paid for the right last entry.

    Args:
        declaration: a name, a path or a dict.
        split: train, test or stress.
        view: the rows that are asked, in mode ``step`` (one_step).
        mode: ``step``: an episode is one row. ``run``: it is a whole run, a turn a step, from the first entry until
            the model's answer halts, until no valid entry follows it, or after twice as many turns as are needed.
        calls: who runs the machines that a composer calls in a run: the environment, or the model, in turns of its own.
        settings: in place of a declaration.

    Raises:
        UserError: the declaration has no such rows, or a setting is refused.
    """
    for name, value in (("mode", mode), ("calls", calls)):
        check_field(Environment, name, value, PLAIN)
    if mode == "run" and view not in (None, "full"):
        raise _no_run(f"view is {quoted(view)}", "no view")
    wanted = resolved(declared(declaration, **settings))
    rows = [f"{task}-{own}" for task, own in mix_of(wanted, "full") if own != "full"]
    if mode == "run" and rows:
        raise _no_run(f"mix names {rows[0]}", "a mix of tasks alone, or of their views full")
    odd = [one.task for one in wanted.tasks if one.dialect == "published" and machine(one.task).composer]
    if mode == "run" and odd:
        what = f"there are no runs of published rows of {', '.join(odd)}: these quote what no called machine gives"
        raise UserError(what, allowed='mode="step"; or dialect = "consistent"')
    return Environment(Stream(wanted, split, view or ("full" if mode == "run" else "one_step")), mode, calls)
