"""Addition, digit by digit with a carry: 12 + 9 = 21 takes four steps.

    ADD, q1,  |2[HEAD1]|1 |9[HEAD2] [C]1 |1[OUTPUT]
    CMD: [C] 0, [OUTPUT] 2, [OUTPUT] RIGHT, [HEAD1] RIGHT, q1

q1 reads a digit of each operand (0 past its end) and the carry, writes the unit, sets the carry and moves the heads
that are still inside their operands; with both at the end it writes the carry unless it is 0.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from . import columns
from .basic import BasicBatch, BasicMachine, Configuration, Said, reverse
from .batch import Batch, StepRule, rule
from .columns import I64, Bool, Operands
from .machine import Dialect
from .render import Part, decimal, left, low, pick_digit, pick_flag, right, tape
from .stress import ADDITION, Family

INSTRUCTION = """\
ADD is a Turing machine that adds two non-negative integers. You are its control: given the current entry
of a run, you write the next one. An entry is a state line and a command line.

State line: ADD, the state, operand 1 with [HEAD1] in it, operand 2 with [HEAD2] in it, the carry register
[C] with its digit, and the output, which grows to the left of [OUTPUT]. Numbers are reversed, units
first, with | before each digit: 120 is |0|2|1. A head reads the digit on its right; behind the last digit
it reads 0. States: q0 start, q1 add one column of digits, qH halted with the sum at the end of the line.

Command line: CMD: and actions, done from left to right; the last one names the state to go to. [C] d
writes d to the carry; [OUTPUT] d writes d to the output; [OUTPUT] RIGHT, [HEAD1] RIGHT and [HEAD2] RIGHT
move on by one place; [OUTPUT] and [C] alone close that register.

Rules: q0 clears the carry and puts both heads on the units. In q1 add the carry and the digits under the
heads, write the unit, keep the new carry, move the heads that still have a digit. With both heads at the
end, write the carry (a 0 leaves no mark), close the registers and halt: "No command to execute. Halt
state."

Job: apply the command to the state line, then give the command that the new state calls for.

Example. The entry
ADD, q1,  [HEAD1]|2|1 [HEAD2]|9 [C]0 [OUTPUT]
CMD: [C] 1, [OUTPUT] 1, [OUTPUT] RIGHT, [HEAD1] RIGHT, [HEAD2] RIGHT, q1
is followed by
ADD, q1,  |2[HEAD1]|1 |9[HEAD2] [C]1 |1[OUTPUT]
CMD: [C] 0, [OUTPUT] 2, [OUTPUT] RIGHT, [HEAD1] RIGHT, q1

"""

ALIGNER_INSTRUCTION = """\
You translate between sums as people write them and the Turing machine ADD. The text below is an input or
an output.

An input is a sum with its = sign. Write the entry that the machine starts with: the state line (ADD,
state q0, the operands after their heads [HEAD1] and [HEAD2], the empty carry register [C], the empty
[OUTPUT]) and the first command line, which clears the carry, moves both heads onto the units and goes to
state q1. An output is the entry that the machine halts with: the state line in state qH, heads at the end
of the operands, last carry after [C], the sum at the end of the line, then the line that says there is no
command. Write the sum out in full. The machine's numbers are reversed, units first, with | before each
digit: 120 is |0|2|1.

Example of an input:
12+9=
Its answer:
ADD, q0, [HEAD1] |2|1[HEAD2] |9 [C] [OUTPUT]
CMD: [C] 0, [HEAD1] RIGHT, [HEAD2] RIGHT, q1

Example of an output:
ADD, qH,  |2|1[HEAD1] |9[HEAD2] [C]0 |1|2
No command to execute. Halt state.
Its answer:
12+9=21

