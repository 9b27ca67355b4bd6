"""Division by repeated addition: 9 // 4 counts how often 4 goes into 9 before the sum is greater.

DIV, q1, [HEAD1]|9 [HEAD2]|4 [COUNT]|8 [OUTPUT]|1
CMD [CALL] GREATER_THAN, q2
"""

from collections.abc import Iterator, Mapping

from .columns import Number, Operands
from .composer import Call, Composer
from .sums import Value


class Div(Composer):
    """a // b for b >= 1."""

    name = "div"
    sign = "//"
    example = ("47", "12")
    law = "nonzero_b"
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


Div.instruction = """\
DIV is a machine that divides operand 1 by operand 2, which is at least 1, and drops the remainder. It
adds up operand 2 until the sum exceeds operand 1, calling the machines GREATER_THAN and ADD. You are its
control: given what stands now, you write what comes next.

Algorithm: start with count = operand 2 and output 0. While the count is not greater than operand 1, add 1
to the output and operand 2 to the count. With 9 // 4: count 4, output 0; 4 > 9 is False, so output 1,
count 8; 8 > 9 is False, so output 2, count 12; 12 > 9, so halt: 9 // 4 = 2.

State line: DIV, the state, operand 1 after [HEAD1], operand 2 after [HEAD2], the sum of operand 2 so far
after [COUNT], the quotient so far after [OUTPUT]; at the halt the token [OUTPUT] is gone. Numbers are
reversed, units first, with | before each digit: 120 is |0|2|1. States: q0 start, both registers empty; q1
compare; q2 add 1 to the output; q3 add operand 2 to the count; qH halted. Command line: at q0 it writes
both registers and goes to q1; elsewhere CMD [CALL], the machine to call and the state to go to when that
machine has halted.

The prompt has two lines at q0 (state line, command line) and four lines otherwise: after DIV's state line
and its call come the called machine's last state line, with its result at the end, and "No command to
execute. Halt state." The answer is DIV's new state line and command; if the command is a call, two
further lines give the initial state of the called machine and its first command. q1 calls GREATER_THAN on
the count and operand 1, next state q2; its False leads to q2, its True to qH, where the answer is the qH
line with the quotient and "No command to execute. Halt state." q2 calls ADD on the output and 1, next
state q3; the sum is the new output. q3 calls ADD on operand 2 and the count, next state q1; the sum is
the new count.

Job: read the result of the called machine, put it where it belongs, go to the next state, give its
command.

Example. The entry
DIV, q3, [HEAD1]|9 [HEAD2]|4 [COUNT]|8 [OUTPUT]|2
CMD [CALL] ADD, q1
ADD, qH,  |4[HEAD1] |8[HEAD2] [C]1 |2|1
No command to execute. Halt state.
is followed by
DIV, q1, [HEAD1]|9 [HEAD2]|4 [COUNT]|2|1 [OUTPUT]|2
CMD [CALL] GREATER_THAN, q2
GREATER_THAN, q0, [HEAD1] |2|1[HEAD2] |9 [OUTPUT]
CMD [HEAD1] RIGHT, [HEAD2] RIGHT, [OUTPUT] False, q1

"""

Div.aligner_instruction = """\
You translate between divisions as people write them and the machine DIV. The text below is an input or an
output.

An input is a whole-number division, written with // and with = at the end; the second number is at least
1. Write the entry that the machine starts with: the state line (DIV, state q0, the operands after their
heads [HEAD1] and [HEAD2], the empty counter [COUNT], the empty [OUTPUT]) and the first command line,
which sets the counter to operand 2 and the output to 0 and goes to state q1. An output is the entry that
the machine halts with: the state line in state qH, the operands after their heads, the counter after
[COUNT], the quotient at the end of the line, then the line that says there is no command. Write the
division with its quotient; the counter is left out. The machine's numbers are reversed, units first, with
| before each digit: 120 is |0|2|1. Only the 0 that the command writes to the output has no |.

Example of an input:
9//4=
Its answer:
DIV, q0, [HEAD1]|9 [HEAD2]|4 [COUNT] [OUTPUT]
CMD [COUNT]|4, [OUTPUT] 0, q1

Example of an output:
DIV, qH, [HEAD1]|9 [HEAD2]|4 [COUNT]|2|1 |2
No command to execute. Halt state.
Its answer:
9//4=2

"""

Div.raw_instruction = "Answer with the whole part of the first number divided by the second, in digits.\n\n"
