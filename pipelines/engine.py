"""What an engine is, and the local one: shards as tasks of worker processes."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from importlib.abc import SourceLoader
from itertools import islice
from pathlib import Path

from ..errors import UserError
from ..tm import machine
from .folder import Folder
from .manifest import ShardRecord
from .memory import keep_freed_memory
from .plan import Config
from .shard import write_shard
from .workers import end_with_parent, start_fork_server, uninterrupted

Task = tuple[int, int]  # index of the config, shard
Shards = Generator[tuple[Task, ShardRecord], None, None]
Engine = Callable[[Sequence[Config], Sequence[Task], Folder], Shards]
Source = tuple[str, str, bytes]  # module, file, text
Work = tuple[tuple[Config, ...], Folder]

MANY = 16_384  # expressions of a block

_worker: Work | None = None


def run_tasks(configs: Sequence[Config], tasks: Sequence[Task], folder: Folder, workers: int) -> Shards:
    """Yield every task with the record of its shard, in its place, as they finish.

    Shards are put in their place by this process while its workers render the next ones.

    Raises:
        UserError: a worker was killed, most often for lack of memory.
        OSError: a shard could not be written.
    """
    written = (
        ((task, write_shard(configs[task[0]], task[1], folder)) for task in tasks)
        if workers <= 1 or len(tasks) <= 1
        else _in_processes(configs, tasks, folder, min(workers, len(tasks)))
    )
    with closing(written):
        for task, record in written:
            folder.place(record.path)
            yield task, record


def _in_processes(configs: Sequence[Config], tasks: Sequence[Task], folder: Folder, workers: int) -> Shards:
    context = multiprocessing.get_context("forkserver")
    start_fork_server()
    given = (dict(os.environ), *packed(configs, folder))
    pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=given)
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
    except (BrokenProcessPool, BrokenPipeError) as error:
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


def packed(configs: Sequence[Config], folder: Folder) -> tuple[tuple[Source, ...], bytes]:
    """Return what ``unpacked`` takes in another process: the files of users' own machines, and the pickled rest."""
    found = [machine(config.settings.task) for config in configs]
    own = {(type(one).__module__, one.source) for one in found if not type(one).__module__.startswith("caef_data.")}
    texts = [(name, source, Path(source).read_bytes()) for name, source in sorted(own) if Path(source).is_file()]
    return tuple(texts), pickle.dumps((tuple(configs), folder))


def unpacked(sources: Iterable[Source], rest: bytes) -> Work:
    """Return configs and folder in a worker process, where users' own machines are defined now."""
    for name, path, text in sources:
        spec = importlib.util.spec_from_loader(name, _Text(path, text))
        if name not in sys.modules and spec is not None and spec.loader is not None:
            sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[name])
    _keep_memory()
    return pickle.loads(rest)


class _Text(SourceLoader):
    """Loads a module from its text: another machine does not have the file."""

    def __init__(self, path: str, text: bytes) -> None:
        self.path, self.text = path, text

    def get_filename(self, fullname: str) -> str:
        return self.path

    def get_data(self, path: str | bytes) -> bytes:
        return self.text


def _start(environment: dict[str, str], sources: tuple[Source, ...], rest: bytes) -> None:
    """Prepare a worker: it ignores Ctrl-C (its parent ends it), dies with its parent, and has its environment.

    The fork server has that of its own start, which another build may have caused: credentials set since are not there.
    """
    global _worker
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    _worker = unpacked(sources, rest)


def _keep_memory(block: int = 0) -> None:
    """Have a worker reuse its memory, block after block: a tenth of the time was page faults.

    Blocks of very many expressions, raw rows, hand large columns back at once: 50 MB less a worker, for 7% more time.

    Args:
        block: the expressions of a block.
    """
    keep_freed_memory(256 << 20, below=(4 if block > MANY else 32) << 20)


def _work(task: Task) -> ShardRecord:
    if _worker is None:
        raise RuntimeError("this worker was not started by a build")
    configs, folder = _worker
    _keep_memory(configs[task[0]].block)
    return write_shard(configs[task[0]], task[1], folder)
