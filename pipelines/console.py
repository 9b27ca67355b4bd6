"""What the commands print: progress, tables, plans, the contents of a folder."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..errors import UserError, printable_path, shell_quoted
from .build import ConfigResult, EngineChoice, again_in, build, command, resumed
from .card import commands, loads_from
from .declaration import rebuild_commands
from .hub_source import dataset_here
from .manifest import ShardRecord
from .plan import TEXT_RATE, Config, Plan, make_plan
from .sampling.enumerate_small import Told
from .settings import SPLITS, Declaration
from .store_folder import open_folder
from .terminal import Bar, open_console, print_table
from .workers import default_workers

STATUS_EVERY = 0.2  # seconds between changes of a line on a terminal
LINE_EVERY = 5.0  # seconds between progress lines where there is no terminal
SHADES = " .:-=+*#%@"
LISTED = 30  # configs with a line each; of more than these, tasks
HEAT = 20  # cells of the heat map's sides


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Listed = TypeVar("Listed", bound=_Named)


class _Progress:
    """A bar on a terminal, plain lines otherwise: rows/s, MB/s and the time left."""

    def __init__(self, doing: str, total: int, console: Console) -> None:
        self.console, self.start, self.said = console, time.perf_counter(), time.perf_counter()
        self.total = total
        self.rows = self.bytes = self.kept = self.shards = 0
        columns = (TextColumn("{task.description}"), BarColumn(None), TextColumn("{task.fields[rate]}"))
        self.bar = Bar(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)
        self.task = self.bar.add_task(doing, total=total, rate="")

    def __call__(self, config: _Named, record: ShardRecord, kept: bool) -> None:
        self.shards += 1
        self.kept += record.rows if kept else 0
        self.rows += 0 if kept else record.rows
        self.bytes += 0 if kept else record.bytes
        now = time.perf_counter()
        spent = max(now - self.start, 1e-6)
        rate = f"{self.rows / spent:,.0f} rows/s, {self.bytes / spent / 1e6:,.1f} MB/s"
        self.bar.update(self.task, advance=record.rows, description=config.name, rate=rate)
        if not self.console.is_terminal and now - self.said >= LINE_EVERY:
            self.said = now
            left = max(0, self.total - self.kept - self.rows) * spent / max(self.rows, 1)
            done = f"{config.name}: {self.kept + self.rows:,} rows of about {self.total:,}"
            self.console.print(f"{done}, {rate}, {left:,.0f} s left", soft_wrap=True)


def _table(*counts: str, first: Sequence[str] = ("config", "split")) -> Table:
    """Return a table of configs or tasks; their names are never cut short."""
    table = Table()
    for name in first:
        table.add_column(name, no_wrap=True)
    for name in counts:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _size(count: float) -> str:
    """Return a number of bytes in MB, in kB below one."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.0f} kB"


def build_with_progress(declaration: Declaration, out: str, overwrite: bool, choice: EngineChoice) -> None:
    """Build, with progress on stderr and a summary table on stdout."""
    log = open_console(stderr=True)
    open_folder(out).check_ours()
    progress = None
    start = time.perf_counter()
    try:
        with choice.start() as engine:
            with _planning(log) as told:
                plan = make_plan(declaration, told)
            for note in plan.notes:
                log.print(note, soft_wrap=True)
            progress = _Progress("building", sum(config.rows for config in plan.configs), log)
            with progress.bar:
                results = build(plan, out, overwrite=overwrite, progress=progress, engine=engine)
    except KeyboardInterrupt:
        kept = progress.shards if progress is not None else 0
        again = " && ".join(again_in(line, out) + choice.arguments() for line in rebuild_commands(declaration))
        log.print(
            f"stopped: {kept} finished shards are kept in {printable_path(out)}; go on with: {again}", soft_wrap=True
        )
        sys.exit(130)
    console = open_console()
    print_table(console, _results(results))
    spent = time.perf_counter() - start
    rows, size = sum(one.rows for one in results), sum(one.bytes for one in results)
    console.print(f"{rows:,} rows, {_size(size)} in {printable_path(out)} after {spent:,.1f} s", soft_wrap=True)
    first = results[0]
    console.print(f"check it: caef-data verify {shell_quoted(out)}", soft_wrap=True)
    console.print(f"read it:  {loads_from(out)(first.name, first.split)}", soft_wrap=True)


