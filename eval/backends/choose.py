"""The backend that the settings name, with everything that can be checked checked before weights are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UserError, installed, is_whole
from ...pipelines.hub_source import Say
from ..calls import BASE, Backend, Request
from ..checkpoint import MODEL, Checkpoint, fetch
from ..files import read_json
from ..problems import instruction_of
from ..results import ResultStore
from ..score import requests_of
from ..settings import EvalSettings
from .defaults import say_otherwise
from .tokens import Tokens, check_spelling, differences, load_tokenizers

SAMPLES = 64  # calls of each adapter and batch, beside one of each state and the longest
BATCHES = 8  # of each adapter


@installed("evaluating", "eval")
def make_backend(
    settings: EvalSettings,
    checkpoint: Checkpoint | None,
    asked: Mapping[str, Sequence[Request]],
    say: Say = lambda _: None,
    net: Any = None,
) -> Backend:
    """Return the backend of an evaluation.

    Args:
        settings: what was asked for.
        checkpoint: base model and adapters; None for the oracle.
        asked: the adapters that are asked, each with some of its calls, whose spelling is checked.
        say: is told, a line each, what the user should know of the models.
        net: the base model, where it is in memory already.

    Raises:
        UserError: an extra is not installed, the tokenizer cannot spell the format, a server does not answer ...
    """
    if settings.backend == "oracle" or checkpoint is None:
        from .oracle import OracleBackend

        return OracleBackend()

    wanted, remote, near_ties = list(asked), settings.backend == "openai", settings.near_ties
    # The base model alone is asked under every name.
    paths = {name: adapter.path for name, adapter in checkpoint.adapters.items()}
    folders = {name: None if settings.alone else paths.get(name) for name in wanted if name != BASE}
    if missing := sorted(name for name, folder in folders.items() if folder is None and not settings.alone):
        raise UserError(f"there is no {', no '.join(missing)}", where=settings.adapters)
    checkpoint = fetch(checkpoint, weights=not remote)
    base = checkpoint.base
    used = {name: folders.get(name) for name in wanted}  # the base model's own may be one that nobody is asked through
    tokens = load_tokenizers(base, used, settings.template, joined=settings.joined)
    for name in (BASE, *wanted):
        checkpoint.check_unchanged(name)
    say_otherwise(Path(base), [tokens[name] for name in wanted], say)
    told = {name: instruction_of(name) for name in wanted if settings.stage == "first"}
    asked_alone = {name: [Request(text, "")] for name, text in told.items()}
    _check_tokens(tokens, {name: [*asked_alone.get(name, ()), *asked[name]] for name in wanted}, say)
    tokens |= {name: tokens[name].behind(text) for name, text in told.items()}
    if remote:
        from .server import OpenAIBackend

        more: Any = {"near_ties": near_ties, "vocabulary": _vocabulary(Path(base))}
        return OpenAIBackend(settings.endpoint or "", wanted, tokens, folders=folders, **more)
    from .local import TransformersBackend

    return TransformersBackend(
        base,
        folders,
        tokens,
        batch_tokens=settings.batch_tokens,
        dtype=settings.dtype,
        device=settings.device,
        near_ties=near_ties,
        net=net,
        loaded=checkpoint.check_unchanged,
    )


def _vocabulary(base: Path) -> int | None:
    """Return how many tokens a base model has; None where its configuration leaves that to its kind."""
    config = read_json(base / MODEL)
    found = {**config, **(config.get("text_config") or {})}.get("vocab_size")
    return found if is_whole(found, 1) else None


def _check_tokens(tokens: Mapping[str, Tokens], calls: Mapping[str, list[Request]], say: Say) -> None:
    """Refuse tokenizers that cannot spell these calls; say which disagree with the base model's."""
    told: dict[str, list[str]] = {}
    for adapter, tried in calls.items():
        check_spelling(tokens[adapter], tried)
        texts = [text for call in tried for text in (call.prompt, call.completion)]
        if what := "; ".join(differences(tokens[adapter], tokens[BASE], texts)):
            told.setdefault(what, []).append(adapter)
    for what, adapters in told.items():
        names = ", ".join(sorted(adapters))
        say(f"{names}: the tokenizer in the adapter's folder is used; beside the base model's: {what}")


def samples(store: ResultStore) -> dict[str, list[Request]]:
    """Return the adapters that are asked, each with some of its calls."""
    return {adapter: list(_sample(store, adapter)) for adapter in store.adapters}


def _sample(store: ResultStore, adapter: str) -> Iterator[Request]:
    """Yield calls of an adapter, of every machine state."""
    batches = store.batches(adapter)
    chosen = sorted({batches[place * (len(batches) - 1) // (BATCHES - 1)] for place in range(BATCHES)})
    for _, requests in store.requests(adapter, np.ones(store.num_requests, np.bool_), chosen):
        kinds, states, prompts = (requests.column(name).to_pylist() for name in ("kind", "state", "prompt"))
        places = range(len(prompts))
        of_states = dict(zip(zip(kinds, states, strict=True), places, strict=True))
        longest = max(places, key=lambda place: len(prompts[place]))
        rows = sorted({longest, *of_states.values(), *places[:: max(1, len(places) // SAMPLES)]})
        yield from requests_of(requests.take(rows))
