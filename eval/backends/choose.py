"""The backend that the settings name, with everything that can be checked checked before weights are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from os.path import commonprefix
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import UserError, quoted
from ..calls import BASE, Backend, ScoreRequest
from ..results import ResultStore
from ..settings import EvalSettings

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from .tokens import Tokens

Say = Callable[[str], object]
SAMPLES = 64  # calls of each adapter and batch, beside one of each state and the longest
BATCHES = 8  # of each adapter


def make_backend(
    settings: EvalSettings, checkpoint: Checkpoint | None, store: ResultStore, say: Say = lambda _: None
) -> Backend:
    """Return the backend of an evaluation.

    Args:
        settings: what was asked for.
        checkpoint: base model and adapters; None for the oracle.
        store: the requests.
        say: is told, a line each, what the user should know of the models.

    Raises:
        UserError: an extra is not installed, the tokenizer cannot spell the format, a server does not answer ...
    """
    if settings.backend == "oracle" or checkpoint is None:
        from .oracle import OracleBackend

        return OracleBackend()
    try:
        return _model(settings, checkpoint, store, say)
    except ImportError as error:
        raise UserError(
            f"evaluating needs {error.name or 'packages'}, which is not installed",
            next_step="pip install 'caef-data[eval]'",
        ) from error


def _model(settings: EvalSettings, checkpoint: Checkpoint, store: ResultStore, say: Say) -> Backend:
    from ..checkpoint import fetch
    from .tokens import load_tokenizers

    remote = settings.backend == "openai"
    folders: dict[str, Path | None] = {
        name: adapter.path for name, adapter in checkpoint.adapters.items() if name in store.adapters
    }
    if settings.alone:  # the base model is asked under every name
        folders = dict.fromkeys(store.adapters)
    missing = sorted(set(store.adapters) - {BASE, *folders})
    if missing:
        raise UserError(f"there is no {', no '.join(missing)}", where=settings.adapters)
    base = fetch(checkpoint, weights=not remote, say=say).base
    tokens = load_tokenizers(base, folders, settings.template, joined=settings.joined)
    calls = {adapter: list(sample(store, adapter)) for adapter in store.adapters}
    for adapter, tried in calls.items():
        check_spelling(tokens[adapter], tried)
    for line in _differences(tokens, calls):
        say(line)
    if remote:
        from .server import OpenAIBackend

        return OpenAIBackend(
            settings.endpoint or "", store.adapters, tokens, folders=folders, near_ties=settings.near_ties
        )
    from .local import TransformersBackend

    return TransformersBackend(
        base,
        folders,
        tokens,
        batch_tokens=settings.batch_tokens,
        dtype=settings.dtype,
        device=settings.device,
        near_ties=settings.near_ties,
    )


def _differences(tokens: Mapping[str, Tokens], calls: Mapping[str, Iterable[ScoreRequest]]) -> list[str]:
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


# Whether a tokenizer can spell the texts of an evaluation


def sample(store: ResultStore, adapter: str) -> Iterator[ScoreRequest]:
    """Yield calls of an adapter, of every machine state."""
    batches = store.batches(adapter)
    for place in sorted({at * (len(batches) - 1) // (BATCHES - 1) for at in range(BATCHES)}):
        batch = store.batch(batches[place])
        kinds, states, prompts = (batch.table.column(name).to_pylist() for name in ("kind", "state", "prompt"))
        places = range(len(prompts))
        of_states = dict(zip(zip(kinds, states, strict=True), places, strict=True))
        longest = max(places, key=lambda at: len(prompts[at]))
        chosen = sorted({longest, *of_states.values(), *places[:: max(1, len(places) // SAMPLES)]})
        yield from batch.calls([batch.first + at for at in chosen])


def check_spelling(tokens: Tokens, calls: Iterable[ScoreRequest]) -> None:
    """Check that texts come back from their tokens unchanged, without unknown ones, none of them the end.

    Args:
        tokens: the tokenizer.
        calls: prompts and completions to try.

    Raises:
        UserError: one of them does not come back; names the first characters that fail.
    """
    tried = list(calls)
    prompts = tokens.encode([call.prompt for call in tried])
    completions = tokens.encode([call.completion for call in tried])
    for call, prompt, completion in zip(tried, prompts, completions, strict=True):
        _check(tokens, call.prompt, prompt, [])
        _check(tokens, call.completion, completion, prompt)


def _check(tokens: Tokens, text: str, spelled: list[int], before: list[int]) -> None:
    if tokens.end in spelled:
        raise _unspeakable(tokens, f"takes a part of {quoted(text)} for the end of the text")
    if tokens.unknown is not None and tokens.unknown in spelled:
        raise _unspeakable(tokens, f"does not know {_first_unknown(tokens, text)} in {quoted(text)}")
    back = tokens.text(before, spelled)
    if back != text:
        at = len(commonprefix([back, text]))
        given, wanted = quoted(back[at : at + 12]), quoted(text[at : at + 12])
        what = f"gives {given} back for {wanted}, which follows {quoted(text[:at])}"
        raise _unspeakable(tokens, what)


def _first_unknown(tokens: Tokens, text: str) -> str:
    alone = next((one for one in text if tokens.unknown in tokens.encode([one])[0]), None)
    return "a part" if alone is None else quoted(alone)


def _unspeakable(tokens: Tokens, what: str) -> UserError:
    from .tokens import OWN

    return UserError(
        f"the tokenizer cannot spell the machines' texts: it {what}",
        where=tokens.where,
        allowed="a tokenizer that gives every text back unchanged, such as the byte-level ones of most models",
        next_step=OWN,
    )
