"""Addition, digit by digit with a carry: 12 + 9 = 21 takes four steps.

    ADD, q1,  |2[HEAD1]|1 |9[HEAD2] [C]1 |1[OUTPUT]
    CMD: [C] 0, [OUTPUT] 2, [OUTPUT] RIGHT, [HEAD1] RIGHT, q1

q1 reads a digit of each operand (0 past its end) and the carry, writes the unit, sets the carry and moves the heads
that are still inside their operands; with both at the end it writes the carry unless it is 0.
"""

from .basic import BasicMachine, View
from .classes import first_and_last

TAPES = "{a_left}[HEAD1]{a_right} {b_left}[HEAD2]{b_right} [C]{carry} {out}"


class Add(BasicMachine):
    """a + b."""

    name = "add"
    sign = "+"
    commutative = True
    stress = "addition"
    kept_steps = first_and_last(2, random=4)
    states = {
        "q0": "ADD, q0, [HEAD1] {a}[HEAD2] {b} [C] [OUTPUT]",
        "q1": f"ADD, q1,  {TAPES}[OUTPUT]",
        "qH": f"ADD, qH,  {TAPES}",
    }

    def decide(self, view: View) -> str:
        if view.state == "q0":
            return "CMD: [C] 0, [HEAD1] RIGHT, [HEAD2] RIGHT, q1"
        x, y = view.symbols
        if not x and not y:
            return f"CMD: [OUTPUT] {view.carry}, [OUTPUT], [C], qH"
        over, digit = divmod(int(x or 0) + int(y or 0) + int(view.carry), 10)
        moves = ("[HEAD1] RIGHT, " if x else "") + ("[HEAD2] RIGHT, " if y else "")
        return f"CMD: [C] {over}, [OUTPUT] {digit}, [OUTPUT] RIGHT, {moves}q1"

    def max_num_steps(self, len_a: int, len_b: int) -> int:
        return max(len_a, len_b) + 2

    def count(self, len_a: int, len_b: int, num: int, span: int) -> int:
        if len_a <= 10 and len_b <= 10:
            return 10 * num
        return num // 2 if lopsided(len_a, len_b) else num


def lopsided(len_a: int, len_b: int) -> bool:
    """Tell whether both lengths are over 10 and one is more than 1.5 times the other."""
    return min(len_a, len_b) > 10 and 2 * max(len_a, len_b) > 3 * min(len_a, len_b)


Add.instruction = """\
ADD is a Turing machine that adds two non-negative integers. You are its control: given the current entry
of a run, you write the next one. An entry is a state line and a command line.

State line: ADD, the state, operand 1 with [HEAD1] in it, operand 2 with [HEAD2] in it, the carry register
[C] with its digit, and the output, which grows to the left of [OUTPUT]. Numbers are reversed, units
first, with | before each digit: 120 is |0|2|1. A head reads the digit on its right; behind the last digit
it reads 0. States: q0 start, q1 add one column of digits, qH halted with the sum at the end of the line.

Command line: CMD: and actions, done from left to right; the last one names the state to go to. [C] d
writes d to the carry; [OUTPUT] d writes d to the output; [OUTPUT] RIGHT, [HEAD1] RIGHT and [HEAD2] RIGHT
move on by one place; [OUTPUT] and [C] alone close that register.

Rules: q0 clears the carry and puts both heads on the units. In q1 add the carry and the digits under the
heads, write the unit, keep the new carry, move the heads that still have a digit. With both heads at the
end, write the carry (a 0 leaves no mark), close the registers and halt: "No command to execute. Halt
state."

Job: apply the command to the state line, then give the command that the new state calls for.

Example. The entry
ADD, q1,  [HEAD1]|2|1 [HEAD2]|9 [C]0 [OUTPUT]
CMD: [C] 1, [OUTPUT] 1, [OUTPUT] RIGHT, [HEAD1] RIGHT, [HEAD2] RIGHT, q1
is followed by
ADD, q1,  |2[HEAD1]|1 |9[HEAD2] [C]1 |1[OUTPUT]
CMD: [C] 0, [OUTPUT] 2, [OUTPUT] RIGHT, [HEAD1] RIGHT, q1

"""

Add.aligner_instruction = """\
You translate between sums as people write them and the Turing machine ADD. The text below is an input or
an output.

An input is a sum with its = sign. Write the entry that the machine starts with: the state line (ADD,
state q0, the operands after their heads [HEAD1] and [HEAD2], the empty carry register [C], the empty
[OUTPUT]) and the first command line, which clears the carry, moves both heads onto the units and goes to
state q1. An output is the entry that the machine halts with: the state line in state qH, heads at the end
of the operands, last carry after [C], the sum at the end of the line, then the line that says there is no
command. Write the sum out in full. The machine's numbers are reversed, units first, with | before each
digit: 120 is |0|2|1.

Example of an input:
12+9=
Its answer:
ADD, q0, [HEAD1] |2|1[HEAD2] |9 [C] [OUTPUT]
CMD: [C] 0, [HEAD1] RIGHT, [HEAD2] RIGHT, q1

Example of an output:
ADD, qH,  |2|1[HEAD1] |9[HEAD2] [C]0 |1|2
No command to execute. Halt state.
Its answer:
12+9=21

"""

Add.raw_instruction = "Answer with the sum of the two numbers, in digits.\n\n"
