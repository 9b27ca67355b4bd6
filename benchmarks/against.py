"""Measures this checkout against another one, whole commands in turn, A B A B; prints a Markdown table.

    python benchmarks/against.py ../other              all rows, medians of 5 runs: about 30 minutes on 2 cores
    python benchmarks/against.py ../other --only eval  one row
    python benchmarks/against.py . --small             small data, against itself: tries the script

Both run under this interpreter with its packages, each from its own tree; nothing is installed. Each verifies a
dataset that it has built itself, since a dataset names the versions of its rules, and evaluates the tiny model of this
checkout on such a dataset: all tasks, all modes, on the CPU. ``build`` is processor time, with one worker;
``bookkeeping`` and ``memory`` are of a whole evaluation by a backend that knows every answer, ``first_call`` is the
time from the start of such a command to its first request;
``own`` renders one-step rows of the machine that the README of 0.1.0 had, in one process, without writing them. The
other checkout's numbers come first in the details.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from statistics import median

from build import Goal, Result, configs_of, machine, number, spread, table

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "examples" / "tiny"
OWN = ROOT / "tests" / "data" / "double_0_1_0.py"
RENDER = """
import sys, time
from pathlib import Path
exec(compile(Path(sys.argv[1]).read_text(), "double", "exec"), {"__name__": "own"})
import numpy as np
from caef_data.pipelines.declaration import from_flags
from caef_data.pipelines.plan import make_plan
flags = {"min": 1, "max": int(sys.argv[2]), "num": int(sys.argv[3]), "views": ["one_step"]}
config = make_plan(from_flags(["double"], **flags)).configs[0]
numbers = np.arange(len(config.population))
config.render(numbers[:50])
start, rows = time.perf_counter(), 0
for at in range(0, len(numbers), 1000):
    rows += config.render(numbers[at : at + 1000]).num_rows
print(rows / (time.perf_counter() - start))
"""
TASKS = ("add", "sub", "mul")
INSTANT = """
import runpy, sys, time
from caef_data.eval.backends.oracle import OracleBackend
def answer(self, adapter, prompt, expected):
    if self.__dict__.setdefault("first", True):
        self.first = False
        print("first call", time.time(), file=sys.stderr)
    return expected
