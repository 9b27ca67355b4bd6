"""Multiplication by repeated addition: 45 * 3 counts to 3 and adds 45 each time.

MUL, q2, [HEAD1]|5|4 [HEAD2]|3 [COUNT]|1 [OUTPUT]|5|4
CMD [CALL] ADD, q3
"""

from collections.abc import Iterator, Mapping

import numpy as np

from .columns import I64, Number, Operands
from .composer import Call, Composer
from .instructions import LOOP_COMMAND, LOOP_JOB, NO_COMMAND, aligner, composer
from .interpreter import tape_text
from .render import Field, halves
from .sums import Group, Value


class Mul(Composer):
    """a * b for b >= 1."""

    name = "mul"
    sign = "*"
    commutative = True
    law = "nonzero_b"
    max_short_run = 3 * 15 - 1  # b is 15
    line = "{title}, {state}, [HEAD1]{a} [HEAD2]{b} [COUNT]{count} [OUTPUT]{out}"
    halted_line = "{title}, qH, [HEAD1]{a} [HEAD2]{b} [COUNT]{count} {out}"
    begin = "CMD [COUNT] 1, [OUTPUT]{a}, q1"
    calls = (
        Call("q1", "less_than", ("count", "b"), "", "q2"),
        Call("q2", "add", ("a", "out"), "out", "q3"),
        Call("q3", "add", ("count", "1"), "count", "q1"),
    )
    goes_on = "True"

    def turns(self, a: int, b: int) -> int:
        return b

    def registers(self, a: Value, b: Value, k: Value, state: str) -> Mapping[str, Value]:
        return {"count": k, "out": (k + 1) * a if state == "q3" else k * a}

    def count_turns(self, operands: Operands) -> Number:
        return operands.second

    def published(self, quoted: str, a: int, b: int, k: int, state: str) -> str:
        if state != "q1":
            return quoted
        tapes, halt = (str(k), str(b)[::-1]), quoted.partition("\n")[2]  # the counter is not reversed
        at = min(map(len, tapes))
        first, second = (f"{tape_text(tape[:at])}[HEAD{{}}]{tape_text(tape[at:])}" for tape in tapes)
        return f"LESS_THAN, qH,  {first.format(1)} {second.format(2)} {k < b}\n{halt}"

    def published_parts(self, group: Group, here: I64, state: str) -> Mapping[str, Field]:
        if state != "q1":
            return {}
        turn = group.turn
        place = np.arange(turn.width)[:, None]
        mirrored = np.where(place < turn.length, turn.length - 1 - place, place)
        reading = Number(np.take_along_axis(turn.planes, mirrored, axis=0), turn.length)
        at = np.minimum(turn.length, group.b.number.length)[here]
        return dict(zip(("a_left", "a_right"), halves(reading, here, at), strict=True))

    def answer(self, a: int, b: int) -> int:
        return a * b

    def domain_error(self, a: int, b: int) -> str | None:
        return "mul needs b >= 1: the machine adds a to itself b - 1 times" if b == 0 else None

    def max_num_steps(self, len_a: int, len_b: int) -> int:
        return 3 * (10**len_b - 1) - 1

    def count(self, len_a: int, len_b: int, num: int, span: int) -> int:
        return 2 * num if len_a <= 10 or len_b <= 10 else num

    def short_runs(self, shortest: int, longest: int, num: int) -> Iterator[tuple[int, int, int, str]]:
        one_digit = 2 * num * 9 // 15
        for len_a in range(shortest, longest + 1):
            yield len_a, 1, one_digit, "b_1_to_9"
            yield len_a, 2, 2 * num - one_digit, "b_10_to_15"


Mul.shown_step, Mul.shown_pair = (45, 3, 2), (45, 3)
Mul.instruction = composer(
    "MUL",
    "multiplies operand 1 by operand 2, which is at least 1, by repeated addition. It calls the machines LESS_THAN (is"
    " the count below operand 2?) and ADD",
    algorithm=": start with count 1 and output = operand 1. While the count is less than operand 2, add operand 1 to"
    " the output and 1 to the count. With 45 * 3: count 1, output 45; 1 < 3, so output 45 + 45 = 90, count 2; 2 < 3, so"
    " output 45 + 90 = 135, count 3; 3 < 3 is False, so halt: 45 * 3 = 135.",
    registers=", the counter after [COUNT], the product so far after [OUTPUT]; at the halt the token [OUTPUT] is gone",
    states=": q0 start, both registers empty; q1 compare; q2 add operand 1 to the output; q3 add 1 to the count",
    command=LOOP_COMMAND,
    calls="q1 calls LESS_THAN on the count and operand 2, next state q2; its True leads to q2, its False to qH, where"
    f" the answer is the qH line with the product and {NO_COMMAND} q2 calls ADD on operand 1 and the output, next state"
    " q3; the sum is the new output. q3 calls ADD on the count and 1, next state q1; the sum is the new count.",
    job=LOOP_JOB,
)
Mul.aligner_instruction = aligner(
    "MUL",
    "products as people write them and the machine",
    raw="a product with its = sign; the second number is at least 1",
    registers="the empty counter [COUNT], the empty [OUTPUT]",
    first="sets the counter to 1 and the output to operand 1 and goes to state q1",
    halted="the operands after their heads, the counter after [COUNT], the product",
    write="the product out in full; the counter is left out",
    more=" Only the 1 that the command writes to the counter has no |.",
)
Mul.raw_instruction = "Answer with the product of the two numbers, in digits.\n\n"
