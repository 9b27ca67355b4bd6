"""verifiers: the taskset ``caef-taskset``, a task a row, without end."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import verifiers.v1 as vf

from caef_data.eval.environments.environment import environment
from caef_data.tm.successor import successor

__all__ = ["CaefTaskset"]


class CaefData(vf.TaskData):  # type: ignore[misc]
    """A row and its prompt."""

    row: dict[str, Any]


class CaefTask(vf.Task[CaefData]):  # type: ignore[misc]
    """A row and its reward."""

    @vf.reward  # type: ignore[untyped-decorator]
    async def right(self, trace: vf.Trace) -> float:
        """Return 1 where the last reply is the completion; ``trace.last_reply`` would drop its newline."""
        replies = trace.assistant_messages
        return float(bool(replies) and replies[-1].content == self.data.row["completion"])

    async def validate(self, runtime: Any) -> bool | None:
        """Tell whether the completion is what the interpreter gives; None where the answer is no next entry."""
        row = self.data.row
        return successor(row["prompt"]) == row["completion"] if row.get("state") else None


class CaefConfig(vf.TasksetConfig):  # type: ignore[misc]
    """Which rows: see ``caef_data.environment``."""

    declaration: str = "smoke"
    split: str = "train"
    view: str = "one_step"


class CaefTaskset(vf.Taskset[CaefTask, CaefConfig]):  # type: ignore[misc]
    """The rows of a declaration."""

    INFINITE = True

    def load(self) -> Iterator[CaefTask]:
        """Yield the tasks of rows 0, 1, 2, ..."""
        own = self.config
        rows = environment(own.declaration, split=own.split, view=own.view).rows
        for row in map(rows.__getitem__, count()):
            yield CaefTask(CaefData(prompt=row["prompt"], row=row), own.task)
