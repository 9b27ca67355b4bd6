"""TRL: a reward function for GRPO, and others that take one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import UserError
from ...tm.score import Score, score, text_score
from .environment import worth

Text = str | Sequence[dict[str, Any]] | None  # or the messages of a conversation


def reward(prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> list[float]:
    """Return 1 for each right completion, else 0.

    Args:
        prompts: one-step prompts, as texts or as conversations whose last message is one.
        completions: what the model wrote, as texts or as conversations.
        columns: the other columns of the dataset. ``expected``, where there is one, holds the right answers, to prompts
            of any view; GRPO hands no column ``completion`` on. Else ``task``, where there is one, names the machine.

    Raises:
        UserError: a prompt is no entry of a machine.
    """
    return [float(found.right) for found in _scores(prompts, completions, columns)]


def partial_reward(prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> list[float]:
    """Return 1 for each right completion, and for a wrong one the share of its parts that are right."""
    return [worth(found, partial=True) for found in _scores(prompts, completions, columns)]


def _scores(prompts: Sequence[Text], completions: Sequence[Text], columns: dict[str, Any]) -> list[Score]:
    if columns.get("expected"):
        return [
            text_score(right, _text(answer)) for right, answer in zip(columns["expected"], completions, strict=True)
        ]
    tasks = columns.get("task") or [None] * len(prompts)
    asked = zip(prompts, completions, tasks, strict=True)
    return [score(_text(prompt), _text(completion), task=task) for prompt, completion, task in asked]


def _text(given: Text) -> str:
    """Return a text, or the content of a conversation's last message."""
    if isinstance(given, str) or given is None:
        return given or ""
    content = given[-1].get("content") if given else ""
    if content is not None and not isinstance(content, str):
        raise UserError("a message's content must be a text", allowed="messages of text alone")
    return content or ""
