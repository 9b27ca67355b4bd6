"""Subtraction without borrowing: 12 - 7 through the nines' complement, in five steps with four calls.

reflection(99, 7) = 92      add(12, 92) = 104      add(104, 1) = 105      left_mask(105) = 5
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from . import columns
from .add import lopsided
from .interpreter import tape_text as cells
from .interpreter import units_first as reverse
from .tape_engine import Content
from .batch import Batch, Rows, StepRule, Texts, WalkedBatch, texts
from .classes import AtLeastB
from .columns import I64, Number, Operands
from .composer import HALT, Composer, called, calls, ended, halted, lines, started
from .machine import Dialect
from .render import Block, Part, Pick, decimal, low, render, tape
from .stress import SUBTRACTION, Family
from .template import Template

INSTRUCTION = """\
SUB is a machine that subtracts operand 2 from operand 1, which is not the smaller one, by calling other
machines: REFLECTION (nines minus a number), ADD and LEFT_MASK (drop the highest digit). You are its
control: given what stands now, you write what comes next.

Algorithm, for an operand 1 of n digits: subtract operand 2 from n nines, add operand 1, add 1, drop the
highest digit. With 12 - 7: 99 - 7 = 92 (REFLECTION); 12 + 92 = 104 (ADD); 104 + 1 = 105 (ADD); 105
without its highest digit is 5 (LEFT_MASK). So 12 - 7 = 5.

State line: SUB, the state, operand 1 after [HEAD1], operand 2 after [HEAD2]. At the halt the result
follows; before that the line ends with a blank. Numbers are reversed, units first, with | before each
digit: 120 is |0|2|1. States, named by what comes next: q0 start; q1 REFLECTION; q2 the ADD of operand 1;
q3 the ADD of 1; q4 LEFT_MASK; qH halted. Command line: CMD and the state to go to, or CMD [CALL], the
machine to call and the state to go to when that machine has halted.

The prompt has two lines at q0 (state line, command line) and four lines otherwise: after SUB's state line
and its call come the called machine's last state line, with its result at the end, and "No command to
execute. Halt state." The answer is SUB's new state line and command; if the command is a call, two
further lines give the initial state of the called machine and its first command. Calls: REFLECTION on n
nines and operand 2; ADD on operand 1 and that result; ADD on that sum and 1; LEFT_MASK on that sum. After
LEFT_MASK the answer is the qH line with the result, and "No command to execute. Halt state."

Job: read the result of the called machine, go to the state that the call names, give its command.

Example. The entry
SUB, q1, [HEAD1]|2|1 [HEAD2]|7\x20
CMD [CALL] REFLECTION, q2
REFLECTION, qH,  |9|9[HEAD1] |7[HEAD2] |2|9
No command to execute. Halt state.
is followed by
SUB, q2, [HEAD1]|2|1 [HEAD2]|7\x20
CMD [CALL] ADD, q3
ADD, q0, [HEAD1] |2|1[HEAD2] |2|9 [C] [OUTPUT]
CMD: [C] 0, [HEAD1] RIGHT, [HEAD2] RIGHT, q1

"""

ALIGNER_INSTRUCTION = """\
You translate between differences as people write them and the machine SUB. The text below is an input or
an output.

An input is a difference with its = sign; the first number is not the smaller one. Write the entry that
the machine starts with: the state line (SUB, state q0, the operands after their heads [HEAD1] and
[HEAD2], a blank at the end) and the first command line, which goes to state q1. An output is the entry
that the machine halts with: the state line in state qH, the operands after their heads, the difference at
the end of the line, then the line that says there is no command. Write the difference out in full. The
machine's numbers are reversed, units first, with | before each digit: 120 is |0|2|1.

Example of an input:
105-99=
Its answer:
SUB, q0, [HEAD1]|5|0|1 [HEAD2]|9|9\x20
CMD q1

Example of an output:
SUB, qH, [HEAD1]|5|0|1 [HEAD2]|9|9 |6
No command to execute. Halt state.
Its answer:
105-99=6

"""

RAW_INSTRUCTION = "Answer with the first number minus the second, in digits.\n\n"

STATE = "SUB, {state}, [HEAD1]{a} [HEAD2]{b} {out}"
CALLS = (("reflection", "q2"), ("add", "q3"), ("add", "q4"), ("left_mask", "qH"))
START = "CMD q1"


class Sub(Composer):
    """a - b for a >= b."""

    name = "sub"
    instruction = INSTRUCTION
    aligner_instruction = ALIGNER_INSTRUCTION
    raw_instruction = RAW_INSTRUCTION
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

    def families(self) -> tuple[Family, ...]:
        return SUBTRACTION

    def batch(self, operands: Operands, dialect: Dialect) -> Batch:
        return SubBatch(self, operands, dialect)


EMPTY = Pick(("",), np.zeros(1, np.int64))


class SubBatch(WalkedBatch):
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
            parts = {**parts, "out": low(self.difference, e, self.a.length[e]), "mark": EMPTY}
        return lines(self._state(e, f"q{t}"), calls(task, following), (template, parts))

    def _halted(self, e: I64) -> Content:
        return lines(self._state(e, "qH"), HALT)

    def initial(self) -> pa.Array:
        return render([Block(self.all, *ended(self._prompt(self.all, 0)))], len(self.all))

    def halted(self) -> pa.Array:
        return render([Block(self.all, *self._halted(self.all))], len(self.all))

    def answer(self) -> Part:
        return decimal(self.difference, self.all)
