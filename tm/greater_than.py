"""Greater than: see comparison.py, with 27 > 31 as its example."""

from .classes import first_and_last
from .comparison import Comparison, comparing_both_ways, relation, state_lines


class GreaterThan(Comparison):
    """a > b."""

    name = "greater_than"
    sign = ">"
    kept_steps = first_and_last(1, random=3)
    states = state_lines("GREATER_THAN")

    @staticmethod
    def holds(x: int, y: int) -> bool:
        return x > y


GreaterThan.shown_step, GreaterThan.shown_pair = (27, 31, 1), (10, 9)
GreaterThan.instruction = relation("GREATER_THAN", "greater", "longer")
GreaterThan.aligner_instruction = comparing_both_ways("GREATER_THAN", "greater than", ">", "False")
GreaterThan.raw_instruction = "Answer True if the first number is greater than the second, otherwise False.\n\n"
