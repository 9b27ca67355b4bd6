"""Decodes one row as users of the library do: its own greedy generate, without a batch and without padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from .greedy import Decoded, leading
from .model import Model
from .rope import forget_growth


class _Leads(LogitsProcessor):  # type: ignore[misc]
    """Notes by how much each token leads; changes nothing."""

    def __init__(self) -> None:
        self.found: list[torch.Tensor] = []

    def __call__(self, _ids: Any, scores: torch.Tensor) -> torch.Tensor:
        self.found.append(leading(scores)[1])
        return scores


def alone(model: Model, given: Sequence[int], limit: int, end: int) -> Decoded:
    """Decode one row, in inference mode.

    Args:
        model: with its adapter switched on.
        given: tokens of the row, at least one.
        limit: tokens to decode, at most.
        end: the token that ends an answer.
    """
    settings = GenerationConfig(do_sample=False, max_new_tokens=limit, eos_token_id=end, pad_token_id=end)
    model.net.generation_config = settings  # what the model's own one says would fill the gaps
    ids, leads = torch.tensor([list(given)], device=model.device), _Leads()
    forget_growth(model.net)
    found = model.net.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        generation_config=settings,
        logits_processor=LogitsProcessorList([leads]),
    )
    forget_growth(model.net)
    tokens: list[int] = found[0, len(given) :].tolist()
    return Decoded(tokens, float(torch.stack(leads.found).min()))
