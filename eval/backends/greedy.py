"""Greedy decoding of a batch: one row leaves when it ends, the others go on without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isnan, nan

import numpy as np
import torch
from transformers import DynamicCache

from .cache import only_full_attention, roomy_cache
from .model import Model


@dataclass
class Decoded:
    """What decoding gave for a row.

    Args:
        tokens: with the end token, where it came.
        margin: smallest lead of one of them over the next best token; NaN where a logit is not finite.
    """

    tokens: list[int]
    margin: float


LOOK_EVERY = {"cpu": 1, "cuda": 8}  # steps between looks at what came: each look waits for the device


@dataclass
class _State:
    """What the next step needs of the rows still alive.

    Args:
        cache: keys and values of all tokens so far.
        mask: 1 where a token stands, 0 where padding does, shape (rows, tokens so far).
        position: of each token of the step, shape (rows, tokens of the step).
    """

    cache: DynamicCache
    mask: torch.Tensor
    position: torch.Tensor

    def keep(self, slots: torch.Tensor) -> None:
        """Drop all rows but these."""
        self.cache.batch_select_indices(slots)
        self.mask, self.position = self.mask[slots], self.position[slots]

    def advance(self) -> None:
        """Make room for one more token of each row."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], 1)
        self.position = self.position[:, -1:] + 1


def greedy(
    model: Model, given: Sequence[Sequence[int]], limits: Sequence[int], end: int, stop_below: float = -inf
) -> tuple[list[Decoded], int]:
    """Decode greedily, in inference mode; of equal logits the lowest token wins.

    Args:
        model: with its adapter switched on.
        given: tokens of each row, at least one.
        limits: tokens to decode for each row, at least one.
        end: the token that ends an answer.
        stop_below: a row whose token leads by less than this is left where it is.

    Returns:
        What came for each row; and the number of forward passes.
    """
    width = max(map(len, given))
    ids, mask = np.zeros((2, len(given), width), np.int64)
    for place, tokens in enumerate(given):  # padded on the left: all rows go on at the same column
        ids[place, width - len(tokens) :], mask[place, width - len(tokens) :] = tokens, 1
    seen = model.send(mask)
    state = _State(roomy_cache(model.net.config, width + max(limits)), seen, (seen.cumsum(1) - 1).clamp(min=0))
    token, lead = _step(model, state, model.send(ids), padded=not mask.all())
    answers = [Decoded([], inf) for _ in given]
    alive, fresh, steps = list(range(len(given))), [(token, lead)], 1
    look = LOOK_EVERY[model.device.type]
    while True:
        if len(fresh) == min(look, *(limits[place] - len(answers[place].tokens) for place in alive)):
            came, leads = (torch.stack(one, 1).tolist() for one in zip(*fresh, strict=True))
            fresh = []
            slots = [
                slot
                for slot, place in enumerate(alive)
                if _goes_on(answers[place], came[slot], leads[slot], end, stop_below)
                and len(answers[place].tokens) < limits[place]
            ]
            if not slots:
                return answers, steps
            if len(slots) < len(alive):
                alive = [alive[slot] for slot in slots]
                chosen = model.send(np.array(slots))
                state.keep(chosen)
                token = token[chosen]
        state.advance()
        padded = any(len(given[place]) < width for place in alive)
        token, lead = _step(model, state, token[:, None], padded=padded)
        fresh.append((token, lead))
        steps += 1


def leading(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the likeliest tokens and by how much they lead; NaN where that is not finite.

    Args:
        logits: shape (rows, vocabulary).
    """
    best, token = logits.max(-1)
    rest = logits.scatter(-1, token[:, None], -torch.inf).amax(-1)
    return token, torch.where(best.isfinite(), best.double() - rest.double(), torch.nan)


def _step(model: Model, state: _State, ids: torch.Tensor, *, padded: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the token that follows each row, and its lead."""
    rows, width = ids.shape
    last = torch.arange(rows, device=ids.device) * width + width - 1
    mask = state.mask if padded else None  # without padding, attention needs no mask and is faster
    if mask is not None and width == 1 and model.takes_whole_masks and only_full_attention(state.cache):
        # Ready as it is: of a plain mask the library looks whether it masks anything, which waits for the device.
        mask = mask[:, None, None, :].bool()
    logits = model.logits(
        ids,
        last,
        attention_mask=mask,
        position_ids=state.position,
        past_key_values=state.cache,
        use_cache=True,
    )
    return leading(logits)


def _goes_on(answer: Decoded, came: list[int], leads: list[float], end: int, stop_below: float) -> bool:
    """Add what came to an answer, up to the end token or a lead too small; tell whether it goes on."""
    for token, lead in zip(came, leads, strict=True):
        answer.tokens.append(token)
        answer.margin = nan if isnan(lead) else min(lead, answer.margin)
        if token == end or not answer.margin >= stop_below:
            return False
    return True
