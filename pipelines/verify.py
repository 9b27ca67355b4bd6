"""``caef-data verify``: check a built folder from scratch, files, rows and what must hold across them.

Rows are computed again by ``verify_rows``, which shares nothing with the machines that made them. Memory: a worker
holds the operands of a part, some 100,000 rows, and the expressions of one split of a task, a byte a digit, 48 MB at
most; the parent 24 bytes a row and 40 a distinct expression of one task, or of a few whose parts are in work.
"""

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import combinations, groupby
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import UserError, printable_path, quoted, shell_quoted
from ..tm import Machine, machine
from .manifest import CARD, MANIFEST
from .terminal import print_table
from .verify_manifest import check_card, check_files, declared, open_shards, read_manifest
from .verify_rows import known_tasks
from .verify_shard import KEPT, TEXTS, Finding, Part, PartResult, forget_drawn, verify_part
from .workers import default_workers, end_with_parent, start_fork_server, uninterrupted

Progress = Callable[[int, int], None]  # rows done, rows in all
Checked = tuple[Part, PartResult]
_SHARE = 3  # units a worker has at least, so that none waits long for the others
_ROW = 500  # bytes of text of a row whose plan is not known
_SHOWN = 20  # findings printed; --json gives all that were kept
CHECKS = {  # what is checked, with the kinds of its findings
    "the files are those of the manifest, byte for byte": {"manifest", "file", "foreign", "schema"},
    "settings, identities, versions and counts agree": {"machine", "settings", "identity", "versions", "counts"},
    "all planned rows are there, in order, and no others": {"missing", "added", "order"},
    "each row has its variant, each machine its instruction": {"variant", "instruction"},
    "each text is what its machine writes": {"row"},
    "no row stands twice": {"duplicate"},
    "no expression stands in two splits": {"overlap", "split"},
    f"{CARD} agrees with {MANIFEST}": {"card"},
}


