"""verifiers: the taskset ``caef-taskset``, a task a row, without end."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import verifiers.v1 as vf

from caef_data.eval.environments.environment import environment, row_score

__all__ = ["CaefTaskset"]


class CaefData(vf.TaskData):  # type: ignore[misc]
    """A row: its prompt, and what is needed to score an answer."""

    row: dict[str, Any]
    view: str


class CaefTask(vf.Task[CaefData]):  # type: ignore[misc]
    """A row and its reward."""

    @vf.reward  # type: ignore[untyped-decorator]
    async def right(self, trace: vf.Trace) -> float:
        """Return 1 where the last reply is the completion; ``trace.last_reply`` would drop its newline."""
        replies = trace.assistant_messages
        answer = replies[-1].content if replies else ""
        return float(row_score(self.data.row, self.data.view, answer if isinstance(answer, str) else "").right)

    async def validate(self, runtime: Any) -> bool:
        """Tell whether the row's own completion is right, and no shorter one."""
        text = self.data.row["completion"]
        return all(row_score(self.data.row, self.data.view, text[:end]).right is (end is None) for end in (None, -1))


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
            yield CaefTask(CaefData(prompt=row["prompt"], row=row, view=own.view), own.task)
