"""The backend that the settings name, with everything that can be checked checked before weights are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import UserError
from ..agenda import Agenda
from ..calls import BASE, Backend, Call
from ..settings import EvalSettings

if TYPE_CHECKING:
    from ..adapters import Checkpoint
    from .tokens import Tokens

Say = Callable[[str], object]


def make_backend(
    settings: EvalSettings, checkpoint: Checkpoint | None, agenda: Agenda, say: Say = lambda _: None
) -> Backend:
    """Return the backend of an evaluation.

    Args:
        settings: what was asked for.
        checkpoint: base model and adapters; None for the oracle.
        agenda: the calls.
        say: is told, a line each, what the user should know of the models.

    Raises:
        UserError: an extra is not installed, the tokenizer cannot spell the format, a server does not answer ...
    """
    if settings.backend == "oracle" or checkpoint is None:
        from .oracle import OracleBackend

        return OracleBackend()
    try:
        return _model(settings, checkpoint, agenda, say)
    except ImportError as error:
        raise UserError(
            f"evaluating needs {error.name or 'packages'}, which is not installed",
            next_step="pip install 'caef-data[eval]'",
        ) from error


def _model(settings: EvalSettings, checkpoint: Checkpoint, agenda: Agenda, say: Say) -> Backend:
    from ..adapters import fetch
    from ..spelling import check_spelling, sample
    from .tokens import load_tokenizers

    remote = settings.backend == "openai"
    folders: dict[str, Path | None] = {
        name: adapter.path for name, adapter in checkpoint.adapters.items() if name in agenda.adapters
    }
    if settings.alone:  # the base model is asked under every name
        folders = dict.fromkeys(agenda.adapters)
    missing = sorted(set(agenda.adapters) - {BASE, *folders})
    if missing:
        raise UserError(f"there is no {', no '.join(missing)}", where=settings.adapters)
    base = fetch(checkpoint, weights=not remote, say=say).base
    tokens = load_tokenizers(base, folders, settings.template, joined=settings.joined)
    calls = {adapter: list(sample(agenda, adapter)) for adapter in agenda.adapters}
    for adapter, tried in calls.items():
        check_spelling(tokens[adapter], tried)
    for line in _differences(tokens, calls):
        say(line)
    if remote:
        from .openai import OpenAIBackend

        return OpenAIBackend(
            settings.endpoint or "", agenda.adapters, tokens, folders=folders, near_ties=settings.near_ties
        )
    from .transformers import TransformersBackend

    return TransformersBackend(
        base,
        folders,
        tokens,
        batch_tokens=settings.batch_tokens,
        dtype=settings.dtype,
        device=settings.device,
        near_ties=settings.near_ties,
    )


def _differences(tokens: Mapping[str, Tokens], calls: Mapping[str, Iterable[Call]]) -> list[str]:
    """Return a line for each kind of disagreement between adapters' tokenizers and the base model's."""
    from .tokens import differences

    names: dict[str, list[str]] = {}
    for adapter, tried in calls.items():
        texts = [text for call in tried for text in (call.prompt, call.completion)]
        found = differences(tokens[adapter], tokens[BASE], texts)
        if found:
            names.setdefault("; ".join(found), []).append(adapter)
    return [
        f"{', '.join(sorted(adapters))}: the tokenizer in the adapter's folder is used; beside the base model's: {what}"
        for what, adapters in names.items()
    ]
