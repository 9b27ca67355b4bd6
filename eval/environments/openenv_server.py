"""OpenEnv: a server of episodes; its client needs nothing of caef-data."""

from __future__ import annotations

from copy import copy
from typing import Any

from .environment import Turn, environment
from .libraries import library


def create_app(declaration: Any, *, sessions: int = 64, **settings: Any) -> Any:
    """Return the FastAPI app of an environment, for uvicorn; each session has episodes of its own.

    A client's action is ``{"answer": ...}``; it observes ``prompt``, ``reward``, ``done`` and ``metadata``. ``reset``
    takes ``seed`` or ``number``.

    Args:
        declaration: a name, a path or a dict.
        sessions: clients at once; openenv itself lets one in.
        settings: those of ``caef_data.environment``.

    Raises:
        UserError: openenv is not installed, or the declaration or a setting is refused.
    """
    server: Any = library("openenv.core.env_server")
    types, made = library("openenv.core.env_server.types"), environment(declaration, **settings)

    class CaefAction(types.Action):  # type: ignore[misc, name-defined]
        """What the model wrote."""

        answer: str

    class CaefObservation(types.Observation):  # type: ignore[misc, name-defined]
        """What the model is asked next; None at the end."""

        prompt: str | None

    class CaefEnvironment(server.Environment):  # type: ignore[misc]
        """Episodes of one session."""

        SUPPORTS_CONCURRENT_SESSIONS = True

        def __init__(self) -> None:
            super().__init__()
            self.episodes, self.known = copy(made), types.State()

        def reset(self, seed: int | None = None, episode_id: str | None = None, **more: Any) -> Any:
            """Begin an episode."""
            self.known = types.State(episode_id=episode_id)
            return self.observed(self.episodes.reset(more.get("number"), seed=seed))

        def step(self, action: Any, timeout_s: float | None = None, **_: Any) -> Any:
            """Take an answer."""
            self.known.step_count += 1
            return self.observed(self.episodes.step(action.answer))

        def observed(self, turn: Turn) -> Any:
            """Return a turn as an observation."""
            told = dict(turn.info) if turn.score is None else {**turn.info, "parts": turn.score.parts}
            return CaefObservation(prompt=turn.prompt, reward=turn.reward, done=turn.done, metadata=told)

        @property
        def state(self) -> Any:
            """Return the episode's id, and the number of its answers."""
            return self.known

    classes = CaefEnvironment, CaefAction, CaefObservation
    return server.create_app(*classes, env_name="caef_data", max_concurrent_envs=sessions)
