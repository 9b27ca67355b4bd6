"""Two runs problem by problem: what the second one gained and lost, and whether chance explains it.

A pair is one problem that both runs judged: the same task, split, dialect and operands, in one_step the same step, in
the same mode. A process is also paired with the baseline's raw answer: both lead from the raw question to the raw one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError, did_you_mean, printable_path, quoted, shell_quoted, suggested
from .problems import RAW
from .query import Database

RUNS = "SELECT * FROM runs ORDER BY started, run_id"
# Single steps too late for a number of 64 bits share an expression's key: they count as one problem, right if all are.
PAIRS = f"""
WITH side AS (
    SELECT run_id, split, task, mode, dialect, a, coalesce(b, '') AS b, coalesce(asked_step, -1) AS asked_step,
        bool_and(correct) AS correct, count(*) AS num_rows
    FROM problems WHERE list_contains([{{runs}}], run_id) GROUP BY ALL
)
SELECT old.run_id AS run_a, new.run_id AS run_b, split, task, old.mode AS mode_a, new.mode AS mode_b,
    count(*) AS n, count(*) FILTER (old.correct AND new.correct) AS both_right,
    count(*) FILTER (new.correct > old.correct) AS gained,
    count(*) FILTER (new.correct < old.correct) AS lost,
    count(*) FILTER (NOT old.correct AND NOT new.correct) AS both_wrong
FROM side old JOIN side new USING (split, task, dialect, a, b, asked_step, num_rows)
WHERE (old.run_id || ' ' || new.run_id) IN ({{pairs}})
    AND (old.mode = new.mode OR (old.mode || ' ' || new.mode) IN ('{RAW} process', 'process {RAW}'))
GROUP BY ALL ORDER BY ALL
"""
Row = dict[str, Any]


def mcnemar(gained: int, lost: int) -> float:
    """Return the p value of McNemar's exact test, two-sided.

    That is how likely a fair coin, thrown once for each problem that the runs judged differently, falls at least as
    unevenly. 1 where there is none.
    """
    fewer, n = min(gained, lost), gained + lost
    term = math.exp(math.lgamma(n + 1) - math.lgamma(fewer + 1) - math.lgamma(n - fewer + 1) - n * math.log(2))
    total, heads = 0.0, fewer
    while heads >= 0 and term > total * 1e-17:
        total += term
        term *= heads / (n - heads + 1)
        heads -= 1
    return min(1.0, 2 * total) if gained != lost else 1.0


def find_run(word: str, runs: Sequence[Row], where: str, results: Path) -> Row:
    """Return the run that a word means: its id, else the newest of its name, else the one whose id begins with it.

    Args:
        word: what the user gave.
        runs: rows of the table runs, the oldest first.
        where: the option or argument, for messages.
        results: the folder, for messages.

    Raises:
        UserError: there is none, several begin like this, or it is not finished.
    """
    place = "" if results == Path("results") else f" --results {shell_quoted(results)}"
    listing = f'caef-data query{place} "SELECT run_id, name, started, status, command FROM runs" lists all'
    matches = [run for run in runs if run["run_id"] == word.lower()]
    matches = matches or [run for run in runs if word and run["name"] == word][-1:]
    matches = matches or [run for run in runs if word and run["run_id"].startswith(word.lower())]
    if not matches:
        names = [name for run in runs for name in (run["run_id"], run["name"]) if name]
        raise UserError(f"there is no run {quoted(word)}{did_you_mean(word, names)}", where=where, next_step=listing)
    if len(matches) > 1:
        ids = ", ".join(run["run_id"] for run in matches[:5])
        raise UserError(f"more than one run begins with {quoted(word)}", where=where, allowed=ids)
    if matches[0]["status"] != "finished":
        what = f"the run {matches[0]['run_id']} is not finished: it has no accuracies yet"
        raise UserError(what, where=where, next_step=suggested(matches[0]["command"], "eval", listing))
    return matches[0]


def read_pairs(database: Database, wanted: Collection[tuple[str, str]]) -> dict[tuple[str, str], list[Row]]:
    """Return what pairs of runs, by their ids, have in common.

    Returns:
        For each pair a list, with a member for each task, split and modes: the number ``n`` of problems, how many of
        them are ``both_right``, ``gained``, ``lost``, ``both_wrong``, and McNemar's ``p``.
    """
    comparisons: dict[tuple[str, str], list[Row]] = {pair: [] for pair in wanted}
    if not wanted:
        return comparisons
    names = ({run for pair in wanted for run in pair}, {" ".join(pair) for pair in wanted})
    runs, pairs = (", ".join(f"'{name}'" for name in sorted(some)) for some in names)
    for row in database.each(PAIRS.format(runs=runs, pairs=pairs)):
        row["p"] = mcnemar(row["gained"], row["lost"])
        comparisons[row.pop("run_a"), row.pop("run_b")].append(row)
    return comparisons


def compare(word_a: str, word_b: str, results: str, *, as_json: bool) -> None:
    """Print what run B gained and lost over run A.

    Raises:
        UserError: there are no results, a run is unknown or unfinished, or they have no problem in common.
    """
    with Database(Path(results)) as database:
        runs = list(database.each(RUNS))
        words = ((word_a, "first run"), (word_b, "second run"))
        a, b = (find_run(word, runs, where, Path(results)) for word, where in words)
        (comparisons,) = read_pairs(database, [(a["run_id"], b["run_id"])]).values()
    if not comparisons:
        raise UserError(
            "these runs have no problem in common",
            where=f"{a['run_id']} and {b['run_id']}",
            allowed="the same task and split in the same mode, or process and the baseline",
            next_step="evaluate both on one dataset, with the same --task, --mode, --split and --limit",
        )
    if as_json:
        named = {side: {name: run[name] for name in ("run_id", "name")} for side, run in (("a", a), ("b", b))}
        print(json.dumps({**named, "comparisons": comparisons}))
    else:
        _print(a, b, comparisons)


def _print(a: Row, b: Row, comparisons: Sequence[Row]) -> None:
    from ..pipelines.terminal import new_table, open_console, print_table

    console = open_console()
    for letter, run in (("A", a), ("B", b)):
        told = ", with the instruction" * (run["stage"] == "first")
        console.print(f"{letter}: {run['run_id']} {printable_path(run['name'] or '')}".rstrip() + told)
    table = new_table("common", "A right", "B right", "gained", "lost", "p", first=("task", "mode"))
    for row in comparisons:
        modes = ", ".join(dict.fromkeys((row["mode_a"], row["mode_b"])))
        split = "" if row["split"] == "test" else f" ({row['split']})"
        right = (row["both_right"] + row["lost"], row["both_right"] + row["gained"])
        counts = (row["n"], *right, row["gained"], row["lost"])
        table.add_row(row["task"] + split, modes, *(f"{count:,}" for count in counts), in_short(row["p"]))
    print_table(console, table)
    console.print("gained: wrong in A, right in B; p: McNemar's exact test, two-sided")


def in_short(p: float) -> str:
    """Return a p value with two digits that count."""
    if p < 1e-99:
        return "<1e-99"
    return f"{p:.2f}" if p >= 0.095 else f"{p:.2g}" if p >= 1e-4 else f"{p:.0e}"
