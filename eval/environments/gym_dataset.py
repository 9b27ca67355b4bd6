"""reasoning-gym: import this, then ``create_dataset("caef_data", declaration=...)``, ``score_answer``.

A seed is no split: two seeds give the same rows in other orders. ``split`` is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import reasoning_gym
from reasoning_gym.dataset import ProceduralDataset

from ...pipelines.declaration import declared
from ...pipelines.stream import Stream
from .. import resolved


@dataclass
class CaefConfig:
    """What a dataset is made of; ``seed`` says in which order, and which rows of large classes."""

    declaration: Any = "smoke"
    split: str = "train"
    view: str = "one_step"
    size: int = 500
    seed: int | None = None


class CaefDataset(ProceduralDataset):  # type: ignore[misc]
    """Rows as questions and answers; each item is a function of the declaration, the seed and its number."""

    def __init__(self, config: CaefConfig) -> None:
        super().__init__(config=config, seed=config.seed, size=config.size)
        self.rows = Stream(resolved(declared(config.declaration)), config.split, config.view, seed=self.seed)

    def __getitem__(self, number: int) -> dict[str, Any]:
        row = self.rows[number]
        about = {"source_dataset": "caef_data", "source_index": number, "row": row}
        return {"question": row["prompt"], "answer": row["completion"], "metadata": about}

    def score_answer(self, answer: str | None, entry: dict[str, Any]) -> float:
        """Return 1 for the answer itself, else 0."""
        return float(answer == entry["answer"])


reasoning_gym.register_dataset("caef_data", CaefDataset, CaefConfig)
