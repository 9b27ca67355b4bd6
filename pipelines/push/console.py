"""What ``caef-data push`` prints: how far it is, what it changed, and how to load what it pushed."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from ...errors import UserError
from ..build import argument
from ..console import LINE_EVERY, _size
from ..folder import shown
from ..terminal import Bar, open_console, print_table
from .dataset import File, Pushed

MAIN = "main"  # the branch that readers load from when they name none
LISTED = 10  # files of each kind that a dry run names; the others are counted


class PushProgress:
    """A bar on a terminal, plain lines otherwise: bytes that were checked, then files and bytes that were moved."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.start = self.said = time.perf_counter()
        self.files = self.bytes = self.total_files = self.total = 0
        columns = (TextColumn("{task.description}", markup=False), BarColumn(None), TextColumn("{task.fields[rate]}"))
        self.bar = Bar(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)
        self.task = self.bar.add_task("checking", total=None, rate="")

    def __enter__(self) -> PushProgress:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)

    def check(self, done: int, total: int) -> None:
        self.bar.update(self.task, completed=done, total=total, rate=_size(done))
        self._line(f"checked {_size(done)} of {_size(total)}")

    def begin(self, files: Sequence[File]) -> None:
        self.start = self.said = time.perf_counter()
        self.files = self.bytes = 0
        self.total_files, self.total = len(files), sum(file.bytes for file in files)
        self.bar.reset(self.task, total=self.total, description="pushing", rate="")

    def moved(self, file: File) -> None:
        self.files, self.bytes = self.files + 1, self.bytes + file.bytes
        rate = self.bytes / max(time.perf_counter() - self.start, 1e-6) / 1e6
        done = f"{self.files:,} of {self.total_files:,} files, {rate:,.1f} MB/s"
        self.bar.update(self.task, completed=self.bytes, description=shown(file.path), rate=done)
        self._line(f"{shown(file.path)}: {_size(self.bytes)} of {_size(self.total)}, {done}")

    def _line(self, text: str) -> None:
        """Say it where there is no bar, now and then."""
        now = time.perf_counter()
        if not self.console.is_terminal and now - self.said >= LINE_EVERY:
            self.said = now
            self.say(text)


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
    push = _command(directory, repo, to, revision, private)
    again = f"{push} --dry-run" if dry_run else push
    with PushProgress(open_console(stderr=True)) as progress:
        try:
            if to is None:
                pushed = _to_hub(directory, repo, revision, private, dry_run, again, progress)
            else:
                pushed = _to_store(directory, to, dry_run, again, progress)
        except KeyboardInterrupt:
            progress.bar.stop()
            progress.say(f"stopped; go on with: {again}")
            sys.exit(130)
    if as_json:
        print(json.dumps(pushed.to_json(), indent=1))
    else:
        _print_pushed(pushed, push, open_console())


def _command(directory: str, repo: str | None, to: str | None, revision: str, private: bool) -> str:
    """Return the command line of a push; it goes on where one stopped."""
    parts = [f"caef-data push {argument(directory)}"]
    parts += [f"{option} {shlex.quote(shown(value))}" for option, value in (("--repo", repo), ("--to", to)) if value]
    parts += [f"--revision {shlex.quote(shown(revision))}"] if revision != MAIN else []
    return " ".join([*parts, *(["--private"] if private else [])])


def _to_hub(
    directory: str, repo: str | None, revision: str, private: bool, dry_run: bool, again: str, progress: PushProgress
) -> Pushed:
    try:
        import huggingface_hub  # noqa: F401  (the modules import it where they use it)

        from .hub import push_to_hub
    except ModuleNotFoundError as error:
        raise _missing(error, "hub") from error
    return push_to_hub(directory, repo, revision, private=private, dry_run=dry_run, again=again, progress=progress)


def _to_store(directory: str, to: str, dry_run: bool, again: str, progress: PushProgress) -> Pushed:
    try:
        from .store import push_to_store
    except ModuleNotFoundError as error:
        raise _missing(error, "s3") from error
    return push_to_store(directory, to, dry_run=dry_run, again=again, progress=progress)


def _missing(error: ModuleNotFoundError, extra: str) -> UserError:
    return UserError(
        f"this needs the package {error.name}, which is not installed", next_step=f"pip install 'caef-data[{extra}]'"
    )


def _print_pushed(pushed: Pushed, command: str, console: Console) -> None:
    """Print what a push did, or would do, and how to load it."""
    changes = pushed.changes
    table = Table()
    for name in ("files", "number", "size"):
        table.add_column(name, justify="left" if name == "files" else "right", no_wrap=True)
    for name, files in (("new", changes.new), ("changed", changes.changed), ("unchanged", changes.unchanged)):
        table.add_row(name, f"{len(files):,}", _size(sum(file.bytes for file in files)))
    table.add_row("deleted", f"{len(changes.deleted):,}", "")
    if pushed.dry_run:
        _list(pushed, console)
        print_table(console, table)
        console.print(f"nothing was changed at {shown(pushed.place)}; push it with: {command}", soft_wrap=True)
        return
    print_table(console, table)
    moved = f"{len(changes.moved):,} files, {_size(sum(file.bytes for file in changes.moved))} moved"
    console.print(f"{moved}; requests made again: {pushed.retries:,}", soft_wrap=True)
    notes = "".join(f", {name} {shown(text)}" for name, text in pushed.notes.items())
    console.print(f"{shown(pushed.place)}{notes}", soft_wrap=True)
    console.print(f"load it: {pushed.load}", soft_wrap=True)


def _list(pushed: Pushed, console: Console) -> None:
    changes = pushed.changes
    for name, paths in (
        ("new", [file.path for file in changes.new]),
        ("changed", [file.path for file in changes.changed]),
        ("deleted", list(changes.deleted)),
    ):
        for path in paths[:LISTED]:
            console.print(f"{name:9}{shown(path)}", soft_wrap=True)
        if len(paths) > LISTED:
            console.print(f"{name:9}... and {len(paths) - LISTED:,} more", soft_wrap=True)
