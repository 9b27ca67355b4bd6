"""Publishes a built folder: to the Hugging Face Hub, or to any store that fsspec reaches."""

from __future__ import annotations

import json
import sys

from rich.console import Console

from ...errors import UserError, installed, printable_path
from ..terminal import new_table, open_console, print_table, size_text
from .dataset import Progress, Pushed, PushSettings

LISTED = 10  # files of each kind that a dry run names; the others are counted


def push_with_progress(wanted: PushSettings, *, as_json: bool) -> None:
    """Push a folder, with progress on stderr and a summary on stdout, as JSON if that is wanted.

    Raises:
        UserError: the options do not fit together, a package is missing, or the push failed.
    """
    with Progress(open_console(stderr=True), "checking") as progress:
        try:
            pushed = push_anywhere(wanted, progress)
        except KeyboardInterrupt:
            progress.bar.stop()
            progress.console.print(f"stopped; go on with: {wanted.again}")
            sys.exit(130)
    if as_json:
        print(json.dumps(pushed.to_json(), indent=1))
    else:
        _print_pushed(pushed, wanted.command, open_console())


def push_anywhere(wanted: PushSettings, progress: Progress) -> Pushed:
    """Push a folder to the Hub, or to a store; as ``push_with_progress``, and nothing is printed but progress."""
    if wanted.to is not None and (wanted.repo is not None or wanted.private):
        raise UserError(
            "--to names a store; --repo and --private are about the Hub",
            next_step="leave out --to, or the others",
        )
    with installed("pushing", "s3" if wanted.to else "hub"):
        if wanted.to is not None:
            from .store import push_to_store

            return push_to_store(wanted, wanted.to, progress)
        from .hub import push_to_hub

        return push_to_hub(wanted, progress)


def _print_pushed(pushed: Pushed, command: str, console: Console) -> None:
    """Print what a push did, or would do, and how to load it."""
    table, place = new_table("number", "size", first=("files",)), printable_path(pushed.place)
    for kind in ("new", "changed", "unchanged", "deleted"):
        files = getattr(pushed.changes, kind)
        table.add_row(kind, f"{len(files):,}", size_text(sum(file.bytes for file in files)))
        lines = [printable_path(file.path) for file in files[:LISTED]]
        lines += [f"... and {len(files) - LISTED:,} more"] if len(files) > LISTED else []
        for line in lines if pushed.dry_run and kind != "unchanged" else ():
            console.print(f"{kind:9}{line}")
    print_table(console, table)
    if pushed.dry_run:
        console.print(f"nothing was changed at {place}; push it with: {command}")
        return
    notes = "".join(f", {name} {printable_path(text)}" for name, text in pushed.notes.items())
    moved = f"{len(pushed.changes.moved):,} files, {size_text(pushed.changes.bytes)} moved"
    for line in (moved, f"{place}{notes}", f"load it: {pushed.load}"):
        console.print(line)
