"""What ``caef-data export`` prints: how far it is, what it wrote, and how to read that."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence

from ..errors import shown
from .build import argument
from .console import _Progress, _size, _table
from .export import PartResult, Style, command, export
from .export_folder import RECIPE, ExportFolder
from .export_formats import LAYOUTS
from .export_source import read_manifest, select
from .store_folder import open_folder
from .terminal import open_console, print_table


def export_with_progress(
    directory: str, out: str, style: Style, configs: Sequence[str], splits: Sequence[str], overwrite: bool
) -> None:
    """Export, with progress on stderr and a summary on stdout.

    Raises:
        UserError: as ``export``.
    """
    log, start = open_console(stderr=True), time.perf_counter()
    source = open_folder(directory)
    parts = select(source, read_manifest(source), configs, splits)
    progress = _Progress("exporting", sum(shard.rows for part in parts for shard in part.shards), log)
    try:
        with progress.bar:
            results = export(
                directory, out, style, configs=configs, splits=splits, overwrite=overwrite, progress=progress
            )
    except KeyboardInterrupt:
        again = command(directory, out, style, configs, splits)
        log.print(
            f"stopped: {progress.shards} finished files are kept in {shown(out)}; go on with: {again}", soft_wrap=True
        )
        sys.exit(130)
    _print(results, out, style, time.perf_counter() - start)


def _print(results: Sequence[PartResult], out: str, style: Style, seconds: float) -> None:
    console = open_console()
    table = _table("rows", "files", "size", "kept")
    for result in results:
        counts = [f"{number:,}" for number in (result.rows, result.files)]
        table.add_row(result.name, result.split, *counts, _size(result.bytes), f"{result.kept:,}")
    print_table(console, table)
    rows, size = sum(one.rows for one in results), sum(one.bytes for one in results)
    console.print(f"{rows:,} rows, {_size(size)} in {shown(out)} after {seconds:,.1f} s", soft_wrap=True)
    first = min(results, key=lambda one: not one.name.endswith("-one_step"))
    path = ExportFolder(out).path
    files = json.dumps(f"{path / first.name / first.split}/*.{LAYOUTS[style.format].suffix}")
    console.print(
        f'read it:  load_dataset("json", data_files={{"{first.split}": {files}}}, split="{first.split}")',
        soft_wrap=True,
    )
    if style.around.tokenizer:
        console.print(f"train on it: llamafactory-cli train {argument(path / RECIPE)}", soft_wrap=True)
    elif style.format == "alpaca":
        console.print(
            f"LLaMA-Factory: --dataset_dir {argument(path)} --dataset {first.name}-{first.split}", soft_wrap=True
        )
        console.print(
            "its templates write around prompts: evaluate with the same --template, or export with --tokenizer MODEL",
            soft_wrap=True,
        )
