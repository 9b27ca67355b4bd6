"""Two runs problem by problem: what the second one gained and lost, and whether chance explains it.

A pair is one problem that both runs judged: the same task, split, dialect and operands, in one_step the same step, in
the same mode. A process is also paired with the baseline's raw answer: both lead from the raw question to the raw one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError, did_you_mean, printable_path, quoted, suggested
from .problems import RAW
from .query import Database

RUNS = "SELECT * FROM runs ORDER BY started, run_id"
LISTING = 'caef-data query "SELECT run_id, name, started, status, command FROM runs" lists all'
# Single steps too late for a number of 64 bits share an expression's key: they count as one problem, right if all are.
PAIRS = f"""
WITH side AS (
    SELECT run_id, split, task, mode, dialect, a, coalesce(b, '') AS b, coalesce(asked_step, -1) AS asked_step,
        any_value(len_a) AS len_a, any_value(len_b) AS len_b, any_value(variant) AS variant,
        bool_and(correct) AS correct, count(*) AS num_rows
    FROM problems WHERE list_contains([{{runs}}], run_id) GROUP BY ALL
)
SELECT old.run_id AS run_a, new.run_id AS run_b, split, task, old.mode AS mode_a, new.mode AS mode_b,
    new.len_a, new.len_b, new.variant,
    count(*) FILTER (old.correct AND new.correct) AS both_right, count(*) FILTER (new.correct > old.correct) AS gained,
    count(*) FILTER (new.correct < old.correct) AS lost,
    count(*) FILTER (NOT old.correct AND NOT new.correct) AS both_wrong
FROM side old JOIN side new USING (split, task, dialect, a, b, asked_step, num_rows)
WHERE (old.run_id || ' ' || new.run_id) IN ({{pairs}})
    AND (old.mode = new.mode OR (old.mode || ' ' || new.mode) IN ('{RAW} process', 'process {RAW}'))
GROUP BY ALL ORDER BY ALL
"""
MOST_CLASSES = 10  # with a gain or a loss that are printed
Row = dict[str, Any]


@dataclass(frozen=True)
class Pairs:
    """Problems that two runs judged.

    Args:
        both_right: right in both.
        gained: wrong in the first, right in the second.
        lost: right in the first, wrong in the second.
        both_wrong: wrong in both.
    """

    both_right: int = 0
    gained: int = 0
    lost: int = 0
    both_wrong: int = 0

    @property
    def n(self) -> int:
        """Number of pairs."""
        return self.both_right + self.gained + self.lost + self.both_wrong

    @property
    def p(self) -> float:
        """The p value of McNemar's exact test: see ``mcnemar``."""
        return mcnemar(self.gained, self.lost)

    def __add__(self, other: Pairs) -> Pairs:
        return Pairs(*(one + two for one, two in zip(asdict(self).values(), asdict(other).values(), strict=True)))


@dataclass(frozen=True)
class Comparison:
    """A task on a split in a mode of either run.

    Args:
        classes: the pairs of each class (len_a, len_b, variant) that has some.
    """

    task: str
    split: str
    mode_a: str
    mode_b: str
    classes: dict[tuple[int, int, str], Pairs]

    @property
    def total(self) -> Pairs:
        """The pairs of all classes."""
        return sum(self.classes.values(), Pairs())


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


def find_run(word: str, runs: Sequence[Row], where: str) -> Row:
    """Return the run that a word means: its id, else the newest of its name, else the one whose id begins with it.

    Args:
        word: what the user gave.
        runs: rows of the table runs, the oldest first.
        where: the option or argument, for messages.

    Raises:
        UserError: there is none, several begin like this, or it is not finished.
    """
    found = [run for run in runs if run["run_id"] == word.lower()]
    found = found or [run for run in runs if word and run["name"] == word][-1:]
    found = found or [run for run in runs if word and run["run_id"].startswith(word.lower())]
    if not found:
        names = [name for run in runs for name in (run["run_id"], run["name"]) if name]
        raise UserError(f"there is no run {quoted(word)}{did_you_mean(word, names)}", where=where, next_step=LISTING)
    if len(found) > 1:
        ids = ", ".join(run["run_id"] for run in found[:5])
        raise UserError(f"more than one run begins with {quoted(word)}", where=where, allowed=ids)
    if found[0]["status"] != "finished":
        what = f"the run {found[0]['run_id']} is not finished: it has no accuracies yet"
        raise UserError(what, where=where, next_step=suggested(found[0]["command"], "eval", LISTING))
    return found[0]


