"""Measures ``caef-data contamination`` on synthetic text; prints a Markdown table.

    python benchmarks/contamination.py            1 GB, medians of 5 runs: three minutes on 2 cores, 4 GB of disk
    python benchmarks/contamination.py --small    a little text: tries the script

The text: lines of some 90 characters, one in a hundred with an expression that stands in test. ``mixed``: of the others
half are prose, a quarter prose with numbers, dates and prices, a quarter sums that are not held out. ``dense``: sums of
up to 20 digits on every line. ``clean``: mixed, with a copy written.
Time: the wall clock of the whole command, start-up included, the text in the system's cache. Memory: the largest
resident set of the command. What it counts is compared with the lines that were made.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from build import Goal, Result, machine, spread, table

COMMAND = (sys.executable, "-m", "caef_data")
LINES = 40_000  # distinct lines of each kind
WORDS = "the of and to in is that for it was on are as with his they at be this from have or by one had not but what"
GOALS = {
    "mixed": Goal("1 GB of mixed text, 1% of lines with hits", 40, 15, "s"),
    "dense": Goal("1 GB of sums, 1% of lines with hits", 120, 60, "s"),
    "clean": Goal("1 GB of mixed text, with a cleaned copy", 60, 25, "s"),
    "memory": Goal("largest resident set of these", 1_000, 500, "MB"),
}


def lines_of(kind: str, held: pl.DataFrame, rng: np.random.Generator, count: int) -> list[str]:
    """Return distinct lines of a kind."""
    words, found = WORDS.split(), []
    signs = {"add": "+", "sub": "-", "mul": "*"}
    rows, known = (
        held.sample(count, with_replacement=True, seed=1).rows(),
        {(int(a), int(b)) for _, a, b in held.rows()},
    )
    for row in range(count):
        prose = " ".join(rng.choice(words, 16).tolist())
        x, y = (int(rng.integers(1, 10 ** int(rng.integers(1, 19)))) for _ in range(2))
        if {(x, y), (y, x)} & known:
            x, y = 10**18 + x, 10**18 + y + 1
        sign = str(rng.choice([*signs.values()]))
        if kind == "hit":
            task, a, b = rows[row]
            found.append(f"{prose[:40]} {a} {signs[task]} {b} = ? {prose[40:70]}")
        elif kind == "sums" or (kind == "other" and row % 4 == 3):
            found.append(f"{x}{sign}{y}={x + y} {y} {sign} {x} = {x * y % 10**20}")
        elif row % 4 == 2:
            date, price = f"{1900 + x % 120}-{y % 12 + 1:02}-{x % 28 + 1:02}", f"{x % 100}.{y % 100:02}"
            found.append(f"{prose[:30]} {date}, {y:,} and {price} {prose[30:50]}")
        else:
            found.append(prose)
    return found


def write(path: Path, size: int, kind: str, held: pl.DataFrame) -> tuple[int, int]:
    """Write a text of about so many bytes; return its lines, and how many of them hold what is held out."""
    rng, count = np.random.default_rng(1), min(LINES, size // 5_000)
    kinds = [[(line.encode() + b"\n") for line in lines_of(one, held, rng, count)] for one in (kind, "hit")]
    total = hits = written = 0
    with path.open("wb") as file:
        while written < size:
            hit = rng.random(100_000) < 0.01
            picks = rng.integers(0, count, len(hit))
            data = b"".join([kinds[one][pick] for one, pick in zip(hit.tolist(), picks.tolist(), strict=True)])
            file.write(data)
            total, hits, written = total + len(hit), hits + int(hit.sum()), written + len(data)
    return total, hits


def run(text: Path, data: Path, *words: str) -> tuple[float, float, dict[str, int]]:
    """Run the command; return seconds, MB, and what it says of the file."""
    begun = time.perf_counter()
    command = [*COMMAND, "contamination", str(text), "--against", str(data), "--json", "--quiet", *words]
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        if os.waitstatus_to_exitcode(status) != 1:
            raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
        out.seek(0)
        return seconds, usage.ru_maxrss / 1024, json.load(out)["files"][0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="10 MB")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=list(GOALS), choices=list(GOALS))
    parser.add_argument("--folder", help="where the texts are written")
    given = parser.parse_args()
    size, results, memory = (10 if given.small else 1000) * 10**6, [], []
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        data, text = Path(folder) / "data", Path(folder) / "text.txt"
        words = "--task add,sub,mul --min 2 --max 20 --num 20 --num-test 100 --split test --view raw --quiet --out"
        subprocess.run([*COMMAND, "build", *words.split(), str(data)], check=True, stdout=subprocess.DEVNULL)
        held = pl.concat([pl.read_parquet(f"{data}/{task}-raw/*.parquet") for task in ("add", "sub", "mul")])
        held = held.select(pl.col("task", "a", "b").cast(pl.String))
        for key in (key for key in GOALS if key in given.only and key != "memory"):
            total, hits = write(text, size, "sums" if key == "dense" else "other", held)
            times = []
            for repeat in range(given.repeat):
                copy = Path(folder) / f"copy-{repeat}"
                seconds, peak, said = run(text, data, *(["--clean", str(copy)] if key == "clean" else []))
                copy.unlink(missing_ok=True)
                times.append(seconds)
                memory.append(peak)
            counted = (said["lines"], said["lines_found"])
            print(f"{key}: made {total:,} lines, {hits:,} with hits; found {counted}", file=sys.stderr)
            detail = f"{spread(times)}; {text.stat().st_size / 1e6:,.0f} MB, {len(held):,} expressions held out"
            results.append(Result(key, sorted(times)[len(times) // 2], detail, {"command": times}))
        if "memory" in given.only and memory:
            results.append(Result("memory", max(memory), spread(memory, "MB"), {"peak": memory}))
    print(f"{table(results, GOALS)}\n\n{machine()}; medians of {given.repeat} runs (min..max).")


if __name__ == "__main__":
    main()
