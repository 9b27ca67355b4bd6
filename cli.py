"""The command line: parses, calls, prints."""

import io
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

# One thread is enough for the sums of the split function; a pool of them costs start-up time and fights the workers.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import typer

from .errors import UserError, clip

app = typer.Typer(
    help="Exact, leak-free datasets of arithmetic executed as Turing machines.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[str | None, typer.Argument(help="A declaration: paper, smoke, stress or a path to a .toml file.")]
Tasks = Annotated[list[str] | None, typer.Option("--task", help="Task; repeats; `all` for every task.")]
Min = Annotated[int | None, typer.Option("--min", help="Smallest operand length, in digits.  [1]")]
Max = Annotated[int | None, typer.Option("--max", help="Largest operand length, in digits.  [100]")]
Num = Annotated[int | None, typer.Option("--num", help="Train expressions a class, before balancing.  [20]")]
NumTest = Annotated[int | None, typer.Option("--num-test", help="Test expressions a class.  [num // 10]")]
Splits = Annotated[list[str] | None, typer.Option("--split", help="train, test, stress; repeats.  [train test]")]
Views = Annotated[
    list[str] | None,
    typer.Option("--view", help="one_step, full, aligner, raw, scratchpad, commands; repeats."),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of the sampling.  [42]")]
DialectOption = Annotated[str | None, typer.Option("--dialect", help="consistent or published.  [consistent]")]
Steps = Annotated[str | None, typer.Option("--steps", help="Rows of a run in one_step: sampled or all.  [sampled]")]
Balance = Annotated[bool | None, typer.Option("--balance/--no-balance", help="Apply the balance table.  [balance]")]
MaxSteps = Annotated[int | None, typer.Option("--max-steps", help="Longest run written whole.  [10000]")]
RowsPerShard = Annotated[int | None, typer.Option("--rows-per-shard", help="Bound shards by rows too.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Directory = Annotated[Path, typer.Argument(metavar="[DIR]", help="A dataset folder.")]


def _declaration(name: str | None, tasks: list[str] | None, **settings: Any) -> Any:
    from .pipelines.declaration import from_flags, load_declaration

    given = [key for key, value in {"task": tasks, **settings}.items() if value not in (None, [])]
    if name is None:
        return from_flags(tasks or [], **settings)
    if given:
        raise UserError(
            f"the declaration {name!r} cannot be combined with --{given[0].replace('_', '-').removesuffix('s')}",
            allowed="either a declaration or options",
            next_step="copy the declaration to a file of your own and change it there",
        )
    return load_declaration(name)


@app.command()
def build(
    declaration: Name = None,
    task: Tasks = None,
    min: Min = None,
    max: Max = None,
    num: Num = None,
    num_test: NumTest = None,
    split: Splits = None,
    view: Views = None,
    seed: Seed = None,
    dialect: DialectOption = None,
    steps: Steps = None,
    balance: Balance = None,
    max_steps: MaxSteps = None,
    rows_per_shard: RowsPerShard = None,
    out: Annotated[Path, typer.Option("--out", help="The dataset folder.")] = Path("data"),
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes.  [all processors]")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace tasks built with other settings.")] = False,
) -> None:
    """Build a dataset: --task sub --min 1 --max 100 --num 20, or a declaration such as paper."""
    from .pipelines.console import build_with_progress

    declared = _declaration(
        declaration,
        task,
        min=min,
        max=max,
        num=num,
        num_test=num_test,
        splits=split,
        views=view,
        seed=seed,
        dialect=dialect,
        steps=steps,
        balance=balance,
        max_steps=max_steps,
        rows_per_shard=rows_per_shard,
    )
    build_with_progress(declared, out, workers, overwrite)


@app.command()
def plan(
    declaration: Name = None,
    task: Tasks = None,
    min: Min = None,
    max: Max = None,
    num: Num = None,
    num_test: NumTest = None,
    split: Splits = None,
    view: Views = None,
    seed: Seed = None,
    dialect: DialectOption = None,
    steps: Steps = None,
    balance: Balance = None,
    max_steps: MaxSteps = None,
    rows_per_shard: RowsPerShard = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes.  [all processors]")] = None,
    as_json: Json = False,
) -> None:
    """Show what a build would write, in rows, bytes and seconds; writes nothing."""
    from .pipelines.console import print_plan

    declared = _declaration(
        declaration,
        task,
        min=min,
        max=max,
        num=num,
        num_test=num_test,
        splits=split,
        views=view,
        seed=seed,
        dialect=dialect,
        steps=steps,
        balance=balance,
        max_steps=max_steps,
        rows_per_shard=rows_per_shard,
    )
    print_plan(declared, workers, as_json)


@app.command()
def show(
    words: Annotated[list[str], typer.Argument(metavar="EXPRESSION", help="47819-12345= or operands with --task.")],
    task: Annotated[str | None, typer.Option("--task", help="Task of bare operands: --task left_mask 45321.")] = None,
    dialect: Annotated[str, typer.Option("--dialect", help="consistent or published.")] = "consistent",
    nested: Annotated[bool, typer.Option("--nested", help="Show the traces of called machines too.")] = False,
    max_steps: Annotated[int, typer.Option("--max-steps", min=1, help="Longest trace shown or printed.")] = 10_000,
    as_json: Json = False,
) -> None:
    """Show the whole trace of one expression."""
    from .pipelines.show import print_trace, show_json
    from .tm.expression import parse_problem

    name, a, b = parse_problem(words, task)
    if as_json:
        typer.echo(json.dumps(show_json(name, a, b, dialect, max_steps)))
        return
    from rich.console import Console

    print_trace(Console(highlight=False), name, a, b, dialect=dialect, nested=nested)


@app.command()
def verify(
    directory: Directory = Path("data"),
    fraction: Annotated[float, typer.Option("--fraction", help="Part of the rows to re-execute.")] = 1.0,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes.  [all processors]")] = None,
    as_json: Json = False,
) -> None:
    """Check a dataset from scratch: files, every row, answers, duplicates, leaks. Exit 1 if anything is off."""
    from .pipelines.console import verify_with_progress

    raise typer.Exit(0 if verify_with_progress(directory, fraction, workers, as_json) else 1)


@app.command()
def info(directory: Directory = Path("data"), as_json: Json = False) -> None:
    """Show what a dataset folder holds."""
    from .pipelines.console import print_info

    print_info(directory, as_json)


def _version(wanted: bool) -> None:
    if wanted:
        from . import __version__

        typer.echo(f"caef-data {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Exact, leak-free datasets of arithmetic executed as Turing machines."""


def main() -> None:
    """Run the command line; errors of the user's are printed without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files need not be text
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        _silence()
        sys.exit(1)
    except OSError as error:  # a name too long, a folder that may not be written, output to a full disk
        if error.filename is None:
            _silence()
        place = "" if error.filename is None else f"\n  where:   {clip(os.fsdecode(error.filename), 300)}"
        print(f"error: the system refuses: {error.strerror or error}{place}", file=sys.stderr)
        sys.exit(2)


def _silence() -> None:
    """Send what standard output still holds nowhere: Python would fail on it again at its end."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except io.UnsupportedOperation:  # standard output is no file
        pass
