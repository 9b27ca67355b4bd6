"""``caef-data verify``: check a built folder from scratch, files, rows and what must hold across them.

Rows are computed again by ``verify_rows``, which shares nothing with the machines that made them. Memory: a
worker holds a few thousand rows, and a byte per digit of the expressions of one split of a task, 64 MB at most; the
parent 16 bytes per row and distinct expression of one task, or of a few whose parts are in work.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError, quoted
from .manifest import MANIFEST
from .verify_card import check_card
from .verify_declaration import declared
from .verify_manifest import Manifest, SplitCount, check_files, open_shard, read_manifest
from .verify_rows import known_tasks
from .verify_shard import KEPT, NO_HASHES, TEXTS, Finding, Hashes, Part, PartResult, ranked, unique
from .verify_workers import Workers, run_here, units
from .workers import default_workers

Progress = Callable[[int, int], None]  # rows done, rows in all


@dataclass(frozen=True)
class Report:
    """What was checked and what was found.

    Args:
        directory: the folder.
        shards: shards that the manifest names.
        rows: rows read (digests, duplicates, overlap, split).
        rows_checked: rows re-executed; fewer than ``rows`` with a fraction.
        transitions: transitions re-executed: a full row counts as its transitions.
        seconds: wall clock.
        fraction: the share of rows asked for.
        findings: what is wrong, at most 50 kept per part of a shard.
        num_findings: how many there were.
        notes: what the reader should know of how it was checked.

    """

    directory: str
    shards: int
    rows: int
    rows_checked: int
    transitions: int
    seconds: float
    fraction: float
    findings: tuple[Finding, ...]
    num_findings: int
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.num_findings == 0

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {"ok": self.ok, **asdict(self)}


def verify(
    directory: Path, *, fraction: float = 1.0, workers: int | None = None, progress: Progress | None = None
) -> Report:
    """Check a built folder.

    Args:
        directory: the folder that ``caef-data build`` wrote.
        fraction: the share of rows to re-execute, above 0 and up to 1; always the same rows. All else is
            checked in full whatever the fraction.
        workers: processes; None for one per CPU, 0 or 1 for this process alone.
        progress: called with the rows done and the rows in all.

    Raises:
        UserError: there is no finished dataset, or the fraction is out of range.

    """
    if not 0 < fraction <= 1:
        raise UserError(f"fraction {quoted(fraction)} is out of range", allowed="above 0, up to 1")
    began = time.monotonic()
    manifest = read_manifest(directory)
    tally = _Tally(manifest, progress)
    tally.findings(check_files(directory, manifest))
    plan = declared(manifest.values)
    tally.findings(plan.findings)
    tally.notes |= dict.fromkeys(plan.notes)
    parts: list[Part] = []
    for shard in manifest.shards:
        config = plan.configs.get((shard.config, shard.split))
        findings, cut = open_shard(directory, shard, fraction, config, plan.other_rules)
        tally.findings(findings)
        parts += cut
    parts.sort(key=lambda part: (part.task, part.split, part.view, part.path, part.first_row))
    number = min(len(parts), default_workers() if workers is None else workers)
    todo = units(parts, number)
    ours = [unit for unit in todo if unit.parts[0].task in known_tasks()] if number > 1 else []
    here = [unit for unit in todo if unit not in ours]  # machines of the user's own are known in this process only
    with Workers(number) as running:
        tally.tasks(parts, chain(run_here(here), running.run(ours)))
    tally.card(directory, manifest)
    return tally.report(directory, fraction, time.monotonic() - began)


class _Tally:
    """Adds up results and finds what is wrong across files."""

    def __init__(self, manifest: Manifest, progress: Progress | None) -> None:
        self.counts = {(count.config, count.split): count for count in manifest.counts}
        self.shards = {shard.path: shard for shard in manifest.shards}
        self.progress, self.rows_done = progress, 0
        self.total = sum(shard.rows for shard in manifest.shards)
        self.kept: list[Finding] = []
        self.num_findings = self.checked = self.transitions = self.rows = 0
        self.notes: dict[str, None] = {}
        self.of_task: list[tuple[str, str, str, list[Part], list[PartResult]]] = []

    def tasks(self, parts: Sequence[Part], results: Iterator[tuple[Part, PartResult]]) -> None:
        """Take the results of all parts, which come in any order, and look at each task when it is complete."""
        of_task = {task: list(own) for task, own in groupby(parts, key=lambda part: part.task)}
        left = {task: len(own) for task, own in of_task.items()}
        found: dict[Part, PartResult] = {}
        for part, result in results:
            found[part] = result
            left[part.task] -= 1
            self.rows_done += part.rows
            if self.progress is not None:
                self.progress(self.rows_done, self.total)
            while left and not next(iter(left.values())):  # in order: so are the findings
                left.pop(task := next(iter(left)))
                own = sorted(of_task.pop(task), key=lambda one: (one.view, one.split))
                for (_, split), held in groupby(own, key=lambda one: (one.view, one.split)):
                    self.split(split, [(one, found.pop(one)) for one in held])
                self.task()

    def findings(self, findings: Sequence[Finding], more: int = 0) -> None:
        self.kept += findings
        self.num_findings += len(findings) + more

    def split(self, split: str, results: list[tuple[Part, PartResult]]) -> None:
        """Take the results of one split of one config: look for duplicates, compare the counts."""
        parts, found = [part for part, _ in results], [result for _, result in results]
        first = parts[0]
        for result in found:
            self.findings(result.findings, result.num_findings - len(result.findings))
            self.checked += result.checked
            self.transitions += result.transitions
        if first.task not in known_tasks():
            note = f"{first.task} is compared with its own machine: producer and checker have the same author"
            self.notes[note] = None
        hashes, starts = _joined([result.rows for result in found])
        self.rows += len(hashes)
        what = "prompt" if first.view == "one_step" else "expression"
        for one, other in _equal_rows(hashes):
            (path, row), (path2, row2) = (_place(parts, starts, at) for at in (one, other))
            self.add(Finding("duplicate", path2, row2, f"the same {what} as row {row} of {path}"))
        expressions = len(unique(_joined([result.expressions for result in found])[0])[0])
        said = self.counts[f"{first.task}-{first.view}", split]
        if expressions != said.expressions:
            message = f"{said.config} {split}: {said.expressions} expressions, its rows have {expressions}"
            self.add(Finding("counts", MANIFEST, None, message))
        self._chars(said, results)
        for result in found:
            result.rows = result.expressions = NO_HASHES
        self.of_task.append((first.task, first.view, split, parts, found))

    def add(self, finding: Finding) -> None:
        """Keep a finding unless many of its kind are kept for its file."""
        same = sum(1 for kept in self.kept[-KEPT:] if (kept.kind, kept.path) == (finding.kind, finding.path))
        self.num_findings += 1
        if same < KEPT:
            self.kept.append(finding)

    def task(self) -> None:
        """Look for expressions of a task that stand in more than one split, over all its views."""
        sides: dict[str, Hashes] = {}
        for split in dict.fromkeys(entry[2] for entry in self.of_task):
            pairs = [result.pairs for entry in self.of_task if entry[2] == split for result in entry[4]]
            sides[split] = unique(_joined(pairs)[0])[0]
        names = list(sides)
        for i, one in enumerate(names):
            for other in names[i + 1 :]:
                common = _common(sides[one], sides[other])
                if len(common):
                    self._overlap(one, other, common)
        self.of_task = []

    def _overlap(self, one: str, other: str, common: Hashes) -> None:
        """Name the rows of split ``other`` whose expression stands in split ``one`` too."""
        wanted = set(map(tuple, common.tolist()))
        seen = set()
        for task, view, split, parts, results in self.of_task:
            for part, result in zip(parts, results, strict=True):
                if split != other:
                    continue
                for pair, row in zip(map(tuple, result.pairs.tolist()), result.first, strict=True):
                    if pair in wanted and (pair, part.path) not in seen:
                        seen.add((pair, part.path))
                        message = f"this expression of {task} ({view}) stands in split {one} too"
                        self.add(Finding("overlap", part.path, row, message))

    def _chars(self, said: SplitCount, results: list[tuple[Part, PartResult]]) -> None:
        """Compare the numbers of characters with those of the manifest, a shard and a split at a time."""
        shards: dict[str, dict[str, list[int]]] = {}
        rows = dict.fromkeys(TEXTS, 0)
        whole = {text: [0, 0] for text in TEXTS}
        for part, result in results:
            own = shards.setdefault(part.path, {text: [0, 0] for text in TEXTS})
            for text, (total, longest) in result.chars.items():
                rows[text] += part.rows
                for sizes in (own[text], whole[text]):
                    sizes[:] = sizes[0] + total, max(sizes[1], longest)
        for path, found in shards.items():
            if found != self.shards[path].chars:
                self.add(Finding("counts", MANIFEST, None, f"{path}: its texts have other numbers of characters"))
        means = {text: {"mean": round(whole[text][0] / max(rows[text], 1), 1), "max": whole[text][1]} for text in TEXTS}
        if said.chars != means:
            message = f"{said.config} {said.split}: its texts have other numbers of characters"
            self.add(Finding("counts", MANIFEST, None, message))

    def card(self, directory: Path, manifest: Manifest) -> None:
        """Check the card, once it is known whether the rows that it shows can be read."""
        damaged = any(finding.kind in ("file", "schema", "manifest") for finding in self.kept)
        findings, notes = check_card(directory, manifest.values, damaged)
        self.findings(findings)
        self.notes |= dict.fromkeys(notes)

    def report(self, directory: Path, fraction: float, seconds: float) -> Report:
        return Report(
            str(directory),
            len(self.shards),
            self.rows,
            self.checked,
            self.transitions,
            round(seconds, 3),
            fraction,
            tuple(self.kept),
            self.num_findings,
            tuple(self.notes),
        )


# ----------------------------------------------------------------------------------------------------------
# Sets of 128-bit hashes


def _joined(hashes: list[Hashes]) -> tuple[Hashes, list[int]]:
    """Return all hashes and where each part's begin."""
    starts = [0]
    for held in hashes:
        starts.append(starts[-1] + len(held))
    return np.concatenate([NO_HASHES, *hashes]), starts[:-1]


def _common(one: Hashes, other: Hashes) -> Hashes:
    """Return what two sets, each without repeats, have in common."""
    both = np.concatenate([one, other])
    order, same = ranked(both)
    return both[order[1:][same]]


def _equal_rows(hashes: Hashes) -> list[tuple[int, int]]:
    """Return (earlier, later) positions of rows that are equal, in the order of the later ones."""
    if len(hashes) < 2:
        return []
    order, same = ranked(hashes)
    return sorted(((int(order[i]), int(order[i + 1])) for i in np.flatnonzero(same)), key=lambda pair: pair[1])


def _place(parts: list[Part], starts: list[int], at: int) -> tuple[str, int]:
    index = int(np.searchsorted(starts, at, side="right")) - 1  # the last of equal starts: those before are empty
    return parts[index].path, parts[index].first_row + at - starts[index]
