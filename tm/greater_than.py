"""Greater than: see comparison.py, with 27 > 31 as its example."""

from .basic import rule
from .batch import Batch, StepRule
from .comparison import Comparison, state_lines


class GreaterThan(Comparison):
    """a > b."""

    name = "greater_than"
    sign = ">"
    states = state_lines("GREATER_THAN")

    @staticmethod
    def holds(x: int, y: int) -> bool:
        return x > y

    def step_rule(self, batch: Batch) -> StepRule:
        return rule(batch.num_steps, keep_all=5, last=1, random=3)
