"""Equality, read from the units up: 12 == 13 stops at the first digits that differ.

EQUAL, q1,  [HEAD1]|2|1 [HEAD2]|3|1 [OUTPUT]True
CMD [OUTPUT] False, [OUTPUT], qH
"""

from .basic import BasicMachine, View
from .classes import Variant, first_and_last
from .comparison import comparing, comparing_both_ways, state_lines

VARIANTS = Variant("equal", 1, "equal"), Variant("different", 1, "different")


class Equal(BasicMachine):
    """a == b."""

    name = "equal"
    sign = "=="
    commutative = True
    kept_steps = first_and_last(3, random=5)
    states = state_lines("EQUAL")

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


Equal.shown_step, Equal.shown_pair = (312, 12, 2), (312, 12)
Equal.instruction = comparing(
    "EQUAL",
    "two non-negative integers are equal",
    rules="q0 puts both heads on the units and writes True. In q1, as long as both heads read the same digit, move"
    " both. If the digits differ, or only one operand has ended, write False and halt, leaving the heads where they"
    " are. If both have ended, halt with True.",
)
Equal.aligner_instruction = comparing_both_ways("EQUAL", "equal to", "==", "True")
Equal.raw_instruction = "Answer True if the two numbers are equal, otherwise False.\n\n"
