"""Addition, digit by digit with a carry: 12 + 9 = 21 takes four steps.

    ADD, q1,  |2[HEAD1]|1 |9[HEAD2] [C]1 |1[OUTPUT]
    CMD: [C] 0, [OUTPUT] 2, [OUTPUT] RIGHT, [HEAD1] RIGHT, q1

q1 reads a digit of each operand (0 past its end) and the carry, writes the unit, sets the carry and moves the heads
that are still inside their operands; with both at the end it writes the carry unless it is 0.
"""

from .basic import BasicMachine, View
from .classes import first_and_last
from .instructions import ACTIONS, NO_COMMAND, aligner, basic

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


Add.shown_step, Add.shown_pair = (12, 9, 1), (12, 9)
Add.instruction = basic(
    "ADD",
    "adds two non-negative integers",
    tapes="operand 1 with [HEAD1] in it, operand 2 with [HEAD2] in it, the carry register [C] with its digit, and the"
    " output, which grows to the left of [OUTPUT]",
    reads=". A head reads the digit on its right; behind the last digit it reads 0.",
    states="q1 add one column of digits",
    result="the sum",
    actions=f"CMD:{ACTIONS} [C] d writes d to the carry; [OUTPUT] d writes d to the output; [OUTPUT] RIGHT, [HEAD1]"
    " RIGHT and [HEAD2] RIGHT move on by one place; [OUTPUT] and [C] alone close that register.",
    rules="q0 clears the carry and puts both heads on the units. In q1 add the carry and the digits under the heads,"
    " write the unit, keep the new carry, move the heads that still have a digit. With both heads at the end, write the"
    f" carry (a 0 leaves no mark), close the registers and halt: {NO_COMMAND}",
)
Add.aligner_instruction = aligner(
    "ADD",
    "sums as people write them and the Turing machine",
    raw="a sum with its = sign",
    registers="the empty carry register [C], the empty [OUTPUT]",
    first="clears the carry, moves both heads onto the units and goes to state q1",
    halted="heads at the end of the operands, last carry after [C], the sum",
    write="the sum out in full",
)
Add.raw_instruction = "Answer with the sum of the two numbers, in digits.\n\n"
