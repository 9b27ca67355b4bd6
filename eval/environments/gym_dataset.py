"""reasoning-gym: ``create_dataset("caef_data", declaration=...)``, ``score_answer``.

A seed is no split: two seeds give the same rows in other orders. ``split`` is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from ...pipelines.declaration import declared
from ...pipelines.stream import Stream
from .. import resolved
from .environment import row_score, worth
from .libraries import library

NAME = "caef_data"


@dataclass
class CaefConfig:
    """What a dataset is made of.

    Args:
        declaration: a name, a path or a dict.
        split: train, test or stress.
        view: the rows that are asked.
        partial: a wrong answer is worth its share of right parts.
        size: number of items.
        seed: in which order, and which ones of large classes.
    """

    declaration: Any = "smoke"
    split: str = "train"
    view: str = "one_step"
    partial: bool = False
    size: int = 500
    seed: int | None = None


@cache
def register() -> None:
    """Make ``caef_data`` a dataset of reasoning-gym.

    Raises:
        UserError: reasoning-gym is not installed.
    """
    base = library("reasoning_gym.dataset").ProceduralDataset

    class CaefDataset(base):  # type: ignore[misc, valid-type]
        """Rows as questions and answers; each item is a function of the declaration, the seed and its number."""

        def __init__(self, config: CaefConfig) -> None:
            super().__init__(config=config, seed=config.seed, size=config.size)
            wanted = resolved(declared(config.declaration))
            self.rows = Stream(wanted, config.split, config.view, seed=self.seed)

        def __getitem__(self, number: int) -> dict[str, Any]:
            row = self.rows[number]
            about = {"source_dataset": NAME, "source_index": number, "row": row}
            return {"question": row["prompt"], "answer": row["completion"], "metadata": about}

        def score_answer(self, answer: str | None, entry: dict[str, Any]) -> float:
            found = row_score(entry["metadata"]["row"], self.config.view, answer or "")
            return worth(found, self.config.partial)

    library("reasoning_gym").register_dataset(NAME, CaefDataset, CaefConfig)
