"""What transformers' ``generate`` takes from a model's files, and a verdict leaves alone: said once, in notes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UserError, quoted
from ...pipelines.hub_source import Say
from ..checkpoint import MODEL
from ..files import read_json, readable

if TYPE_CHECKING:
    from .tokens import Tokens

GENERATION = "generation_config.json"
MOST = 2**20  # bytes of it: real ones have some hundred
INNER = ("decoder", "generator", "text_config")  # where a model's configuration may hold the same settings
# What changes greedy decoding, and the value with which it does not; nor does null, or a list of nothing.
NEUTRAL: dict[str, Any] = {
    **dict.fromkeys(("repetition_penalty", "encoder_repetition_penalty", "guidance_scale", "num_beams"), 1),
    **dict.fromkeys(("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_length", "min_new_tokens"), 0),
    **dict.fromkeys(("penalty_alpha", "token_healing"), 0),
    **dict.fromkeys(("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "sequence_bias", "stop_strings")),
    **dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty")),
    **dict.fromkeys(("watermarking_config", "dola_layers", "constraints", "force_words_ids", "max_time")),
}


def say_otherwise(base: Path, used: Iterable[Tokens], say: Say) -> None:
    """Say a line where ``generate`` would decode otherwise than verdicts do, and one where it would not stop.

    Args:
        base: the model's folder.
        used: the tokenizers that models are asked through.
        say: is told the lines.
    """
    # Where the first is missing, the library reads the second instead.
    path = base / (GENERATION if (base / GENERATION).is_file() else MODEL)
    try:
        with readable(path):  # a value may be too deep to be written, too
            found = _settings(path)
            chosen = [f"{name} {quoted(found[name])}" for name in NEUTRAL if _changes(found, name)]
            ids = found.get("eos_token_id")
            told = "none" if ids is None else quoted(ids)
    except UserError as error:
        say(f"{error.what}; what it has transformers' generate do otherwise is not known")
        return
    if chosen:
        verb, them = ("is", "it") if len(chosen) == 1 else ("are", "them")
        say(
            f"{', '.join(chosen)} of the model's {path.name} {verb} not applied;"
            f" transformers' generate would apply {them}"
        )
    listed = ids if isinstance(ids, list) else [ids]
    ends = {own.end: quoted(own.tokenizer.convert_ids_to_tokens(own.end)) for own in used if own.end not in listed}
    if ends:
        names = ", ".join(ends.values())
        what = f"an answer ends with {names}, which the model's {path.name} does not name as its eos_token_id ({told})"
        say(f"{what}: transformers' generate would not stop there")


def _settings(path: Path) -> Mapping[str, Any]:
    if (size := path.stat().st_size) > MOST and path.name == GENERATION:
        raise ValueError(f"it has {size:,} bytes")
    found = read_json(path)
    inner: Mapping[str, Any] = next((found[name] for name in INNER if isinstance(found.get(name), dict)), {})
    own = {name: value for name, value in found.items() if value is not None}
    return own if path.name == GENERATION else {**inner, **own}


def _changes(found: Mapping[str, Any], name: str) -> bool:
    return found.get(name) not in (None, [], {}, NEUTRAL[name])
