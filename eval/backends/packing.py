"""How many rows a batch takes: the arithmetic of token budgets and padding."""

from __future__ import annotations

from collections.abc import Iterable

FILL = 0.97  # of a batch's tokens at least so many are a row's own, the rest pads shorter rows


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
