"""Less than: see comparison.py, with 21 < 19 as its example."""

from .basic import rule
from .batch import Batch, StepRule
from .comparison import Comparison, state_lines


class LessThan(Comparison):
    """a < b."""

    name = "less_than"
    sign = "<"
    states = state_lines("LESS_THAN")

    @staticmethod
    def holds(x: int, y: int) -> bool:
        return x < y

    def step_rule(self, batch: Batch) -> StepRule:
        return rule(batch.num_steps, keep_all=5, last=2, random=4)
