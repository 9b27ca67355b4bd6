"""Division by repeated addition: 9 // 4 counts how often 4 goes into 9 before the sum is greater.

    DIV, q1, [HEAD1]|9 [HEAD2]|4 [COUNT]|8 [OUTPUT]|1
    CMD [CALL] GREATER_THAN, q2
"""

from collections.abc import Iterator

import numpy as np

from . import columns
from .batch import Batch, Operands
from .classes import Draw, Law, NonzeroB, drawn_digits
from .columns import Bool, Number
from .loop import Loop, LoopBatch, Turn
from .machine import Dialect


class Quotients(Law):
    """b is free, the quotient one of a few small numbers, the remainder uniform below b: the run halts soon."""

    padded_a = True

    def __init__(self, *quotients: int) -> None:
        self.quotients = np.array(quotients)

    def lengths(self, len_a: int, len_b: int) -> tuple[int, int]:
        return len_b, len_b  # a's digits are the remainder's

    def selector(self, len_a: int, len_b: int) -> tuple[int, int]:
        return 0, len(self.quotients)

    def shape(self, draw: Draw) -> tuple[Operands, Bool]:
        b, remainder = drawn_digits(draw.b), Number(drawn_digits(draw.a).planes)
        quotient = self.quotients[draw.selector]
        factor = Number(np.stack([quotient % 10, quotient // 10]).astype(np.uint8))
        a, _ = columns.add(columns.multiply(b, factor), remainder)
        return Operands(Number(a.planes), b), columns.compare(remainder, b) < 0


class Div(Loop):
    """a // b for b >= 1."""

    name = "div"
    sign = "//"
    example = ("47", "12")
    test = "greater_than"
    begin = "CMD [COUNT]{b}, [OUTPUT] 0, q1"
    law = NonzeroB()

    def turns(self, a: int, b: int) -> int:
        return a // b + 1

    def registers(self, a: int, b: int, k: int, state: str) -> tuple[int, int]:
        return k * b, k - (state != "q3")

    def operands(self, a: int, b: int, k: int, state: str) -> tuple[int, int]:
        return {"q1": (k * b, a), "q2": (k - 1, 1), "q3": (b, k * b)}[state]

    def answer(self, a: int, b: int) -> int:
        return a // b

    def refusal(self, a: int, b: int) -> str | None:
        return "div needs b >= 1: nothing can be divided by 0, the machine would count for ever" if b == 0 else None

    def max_num_steps(self, len_a: int, len_b: int) -> int:
        return 3 * ((10**len_a - 1) // max(1, 10 ** (len_b - 1))) + 2

    def count(self, len_a: int, len_b: int, num: int, span: int) -> int:
        longer = len_a - len_b
        if longer < 0 or longer > 5:
            return 5 if longer < 0 else 0
        return (2 * num, 2 * num, 2 * num, num, num // 2, num // 2)[longer]

    def halting(self, shortest: int, longest: int, num: int) -> Iterator[tuple[int, int, int, Law]]:
        # 2 * num with a quotient of 2 or 3 and as many of 1..15, drawn as disjoint parts of the same sum.
        shared = 2 * num * 2 // 15
        for len_b in range(shortest, longest + 1):
            yield 0, len_b, 2 * num + shared, Quotients(2, 3)
            yield 0, len_b, 2 * num - shared, Quotients(1, *range(4, 16))

    def batch(self, operands: Operands, dialect: Dialect) -> Batch:
        return DivBatch(self, operands, dialect)


class DivBatch(LoopBatch):
    """Columns of divisions."""

    adds_a = False

    def count_turns(self) -> Number:
        a, b = self.operands.a.integers(), self.operands.second.integers()
        return Number.of([x // y + 1 for x, y in zip(a, b, strict=True)])

    def registers(self, group: Turn, state: str) -> tuple[Number, Number]:
        if state == "next":
            return group.next_product, group.turn
        return group.product, group.turn if state == "q3" else group.previous_turn

    def called(self, group: Turn, state: str) -> Operands:
        if state == "next":
            return Operands(group.next_product, group.a)
        if state == "q1":
            return Operands(group.product, group.a)
        return Operands(group.previous_turn, group.one) if state == "q2" else Operands(group.b, group.product)