OracleBackend.answer = answer
runpy.run_module("caef_data", run_name="__main__", alter_sys=True)
"""
GOALS = {
    **{
        task: Goal(f"{task} one_step train 1..100 num 20, whole command: seconds here / there", 1, 0.85)
        for task in TASKS
    },
    "build": Goal("`build paper`, processor time: here / there", 1.1, 0.85),
    "own": Goal("a user's own machine, rows/s: here / there", 15, 50, least=True),
    "verify": Goal("`verify`: rows/s here / there, start-up included", 0.8, 1.2, least=True),
    "eval": Goal("`eval` of the tiny dataset, whole command: seconds there / here", 1, 1.3, least=True),
    "bookkeeping": Goal("`eval` of a million calls with an instant backend: seconds here / there", 0.5, 0.25),
    "memory": Goal("peak memory of that", 400, 300, "MB"),
    "first_call": Goal(
        "from `eval` typed to the first call, 20,000 additions: seconds there / here", 4, 10, least=True
    ),
}


class Tree:
    """A checkout whose commands run under this interpreter.

    Args:
        root: its folder.
        folder: empty; it works there.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder, links = folder, folder / "links"
        links.mkdir(parents=True)
        (links / "caef_data").symlink_to(root)
        self.env = {**os.environ, "PYTHONPATH": str(links)}
        self.env.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
        found = self.output("-c", "import caef_data; print(caef_data.__file__)")
        if Path(found.strip()).resolve().parent != root:
            raise SystemExit(f"there is no caef_data in {root}: {found.strip()} was found")

    def output(self, *words: str) -> str:
        done = subprocess.run([sys.executable, *words], cwd=self.folder, env=self.env, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{self.folder}: {' '.join(words)} failed:\n{done.stderr}{done.stdout}")
        return done.stdout

    def command(self, *words: str) -> tuple[float, str]:
        """Return the wall clock of a command, and its output."""
        start = time.perf_counter()
        found = self.output("-m", "caef_data", *words)
        return time.perf_counter() - start, found


def one_task(task: str) -> Callable[[Sequence[Tree], bool, int], Result]:
    """Return what builds one-step rows of a task, into a fresh folder each time."""

    def measure(trees: Sequence[Tree], small: bool, repeat: int) -> Result:
        runs: dict[str, list[float]] = {"there": [], "here": []}
        words = ["build", "--task", task, "--view", "one_step", "--split", "train", "--min", "1", "--num", "20"]
        for _ in range(repeat):
            for name, tree in zip(runs, trees, strict=True):
                with tempfile.TemporaryDirectory(dir=tree.folder) as out:
                    runs[name].append(tree.command(*words, "--max", "3" if small else "100", "--out", f"{out}/data")[0])
        found = compared(task, runs, "all processors")
        return found._replace(measured=1 / found.measured)

    return measure


def build(trees: Sequence[Tree], small: bool, repeat: int) -> Result:
    """Build a declaration, into a fresh folder each time."""
    runs: dict[str, list[float]] = {"there": [], "here": []}
    words = ["--task", "add", "--min", "1", "--max", "2"] if small else ["paper"]
    for turn in range(repeat):
        for name, tree in zip(runs, trees, strict=True):
            before = processor_time()
            tree.command("build", *words, "--workers", "1", "--out", f"built-{turn}")
            runs[name].append(processor_time() - before)
            shutil.rmtree(tree.folder / f"built-{turn}")
    return compared("build", runs, "all views and splits, processor time, one worker")._replace(
        measured=median(runs["here"]) / median(runs["there"])
    )


def processor_time() -> float:
    """Return the seconds of processor time that commands have used; a fork server's workers would not be counted."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def own(trees: Sequence[Tree], small: bool, repeat: int) -> Result:
    """Render rows of a machine of 0.1.0; the smaller ratio of two lengths counts."""
    details, ratios, runs = [], [], dict[str, list[float]]()
    for digits, num in ((8, 200), (100, 20)):
        rates: dict[str, list[float]] = {"there": [], "here": []}
        for _ in range(repeat):
            for name, tree in zip(rates, trees, strict=True):
                found = tree.output("-c", RENDER, str(OWN), str(digits), "2" if small else str(num))
                rates[name].append(float(found))
        there, here = (median(found) for found in rates.values())
        ratios.append(here / there)
        details.append(f"up to {digits} digits {there:,.0f} to {here:,.0f} rows/s")
        runs |= {f"{name} {digits}": found for name, found in rates.items()}
    return Result("own", min(ratios), "; ".join(details), runs)


def verify(trees: Sequence[Tree], small: bool, repeat: int) -> Result:
    """Verify the rows of a declaration; a row counts as one, a full row as its transitions."""
    runs: dict[str, list[float]] = {"there": [], "here": []}
    rows = 0
    words = ["--task", "add", "--min", "1", "--max", "2"] if small else ["paper"]
    for tree in trees:
        tree.command("build", *words, "--out", "data")
    for _ in range(repeat):
        for name, tree in zip(runs, trees, strict=True):
            seconds, output = tree.command("verify", "data", "--json")
            runs[name].append(seconds)
            rows = json.loads(output)["transitions"]
    configs = configs_of(trees[1].folder / "data").items()
    plain = [splits for name, splits in configs if name.endswith(("-aligner", "-raw"))]
    rows += sum(split["rows"] for splits in plain for split in splits.values())
    return compared("verify", runs, f"{rows:,} rows: {', '.join(f'{rows / median(runs[n]):,.0f}/s {n}' for n in runs)}")


def evaluate(trees: Sequence[Tree], small: bool, repeat: int) -> Result:
    """Evaluate the tiny model, into a fresh folder each time."""
    runs: dict[str, list[float]] = {"there": [], "here": []}
    text = (TINY / "tiny.toml").read_text("utf-8").partition("[train]")[0]  # older ones do not know that table
    for tree in trees:
        (tree.folder / "tiny.toml").write_text(text, "utf-8")
        tree.command("build", "tiny.toml", "--out", "tiny")
    words = ["eval", "--adapters", str(TINY / "ckpt"), "--data", "tiny", "--device", "cpu"]
    words += ["--task", "equal", "--mode", "one_step", "--limit", "5"] if small else []
    for turn in range(repeat):
        for name, tree in zip(runs, trees, strict=True):
            runs[name].append(tree.command(*words, "--out", f"results-{turn}")[0])
    return compared("eval", runs, "all tasks and modes" if not small else "a few rows")


def bookkeeping(trees: Sequence[Tree], small: bool, repeat: int) -> Result:
    """Evaluate one-step rows of the train split."""
    runs = instant(trees, small, repeat, "one_step", "train")
    found = compared("bookkeeping", runs["seconds"], "one-step rows of the train split")
    return found._replace(measured=1 / found.measured)


def memory(trees: Sequence[Tree], small: bool, repeat: int) -> Result:
    """Evaluate the same rows."""
    runs = instant(trees, small, repeat, "one_step", "train")["memory"]
    return compared("memory", runs, "resident", "MB")._replace(measured=median(runs["here"]))


def first_call(trees: Sequence[Tree], small: bool, repeat: int) -> Result:
    """Evaluate whole runs of the test split."""
    return compared("first_call", instant(trees, small, repeat, "executor", "test")["first"], "whole runs")


@cache  # seconds and memory are of the same runs
def instant(
    trees: Sequence[Tree], small: bool, repeat: int, mode: str, split: str
) -> dict[str, dict[str, list[float]]]:
    """Return seconds, peak memory in MB and seconds to the first call of evaluations whose backend knows all."""
    runs: dict[str, dict[str, list[float]]] = {
        kind: {"there": [], "here": []} for kind in ("seconds", "memory", "first")
    }
    words = ["eval", "--backend", "oracle", "--task", "add", "--mode", mode, "--split", split, "--data", "additions"]
    for tree in trees:
        if not (tree.folder / "additions").exists():
            span = ["--max", "3"] if small else ["--max", "100", "--num", "20"]
            tree.command("build", "--task", "add", "--min", "1", *span, "--out", "additions")
    for _ in range(repeat):
        for name, tree in zip(("there", "here"), trees, strict=True):
            with tempfile.TemporaryDirectory() as out, tempfile.TemporaryFile("w+") as log:
                start = time.time()
                run = [sys.executable, "-c", INSTANT, *words, "--out", out]
                process = subprocess.Popen(run, cwd=tree.folder, env=tree.env, stdout=log, stderr=log)
                _, status, used = os.wait4(process.pid, 0)
                seconds = time.time() - start
                log.seek(0)
                said = log.read()
            if status:
                raise SystemExit(f"{tree.folder}: {' '.join(words)} failed:\n{said}")
            first = float(said.partition("first call ")[2].split()[0]) - start
            for kind, value in (("seconds", seconds), ("memory", used.ru_maxrss / 1024), ("first", first)):
                runs[kind][name].append(value)
    return runs


def compared(key: str, runs: dict[str, list[float]], note: str, unit: str = "s") -> Result:
    ratio = median(runs["there"]) / median(runs["here"])
    return Result(
        key, ratio, "; ".join([note, *(f"{name} {spread(found, unit)}" for name, found in runs.items())]), runs
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure this checkout against another; prints a Markdown table.")
    parser.add_argument("other", type=Path, help="the other checkout")
    parser.add_argument("--repeat", type=int, default=5, help="runs of everything (5)")
    parser.add_argument("--only", nargs="+", choices=GOALS, default=list(GOALS), metavar="ROW", help=", ".join(GOALS))
    parser.add_argument("--small", action="store_true", help="small data, to try the script")
    parser.add_argument("--json", type=Path, help="write the results there too")
    chosen = parser.parse_args()
    parts = {task: one_task(task) for task in TASKS}
    parts |= {"build": build, "own": own, "verify": verify, "eval": evaluate}
    parts |= {"bookkeeping": bookkeeping, "memory": memory, "first_call": first_call}
    results = list[Result]()
    with tempfile.TemporaryDirectory(prefix="caef-bench-") as folder:
        places = (chosen.other.resolve(), Path(folder) / "there"), (ROOT, Path(folder) / "here")
        trees = tuple(Tree(*place) for place in places)
        for key in chosen.only:
            results.append(parts[key](trees, chosen.small, max(1, chosen.repeat)))
            print(f"{key}: {number(results[-1].measured, GOALS[key].unit)}; {results[-1].detail}", file=sys.stderr)
    print(f"{table(results, GOALS)}\n\n{machine()}; medians of {chosen.repeat} runs (min..max), in turn.")
    if chosen.json:
        rows = [GOALS[r.key]._asdict() | r._asdict() | {"reached": r.reached(GOALS[r.key])} for r in results]
        chosen.json.write_text(json.dumps({"machine": machine(), "repeat": chosen.repeat, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
