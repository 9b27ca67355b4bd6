"""Scores whole rows in one forward pass: would greedy decoding have given these answers; how many rows it takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .model import Model
from .rows import Found, Row

FILL = 0.97  # of a batch's tokens at least so many are a row's own, the rest pads shorter rows


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores under way: the device may still be computing them."""

    found: torch.Tensor  # shape (5, rows): what ``Found`` holds; ``closest`` is negative where a logit is not finite
    done: torch.cuda.Event | None  # tells when they have come from a GPU

    def read(self) -> list[Found]:
        """Wait for the scores; return those of each row."""
        if self.done is not None:
            self.done.synchronize()
        return [Found(int(first), int(top), *rest) for first, top, *rest in self.found.T.tolist()]


def score(model: Model, rows: Sequence[Row]) -> Scores:
    """Start scoring rows; returns before a GPU is done.

    Rows are padded on the right, where causal attention cannot see it: no mask is needed, which keeps attention fast.

    Args:
        model: with its adapter switched on.
        rows: questions of at least one token.
    """
    lengths = [row.length for row in rows]
    width = max(lengths)
    ids = np.zeros((len(rows), width), np.int64)
    for place, row in enumerate(rows):
        ids[place, : lengths[place]] = row.given + row.expected
    sizes = np.array([len(row.expected) + 1 for row in rows])
    owner = np.repeat(np.arange(len(rows)), sizes)  # the row of each position that decides a token,
    which = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # and which of its tokens it decides
    first = np.array([place * width + len(row.given) - 1 for place, row in enumerate(rows)])
    targets = np.concatenate([[*row.expected, row.tokens.end] for row in rows])
    sent = model.send(np.stack([first[owner] + which, targets, owner, which]))
    with torch.inference_mode():
        logits = model.logits(model.send(ids), sent[0], use_cache=False)
        found = _judge(logits, sent[1], sent[2], sent[3], len(rows))
    if model.device.type != "cuda":
        return Scores(found, None)
    found = found.to("cpu", non_blocking=True)
    done = torch.cuda.Event()
    done.record(torch.cuda.current_stream(model.device))
    return Scores(found, done)


def _judge(
    logits: torch.Tensor, targets: torch.Tensor, owner: torch.Tensor, which: torch.Tensor, rows: int
) -> torch.Tensor:
    """Return what ``Scores.found`` holds; the logits are spoilt.

    Args:
        logits: shape (n, vocabulary).
        targets: the right token at each position, shape (n,).
        owner: the row of each position, shape (n,).
        which: the index of the right token in its row, shape (n,).
        rows: number of rows.
    """
    right = logits.gather(1, targets[:, None])[:, 0]
    best, other = logits.scatter_(1, targets[:, None], -torch.inf).max(1)
    given = (right > best) | ((right == best) & (targets < other))  # of equal logits the lowest token wins; NaN loses
    never = int(1e9)
    first = torch.full((rows,), never, device=logits.device)
    first.scatter_reduce_(0, owner, torch.where(given, never, which), "amin")
    lead = right.double() - best.double()
    until, before = which <= first[owner], which < first[owner]
    apart = torch.where(lead.isfinite(), lead.abs(), -1.0)
    least = torch.full((3, rows), torch.inf, dtype=lead.dtype, device=logits.device)
    for place, (numbers, seen) in enumerate([(lead, until), (lead, before), (apart, until)]):
        least[place].scatter_reduce_(0, owner, torch.where(seen, numbers, torch.inf), "amin")
    # Where a row goes wrong, which of the others it takes may decide whether its text can still be right.
    begins = torch.searchsorted(owner, torch.arange(rows, device=logits.device))
    at = begins + torch.where(first < never, first, 0)
    pair = logits[at].topk(2).values.double()
    gap = torch.where(first < never, pair[:, 0] - pair[:, 1], torch.inf)
    least[2] = torch.minimum(least[2], gap)
    return torch.cat([torch.stack([first, other[at]]).double(), least])


def fit(sizes: Iterable[tuple[int, int]], *, tokens: int, projected: int | None = None, fill: float = FILL) -> int:
    """Return how many of the first rows make a batch: as many as these limits let, one at the least.

    Rows that come sorted by length fill batches best; the limits hold in any order.

    Args:
        sizes: of each row the tokens, and the positions that go through the vocabulary projection.
        tokens: rows times longest row, at most.
        projected: sum of the positions projected, at most; None for no limit.
        fill: real tokens over rows times longest row, at least.
    """
    rows = widest = real = positions = 0
    for length, needed in sizes:
        widest = max(widest, length)
        real += length
        positions += needed
        computed = widest * (rows + 1)
        over = computed > tokens or (projected is not None and positions > projected)
        if rows and (over or real < fill * computed):
            break
        rows += 1
    return rows
