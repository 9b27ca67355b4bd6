"""Left mask: removes the first digit, 1050 -> 50, by copying all digits and taking back the last one and zeros above.

    LEFT_MASK, q2,  |0|5|0|1[HEAD] |0|5|0[OUTPUT]
    CMD [OUTPUT] LEFT, q2

A helper of ``sub`` with one operand. When nothing is left the result is a bare 0.
"""

from .basic import BasicMachine, View
from .classes import Variant, first_and_last
from .instructions import ACTIONS, LAST_COMMAND, basic

VARIANTS = Variant("zeros", 1, "inner_zeros"), Variant("plain", 1, "second_digit")


class LeftMask(BasicMachine):
    """a without its first digit."""

    name = "left_mask"
    unary = True
    kept_steps = first_and_last(1, random=3)
    example = ("1050", "0")
    states = {
        "q0": "LEFT_MASK, q0, [HEAD] {a} [OUTPUT]",
        "q1": "LEFT_MASK, q1,  {a_left}[HEAD]{a_right} {out}[OUTPUT]",
        "q2": "LEFT_MASK, q2,  {a}[HEAD] {out}[OUTPUT]",
        "qH": "LEFT_MASK, qH,  {a}[HEAD] {out}",
    }
    empty = {"qH": "0"}

    def decide(self, view: View) -> str:
        if view.state == "q0":
            return "CMD [HEAD] RIGHT, q1"
        if view.state == "q2":
            return "CMD [OUTPUT] LEFT, q2" if view.last == "0" else "CMD qH"
        if not view.symbol:
            return "CMD [OUTPUT] LEFT, [OUTPUT] 0, q2"
        return f"CMD [HEAD] RIGHT, [OUTPUT] {view.symbol}, [OUTPUT] RIGHT, q1"

    def max_num_steps(self, len_a: int, len_b: int) -> int:
        return 2 * len_a + 2

    def count(self, len_a: int, len_b: int, num: int, span: int) -> int:
        return max(1, num // 2 * 2)

    def variants(self, len_a: int, len_b: int) -> tuple[Variant, ...]:
        return VARIANTS if len_a > 1 else VARIANTS[1:]


LeftMask.shown_step = (1050, 0, 5)
LeftMask.instruction = basic(
    "LEFT_MASK",
    "removes the highest (leftmost) digit of a non-negative integer, and the zeros that then lead: 1050 becomes 50",
    tapes="the operand with [HEAD] in it, and the output, which stands to the left of [OUTPUT]",
    reads=", so the highest digit is the last one. The head reads the digit on its right.",
    states="q1 copy one digit, q2 drop leading zeros of the result",
    result="the result",
    actions=f"CMD{ACTIONS} [HEAD] RIGHT moves the head by one digit; [OUTPUT] d writes d; [OUTPUT] RIGHT moves on to"
    " the next free place; [OUTPUT] LEFT goes back by one place and drops the digit there.",
    rules="q0 puts the head on the units. In q1 copy the digit under the head and move on; when the head is at the end,"
    " go back over the highest digit, blank it with 0, which leaves no mark in the text, and go to q2. In q2 step left"
    " while the last digit written is 0; otherwise, or when nothing is left, halt. An empty result is shown as 0,"
    f" without |. {LAST_COMMAND}",
)
