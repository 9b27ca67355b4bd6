"""The Ray engine: shards as tasks on the nodes of a cluster, which all see the folder.

A task writes its shard and puts it in its place; the driver, the process that the user started, collects the records,
and writes notes, card and manifest. Whatever a lost worker or node was doing Ray does again elsewhere.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import islice
from typing import Any

from ..errors import UserError, installed, printable_path, quoted
from .engine import Engine, Shards, Task, packed, unpacked, write_shard
from .folder import Folder
from .manifest import PLAN, ShardRecord
from .plan import Config
from .versions import built_with, rules

Job = Any  # a reference to what every task needs, the same for all: it is sent to a node once

LOSSES = 10  # a shard may lose its worker or its node so often: nodes may be taken away, that is no fault of its own
AHEAD = 2  # tasks given to Ray for each processor: one that is free does not wait for this process
GRACE = 10.0  # seconds for the last tasks to end by themselves, where they cannot be stopped
HEAD = 4096  # bytes of a build's notes, with its command and its identity; the list of shards behind may be long


@contextmanager
def ray_engine(workers: int | None = None) -> Iterator[Engine]:
    """Join a Ray cluster, and yield the engine that builds on it, with so many ``workers`` at most.

    It is the cluster that the process has joined already, else the one that RAY_ADDRESS names, else the one that runs
    on this machine, else a new one, which ends with the block.

    Raises:
        UserError: Ray is not installed, or the cluster cannot be joined.
    """
    keep_quiet()
    with installed("building on Ray", "ray"):
        import ray
    ours = not ray.is_initialized()
    try:
        if ours:
            _join()
        yield partial(run_on_ray, workers=workers, leave=ours)
    finally:
        if ours:
            ray.shutdown()


def keep_quiet() -> None:
    """Have Ray send nothing home, and keep the logs of dead nodes off standard output; before it is imported."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "^")


def _join() -> None:
    import ray

    named = os.environ.get("RAY_ADDRESS", "")
    try:
        if "://" in named:
            raise ValueError("this process must run on a node of the cluster, there is no Ray client here")
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"the Ray cluster cannot be joined: {quoted(str(error), 300)}",
            where=f"RAY_ADDRESS {quoted(named)}",
            allowed="host:port of its head, `auto` for the one that runs on this machine, `local` for a new one",
            next_step="run this on a node of a running cluster (`ray start`, `ray status`)",
        ) from error


def run_on_ray(
    configs: Sequence[Config], tasks: Sequence[Task], folder: Folder, workers: int | None = None, leave: bool = False
) -> Shards:
    """Yield every task with the record of its shard, in its place, as they finish; this process has joined a cluster.

    Where the build is stopped this process can ``leave`` a cluster that it has joined: that ends its tasks at once.
    """
    import ray

    folder = folder.absolute()
    job = ray.put((_versions(), _plan(folder), packed(configs, folder)))
    remote = ray.remote(num_cpus=1, max_retries=LOSSES)(make_shard)
    queue = iter(tasks)
    waiting: dict[Any, Task] = {}
    try:
        while True:
            # Clusters grow and shrink, some from nothing.
            most = workers or max(4, int(AHEAD * ray.cluster_resources().get("CPU", 0)))
            waiting |= {remote.remote([job], task): task for task in islice(queue, max(0, most - len(waiting)))}
            if not waiting:
                break
            for done in ray.wait(list(waiting))[0]:
                task = waiting.pop(done)
                yield task, _record(done, configs[task[0]].shard_path(task[1]))
    finally:
        # What tasks were writing is removed when they have ended. ``ray.cancel`` is not used: in Ray 2.60 it now and
        # then ends this process, where a task ends at the same moment.
        if waiting and leave:
            ray.shutdown()  # the cluster ends the workers of a driver that left
        elif waiting:
            ray.wait(list(waiting), num_returns=len(waiting), timeout=GRACE)
    folder.sweep_aside()  # what lost workers were writing


def _record(done: Any, path: str) -> ShardRecord:
    """Return what a task returned, or raise what it raised; ``UserError`` where the cluster cannot make this shard."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        record: ShardRecord = ray.get(done)
    except RayTaskError as error:
        if isinstance(error.cause, UserError | OSError):
            raise error.cause from error
        what = f"a node could not make a shard: {quoted(str(error.cause), 300)}"
        raise UserError(what, where=path, next_step="install this version of caef-data on every node") from error
    except RayError as error:
        raise UserError(
            f"a shard was given up, its workers were lost again and again: {quoted(str(error), 300)}",
            where=path,
            next_step="run the same command again, finished shards are kept; where memory ran out, with fewer"
            " processors a node (`ray start --num-cpus`) or fewer --workers",
        ) from error
    return record


# In the workers


def make_shard(job: list[Job], task: Task) -> ShardRecord:
    """Write a shard and put it in its place; what all tasks need is in a list, so that it stays where it is.

    A worker that was thought lost may be at it, too: both write the same bytes, aside under different names. And one
    that was forgotten by a build that is over, or was replaced by another, must not place anything any more.

    Raises:
        UserError: this node is not set up like the one that the build was started on.
        OSError: the shard could not be written.
    """
    configs, folder, plan = _unpacked(job[0])
    folder.attempt = f"{os.urandom(4).hex()}-"
    _check(folder, plan)
    record = write_shard(configs[task[0]], task[1], folder)
    _check(folder, plan)
    folder.place(record.path)
    return record


@lru_cache(maxsize=1)  # a worker makes many shards of a build
def _unpacked(job: Job) -> tuple[Sequence[Config], Folder, bytes | None]:
    import ray

    versions, plan, rest = ray.get(job)
    for name, version in _versions().items():
        if version != versions.get(name):
            raise UserError(
                f"the node {socket.gethostname()} has {name} {version}, the build was started with"
                f" {versions.get(name)}: its shards could differ",
                next_step="install the same versions on every node",
            )
    return *unpacked(*rest), plan


def _versions() -> dict[str, str | int]:
    """Return all that two nodes must agree on to make the same bytes."""
    return {**built_with(), **rules()}


def _check(folder: Folder, plan: bytes | None) -> None:
    there, node = _plan(folder), socket.gethostname()
    if there is None:
        raise UserError(
            f"the node {node} does not see {printable_path(folder.name)}",
            next_step="choose a folder with --out that all nodes see under this name, or a URL (s3://bucket/prefix)",
        )
    if there != plan:
        raise UserError(
            f"the node {node} sees another build in this folder",
            where=printable_path(folder.name),
            next_step="run the same command again; finished shards are kept",
        )


def _plan(folder: Folder) -> bytes | None:
    """Return what tells the build under way from others: the head of its notes."""
    try:
        with folder.open(PLAN) as file:
            return file.read(HEAD)
    except FileNotFoundError:
        return None
