"""Left mask: removes the first digit, 1050 -> 50, by copying all digits and taking back the last one and zeros above.

    LEFT_MASK, q2,  |0|5|0|1[HEAD] |0|5|0[OUTPUT]
    CMD [OUTPUT] LEFT, q2

A helper of ``sub`` with one operand. When nothing is left the result is a bare 0.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from . import columns
from .basic import BasicBatch, BasicMachine, Configuration, Said, cells, reverse, rule
from .batch import Batch, Operands, StepRule
from .classes import Draw, Law, Variant, drawn_digits
from .columns import I64, Bool, Number
from .machine import Dialect
from .render import Cells, Part, decimal, left, low, pick_digit, right, tape


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


class LeftMask(BasicMachine):
    """a without its first digit."""

    name = "left_mask"
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
        plain = Variant("plain", 1, Plain())
        return (Variant("zeros", 1, Zeros()), plain) if len_a > 1 else (plain,)

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
        self.result = Number(rest)
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
        n = self.a.length[e]
        if state == "q0":
            return {"a": tape(self.a, e)}
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
        return decimal(self.result, self.all)
