"""What every machine is: its text, steps, classes and counts, and its rows in columns. A subclass registers itself."""

from __future__ import annotations

import hashlib
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from ..errors import UserError, did_you_mean, quoted
from .classes import OperandDistribution, StepRule, Variant, first_and_last
from .columns import I64, SPARE, Number, Operands
from .render import Field, TapeSlice, Texts, decimal, string_array, texts_of_rows

Dialect = Literal["consistent", "published"]
DIALECTS: tuple[Dialect, ...] = ("consistent", "published")
MAX_DIGITS = 2_000  # of an operand: a product stays below the 4,300 digits that Python prints
HALT = "No command to execute. Halt state."

# The shipped machines' text is guarded by a version and by frozen rows; other machines are identified by their source.
VERSIONED = frozenset(("add", "sub", "mul", "div", "equal", "greater_than", "less_than", "reflection", "left_mask"))
REGISTRY: dict[str, Machine] = {}  # the tasks

# What a machine of 0.1.0 may have defined under another name, and what names cannot say any more.
_RENAMED = {"refusal": "domain_error", "halting": "short_runs"}
_GONE = {"families": "stress", "step_rule": "kept_steps"}
NO_RAW = "the task has no raw text"
NO_SLIPS = "slips are known of the nine shipped machines alone"


@dataclass(frozen=True, slots=True)
class Transition:
    """One training step: the machine's state and command, and what the model must answer.

    Args:
        prompt: the entry before the step.
        completion: the entry after it.
        state: the machine's state in the prompt (``q0`` ...).
        next_state: the machine's state in the completion.
        call: the task that the completion calls, or None.
    """

    prompt: str
    completion: str
    state: str
    next_state: str
    call: str | None = None


