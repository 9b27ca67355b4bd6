"""Less than: see comparison.py, with 21 < 19 as its example."""

from .classes import first_and_last
from .comparison import Comparison, comparing_both_ways, relation, state_lines


class LessThan(Comparison):
    """a < b."""

    name = "less_than"
    sign = "<"
    kept_steps = first_and_last(2, random=4)
    states = state_lines("LESS_THAN")

    @staticmethod
    def holds(x: int, y: int) -> bool:
        return x < y


LessThan.shown_step, LessThan.shown_pair = (9, 10, 1), (9, 10)
LessThan.instruction = relation("LESS_THAN", "smaller", "shorter")
LessThan.aligner_instruction = comparing_both_ways("LESS_THAN", "less than", "<", "False")
LessThan.raw_instruction = "Answer True if the first number is less than the second, otherwise False.\n\n"
