"""inspect-ai: ``inspect eval caef_data/rows -T declaration=smoke``, with a scorer that compares to the character.

Its own ``exact()`` drops punctuation and blanks, its ``match()`` takes 12+9=121 for 21: neither can judge a tape.
"""

from __future__ import annotations

from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import CORRECT, INCORRECT, Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import TaskState, generate

from caef_data.eval.environments.environment import environment, row_score


@scorer(metrics=[accuracy(), stderr()])  # type: ignore[untyped-decorator]
def to_the_character() -> Scorer:
    """Score 1 for the completion itself; the explanation tells where another answer goes wrong."""

    async def score(state: TaskState, target: Target) -> Score:
        answer = state.output.completion
        found = row_score(state.metadata["row"], answer)
        told = None if found.right else f"wrong from character {found.first_wrong} on"
        return Score(value=CORRECT if found.right else INCORRECT, answer=answer, explanation=told, metadata=found.parts)

    return score


@task  # type: ignore[untyped-decorator]
def rows(declaration: str = "smoke", split: str = "test", view: str = "one_step", num: int = 100) -> Task:
    """Ask the first ``num`` rows of a declaration."""
    asked = environment(declaration, split=split, view=view).rows.__getitems__(range(num))
    samples = [
        Sample(input=row["prompt"], target=row["completion"], id=number, metadata={"row": row})
        for number, row in enumerate(asked)
    ]
    return Task(dataset=samples, solver=generate(), scorer=to_the_character(), name="rows")
