"""Several processes, one a GPU, as one backend: the first one gives each its share of questions, and holds the run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ...errors import UserError, installed, quoted
from ..calls import Answer, Backend, Request


@dataclass(frozen=True)
class Rank:
    """One process of an evaluation: its number, and how many there are."""

    rank: int = 0
    world_size: int = 1

    def hand_out(self, shares: Sequence[Any] = ()) -> Any:
        """Give each process its share, which the first one knows; return this one's."""
        from torch import distributed

        own = [None]
        distributed.scatter_object_list(own, list(shares) or None, src=0)
        return own[0]

    def collect(self, own: Any) -> list[Any]:
        """Return what each process has, in the first one; an empty list in others."""
        from torch import distributed

        found = [None] * (0 if self.rank else self.world_size)
        distributed.gather_object(own, found or None, dst=0)
        return found


def rank_of_process(verb: str = "eval") -> Rank:
    """Return this process' part of the work of a command: all of it, unless torchrun started several.

    Raises:
        UserError: torch is needed for several processes and is not installed, or they were started otherwise.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return Rank()
    with installed("training" if verb == "train" else "evaluating", verb):
        from torch import cuda, distributed
    backend = "cpu:gloo,cuda:nccl" if verb == "train" and cuda.is_available() else "gloo"
    # One that is done with its share waits for the others, longer than the half hour that is usual.
    try:
        distributed.init_process_group(backend, timeout=timedelta(days=7))
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"the processes that WORLD_SIZE speaks of cannot meet: {quoted(error, 200)}",
            next_step=f"start them with torchrun --nproc-per-node N -m caef_data {verb} ..., or unset WORLD_SIZE",
        ) from error
    return Rank(distributed.get_rank(), distributed.get_world_size())


class SharedBackend(Backend):
    """All processes, for the first one, in which it stands; the others ``serve``."""

    def __init__(self, own: Backend, rank: Rank) -> None:
        self.own, self.rank, self.name = own, rank, own.name

    def verify_batches(self, adapter: str, requests: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        return self._share("verify_batches", adapter, requests)

    def decode_batches(self, adapter: str, requests: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        return self._share("decode_batches", adapter, requests)

    def _share(self, way: str, adapter: str, asked: Sequence[Request]) -> Iterator[list[tuple[int, Answer]]]:
        size = self.rank.world_size
        _, _, own = self.rank.hand_out([(way, adapter, asked[place::size]) for place in range(size)])
        for batch in getattr(self.own, way)(adapter, own):
            yield [(size * index, found) for index, found in batch]
        for place, found in enumerate(self.rank.collect(None)):
            if isinstance(found, UserError):
                raise found
            if found:
                yield [(size * index + place, one) for index, one in found]

    def provenance(self) -> dict[str, object]:
        return self.own.provenance()

    def close(self) -> None:
        self.own.close()


def serve(backend: Backend, rank: Rank) -> None:
    """Answer what the first process hands out, until that is None."""
    while (share := rank.hand_out()) is not None:
        way, adapter, asked = share
        try:
            found: Any = [pair for batch in getattr(backend, way)(adapter, asked) for pair in batch]
        except UserError as error:
            found = error
        rank.collect(found)