"""

RAW_INSTRUCTION = "Answer with the sum of the two numbers, in digits.\n\n"


class Add(BasicMachine):
    """a + b."""

    name = "add"
    instruction = INSTRUCTION
    aligner_instruction = ALIGNER_INSTRUCTION
    raw_instruction = RAW_INSTRUCTION
    sign = "+"
    commutative = True
    states = {
        "q0": "ADD, q0, [HEAD1] {a}[HEAD2] {b} [C] [OUTPUT]",
        "q1": "ADD, q1,  {a_left}[HEAD1]{a_right} {b_left}[HEAD2]{b_right} [C]{carry} {out}[OUTPUT]",
        "qH": "ADD, qH,  {a_left}[HEAD1]{a_right} {b_left}[HEAD2]{b_right} [C]{carry} {out}",
    }
    commands = {
        "start": "CMD: [C] 0, [HEAD1] RIGHT, [HEAD2] RIGHT, q1",
        "write": "CMD: [C] {over}, [OUTPUT] {digit}, [OUTPUT] RIGHT, {move_a}{move_b}q1",
        "close": "CMD: [OUTPUT] {carry}, [OUTPUT], [C], qH",
    }

    def decide(self, now: Configuration) -> Said:
        x, y = (now.read(0), now.read(1)) if now.state == "q1" else ("", "")
        if now.state == "q0":
            return "start", {}
        if not x and not y:
            return "close", {"carry": now.carry}
        total = int(x or 0) + int(y or 0) + int(now.carry)
        moves = {"move_a": "[HEAD1] RIGHT, " if x else "", "move_b": "[HEAD2] RIGHT, " if y else ""}
        return "write", {"over": str(total // 10), "digit": str(total % 10), **moves}

    def at(self, a: int, b: int, i: int) -> Configuration:
        now = self.start(a, b)
        if i == 0:
            return now
        len_a, len_b = (len(tape) for tape in now.tapes)
        k = min(i - 1, max(len_a, len_b))
        carry = (a % 10**k + b % 10**k) // 10**k
        heads = (min(k, len_a), min(k, len_b))
        if i == max(len_a, len_b) + 2:
            return Configuration("qH", now.tapes, heads, str(carry), reverse(a + b))
        return Configuration("q1", now.tapes, heads, str(carry), reverse(a + b)[:k])

    def answer(self, a: int, b: int) -> int:
        return a + b

    def num_steps(self, a: int, b: int) -> int:
        return self.max_num_steps(len(str(a)), len(str(b)))

    def max_num_steps(self, len_a: int, len_b: int) -> int:
        return max(len_a, len_b) + 2

    def count(self, len_a: int, len_b: int, num: int, span: int) -> int:
        if len_a <= 10 and len_b <= 10:
            return 10 * num
        return num // 2 if lopsided(len_a, len_b) else num

    def step_rule(self, batch: Batch) -> StepRule:
        return rule(batch.num_steps, keep_all=5, last=2, random=4)

    def families(self) -> tuple[Family, ...]:
        return ADDITION

    def batch(self, operands: Operands, dialect: Dialect) -> Batch:
        return AddBatch(self, operands, dialect)


def lopsided(len_a: int, len_b: int) -> bool:
    """Tell whether both lengths are over 10 and one is more than 1.5 times the other."""
    return min(len_a, len_b) > 10 and 2 * max(len_a, len_b) > 3 * min(len_a, len_b)


class AddBatch(BasicBatch):
    """Columns of additions: the sum and every carry, from which each entry follows."""

    def count_steps(self) -> I64:
        self.a, self.b = self.operands.a, self.operands.second
        self.sum, self.carry = columns.add(self.a, self.b)
        self.longest = np.maximum(self.a.length, self.b.length)
        return self.longest + 2

    def phases(self, e: I64, i: I64) -> Iterator[tuple[Bool, str, str | None]]:
        n = self.longest[e]
        yield i == 0, "q0", "start"
        yield (i > 0) & (i <= n), "q1", "write"
        yield i == n + 1, "q1", "close"
        yield i == n + 2, "qH", None

    def parts(self, state: str, e: I64, i: I64) -> Mapping[str, Part]:
        if state == "q0":
            return {"a": tape(self.operands.a, e), "b": tape(self.operands.second, e)}
        k = np.minimum(i - 1, self.longest[e])
        following = np.minimum(k + 1, self.longest[e])
        halted = state == "qH"
        return {
            "a_left": left(self.a, e, k),
            "a_right": right(self.a, e, k),
            "b_left": left(self.b, e, k),
            "b_right": right(self.b, e, k),
            "carry": pick_flag(self.carry[k, e] > 0, "1", "0"),
            "out": tape(self.sum, e) if halted else low(self.sum, e, k),
            "over": pick_flag(self.carry[following, e] > 0, "1", "0"),
            "digit": pick_digit(self.sum.digit(e, k)),
            "move_a": pick_flag(k < self.a.length[e], "[HEAD1] RIGHT, ", ""),
            "move_b": pick_flag(k < self.b.length[e], "[HEAD2] RIGHT, ", ""),
        }

    def answer(self) -> Part:
        self.num_steps  # noqa: B018  (computes the sum)
        return decimal(self.sum, self.all)
