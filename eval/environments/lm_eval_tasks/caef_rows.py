"""What caef_rows.yaml needs: rows of a declaration, and their score."""

from __future__ import annotations

from typing import Any

from caef_data.eval.environments.environment import environment


def dataset(
    declaration: str = "smoke", split: str = "test", view: str = "one_step", num: int = 100, **_: Any
) -> dict[str, Any]:
    """Return the first rows, as the split that the task reads; ``--metadata`` gives the arguments."""
    from datasets import Dataset

    return {"test": Dataset.from_list(environment(declaration, split=split, view=view).rows.__getitems__(range(num)))}


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Return whether the answer is the completion to the character; ``exact_match`` and others strip it."""
    return {"exact": float(results[0] == doc["completion"])}
