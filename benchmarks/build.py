"""Measures what building and verifying cost; prints the table of docs/speed.md.

    python benchmarks/build.py                     all rows, medians of 5 runs: about 15 minutes on 2 cores
    python benchmarks/build.py --only add memory   some rows
    python benchmarks/build.py --small             small data: tries the script, its numbers say nothing

Time: the wall clock of the whole command, interpreter start included, into a fresh folder. The floor: polars
``write_parquet`` (zstd level 1, else its defaults) of the same finished rows, read back from the build into
one frame without the column ``instruction``, warm in the memory of a process of its own. Builds and floors
are measured in turn, A B A B; a ratio is that of their medians. Start-up, where it is counted apart: the same
command building a single expression, or two with the workers that they need where the build has workers.
Memory: the peak, over the process tree, of its own pages, those that processes share counted once, and those of
the libraries, read every 20 ms from ``/proc`` (Linux), in runs that are not timed; growth is that of medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import psutil  # type: ignore[import-untyped]

TASKS = ("add", "sub", "mul", "div", "equal", "greater_than", "less_than", "reflection", "left_mask")
HELPERS = ("reflection", "left_mask")  # they have no aligner rows
APART = ("div", "equal", "left_mask")  # so small that start-up is counted apart
COMMAND = (sys.executable, "-m", "caef_data")
Run = Callable[[Sequence[str]], tuple[float, str]]  # runs a command; what it measured, and the output


class Size(NamedTuple):
    """Operands of 1..``longest`` digits, ``num`` expressions a class, ``many`` for growth, a declaration."""

    longest: int
    num: int
    many: int
    declaration: str


FULL, SMALL = Size(100, 20, 400, "paper"), Size(40, 5, 50, "smoke")


class Goal(NamedTuple):
    """A row of the table: what it measures and what is asked of it; ``least`` where more is better."""

    measure: str
    must: float
    aim: float
    unit: str = "x"
    least: bool = False


def goals(size: Size) -> dict[str, Goal]:
    what = f"one_step train 1..{size.longest} num {size.num}"
    limits = {"add": (2.0, 1.7), "sub": (2.8, 2.2), "mul": (2.6, 2.2)}
    table = {}
    for task in ("add", "sub", "greater_than", "less_than", "reflection", "mul"):
        table[task] = Goal(f"{task} {what}: build / write", *limits.get(task, (3, 1.75)))
    for task in APART:
        table[task] = Goal(f"{task} {what}: (build - start-up) / write", 3, 2)
    return {
        **table,
        "memory": Goal(f"largest peak memory of all one_step and aligner builds, num {size.num}", 400, 300, "MB"),
        "growth": Goal(f"growth of add's peak memory at num {size.many}", 5, 0, "%"),
        "paper": Goal(f"`build {size.declaration}`", 60, 30, "s"),
        "verify": Goal("`verify` of these rows, start-up included", 50_000, 200_000, "rows/s", least=True),
        "successor": Goal("`successor` of add's entries, 50 digits, one core", 400_000, 700_000, "calls/s", least=True),
        "help": Goal("`--help`", 0.3, 0.15, "s"),
        "plan": Goal(f"`plan {size.declaration}`", 2, 1, "s"),
    }


class Result(NamedTuple):
    """A measured row; ``detail`` says what it was computed from, ``runs`` holds the single measurements."""

    key: str
    measured: float
    detail: str
    runs: dict[str, list[float]]

    def reached(self, goal: Goal) -> str:
        """Say what was reached: the aim, the must, or neither."""
        sign = -1 if goal.least else 1
        shown = float(f"{self.measured:.3g}")  # as printed
        if sign * shown <= sign * goal.aim:
            return "aim"
        return "must" if sign * shown <= sign * goal.must else "missed"


def spread(values: Sequence[float], unit: str = "s") -> str:
    return f"{median(values):.3g} ({min(values):.3g}..{max(values):.3g}) {unit}"


class Bench:
    """Measures rows in ``folder``, empty and on the disk that is meant; ``repeat`` runs of what is timed."""

    def __init__(self, size: Size, repeat: int, folder: Path) -> None:
        self.size, self.repeat, self.folder = size, repeat, folder

    def measure(self, key: str) -> Result:
        """Measure one row."""
        wall = {"help": ["--help"], "plan": ["plan", self.size.declaration]}
        if key in wall:
            times = [self.run(wall[key])[0] for _ in range(self.repeat)]
            return Result(key, median(times), spread(times), {"command": times})
        own: Callable[[], Result] | None = getattr(self, key, None)
        return self.ratio(key) if own is None else own()

    def settings(self, task: str, view: str, num: int) -> list[str]:
        """Return the arguments of a build; ``kept`` adds ``--out``."""
        words = ["--min", 1, "--max", self.size.longest, "--num", num, "--split", "train", "--view", view]
        return ["build", "--task", task, *map(str, words)]

    def kept(self, arguments: Sequence[str], run: Run | None = None) -> tuple[float, Path]:
        """Build into a fresh folder; return the wall clock, or what ``run`` measures, and the folder."""
        out = Path(tempfile.mkdtemp(dir=self.folder))
        return (run or self.run)([*arguments, "--out", str(out)])[0], out

    def build(self, arguments: Sequence[str], run: Run | None = None) -> float:
        """Build into a folder that is of no further use; return what was measured."""
        measured, out = self.kept(arguments, run)
        shutil.rmtree(out)
        return measured

    def run(self, arguments: Sequence[str]) -> tuple[float, str]:
        """Return a command's wall clock and output; exit code 1 (verify's) is the caller's to judge."""
        start = time.perf_counter()
        done = subprocess.run([*COMMAND, *arguments], cwd=self.folder, capture_output=True, text=True)
        if done.returncode not in (0, 1) or "Traceback" in done.stderr:
            raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr}")
        return time.perf_counter() - start, done.stdout

    def peak(self, arguments: Sequence[str]) -> tuple[float, str]:
        """Return the peak memory of a command's process tree in MB, and no output."""
        return peak_of(arguments, self.folder), ""

    def ratio(self, task: str) -> Result:
        """Time a build against writing its rows, in turn."""
        settings = self.settings(task, "one_step", self.size.num)
        _, first = self.kept(settings)
        built = configs_of(first)[f"{task}-one_step"]["train"]
        rows, workers = built["rows"], len(built["shards"]) > 1
        # Of repeated options the last counts.
        least = [*settings, "--max", "1", "--no-balance", "--num", "2" if workers else "1", "--rows-per-shard", "1"]
        runs: dict[str, list[float]] = {"build": [], "write": [], "start-up": []}
        with floor(first / f"{task}-one_step" / "*.parquet", self.folder / "floor.parquet") as write:
            for _ in range(self.repeat):
                runs["build"].append(self.build(settings))
                runs["write"].append(write())
                if task in APART:
                    runs["start-up"].append(self.build(least))
        shutil.rmtree(first)
        start = median(runs["start-up"]) if runs["start-up"] else 0.0
        found = (median(runs["build"]) - start) / median(runs["write"])
        parts = [f"{name} {spread(times)}" for name, times in runs.items() if times]
        return Result(task, found, "; ".join([f"{rows:,} rows", *parts]), runs)

    def memory(self) -> Result:
        """Measure every one_step and aligner build."""
        peaks = {}
        for task, view in product(TASKS, ("one_step", "aligner")):
            if view == "one_step" or task not in HELPERS:
                peaks[f"{task} {view}"] = self.build(self.settings(task, view, self.size.num), self.peak)
        detail = ", ".join(f"{name} {peaks[name]:,.0f}" for name in sorted(peaks, key=lambda name: -peaks[name]))
        return Result("memory", max(peaks.values()), detail, {})

    def growth(self) -> Result:
        """Measure how memory grows with the number of rows."""
        runs: dict[str, list[float]] = {"few": [], "many": []}
        for _, (name, num) in product(range(self.repeat), zip(runs, (self.size.num, self.size.many), strict=True)):
            runs[name].append(self.build(self.settings("add", "one_step", num), self.peak))
        found = (median(runs["many"]) / median(runs["few"]) - 1) * 100
        return Result("growth", found, " to ".join(spread(peaks, "MB") for peaks in runs.values()), runs)

    def paper(self) -> Result:
        """Time the whole declaration."""
        times = [self.build(["build", self.size.declaration]) for _ in range(self.repeat)]
        return Result("paper", median(times), spread(times), {"command": times})

    def verify(self) -> Result:
        """Time verify on the declaration's rows; a row counts as one, a full row as its transitions."""
        _, built = self.kept(["build", self.size.declaration])
        plain = [splits for name, splits in configs_of(built).items() if name.endswith(("-aligner", "-raw"))]
        rows = sum(split["rows"] for splits in plain for split in splits.values())
        found = [self.run(["verify", str(built), "--json"]) for _ in range(self.repeat)]
        times, reports = [seconds for seconds, _ in found], [json.loads(output) for _, output in found]
        shutil.rmtree(built)
        rows += reports[0]["transitions"]
        right = all(report["ok"] and report["rows"] == report["rows_checked"] for report in reports)
        detail = f"{rows:,} rows (full: transitions) in {spread(times)}; {'all right' if right else 'FINDINGS'}"
        return Result("verify", rows / median(times), detail, {"command": times})

    def successor(self) -> Result:
        """Time calls in one process: entries of runs, and as many with another digit in their output."""
        from caef_data.tm import transitions
        from caef_data.tm.successor import successor

        numbers = range(10**49, 10**50, 10**48 * 7 + 12_345)
        entries = [step.prompt for a in numbers for step in transitions("add", a, 10**50 - 1 - a // 7)]
        entries += [entry.replace("|7[OUTPUT]", "|3[OUTPUT]") for entry in entries]
        rates = []
        for _ in range(self.repeat):
            start = time.perf_counter()
            for entry in entries:
                successor(entry)
            rates.append(len(entries) / (time.perf_counter() - start))
        detail = f"{len(entries):,} entries; {min(rates):,.0f} to {max(rates):,.0f}"
        return Result("successor", median(rates), detail, {"rate": rates})


def configs_of(folder: Path) -> Any:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["configs"]


def peak_of(arguments: Sequence[str], folder: Path) -> float:
    """Run a command; return the peak memory of its process tree, in MB."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen([*COMMAND, *arguments], cwd=folder, stdout=quiet, stderr=quiet)
    most = 0
    while process.poll() is None:
        most = max(most, tree_memory(process.pid))
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed")
    return most / 1e6


def tree_memory(root: int) -> int:
    """Return the memory of a process and its descendants, in bytes: their own, and the largest share of files.

    Each maps about the same libraries. A sum of proportional set sizes would fall when other programs map them too.
    """
    own, files = 0, [0]
    with suppress(psutil.NoSuchProcess):
        for pid in (root, *(process.pid for process in psutil.Process(root).children(recursive=True))):
            with suppress(OSError):  # it has ended
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
                size = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
                own += size["Pss_Anon"] + size["Pss_Shmem"]
                files.append(size["Rss"] - size["Anonymous"])
    return own + max(files)


@contextmanager
def floor(rows: Path, out: Path) -> Iterator[Callable[[], float]]:
    """Hold finished rows in a process; yield a function that has them written and returns the seconds."""
    command = [sys.executable, __file__, "--floor", str(rows), str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def write() -> float:
            print(file=process.stdin, flush=True)
            return float(process.stdout.readline() if process.stdout else "")

        write()  # a first time, not counted
        yield write


def serve_floor(rows: str, out: str) -> None:
    """Write the rows once for every line on standard input (the floor's process)."""
    import polars as pl

    frame = pl.read_parquet(rows).drop("instruction").rechunk()
    for _ in sys.stdin:
        start = time.perf_counter()
        frame.write_parquet(out, compression="zstd", compression_level=1)
        print(time.perf_counter() - start, flush=True)
    Path(out).unlink()


def machine() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory().total / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in ("caef-data", "numpy", "pyarrow", "polars"))
    return f"{cores} cores, {memory:.0f} GiB, Python {platform.python_version()}, {packages}"


def number(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if abs(value) >= 100 else f"{value:.3g} {unit}"


def table(results: Sequence[Result], asked: dict[str, Goal]) -> str:
    lines = ["| measure | must | aim | measured | reached | in detail |", "|---|---:|---:|---:|---|---|"]
    for result in results:
        goal = asked[result.key]
        limits = [f"{'>=' if goal.least else '<='} {number(value, goal.unit)}" for value in (goal.must, goal.aim)]
        measured = number(result.measured, goal.unit)
        cells = [goal.measure, *limits, measured, result.reached(goal), result.detail]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    keys = list(goals(FULL))
    parser = argparse.ArgumentParser(description="Measure building and verifying; prints a Markdown table.")
    parser.add_argument("--repeat", type=int, default=5, help="runs of everything that is timed (5)")
    parser.add_argument("--only", nargs="+", choices=keys, default=keys, metavar="ROW", help=", ".join(keys))
    parser.add_argument("--small", action="store_true", help="small data, to try the script")
    parser.add_argument("--json", type=Path, help="write the results there too")
    parser.add_argument("--floor", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.floor:
        serve_floor(*chosen.floor)
        return
    size, results = SMALL if chosen.small else FULL, list[Result]()
    asked = goals(size)
    with tempfile.TemporaryDirectory(prefix="caef-bench-") as folder:
        bench = Bench(size, max(1, chosen.repeat), Path(folder))
        for key in (key for key in keys if key in chosen.only):
            results.append(bench.measure(key))
            print(f"{key}: {number(results[-1].measured, asked[key].unit)}; {results[-1].detail}", file=sys.stderr)
    print(f"{table(results, asked)}\n\n{machine()}; medians of {bench.repeat} runs (min..max).")
    if chosen.json:
        rows = [asked[r.key]._asdict() | r._asdict() | {"reached": r.reached(asked[r.key])} for r in results]
        chosen.json.write_text(json.dumps({"machine": machine(), "repeat": bench.repeat, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
