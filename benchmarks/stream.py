"""Measures streams of rows; prints a Markdown table.

    python benchmarks/stream.py            all rows, medians of 5 runs: a minute on 2 cores
    python benchmarks/stream.py --small    small data: tries the script

``speed``: rows as dicts of Python strings, one_step of add, operands of 1 to 100 digits, against the items of
reasoning-gym's chain_sum with its defaults: as many processes as there are cores, both sides in turn, each process
counts what it makes in some seconds after its first rows. Needs reasoning-gym 0.1.25, in an environment of its own:

    python -m venv /tmp/gym && /tmp/gym/bin/pip install reasoning-gym==0.1.25
    python benchmarks/stream.py --gym /tmp/gym/bin/python

``memory``: the resident memory of one process after 10**7 rows, less that after 10**5.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from statistics import median

from build import Goal, Result, machine, number, table

GOALS = {
    "speed": Goal(
        "one_step add 1..100, rows/s as Python strings / items/s of reasoning-gym's chain_sum", 4, 10, least=True
    ),
    "memory": Goal("memory of a stream after 10^7 rows, beyond that after 10^5", 20, 0, "MB"),
}
OURS = "import caef_data; rows = iter(caef_data.stream(task='add', min=1, max=100, num=20))"
THEIRS = "import reasoning_gym; rows = iter(reasoning_gym.create_dataset('chain_sum', size=10**9, seed=SEED))"
COUNT = """
import os, sys, time
from itertools import islice
SEED = os.getpid()
{setup}
for _ in islice(rows, 20_000):
    pass
print("ready", flush=True)
sys.stdin.readline()
begin, made = time.perf_counter(), 0
while (seconds := time.perf_counter() - begin) < {seconds}:
    for row in islice(rows, 1_000):
        made += 1
print(made / seconds)
"""
GROWTH = """
import os
from itertools import islice
{setup}
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
for _ in islice(rows, {first}):
    pass
before = resident()
for _ in islice(rows, {more}):
    pass
print(before, resident() - before)
"""


def rate(python: str, setup: str, seconds: float, processes: int) -> float:
    """Return the rows a second of some processes together."""
    code = COUNT.format(setup=setup, seconds=seconds)
    pipe = subprocess.PIPE
    running = [subprocess.Popen([python, "-c", code], stdin=pipe, stdout=pipe, text=True) for _ in range(processes)]
    for one in running:
        if one.stdout is None or one.stdout.readline() != "ready\n":
            raise SystemExit(f"{python} cannot do this: {setup}")
    for one in running:
        one.stdin.write("\n")  # type: ignore[union-attr]
        one.stdin.flush()  # type: ignore[union-attr]
    return sum(float(one.communicate()[0]) for one in running)


def speed(gym: str, seconds: float, repeat: int, processes: int) -> Result:
    """Measure both sides in turn."""
    runs: dict[str, list[float]] = {"caef-data": [], "reasoning-gym": []}
    for _ in range(repeat):
        runs["caef-data"].append(rate(sys.executable, OURS, seconds, processes))
        runs["reasoning-gym"].append(rate(gym, THEIRS, seconds, processes))
    ours, theirs = (median(found) for found in runs.values())
    return Result("speed", ours / theirs, f"{ours:,.0f} rows/s / {theirs:,.0f} items/s, {processes} processes", runs)


def memory(rows: int) -> Result:
    """Measure what a process holds on to."""
    code = GROWTH.format(setup=OURS, first=rows // 100, more=rows - rows // 100)
    before, growth = map(float, subprocess.check_output([sys.executable, "-c", code], text=True).split())
    return Result(
        "memory", growth, f"{before:.0f} MB after {rows // 100:,} rows, {before + growth:.0f} MB after {rows:,}", {}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure streams; prints a Markdown table.")
    parser.add_argument("--repeat", type=int, default=5, help="runs of everything that is timed (5)")
    parser.add_argument("--gym", help="the Python that has reasoning-gym; without it the speed is not compared")
    parser.add_argument("--processes", type=int, default=2, help="processes that make rows at once (2)")
    parser.add_argument("--only", nargs="+", choices=list(GOALS), default=list(GOALS), metavar="ROW")
    parser.add_argument("--small", action="store_true", help="small data, to try the script")
    chosen = parser.parse_args()
    results, seconds = [], 0.2 if chosen.small else 5.0
    if "speed" in chosen.only and chosen.gym:
        results.append(speed(chosen.gym, seconds, chosen.repeat, chosen.processes))
    elif "speed" in chosen.only:
        found = [rate(sys.executable, OURS, seconds, chosen.processes) for _ in range(chosen.repeat)]
        print(f"speed: {median(found):,.0f} rows/s; reasoning-gym: see --help", file=sys.stderr)
    if "memory" in chosen.only:
        results.append(memory(10**5 if chosen.small else 10**7))
    for result in results:
        print(f"{result.key}: {number(result.measured, GOALS[result.key].unit)}; {result.detail}", file=sys.stderr)
    print(f"{table(results, GOALS)}\n\n{machine()}; medians of {chosen.repeat} runs.")


if __name__ == "__main__":
    main()
