"""TRL: a reward function for GRPO, and others that take one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...tm.score import score

Text = str | Sequence[dict[str, Any]] | None  # or the messages of a conversation


def reward(prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> list[float]:
    """Return 1 for each right completion, else 0.

    Args:
        prompts: one-step prompts, as texts or as conversations whose last message is one.
        completions: what the model wrote, as texts or as conversations.
        columns: the other columns of the dataset. ``expected``, where there is one, holds the right answers, to prompts
            of any view; GRPO hands no column ``completion`` on. Else ``task``, where there is one, names the machine.
    """
    answers = [_text(completion) for completion in completions]
    if columns.get("expected"):
        return [float(right == answer) for right, answer in zip(columns["expected"], answers, strict=True)]
    tasks = columns.get("task") or [None] * len(prompts)
    asked = zip(prompts, answers, tasks, strict=True)
    return [float(score(_text(prompt), answer, task=task).right) for prompt, answer, task in asked]


def _text(given: Text) -> str:
    """Return a text, or the content of a conversation's last message."""
    return (given if isinstance(given, str) or not given else given[-1].get("content")) or ""  # type: ignore[return-value]
