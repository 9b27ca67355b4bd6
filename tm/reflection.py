"""Reflection, the nines' complement: 999 - 98 = 901, digit by digit, then high zeros are taken back.

    REFLECTION, q1,  |9[HEAD1]|9|9 |8[HEAD2]|9 |1[OUTPUT]
    CMD [HEAD1] RIGHT, [HEAD2] RIGHT, [OUTPUT] 0, [OUTPUT] RIGHT, q1

q1 writes 9 minus each digit of b (9 past its end), q2 moves back over high zeros. A helper of ``sub``.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from . import columns
from .basic import BasicBatch, BasicMachine, Configuration, Said, reverse
from .batch import Batch, StepRule
from .classes import Draw, Law, Variant, drawn_digits
from .columns import I64, Bool, Operands
from .machine import Dialect
from .render import Part, Pick, decimal, left, low, pick_digit, pick_flag, right, tape
from .stress import COMPLEMENT, Family

INSTRUCTION = """\
REFLECTION is a Turing machine that subtracts operand 2 from operand 1, where operand 1 is written with
nines only and is not the smaller one: each digit d becomes 9 - d. You are its control: given the current
entry of a run, you write the next one. An entry is a state line and a command line.

State line: REFLECTION, the state, operand 1 with [HEAD1] in it, operand 2 with [HEAD2] in it, and the
output, which stands to the left of [OUTPUT]. Numbers are reversed, units first, with | before each digit:
120 is |0|2|1. A head reads the digit on its right; behind the last digit of operand 2 it reads 0. States:
q0 start, q1 subtract one pair of digits, q2 drop leading zeros of the result, qH halted with the result
at the end of the line.

Command line: CMD and actions, done from left to right; the last one names the state to go to. [HEAD1]
RIGHT and [HEAD2] RIGHT move a head by one digit; [OUTPUT] d writes d; [OUTPUT] RIGHT moves on to the next
free place; [OUTPUT] LEFT goes back by one place and drops the digit there; [OUTPUT] alone closes the
output.

Rules: q0 puts both heads on the units. In q1 write the difference of the two digits and move the heads
that still have a digit; when [HEAD1] is at the end, go to q2. In q2 step left while the last digit
written is 0, then close the output and halt. If nothing but | is left, the result is |0. The last command
line is "No command to execute. Halt state."

Job: apply the command to the state line, then give the command that the new state calls for.

Example. The entry
REFLECTION, q1,  |9|9[HEAD1]|9 |8|9[HEAD2] |1|0[OUTPUT]
CMD [HEAD1] RIGHT, [OUTPUT] 9, [OUTPUT] RIGHT, q1
is followed by
REFLECTION, q1,  |9|9|9[HEAD1] |8|9[HEAD2] |1|0|9[OUTPUT]
CMD q2

