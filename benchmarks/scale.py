"""Measures how builds grow: engines, the driver, planning; computes from it what large builds would take.

    python benchmarks/scale.py             medians of 3 runs: about 40 minutes on 2 cores
    python benchmarks/scale.py --write     the same, and puts the tables into docs/scale.md
    python benchmarks/scale.py --small     small data: tries the script, its numbers say nothing

Every measurement runs in a process of its own, into a fresh folder. Rates: from a build's first finished shard to its
last. Overhead of a shard: its share of the workers' time in a build of many small shards, less the time that
rendering, compressing and hashing it takes as many plain processes that run side by side. The driver: a build on Ray
whose tasks do nothing, so that only handing them out, their records and the notes are left.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import psutil  # type: ignore[import-untyped]

from caef_data.pipelines import ray_engine
from caef_data.pipelines.build import build
from caef_data.pipelines.declaration import from_flags, load_declaration
from caef_data.pipelines.engine import Engine, EngineChoice, packed
from caef_data.pipelines.local_folder import LocalFolder
from caef_data.pipelines.plan import MOST_SHARDS, SHARD_TEXT, Plan, make_plan
from caef_data.pipelines.settings import Declaration
from caef_data.pipelines.shard import ShardRecord

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "scale.md"
ENGINES = (("local", 1), ("local", 2), ("ray", 1), ("ray", 2))
CORES, NETWORK = 64, 10e9 / 8  # of a node: processors, bytes a second to what holds the folder
SIZES = ((10**9, (1, 10)), (10**10, (10, 100)), (10**12, (100, 1000)))  # rows, and nodes to try
COMMIT, REPOSITORY = 25_000, 100_000  # files that the Hub takes in a commit; advises at most for a repository
Measured = dict[str, Any]


class Size(NamedTuple):
    """What is built and planned.

    Args:
        declaration: for the rates.
        longest: digits of the operands in small shards.
        driver: numbers of shards.
        plans: tasks with ``--min`` and ``--num``.
    """

    declaration: str
    longest: int
    driver: tuple[int, ...]
    plans: tuple[tuple[str, int, int], ...]


FULL = Size(
    "paper",
    20,
    (1_000, 10_000, 50_000),
    (
        *(("add", 1, num) for num in (20, 1_700, 17_000, 170_000)),
        ("add", 7, 17_000_000),
        *(("mul", least, num) for least, num in ((1, 17_000), (7, 17_000_000))),
        *(("equal", 1, num) for num in (300, 3_000)),
        *(("reflection", 1, num) for num in (300, 3_000)),
    ),
)
SMALL = Size("smoke", 4, (100, 300), (("add", 1, 20), ("reflection", 1, 20)))


# ------------------------------------------------------------------------------------------ parts, each in a process


def work(name: str, longest: int) -> Plan:
    """Return the plan of a declaration, or that of ``shards``: many small ones."""
    if name != "shards":
        return make_plan(load_declaration(name))
    return make_plan(one_step("add", max=longest, num=20, rows_per_shard=60))


@contextmanager
def started(name: str, workers: int) -> Iterator[Engine]:
    """Start an engine; Ray on a cluster of this machine that has ``workers`` processors."""
    if name == "local":
        with EngineChoice(name, workers).start() as engine:
            yield engine
        return
    ray_engine.keep_quiet()
    import ray

    ray.init(address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        with EngineChoice(name).start() as engine:
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
    target = LocalFolder(folder / "data")
    shards = range(part, plan.configs[0].num_shards, parts)
    target.write_shard(plan.configs[0], shards[0])  # imports, and the first look at everything
    start = time.perf_counter()
    for shard in shards:
        target.write_shard(plan.configs[0], shard)
    return {"seconds": (time.perf_counter() - start) / len(shards)}


def driver_part(folder: Path, shards: int) -> Measured:
    """Build on Ray with tasks that do nothing; return what is left."""
    rows = make_plan(one_step("add", num=20)).configs[0].rows
    plan = make_plan(one_step("add", num=20, rows_per_shard=max(1, rows // shards)))
    number = plan.configs[0].num_shards

    def nothing(job: object, task: tuple[int, int]) -> object:
        from caef_data.pipelines.shard import ShardRecord

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
        "sent": len(pickle.dumps(packed(configs, LocalFolder(folder)))),
    }


PARTS: dict[str, Callable[..., Measured]] = {
    "engine": engine_part,
    "own": own_part,
    "driver": driver_part,
    "plan": plan_part,
}


def run(*parts: tuple[str, Sequence[object]]) -> list[Measured]:
    """Run parts side by side, each in a process and a folder of its own; return what they measured."""
    with tempfile.TemporaryDirectory(prefix="caef-scale-") as folder:
        running = []
        for at, (name, arguments) in enumerate(parts):
            command = [sys.executable, __file__, "--part", name, f"{folder}/{at}", json.dumps(arguments)]
            running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        outputs = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit(f"{parts} failed")
    print(*parts, *(output.strip() for output in outputs), file=sys.stderr)
    return [json.loads(output) for output in outputs]


# ------------------------------------------------------------------------------------------------------------- tables


def throughput(size: Size, repeat: int) -> tuple[str, Measured]:
    """Return the table of engines, and the medians of the last of them: Ray with two workers."""
    full: dict[tuple[str, int], list[Measured]] = {key: [] for key in ENGINES}
    small: dict[tuple[str, int], list[Measured]] = {key: [] for key in ENGINES}
    own: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(repeat):
        for key in ENGINES:
            full[key] += run(("engine", [*key, size.declaration, size.longest]))
            small[key] += run(("engine", [*key, "shards", size.longest]))
        for parts in own:
            own[parts] += [
                one["seconds"] for one in run(*(("own", [part, parts, size.longest]) for part in range(parts)))
            ]
    lines = [
        f"| engine, workers | first shard after | shards/s, `{size.declaration}` | rows/s | MB/s on disk"
        " | small shards/s | overhead of a shard |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    middle = {key: middle_of(found) for key, found in full.items()}
    for key in ENGINES:
        one, many = middle[key], middle_of(small[key])
        overhead = many["seconds"] / many["shards"] * key[1] - median(own[key[1]])
        cells = [
            f"{key[0]}, {key[1]}",
            f"{one['first']:.1f} s",
            f"{one['shards'] / one['seconds']:.1f}",
            f"{one['rows'] / one['seconds']:,.0f}",
            f"{one['bytes'] / one['seconds'] / 1e6:.1f}",
            f"{many['shards'] / many['seconds']:.0f}",
            f"{overhead * 1000:.1f} ms",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    one = middle[ENGINES[-1]]
    lines += [
        "",
        f"`{size.declaration}`: {one['rows']:,} rows in {one['shards']} shards (the first one not counted),"
        f" {one['bytes'] / one['rows']:.0f} bytes a row on disk, {one['text_a_row']:.0f} of text. A small shard takes"
        f" {median(own[1]) * 1000:.1f} ms by itself, {median(own[2]) * 1000:.1f} ms beside another one.",
    ]
    return "\n".join(lines), one


def middle_of(found: Sequence[Measured]) -> Measured:
    return {
        name: median(one[name] for one in found) if name in ("first", "seconds") else found[0][name]
        for name in found[0]
    }


def driver(size: Size) -> tuple[str, Measured]:
    """Return the table of what the driver does for each shard, and the last measurement."""
    lines = [
        "| shards | a shard | shards/s at most | `plan.json` | `manifest.json` | memory of the driver |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for shards in size.driver:
        (one,) = run(("driver", [shards]))
        cells = [
            f"{one['shards']:,}",
            f"{one['a_shard'] * 1000:.2f} ms",
            f"{1 / one['a_shard']:,.0f}",
            amount(one["plan"]),
            amount(one["manifest"]),
            amount(one["memory"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines), one


def planning(size: Size) -> str:
    """Return the table of what planning costs."""
    lines = [
        "| task, `--min`, `--num` | rows | shards | planned in | memory for it | sent to every worker |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for task, least, num in size.plans:
        (one,) = run(("plan", [task, least, num]))
        cells = [
            f"{task}, {least}, {num:,}",
            f"{one['rows']:.2g}",
            f"{one['shards']:,}",
            f"{one['seconds']:.1f} s",
            amount(one["memory"]),
            amount(one["sent"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def estimate(one: Measured, handed: Measured) -> str:
    """Return the table of large builds; docs/scale.md explains its columns."""
    rate = one["rows"] / one["seconds"] / 2  # of a processor, both at work
    row = one["bytes"] / one["rows"]
    a_node = min(CORES * rate, NETWORK / row)
    lines = [
        f"R = {rate:,.0f} rows/s a processor, B = {row:.0f} and T = {one['text_a_row']:.0f} bytes a row, packed and text,"
        f" D = {1 / handed['a_shard']:,.0f} shards/s of the driver: a node makes {a_node / 1e6:.2f} million rows/s"
        f" ({'network' if a_node < CORES * rate else 'processors'}).",
        "",
        "| rows | on disk | shards | rows a shard | processor hours | nodes | hours | held back by | manifest |"
        " upload | Hub |",
        "|---:|---:|---:|---:|---:|---:|---:|---|---:|---:|---|",
    ]
    for rows, tries in SIZES:
        shards = min(ceil(rows * one["text_a_row"] / (0.75 * SHARD_TEXT)), one["train_configs"] * MOST_SHARDS)
        for nodes in tries:
            limits = {"nodes": nodes * a_node, "driver": rows / shards / handed["a_shard"]}
            slowest = min(limits, key=lambda name: limits[name])
            where = "files of one repository" if shards <= REPOSITORY else f"{ceil(shards / REPOSITORY)} repositories"
            cells = [
                f"10^{len(str(rows)) - 1}",
                amount(rows * row),
                f"{shards:,}",
                f"{rows / shards:,.0f}",
                f"{rows / rate / 3600:,.1f}",
                f"{nodes}",
                f"{rows / limits[slowest] / 3600:.2g}"
                if rows / limits[slowest] < 360_000
                else f"{rows / limits[slowest] / 3600:,.0f}",
                slowest,
                amount(shards * handed["manifest"] / handed["shards"]),
                f"{rows * row / NETWORK / 3600:,.1f} h",
                f"{ceil(shards / COMMIT)} commits, {where}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def amount(size: float) -> str:
    for unit, least in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= least:
            return f"{size / least:,.1f} {unit}"
    return f"{size / 1e3:,.0f} kB"


def machine() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory().total / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in ("caef-data", "ray", "numpy", "pyarrow", "polars"))
    return f"{cores} cores, {memory:.0f} GiB, Python {platform.python_version()}, {packages}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how builds grow; prints Markdown tables.")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each engine (3)")
    parser.add_argument("--small", action="store_true", help="small data, to try the script")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/scale.md")
    parser.add_argument("--part", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.part:
        name, folder, arguments = chosen.part
        Path(folder).mkdir(parents=True)
        print(json.dumps(PARTS[name](Path(folder), *json.loads(arguments))))
        return
    size = SMALL if chosen.small else FULL
    engines, one = throughput(size, max(1, chosen.repeat))
    handed_out, handed = driver(size)
    runs = f"{machine()}. Engines: medians of {max(1, chosen.repeat)} runs; the rest: one run."
    tables = {"scale": f"{engines}\n\n{runs}", "driver": handed_out, "planning": planning(size)}
    tables["estimate"] = estimate(one, handed)
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, table in tables.items():
        print(f"<!-- {name} -->\n{table}\n<!-- /{name} -->\n")
        text = re.sub(
            f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", lambda m, t=table: f"{m[1]}{t}\n{m[2]}", text, flags=re.DOTALL
        )
    if chosen.write:
        DOCUMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