@contextmanager
def _planning(log: Console) -> Iterator[Told]:
    """Show what a plan is at, once it takes long: a changing line on a terminal, now and then a line otherwise."""
    start = said = time.perf_counter()
    with log.status("planning") if log.is_terminal else nullcontext() as status:

        def told(text: str) -> None:
            nonlocal said
            now = time.perf_counter()
            if now - said < (STATUS_EVERY if status else LINE_EVERY):
                return
            said, line = now, f"planning {text}, {now - start:,.0f} s"
            if status:
                status.update(line)
            else:
                log.print(line, soft_wrap=True)

        yield told


def _results(results: list[ConfigResult]) -> Table:
    """Return a table of what was built: a line for each config, for each task where they are many."""
    if len(results) <= LISTED:
        table = _table("classes", "rows", "size", "seconds")
        for one in results:
            seconds = f"{one.seconds:,.1f}" if one.built else "kept"
            table.add_row(one.name, one.split, f"{one.classes:,}", f"{one.rows:,}", _size(one.bytes), seconds)
        return table
    table = _table("configs", "rows", "size", "seconds", first=("task",))
    for task, own in _by_task(results):
        seconds = f"{sum(one.seconds for one in own):,.1f}" if any(one.built for one in own) else "kept"
        rows, size = sum(one.rows for one in own), sum(one.bytes for one in own)
        table.add_row(task, f"{len(own)}", f"{rows:,}", _size(size), seconds)
    return table


def _by_task(configs: Iterable[Listed]) -> list[tuple[str, list[Listed]]]:
    """Return configs grouped by their tasks, in the order in which these come first."""
    groups: dict[str, list[Listed]] = {}
    for one in configs:
        groups.setdefault(one.name.rpartition("-")[0], []).append(one)
    return list(groups.items())


def print_plan(declaration: Declaration, workers: int | None, as_json: bool) -> None:
    """Print what a build would write."""
    with _planning(open_console(stderr=True)) as told:
        plan = make_plan(declaration, told)
    count = workers or default_workers()
    if as_json:
        print(json.dumps(_plan_json(plan, count), indent=1))
        return
    console = open_console()
    print_table(console, _planned(plan))
    text = sum(config.text for config in plan.configs)
    rows = sum(config.rows for config in plan.configs)
    more = "" if len(plan.configs) <= LISTED else "; --json lists each config"
    console.print(
        f"about {rows:,} rows, {_size(text)} of text, {_size(sum(config.disk for config in plan.configs))} on disk,"
        f" {text / TEXT_RATE / count:,.0f} s with {count} workers (rows and bytes from a sample{more})",
        soft_wrap=True,
    )
    _heat_map(console, plan.configs[0])
    for note in plan.notes:
        console.print(note, soft_wrap=True)
    console.print(f"build it: {command(plan)}", soft_wrap=True)


def _planned(plan: Plan) -> Table:
    """Return a table of what would be built: a line for each config, for each task where they are many."""
    if len(plan.configs) <= LISTED:
        table = _table("classes", "expressions", "rows", "size", "shards")
        for config in plan.configs:
            counts = [f"{n:,}" for n in (len(config.population.classes), len(config.population), config.rows)]
            table.add_row(config.name, config.split, *counts, _size(config.disk), f"{config.num_shards:,}")
        return table
    table = _table("configs", "rows", "size", "shards", first=("task",))
    for task, own in _by_task(plan.configs):
        rows, disk = sum(config.rows for config in own), sum(config.disk for config in own)
        shards = sum(config.num_shards for config in own)
        table.add_row(task, f"{len(own)}", f"{rows:,}", _size(disk), f"{shards:,}")
    return table


def _plan_json(plan: Plan, workers: int) -> dict[str, object]:
    configs = [
        {
            "config": config.name,
            "split": config.split,
            "classes": len(config.population.classes),
            "expressions": len(config.population),
            "rows": config.rows,
            "text_bytes": config.text,
            "disk_bytes": config.disk,
            "shards": config.num_shards,
        }
        for config in plan.configs
    ]
    text = sum(config.text for config in plan.configs)
    return {
        "identity": plan.declaration.identity(),
        "command": command(plan),
        "configs": configs,
        "rows": sum(config.rows for config in plan.configs),
        "text_bytes": text,
        "disk_bytes": sum(config.disk for config in plan.configs),
        "seconds": round(text / TEXT_RATE / workers, 1),
        "notes": list(plan.notes),
    }


