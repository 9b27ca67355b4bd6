"""``caef-data verify``: check a built folder from scratch, files, rows and what must hold across them.

Rows are computed again by ``verify_rows``, which shares nothing with the machines that made them. Memory: a worker
holds some row groups, and the expressions of one split of a task, a byte a digit, 48 MB at most; the parent 20 bytes a
row and 36 a distinct expression of one task, or of a few whose shards are in work.
"""

import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from itertools import combinations, groupby
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import polars as pl

from ..errors import UserError, quoted
from ..tm import Machine, machine
from .manifest import MANIFEST, shard_record, split_entries
from .sampling.classes import ClassSampler
from .verify_manifest import Declared, check_card, check_files, declared, read_manifest
from .verify_report import Findings, Report
from .verify_rows import known_tasks
from .verify_shard import Shard, ShardResult, check_file, check_shard, drawn_once
from .workers import default_workers, end_with_parent, start_fork_server, uninterrupted

Progress = Callable[[int, int], None]  # rows done, rows in all
Done = Callable[[int], None]  # is told how many more rows are done
Checked = tuple[Shard, ShardResult]
Unit = list[Shard]  # of one split of a task: one worker checks them
_SHARE = 3  # units a worker has at least, so that none waits long for the others


def verify(
    directory: Path, *, fraction: float = 1.0, workers: int | None = None, progress: Progress | None = None
) -> Report:
    """Check a built folder.

    Args:
        directory: the folder that ``caef-data build`` wrote.
        fraction: the share of rows to compute again, above 0 and up to 1; always the same rows. All else is
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
    plan, tally = declared(manifest), _Tally(manifest["configs"])
    tally.take(plan)
    tally.take(check_files(directory, manifest))
    shards = list(_shards(directory, manifest, plan, fraction, tally))
    entries = [entry for _, _, entry in split_entries(manifest)]
    total, rows_done = sum(entry["rows"] for entry in entries), 0

    def done(rows: int) -> None:
        nonlocal rows_done
        rows_done += rows
        if progress is not None:
            progress(rows_done, total)

    checked_by: dict[str, list[str]] = {}
    with closing(_results(shards, default_workers() if workers is None else workers, done)) as results:
        for task, group in groupby(results, key=lambda pair: pair[0].task):
            if task not in known_tasks():
                checked_by.setdefault(machine(task).checked_by, []).append(task)
            tally.task(task, sorted(group, key=lambda pair: (pair[0].view, pair[0].split, pair[0].record.path)))
    tally.notes += [f"{', '.join(sorted(tasks))}: {how}" for how, tasks in checked_by.items()]
    damaged = any(finding.kind in ("file", "schema", "manifest") for finding in tally.findings)
    tally.take(check_card(directory, manifest, damaged))
    planned = sum(shard.record.rows for shard in shards if shard.planned)
    return Report(
        str(directory), sum(len(entry["shards"]) for entry in entries), tally.rows, tally.checked, tally.transitions,
        round(time.monotonic() - began, 3), fraction, plan.unchecked(total, tally.rows, planned),
        tuple(tally.findings), tally.num_findings, tuple(tally.notes),
    )  # fmt: skip


def _shards(
    directory: Path, manifest: Mapping[str, Any], plan: Declared, fraction: float, found: Findings
) -> Iterator[Shard]:
    """Yield the shards whose rows can be checked; of the others the files are checked here."""
    for name, split, entry in split_entries(manifest):
        task, _, view = name.rpartition("-")
        config, settings = plan.configs.get((name, split)), plan.settings.get(task)
        numbers = {config.shard_path(number): number for number in range(config.num_shards)} if config else {}
        for record in map(shard_record, entry["shards"]):
            planned = (config, numbers[record.path]) if config and record.path in numbers else None
            if settings is None:
                check_file(directory, record, found)
            else:
                yield Shard(directory, record, settings, view, split, planned, fraction, plan.other_rules)


# ----------------------------------------------------------------------------------------------------------
# Across files


class _Tally(Findings):
    """Adds up what shards give, and finds what is wrong across them; ``configs`` are those of the manifest."""

    rows = checked = transitions = 0

    def __init__(self, configs: Mapping[str, Any]) -> None:
        super().__init__(MANIFEST)
        self.configs = configs

    def task(self, task: str, checked: Sequence[Checked]) -> None:
        """Take what the shards of a task gave, sorted by view and split."""
        for _, result in checked:
            self.take(result)
            self.rows += result.rows
            self.checked += result.checked
            self.transitions += result.transitions
        read = [pair for pair in checked if pair[1].hashes]
        for (view, split), group in groupby(read, key=lambda pair: (pair[0].view, pair[0].split)):
            self._split(f"{task}-{view}", split, list(group))
        sides: dict[str, list[Checked]] = {}
        for shard, result in read:
            sides.setdefault(shard.split, []).append((shard, result))
        expressions = {split: _hashes(own, 1) for split, own in sides.items()}
        for (one, first), (_, second) in combinations(expressions.items(), 2):
            common = second.join(first, on=["s1", "s2"], how="semi", maintain_order="left")
            for path, row in common.unique(["s1", "s2", "path"], maintain_order=True)["path", "row"].rows():
                self.add("overlap", f"this expression of {task} stands in split {one} too", row, path)

    def _split(self, config: str, split: str, checked: Sequence[Checked]) -> None:
        """Look for rows of a split that stand twice, and count its expressions."""
        what = "prompt" if config.endswith(("-one_step", "-slips")) else "expression"
        for path, row, path2, row2 in _duplicates(_hashes(checked, 0)):
            self.add("duplicate", f"the same {what} as row {row} of {path}", row2, path2)
        said, expressions = self.configs[config][split], _hashes(checked, 1).select("h1", "h2").n_unique()
        whole = len(checked) == len(said["shards"]) and all(result.complete for _, result in checked)
        if whole and expressions != said["expressions"]:
            message = f"{config} {split}: {said['expressions']} expressions, its rows have {expressions}"
            self.add("counts", message)


def _hashes(checked: Iterable[Checked], which: int) -> pl.DataFrame:
    """Return the hashes of the rows (0) or of the expressions (1) of shards, with their paths."""
    frames = [(shard, hashes[which]) for shard, result in checked for hashes in result.hashes]
    return pl.concat([frame.with_columns(path=pl.lit(shard.record.path)) for shard, frame in frames])


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
# Who checks which shards: the views of a task's split go to one worker, which draws their expressions once


def units(shards: Sequence[Shard], workers: int) -> list[Unit]:
    """Cut shards into units, the largest task first; a split that is large is shared out."""
    heavy = Counter[str]()
    for shard in shards:
        heavy[shard.task] += round(shard.weight)
    most = sum(shard.weight for shard in shards) / (_SHARE * workers) if workers > 1 else float("inf")
    in_turn = sorted(shards, key=lambda one: (-heavy[one.task], one.task, one.split, one.view, one.record.path))
    found = []
    for _, group in groupby(in_turn, key=lambda shard: (shard.task, shard.split)):
        own = list(group)
        pieces = min(len(own), max(1, round(sum(shard.weight for shard in own) / most))) if most else 1
        found += [own[piece::pieces] for piece in range(pieces)]
    return found


def _check_unit(unit: Unit, done: Done) -> list[Checked]:
    drawn = sum(1 / shard.planned[0].num_shards for shard in unit if shard.planned)  # how often, shard by shard
    draw, checked = drawn_once() if drawn > 1 else ClassSampler.operands, []
    for shard in unit:
        checked.append((shard, check_shard(shard, draw)))
        done(shard.record.rows)
    return checked


_counted: "Synchronized[int] | None" = None  # rows done, by all workers


def _start_worker(counted: "Synchronized[int]", stop: Event, _: Sequence[Machine]) -> None:
    global _counted
    _counted = counted
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the workers
    end_with_parent()
    threading.Thread(target=lambda: stop.wait() and os._exit(1), daemon=True).start()
    gc.disable()  # nothing here makes cycles; walking the cached problems cost a tenth of the time


def _work(unit: Unit) -> list[ShardResult]:
    return [result for _, result in _check_unit(unit, _count)]


def _count(rows: int) -> None:
    if _counted is not None:
        with _counted.get_lock():
            _counted.value += rows


def _results(shards: Sequence[Shard], workers: int, done: Done) -> Generator[Checked, None, None]:
    """Yield the shards with their results, task by task; ``done`` is told the rows of those that are finished."""
    workers = min(len(shards), workers)
    todo = units(shards, workers)
    if workers <= 1:
        for unit in todo:
            yield from _check_unit(unit, done)
        return
    context = multiprocessing.get_context("forkserver")  # polars and pyarrow threads do not survive a fork
    start_fork_server()
    counted, stop, told = context.Value("q", 0), context.Event(), 0
    # A Turing machine of the dataset is a task in a worker, too, once it is read there.
    data = [found for task in {shard.task for shard in shards} if (found := machine(task)).spec()]
    shared = {*known_tasks(), *(found.name for found in data)}
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(counted, stop, data))
    try:
        with uninterrupted():  # machines of the user's own are known in this process only
            futures = [pool.submit(_work, unit) if unit[0].task in shared else None for unit in todo]
        for unit, future in zip(todo, futures, strict=True):
            if future is None:
                yield from _check_unit(unit, done)
                continue
            waiting = True
            while waiting:
                waiting = not wait([future], timeout=0.5).done
                before, told = told, counted.value
                done(told - before)
            yield from zip(unit, future.result(), strict=True)
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process died: out of memory, or a damaged file crashed the Parquet reader",
            next_step="run caef-data verify --workers 1",
        ) from error
    finally:
        if sys.exc_info()[0] is not None:
            stop.set()  # Ctrl-C must not wait for the shards in work
        pool.shutdown(cancel_futures=True)
