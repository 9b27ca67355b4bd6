"""What ``scale.py`` measures, each part in a process of its own: ``python scale_parts.py PART FOLDER ARGUMENTS``.

Prints one line of JSON. The driver's part is a build on Ray whose tasks do nothing: only handing them out, their
records, the notes and the manifest are left.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from caef_data.pipelines import ray_engine
from caef_data.pipelines.build import build, choose_engine
from caef_data.pipelines.declaration import from_flags, load_declaration
from caef_data.pipelines.engine import Engine, packed, write_shard
from caef_data.pipelines.folder import Folder
from caef_data.pipelines.manifest import ShardRecord
from caef_data.pipelines.plan import Plan, make_plan
from caef_data.pipelines.settings import Declaration

Measured = dict[str, Any]


def work(name: str, longest: int) -> Plan:
    """Return the plan of a declaration, or that of ``shards``: many small ones."""
    if name != "shards":
        return make_plan(load_declaration(name))
    return make_plan(one_step("add", max=longest, num=20, rows_per_shard=60))


@contextmanager
def started(name: str, workers: int) -> Iterator[Engine]:
    """Start an engine; Ray on a cluster of this machine that has ``workers`` processors."""
    if name == "local":
        with choose_engine(name, workers) as engine:
            yield engine
        return
    ray_engine.keep_quiet()
    import ray

    ray.init(address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        with choose_engine(name) as engine:
            yield engine
    finally:
        ray.shutdown()


def engine_part(folder: Path, name: str, workers: int, what: str, longest: int) -> Measured:
    """Build; return seconds to the first shard and from there to the last, and what was built meanwhile."""
    plan, done = work(what, longest), list[tuple[float, int, int]]()
    start = time.perf_counter()
    with started(name, workers) as engine:
        build(plan, folder / "data", engine=engine, progress=lambda _, record, __: done.append(entry(record)))
    later = done[1:]
    return {
        "first": done[0][0] - start,
        "seconds": done[-1][0] - done[0][0],
        "shards": len(later),
        "rows": sum(rows for _, rows, _ in later),
        "bytes": sum(size for _, _, size in later),
        "text_a_row": sum(config.text for config in plan.configs) / sum(config.rows for config in plan.configs),
        "train_configs": sum(config.split == "train" for config in plan.configs),
    }


def entry(record: ShardRecord) -> tuple[float, int, int]:
    return time.perf_counter(), record.rows, record.bytes


def own_part(folder: Path, part: int, parts: int, longest: int) -> Measured:
    """Write every ``parts``-th of the small shards, with nothing around it; return the seconds of one."""
    plan = work("shards", longest)
    target = Folder(folder / "data")
    shards = range(part, plan.configs[0].num_shards, parts)
    write_shard(plan.configs[0], shards[0], target)  # imports, and the first look at everything
    start = time.perf_counter()
    for shard in shards:
        write_shard(plan.configs[0], shard, target)
    return {"seconds": (time.perf_counter() - start) / len(shards)}


def driver_part(folder: Path, shards: int) -> Measured:
    """Build on Ray with tasks that do nothing; return what is left."""
    rows = make_plan(one_step("add", num=20)).configs[0].rows
    plan = make_plan(one_step("add", num=20, rows_per_shard=max(1, rows // shards)))
    number = plan.configs[0].num_shards

    def nothing(job: object, task: tuple[int, int]) -> object:
        from caef_data.pipelines.manifest import ShardRecord

        path = f"add-one_step/train-{task[1]:05d}-of-{number:05d}.parquet"
        sizes = {"prompt": (40_000_000, 400), "completion": (40_000_000, 400)}
        return ShardRecord(path, 100_000, 25_000_000, "0123456789abcdef" * 4, sizes)

    ray_engine._task = lambda: nothing  # type: ignore[assignment]
    done = list[float]()
    with started("ray", len(os.sched_getaffinity(0))) as engine:
        plan_file = folder / "data" / ".caef" / "plan.json"
        sizes = list[int]()

        def progress(*_: object) -> None:
            done.append(time.perf_counter())
            if not sizes:
                sizes.append(plan_file.stat().st_size)

        build(plan, folder / "data", engine=engine, progress=progress)
    return {
        "shards": number,
        "plan": sizes[0],
        "a_shard": (done[-1] - done[0]) / (number - 1),
        "manifest": (folder / "data" / "manifest.json").stat().st_size,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def one_step(task: str, **settings: Any) -> Declaration:
    return from_flags([task], **{"max": 100, "splits": ["train"], "views": ["one_step"], **settings})


def plan_part(folder: Path, task: str, least: int, num: int) -> Measured:
    """Plan a task; return what that costs, and what every worker is sent."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    configs = make_plan(one_step(task, min=least, num=num)).configs
    seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "rows": configs[0].rows,
        "shards": configs[0].num_shards,
        "seconds": seconds,
        "memory": memory * 1024,
        "sent": len(pickle.dumps(packed(configs, Folder(folder)))),
    }


PARTS: dict[str, Callable[..., Measured]] = {
    "engine": engine_part,
    "own": own_part,
    "driver": driver_part,
    "plan": plan_part,
}

if __name__ == "__main__":
    name, folder, arguments = sys.argv[1:]
    Path(folder).mkdir(parents=True)
    print(json.dumps(PARTS[name](Path(folder), *json.loads(arguments))))
