"""Left mask: removes the first digit, 1050 -> 50, by copying all digits and taking back the last one and zeros above.

    LEFT_MASK, q2,  |0|5|0|1[HEAD] |0|5|0[OUTPUT]
    CMD [OUTPUT] LEFT, q2

A helper of ``sub`` with one operand. When nothing is left the result is a bare 0.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from . import columns
from .basic import BasicBatch, BasicMachine, Configuration, Said, cells, reverse
from .batch import Batch, StepRule, rule
from .classes import Draw, Law, Variant, drawn_digits
from .columns import I64, Bool, Number, Operands
from .machine import Dialect
from .render import Cells, Part, decimal, left, low, pick_digit, right, tape

INSTRUCTION = """\
LEFT_MASK is a Turing machine that removes the highest (leftmost) digit of a non-negative integer, and the
zeros that then lead: 1050 becomes 50. You are its control: given the current entry of a run, you write
the next one. An entry is a state line and a command line.

State line: LEFT_MASK, the state, the operand with [HEAD] in it, and the output, which stands to the left
of [OUTPUT]. Numbers are reversed, units first, with | before each digit: 120 is |0|2|1, so the highest
digit is the last one. The head reads the digit on its right. States: q0 start, q1 copy one digit, q2 drop
leading zeros of the result, qH halted with the result at the end of the line.

Command line: CMD and actions, done from left to right; the last one names the state to go to. [HEAD]
RIGHT moves the head by one digit; [OUTPUT] d writes d; [OUTPUT] RIGHT moves on to the next free place;
[OUTPUT] LEFT goes back by one place and drops the digit there.

Rules: q0 puts the head on the units. In q1 copy the digit under the head and move on; when the head is at
the end, go back over the highest digit, blank it with 0, which leaves no mark in the text, and go to q2.
In q2 step left while the last digit written is 0; otherwise, or when nothing is left, halt. An empty
result is shown as 0, without |. The last command line is "No command to execute. Halt state."

Job: apply the command to the state line, then give the command that the new state calls for.

Example. The entry
LEFT_MASK, q1,  |0|5|0|1[HEAD] |0|5|0|1[OUTPUT]
CMD [OUTPUT] LEFT, [OUTPUT] 0, q2
is followed by
LEFT_MASK, q2,  |0|5|0|1[HEAD] |0|5|0[OUTPUT]
CMD [OUTPUT] LEFT, q2

