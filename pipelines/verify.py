"""``caef-data verify``: check a built folder from scratch, files, rows and what must hold across them.

Rows are re-executed by ``tm.check_rows``, which shares nothing with the machines that made them. Memory: a
worker holds a few thousand rows; the parent 16 bytes per row of one config's split and 16 per distinct
expression of one task.
"""

import multiprocessing
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UserError, clip
from ..tm.check_rows import known_tasks
from .verify_manifest import MANIFEST, Shard, SplitCount, check_files, open_shard, read_manifest
from .verify_shard import KEPT, Finding, Part, PartResult, verify_part

Progress = Callable[[int, int], None]  # rows done, rows in all
Digests = npt.NDArray[np.uint64]  # (n, 2): 128 bits of BLAKE2b each


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
        raise UserError(f"fraction {clip(fraction)} is out of range", allowed="above 0, up to 1")
    began = time.monotonic()
    shards, counts = read_manifest(directory)
    tally = _Tally(counts, progress, sum(shard.rows for shard in shards))
    tally.findings(check_files(directory, shards, counts))
    parts: list[Part] = []
    for shard in shards:
        findings, cut = open_shard(directory, shard, fraction)
        tally.findings(findings)
        parts += cut
    parts.sort(key=lambda part: (part.task, part.view, part.split, part.path, part.first_row))
    with _Runner(min(len(parts), _cpus() if workers is None else workers)) as runner:
        for _, of_task in groupby(parts, key=lambda part: part.task):
            for (_, split), held in groupby(of_task, key=lambda part: (part.view, part.split)):
                tally.split(split, runner.run(list(held), tally.done))
            tally.task()
    return tally.report(directory, shards, fraction, time.monotonic() - began)


def _cpus() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


class _Runner:
    """Runs parts in worker processes, or here. Machines of the user's own are known in this process only."""

    def __init__(self, workers: int) -> None:
        self.pool: ProcessPoolExecutor | None = None
        if workers > 1:  # forkserver: polars and pyarrow threads do not survive a fork
            self.pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("forkserver"))

    def __enter__(self) -> "_Runner":
        return self

    def __exit__(self, *error: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(wait=error[0] is None, cancel_futures=True)

    def run(self, parts: list[Part], done: Callable[[Part], None]) -> list[tuple[Part, PartResult]]:
        """Return the parts with their results, in order."""
        if self.pool is None or parts[0].task not in known_tasks():
            return list(self._here(parts, done))
        futures = {self.pool.submit(verify_part, part): part for part in parts}
        try:
            for future in as_completed(futures):
                future.result()
                done(futures[future])
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process died: out of memory, or a damaged file crashed the Parquet reader",
                next_step="run caef-data verify --workers 1",
            ) from error
        return [(part, future.result()) for future, part in futures.items()]

    @staticmethod
    def _here(parts: list[Part], done: Callable[[Part], None]) -> Iterator[tuple[Part, PartResult]]:
        for part in parts:
            yield part, verify_part(part)
            done(part)


