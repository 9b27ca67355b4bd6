"""Measures Turing machines of declarations; prints a Markdown table.

    python benchmarks/machines.py            all rows, medians of 5 runs: two minutes on 2 cores
    python benchmarks/machines.py --small    small data: tries the script

``steps``: a column of words run by the engine, and the same words and machine by automata-lib's ``DTM`` (a sample of
them: a second's worth), one after the other in one process; needs ``pip install automata-lib``, else the row is left
out. ``rows``: one-step rows of binary increment, words of 18 to 34 symbols, against those of the machine of
docs/machines-of-your-own.md, operands of as many digits and as many rows, whole commands in turn. ``run``: the busy
beaver's champion of five states, 10**7 steps, without its rows.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from build import Goal, Result, machine, number, spread, table

from caef_data.tm.formats import read_table
from caef_data.tm.turing import TuringMachine, run_to_end
from caef_data.tm.turing_engine import coded, run_lengths

ROOT = Path(__file__).resolve().parents[1]
OWN = re.compile(r"```python\n(# tm/double.py\n.*?)```", re.DOTALL)
INCREMENT = """
blank: ' '
start state: right
table:
  right:
    [1,0]: R
    ' ': {L: carry}
  carry:
    1: {write: 0, L}
    [0,' ']: {write: 1, L: done}
  done:
"""
CHAMPION = "1RB1LC_1RC1RB_1RD0LE_1LA1LD_1RZ0LA"
GOALS = {
    "steps": Goal("steps/s of a column of 10,000 words of 64 symbols: engine / automata-lib", 100, 500, least=True),
    "rows": Goal("rows/s of a one_step build, whole command: this / a machine in Python", 1, 1.5, least=True),
    "run": Goal("one run of 10^7 steps, without rows", 10, 1, "s"),
}


def steps(small: bool, repeat: int) -> Result | None:
    """Run words with the engine and with automata-lib."""
    try:
        from automata.tm.dtm import DTM
    except ImportError:
        print("steps: automata-lib is not installed", file=sys.stderr)
        return None
    binary = TuringMachine("increment", read_table("turingmachine.io", INCREMENT, "here")[0])
    rng, count = np.random.default_rng(1), 100 if small else 10_000
    words = ["1" + "".join(rng.choice(["0", "1"], 63)) for _ in range(count)]
    column = binary.column(words)
    other = DTM(
        states={"right", "carry", "done"},
        input_symbols={"0", "1"},
        tape_symbols={"0", "1", "_"},
        transitions={
            "right": {"0": ("right", "0", "R"), "1": ("right", "1", "R"), "_": ("carry", "_", "L")},
            "carry": {"1": ("carry", "0", "L"), "0": ("done", "1", "L"), "_": ("done", "1", "L")},
        },
        initial_state="right",
        blank_symbol="_",
        final_states={"done"},
    )
    runs: dict[str, list[float]] = {"engine": [], "automata-lib": []}
    for _ in range(repeat):
        start = time.perf_counter()
        lengths = run_lengths(coded(binary.table), column, 10_000)
        runs["engine"].append(int(lengths.sum()) / (time.perf_counter() - start))
        start, done = time.perf_counter(), 0
        for word, length in zip(words, lengths.tolist(), strict=True):
            counted = sum(1 for _ in other.read_input_stepwise(word)) - 1
            if counted != length:
                raise SystemExit(f"{word}: {counted} steps, the engine says {length}")
            done += counted
            if time.perf_counter() - start > 1:
                break
        runs["automata-lib"].append(done / (time.perf_counter() - start))
    here, there = (median(found) for found in runs.values())
    return Result("steps", here / there, f"{here / 1e6:,.1f} and {there / 1e6:,.2f} million steps/s", runs)


def rows(small: bool, repeat: int) -> Result:
    """Build the same number of rows of both machines, whole commands in turn."""
    runs: dict[str, list[float]] = {"declared": [], "python": []}
    with tempfile.TemporaryDirectory(prefix="caef-bench-") as place:
        folder = Path(place)
        keep = shutil.ignore_patterns(
            ".*", "tests", "examples", "docs", "benchmarks", "findings", "*.egg-info", "__pycache__"
        )
        shutil.copytree(ROOT, folder / "caef_data", ignore=keep)
        source = OWN.search((ROOT / "docs" / "machines-of-your-own.md").read_text())
        if source is None:
            raise SystemExit("docs/machines-of-your-own.md has no tm/double.py any more")
        (folder / "caef_data" / "tm" / "double.py").write_text(source[1])
        num, settings = 20 if small else 20_000, 'min = 18\nmax = 34\nsplits = ["train"]\nviews = ["one_step"]\n'
        table = f"name = 'increment'\nformat = 'turingmachine.io'\ninput = '[01]+'\ntable = '''{INCREMENT}'''\n"
        (folder / "declared.toml").write_text(f"{settings}num = {num}\n[[machine]]\n{table}")
        (folder / "python.toml").write_text(f'{settings}num = {num}\ntask = "double"\n')
        env, made = {**os.environ, "PYTHONPATH": str(folder)}, dict[str, int]()
        for _ in range(repeat):
            for name, found in runs.items():
                start = time.perf_counter()
                command = [sys.executable, "-m", "caef_data", "build", f"{name}.toml", "--out", f"out/{name}"]
                subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True)
                seconds = time.perf_counter() - start
                manifest = json.loads((folder / "out" / name / "manifest.json").read_text())
                made[name] = sum(split["rows"] for own in manifest["configs"].values() for split in own.values())
                found.append(made[name] / seconds)
                shutil.rmtree(folder / "out")
    here, there = (median(found) for found in runs.values())
    detail = f"{made['declared']:,} rows at {here:,.0f} rows/s, {made['python']:,} at {there:,.0f} rows/s"
    return Result("rows", here / there, detail, runs)


def run(small: bool, repeat: int) -> Result:
    """Run the champion of five states."""
    champion, most = (
        TuringMachine("champion", read_table("bbchallenge", CHAMPION, "here")[0]),
        10**4 if small else 10**7,
    )
    runs: dict[str, list[float]] = {"seconds": []}
    for _ in range(repeat):
        start = time.perf_counter()
        end = run_to_end(champion.table, champion.start(""), most)
        runs["seconds"].append(time.perf_counter() - start)
        if end.steps != most:
            raise SystemExit(f"the champion took {end.steps} steps")
    return Result("run", median(runs["seconds"]), spread(runs["seconds"]), runs)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure machines of declarations; prints a Markdown table.")
    parser.add_argument("--repeat", type=int, default=5, help="runs of everything that is timed (5)")
    parser.add_argument("--only", nargs="+", choices=list(GOALS), default=list(GOALS), metavar="ROW")
    parser.add_argument("--small", action="store_true", help="small data, to try the script")
    chosen = parser.parse_args()
    parts: dict[str, Callable[[bool, int], Result | None]] = {"steps": steps, "rows": rows, "run": run}
    results = []
    for key in chosen.only:
        found = parts[key](chosen.small, max(1, chosen.repeat))
        if found is not None:
            results.append(found)
            print(f"{key}: {number(found.measured, GOALS[key].unit)}; {found.detail}", file=sys.stderr)
    print(f"{table(results, GOALS)}\n\n{machine()}; medians of {max(1, chosen.repeat)} runs (min..max).")


if __name__ == "__main__":
    main()
