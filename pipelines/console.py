"""What the commands on datasets print: progress, tables, plans, the contents of a folder."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from rich.console import Console

from ..errors import UserError, printable_path, shell_quoted
from .build import build, choose_engine
from .card import commands, loads_from
from .declaration import rebuild_command
from .folder import GO_ON, no_dataset, task_of
from .manifest import ShardRecord, split_entries
from .plan import Plan, TokenCounter, make_plan
from .rebuild import file_of
from .settings import Declaration
from .store import open_folder
from .terminal import Meter, new_table, open_console, print_table, size_text
from .token_table import print_costs
from .workers import default_workers

Row = tuple[Any, ...]  # config, split, and a count for each column

LISTED = 30  # configs with a line each; of more than these, tasks


class ShardMeter(Meter):
    """Tells how far the writing of shards is: rows/s, MB/s and the time left."""

    rows = bytes = kept = shards = 0

    def __call__(self, name: str, record: ShardRecord, kept: bool) -> None:
        """Take note of a shard, as one that was there already or a new one."""
        self.shards += 1
        self.kept += record.rows if kept else 0
        self.rows += 0 if kept else record.rows
        self.bytes += 0 if kept else record.bytes
        total = self.bar.tasks[0].total or 0
        rate = f"{self.rows / self.seconds:,.0f} rows/s, {self.bytes / self.seconds / 1e6:,.1f} MB/s"
        left = max(0, total - self.kept - self.rows) * self.seconds / max(self.rows, 1)
        line = f"{name}: {self.kept + self.rows:,} rows of about {total:,}, {rate}, {left:,.0f} s left"
        self.update(line, advance=record.rows, description=name, rate=rate)


def _planned(declaration: Declaration, counter: TokenCounter | None) -> Plan:
    """Return the plan of a declaration, and tell what it is at once that takes long."""
    with Meter(open_console(stderr=True), "planning") as meter:
        return make_plan(
            declaration,
            lambda text: meter.update(f"planning {text}, {meter.seconds:,.0f} s", description=f"planning {text}"),
            counter,
        )


def build_with_progress(
    declaration: Declaration,
    out: str,
    overwrite: bool,
    engine: str,
    workers: int | None,
    counter: TokenCounter | None = None,
) -> None:
    """Build, with progress on stderr and a summary table on stdout; ``counter``: the tokenizer that is named."""
    log, console = open_console(stderr=True), open_console()
    open_folder(out).check_ours()
    start, meter = time.perf_counter(), None
    try:
        with choose_engine(engine, workers) as run:
            plan = _planned(declaration, counter)
            for note in plan.notes:
                log.print(note)
            meter = ShardMeter(log, "building", sum(config.rows for config in plan.configs))
            with meter:
                results = build(plan, out, overwrite=overwrite, progress=meter, engine=run)
    except KeyboardInterrupt:
        kept = meter.shards if meter else 0
        log.print(f"stopped: {kept} finished shards are kept in {printable_path(out)}; the same command goes on")
        sys.exit(130)
    built = [
        (one.name, one.split, one.classes, one.rows, one.bytes, one.seconds if one.built else 0.0) for one in results
    ]
    _print_configs(console, ("classes", "rows", "size", "seconds"), built)
    rows, size, spent = sum(one.rows for one in results), sum(one.bytes for one in results), time.perf_counter() - start
    console.print(f"{rows:,} rows, {size_text(size)} in {printable_path(out)} after {spent:,.1f} s")
    console.print(f"check it: caef-data verify {shell_quoted(out)}")
    console.print(f"read it:  {loads_from(out)(results[0].name, results[0].split)}")


def _print_configs(console: Console, columns: Sequence[str], configs: Sequence[Row], most: float = LISTED) -> None:
    """Print a table of configs: a line for each, for each task where they are many."""
    names, lines = ["config", "split"], [(row[:2], row[2:]) for row in configs]
    if len(configs) > most:
        of_configs = sum(name in ("classes", "expressions") for name in columns)  # they do not add up
        names, columns, lines = ["task"], ["configs", *columns[of_configs:]], []
        for task, group in groupby(configs, lambda row: task_of(row[0])):
            rows = list(group)
            own = [row[2 + of_configs :] for row in rows]
            lines.append(((task,), (len({row[0] for row in rows}), *map(sum, zip(*own, strict=True)))))
    table = new_table(*columns, first=names)
    for name, counts in lines:
        table.add_row(*name, *map(_cell, columns, counts))
    print_table(console, table)


def _cell(name: str, value: float) -> str:
    if name == "size":
        return size_text(value)
    if name == "seconds":
        return f"{value:,.1f}" if value else "kept"
    return f"{value:,}"


def print_plan(
    declaration: Declaration, workers: int | None, as_json: bool, counter: TokenCounter | None = None
) -> None:
    """Print what a build would write; ``counter``: the tokenizer that is named."""
    plan, count = _planned(declaration, counter), workers or default_workers()
    declaration = plan.declaration
    configs: list[dict[str, Any]] = [
        {
            "config": config.name,
            "split": config.split,
            "classes": len(config.population.classes),
            "expressions": len(config.population),
            "rows": config.rows,
            "text_bytes": config.text,
            "disk_bytes": config.disk,
            "shards": config.num_shards,
            **({"tokens": plan.tokens[config.name, config.split]} if plan.tokens else {}),
        }
        for config in plan.configs
    ]
    rows, text, disk = (sum(config[name] for config in configs) for name in ("rows", "text_bytes", "disk_bytes"))
    seconds = sum(config.seconds for config in plan.configs) / count
    command = rebuild_command(declaration, here=True)
    if as_json:
        sums = {"rows": rows, "text_bytes": text, "disk_bytes": disk, "seconds": round(seconds, 1)}
        about = {"identity": declaration.identity(), "command": command, "configs": configs}
        print(json.dumps({**about, **sums, "notes": list(plan.notes)}, indent=1))
        return
    console = open_console()
    columns = ("classes", "expressions", "rows", "size", "shards")
    keys = ("config", "split", "classes", "expressions", "rows", "disk_bytes", "shards")
    _print_configs(console, columns, [tuple(config[key] for key in keys) for config in configs])
    more = "" if len(configs) <= LISTED else "; --json lists each config"
    console.print(
        f"about {rows:,} rows, {size_text(text)} of text, {size_text(disk)} on disk,"
        f" {seconds:,.0f} s with {count} workers (rows and bytes from a sample{more})"
    )
    for note in plan.notes:
        console.print(note)
    if plan.tokens:
        print_costs(console, [*plan.tokens.values()], "config", "split")
    console.print(f"build it: {command}")


def verify_with_progress(
    directory: str, fraction: float, workers: int | None, as_json: bool, streamed: tuple[Declaration, int] | None = None
) -> bool:
    """Verify a folder, print the report, and tell whether all is well. What a URL holds is copied to this machine.

    In its place ``streamed``: a declaration, of each of whose streams so many rows are checked.
    """
    if streamed is not None:
        if fraction != 1 or workers is not None:
            raise UserError("--fraction and --workers are for a dataset", next_step="leave them out beside --stream")
        from .verify_stream import print_streams

        return print_streams(*streamed, as_json)
    from .hub_source import dataset_here
    from .verify import verify
    from .verify_report import print_report

    log = open_console(stderr=True)
    folder = dataset_here(directory, log.print, shards=lambda path: True)
    with Meter(log, "verifying") as meter, open_folder(folder).on_disk() as path:

        def progress(done: int, total: int) -> None:
            rate = f"{done / meter.seconds:,.0f} rows/s"
            meter.update(f"{done:,} of {total:,} rows, {rate}", completed=done, total=total, rate=rate)

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
    from .hub_source import dataset_here

    folder = open_folder(dataset_here(directory, open_console(stderr=True).print, shards=lambda path: False))
    manifest, unfinished = folder.manifest(), folder.unfinished()
    if not manifest and not unfinished:
        raise no_dataset(folder)
    if as_json:
        print(json.dumps({**manifest, "unfinished": unfinished or None}, indent=1))
        return
    console, into = open_console(), "" if directory.startswith("hf://") else f" --out {shell_quoted(directory)}"
    if manifest:
        configs = [
            (name, split, own["classes"], own["expressions"], own["rows"], own["bytes"], len(own["shards"]))
            for name, split, own in split_entries(manifest)
        ]
        columns = ("classes", "expressions", "rows", "size", "shards")
        _print_configs(console, columns, configs, most=float("inf"))
        if len(configs) > LISTED:
            _print_configs(console, columns, configs)
        numbers = ", ".join(f"{name} {number}" for name, number in sorted(manifest["versions"].items()))
        built = ", ".join(f"{name} {version}" for name, version in sorted(manifest["built_with"].items()))
        console.print(f"identity {manifest['identity']}; rules: {numbers}; built with {built}")
        for line in commands(manifest):
            console.print(f"made by: {printable_path(f'{line}{into}')}")
            if file_of(line) is not None:
                console.print("         with that file at hand: README.md says what it holds")
    if unfinished:
        done, every = len(folder.finished()), len(unfinished["shards"])
        console.print(f"unfinished build: {done} of {every} shards; {GO_ON}")
