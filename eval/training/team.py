"""The processes of a training under torchrun or accelerate: they decide alike, end together, and the first speaks."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn, TypeVar

from ...errors import UserError, installed, quoted

LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")  # gloo's words, when a process is gone

T = TypeVar("T")


@dataclass(frozen=True)
class Team:
    """The processes of a training.

    Args:
        rank: the number of this one; 0 speaks and writes.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    def any(self, answer: bool) -> bool:
        """Tell whether one of the processes says yes."""
        return answer if self.size == 1 else any(self._everyone(answer))

    def together(self, work: Callable[[], T]) -> T:
        """Do a piece of work in every process; what one of them refuses ends all.

        Raises:
            UserError: of the first process that refused; the others end.
        """
        done, error = _tried(work)
        for refused in [error] if self.size == 1 else self._everyone(error):
            if refused is not None:
                self._alike(refused)
        return done[0]

    def first(self, work: Callable[[], T]) -> T:
        """Do a piece of work in the first process, while the others wait; return what it gives, in all.

        Raises:
            UserError: as the work.
        """
        done, error = _tried(work) if self.rank == 0 else ([], None)
        if self.size > 1:
            done, error = self._everyone((done, error))[0]
        if error is not None:
            self._alike(error)
        return done[0]

    def _everyone(self, mine: T) -> list[T]:
        """Return what each process has."""
        from torch import distributed

        found: list[T] = [mine] * self.size
        distributed.all_gather_object(found, mine)
        return found

    def _alike(self, refused: UserError) -> NoReturn:
        """End all for one reason, which the first process tells."""
        if self.rank:
            sys.exit(2)
        raise refused

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Let the first process alone tell of one that is gone.

        Raises:
            UserError: in the first process.
            SystemExit: in the others.
        """
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not any(words in str(error) for words in LOST):
                raise
            if self.rank:
                sys.exit(1)
            raise UserError(
                "another process of this training ended",
                where=f"one of {self.size} that torchrun or accelerate started",
                next_step="look for what it said; the same command goes on from the last state",
            ) from error


def _tried(work: Callable[[], T]) -> tuple[list[T], UserError | None]:
    try:
        return [work()], None
    except UserError as error:
        return [], error


def meet() -> Team:
    """Return the processes that were started together: this one alone, unless torchrun or accelerate started it.

    Raises:
        UserError: they cannot meet.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return Team()
    with installed("training", "train"):
        from torch import cuda, distributed
    backend = "cpu:gloo,cuda:nccl" if cuda.is_available() else "gloo"
    try:
        # The others wait while the first one evaluates: longer than the half hour that is usual.
        distributed.init_process_group(backend, timeout=timedelta(days=7))
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"the processes that WORLD_SIZE speaks of cannot meet: {quoted(error, 200)}",
            next_step="start them with torchrun --nproc-per-node N -m caef_data train ..., or unset WORLD_SIZE",
        ) from error
    return Team(distributed.get_rank(), distributed.get_world_size())
