"""inspect-ai: ``inspect eval caef_data/rows -T declaration=smoke``, with a scorer that compares to the character.

Its own ``exact()`` drops punctuation and blanks, its ``match()`` takes 12+9=121 for 21: neither can judge a tape.
"""

from __future__ import annotations

from typing import Any

from caef_data.eval.environments.environment import environment, row_score
from caef_data.eval.environments.libraries import library

inspect_ai: Any = library("inspect_ai")
scorers: Any = library("inspect_ai.scorer")


@scorers.scorer(metrics=[scorers.accuracy(), scorers.stderr()])  # type: ignore[untyped-decorator]
def to_the_character() -> Any:
    """Score 1 for the completion itself; the explanation tells where another answer goes wrong."""

    async def score(state: Any, target: Any) -> Any:
        row, view, answer = state.metadata["row"], state.metadata["view"], state.output.completion
        found = row_score(row, view, answer)
        told = None if found.right else f"wrong from character {found.first_wrong} on, line {found.line}"
        value = scorers.CORRECT if found.right else scorers.INCORRECT
        return scorers.Score(value=value, answer=answer, explanation=told, metadata={"parts": found.parts})

    return score


@inspect_ai.task  # type: ignore[untyped-decorator]
def rows(declaration: str = "smoke", split: str = "test", view: str = "one_step", num: int = 100) -> Any:
    """Ask the first rows of a declaration.

    Args:
        declaration: a name or a path.
        split: train, test or stress.
        view: the rows.
        num: how many.
    """
    asked = environment(declaration, split=split, view=view).rows
    sample = library("inspect_ai.dataset").Sample
    samples = [
        sample(input=row["prompt"], target=row["completion"], id=number, metadata={"row": row, "view": view})
        for number, row in ((number, asked[number]) for number in range(num))
    ]
    return inspect_ai.Task(
        dataset=samples, solver=library("inspect_ai.solver").generate(), scorer=to_the_character(), name="rows"
    )
