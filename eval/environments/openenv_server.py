"""OpenEnv: a server of episodes; its client needs nothing of caef-data."""

from __future__ import annotations

from copy import copy
from typing import Any

from openenv.core import env_server
from openenv.core.env_server.types import Action, Observation, State

from .environment import Turn, environment


class CaefAction(Action):  # type: ignore[misc]
    """What the model wrote."""

    answer: str


class CaefObservation(Observation):  # type: ignore[misc]
    """What the model is asked next; None at the end."""

    prompt: str | None


def create_app(declaration: Any, **settings: Any) -> Any:
    """Return the FastAPI app of an environment, for uvicorn; each session has episodes of its own.

    A client's action is ``{"answer": ...}``; it observes ``prompt``, ``reward``, ``done`` and ``metadata``. ``reset``
    takes the ``number`` of a row, or a ``seed``, which is one.

    Args:
        declaration: a name, a path or a dict.
        settings: those of ``caef_data.environment``.
    """
    made = environment(declaration, **settings)

    class CaefEnvironment(env_server.Environment):  # type: ignore[misc]
        """Episodes of one session; ``state`` holds the episode's id, and the number of its answers."""

        SUPPORTS_CONCURRENT_SESSIONS = True
        state: Any = State()

        def __init__(self) -> None:
            super().__init__()
            self.episodes = copy(made)

        def reset(self, seed: int | None = None, episode_id: str | None = None, number: int | None = None) -> Any:
            """Begin an episode."""
            self.state = State(episode_id=episode_id)
            return self.observed(self.episodes.reset(seed if number is None else number))

        def step(self, action: Any, timeout_s: float | None = None, **_: Any) -> Any:
            """Take an answer."""
            self.state.step_count += 1
            return self.observed(self.episodes.step(action.answer))

        def observed(self, turn: Turn) -> Any:
            """Return a turn as an observation."""
            told = dict(turn.info) if turn.score is None else {**turn.info, "parts": turn.score.parts}
            return CaefObservation(prompt=turn.prompt, reward=turn.reward, done=turn.done, metadata=told)

    classes = CaefEnvironment, CaefAction, CaefObservation
    return env_server.create_app(*classes, env_name="caef_data", max_concurrent_envs=64)  # openenv itself lets one in
