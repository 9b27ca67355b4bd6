"""Measures what building and verifying cost; prints the README's table.

    python benchmarks/build.py                     all rows, medians of 5 runs: a quarter of an hour on 2 cores
    python benchmarks/build.py --only add memory   some rows
    python benchmarks/build.py --small             small data: tries the script, its numbers say nothing

Time: the wall clock of the whole command, interpreter start included, into a fresh folder. The floor: polars
``write_parquet`` (zstd level 1, else its defaults) of the same finished rows, read back from the build into
one frame without the column ``instruction``, warm in the memory of a process of its own. Builds and floors are
measured in turn, A B A B; a ratio is that of their medians. Start-up, where it is counted apart: the same
command building a single expression. Memory: the peak, over the process tree, of summed proportional set size,
read every 20 ms from ``/proc`` (Linux), in runs that are not timed.
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
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median

import psutil  # type: ignore[import-untyped]

TASKS = ("add", "sub", "mul", "div", "equal", "greater_than", "less_than", "reflection", "left_mask")
HELPERS = ("reflection", "left_mask")  # they have no aligner rows
APART = ("div", "equal", "left_mask")  # so small that start-up is counted apart
POLL = 0.02  # seconds between two looks at memory
COMMAND = (sys.executable, "-m", "caef_data")


@dataclass(frozen=True)
class Size:
    """What is built: operands of 1..``longest`` digits, ``num`` a class (``many`` for growth), a declaration."""

    longest: int
    num: int
    many: int
    declaration: str


FULL, SMALL = Size(100, 20, 200, "paper"), Size(40, 5, 50, "smoke")


@dataclass(frozen=True)
class Goal:
    """A row of the table: what it measures and what is asked of it; ``least`` where more is better."""

    measure: str
    must: float
    aim: float
    unit: str = "x"
    least: bool = False


def goals(size: Size) -> dict[str, Goal]:
    """Return the rows of the table by their key."""
    what = f"one_step train 1..{size.longest} num {size.num}"
    table = {"add": Goal(f"add {what}: build / write", 2.5, 1.5)}
    for task in ("sub", "greater_than", "less_than", "reflection", "mul"):
        table[task] = Goal(f"{task} {what}: build / write", 3, 1.75)
    for task in APART:
        table[task] = Goal(f"{task} {what}: (build - start-up) / write", 3, 2)
    name = f"peak memory, largest of the one_step and aligner builds, num {size.num}"
    return {
        **table,
        "memory": Goal(name, 700, 400, "MB"),
        "growth": Goal(f"growth of add's peak memory at num {size.many}", 10, 0, "%"),
        "paper": Goal(f"`build {size.declaration}`", 60, 30, "s"),
        "verify": Goal("`verify` of these rows, start-up included", 50_000, 200_000, "rows/s", least=True),
        "help": Goal("`--help`", 0.3, 0.15, "s"),
        "plan": Goal(f"`plan {size.declaration}`", 2, 1, "s"),
    }


@dataclass(frozen=True)
class Result:
    """A measured row; ``detail`` says what it was computed from, ``runs`` holds the single measurements."""

    key: str
    measured: float
    detail: str
    runs: dict[str, list[float]] = field(default_factory=dict)

    def reached(self, goal: Goal) -> str:
        """Say what was reached: the aim, the must, or neither."""
        sign = -1 if goal.least else 1
        shown = float(f"{self.measured:.3g}")  # as printed
        if sign * shown <= sign * goal.aim:
            return "aim"
        return "must" if sign * shown <= sign * goal.must else "missed"


def spread(values: Sequence[float]) -> str:
    """Return ``median (min..max) s``."""
    return f"{median(values):.3g} ({min(values):.3g}..{max(values):.3g}) s"


class Bench:
    """Measures the rows in ``folder``, an empty one on the disk that is meant; ``repeat`` runs of what is timed."""

    def __init__(self, size: Size, repeat: int, folder: Path) -> None:
        self.size, self.repeat, self.folder = size, repeat, folder
        self.built: Path | None = None  # the declaration's dataset

    def measure(self, key: str) -> Result:
        """Measure one row."""
        special: dict[str, Callable[[], Result]] = {
            "memory": self.memory,
            "growth": self.growth,
            "paper": self.paper,
            "verify": self.verify,
            "help": lambda: self.wall("help", "--help"),
            "plan": lambda: self.wall("plan", "plan", self.size.declaration),
        }
        return special[key]() if key in special else self.ratio(key)

    def settings(self, task: str, view: str, num: int) -> list[str]:
        """Return the arguments of a build; ``fresh`` adds ``--out``."""
        words = ["--min", 1, "--max", self.size.longest, "--num", num, "--split", "train", "--view", view]
        return ["build", "--task", task, *map(str, words)]

    def fresh[T](self, arguments: Sequence[str], run: Callable[[Sequence[str]], T]) -> tuple[Path, T]:
        """Run a build into a fresh folder; return it and what ``run`` measured."""
        out = Path(tempfile.mkdtemp(dir=self.folder))
        return out, run([*arguments, "--out", str(out)])

    def output(self, arguments: Sequence[str]) -> str:
        """Run a command to its end; exit code 1 (verify's) is the caller's to judge."""
        done = subprocess.run([*COMMAND, *arguments], cwd=self.folder, capture_output=True, text=True)
        if done.returncode not in (0, 1) or done.stderr.startswith("Traceback"):
            raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr}")
        return done.stdout

    def seconds(self, arguments: Sequence[str]) -> float:
        """Return the wall clock of a command."""
        start = time.perf_counter()
        self.output(arguments)
        return time.perf_counter() - start

    def peak(self, arguments: Sequence[str]) -> float:
        """Return the peak memory of a command's process tree in MB."""
        quiet = subprocess.DEVNULL
        process = subprocess.Popen([*COMMAND, *arguments], cwd=self.folder, stdout=quiet, stderr=quiet)
        most = 0
        while process.poll() is None:
            most = max(most, tree_pss(process.pid))
            time.sleep(POLL)
        if process.returncode:
            raise SystemExit(f"{' '.join(arguments)} failed")
        return most / 1e6

    def dropped[T](self, arguments: Sequence[str], run: Callable[[Sequence[str]], T]) -> T:
        """Return what ``run`` measured of a build whose folder is of no further use."""
        out, found = self.fresh(arguments, run)
        shutil.rmtree(out)
        return found

    def wall(self, key: str, *arguments: str) -> Result:
        """Time a short command; a first run warms the disk cache."""
        times = [self.seconds(arguments) for _ in range(self.repeat + 1)][1:]
        return Result(key, median(times), spread(times), {"command": times})

    def ratio(self, task: str) -> Result:
        """Time a build against writing its rows, in turn."""
        settings = self.settings(task, "one_step", self.size.num)
        single = ["build", "--task", task, "--min", "1", "--max", "1", "--num", "1", "--no-balance"]
        single += ["--split", "train", "--view", "one_step"]
        first, _ = self.fresh(settings, self.seconds)
        rows = json.loads((first / "manifest.json").read_text())["configs"][f"{task}-one_step"]["train"]["rows"]
        runs: dict[str, list[float]] = {"build": [], "write": [], "start-up": []}
        with Floor(first / f"{task}-one_step" / "*.parquet", self.folder / "floor.parquet") as floor:
            for _ in range(self.repeat):
                runs["build"].append(self.dropped(settings, self.seconds))
                runs["write"].append(floor.write())
                if task in APART:
                    runs["start-up"].append(self.dropped(single, self.seconds))
        shutil.rmtree(first)
        start = median(runs["start-up"]) if runs["start-up"] else 0.0
        found = (median(runs["build"]) - start) / median(runs["write"])
        parts = [f"{name} {spread(times)}" for name, times in runs.items() if times]
        return Result(task, found, "; ".join([f"{rows:,} rows", *parts]), runs)

    def memory(self) -> Result:
        """Measure every one_step and aligner build."""
        kinds = [(task, "one_step") for task in TASKS]
        kinds += [(task, "aligner") for task in TASKS if task not in HELPERS]
        peaks = [(self.dropped(self.settings(*kind, self.size.num), self.peak), kind) for kind in kinds]
        detail = ", ".join(f"{task} {view} {peak:,.0f}" for peak, (task, view) in sorted(peaks, reverse=True))
        return Result("memory", max(peaks)[0], detail)

    def growth(self) -> Result:
        """Measure how memory grows with the number of rows."""
        nums = (self.size.num, self.size.many)
        few, many = (self.dropped(self.settings("add", "one_step", num), self.peak) for num in nums)
        return Result("growth", (many / few - 1) * 100, f"{few:,.0f} MB to {many:,.0f} MB")

    def paper(self) -> Result:
        """Time the whole declaration; the last folder is kept for ``verify``."""
        times = []
        for _ in range(self.repeat):
            if self.built is not None:
                shutil.rmtree(self.built)
            self.built, seconds = self.fresh(["build", self.size.declaration], self.seconds)
            times.append(seconds)
        return Result("paper", median(times), spread(times), {"command": times})

    def verify(self) -> Result:
        """Time verify; a row counts as one, a full row as its transitions."""
        if self.built is None:
            self.built, _ = self.fresh(["build", self.size.declaration], self.seconds)
        configs = json.loads((self.built / "manifest.json").read_text())["configs"]
        plain = [splits for name, splits in configs.items() if name.endswith(("-aligner", "-raw"))]
        rows = sum(split["rows"] for splits in plain for split in splits.values())
        times, right = list[float](), True
        for _ in range(self.repeat):
            start = time.perf_counter()
            report = json.loads(self.output(["verify", str(self.built), "--json"]))
            times.append(time.perf_counter() - start)
            right &= report["ok"] and report["rows"] == report["rows_checked"]
        rows += report["transitions"]
        detail = f"{rows:,} rows (full: transitions) in {spread(times)}; {'all right' if right else 'FINDINGS'}"
        return Result("verify", rows / median(times), detail, {"command": times})


def tree_pss(root: int) -> int:
    """Return the proportional set size of a process and its descendants, in bytes."""
    try:
        found = psutil.Process(root).children(recursive=True)
    except psutil.NoSuchProcess:
        return 0
    total = 0
    for pid in (root, *(process.pid for process in found)):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


class Floor:
    """A process that holds finished rows and writes them whenever it is asked to."""

    def __init__(self, rows: Path, out: Path) -> None:
        command = [sys.executable, __file__, "--floor", str(rows), str(out)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.write()  # a first time, not counted

    def __enter__(self) -> Floor:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.communicate()

    def write(self) -> float:
        """Write the rows; return the seconds it took."""
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("the floor's process has no pipes")
        print(file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


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
    """Return what the numbers were measured on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory().total / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in ("caef-data", "numpy", "pyarrow", "polars"))
    return f"{cores} cores, {memory:.0f} GiB, Python {platform.python_version()}, {packages}"


def number(value: float, unit: str) -> str:
    """Return a value as the table shows it."""
    return f"{value:,.0f} {unit}" if abs(value) >= 100 else f"{value:.3g} {unit}"


def table(results: Sequence[Result], asked: dict[str, Goal]) -> str:
    """Return the results as a Markdown table."""
    lines = ["| measure | must | aim | measured | reached | in detail |", "|---|---:|---:|---:|---|---|"]
    for result in results:
        goal = asked[result.key]
        limits = [f"{'>=' if goal.least else '<='} {number(value, goal.unit)}" for value in (goal.must, goal.aim)]
        measured = number(result.measured, goal.unit)
        lines.append(" | ".join(["|", goal.measure, *limits, measured, result.reached(goal), result.detail, "|"]))
    return "\n".join(line.replace("| |", "|") for line in lines).replace("| | ", "| ")


def main() -> None:
    """Measure and print."""
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
            result = bench.measure(key)
            results.append(result)
            print(f"{key}: {number(result.measured, asked[key].unit)}; {result.detail}", file=sys.stderr)
    print(f"{table(results, asked)}\n\n{machine()}; medians of {bench.repeat} runs (min..max).")
    if chosen.json:
        rows = [{**asdict(asked[r.key]), **asdict(r), "reached": r.reached(asked[r.key])} for r in results]
        content = {"machine": machine(), "repeat": bench.repeat, "rows": rows}
        chosen.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
