"""Expressions of machines that nothing else computes: the machine itself says what their rows must hold."""

from collections.abc import Iterator
from itertools import islice

from .. import tm
from ..errors import UserError, quoted
from ..tm.check.entries import Problem
from ..tm.turing import TuringMachine

_KEPT_STEPS = 1_000  # of a run that is kept


class OwnProblem(Problem):
    """An expression of a user's own machine, as that machine says it: producer and checker have the same author.

    A machine with a ``decide`` is walked by the plain interpreter, command by command; the engine that made the rows
    has no part in it. ``most`` bounds the steps of one that may run on for ever.
    """

    def __init__(self, task: str, a: str, b: str | None, most: int) -> None:
        found, self.x, self.y = tm.operands(task, a, b)
        self.machine = found
        self.task, self.name, self.sign, self.a, self.b = task, found.title, found.sign, a, b or ""  # type: ignore[misc]
        self.walked, self.steps_walked = self._walk(), 0
        self.run = list(self._walk()) if found.walks and found.halts else []
        if isinstance(found, TuringMachine):
            self.n_steps, self.result = found.outcome(a, most)
            self.run = list(self._walk()) if self.n_steps <= _KEPT_STEPS else []
        else:
            self.n_steps = len(self.run) or found.num_steps(self.x, self.y)
            self.result = str(found.answer(self.x, self.y))

    def _walk(self) -> Iterator[tm.Transition]:
        return self.machine.transitions(self.x, self.y, "consistent")

    @classmethod
    def of(cls, task: str, a: str, b: str | None, most: int) -> Problem | str:
        """Return the problem, or what the machine says of its operands."""
        try:
            return cls(task, a, b, most)
        except Exception as error:  # a machine's own code is asked about operands that it may not be made for
            return f"{task} {quoted(a)} {quoted(b)}: {_told(error)}"

    @property
    def answer(self) -> str:
        return self.result

    def step(self, step: int, dialect: str) -> tm.Transition:
        """Return a transition."""
        if self.run:
            return self.run[step]
        if not self.machine.walks:
            try:
                return self.machine.transition(self.x, self.y, step, tm.known_dialect(dialect))
            except Exception as error:
                what = f"{self.task} {quoted(self.a)} {quoted(self.b)}, step {step}: {_told(error)}"
                raise UserError(what) from error
        if step < self.steps_walked:  # a long run is walked on, or again
            self.walked, self.steps_walked = self._walk(), 0
        skipped, self.steps_walked = step - self.steps_walked, step + 1
        return next(islice(self.walked, skipped, None))

    def prompt(self, step: int, dialect: str) -> str:
        return self.step(step, dialect).prompt

    def completion(self, step: int, dialect: str) -> str:
        return self.step(step, dialect).completion

    def columns(self, step: int, dialect: str) -> tuple[str, str, str, str, str | None]:
        made = self.step(step, dialect)
        return made.prompt, made.completion, made.state, made.next_state, made.call


def _told(error: Exception) -> str:
    told = str(error).partition("\n")[0]
    return told if isinstance(error, UserError) else f"{type(error).__name__}: {quoted(told, 160)}"
