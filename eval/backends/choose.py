"""The backend that the settings name, with everything that can be checked checked before weights are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import UserError
from ..agenda import Agenda
from ..calls import BASE, Backend
from ..settings import EvalSettings

if TYPE_CHECKING:
    from ..adapters import Checkpoint


def make_backend(settings: EvalSettings, checkpoint: Checkpoint | None, agenda: Agenda) -> Backend:
    """Return the backend of an evaluation.

    Raises:
        UserError: an extra is not installed, the tokenizer cannot spell the format, a server does not answer ...
    """
    if settings.backend == "oracle" or checkpoint is None:
        from .oracle import OracleBackend

        return OracleBackend()
    try:
        return _model(settings, checkpoint, agenda)
    except ImportError as error:
        raise UserError(
            f"evaluating needs {error.name or 'packages'}, which is not installed",
            next_step="pip install 'caef-data[eval]'",
        ) from error


def _model(settings: EvalSettings, checkpoint: Checkpoint, agenda: Agenda) -> Backend:
    from ..adapters import fetch
    from ..spelling import check_spelling, sample
    from .tokens import load_tokenizer

    remote = settings.backend == "openai"
    folders = {name: adapter.path for name, adapter in checkpoint.adapters.items() if name in agenda.adapters}
    missing = sorted(set(agenda.adapters) - {BASE, *folders})
    if missing:
        raise UserError(f"there is no {', no '.join(missing)}", where=settings.adapters)
    base = fetch(checkpoint, weights=not remote).base
    tokens = load_tokenizer(base)
    check_spelling(tokens, sample(agenda))
    if remote:
        from .openai import OpenAIBackend

        return OpenAIBackend(settings.endpoint or "", agenda.adapters, tokens, folders=folders)
    from .transformers import TransformersBackend

    return TransformersBackend(
        base,
        folders,
        batch_tokens=settings.batch_tokens,
        dtype=settings.dtype,
        device=settings.device,
    )
