"""Division by repeated addition: 9 // 4 counts how often 4 goes into 9 before the sum is greater.

DIV, q1, [HEAD1]|9 [HEAD2]|4 [COUNT]|8 [OUTPUT]|1
CMD [CALL] GREATER_THAN, q2
"""

from collections.abc import Iterator, Mapping

from .columns import Number, Operands
from .composer import Call, Composer
from .instructions import LOOP_COMMAND, LOOP_JOB, NO_COMMAND, aligner, composer
from .sums import Value


class Div(Composer):
    """a // b for b >= 1."""

    name = "div"
    sign = "//"
    example = ("47", "12")
    law = "nonzero_b"
    max_short_run = 3 * 16 - 1  # the quotient is 15
    line = "{title}, {state}, [HEAD1]{a} [HEAD2]{b} [COUNT]{count} [OUTPUT]{out}"
    halted_line = "{title}, qH, [HEAD1]{a} [HEAD2]{b} [COUNT]{count} {out}"
    begin = "CMD [COUNT]{b}, [OUTPUT] 0, q1"
    calls = (
        Call("q1", "greater_than", ("count", "a"), "", "q2"),
        Call("q2", "add", ("out", "1"), "out", "q3"),
        Call("q3", "add", ("b", "count"), "count", "q1"),
    )
    goes_on = "False"

    def turns(self, a: int, b: int) -> int:
        return a // b + 1

    def registers(self, a: Value, b: Value, k: Value, state: str) -> Mapping[str, Value]:
        return {"count": k * b, "out": k if state == "q3" else k - 1}

    def count_turns(self, operands: Operands) -> Number:
        pairs = zip(operands.a.integers(), operands.second.integers(), strict=True)
        return Number.of([self.turns(a, b) for a, b in pairs])

    def answer(self, a: int, b: int) -> int:
        return a // b

    def domain_error(self, a: int, b: int) -> str | None:
        return "div needs b >= 1: nothing can be divided by 0, the machine would count for ever" if b == 0 else None

    def max_num_steps(self, len_a: int, len_b: int) -> int:
        return 3 * ((10**len_a - 1) // max(1, 10 ** (len_b - 1))) + 2

    def count(self, len_a: int, len_b: int, num: int, span: int) -> int:
        longer = len_a - len_b
        if longer < 0 or longer > 5:
            return 5 if longer < 0 else 0
        return (2 * num, 2 * num, 2 * num, num, num // 2, num // 2)[longer]

    def short_runs(self, shortest: int, longest: int, num: int) -> Iterator[tuple[int, int, int, str]]:
        # 2 * num with a quotient of 2 or 3 and as many of 1..15, drawn as disjoint parts of the same sum.
        shared = 2 * num * 2 // 15
        for len_b in range(shortest, longest + 1):
            yield 0, len_b, 2 * num + shared, "quotient_2_or_3"
            yield 0, len_b, 2 * num - shared, "quotient_others"


Div.shown_step, Div.shown_pair = (9, 4, 6), (9, 4)
Div.instruction = composer(
    "DIV",
    "divides operand 1 by operand 2, which is at least 1, and drops the remainder. It adds up operand 2 until the sum"
    " exceeds operand 1, calling the machines GREATER_THAN and ADD",
    algorithm=": start with count = operand 2 and output 0. While the count is not greater than operand 1, add 1 to the"
    " output and operand 2 to the count. With 9 // 4: count 4, output 0; 4 > 9 is False, so output 1, count 8; 8 > 9 is"
    " False, so output 2, count 12; 12 > 9, so halt: 9 // 4 = 2.",
    registers=", the sum of operand 2 so far after [COUNT], the quotient so far after [OUTPUT]; at the halt the token"
    " [OUTPUT] is gone",
    states=": q0 start, both registers empty; q1 compare; q2 add 1 to the output; q3 add operand 2 to the count",
    command=LOOP_COMMAND,
    calls="q1 calls GREATER_THAN on the count and operand 1, next state q2; its False leads to q2, its True to qH,"
    f" where the answer is the qH line with the quotient and {NO_COMMAND} q2 calls ADD on the output and 1, next state"
    " q3; the sum is the new output. q3 calls ADD on operand 2 and the count, next state q1; the sum is the new count.",
    job=LOOP_JOB,
)
Div.aligner_instruction = aligner(
    "DIV",
    "divisions as people write them and the machine",
    raw="a whole-number division, written with // and with = at the end; the second number is at least 1",
    registers="the empty counter [COUNT], the empty [OUTPUT]",
    first="sets the counter to operand 2 and the output to 0 and goes to state q1",
    halted="the operands after their heads, the counter after [COUNT], the quotient",
    write="the division with its quotient; the counter is left out",
    more=" Only the 0 that the command writes to the output has no |.",
)
Div.raw_instruction = "Answer with the whole part of the first number divided by the second, in digits.\n\n"
