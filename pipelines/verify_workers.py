"""Who checks which parts: the views of a task's split go to one worker, which draws their expressions once."""

import gc
import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import groupby

from ..errors import UserError
from .verify_plan import Draws
from .verify_shard import Part, PartResult, verify_part
from .workers import end_with_parent, start_fork_server, uninterrupted

Results = Iterator[tuple[Part, PartResult]]
_SHARE = 3  # units a worker has at least, so that none waits long for the others
_ROW = 500  # bytes of text of a row whose plan is not known


@dataclass(frozen=True, eq=False)
class Unit:
    """Parts that one worker checks, one after the other.

    Args:
        parts: of one split of a task.
        keep: whether their expressions are drawn once, and kept: not where more workers than there are views have
            units of the same expressions.
    """

    parts: tuple[Part, ...]
    keep: bool


def units(parts: Sequence[Part], workers: int) -> list[Unit]:
    """Cut parts, sorted by task and split, into units; a split that is large is shared out."""
    most = sum(map(_weight, parts)) / (_SHARE * workers) if workers > 1 else float("inf")
    found = []
    for _, group in groupby(parts, key=lambda part: (part.task, part.split)):
        own = list(group)
        pieces = min(len(own), max(1, round(sum(map(_weight, own)) / most))) if most else 1
        keep = pieces < len({part.view for part in own})
        found += [Unit(tuple(own[piece::pieces]), keep) for piece in range(pieces)]
    return found


def _weight(part: Part) -> float:
    """Return the bytes of a part's text, about: the work that it is."""
    return part.rows * (part.plan.config.text / max(part.plan.config.rows, 1) if part.plan is not None else _ROW)


def run_here(todo: Sequence[Unit]) -> Results:
    """Yield the results of units, worked on in this process."""
    for unit in todo:
        draws = Draws(unit.keep)
        for part in unit.parts:
            yield part, verify_part(part, draws)


_units: dict[int, tuple[Unit, Draws]] = {}  # the one that this worker works on, under its number


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the workers
    end_with_parent()
    gc.disable()  # nothing here makes cycles; walking the cached problems cost a tenth of the time


def _begin(number: int, unit: Unit) -> None:
    """Take a unit: sent once, as its parts share what they are planned from."""
    _units.clear()
    _units[number] = unit, Draws(unit.keep)


def _work(number: int, index: int) -> PartResult:
    unit, draws = _units[number]
    return verify_part(unit.parts[index], draws)


class Workers:
    """Worker processes, each with a queue of its own.

    Args:
        number: of the processes; they are started when they are first needed.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.lanes: list[ProcessPoolExecutor] = []

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error: object) -> None:
        for lane in self.lanes:
            if error[0] is not None:  # Ctrl-C must not wait for the parts in work
                for process in list((getattr(lane, "_processes", None) or {}).values()):
                    process.terminate()
            lane.shutdown(cancel_futures=True)

    def run(self, todo: Sequence[Unit]) -> Results:
        """Yield the results of units, in no order.

        Raises:
            UserError: a worker died.
        """
        waiting: dict[Future[PartResult], tuple[ProcessPoolExecutor, Part]] = {}
        left = enumerate(todo)
        queues: dict[ProcessPoolExecutor, Iterator[tuple[int, int, Part]]] = {}

        def feed(lane: ProcessPoolExecutor) -> None:
            following = next(queues[lane], None) if lane in queues else None
            if following is None:
                number, unit = next(left, (0, None))
                if unit is None:
                    return
                lane.submit(_begin, number, unit)
                queues[lane] = ((number, index, part) for index, part in enumerate(unit.parts))
                following = next(queues[lane])
            *where, part = following
            waiting[lane.submit(_work, *where)] = lane, part

        try:
            for lane in self._started(min(self.number, len(todo))):
                feed(lane)
                feed(lane)  # so that it has work while this process takes up a result
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    lane, part = waiting.pop(future)
                    feed(lane)
                    yield part, future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process died: out of memory, or a damaged file crashed the Parquet reader",
                next_step="run caef-data verify --workers 1",
            ) from error

    def _started(self, number: int) -> list[ProcessPoolExecutor]:
        context = multiprocessing.get_context("forkserver")  # polars and pyarrow threads do not survive a fork
        start_fork_server()
        with uninterrupted():
            while len(self.lanes) < number:
                self.lanes.append(ProcessPoolExecutor(1, context, initializer=_start_worker))
        return self.lanes[:number]
