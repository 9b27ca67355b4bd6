"""Multiplication by repeated addition: 45 * 3 counts to 3 and adds 45 each time.

    MUL, q2, [HEAD1]|5|4 [HEAD2]|3 [COUNT]|1 [OUTPUT]|5|4
    CMD [CALL] ADD, q3
"""

from collections.abc import Iterator

import numpy as np

from .basic import Content, cells
from .batch import Batch, Operands
from .classes import Draw, Law, NonzeroB, drawn_digits
from .columns import I64, Bool, Number
from .composer import HALT
from .loop import Loop, LoopBatch, Turn
from .machine import Dialect
from .render import left, right


class SmallB(Law):
    """a is free, b one of a few small numbers: the run halts soon."""

    def __init__(self, lowest: int, count: int) -> None:
        self.lowest, self.count = lowest, count

    def lengths(self, len_a: int, len_b: int) -> tuple[int, int]:
        return len_a, 0

    def selector(self, len_a: int, len_b: int) -> tuple[int, int]:
        return self.lowest, self.count

    def shape(self, draw: Draw) -> tuple[Operands, Bool]:
        a = drawn_digits(draw.a)
        b = Number(np.stack([draw.selector % 10, draw.selector // 10]).astype(np.uint8))
        return Operands(a, b), np.ones(len(a), np.bool_)


class Mul(Loop):
    """a * b for b >= 1."""

    name = "mul"
    sign = "*"
    commutative = True
    test = "less_than"
    begin = "CMD [COUNT] 1, [OUTPUT]{a}, q1"
    law = NonzeroB()

    def turns(self, a: int, b: int) -> int:
        return b

    def registers(self, a: int, b: int, k: int, state: str) -> tuple[int, int]:
        return k, (k + (state == "q3")) * a

    def operands(self, a: int, b: int, k: int, state: str) -> tuple[int, int]:
        return {"q1": (k, b), "q2": (a, k * a), "q3": (k, 1)}[state]

    def published(self, a: int, b: int, k: int, quoted: str) -> str:
        reading, tape = str(k), str(b)[::-1]
        at = min(len(reading), len(tape))
        heads = f"{cells(reading[:at])}[HEAD1]{cells(reading[at:])} {cells(tape[:at])}[HEAD2]{cells(tape[at:])}"
        return f"LESS_THAN, qH,  {heads} {k < b}\n{HALT}"

    def answer(self, a: int, b: int) -> int:
        return a * b

    def refusal(self, a: int, b: int) -> str | None:
        return "mul needs b >= 1: the machine adds a to itself b - 1 times" if b == 0 else None

    def max_num_steps(self, len_a: int, len_b: int) -> int:
        return 3 * (10**len_b - 1) - 1

    def count(self, len_a: int, len_b: int, num: int, span: int) -> int:
        return 2 * num if len_a <= 10 or len_b <= 10 else num

    def halting(self, shortest: int, longest: int, num: int) -> Iterator[tuple[int, int, int, Law]]:
        one_digit = 2 * num * 9 // 15
        for len_a in range(shortest, longest + 1):
            yield len_a, 1, one_digit, SmallB(1, 9)
            yield len_a, 2, 2 * num - one_digit, SmallB(10, 6)

    def batch(self, operands: Operands, dialect: Dialect) -> Batch:
        return MulBatch(self, operands, dialect)


class MulBatch(LoopBatch):
    """Columns of multiplications."""

    adds_a = True

    def count_turns(self) -> Number:
        return self.operands.second

    def registers(self, group: Turn, state: str) -> tuple[Number, Number]:
        if state == "next":
            return group.next_turn, group.next_product
        return group.turn, group.next_product if state == "q3" else group.product

    def called(self, group: Turn, state: str) -> Operands:
        if state == "next":
            return Operands(group.next_turn, group.b)
        if state == "q1":
            return Operands(group.turn, group.b)
        return Operands(group.a, group.product) if state == "q2" else Operands(group.turn, group.one)

    def _quoted(self, group: Turn, state: str, here: I64) -> Content:
        template, parts = super()._quoted(group, state, here)
        if self.dialect == "published" and state == "q1":
            turn = group.turn
            place = np.arange(turn.width)[:, None]
            mirrored = np.where(place < turn.length, turn.length - 1 - place, place)
            reading = Number(np.take_along_axis(turn.planes, mirrored, axis=0), turn.length)
            at = np.minimum(turn.length, group.b.length)[here]
            parts = {**parts, "a_left": left(reading, here, at), "a_right": right(reading, here, at)}
        return template, parts