class Machine(ABC):
    """A machine and its task. Subclasses that set ``name`` are registered when they are defined.

    Class attributes:
        name: the task, lower case.
        sign: the operator of the raw text ``a<sign>b=``; None for helpers, which have no raw form and no aligner.
        unary: the machine has one operand.
        commutative: ``a op b`` and ``b op a`` belong to the same side of the train / test split.
        composer: the machine calls others.
        walks: its runs are walked from their first step on; no transition is known without those before it.
        numbers: its operands are numbers; else they are words over its symbols.
        halts: every run halts. Else the plan runs what ``max_num_steps`` does not bound.
        max_short_run: the most steps of the expressions of ``short_runs``; None: the plan counts them.
        instruction: the natural-language description that the first training stage puts before a prompt.
        aligner_instruction: the same for aligner rows.
        raw_instruction: the same for raw rows.
        shown_step: operands and step of an example behind the instruction, whose paragraphs are wrapped then.
        shown_pair: operands of the example behind the aligner's instruction, in the same way.
        example: a pair of operands to show the machine with.
        law: how operands are distributed in a class without variants, by its name in ``pipelines.sampling.laws``.
        stress: the families of its split stress, by their name in ``pipelines.sampling.stress``.
        checked_by: how a verification checks its rows, where nothing else computes them.
        kept_steps: which transitions of each expression are kept when steps are sampled.
    """

    name: ClassVar[str]
    sign: ClassVar[str | None] = None
    unary: ClassVar[bool] = False
    commutative: ClassVar[bool] = False
    composer: ClassVar[bool] = False
    walks: ClassVar[bool] = False
    numbers: ClassVar[bool] = True
    halts: ClassVar[bool] = True
    max_short_run: ClassVar[int | None] = None
    instruction: ClassVar[str] = ""
    aligner_instruction: ClassVar[str] = ""
    raw_instruction: ClassVar[str] = ""
    shown_step: ClassVar[tuple[int, int, int] | None] = None
    shown_pair: ClassVar[tuple[int, int] | None] = None
    example: ClassVar[tuple[str, str]] = ("47", "38")
    side: str | None = None  # the split of a machine that is split as a whole
    law: ClassVar[str | OperandDistribution] = "free"
    stress: ClassVar[str] = ""
    kept_steps: ClassVar[StepRule] = first_and_last(1, random=4)
    checked_by: ClassVar[str] = "compared with its own machine: producer and checker have the same author"

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        for old, new in _RENAMED.items():
            if old in cls.__dict__:
                setattr(cls, new, cls.__dict__[old])
        for old, new in _GONE.items():
            if old in cls.__dict__:
                raise UserError(f"{cls.__qualname__}.{old} is no longer asked for: see Machine.{new}")
        if "name" not in cls.__dict__:
            return
        if not re.fullmatch("[a-z][a-z0-9_]*", cls.name):  # it becomes the name of folders
            what = f"{quoted(cls.name)} cannot be the name of a machine"
            raise UserError(what, where=_source(cls), allowed="a lower-case letter, then those, digits and _")
        if lacking := [name for name in dir(cls) if getattr(getattr(cls, name, None), "__isabstractmethod__", False)]:
            what = f"the machine {cls.name} does not define {', '.join(lacking)}"
            raise UserError(what + did_you_mean(lacking[0], cls.__dict__), where=_source(cls))
        known = REGISTRY.get(cls.name)
        if known is not None and (known.source, type(known).__qualname__) != (_source(cls), cls.__qualname__):
            what = f"two machines are called {cls.name!r}: in {known.source} and in {_source(cls)}"
            raise UserError(what, next_step="give one of them another name, or remove its file")
        REGISTRY[cls.name] = cls()

    @property
    def split_key(self) -> str:
        """What the split function takes beside the operands."""
        return self.name

    @property
    def title(self) -> str:
        return self.name.upper()

    @property
    def source(self) -> str:
        """The file that defines the machine."""
        return _source(type(self))

    @property
    def has_raw(self) -> bool:
        """Whether the task has a raw text, and so an aligner."""
        return self.sign is not None

    def missing_views(self) -> dict[str, str]:
        """Return the views that the task has no rows of, each with the reason."""
        lacking = {} if self.has_raw else dict.fromkeys(("aligner", "raw"), NO_RAW)
        return lacking if self.name in VERSIONED else {**lacking, "slips": NO_SLIPS}

    def notes(self) -> tuple[str, ...]:
        """Return what a plan says of how the machine's rows are made."""
        return ()

    def identity(self) -> dict[str, object]:
        """Return what decides on the rows beside settings and versions: the file of a machine of the user's own."""
        return {} if self.name in VERSIONED else {"machine": self._file_digest}

    @cached_property
    def _file_digest(self) -> str:
        """A digest of the machine's file, which is read once: what is done to it later does not change the machine."""
        source = Path(self.source)
        return hashlib.blake2b(source.read_bytes() if source.is_file() else b"", digest_size=8).hexdigest()

    def spec(self) -> dict[str, Any]:
        """Return what a dataset must hold of the machine for others to know it: nothing of one that is code."""
        return {}

    def operand(self, name: str, value: object) -> Any:
        """Return an operand that somebody typed, as ``transitions`` and the others take it.

        Raises:
            UserError: it is no operand of the machine; ``name``, a or b, is for the message.
        """
        from .expression import number_of

        return number_of(value, name)

    def column(self, texts: Sequence[str]) -> Number:
        """Return a column of operands, as the rows write them."""
        return Number.of(texts)

    def length(self, text: str | None) -> int | None:
        """Return the length of an operand in a row; None where it is none."""
        return None if text is None else len(text)

    def written(self, number: Number, rows: I64) -> Field:
        """Return the operands at ``rows`` as the rows write them."""
        return decimal(number, rows)

    @abstractmethod
    def answer(self, a: int, b: int) -> int | bool:
        """Return the result (helpers with one operand get b = 0)."""

    def domain_error(self, a: int, b: int) -> str | None:
        """Return why (a, b) is not an expression of this task, or None where it is one."""
        return None

    @abstractmethod
    def num_steps(self, a: int, b: int) -> int:
        """Return the number of transitions."""

    @abstractmethod
    def max_num_steps(self, len_a: int, len_b: int) -> int:
        """Return the largest number of transitions of operands of these lengths; 0 where it is not known."""

    @abstractmethod
    def transition(self, a: int, b: int, t: int, dialect: Dialect) -> Transition:
        """Return transition ``t`` (0-based)."""

    def transitions(self, a: int, b: int, dialect: Dialect) -> Iterator[Transition]:
        for t in range(self.num_steps(a, b)):
            yield self.transition(a, b, t, dialect)

    @abstractmethod
    def initial(self, a: int, b: int) -> str:
        """Return the initial entry, two lines each ended by a newline."""

    @abstractmethod
    def halted(self, a: int, b: int) -> str:
        """Return the halting entry as the last completion holds it."""

    def run_lengths(self, operands: Operands, most: int) -> I64:
        """Return the number of transitions of each expression, -1 where there are more than ``most``."""
        steps = self.batch(operands, "consistent").num_steps
        return np.where(steps <= most, steps, -1)

    def batch(self, operands: Operands, dialect: Dialect) -> Batch:
        """Return the columnar form of these expressions; machines without one are rendered by their steps."""
        return SteppedBatch(self, operands, dialect)

    def classes(self, shortest: int, longest: int) -> Iterator[tuple[int, int]]:
        """Yield the (len a, len b) of the task's classes between two lengths; len b is 0 for one operand."""
        span = range(shortest, longest + 1)
        for len_a in span:
            for len_b in (0,) if self.unary else span:
                yield len_a, len_b

    def count(self, len_a: int, len_b: int, num: int, span: int) -> int:
        """Return the balanced number of train expressions of a class; ``span`` is the number of lengths built."""
        return num

    def variants(self, len_a: int, len_b: int) -> tuple[Variant, ...]:
        """Return the disjoint parts of a class, each with its share of the class's count."""
        return (Variant("any", 1, self.law),)

    def short_runs(
        self, shortest: int, longest: int, num: int
    ) -> Iterator[tuple[int, int, int, str | OperandDistribution]]:
        """Yield (len a, len b, count, law) of extra expressions that halt soon; none where every run does."""
        return iter(())


