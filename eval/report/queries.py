"""What a report says, read from the result tables: panels of counts, gains between runs, failures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import permutations
from operator import itemgetter
from typing import Any

from ...errors import UserError, suggested
from ..compare import RUNS, find_run, read_pairs
from ..problems import MODES, RAW, SLIPS
from ..query import Database
from ..tables import wilson

MAX_RUNS = 10  # more cannot be told apart in one chart
MAX_EXAMPLES, EXAMPLES_EACH = 60, 3  # failures shown: in all; of a cause in a run's task and mode
MODE_ORDER = (*MODES, SLIPS, RAW)

# test stands before other splits. Variants and dialects of a class are counted together, splits are not: training rows
# say nothing about a model.
CLASSES = """
SELECT split, task, mode, run_id, len_a, len_b,
    sum(n)::BIGINT AS n, sum(correct)::BIGINT AS correct, sum(final_correct)::BIGINT AS final
FROM class_accuracy WHERE run_id IN ({runs}) GROUP BY ALL
"""
TENTHS = """
SELECT split, task, mode, run_id, greatest(0, least(10 * step // num_calls, 9))::INTEGER AS tenth, count(*) AS problems
FROM failures WHERE num_calls > 1 AND run_id IN ({runs}) GROUP BY ALL
"""
# A failed problem counts where it first went wrong; of how many problems says its panel.
CAUSES = """
SELECT adapter, state, split, task, mode, run_id, count(*) AS problems
FROM failures WHERE run_id IN ({runs}) GROUP BY ALL
"""
# The shortest of each cause, run, task and mode. Runs that failed alike are one example: models err in the same places.
EXAMPLES = """
WITH ranked AS (
    SELECT hash(split, task, a, b, adapter, state, prompt, expected, text) AS same, mode = '{raw}' AS baseline,
        len_a + len_b AS digits, row_number() OVER (
            PARTITION BY run_id, split, task, mode, adapter, state ORDER BY len_a + len_b, len_a, a, b, step, variant
        ) AS place, {{'run_id': run_id, 'mode': mode, 'step': step, 'num_calls': num_calls}} AS found
    FROM failures WHERE run_id IN ({runs})
), few AS (
    SELECT same, min(place) AS place, list(found ORDER BY array_position([{runs}], found.run_id), found.mode) AS found
    FROM ranked GROUP BY same HAVING min(place) <= {each}
    ORDER BY bool_and(baseline), min(place), min(digits), same LIMIT {limit}
)
SELECT DISTINCT ON (same) few.place, few.found, failures.* FROM few
JOIN failures ON same = hash(split, task, a, b, adapter, state, prompt, expected, text)
WHERE run_id IN ({runs}) ORDER BY ALL
"""
ORDERED = """
SELECT * FROM ({query})
ORDER BY split <> 'test', split, task, array_position([{modes}], mode), mode, array_position([{runs}], run_id),
    COLUMNS(*)
"""

Row = dict[str, Any]
Key = tuple[str, str, str]  # split, task, mode
key_of = itemgetter("split", "task", "mode")


@dataclass(frozen=True)
class Count:
    """Problems right of those evaluated; of a rollout also those with the final answer right."""

    n: int
    correct: int
    final: int | None = None

    @property
    def accuracy(self) -> float | None:
        """The part that is right; None where nothing was evaluated."""
        return self.correct / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Its 95% Wilson interval; None where nothing was evaluated."""
        return wilson(self.correct, self.n) if self.n else None

    def __add__(self, other: Count) -> Count:
        final = None if self.final is other.final is None else (self.final or 0) + (other.final or 0)
        return Count(self.n + other.n, self.correct + other.correct, final)


@dataclass(frozen=True)
class Panel:
    """A task in a mode on a split.

    Args:
        classes: by run, then by (digits of a, digits of b): the counts.
        tenths: by run: failed problems by the tenth of their calls in which the first failing one is.
    """

    split: str
    task: str
    mode: str
    classes: dict[str, dict[tuple[int, int], Count]] = field(default_factory=dict)
    tenths: dict[str, list[int]] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """What tells it from other panels."""
        return self.split, self.task, self.mode

    @cached_property
    def totals(self) -> dict[str, Count]:
        """The counts of each run over all classes."""
        return {run: sum(classes.values(), Count(0, 0)) for run, classes in self.classes.items()}

    @property
    def runs(self) -> list[str]:
        """The runs that evaluated it, best known first: that of most problems, and of those the newest."""
        return sorted(reversed(self.classes), key=lambda run: -self.totals[run].n)

    @property
    def perfect(self) -> bool:
        """Whether every run was right in all that it evaluated."""
        return all(0 < total.n == total.correct for total in self.totals.values())

    @property
    def worst(self) -> float:
        """The lowest accuracy of its runs; above all others where nothing was evaluated."""
        return min((total.accuracy for total in self.totals.values() if total.accuracy is not None), default=2)

    @property
    def most_failed(self) -> int:
        """The most failed problems of a run."""
        return max(map(sum, self.tenths.values()), default=0)

    def lengths(self, run: str) -> dict[int, Count]:
        """Return the counts of a run by the digits of the longer operand."""
        counts: dict[int, Count] = {}
        for lengths, count in sorted(self.classes.get(run, {}).items(), key=lambda item: max(item[0])):
            counts[max(lengths)] = counts.get(max(lengths), Count(0, 0)) + count
        return counts


@dataclass(frozen=True)
class Report:
    """Everything that a report says; runs are rows of the table runs, the others rows of the queries above.

    Args:
        gains: each with the counts ``old`` and ``new`` of problems in common, and what ``read_pairs`` tells of them.
        causes: where failed problems first went wrong.
        unfinished: runs that have no accuracies yet.
        older: how many finished runs are left out.
    """

    runs: list[Row]
    panels: list[Panel]
    gains: list[Row] = field(default_factory=list)
    causes: list[Row] = field(default_factory=list)
    examples: list[Row] = field(default_factory=list)
    unfinished: list[Row] = field(default_factory=list)
    older: int = 0


def read_report(database: Database, wanted: Sequence[str]) -> Report:
    """Read what a report of some runs says.

    Args:
        database: the results.
        wanted: names or ids of runs, or how ids begin; none for all finished ones, of which the newest ``MAX_RUNS`` are
            taken.

    Raises:
        UserError: a run is unknown, ambiguous or has no tables yet, or more are named than a chart can hold.
    """
    every = list(database.each(RUNS))
    finished = [run for run in every if run["status"] == "finished"]
    if not finished:
        raise UserError(
            "no evaluation here is finished",
            where=", ".join(run["run_id"] for run in every[-3:]) or None,
            next_step=suggested(every[-1]["command"] if every else None, "eval", "caef-data eval"),
        )
    ids = {find_run(word, every, "--run", database.results)["run_id"] for word in wanted}
    if len(ids) > MAX_RUNS:
        raise UserError(f"{len(ids)} runs are too many to tell apart", allowed=f"at most {MAX_RUNS} --run")
    runs = [run for run in finished if run["run_id"] in ids] or finished[-MAX_RUNS:]

    def rows(query: str) -> list[Row]:
        names = {"runs": str([run["run_id"] for run in runs])[1:-1], "modes": str(MODE_ORDER)[1:-1], "raw": RAW}
        asked = query.format(**names, each=EXAMPLES_EACH, limit=MAX_EXAMPLES)
        return list(database.each(asked if query is EXAMPLES else ORDERED.format(**names, query=asked)))

    panels: dict[Key, Panel] = {}
    for row in rows(CLASSES):
        classes = panels.setdefault(key_of(row), Panel(*key_of(row))).classes.setdefault(row["run_id"], {})
        classes[row["len_a"], row["len_b"]] = Count(row["n"], row["correct"], row["final"])
    for row in rows(TENTHS):
        if panel := panels.get(key_of(row)):
            panel.tenths.setdefault(row["run_id"], [0] * 10)[row["tenth"]] = row["problems"]
    return Report(
        runs,
        list(panels.values()),
        _gains(database, runs, list(panels)),
        rows(CAUSES),
        rows(EXAMPLES),
        [] if wanted else [run for run in every if run["status"] != "finished"],
        0 if wanted else len(finished) - len(runs),
    )


def _gains(database: Database, runs: Sequence[Row], panels: Sequence[Key]) -> list[Row]:
    """Return what runs gained over others, in the order of the panels.

    A run is compared with an older one of the same mode, and the whole process with the base model alone: both lead
    from the raw question to the raw answer. Of several base models with its own; else with the run with which it shares
    most problems; the oldest of equals.
    """
    places = {run["run_id"]: place for place, run in enumerate(runs)}
    base = {run["run_id"]: run["base_model"] for run in runs}
    best: dict[tuple[Any, ...], Row] = {}
    for (old, new), rows in read_pairs(database, list(permutations(places, 2))).items():
        for row in rows:
            other = (row["mode_a"], row["mode_b"]) == (RAW, "process")
            if not other and (row["mode_a"] != row["mode_b"] or places[old] > places[new]):
                continue
            key = (panels.index((row["split"], row["task"], row["mode_b"])), places[new], other)
            rank = (other and base[old] == base[new], row["n"], -places[old])
            if key not in best or rank > best[key]["rank"]:
                best[key] = {**row, "run_id": new, "old_run": old, "mode": row["mode_b"], "old_mode": row["mode_a"]}
                best[key] |= {"rank": rank, "other_mode": other}
    for gain in best.values():
        gain["old"] = Count(gain["n"], gain["both_right"] + gain["lost"])
        gain["new"] = Count(gain["n"], gain["both_right"] + gain["gained"])
    return [gain for _, gain in sorted(best.items())]