class _Tally:
    """Adds up results and finds what is wrong across files."""

    def __init__(self, counts: Sequence[SplitCount], progress: Progress | None, total: int) -> None:
        self.counts = {(count.config, count.split): count for count in counts}
        self.progress, self.total, self.rows_done = progress, total, 0
        self.kept: list[Finding] = []
        self.num_findings = self.checked = self.transitions = self.rows = 0
        self.notes: dict[str, None] = {}
        self.of_task: list[tuple[str, str, str, list[Part], list[PartResult]]] = []

    def done(self, part: Part) -> None:
        self.rows_done += part.rows
        if self.progress is not None:
            self.progress(self.rows_done, self.total)

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
            self.notes[f"{first.task} has no hand-written grammar: compared with the machine's own steps"] = (
                None
            )
        digests, starts = _joined([result.rows for result in found])
        self.rows += len(digests)
        what = "prompt" if first.view == "one_step" else "expression"
        for one, other in _equal_rows(digests):
            (path, row), (path2, row2) = (_place(parts, starts, at) for at in (one, other))
            self.add(Finding("duplicate", path2, row2, f"the same {what} as row {row} of {path}"))
        expressions = len(_distinct(_joined([result.expressions for result in found])[0]))
        said = self.counts[f"{first.task}-{first.view}", split]
        if expressions != said.expressions:
            message = f"{said.config} {split}: {said.expressions} expressions, its rows have {expressions}"
            self.add(Finding("manifest", MANIFEST, None, message))
        for result in found:
            result.rows = result.expressions = b""
        self.of_task.append((first.task, first.view, split, parts, found))

    def add(self, finding: Finding) -> None:
        """Keep a finding unless many of its kind are kept for its file."""
        same = sum(1 for kept in self.kept[-KEPT:] if (kept.kind, kept.path) == (finding.kind, finding.path))
        self.num_findings += 1
        if same < KEPT:
            self.kept.append(finding)

    def task(self) -> None:
        """Look for expressions of a task that stand in more than one split, over all its views."""
        sides: dict[str, Digests] = {}
        for split in dict.fromkeys(entry[2] for entry in self.of_task):
            pairs = [result.pairs for entry in self.of_task if entry[2] == split for result in entry[4]]
            sides[split] = _distinct(_joined(pairs)[0])
        names = list(sides)
        for i, one in enumerate(names):
            for other in names[i + 1 :]:
                common = _common(sides[one], sides[other])
                if len(common):
                    self._overlap(one, other, common)
        self._instructions()
        self.of_task = []

    def _overlap(self, one: str, other: str, common: Digests) -> None:
        """Name the rows of split ``other`` whose expression stands in split ``one`` too."""
        wanted = {bytes(row) for row in common.view(np.uint8).reshape(-1, 16)}
        seen = set()
        for task, view, split, parts, results in self.of_task:
            for part, result in zip(parts, results, strict=True):
                if split != other:
                    continue
                for at, row in enumerate(result.first):
                    digest = result.pairs[16 * at : 16 * at + 16]
                    if digest in wanted and (digest, part.path) not in seen:
                        seen.add((digest, part.path))
                        message = f"this expression of {task} ({view}) stands in split {one} too"
                        self.add(Finding("overlap", part.path, row, message))

    def _instructions(self) -> None:
        texts: dict[str, set[str]] = defaultdict(set)
        for task, view, _, _, results in self.of_task:
            for result in results:
                texts[f"{task}-{view}"] |= result.instructions
        for config, found in texts.items():
            if len(found) > 1:
                self.add(
                    Finding("instruction", config, None, f"{len(found)} different instructions; one is right")
                )

    def report(self, directory: Path, shards: list[Shard], fraction: float, seconds: float) -> Report:
        return Report(
            str(directory),
            len(shards),
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
# Sets of 128-bit digests as pairs of integers: exact but for a chance of 2^-128 per pair


def _joined(digests: list[bytes]) -> tuple[Digests, list[int]]:
    """Return all digests and where each part's begin."""
    starts, at = [], 0
    for held in digests:
        starts.append(at)
        at += len(held) // 16
    return np.frombuffer(b"".join(digests), dtype=np.uint64).reshape(-1, 2), starts


def _sorted(digests: Digests) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Return a stable sorting order, and for each but the first whether it equals the one before."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))
    ranked = digests[order]
    return order, (ranked[1:] == ranked[:-1]).all(axis=1)


def _distinct(digests: Digests) -> Digests:
    order, same = _sorted(digests)
    return digests[order[np.concatenate(([True], ~same))]] if len(digests) else digests


def _common(one: Digests, other: Digests) -> Digests:
    """Return what two sets, each without repeats, have in common."""
    both = np.concatenate([one, other])
    order, same = _sorted(both)
    return both[order[1:][same]]


def _equal_rows(digests: Digests) -> list[tuple[int, int]]:
    """Return (earlier, later) positions of rows that are equal, in the order of the later ones."""
    if len(digests) < 2:
        return []
    order, same = _sorted(digests)
    return sorted(
        ((int(order[i]), int(order[i + 1])) for i in np.flatnonzero(same)), key=lambda pair: pair[1]
    )


def _place(parts: list[Part], starts: list[int], at: int) -> tuple[str, int]:
    index = (
        int(np.searchsorted(starts, at, side="right")) - 1
    )  # the last of equal starts: those before are empty
    return parts[index].path, parts[index].first_row + at - starts[index]