def _source(cls: type) -> str:
    return str(getattr(sys.modules.get(cls.__module__), "__file__", cls.__module__))


# Many expressions of one task at once: what the pipelines ask of a machine, and the form that walks its steps


@dataclass(frozen=True, eq=False)
class Rows:
    """One-step rows of a batch: the expression each belongs to, and the machine's own index of its transition."""

    expression: I64
    index: Any

    def __len__(self) -> int:
        return len(self.expression)


class Batch(ABC):
    """Expressions of one task and everything that can be written about them."""

    def __init__(self, machine: Machine, operands: Operands, dialect: Dialect) -> None:
        self.machine, self.operands, self.dialect = machine, operands, dialect
        self.all: I64 = np.arange(len(operands))

    @property
    @abstractmethod
    def num_steps(self) -> I64:
        """Number of transitions of each expression, -1 where it does not fit int64."""

    def every(self) -> Rows:
        """Return every transition of every expression, in order."""
        return walk_rows(self.num_steps)

    def steps(self, rows: Rows) -> I64:
        """Return the 0-based index of each row's transition, -1 where it does not fit int64."""
        steps: I64 = rows.index
        return steps

    def take(self, rows: Rows, order: I64) -> Rows:
        """Return the rows at ``order``."""
        return Rows(rows.expression[order], rows.index[order])

    def entries(self, e: I64, i: I64) -> Texts:
        """Render the entries that expressions ``e`` have after ``i`` steps, both of shape (n,)."""
        raise NotImplementedError

    def prompts(self, rows: Rows) -> Texts:
        """Render the prompts of these rows."""
        return self.entries(rows.expression, rows.index)

    def completions(self, rows: Rows) -> Texts:
        """Render the completions of these rows."""
        return self.entries(rows.expression, rows.index + 1)

    def initial(self) -> pa.Array:
        """Render each expression's initial entry (the completion of an aligner-in row)."""
        return self.entries(self.all, np.zeros_like(self.all)).text

    def halted(self) -> pa.Array:
        """Render each expression's halting entry (its last completion)."""
        return self.entries(self.all, self.num_steps).text

    @abstractmethod
    def answer(self) -> Field:
        """Return each expression's bare answer."""


def walk_rows(num_steps: I64) -> Rows:
    """Return every transition of expressions with these numbers of transitions."""
    total = int(num_steps.sum())
    start = np.cumsum(num_steps) - num_steps
    expression = np.repeat(np.arange(len(num_steps)), num_steps)
    return Rows(expression, np.arange(total) - start[expression])


class SteppedBatch(Batch):
    """The batch of a machine that has no columns: every transition is made once, by the machine itself."""

    def __init__(self, machine: Machine, operands: Operands, dialect: Dialect) -> None:
        super().__init__(machine, operands, dialect)
        b = operands.b.integers() if operands.b is not None else [0] * len(operands)
        self.pairs = pairs = list(zip(operands.a.integers(), b, strict=True))
        self._made = cache(lambda row, step: machine.transition(*pairs[row], step, dialect))

    @cached_property
    def _runs(self) -> list[list[Transition]]:
        return [list(self.machine.transitions(a, b, self.dialect)) for a, b in self.pairs]

    @cached_property
    def num_steps(self) -> I64:
        if self.machine.walks:
            return np.array([len(run) for run in self._runs], np.int64)
        return np.array([self.machine.num_steps(a, b) for a, b in self.pairs], np.int64)

    def prompts(self, rows: Rows) -> Texts:
        return texts_of_rows([(step.prompt, step.state, None) for step in self._transitions(rows)])

    def completions(self, rows: Rows) -> Texts:
        return texts_of_rows([(step.completion, step.next_state, step.call) for step in self._transitions(rows)])

    def initial(self) -> pa.Array:
        return string_array([self.machine.initial(a, b) for a, b in self.pairs])

    def halted(self) -> pa.Array:
        return string_array([self.machine.halted(a, b) for a, b in self.pairs])

    def answer(self) -> Field:
        answers = [str(self.machine.answer(a, b)) for a, b in self.pairs]
        size = np.array([len(answer) for answer in answers], np.int64)
        flat = "".join([*answers, " " * SPARE]).encode()
        return TapeSlice(np.frombuffer(flat, np.uint8), np.cumsum(size) - size, size)

    def _transitions(self, rows: Rows) -> list[Transition]:
        places = zip(rows.expression.tolist(), rows.index.tolist(), strict=True)
        return [self._runs[row][step] if self.machine.walks else self._made(row, step) for row, step in places]
