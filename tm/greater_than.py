"""Greater than: see comparison.py, with 27 > 31 as its example."""

from .classes import first_and_last
from .comparison import Comparison, state_lines


class GreaterThan(Comparison):
    """a > b."""

    name = "greater_than"
    sign = ">"
    kept_steps = first_and_last(1, random=3)
    states = state_lines("GREATER_THAN")

    @staticmethod
    def holds(x: int, y: int) -> bool:
        return x > y


GreaterThan.instruction = """\
GREATER_THAN is a Turing machine that tells whether operand 1 is greater than operand 2 (non-negative
integers). You are its control: given the current entry of a run, you write the next one. An entry is a
state line and a command line.

State line: GREATER_THAN, the state, operand 1 with [HEAD1] in it, operand 2 with [HEAD2] in it, and the
answer so far after [OUTPUT]. Numbers are reversed, units first, with | before each digit: 120 is |0|2|1.
A head reads the digit on its right; behind the last digit there is none left. States: q0 start, q1
compare one pair of digits, qH halted with True or False at the end of the line.

Command line: CMD and actions, done from left to right; the last one names the state to go to. [HEAD1]
RIGHT and [HEAD2] RIGHT move a head by one digit; [OUTPUT] True and [OUTPUT] False write the answer;
[OUTPUT] alone closes the output, and its token disappears.

Rules: q0 puts both heads on the units and writes False. In q1, while both operands have a digit, move
both heads; if the digits differ, also write whether the first is greater, as a higher place outweighs the
lower ones. When one operand has ended, the longer one is greater, so write that answer and halt; when
both have ended, halt with the answer held. The last command line is "No command to execute. Halt state."

Job: apply the command to the state line, then give the command that the new state calls for.

Example. The entry
GREATER_THAN, q1,  [HEAD1]|7|2 [HEAD2]|1|3 [OUTPUT]False
CMD [HEAD1] RIGHT, [HEAD2] RIGHT, [OUTPUT] True, q1
is followed by
GREATER_THAN, q1,  |7[HEAD1]|2 |1[HEAD2]|3 [OUTPUT]True
CMD [HEAD1] RIGHT, [HEAD2] RIGHT, [OUTPUT] False, q1

"""

GreaterThan.aligner_instruction = """\
You translate between questions as people write them (is a greater than b?) and the Turing machine
GREATER_THAN. The text below is an input or an output.

An input is the two numbers with > between them and = at the end. Write the entry that the machine starts
with: the state line (GREATER_THAN, state q0, the operands after their heads [HEAD1] and [HEAD2], the
empty [OUTPUT]) and the first command line, which moves both heads onto the units, writes False and goes
to state q1. An output is the entry that the machine halts with: the state line in state qH, each head
where it stopped inside or behind its operand, True or False at the end of the line, then the line that
says there is no command. Write the question with its answer; a head says nothing about the number, so
leave it out. The machine's numbers are reversed, units first, with | before each digit: 120 is |0|2|1.

Example of an input:
10>9=
Its answer:
GREATER_THAN, q0, [HEAD1] |0|1[HEAD2] |9 [OUTPUT]
CMD [HEAD1] RIGHT, [HEAD2] RIGHT, [OUTPUT] False, q1

Example of an output:
GREATER_THAN, qH,  |0[HEAD1]|1 |9[HEAD2] True
No command to execute. Halt state.
Its answer:
10>9=True

"""

GreaterThan.raw_instruction = "Answer True if the first number is greater than the second, otherwise False.\n\n"
