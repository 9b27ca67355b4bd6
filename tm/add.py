"""Addition, digit by digit with a carry: 12 + 9 = 21 takes four steps.

    ADD, q1,  |2[HEAD1]|1 |9[HEAD2] [C]1 |1[OUTPUT]
    CMD: [C] 0, [OUTPUT] 2, [OUTPUT] RIGHT, [HEAD1] RIGHT, q1

q1 reads a digit of each operand (0 past its end) and the carry, writes the unit, sets the carry and moves the heads that
are still inside their operands; with both at the end it writes the carry unless it is 0.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from . import columns
from .basic import BasicBatch, BasicMachine, Configuration, Said, reverse, rule
from .batch import Batch, Operands, StepRule
from .columns import I64, Bool
from .machine import Dialect
from .render import Part, decimal, left, low, pick_digit, pick_flag, right, tape


class Add(BasicMachine):
    """a + b."""

    name = "add"
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
            return {"a": tape(self.a, e), "b": tape(self.b, e)}
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
        return decimal(self.sum, self.all)