def _heat_map(console: Console, config: Config) -> None:
    """Print the expressions a class of the first config as a map over (len a, len b)."""
    classes = config.population.classes
    longest = max(max(pair) for pair in classes)
    shortest = min(pair[0] for pair in classes)
    step = -(-(longest - shortest + 1) // HEAT)
    cells: dict[tuple[int, int], int] = {}
    for (a, b), count in classes.items():
        key = (a - shortest) // step, max(b - shortest, 0) // step
        cells[key] = cells.get(key, 0) + count
    most = max(cells.values())
    side = -(-(longest - shortest + 1) // step)
    console.print(
        f"expressions of {config.name} {config.split}; digits of a down, of b across, {step} a cell", soft_wrap=True
    )
    for row in range(side):
        # By the square root: a class of a tenth of the largest one would look empty otherwise.
        parts = [(cells.get((row, col), 0) / most) ** 0.5 for col in range(side)]
        shades = [SHADES[math.ceil(part * (len(SHADES) - 1))] * 2 for part in parts]
        console.print(f"{shortest + row * step:>5} {''.join(shades).rstrip()}", soft_wrap=True)
    console.print(f"      darkest = {most:,} expressions", soft_wrap=True)


def _say(line: str) -> None:
    open_console(stderr=True).print(line, soft_wrap=True)


@contextmanager
def _checking() -> Iterator[Callable[[int, int], None]]:
    """Show how far a verification is: a bar on a terminal, plain lines otherwise."""
    log = open_console(stderr=True)
    start = said = time.perf_counter()
    columns = (TextColumn("verifying"), BarColumn(None), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Bar(*columns, console=log, disable=not log.is_terminal) as bar:
        task = bar.add_task("", total=None, rate="")

        def progress(done: int, total: int) -> None:
            nonlocal said
            now = time.perf_counter()
            rate = f"{done / max(now - start, 1e-6):,.0f} rows/s"
            bar.update(task, completed=done, total=total, rate=rate)
            if not log.is_terminal and now - said >= LINE_EVERY:
                said = now
                log.print(f"{done:,} of {total:,} rows, {rate}", soft_wrap=True)

        yield progress


def verify_with_progress(directory: str, fraction: float, workers: int | None, as_json: bool) -> bool:
    """Verify a folder, print the report, and tell whether all is well. What a URL holds is copied to this machine."""
    from .verify import verify
    from .verify_report import print_report

    folder = dataset_here(directory, _say, shards=lambda path: True)
    with _checking() as progress, open_folder(folder).on_disk() as path:
        report = verify(path, fraction=fraction, workers=workers, progress=progress)
    if as_json:
        print(json.dumps({**report.to_json(), "directory": directory}, indent=1))
    else:
        print_report(replace(report, directory=printable_path(directory)), open_console())
    return report.ok


def print_info(directory: str, as_json: bool) -> None:
    """Print what a folder holds.

    Raises:
        UserError: it holds no dataset of ours.
    """
    folder = open_folder(dataset_here(directory, _say, shards=lambda path: False))
    manifest, unfinished = folder.manifest(), folder.unfinished()
    if not manifest and not unfinished:
        raise UserError(
            "there is no dataset here",
            where=printable_path(directory),
            next_step="caef-data build --task sub --min 1 --max 100 --num 20",
        )
    if as_json:
        print(json.dumps({**manifest, "unfinished": unfinished or None}, indent=1))
        return
    console = open_console()
    if manifest:
        table = _table("classes", "expressions", "rows", "size", "shards")
        for name, splits in sorted(manifest["configs"].items()):
            for split in (one for one in SPLITS if one in splits):
                own = splits[split]
                counts = [f"{own[key]:,}" for key in ("classes", "expressions", "rows")]
                table.add_row(name, split, *counts, _size(own["bytes"]), f"{len(own['shards']):,}")
        print_table(console, table)
        rules = ", ".join(f"{name} {number}" for name, number in sorted(manifest["versions"].items()))
        built = ", ".join(f"{name} {version}" for name, version in sorted(manifest["built_with"].items()))
        console.print(f"identity {manifest['identity']}; rules: {rules}; built with {built}", soft_wrap=True)
        for line in commands(manifest):
            console.print(f"made by: {printable_path(line)}", soft_wrap=True)
    if unfinished:
        done = len(folder.finished())
        console.print(
            f"unfinished build: {done} of {len(unfinished['shards'])} shards; go on with:"
            f" {resumed(unfinished, directory)}",
            soft_wrap=True,
        )