@dataclass(frozen=True)
class Report:
    """What was checked and what was found.

    Args:
        directory: the folder.
        shards: shards that the manifest names.
        rows: rows read (digests, duplicates, overlap, split).
        rows_checked: rows computed again; fewer than ``rows`` with a fraction.
        transitions: steps computed again: a full row counts as all its steps, aligner and raw rows as none.
        seconds: wall clock.
        fraction: the share of rows asked for.
        unchecked: rows that a check could not look at, by the kinds of its findings.
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
    unchecked: dict[str, int]
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
        what, tenth = f"fraction {quoted(fraction)} is out of range", "--fraction 0.1 for a tenth of the rows"
        raise UserError(what, where="--fraction", allowed="above 0, up to 1", next_step=tenth)
    began, manifest = time.monotonic(), read_manifest(directory, "verify")
    plan = declared(manifest)
    tally = _Tally(manifest)
    tally.add(*check_files(directory, manifest), *plan.findings)
    parts: list[Part] = []
    for findings, of_shard in open_shards(directory, manifest, plan, fraction):
        tally.add(*findings)
        parts += of_shard
    heavy = Counter[str]()  # these first: no worker stands idle at the end
    for part in parts:
        heavy[part.task] += round(_weight(part))
    parts.sort(key=lambda part: (-heavy[part.task], part.task, part.split, part.view, part.path, part.first_row))
    total = sum(split["rows"] for splits in manifest["configs"].values() for split in splits.values())
    rows_done = 0

    def done(rows: int) -> None:
        nonlocal rows_done
        rows_done += rows
        if progress is not None:
            progress(rows_done, total)

    number = min(len(parts), default_workers() if workers is None else workers)
    todo = units(parts, number)
    checked_by: dict[str, list[str]] = {}
    results = (
        _in_workers(todo, number, done) if number > 1 else (pair for unit in todo for pair in _verify_unit(unit, done))
    )
    with closing(results):
        for task, group in groupby(results, key=lambda pair: pair[0].task):
            if task not in known_tasks():
                checked_by.setdefault(machine(task).checked_by, []).append(task)
            tally.task(sorted(group, key=lambda pair: (pair[0].view, pair[0].split, pair[0].path, pair[0].first_row)))
    plan.notes += [f"{', '.join(sorted(tasks))}: {how}" for how, tasks in checked_by.items()]
    damaged = any(finding.kind in ("file", "schema", "manifest") for finding in tally.findings)
    findings, notes = check_card(directory, manifest, damaged)
    tally.add(*findings)
    shards = sum(len(split["shards"]) for splits in manifest["configs"].values() for split in splits.values())
    return Report(
        str(directory), shards, tally.rows, tally.checked, tally.transitions, round(time.monotonic() - began, 3),
        fraction, plan.unchecked(total, tally.rows, sum(part.rows for part in parts if part.plan is not None)),
        tuple(tally.findings), tally.num_findings, (*plan.notes, *notes),
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------------------
# Across files


class _Tally:
    """Adds up results and finds what is wrong across files."""

    def __init__(self, manifest: dict[str, Any]) -> None:
        self.configs = manifest["configs"]
        self.findings: list[Finding] = []
        self.num_findings = self.checked = self.transitions = self.rows = 0

    def add(self, *findings: Finding) -> None:
        """Count findings, and keep those that are not many of their kind for their file."""
        for finding in findings:
            same = sum((kept.kind, kept.path) == (finding.kind, finding.path) for kept in self.findings[-KEPT:])
            self.num_findings += 1
            if same < KEPT:
                self.findings.append(finding)

    def task(self, results: Sequence[Checked]) -> None:
        """Take the results of a task, sorted by view and split."""
        for (view, split), group in groupby(results, key=lambda pair: (pair[0].view, pair[0].split)):
            self._split(f"{results[0][0].task}-{view}", split, list(group))
        sides: dict[str, list[pl.DataFrame]] = {}
        for part, result in results:
            place = {"path": pl.lit(part.path), "view": pl.lit(part.view)}
            sides.setdefault(part.split, []).append(result.expressions.with_columns(**place))
        for (one, first), (_other, second) in combinations(sides.items(), 2):
            hashes = pl.concat(first).select("s1", "s2")
            common = pl.concat(second).join(hashes, on=["s1", "s2"], how="semi", maintain_order="left")
            once = common.unique(["s1", "s2", "path"], maintain_order=True)
            for path, view, row in once["path", "view", "row"].rows():
                message = f"this expression of {results[0][0].task} ({view}) stands in split {one} too"
                self.add(Finding("overlap", path, row, message))

    def _split(self, config: str, split: str, results: Sequence[Checked]) -> None:
        """Take the results of one split of one config: look for duplicates, compare the counts."""
        for _, result in results:
            self.findings += result.findings
            self.num_findings += result.num_findings
            self.checked += result.checked
            self.transitions += result.transitions
        rows = pl.concat([result.rows.with_columns(path=pl.lit(part.path)) for part, result in results])
        self.rows += len(rows)
        what = "prompt" if config.endswith(("-one_step", "-slips")) else "expression"
        for path, row, path2, row2 in _duplicates(rows):
            self.add(Finding("duplicate", path2, row2, f"the same {what} as row {row} of {path}"))
        said = self.configs[config][split]
        whole = {part.path for part, _ in results}.issuperset(shard["path"] for shard in said["shards"])
        if not whole or len(rows) < sum(part.rows for part, _ in results):
            return  # of a file that cannot be read nothing can be counted, and the file's finding says so
        expressions = len(pl.concat([result.expressions for _, result in results]).unique(["h1", "h2"]))
        if expressions != said["expressions"]:
            message = f"{config} {split}: {said['expressions']} expressions, its rows have {expressions}"
            self.add(Finding("counts", MANIFEST, None, message))
        self._chars(f"{config} {split}", said, results)

    def _chars(self, name: str, said: dict[str, Any], results: Sequence[Checked]) -> None:
        """Compare the numbers of characters with those of the manifest, a shard and a split at a time."""
        measured: dict[str, dict[str, list[int]]] = {}
        for part, result in results:
            shard = measured.setdefault(part.path, {text: [0, 0] for text in TEXTS})
            for text, (total, longest) in result.chars.items():
                shard[text] = [shard[text][0] + total, max(shard[text][1], longest)]
        rows = max(sum(part.rows for part, _ in results), 1)
        off = [one["path"] for one in said["shards"] if measured.get(one["path"], one["chars"]) != one["chars"]]
        sizes = {text: [shard[text] for shard in measured.values()] for text in TEXTS}
        means = {
            text: {"mean": round(sum(total for total, _ in found) / rows, 1), "max": max(most for _, most in found)}
            for text, found in sizes.items()
        }
        for place in off + [name] * (said["chars"] != means):
            message = f"{place}: its texts have other numbers of characters"
            self.add(Finding("counts", MANIFEST, None, message))


def _duplicates(rows: pl.DataFrame) -> Iterator[tuple[str, int, str, int]]:
    """Yield (path, row) of the first and of a later row, for each row that stands twice."""
    if rows["h1"].n_unique() == len(rows):  # half of a hash nearly always tells two apart
        return
    again = rows.filter(pl.struct("h1", "h2").is_duplicated())
    place = pl.struct("path", "row")
    firsts = again.select(first=place.first().over("h1", "h2"), later=place)
    for first, later in firsts.filter(pl.col("first") != pl.col("later")).iter_rows():
        yield first["path"], first["row"], later["path"], later["row"]


# ----------------------------------------------------------------------------------------------------------
# Who checks which parts: the views of a task's split go to one worker, which draws their expressions once


@dataclass(frozen=True, eq=False)
class Unit:
    """Parts of one split of a task that one worker checks; ``keep``: whether it draws their expressions once.

    Not where more workers than there are views have units of the same expressions.
    """

    parts: tuple[Part, ...]
    keep: bool


def units(parts: Sequence[Part], workers: int) -> list[Unit]:
    """Cut parts, sorted by task and split, into units; a split that is large is shared out."""
    most = sum(map(_weight, parts)) / (_SHARE * workers) if workers > 1 else float("inf")
    found = []
    for _, group in groupby(parts, key=lambda part: (part.task, part.split)):
        own = list(group)
        pieces = min(len(own), max(1, round(sum(map(_weight, own)) / most))) if most else 1
        keep = pieces < len({part.view for part in own})
        found += [Unit(tuple(own[piece::pieces]), keep) for piece in range(pieces)]
    return found


def _weight(part: Part) -> float:
    """Return the bytes of a part's text, about: the work that it is."""
    return part.rows * (part.plan[0].text / max(part.plan[0].rows, 1) if part.plan is not None else _ROW)


