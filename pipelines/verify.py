"""``caef-data verify``: check a built folder from scratch, files, rows and what must hold across them.

Rows are computed again by ``verify_rows``, which shares nothing with the machines that made them. Memory: a worker
holds some row groups, and the expressions of one split of a task, a byte a digit, 48 MB at most; the parent 20 bytes a
row and a distinct expression of one task, or of a few whose shards are in work.
"""

import gc
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import combinations, groupby
from pathlib import Path

import polars as pl

from ..errors import UserError, quoted
from ..tm import machine
from .engine import Source, packed, unpacked
from .folder import Folder
from .manifest import shard_record, split_entries
from .sampling.classes import ClassSampler
from .verify_manifest import check_card, check_files, declared, read_manifest
from .verify_report import Findings, Report
from .verify_rows import known_tasks
from .verify_shard import Shard, ShardResult, check_file, check_shard, drawn_once
from .workers import by_workers, default_workers

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
    of_task = {task: (Findings(""), list[Checked]()) for task in tasks}
    many, sums = Counter(shard.task for shard in shards), Counter[str]()
    with closing(_results(shards, default_workers() if workers is None else workers)) as checked:
        for shard, result in checked:
            in_task, own = of_task[shard.task]
            own.append((shard, result))
            sums.update(rows=result.rows, again=result.checked, transitions=result.transitions, named=shard.record.rows)
            if progress is not None:
                progress(sums["named"], total)
            if len(own) == many[shard.task]:
                _check_across(sorted(own, key=lambda pair: pair[0].record.path), in_task)
                own.clear()
    for in_task, _ in of_task.values():
        found.take(in_task)
    for how in dict.fromkeys(machine(task).checked_by for task in tasks if task not in known_tasks()):
        names = [task for task in tasks if task not in known_tasks() and machine(task).checked_by == how]
        found.notes.append(f"{', '.join(names)}: {how}")
    damaged = any(finding.kind in ("file", "schema", "manifest") for finding in found.findings)
    found.take(check_card(directory, manifest, damaged))
    shards_named = sum(len(entry["shards"]) for _, _, entry in split_entries(manifest))
    seconds, every = round(time.monotonic() - began, 3), (tuple(found.findings), found.num_findings, tuple(found.notes))
    return Report(
        str(directory), shards_named, sums["rows"], sums["again"], sums["transitions"], seconds, fraction, *every
    )


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


def _start(sources: tuple[Source, ...], rest: bytes) -> None:
    unpacked(sources, rest)  # the machines of the dataset, and of the user's own, are tasks here, too
    gc.disable()  # nothing here makes cycles; walking the cached problems cost a tenth of the time


def _work(unit: Unit) -> list[ShardResult]:
    return list(_check_unit(unit))


def _results(shards: Sequence[Shard], workers: int) -> Generator[Checked, None, None]:
    """Yield the shards with their results, as they finish."""
    workers = min(len(shards), workers)
    todo = units(shards, workers)
    if workers <= 1:
        for unit in todo:
            yield from zip(unit, _check_unit(unit), strict=True)
        return
    given = packed([shard.config for shard in shards], Folder(shards[0].directory))
    with closing(by_workers(_work, todo, workers, _start, given, "run caef-data verify --workers 1")) as finished:
        for unit, results in finished:
            yield from zip(unit, results, strict=True)