"""


class Complemented(Law):
    """a is all nines, b is free and does not begin with 9 where it is as long as a."""

    def lengths(self, len_a: int, len_b: int) -> tuple[int, int]:
        return 0, len_b

    def size(self, len_a: int, len_b: int) -> int:
        return super().size(len_a, len_b) - (10 ** (len_b - 1) if len_a == len_b else 0)

    def shape(self, draw: Draw) -> tuple[Operands, Bool]:
        operands = Operands(columns.nines(draw.len_a), draw.b)
        return operands, self.holds(operands)

    def holds(self, operands: Operands) -> Bool:
        return ~_begins_with_nine(operands)


class LeadingNines(Complemented):
    """a is all nines, b as long and its first L digits are 9, L uniform: the result has at least L high zeros."""

    injective = False

    def selector(self, len_a: int, len_b: int) -> tuple[int, int]:
        return 1, len_b

    def size(self, len_a: int, len_b: int) -> int:
        return 10 ** (len_b - 1)

    def shape(self, draw: Draw) -> tuple[Operands, Bool]:
        drawn = drawn_digits(draw.b)
        place = np.arange(drawn.width)[:, None]
        replaced = (place >= drawn.length - draw.selector) & (place < drawn.length)
        b = columns.Number(np.where(replaced, np.uint8(9), drawn.planes), drawn.length)
        return Operands(columns.nines(draw.len_a), b), np.ones(len(b), np.bool_)

    def holds(self, operands: Operands) -> Bool:
        return _begins_with_nine(operands)


def _begins_with_nine(operands: Operands) -> Bool:
    b = operands.second
    first = b.digit(np.arange(len(b)), b.length - 1)
    return (first == 9) & (operands.a.length == b.length)


# The published law is two free problems and one with leading nines; of the free ones a ninth begins with 9 too.
VARIANTS = (Variant("plain", 16, Complemented()), Variant("leading_nines", 11, LeadingNines()))


class Reflection(BasicMachine):
    """a - b where a is all nines."""

    name = "reflection"
    instruction = INSTRUCTION
    example = ("999", "98")
    states = {
        "q0": "REFLECTION, q0, [HEAD1] {a}[HEAD2] {b} [OUTPUT]",
        "q1": "REFLECTION, q1,  {a_left}[HEAD1]{a_right} {b_left}[HEAD2]{b_right} {out}[OUTPUT]",
        "q2": "REFLECTION, q2,  {a}[HEAD1] {b}[HEAD2] {bar}{out}[OUTPUT]",
        "qH": "REFLECTION, qH,  {a}[HEAD1] {b}[HEAD2] {out}",
    }
    commands = {
        "start": "CMD [HEAD1] RIGHT, [HEAD2] RIGHT, q1",
        "write": "CMD [HEAD1] RIGHT, {move_b}[OUTPUT] {digit}, [OUTPUT] RIGHT, q1",
        "turn": "CMD q2",
        "strip": "CMD [OUTPUT] LEFT, q2",
        "close": "CMD [OUTPUT], qH",
    }

    def decide(self, now: Configuration) -> Said:
        if now.state == "q0":
            return "start", {}
        if now.state == "q2":
            return ("strip" if now.output.endswith("0") else "close"), {}
        if not now.read(0):
            return "turn", {}
        digit = now.read(1)
        return "write", {"digit": str(9 - int(digit or 0)), "move_b": "[HEAD2] RIGHT, " if digit else ""}

    def parts(self, now: Configuration) -> dict[str, str]:
        parts = now.parts()
        parts["bar"] = "" if now.output else "|"
        if now.state == "qH" and not now.output:
            parts["out"] = "|0"
        return parts

    def at(self, a: int, b: int, i: int) -> Configuration:
        now = self.start(a, b)
        if i == 0:
            return now
        n, len_b = (len(tape) for tape in now.tapes)
        written = reverse(a - b).ljust(n, "0")
        k = min(i - 1, n)
        state = "q1" if i <= n + 1 else "qH" if i == self.num_steps(a, b) else "q2"
        output = written[:k] if state == "q1" else written[: n - (i - n - 2)]
        if state == "qH":
            output = reverse(a - b) if a > b else ""
        return Configuration(state, now.tapes, (k, min(k, len_b)), output=output)

    def answer(self, a: int, b: int) -> int:
        return a - b

    def refusal(self, a: int, b: int) -> str | None:
        if set(str(a)) != {"9"}:
            return "reflection needs an a made of nines only: it computes the nines' complement of b"
        return "reflection needs b <= a" if b > a else None

    def num_steps(self, a: int, b: int) -> int:
        n = len(str(a))
        return n + 3 + (n - len(str(a - b)) if a > b else n)

    def max_num_steps(self, len_a: int, len_b: int) -> int:
        return 2 * len_a + 3

    def classes(self, shortest: int, longest: int) -> Iterator[tuple[int, int]]:
        return ((i, j) for i, j in super().classes(shortest, longest) if j <= i)

    def count(self, len_a: int, len_b: int, num: int, span: int) -> int:
        return 3 * num if len_a == len_b else num

    def variants(self, len_a: int, len_b: int) -> tuple[Variant, ...]:
        return VARIANTS if len_a == len_b else VARIANTS[:1]

    def step_rule(self, batch: Batch) -> StepRule:
        total = batch.num_steps
        n = batch.operands.a.length
        zero = np.zeros_like(total)
        # T - 2 >= n + 2 only where the result has high zeros: without, the second range is empty.
        return StepRule(10, (zero, total - 1, n, n + 1), ((zero + 1, n - 1, 4), (n + 2, total - 2, 3)))

    def families(self) -> tuple[Family, ...]:
        return COMPLEMENT

    def batch(self, operands: Operands, dialect: Dialect) -> Batch:
        return ReflectionBatch(self, operands, dialect)


class ReflectionBatch(BasicBatch):
    """Columns of complements."""

    def count_steps(self) -> I64:
        self.a, self.b = self.operands.a, self.operands.second
        self.result = columns.subtract(self.a, self.b)
        self.zero = self.result.is_zero()
        self.stripped = np.where(self.zero, self.a.length, self.a.length - self.result.length)
        return self.a.length + 3 + self.stripped

    def phases(self, e: I64, i: I64) -> Iterator[tuple[Bool, str, str | None]]:
        n, last = self.a.length[e], self.num_steps[e]
        yield i == 0, "q0", "start"
        yield (i > 0) & (i <= n), "q1", "write"
        yield i == n + 1, "q1", "turn"
        yield (i > n + 1) & (i < last - 1), "q2", "strip"
        yield i == last - 1, "q2", "close"
        yield i == last, "qH", None

    def parts(self, state: str, e: I64, i: I64) -> Mapping[str, Part]:
        whole = {"a": tape(self.operands.a, e), "b": tape(self.operands.second, e)}
        if state == "q0":
            return whole
        n = self.a.length[e]
        if state == "qH":
            return {**whole, "out": low(self.result, e, self.result.length[e])}
        if state == "q2":
            kept = 2 * n + 2 - i
            bar = Pick(("", "|"), (kept == 0).astype(np.int64))
            return {**whole, "bar": bar, "out": low(self.result, e, kept)}
        k = np.minimum(i - 1, n)
        return {
            "a_left": left(self.a, e, k),
            "a_right": right(self.a, e, k),
            "b_left": left(self.b, e, k),
            "b_right": right(self.b, e, k),
            "out": low(self.result, e, k),
            "digit": pick_digit(self.result.digit(e, k)),
            "move_b": pick_flag(k < self.b.length[e], "[HEAD2] RIGHT, ", ""),
        }

    def answer(self) -> Part:
        self.num_steps  # noqa: B018  (computes the result)
        return decimal(self.result, self.all)