def read_pairs(database: Database, wanted: Collection[tuple[str, str]]) -> dict[tuple[str, str], list[Comparison]]:
    """Return what pairs of runs, by their ids, have in common; runs of version 0.1.0 have nothing."""
    names = {"runs": {run for pair in wanted for run in pair}, "pairs": {" ".join(pair) for pair in wanted}}
    found: dict[tuple[str, str], dict[tuple[str, ...], Comparison]] = {pair: {} for pair in wanted}
    listed = {what: ", ".join(f"'{one}'" for one in sorted(words)) for what, words in names.items()}
    for row in database.each(PAIRS.format(**listed)) if wanted else ():
        key = (row["task"], row["split"], row["mode_a"], row["mode_b"])
        one = found[row["run_a"], row["run_b"]].setdefault(key, Comparison(*key, {}))
        counts = Pairs(row["both_right"], row["gained"], row["lost"], row["both_wrong"])
        one.classes[row["len_a"], row["len_b"], row["variant"]] = counts
    return {pair: list(comparisons.values()) for pair, comparisons in found.items()}


def compare(word_a: str, word_b: str, results: str, *, as_json: bool) -> None:
    """Print what run B gained and lost over run A.

    Raises:
        UserError: there are no results, a run is unknown or unfinished, or they have no problem in common.
    """
    database = Database(Path(results))
    try:
        runs = list(database.each(RUNS))
        a, b = (find_run(word, runs, where) for word, where in ((word_a, "first run"), (word_b, "second run")))
        found = read_pairs(database, [(a["run_id"], b["run_id"])])[a["run_id"], b["run_id"]]
    finally:
        database.close()
    if not found:
        raise _nothing_in_common(a, b)
    if as_json:
        print(json.dumps(_as_json(a, b, found)))
    else:
        _print(a, b, found)


def _nothing_in_common(a: Row, b: Row) -> UserError:
    for run in (a, b):
        if run["rules"] is None:
            return UserError(
                f"the run {run['run_id']} has no table of problems: caef-data {run['caef_data']} did not write one",
                next_step=f"evaluate again: {suggested(run['command'], 'eval', 'caef-data eval')}",
            )
    return UserError(
        "these runs have no problem in common",
        where=f"{a['run_id']} and {b['run_id']}",
        allowed="the same task and split in the same mode, or process and the baseline",
        next_step="evaluate both on one dataset, with the same --task, --mode, --split and --limit",
    )


def _as_json(a: Row, b: Row, found: Sequence[Comparison]) -> dict[str, Any]:
    def counts(pairs: Pairs) -> dict[str, Any]:
        return {"n": pairs.n, **asdict(pairs), "p": pairs.p}

    return {
        **{side: {"run_id": run["run_id"], "name": run["name"]} for side, run in (("a", a), ("b", b))},
        "comparisons": [
            {
                **{name: getattr(one, name) for name in ("task", "split", "mode_a", "mode_b")},
                **counts(one.total),
                "classes": [
                    {"len_a": len_a, "len_b": len_b, "variant": variant, **counts(pairs)}
                    for (len_a, len_b, variant), pairs in one.classes.items()
                ],
            }
            for one in found
        ],
    }


def _print(a: Row, b: Row, found: Sequence[Comparison]) -> None:
    from rich.table import Table

    from ..pipelines.terminal import open_console, print_table

    console = open_console()
    for letter, run in (("A", a), ("B", b)):
        console.print(f"{letter}: {run['run_id']} {printable_path(run['name'] or '')}".rstrip(), soft_wrap=True)
    table = Table()
    for name in ("task", "mode"):
        table.add_column(name, no_wrap=True)
    for name in ("common", "A right", "B right", "gained", "lost", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        total = one.total
        mode = one.mode_a if one.mode_a == one.mode_b else f"{one.mode_a}, {one.mode_b}"
        split = "" if one.split == "test" else f" ({one.split})"
        counts = (total.n, total.both_right + total.lost, total.both_right + total.gained, total.gained, total.lost)
        table.add_row(one.task + split, mode, *(f"{count:,}" for count in counts), in_short(total.p))
    print_table(console, table)
    changed = [
        (one, lengths, pairs) for one in found for lengths, pairs in one.classes.items() if pairs.gained != pairs.lost
    ]
    changed.sort(key=lambda row: -abs(row[2].gained - row[2].lost))
    for one, (len_a, len_b, variant), pairs in changed[:MOST_CLASSES]:
        told = f"{one.task} {one.mode_b}, {len_a} and {len_b} digits, {variant}"
        console.print(f"{told}: {pairs.gained} gained, {pairs.lost} lost of {pairs.n}", soft_wrap=True)
    if len(changed) > MOST_CLASSES:
        console.print(f"{len(changed) - MOST_CLASSES:,} more classes differ; --json prints all", soft_wrap=True)
    console.print("gained: wrong in A, right in B; p: McNemar's exact test, two-sided", soft_wrap=True)


def in_short(p: float) -> str:
    """Return a p value with two digits that count."""
    if p < 1e-99:
        return "<1e-99"
    return f"{p:.2f}" if p >= 0.095 else f"{p:.2g}" if p >= 1e-4 else f"{p:.0e}"