def _verify_unit(unit: Unit, done: Callable[[int], None]) -> list[Checked]:
    found: list[Checked] = []
    for part in unit.parts:
        found.append((part, verify_part(part, unit.keep)))
        done(part.rows)
    forget_drawn()
    return found


_counted: "Synchronized[int] | None" = None  # rows done, by all workers


def _start_worker(counted: "Synchronized[int]", stop: Event, _: Sequence[Machine]) -> None:
    global _counted
    _counted = counted
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the workers
    end_with_parent()
    threading.Thread(target=lambda: stop.wait() and os._exit(1), daemon=True).start()
    gc.disable()  # nothing here makes cycles; walking the cached problems cost a tenth of the time


def _work(unit: Unit) -> list[PartResult]:
    return [result for _, result in _verify_unit(unit, _count)]


def _count(rows: int) -> None:
    if _counted is not None:
        with _counted.get_lock():
            _counted.value += rows


def _in_workers(todo: Sequence[Unit], workers: int, done: Callable[[int], None]) -> Generator[Checked, None, None]:
    """Yield the parts of units with their results, in order; ``done`` is told the rows of parts that are finished."""
    context = multiprocessing.get_context("forkserver")  # polars and pyarrow threads do not survive a fork
    start_fork_server()
    counted, stop, told = context.Value("q", 0), context.Event(), 0
    # A Turing machine of the dataset is a task in a worker, too, once it is read there.
    data = [found for task in {unit.parts[0].task for unit in todo} if (found := machine(task)).spec()]
    shared = {*known_tasks(), *(found.name for found in data)}
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(counted, stop, data))
    try:
        with uninterrupted():  # machines of the user's own are known in this process only
            futures = [pool.submit(_work, unit) if unit.parts[0].task in shared else None for unit in todo]
        for unit, future in zip(todo, futures, strict=True):
            if future is None:
                yield from _verify_unit(unit, done)
                continue
            waiting = True
            while waiting:
                waiting = not wait([future], timeout=0.5).done
                before, told = told, counted.value
                done(told - before)
            yield from zip(unit.parts, future.result(), strict=True)
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process died: out of memory, or a damaged file crashed the Parquet reader",
            next_step="run caef-data verify --workers 1",
        ) from error
    finally:
        if sys.exc_info()[0] is not None:
            stop.set()  # Ctrl-C must not wait for the parts in work
        pool.shutdown(cancel_futures=True)


