"""Equality, read from the units up: 12 == 13 stops at the first digits that differ.

EQUAL, q1,  [HEAD1]|2|1 [HEAD2]|3|1 [OUTPUT]True
CMD [OUTPUT] False, [OUTPUT], qH
"""

from .basic import BasicMachine, View
from .classes import Variant, first_and_last

TAPES = "{a_left}[HEAD1]{a_right} {b_left}[HEAD2]{b_right}"
VARIANTS = Variant("equal", 1, "equal"), Variant("different", 1, "different")


class Equal(BasicMachine):
    """a == b."""

    name = "equal"
    sign = "=="
    commutative = True
    kept_steps = first_and_last(3, random=5)
    states = {
        "q0": "EQUAL, q0, [HEAD1] {a}[HEAD2] {b} [OUTPUT]",
        "q1": f"EQUAL, q1,  {TAPES} [OUTPUT]{{flag}}",
        "qH": f"EQUAL, qH,  {TAPES} {{flag}}",
    }

    def decide(self, view: View) -> str:
        if view.state == "q0":
            return "CMD [HEAD1] RIGHT, [HEAD2] RIGHT, [OUTPUT] True, q1"
        x, y = view.symbols
        if x and x == y:
            return "CMD [HEAD1] RIGHT, [HEAD2] RIGHT, q1"
        return f"CMD {'[OUTPUT] False, ' if x or y else ''}[OUTPUT], qH"

    def max_num_steps(self, len_a: int, len_b: int) -> int:
        return min(len_a, len_b) + 2

    def count(self, len_a: int, len_b: int, num: int, span: int) -> int:
        if len_a == len_b:
            return 100 * num if len_a <= 10 else 10 * num
        return -(-10 * num // span)

    def variants(self, len_a: int, len_b: int) -> tuple[Variant, ...]:
        return VARIANTS if len_a == len_b else VARIANTS[1:]


Equal.instruction = """\
EQUAL is a Turing machine that tells whether two non-negative integers are equal. You are its control:
given the current entry of a run, you write the next one. An entry is a state line and a command line.

State line: EQUAL, the state, operand 1 with [HEAD1] in it, operand 2 with [HEAD2] in it, and the answer
so far after [OUTPUT]. Numbers are reversed, units first, with | before each digit: 120 is |0|2|1. A head
reads the digit on its right; behind the last digit there is none left. States: q0 start, q1 compare one
pair of digits, qH halted with True or False at the end of the line.

Command line: CMD and actions, done from left to right; the last one names the state to go to. [HEAD1]
RIGHT and [HEAD2] RIGHT move a head by one digit; [OUTPUT] True and [OUTPUT] False write the answer;
[OUTPUT] alone closes the output, and its token disappears.

Rules: q0 puts both heads on the units and writes True. In q1, as long as both heads read the same digit,
move both. If the digits differ, or only one operand has ended, write False and halt, leaving the heads
where they are. If both have ended, halt with True. The last command line is "No command to execute. Halt
state."

Job: apply the command to the state line, then give the command that the new state calls for.

Example. The entry
EQUAL, q1,  |2[HEAD1]|1|3 |2[HEAD2]|1 [OUTPUT]True
CMD [HEAD1] RIGHT, [HEAD2] RIGHT, q1
is followed by
EQUAL, q1,  |2|1[HEAD1]|3 |2|1[HEAD2] [OUTPUT]True
CMD [OUTPUT] False, [OUTPUT], qH

"""

Equal.aligner_instruction = """\
You translate between questions as people write them (is a equal to b?) and the Turing machine EQUAL. The
text below is an input or an output.

An input is the two numbers with == between them and = at the end. Write the entry that the machine starts
with: the state line (EQUAL, state q0, the operands after their heads [HEAD1] and [HEAD2], the empty
[OUTPUT]) and the first command line, which moves both heads onto the units, writes True and goes to state
q1. An output is the entry that the machine halts with: the state line in state qH, each head where it
stopped inside or behind its operand, True or False at the end of the line, then the line that says there
is no command. Write the question with its answer; a head says nothing about the number, so leave it out.
The machine's numbers are reversed, units first, with | before each digit: 120 is |0|2|1.

Example of an input:
312==12=
Its answer:
EQUAL, q0, [HEAD1] |2|1|3[HEAD2] |2|1 [OUTPUT]
CMD [HEAD1] RIGHT, [HEAD2] RIGHT, [OUTPUT] True, q1

Example of an output:
EQUAL, qH,  |2|1[HEAD1]|3 |2|1[HEAD2] False
No command to execute. Halt state.
Its answer:
312==12=False

"""

Equal.raw_instruction = "Answer True if the two numbers are equal, otherwise False.\n\n"
