"""What ``caef-data push`` prints: how far it is, what it changed, and how to load what it pushed."""

from __future__ import annotations

import json
import shlex
import sys

from rich.console import Console
from rich.table import Table

from ...errors import UserError, printable_path, shell_quoted
from ..terminal import open_console, print_table, size_text
from .dataset import Pushed
from .progress import Progress

MAIN = "main"  # the branch that readers load from when they name none
LISTED = 10  # files of each kind that a dry run names; the others are counted


def push_with_progress(
    directory: str, *, repo: str | None, to: str | None, revision: str, private: bool, dry_run: bool, as_json: bool
) -> None:
    """Push a folder, with progress on stderr and a summary on stdout.

    Args:
        directory: the folder.
        repo: a dataset repository of the Hub, ``user/name``; if None the one that the folder's manifest names.
        to: push to this URL of a store, and not to the Hub.
        revision: the branch of the repository.
        private: make the repository private, if it has to be made.
        dry_run: say what would change, and change nothing.
        as_json: print the summary as JSON.

    Raises:
        UserError: the options do not fit together, a package is missing, or the push failed.
    """
    if to is not None and (repo is not None or private or revision != MAIN):
        raise UserError(
            "--to names a store; --repo, --revision and --private are about the Hub",
            next_step="leave out --to, or the others",
        )
    command = _command(directory, repo, to, revision, private)
    again = f"{command} --dry-run" if dry_run else command
    with Progress(open_console(stderr=True)) as progress:
        try:
            if to is None:
                from .hub import push_to_hub

                pushed = push_to_hub(
                    directory, repo, revision, private=private, dry_run=dry_run, again=again, progress=progress
                )
            else:
                from .store import push_to_store

                pushed = push_to_store(directory, to, dry_run=dry_run, again=again, progress=progress)
        except ModuleNotFoundError as error:
            extra = "hub" if to is None else "s3"
            what = f"this needs the package {error.name}, which is not installed"
            raise UserError(what, next_step=f"pip install 'caef-data[{extra}]'") from error
        except KeyboardInterrupt:
            progress.bar.stop()
            progress.say(f"stopped; go on with: {again}")
            sys.exit(130)
    if as_json:
        print(json.dumps(pushed.to_json(), indent=1))
    else:
        _print_pushed(pushed, command, open_console())


def _command(directory: str, repo: str | None, to: str | None, revision: str, private: bool) -> str:
    """Return the command line of a push; it goes on where one stopped."""
    parts = [f"caef-data push {shell_quoted(directory)}"]
    parts += [
        f"{option} {shlex.quote(printable_path(value))}" for option, value in (("--repo", repo), ("--to", to)) if value
    ]
    parts += [f"--revision {shlex.quote(printable_path(revision))}"] if revision != MAIN else []
    return " ".join([*parts, *(["--private"] if private else [])])


def _print_pushed(pushed: Pushed, command: str, console: Console) -> None:
    """Print what a push did, or would do, and how to load it."""
    changes = pushed.changes
    table = Table()
    for name in ("files", "number", "size"):
        table.add_column(name, justify="left" if name == "files" else "right", no_wrap=True)
    for name, files in (("new", changes.new), ("changed", changes.changed), ("unchanged", changes.unchanged)):
        table.add_row(name, f"{len(files):,}", size_text(sum(file.bytes for file in files)))
    table.add_row("deleted", f"{len(changes.deleted):,}", "")
    for name, paths in (
        ("new", [file.path for file in changes.new]),
        ("changed", [file.path for file in changes.changed]),
        ("deleted", changes.deleted),
    ):
        for path in paths[:LISTED] if pushed.dry_run else ():
            console.print(f"{name:9}{printable_path(path)}", soft_wrap=True)
        if pushed.dry_run and len(paths) > LISTED:
            console.print(f"{name:9}... and {len(paths) - LISTED:,} more", soft_wrap=True)
    print_table(console, table)
    if pushed.dry_run:
        console.print(f"nothing was changed at {printable_path(pushed.place)}; push it with: {command}", soft_wrap=True)
        return
    moved = f"{len(changes.moved):,} files, {size_text(changes.bytes)} moved"
    notes = "".join(f", {name} {printable_path(text)}" for name, text in pushed.notes.items())
    for line in (moved, f"{printable_path(pushed.place)}{notes}", f"load it: {pushed.load}"):
        console.print(line, soft_wrap=True)
