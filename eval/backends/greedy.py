"""Greedy decoding of a batch: one row leaves when it ends, the others go on without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import DynamicCache

from .cache import only_full_attention, roomy_cache
from .model import Model

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
    model: Model, given: Sequence[Sequence[int]], limits: Sequence[int], end: int
) -> tuple[list[list[int]], int]:
    """Decode greedily, in inference mode; of equal logits the lowest token wins.

    Args:
        model: with its adapter switched on.
        given: tokens of each row, at least one.
        limits: tokens to decode for each row, at least one.
        end: the token that ends an answer.

    Returns:
        Tokens decoded for each row, the end token included where it came; and the number of forward passes.
    """
    width = max(map(len, given))
    ids, mask = np.zeros((2, len(given), width), np.int64)
    for place, tokens in enumerate(given):  # padded on the left: all rows go on at the same column
        ids[place, width - len(tokens) :], mask[place, width - len(tokens) :] = tokens, 1
    seen = model.send(mask)
    state = _State(roomy_cache(model.net.config, width + max(limits)), seen, (seen.cumsum(1) - 1).clamp(min=0))
    token = _step(model, state, model.send(ids), padded=not mask.all())
    answers: list[list[int]] = [[] for _ in given]
    alive, fresh, steps = list(range(len(given))), [token], 1
    look = LOOK_EVERY[model.device.type]
    while True:
        if len(fresh) == min(look, *(limits[place] - len(answers[place]) for place in alive)):
            came = torch.stack(fresh, 1).tolist()
            fresh = []
            slots = [s for s, place in enumerate(alive) if _goes_on(answers[place], came[s], limits[place], end)]
            if not slots:
                return answers, steps
            if len(slots) < len(alive):
                alive = [alive[slot] for slot in slots]
                chosen = model.send(np.array(slots))
                state.keep(chosen)
                token = token[chosen]
        state.advance()
        padded = any(len(given[place]) < width for place in alive)
        token = _step(model, state, token[:, None], padded=padded)
        fresh.append(token)
        steps += 1


def _step(model: Model, state: _State, ids: torch.Tensor, *, padded: bool) -> torch.Tensor:
    """Return the token that follows each row."""
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
    return logits.argmax(-1)


def _goes_on(answer: list[int], came: list[int], limit: int, end: int) -> bool:
    """Add what came to an answer, up to the end token; tell whether it goes on."""
    if end in came:
        answer += came[: came.index(end) + 1]
        return False
    answer += came
    return len(answer) < limit
