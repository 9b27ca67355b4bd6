"""What an engine is, and the local one: shards as tasks of worker processes."""

from __future__ import annotations

import ctypes
import importlib.util
import multiprocessing
import pickle
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

import pyarrow as pa

from ..errors import UserError
from ..tm import Machine, machine
from .folder import Folder
from .plan import Config
from .shard import ShardRecord
from .workers import end_with_parent, start_fork_server, uninterrupted

Task = tuple[int, int]  # index of the config, shard
Shards = Generator[tuple[Task, ShardRecord], None, None]
Engine = Callable[[Sequence[Config], Sequence[Task], Folder], Shards]

_worker: tuple[tuple[Config, ...], Folder] | None = None


def run_tasks(
    configs: Sequence[Config], tasks: Sequence[Task], folder: Folder, workers: int
) -> Shards:
    """Yield every task with the record of its shard, written but not yet in its place, as they finish.

    Raises:
        UserError: a worker was killed, most often for lack of memory.
        OSError: a shard could not be written.
    """
    if workers <= 1 or len(tasks) <= 1:
        for task in tasks:
            yield task, folder.write_shard(configs[task[0]], task[1])
        return
    yield from _in_processes(configs, tasks, folder, min(workers, len(tasks)))


def _in_processes(
    configs: Sequence[Config], tasks: Sequence[Task], folder: Folder, workers: int
) -> Iterator[tuple[Task, ShardRecord]]:
    found = [machine(config.settings.task) for config in configs]
    sources = tuple({(type(one).__module__, one.source) for one in found if not _shipped(one)})
    context = multiprocessing.get_context("forkserver")
    start_fork_server()
    payload = (sources, pickle.dumps((tuple(configs), folder)))
    pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=payload)
    try:
        waiting: dict[Future[ShardRecord], Task] = {}
        queue = iter(tasks)
        with uninterrupted():  # a worker that is half started would print that its parent left it
            for task in islice(queue, 2 * workers):
                waiting[pool.submit(_work, task)] = task
        while waiting:
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                task = waiting.pop(future)
                yield task, future.result()
                following = next(queue, None)
                if following is not None:
                    waiting[pool.submit(_work, following)] = following
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process ended: it was killed (most often because memory ran out), or could not start",
            next_step="run the same command again with fewer --workers, finished shards are kept; a Python script that"
            ' builds needs `if __name__ == "__main__":` around its own code',
        ) from error
    finally:
        if sys.exc_info()[0] is not None:  # Ctrl-C or an error: nobody waits for half a shard
            for process in multiprocessing.active_children():
                process.kill()
        pool.shutdown(wait=True, cancel_futures=True)


def _shipped(found: Machine) -> bool:
    return type(found).__module__.startswith("caef_data.")


def _start(sources: tuple[tuple[str, str], ...], configs: bytes) -> None:
    """Prepare a worker: it ignores Ctrl-C (its parent ends it) and dies with its parent."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    for name, source in sources:  # machines that a user's own file defines
        spec = importlib.util.spec_from_file_location(name, source)
        if name not in sys.modules and spec is not None and spec.loader is not None:
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
    _keep_memory()
    _worker = pickle.loads(configs)


def _keep_memory() -> None:
    """Have a worker reuse its memory, block after block, rather than hand it back: a tenth of the time was page faults.

    Arrow uses the system's allocator then, whose peak was 100 MB a worker where Arrow's own held on to 150.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # glibc; other systems have their own ways
        mallopt(-1, 256 << 20)  # M_TRIM_THRESHOLD
        mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD


def _work(task: Task) -> ShardRecord:
    if _worker is None:
        raise RuntimeError("this worker was not started by a build")
    configs, folder = _worker
    return folder.write_shard(configs[task[0]], task[1])
