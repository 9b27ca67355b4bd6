"""Subtraction without borrowing: 12 - 7 through the nines' complement, in five steps with four calls.

reflection(99, 7) = 92      add(12, 92) = 104      add(104, 1) = 105      left_mask(105) = 5
"""

from collections.abc import Iterator, Mapping

import numpy as np

from .add import lopsided
from .columns import I64, Number, widen
from .composer import Call, Composer
from .instructions import NO_COMMAND, aligner, composer
from .interpreter import tape_text, units_first
from .render import Choice, Field, low
from .sums import Group, Value, nines


class Sub(Composer):
    """a - b for a >= b."""

    name = "sub"
    sign = "-"
    law = "at_least_b"
    stress = "subtraction"
    line = "{title}, {state}, [HEAD1]{a} [HEAD2]{b} "
    halted_line = "{title}, qH, [HEAD1]{a} [HEAD2]{b} {out}"
    begin = "CMD q1"
    calls = (
        Call("q1", "reflection", ("nines", "b"), "rest", "q2"),
        Call("q2", "add", ("a", "rest"), "sum", "q3"),
        Call("q3", "add", ("sum", "1"), "sum", "q4"),
        Call("q4", "left_mask", ("sum",), "out", "qH"),
    )
    leaves = 3

    def registers(self, a: Value, b: Value, k: Value, state: str) -> Mapping[str, Value]:
        rest = nines(a) - b
        total = a + rest if state == "q3" else a + rest + 1
        return {"nines": nines(a), "rest": rest, "sum": total, "out": a - b}

    def published(self, quoted: str, a: int, b: int, k: int, state: str) -> str:
        if state != "q4":
            return quoted.replace("[C]1", "[C]0")
        line, _, halt = quoted.partition("\n")
        return f"{line[: line.rindex(' ')]} {tape_text(units_first(a - b).ljust(len(str(a)), '0'))}\n{halt}"

    def published_parts(self, group: Group, here: I64, state: str) -> Mapping[str, Field]:
        nothing = np.zeros(1, np.int64)
        if state != "q4":
            return {"carry": Choice(("0",), nothing)}
        a, difference = group.a.number, (group.a - group.b).number
        padded = Number(widen(difference.planes, a.width), difference.length)
        return {"mark": Choice(("",), nothing), "out": low(padded, here, a.length[here])}

    def answer(self, a: int, b: int) -> int:
        return a - b

    def domain_error(self, a: int, b: int) -> str | None:
        return "sub needs a >= b: the machine has no negative numbers" if a < b else None

    def max_num_steps(self, len_a: int, len_b: int) -> int:
        return 5

    def classes(self, shortest: int, longest: int) -> Iterator[tuple[int, int]]:
        return ((i, j) for i, j in super().classes(shortest, longest) if j <= i)

    def count(self, len_a: int, len_b: int, num: int, span: int) -> int:
        if len_a <= 10 and len_b < 10:
            return 5 * num
        return num // 2 if lopsided(len_a, len_b) else num


Sub.shown_step, Sub.shown_pair = (12, 7, 1), (105, 99)
Sub.instruction = composer(
    "SUB",
    "subtracts operand 2 from operand 1, which is not the smaller one, by calling other machines: REFLECTION (nines"
    " minus a number), ADD and LEFT_MASK (drop the highest digit)",
    algorithm=", for an operand 1 of n digits: subtract operand 2 from n nines, add operand 1, add 1, drop the highest"
    " digit. With 12 - 7: 99 - 7 = 92 (REFLECTION); 12 + 92 = 104 (ADD); 104 + 1 = 105 (ADD); 105 without its highest"
    " digit is 5 (LEFT_MASK). So 12 - 7 = 5.",
    registers=". At the halt the result follows; before that the line ends with a blank",
    states=", named by what comes next: q0 start; q1 REFLECTION; q2 the ADD of operand 1; q3 the ADD of 1; q4"
    " LEFT_MASK",
    command="CMD and the state to go to, or",
    calls="Calls: REFLECTION on n nines and operand 2; ADD on operand 1 and that result; ADD on that sum and 1;"
    f" LEFT_MASK on that sum. After LEFT_MASK the answer is the qH line with the result, and {NO_COMMAND}",
    job="go to the state that the call names",
)
Sub.aligner_instruction = aligner(
    "SUB",
    "differences as people write them and the machine",
    raw="a difference with its = sign; the first number is not the smaller one",
    registers="a blank at the end",
    first="goes to state q1",
    halted="the operands after their heads, the difference",
    write="the difference out in full",
)
Sub.raw_instruction = "Answer with the first number minus the second, in digits.\n\n"
