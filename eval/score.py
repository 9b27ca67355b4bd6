"""Scores requests: each once, adapter by adapter; then decodes where problems first go wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from .calls import Backend, GenerateRequest, ScoreRequest
from .results import ResultStore, file_name

Progress = Callable[[ResultStore], None]
# A problem's requests that failed the forward pass or had none, in windows of 1, 2, 4 ... of them: of the first window
# with one that is wrong still, those that are not decoded. What is decoded in the end depends on no stop or process.
# A request that fails the forward pass can still be right, in another tokenisation or up to white space at its ends.
_WINDOW = " ".join(f"WHEN place < {2 << window} THEN {window}" for window in range(40))
FIRST_WRONG = f"""
INSERT INTO first_wrong WITH numbered AS (
    SELECT problem, id, decoded IS 1 AS decoded, stripped IS NOT 1 AS wrong,
        row_number() OVER (PARTITION BY problem ORDER BY step) AS place
    FROM steps WHERE failed IS NOT 0
), windows AS (SELECT *, CASE {_WINDOW} END AS window FROM numbered)
SELECT DISTINCT id FROM windows
JOIN (SELECT problem, min(window) AS window FROM windows WHERE wrong GROUP BY problem) USING (problem, window)
WHERE NOT decoded
"""


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

    def own(self, column: str) -> str:
        """Return the condition, in SQL, that a request or problem is this process' to do."""
        return f"{column} % {self.world_size} = {self.rank}"

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

    ``verify`` proves answers by forward passes, and decodes only where a problem first fails; else all are decoded.
    """
    unanswered = f"SELECT id, 0 AS given FROM own WHERE correct IS NULL AND {rank.own('id')}"
    for adapter in store.adapters:
        for requests in store.requests(adapter, unanswered):
            if verify:
                _score(store, backend, adapter, requests, progress)
            else:
                _decode(store, backend, adapter, requests, progress)
    if verify:
        decode_first_wrong(store, backend, rank, progress)


def decode_first_wrong(store: ResultStore, backend: Backend, rank: Rank, progress: Progress) -> None:
    """Decode, of each problem, the first request that fails, and those before it that fail by white space alone."""
    while True:
        rank.meet(store)
        store.execute("CREATE TEMP TABLE IF NOT EXISTS first_wrong (request INTEGER PRIMARY KEY)")
        store.execute("DELETE FROM first_wrong")
        if not store.execute(FIRST_WRONG).rowcount:
            return
        # Decoding begins behind the tokens that a forward pass has proved.
        given = "SELECT id, ifnull(first_wrong_token, 0) AS given FROM own"
        for adapter in store.adapters:
            own = f"{given} WHERE id IN (SELECT request FROM first_wrong) AND {rank.own('id')}"
            for requests in store.requests(adapter, own):
                _decode(store, backend, adapter, requests, progress)


def _score(store: ResultStore, backend: Backend, adapter: str, requests: pa.Table, progress: Progress) -> None:
    ids, calls = requests.column("id").to_pylist(), calls_of(adapter, requests)
    for results in backend.verify_batches(adapter, calls):
        for index, score in results:
            store.record_score(ids[index], score)
            if score.answer is not None:
                store.record_generation(ids[index], calls[index].completion, score.answer)
        store.save()
        progress(store)


def _decode(store: ResultStore, backend: Backend, adapter: str, requests: pa.Table, progress: Progress) -> None:
    ids, prompts, completions, given = (
        requests.column(name).to_pylist() for name in ("id", "prompt", "completion", "given")
    )
    asks = [GenerateRequest(*ask) for ask in zip(prompts, completions, given, strict=True)]
    for results in backend.decode_batches(adapter, asks):
        for index, answer in results:
            store.record_generation(ids[index], completions[index], answer)
        store.save()
        progress(store)


def calls_of(adapter: str, requests: pa.Table) -> list[ScoreRequest]:
    """Return requests as a backend is asked them."""
    texts = (requests.column(name).to_pylist() for name in ("prompt", "completion"))
    return [ScoreRequest(adapter, prompt, completion) for prompt, completion in zip(*texts, strict=True)]
