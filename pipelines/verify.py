"""``caef-data verify``: check a built folder from scratch, files, rows and what must hold across them.

Rows are computed again by ``verify_rows``, which shares nothing with the machines that made them. Memory: a worker
holds some row groups, and the expressions of one split of a task, a byte a digit, 48 MB at most; the parent 20 bytes a
row and a distinct expression of one task, or of a few whose shards are in work.
"""

import gc
import multiprocessing
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from itertools import combinations, groupby
from pathlib import Path

import polars as pl

from ..errors import UserError, quoted
from ..tm import Machine, machine
from .manifest import shard_record, split_entries
from .sampling.classes import ClassSampler
from .verify_manifest import check_card, check_files, declared, read_manifest
from .verify_report import Findings, Report
from .verify_rows import known_tasks
from .verify_shard import Shard, ShardResult, check_file, check_shard, drawn_once
from .workers import default_workers, end_with_parent, start_fork_server, uninterrupted

Progress = Callable[[int, int], None]  # rows done, rows in all
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
        UserError: there is no finished dataset, other rules than those of this caef-data made it, or the fraction is
            out of range.
    """
    if not 0 < fraction <= 1:
        what, tenth = f"fraction {quoted(fraction)} is out of range", "--fraction 0.1 for a tenth of the rows"
        raise UserError(what, where="--fraction", allowed="above 0, up to 1", next_step=tenth)
    began, manifest = time.monotonic(), read_manifest(directory)
    found, configs = declared(manifest)
    found.take(check_files(directory, manifest))
    shards = []
    for name, split, entry in split_entries(manifest):
        config = configs.get((name, split))
        numbers = {config.shard_path(number): number for number in range(config.num_shards)} if config else {}
        for record in map(shard_record, entry["shards"]):
            if config and record.path in numbers:
                shards.append(Shard(directory, record, config, numbers[record.path], fraction))
            else:  # that it is none of the declaration's is found already
                check_file(directory, record, found)
    tasks, total = sorted({shard.task for shard in shards}), sum(shard.record.rows for shard in shards)
    results, done = list[ShardResult](), 0
    with closing(_results(shards, default_workers() if workers is None else workers)) as checked:
        for _, group in groupby(checked, key=lambda pair: pair[0].task):
            own = list[Checked]()
            for pair in group:
                own.append(pair)
                done += pair[0].record.rows
                if progress is not None:
                    progress(done, total)
            _check_across(sorted(own, key=lambda pair: pair[0].record.path), found)
            results += [result for _, result in own]
    for how in dict.fromkeys(machine(task).checked_by for task in tasks if task not in known_tasks()):
        names = [task for task in tasks if task not in known_tasks() and machine(task).checked_by == how]
        found.notes.append(f"{', '.join(names)}: {how}")
    damaged = any(finding.kind in ("file", "schema", "manifest") for finding in found.findings)
    found.take(check_card(directory, manifest, damaged))
    rows, again, transitions = (
        sum(getattr(result, what) for result in results) for what in ("rows", "checked", "transitions")
    )
    shards_named = sum(len(entry["shards"]) for _, _, entry in split_entries(manifest))
    seconds, every = round(time.monotonic() - began, 3), (tuple(found.findings), found.num_findings, tuple(found.notes))
    return Report(str(directory), shards_named, rows, again, transitions, seconds, fraction, *every)


# ----------------------------------------------------------------------------------------------------------
# Across files


def _check_across(checked: Sequence[Checked], found: Findings) -> None:
    """Take over what the shards of a task gave, and look for rows of a split that stand twice, and for overlap."""
    for _, result in checked:
        found.take(result)
    sides: dict[str, list[Checked]] = {}
    configs: dict[tuple[str, str], list[Checked]] = {}
    for shard, result in checked:
        if result.hashes:
            sides.setdefault(shard.config.split, []).append((shard, result))
            configs.setdefault((shard.config.view, shard.config.split), []).append((shard, result))
    for (view, _), own in configs.items():
        what = "prompt" if view in ("one_step", "slips") else "expression"
        for path, row, path2, row2 in _duplicates(_hashes(own, 0)):
            found.add("duplicate", f"the same {what} as row {row} of {path}", row2, path2)
    expressions = {split: _hashes(own, 1) for split, own in sides.items()}
    for (one, first), (_, second) in combinations(expressions.items(), 2):
        common = second.join(first, on=["h1", "h2"], how="semi", maintain_order="left")
        for path, row in common.unique(["h1", "h2", "path"], maintain_order=True)["path", "row"].rows():
            message = f"this expression of {checked[0][0].task} stands in split {one} too"
            found.add("overlap", message, row, path)


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
    in_turn = sorted(
        shards,
        key=lambda one: (-heavy[one.task], one.task, one.config.split, one.config.view, one.record.path),
    )
    found = []
    for _, group in groupby(in_turn, key=lambda shard: (shard.task, shard.config.split)):
        own = list(group)
        pieces = min(len(own), max(1, round(sum(shard.weight for shard in own) / most))) if most else 1
        found += [own[piece::pieces] for piece in range(pieces)]
    return found


def _check_unit(unit: Unit) -> Iterator[ShardResult]:
    drawn = sum(1 / shard.config.num_shards for shard in unit)  # how often, shard by shard
    draw = drawn_once() if drawn > 1 else ClassSampler.operands
    for shard in unit:
        yield check_shard(shard, draw)


def _start_worker(_: Sequence[Machine]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the workers
    end_with_parent()
    gc.disable()  # nothing here makes cycles; walking the cached problems cost a tenth of the time


def _work(unit: Unit) -> list[ShardResult]:
    return list(_check_unit(unit))


def _results(shards: Sequence[Shard], workers: int) -> Generator[Checked, None, None]:
    """Yield the shards with their results, task by task."""
    workers = min(len(shards), workers)
    todo = units(shards, workers)
    if workers <= 1:
        for unit in todo:
            yield from zip(unit, _check_unit(unit), strict=True)
        return
    context = multiprocessing.get_context("forkserver")  # polars and pyarrow threads do not survive a fork
    start_fork_server()
    # A Turing machine of the dataset is a task in a worker, too, once it is read there.
    data = [found for task in {shard.task for shard in shards} if (found := machine(task)).spec()]
    shared = {*known_tasks(), *(found.name for found in data)}
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(data,))
    try:
        with uninterrupted():  # machines of the user's own are known in this process only
            futures = [pool.submit(_work, unit) if unit[0].task in shared else None for unit in todo]
        for unit, future in zip(todo, futures, strict=True):
            while future and not wait([future], timeout=0.5).done:  # Ctrl-C does not end a wait without a limit
                pass
            yield from zip(unit, future.result() if future else _check_unit(unit), strict=True)
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process died: out of memory, or a damaged file crashed the Parquet reader",
            next_step="run caef-data verify --workers 1",
        ) from error
    finally:
        if sys.exception() is not None:  # Ctrl-C or an error: nobody waits for shards in work
            for process in multiprocessing.active_children():
                process.kill()
        pool.shutdown(cancel_futures=True)
