"""Subtraction without borrowing: 12 - 7 through the nines' complement, in five steps with four calls.

    reflection(99, 7) = 92      add(12, 92) = 104      add(104, 1) = 105      left_mask(105) = 5
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from . import columns
from .basic import Content, cells, reverse
from .batch import Batch, Operands, Rows, StepRule, Texts, texts, walk_rows
from .classes import AtLeastB
from .columns import I64, Number
from .composer import HALT, Composer, called, calls, ended, halted, lines, started
from .add import lopsided
from .machine import Dialect
from .random import U64
from .render import Block, Pick, decimal, low, render, tape
from .template import Template

STATE = "SUB, {state}, [HEAD1]{a} [HEAD2]{b} {out}"
CALLS = (("reflection", "q2"), ("add", "q3"), ("add", "q4"), ("left_mask", "qH"))
START = "CMD q1"


class Sub(Composer):
    """a - b for a >= b."""

    name = "sub"
    sign = "-"
    law = AtLeastB()

    def operands(self, a: int, b: int) -> list[tuple[int, int]]:
        """Return the operands of the four calls."""
        nines = 10 ** len(str(a)) - 1
        total = a + (nines - b)
        return [(nines, b), (a, nines - b), (total, 1), (total + 1, 0)]

    def prompt(self, a: int, b: int, t: int, dialect: Dialect) -> tuple[str, str]:
        state = STATE.format(state=f"q{t}", a=cells(reverse(a)), b=cells(reverse(b)), out="")
        if t == 0:
            return "q0", f"{state}\n{START}"
        task, following = CALLS[t - 1]
        x, y = self.operands(a, b)[t - 1]
        quoted = halted(task, x, y)
        if dialect == "published" and task == "add":
            quoted = quoted.replace("[C]1", "[C]0")
        elif dialect == "published" and task == "left_mask":
            padded = reverse(a - b).ljust(len(str(a)), "0")
            quoted = f"LEFT_MASK, qH,  {cells(reverse(x))}[HEAD] {cells(padded)}\n{HALT}"
        return f"q{t}", f"{state}\n{calls(task, following)}\n{quoted}"

    def completion(self, a: int, b: int, t: int) -> tuple[str, str, str | None]:
        tapes = {"a": cells(reverse(a)), "b": cells(reverse(b))}
        if t == 4:
            return "qH", f"{STATE.format(state='qH', out=cells(reverse(a - b)), **tapes)}\n{HALT}", None
        task, following = CALLS[t]
        state = STATE.format(state=f"q{t + 1}", out="", **tapes)
        quoted = started(task, *self.operands(a, b)[t])
        return f"q{t + 1}", f"{state}\n{calls(task, following)}\n{quoted}", task

    def answer(self, a: int, b: int) -> int:
        return a - b

    def refusal(self, a: int, b: int) -> str | None:
        return "sub needs a >= b: the machine has no negative numbers" if a < b else None

    def num_steps(self, a: int, b: int) -> int:
        return 5

    def max_num_steps(self, len_a: int, len_b: int) -> int:
        return 5

    def classes(self, shortest: int, longest: int) -> Iterator[tuple[int, int]]:
        return ((i, j) for i, j in super().classes(shortest, longest) if j <= i)

    def count(self, len_a: int, len_b: int, num: int, span: int) -> int:
        if len_a <= 10 and len_b < 10:
            return 5 * num
        return num // 2 if lopsided(len_a, len_b) else num

    def step_rule(self, batch: Batch) -> StepRule:
        return StepRule(5, (), ())

    def batch(self, operands: Operands, dialect: Dialect) -> Batch:
        return SubBatch(self, operands, dialect)


class SubBatch(Batch):
    """Columns of subtractions and of the four machines that each calls."""

    def __init__(self, machine: Sub, operands: Operands, dialect: Dialect) -> None:
        super().__init__(machine, operands, dialect)
        self.a, self.b = operands.a, operands.second
        one = Number(np.ones((1, len(operands)), np.uint8))
        nines = columns.nines(self.a.length)
        complement = columns.subtract(nines, self.b)
        total, _ = columns.add(self.a, complement)
        self.difference = columns.subtract(self.a, self.b)
        self.calls = (
            called("reflection", Operands(nines, self.b)),
            called("add", Operands(self.a, complement)),
            called("add", Operands(total, one)),
            called("left_mask", Operands(columns.add(total, one)[0], None)),
        )

    @property
    def num_steps(self) -> I64:
        return np.full(len(self.operands), 5)

    def sampled(self, key: U64) -> Rows:
        return self.every()

    def every(self) -> Rows:
        return walk_rows(self.num_steps)

    def steps(self, rows: Rows) -> I64:
        steps: I64 = rows.index
        return steps

    def take(self, rows: Rows, order: I64) -> Rows:
        return Rows(rows.expression[order], rows.index[order])

    def prompts(self, rows: Rows) -> Texts:
        blocks = []
        for t in range(5):
            here = np.flatnonzero(rows.index == t)
            blocks.append(Block(here, *ended(self._prompt(rows.expression[here], t)), state=f"q{t}"))
        return texts(blocks, len(rows))

    def completions(self, rows: Rows) -> Texts:
        blocks = []
        for t in range(4):
            here = np.flatnonzero(rows.index == t)
            e = rows.expression[here]
            task, following = CALLS[t]
            content = lines(self._state(e, f"q{t + 1}"), calls(task, following), self.calls[t].first(e))
            blocks.append(Block(here, *content, state=f"q{t + 1}", call=task))
        here = np.flatnonzero(rows.index == 4)
        blocks.append(Block(here, *self._halted(rows.expression[here]), state="qH"))
        return texts(blocks, len(rows))

    def _state(self, e: I64, state: str) -> Content:
        source = STATE.replace("{state}", state).replace("{out}", "" if state != "qH" else "{out}")
        parts = {"a": tape(self.a, e), "b": tape(self.b, e), "out": tape(self.difference, e)}
        return Template(source), parts

    def _prompt(self, e: I64, t: int) -> Content:
        if t == 0:
            return lines(self._state(e, "q0"), START)
        task, following = CALLS[t - 1]
        template, parts = self.calls[t - 1].last(e)
        if self.dialect == "published" and task == "add":
            parts = {**parts, "carry": Pick(("0",), np.zeros(1, np.int64))}
        elif self.dialect == "published" and task == "left_mask":
            parts = {**parts, "out": low(self.difference, e, self.a.length[e])}
        return lines(self._state(e, f"q{t}"), calls(task, following), (template, parts))

    def _halted(self, e: I64) -> Content:
        return lines(self._state(e, "qH"), HALT)

    def initial(self) -> pa.Array:
        return render([Block(self.all, *ended(self._prompt(self.all, 0)))], len(self.all))

    def halted(self) -> pa.Array:
        return render([Block(self.all, *self._halted(self.all))], len(self.all))

    def answers(self) -> pa.Array:
        return render(
            [Block(self.all, Template("{out}"), {"out": decimal(self.difference, self.all)})], len(self.all)
        )
