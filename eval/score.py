"""Scores requests: each once, adapter by adapter; then decodes where problems first go wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import repeat

import numpy as np
import pyarrow as pa

from ..tm.columns import Bool
from .calls import Backend, Request
from .results import ResultStore

Progress = Callable[[ResultStore], None]


def evaluate(store: ResultStore, backend: Backend, *, verify: bool, progress: Progress) -> None:
    """Find out which requests are answered right; of a problem that fails, all up to its first wrong one.

    ``verify`` proves answers by forward passes, and decodes only where a problem first fails; else all are decoded.
    """
    unanswered = store.known["correct"] < 0
    for adapter in store.adapters:
        _ask(store, backend, adapter, unanswered, progress, verify=verify)
    if verify:
        decode_first_wrong(store, backend, progress)


def decode_first_wrong(store: ResultStore, backend: Backend, progress: Progress) -> None:
    """Decode, of each problem, the first request that fails, and those before it that fail by white space alone."""
    while (wrong := first_wrong(store)).any():
        for adapter in store.adapters:
            _ask(store, backend, adapter, wrong, progress)


def first_wrong(store: ResultStore) -> Bool:
    """Tell which requests are to be decoded, since problems that make them may be wrong there first; none at the end.

    A problem's requests that failed the forward pass or had none, in windows of 1, 2, 4 ... of them: of the first
    window with one that is wrong still, those that are not decoded. What is decoded in the end depends on no stop. A
    request that fails the forward pass can still be right, in another tokenisation or up to white space at its ends.
    """
    known, chosen = store.known, np.zeros(store.num_requests, np.bool_)
    for _, starts, steps in store.steps():
        places = np.flatnonzero(known["failed"][steps] != 0)
        if not len(places):
            continue
        ids, problems = steps[places], np.searchsorted(starts, places, side="right")
        begins, group = np.unique(problems, return_index=True, return_inverse=True)[1:]
        _, window = np.frexp(np.arange(len(places)) - begins[group] + 1)
        wrong = np.where(known["stripped"][ids] == 1, np.iinfo(window.dtype).max, window)
        chosen[ids[window == np.minimum.reduceat(wrong, begins)[group]]] = True
    chosen &= known["decoded"] == 0
    return chosen


def _ask(
    store: ResultStore, backend: Backend, adapter: str, wanted: Bool, progress: Progress, *, verify: bool = False
) -> None:
    for ids, table in store.requests(adapter, wanted):
        # Decoding begins behind the tokens that a forward pass has proved.
        asked = requests_of(table, np.maximum(store.known["first_wrong_token"][ids], 0).tolist())
        completions = [request.completion for request in asked]
        for results in (backend.verify_batches if verify else backend.decode_batches)(adapter, asked):
            store.record(ids, completions, results, passed=verify)
            store.save()
            progress(store)


def requests_of(table: pa.Table, known: Iterable[int] = repeat(0)) -> list[Request]:
    """Return requests as a backend is asked them, so many of the tokens of each known."""
    texts = (table.column(name).to_pylist() for name in ("prompt", "completion"))
    return list(map(Request, *texts, known))