# ----------------------------------------------------------------------------------------------------------
# For people


def print_report(report: Report, console: Console) -> None:
    """Print what was checked and the first findings."""
    console.print(Text(f"verify {report.directory}"), soft_wrap=True)
    table = Table(show_header=False, min_width=40)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    share = "" if report.fraction >= 1 else f" ({report.fraction:.4g} of all)"
    table.add_row("shards", f"{report.shards:,}")
    table.add_row("rows read", f"{report.rows:,}")
    table.add_row("rows computed again", f"{report.rows_checked:,}{share}")
    table.add_row("steps computed again", f"{report.transitions:,}")
    table.add_row("seconds", f"{report.seconds:.1f}")
    table.add_row("steps per second", f"{report.transitions / max(report.seconds, 0.001):,.0f}")
    table.add_row("findings", f"{report.num_findings:,}")
    print_table(console, table)
    for note in report.notes:
        console.print(Text(f"note: {note}"))
    kinds = Counter(finding.kind for finding in report.findings)
    more = "" if len(report.findings) == report.num_findings else " or more"  # of many in a file some are kept
    total = report.rows + report.unchecked["duplicate"]
    for check, own in CHECKS.items():
        count, left = sum(kinds[kind] for kind in own), max(report.unchecked.get(kind, 0) for kind in own)
        told = f"not checked in {left:,} of {total:,} rows, yes in the others" if left else "yes"
        told = f"NO: {count:,} finding{'' if count == 1 else 's'}{more}" if count else told
        told = "not checked" if left == total and not count else told
        if own == {"row"} and report.fraction < 1 and told != "not checked":
            told += f", in the {report.rows_checked:,} rows computed again"
        console.print(Text(f"{check}: {told}", style="bold red" if count else "bold" if left else ""))
    for finding in report.findings[:_SHOWN]:
        row = "" if finding.row is None else f", row {finding.row}"
        console.print(Text(f"  {finding.path}{row}: {finding.message}"), soft_wrap=True)
    if (left := report.num_findings - min(len(report.findings), _SHOWN)) > 0:
        console.print(Text(f"  ... and {left:,} more"))
    verdict = "everything checked is right" if report.ok else f"not right; {_advice(report)}"
    console.print(Text(verdict, style="bold green" if report.ok else "bold red"), soft_wrap=True)


def _advice(report: Report) -> str:
    """Return what mends a folder: nothing that a build would do again where files or rows are not ours."""
    kinds = {finding.kind for finding in report.findings}
    if "machine" in kinds:
        return "put the machine's file back into the folder tm/ of caef-data, then verify again"
    if kinds == {"foreign"}:
        paths = ", ".join(printable_path(finding.path) for finding in report.findings[:5])
        more = f" and {report.num_findings - 5} more" if report.num_findings > 5 else ""
        return f"no build touches what is not its own: remove {paths}{more}"
    damaged = {finding.path for finding in report.findings if finding.kind == "file"}
    shows = f"caef-data info {shell_quoted(report.directory)} shows the command"
    if all(finding.kind == "foreign" or finding.path in damaged for finding in report.findings):
        return f"the command that built it makes damaged and missing shards again: {shows}"
    if kinds == {"card"}:
        return f"the command that built it writes its part of the card again: {shows}"
    return "this is not what its declaration gives: build it anew into another folder"
