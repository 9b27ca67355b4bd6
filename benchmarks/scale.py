"""Measures how builds grow: engines, the driver, planning; computes from it what large builds would take.

    python benchmarks/scale.py             medians of 3 runs: about 20 minutes on 2 cores
    python benchmarks/scale.py --write     the same, and puts the tables into docs/scale.md
    python benchmarks/scale.py --small     small data: tries the script, its numbers say nothing

Every measurement runs in a process of its own, into a fresh folder. Rates: from a build's first finished shard to its
last. Overhead of a shard: its share of the workers' time in a build of many small shards, less the time that
rendering, compressing and hashing it takes as many plain processes that run side by side. The driver: a build on Ray
whose tasks do nothing, so that only handing them out, their records and the notes are left.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import psutil  # type: ignore[import-untyped]

from caef_data.pipelines.plan import MOST_SHARDS, SHARD_TEXT

HERE = Path(__file__).resolve().parent
DOCUMENT = HERE.parent / "docs" / "scale.md"
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
    (1_000, 10_000),
    (
        *(("add", 1, num) for num in (20, 1_700, 170_000)),
        ("add", 7, 17_000_000),
        *(("mul", least, num) for least, num in ((1, 17_000), (7, 17_000_000))),
        *((task, 1, num) for task in ("equal", "reflection") for num in (300, 3_000)),
    ),
)
SMALL = Size("smoke", 4, (100, 300), (("add", 1, 20), ("reflection", 1, 20)))


def run(*parts: tuple[str, Sequence[object]]) -> list[Measured]:
    """Run parts side by side, each in a process and a folder of its own; return what they measured."""
    with tempfile.TemporaryDirectory(prefix="caef-scale-") as folder:
        running = []
        for at, (name, arguments) in enumerate(parts):
            command = [sys.executable, HERE / "scale_parts.py", name, f"{folder}/{at}", json.dumps(arguments)]
            running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        outputs = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit(f"{parts} failed")
    print(*parts, *(output.strip() for output in outputs), file=sys.stderr)
    return [json.loads(output) for output in outputs]


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
    """Return the table of large builds; docs/scale.md explains its letters."""
    rate = one["rows"] / one["seconds"] / 2  # of a processor, both at work
    packed_row, text_row = one["bytes"] / one["rows"], one["text_a_row"]
    node = min(CORES * rate, NETWORK / packed_row)
    hashed = hash_rate()
    limit = "network" if node < CORES * rate else "processors"
    lines = [
        f"R = {rate:,.0f} rows/s, B = {packed_row:.0f} bytes, T = {text_row:.0f} bytes,"
        f" D = {1 / handed['a_shard']:,.0f} shards/s, M = {handed['manifest'] / handed['shards']:.0f} bytes,"
        f" H = {amount(hashed)}/s."
        f" A node makes {node / 1e6:.2f} million rows/s, limited by its {limit}.",
        "",
        "| rows | on disk | shards | rows a shard | processor hours | nodes | hours | limited by | manifest | hashed |"
        " uploaded | commits, repositories |",
        "|---:|---:|---:|---:|---:|---:|---:|---|---:|---:|---:|---:|",
    ]
    for rows, tries in SIZES:
        size = rows * packed_row
        shards = min(ceil(rows * text_row / (0.75 * SHARD_TEXT)), one["train_configs"] * MOST_SHARDS)
        for nodes in tries:
            limits = {"nodes": nodes * node, "driver": rows / shards / handed["a_shard"]}
            slowest = min(limits, key=lambda name: limits[name])
            cells = [
                f"10^{len(str(rows)) - 1}",
                amount(size),
                f"{shards:,}",
                f"{rows / shards:,.0f}",
                hours(rows / rate),
                f"{nodes:,}",
                hours(rows / limits[slowest]),
                slowest,
                amount(shards * handed["manifest"] / handed["shards"]),
                f"{hours(size / hashed)} h",
                f"{hours(size / NETWORK)} h",
                f"{ceil(shards / COMMIT):,}, {ceil(shards / REPOSITORY):,}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def hash_rate() -> float:
    """Return the bytes a second that one processor hashes."""
    content = os.urandom(1 << 24)
    start = time.perf_counter()
    for _ in range(16):
        hashlib.sha256(content)
    return 16 * len(content) / (time.perf_counter() - start)


def hours(seconds: float) -> str:
    return f"{seconds / 3600:,.0f}" if seconds >= 36_000 else f"{seconds / 3600:.2g}"


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
    chosen = parser.parse_args()
    size = SMALL if chosen.small else FULL
    engines, one = throughput(size, max(1, chosen.repeat))
    handed_out, handed = driver(size)
    many = f"Engines: medians of {chosen.repeat} runs; the rest: one run." if chosen.repeat > 1 else "One run each."
    runs = f"{machine()}. {many}"
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
