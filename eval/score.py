"""Scores requests: each once, adapter by adapter; then decodes where problems first go wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .calls import Backend, GenerateRequest
from .results import RequestBatch, ResultStore, file_name

Progress = Callable[[ResultStore], None]


@dataclass(frozen=True)
class Rank:
    """One process of an evaluation.

    Args:
        rank: its number.
        world_size: number of processes.
        wait: returns when all processes have come so far; their results are on disk then.
    """

    rank: int = 0
    world_size: int = 1
    wait: Callable[[], None] = lambda: None

    def own(self, ids: Sequence[int]) -> list[int]:
        """Return the requests, or problems, that are this process' to do."""
        return [id for id in ids if id % self.world_size == self.rank]

    def meet(self, store: ResultStore) -> None:
        """Wait for the other processes, and take what they know."""
        store.commit()
        if self.world_size == 1:
            return
        self.wait()
        for rank in range(self.world_size):
            if rank != self.rank:
                store.read(store.path.with_name(file_name(rank)))
        self.wait()  # nobody writes before all have read: all see the same
        store.take()


def evaluate(store: ResultStore, backend: Backend, *, verify: bool, rank: Rank, progress: Progress) -> None:
    """Find out which requests are answered right; of a problem that fails, all up to its first wrong one.

    Args:
        store: what there is to do and what is known already; filled.
        backend: the model.
        verify: prove answers by forward passes, and decode only where a problem first fails; else decode every one.
        rank: this process.
        progress: called after every batch.
    """
    for adapter in store.adapters:
        for number in store.batches(adapter):
            ids = rank.own(store.unanswered(number))
            if not ids:
                continue
            batch = store.batch(number)
            if not verify:
                decode(store, backend, batch, ids, progress)
                continue
            calls = batch.calls(ids)
            for results in backend.verify_batches(adapter, calls):
                for index, score in results:
                    store.record_score(ids[index], score)
                    if score.answer is not None:
                        store.record_generation(ids[index], calls[index].completion, score.answer)
                store.save()
                progress(store)
    if verify:
        decode_first_wrong(store, backend, rank, progress)


def decode_first_wrong(store: ResultStore, backend: Backend, rank: Rank, progress: Progress) -> None:
    """Decode, of each problem, the first request that fails, and those before it that fail by white space alone."""
    while True:
        rank.meet(store)
        ids = store.first_wrong()
        if not ids:
            return
        mine: dict[int, list[int]] = {}
        for id in rank.own(ids):
            mine.setdefault(store.batch_of(id), []).append(id)
        for number in (number for adapter in store.adapters for number in store.batches(adapter) if number in mine):
            decode(store, backend, store.batch(number), mine[number], progress)


def decode(store: ResultStore, backend: Backend, batch: RequestBatch, ids: list[int], progress: Progress) -> None:
    """Decode the answers to some requests of a batch, from behind the tokens that a forward pass has proved."""
    calls, proved = batch.calls(ids), store.proved(batch)
    asks = [
        GenerateRequest(call.prompt, call.completion, proved.get(id, 0)) for id, call in zip(ids, calls, strict=True)
    ]
    for results in backend.decode_batches(batch.adapter, asks):
        for index, answer in results:
            store.record_generation(ids[index], calls[index].completion, answer)
        store.save()
        progress(store)