"""


class Plain(Law):
    """a is free, its second digit is not 0."""

    def size(self, len_a: int, len_b: int) -> int:
        return 10 if len_a == 1 else 81 * 10 ** (len_a - 2)

    def holds(self, operands: Operands) -> Bool:
        return (operands.a.length == 1) | (second_digit(operands.a) != 0)


class Zeros(Law):
    """a is free but for zeros after its first digit, their number uniform: the result is shorter still."""

    injective = False

    def selector(self, len_a: int, len_b: int) -> tuple[int, int]:
        return 1, len_a - 1

    def size(self, len_a: int, len_b: int) -> int:
        return 9 * 10 ** (len_a - 2)

    def shape(self, draw: Draw) -> tuple[Operands, Bool]:
        drawn = drawn_digits(draw.a)
        place = np.arange(drawn.width)[:, None]
        top = drawn.length - 1
        kept = (place == top) | (place < top - draw.selector)
        a = Number(drawn.planes * kept.view(np.uint8), drawn.length)
        return Operands(a, None), np.ones(len(a), np.bool_)

    def holds(self, operands: Operands) -> Bool:
        return (operands.a.length > 1) & (second_digit(operands.a) == 0)


def second_digit(number: Number) -> columns.U8:
    """Return the digit after the first one (the only one where there is one)."""
    return number.digit(np.arange(len(number)), np.maximum(number.length - 2, 0))


VARIANTS = (Variant("zeros", 1, Zeros()), Variant("plain", 1, Plain()))


class LeftMask(BasicMachine):
    """a without its first digit."""

    name = "left_mask"
    instruction = INSTRUCTION
    unary = True
    example = ("1050", "0")
    states = {
        "q0": "LEFT_MASK, q0, [HEAD] {a} [OUTPUT]",
        "q1": "LEFT_MASK, q1,  {a_left}[HEAD]{a_right} {out}[OUTPUT]",
        "q2": "LEFT_MASK, q2,  {a}[HEAD] {out}[OUTPUT]",
        "qH": "LEFT_MASK, qH,  {a}[HEAD] {out}",
    }
    commands = {
        "start": "CMD [HEAD] RIGHT, q1",
        "write": "CMD [HEAD] RIGHT, [OUTPUT] {digit}, [OUTPUT] RIGHT, q1",
        "turn": "CMD [OUTPUT] LEFT, [OUTPUT] 0, q2",
        "strip": "CMD [OUTPUT] LEFT, q2",
        "close": "CMD qH",
    }

    def decide(self, now: Configuration) -> Said:
        if now.state == "q0":
            return "start", {}
        if now.state == "q2":
            return ("strip" if now.output.endswith("0") else "close"), {}
        digit = now.read(0)
        return ("write", {"digit": digit}) if digit else ("turn", {})

    def parts(self, now: Configuration) -> dict[str, str]:
        parts = now.parts()
        parts["out"] = "0" if now.state == "qH" and not now.output else cells(now.output)
        return parts

    def at(self, a: int, b: int, i: int) -> Configuration:
        now = self.start(a, b)
        if i == 0:
            return now
        digits = now.tapes[0]
        n = len(digits)
        k = min(i - 1, n)
        if i <= n + 1:
            return Configuration("q1", now.tapes, (k,), output=digits[:k])
        if i == self.num_steps(a, b):
            result = self.answer(a, b)
            return Configuration("qH", now.tapes, (n,), output=reverse(result) if result else "")
        return Configuration("q2", now.tapes, (n,), output=digits[: n - 1 - (i - n - 2)])

    def answer(self, a: int, b: int) -> int:
        return a % 10 ** (len(str(a)) - 1)

    def num_steps(self, a: int, b: int) -> int:
        n, result = len(str(a)), self.answer(a, b)
        return n + 3 + (n - 1 - len(str(result)) if result else n - 1)

    def max_num_steps(self, len_a: int, len_b: int) -> int:
        return 2 * len_a + 2

    def count(self, len_a: int, len_b: int, num: int, span: int) -> int:
        return max(1, num // 2 * 2)

    def variants(self, len_a: int, len_b: int) -> tuple[Variant, ...]:
        return VARIANTS if len_a > 1 else VARIANTS[1:]

    def step_rule(self, batch: Batch) -> StepRule:
        return rule(batch.num_steps, keep_all=5, last=1, random=3)

    def batch(self, operands: Operands, dialect: Dialect) -> Batch:
        return LeftMaskBatch(self, operands, dialect)


class LeftMaskBatch(BasicBatch):
    """Columns of numbers that lose their first digit."""

    def count_steps(self) -> I64:
        self.a = self.operands.a
        rest = self.a.planes.copy()
        rest[self.a.length - 1, self.all] = 0
        self.result = Number(rest, columns.length_of(rest, self.a.length))
        self.zero = self.result.is_zero()
        self.stripped = np.where(self.zero, self.a.length - 1, self.a.length - 1 - self.result.length)
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
        if state == "q0":
            return {"a": tape(self.operands.a, e)}
        n = self.a.length[e]
        if state == "qH":
            return {"a": tape(self.a, e), "out": self._result(e)}
        if state == "q2":
            return {"a": tape(self.a, e), "out": low(self.a, e, 2 * n + 1 - i)}
        k = np.minimum(i - 1, n)
        return {
            "a_left": left(self.a, e, k),
            "a_right": right(self.a, e, k),
            "out": low(self.a, e, k),
            "digit": pick_digit(self.a.digit(e, k)),
        }

    def _result(self, e: I64) -> Part:
        """Return the halting output: the tape of the result, a bare 0 (the second byte of its tape) for zero."""
        found = tape(self.result, e)
        zero = self.zero[e]
        return Cells(found.buffer, found.offset + zero, found.size - zero)

    def answer(self) -> Part:
        self.num_steps  # noqa: B018  (computes the result)
        return decimal(self.result, self.all)
