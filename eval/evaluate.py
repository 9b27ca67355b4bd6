"""Evaluates an agenda: every call once, adapter by adapter; then which problems are right, and where others fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..tm.columns import I64
from .agenda import Agenda, Window
from .calls import Ask, Backend
from .kept import RIGHT, UNKNOWN, Kept

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Share:
    """One process' part of the work.

    Args:
        rank: its number.
        size: number of processes.
        wait: returns when all processes have come so far; their results are on disk then.
    """

    rank: int = 0
    size: int = 1
    wait: Callable[[], None] = lambda: None

    def own(self, calls: I64) -> Bools:
        """Tell which calls are this process' to make."""
        return calls % self.size == self.rank


Progress = Callable[[Kept], None]


def evaluate(
    agenda: Agenda,
    kept: Kept,
    backend: Backend,
    *,
    verify: bool,
    share: Share,
    progress: Progress,
) -> None:
    """Find out which calls are right; of a problem that fails, all up to its first failing call.

    Args:
        agenda: what there is to do.
        kept: what is known already; filled.
        backend: the model.
        verify: prove answers by forward passes, and decode only where a problem first fails; else decode every call.
        share: this process' part.
        progress: called after every result.
    """
    for adapter in agenda.adapters:
        for window in agenda.windows(adapter):
            todo = np.flatnonzero((kept.right[window.ids] == UNKNOWN) & share.own(window.ids))
            if not len(todo):
                continue
            if verify:
                for index, verdict in backend.verify(adapter, [window.calls[i] for i in todo.tolist()]):
                    number = int(window.ids[todo[index]])
                    kept.verified(number, verdict)
                    if verdict.answer is not None:
                        kept.answered(number, window.calls[todo[index]].completion, verdict.answer)
                    progress(kept)
            else:
                decode(kept, backend, window, todo, progress)
    if verify:
        decode_failures(agenda, kept, backend, share, progress)


def decode_failures(agenda: Agenda, kept: Kept, backend: Backend, share: Share, progress: Progress) -> None:
    """Decode, of each problem, the first call that fails, and those before it that fail by white space alone."""
    width = 1
    while True:
        kept.flush()
        share.wait()
        kept.load()
        share.wait()  # nobody writes before all have read: all see the same failures
        pending = undecoded_failures(agenda, kept, width)
        if not len(pending):
            return
        width *= 2  # a model that spells right texts in its own way would else need a round for every step of a run
        mine = pending[share.own(pending)]
        for window, rows in windows_with(agenda, mine):
            decode(kept, backend, window, rows, progress)


def decode(kept: Kept, backend: Backend, window: Window, rows: I64, progress: Progress) -> None:
    """Decode the answers to some rows of a window, from behind the tokens that a forward pass has proved."""
    calls = [window.calls[row] for row in rows.tolist()]
    known = np.maximum(kept.at[window.ids[rows]], 0).tolist()
    asks = [Ask(call.prompt, call.completion, known) for call, known in zip(calls, known, strict=True)]
    for index, answer in backend.decode(calls[0].adapter, asks):
        number = int(window.ids[rows[index]])
        kept.answered(number, calls[index].completion, answer)
        progress(kept)


def undecoded_failures(agenda: Agenda, kept: Kept, width: int) -> I64:
    """Return the calls to decode next: up to ``width`` of each problem whose first failing call is not decoded.

    A call that fails the forward pass can still be right, in another tokenisation or up to white space at its ends;
    then the next one counts.
    """
    places = first_failing_places(agenda, kept.stripped)
    places = places[places >= 0]
    problems = np.flatnonzero(~kept.decoded[agenda.flat[places]])
    ends = agenda.starts[1:][np.searchsorted(agenda.starts[1:], places[problems], side="right")]
    failing = np.flatnonzero(~kept.stripped[agenda.flat] & ~kept.decoded[agenda.flat])
    first = np.searchsorted(failing, places[problems])
    rows = first[:, None] + np.arange(width)
    found = failing[np.minimum(rows, len(failing) - 1)] if len(failing) else rows
    inside = (rows < len(failing)) & (found < ends[:, None])
    return np.unique(agenda.flat[found[inside]])


def first_failing_places(agenda: Agenda, right: npt.NDArray[np.int8] | Bools) -> I64:
    """Return, for each problem, the index in ``agenda.flat`` of its first call that is not right; -1 where all are.

    Args:
        agenda: the problems.
        right: ``Kept.right`` or ``Kept.stripped``.
    """
    wrong = np.flatnonzero(right[agenda.flat] != RIGHT)
    following = np.searchsorted(wrong, agenda.starts[:-1])
    places = np.append(wrong, len(agenda.flat))[following]
    return np.where(places < agenda.starts[1:], places, -1)


def windows_with(agenda: Agenda, calls: I64) -> Iterable[tuple[Window, I64]]:
    """Yield the windows that hold some of these calls, with their rows there."""
    for adapter in agenda.adapters:
        for window in agenda.windows(adapter):
            rows = np.flatnonzero(np.isin(window.ids, calls))
            if len(rows):
                yield window, rows
