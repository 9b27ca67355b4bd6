"""Worker processes: how they start and end. Imports nothing heavy: they start while the command still imports."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from multiprocessing import forkserver, resource_tracker, util
from typing import Any, TypeVar

from ..errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

ARROW_POOL = "ARROW_DEFAULT_MEMORY_POOL"
LONGEST = 75  # bytes of the name of a folder in which sockets can lie: addresses have 107, and names below it 32


def default_workers() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start_fork_server() -> None:
    """Start the process that workers are forked from, unless it runs; it imports what they need meanwhile.

    It is a clean process: forking this one would copy the locks of running threads. Ctrl-C is blocked for it and its
    workers: this process ends them, in silence. Arrow uses jemalloc there: of its allocators it holds on to the least,
    and reuses it.
    """
    place_sockets()
    resource_tracker.ensure_running()  # it unblocks Ctrl-C when it starts: not between the lines below
    own = os.environ.get(ARROW_POOL)
    with uninterrupted():
        multiprocessing.set_forkserver_preload(["caef_data.pipelines.engine", "concurrent.futures.process"])
        os.environ[ARROW_POOL] = own or "jemalloc"  # read when Arrow first needs memory
        try:
            forkserver.ensure_running()
        finally:
            if own is None:
                del os.environ[ARROW_POOL]


def place_sockets() -> str:
    """Make the folder of the sockets by which workers are reached, if there is none yet, and return it.

    It lies elsewhere where that of TMPDIR has too long a name.
    """
    before = tempfile.tempdir
    places = (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm")
    short = (place for place in places if len(os.fsencode(place)) <= LONGEST and os.access(place, os.W_OK | os.X_OK))
    tempfile.tempdir = next(short, before)
    try:
        return util.get_temp_dir()  # made once, and known to multiprocessing
    finally:
        tempfile.tempdir = before


def remove_sockets() -> None:
    """Remove this folder, at the end of a process that does not wait for multiprocessing to do so."""
    shutil.rmtree(place_sockets(), ignore_errors=True)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back Ctrl-C until the block ends; processes started inside never see it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def by_workers(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    start: Callable[..., object],
    given: tuple[object, ...],
    mended_by: str,
) -> Generator[tuple[Item, Result], None, None]:
    """Yield each item with what worker processes make of it, as they finish; after an error or Ctrl-C they are killed.

    Args:
        work: what they do with an item.
        items: the items.
        workers: the processes.
        start: called in each with what is ``given``, as it begins.
        given: to ``start``.
        mended_by: what the user can do where a worker dies.

    Raises:
        UserError: a worker was killed, most often for lack of memory.
    """
    from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
    from concurrent.futures.process import BrokenProcessPool

    start_fork_server()
    begin, context = (dict(os.environ), start, given), multiprocessing.get_context("forkserver")
    pool = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=begin)
    try:
        queue = iter(items)
        with uninterrupted():  # a worker that is half started would print that its parent left it
            waiting = {pool.submit(work, item): item for item in islice(queue, 2 * workers)}
        while waiting:  # Ctrl-C does not end a wait without a limit: polars' handler has it restarted
            for future in wait(waiting, 0.5, FIRST_COMPLETED).done:
                yield waiting.pop(future), future.result()
                waiting |= {pool.submit(work, item): item for item in islice(queue, 1)}
    except (BrokenProcessPool, BrokenPipeError) as error:
        what = "a worker process ended: it was killed (most often because memory ran out), or could not start"
        raise UserError(what, next_step=mended_by) from error
    finally:
        if sys.exception() is not None:  # nobody waits for work that is half done
            for process in multiprocessing.active_children():
                process.kill()
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(environment: dict[str, str], start: Callable[..., object], given: tuple[Any, ...]) -> None:
    """Prepare a worker: it ignores Ctrl-C (its parent ends it), dies with its parent, and has its environment.

    The fork server has that of its own start, which another build may have caused: credentials set since are not there.
    """
    gc.freeze()  # what the fork server imported is shared with it: a collection would write on, and copy, all of it
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    start(*given)


def _end_with_parent() -> None:
    """Have this worker end when the process that started it ends, however it ends: else it waits for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def keep_freed_memory(up_to: int, *, below: int) -> None:
    """Have this process reuse what it frees rather than hand it back: it costs page faults to get it again.

    glibc alone is told; allocators of other systems have their own ways.

    Args:
        up_to: bytes that stay with the process.
        below: a block of memory of so many bytes or more goes back as soon as it is freed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(-1, min(up_to, 2**31 - 1))  # M_TRIM_THRESHOLD
        mallopt(-3, min(below, 2**31 - 1))  # M_MMAP_THRESHOLD


def hand_back_memory() -> None:
    """Give the system what this process has freed (glibc): gaps between what stays grow with every shard."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
