"""The command line: parses, calls, prints."""

import functools
import gc
import inspect
import io
import json
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO

# One thread is enough for the sums of the split function; a pool of them costs start-up time and fights the workers.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import typer

from .errors import UserError, clip

if TYPE_CHECKING:
    from .pipelines.settings import Declaration

app = typer.Typer(
    help="Exact, leak-free datasets of arithmetic executed as Turing machines.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _integer(text: str) -> int:
    """Read an option's number; ``int`` alone takes digits of every script, blanks and underscores."""
    if not text.isascii() or not text.removeprefix("-").isdigit() or len(text) > 20:
        raise typer.BadParameter(f"{clip(text)} is not a whole number in digits 0-9")
    return int(text)


Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Directory = Annotated[str, typer.Argument(metavar="[DIR]", help="A dataset folder.")]
Readable = Annotated[
    str, typer.Argument(metavar="[DIR]", help="A dataset folder, or hf://datasets/user/name, @revision behind it.")
]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Processes. Default: all processors.")]
Engine = Annotated[str, typer.Option("--engine", help="local, or ray: on the nodes of a Ray cluster.")]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address", metavar="ADDRESS", help="host:port of its head, auto or local. Default: $RAY_ADDRESS."
    ),
]


def _declared(
    declaration: Annotated[
        str | None, typer.Argument(help="A declaration: paper, smoke, stress or a path to a .toml file.")
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Task; repeats; `all` for every task.")] = None,
    min: Annotated[
        int | None, typer.Option(parser=_integer, metavar="N", help="Smallest operand length, in digits. Default: 1.")
    ] = None,
    max: Annotated[
        int | None, typer.Option(parser=_integer, metavar="N", help="Largest operand length, in digits. Default: 100.")
    ] = None,
    num: Annotated[
        int | None,
        typer.Option(parser=_integer, metavar="N", help="Train expressions a class, before balancing. Default: 20."),
    ] = None,
    num_test: Annotated[
        int | None,
        typer.Option(parser=_integer, metavar="N", help="Test expressions a class. Default: num // 10, at least 1."),
    ] = None,
    split: Annotated[list[str] | None, typer.Option(help="train, test, stress; repeats. Default: train test.")] = None,
    view: Annotated[
        list[str] | None, typer.Option(help="one_step, full, aligner, raw, scratchpad, commands; repeats.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(parser=_integer, metavar="N", help="Seed of the sampling. Default: 42.")
    ] = None,
    dialect: Annotated[str | None, typer.Option(help="consistent or published. Default: consistent.")] = None,
    steps: Annotated[
        str | None, typer.Option(help="Rows of a run in one_step: sampled or all. Default: sampled.")
    ] = None,
    balance: Annotated[
        bool | None, typer.Option("--balance/--no-balance", help="Apply the balance table. Default: balance.")
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(parser=_integer, metavar="N", help="Longest run written whole. Default: 10000.")
    ] = None,
    rows_per_shard: Annotated[
        int | None, typer.Option(parser=_integer, metavar="N", help="Bound shards by rows too.")
    ] = None,
) -> "Declaration":
    """Return the declaration that a command line names or spells out."""
    from .pipelines.declaration import from_flags, load_declaration

    settings = {
        "min": min,
        "max": max,
        "num": num,
        "num_test": num_test,
        "splits": split,
        "views": view,
        "seed": seed,
        "dialect": dialect,
        "steps": steps,
        "balance": balance,
        "max_steps": max_steps,
        "rows_per_shard": rows_per_shard,
    }
    given = [key for key, value in {"task": task, **settings}.items() if value not in (None, [])]
    if declaration is None:
        return from_flags(task or [], **settings)
    if given:
        raise UserError(
            f"the declaration {clip(declaration)} cannot be combined with"
            f" --{given[0].replace('_', '-').removesuffix('s')}",
            allowed="either a declaration or options",
            next_step="copy the declaration to a file of your own and change it there",
        )
    return load_declaration(declaration)


def _of_declaration(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the arguments and options of ``_declared`` in place of its first parameter."""
    shared = inspect.signature(_declared, eval_str=False).parameters
    own = list(inspect.signature(command).parameters.values())[1:]

    @functools.wraps(command)
    def whole(**given: Any) -> None:
        command(_declared(**{name: given.pop(name) for name in shared}), **given)

    parameters = [*shared.values(), *own]
    whole.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    whole.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return whole


@app.command()
@_of_declaration
def build(
    declared: "Declaration",
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="Dataset folder, or s3://bucket/prefix.")] = "data",
    workers: Workers = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace tasks built with other settings.")] = False,
    engine: Engine = "local",
    ray_address: RayAddress = None,
) -> None:
    """Build a dataset: --task sub --min 1 --max 100 --num 20, or a declaration such as paper."""
    from .pipelines.build import EngineChoice
    from .pipelines.console import build_with_progress

    build_with_progress(declared, out, overwrite, EngineChoice(engine, workers, ray_address))


@app.command()
@_of_declaration
def plan(
    declared: "Declaration",
    workers: Workers = None,
    engine: Engine = "local",
    ray_address: RayAddress = None,
    as_json: Json = False,
) -> None:
    """Show what a build would write, in rows, bytes and seconds; writes nothing."""
    from .pipelines.build import EngineChoice
    from .pipelines.console import print_plan

    print_plan(declared, EngineChoice(engine, workers, ray_address).workers, as_json)


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
    from .pipelines.show import parse_problem, print_trace, show_json

    name, a, b = parse_problem(words, task)
    if as_json:
        typer.echo(json.dumps(show_json(name, a, b, dialect, max_steps)))
        return
    from rich.console import Console

    print_trace(Console(highlight=False), name, a, b, dialect=dialect, nested=nested)


@app.command()
def verify(
    directory: Readable = "data",
    fraction: Annotated[float, typer.Option("--fraction", help="Part of the rows to re-execute.")] = 1.0,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Check a dataset from scratch: files, every row, answers, duplicates, leaks. Exit 1 if anything is off."""
    from .pipelines.console import verify_with_progress

    raise typer.Exit(0 if verify_with_progress(directory, fraction, workers, as_json) else 1)


@app.command()
def info(directory: Readable = "data", as_json: Json = False) -> None:
    """Show what a dataset folder holds."""
    from .pipelines.console import print_info

    print_info(directory, as_json)


@app.command()
def push(
    directory: Directory = "data",
    repo: Annotated[
        str | None, typer.Option("--repo", metavar="USER/NAME", help="Dataset repository on the Hub; made if missing.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="URL", help="A store instead: s3://bucket/prefix.")] = None,
    revision: Annotated[str, typer.Option("--revision", metavar="BRANCH", help="Branch of the repository.")] = "main",
    private: Annotated[bool, typer.Option("--private", help="Make the repository a private one.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change; change nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Push a dataset folder to the Hugging Face Hub, or to a store: checked before, and after."""
    from .pipelines.push.console import push_with_progress

    push_with_progress(
        directory, repo=repo, to=to, revision=revision, private=private, dry_run=dry_run, as_json=as_json
    )


@app.command()
def export(
    directory: Directory = "data",
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="jsonl (prompt, completion), alpaca (instruction, input, output: LLaMA-Factory) or chat (messages).",
        ),
    ] = "jsonl",
    stage: Annotated[
        str, typer.Option(help="first puts the instruction before the prompt, second leaves it out.")
    ] = "second",
    config: Annotated[
        list[str] | None, typer.Option(help="Config such as sub-one_step; repeats. Default: all.")
    ] = None,
    split: Annotated[list[str] | None, typer.Option(help="train, test, stress; repeats. Default: all.")] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Write its tokens that begin and end a text into the rows (alpaca)."),
    ] = None,
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="The folder to export to.")] = "export",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another export that lies there.")] = False,
) -> None:
    """Export a dataset's rows as JSON files for other training tools."""
    from .pipelines.export import export_with_progress
    from .pipelines.export_rows import Style

    style = Style(form, stage)
    if tokenizer is not None:
        from .eval.training import around_rows, sample

        style = Style(form, stage, tokenizer, *around_rows(tokenizer, sample(directory, config or [], split or [])))
    export_with_progress(directory, out, style, config or [], split or [], overwrite)


@app.command()
def tokens(
    source: Annotated[
        str,
        typer.Argument(metavar="[DIR|DECLARATION]", help="A dataset folder; or paper, smoke, stress, a .toml file."),
    ] = "data",
    tokenizer: Annotated[
        str, typer.Option("--tokenizer", metavar="MODEL", help="Folder or Hub name of a model or tokenizer.")
    ] = ...,  # type: ignore[assignment]
    config: Annotated[
        list[str] | None, typer.Option(help="Config such as sub-one_step; repeats. Default: all.")
    ] = None,
    split: Annotated[list[str] | None, typer.Option(help="train, test, stress; repeats. Default: all.")] = None,
    stage: Annotated[
        str, typer.Option(help="first puts the instruction before the prompt, second leaves it out.")
    ] = "second",
    rows: Annotated[
        int | None,
        typer.Option("--rows", min=1, help="Rows of each split to count. Default: all; 1,000 of a declaration's."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Count the tokens of rows under a real tokenizer: means, longest, rows that a trainer's limit would cut."""
    from .eval.token_console import print_tokens

    print_tokens(source, tokenizer, config or [], split or [], stage=stage, rows=rows, as_json=as_json)


@app.command("eval")
def evaluate(
    declaration: Annotated[
        str | None, typer.Argument(help="A .toml file with a table named eval; options change what it says.")
    ] = None,
    adapters: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Checkpoint folder: executors/<task>/, aligners/<task>/; one adapter; or user/name."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Folder or Hub name of a whole model, asked in place of every adapter.")
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(help="Folder or Hub name. Default: what the adapters' configs name.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="DIR", help="Dataset folder, raw files, or user/name. Default: data.")
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Task; repeats. Default: all with adapters.")] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(help="one_step, executor, aligner_in, aligner_out, process; repeats. Default: all there are."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="train, test or stress. Default: test.")] = None,
    strategy: Annotated[str | None, typer.Option(help="verify, generate or rollout. Default: verify.")] = None,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="What training put around prompts: chat, or a text with {prompt}. Default: nothing."
        ),
    ] = None,
    joined: Annotated[
        bool | None, typer.Option("--joined", help="Adapters were trained on prompt and completion as one text.")
    ] = None,
    near_ties: Annotated[
        str | None, typer.Option(help="Rows that rounding could decide: alone, or count. Default: alone.")
    ] = None,
    batch_tokens: Annotated[
        int | None, typer.Option(parser=_integer, metavar="N", help="Tokens of a batch. Default: as suits the device.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16. Default: auto.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 ... Default: auto.")] = None,
    backend: Annotated[str | None, typer.Option(help="transformers, openai or oracle. Default: transformers.")] = None,
    endpoint: Annotated[str | None, typer.Option(metavar="URL", help="Server of the openai backend.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(parser=_integer, metavar="N", help="Expressions a task, the same in all modes. Default: all."),
    ] = None,
    baseline: Annotated[
        bool | None, typer.Option("--baseline", help="Base model alone, raw question to raw answer.")
    ] = None,
    out: Annotated[str | None, typer.Option(metavar="DIR", help="Results folder. Default: results.")] = None,
    name: Annotated[
        str | None, typer.Option(help="A name for the run, for report and compare; of two, the newest is meant.")
    ] = None,
) -> None:
    """Evaluate adapters on a built dataset: --adapters ckpt/; writes result tables."""
    from .eval.console import evaluate_with_progress
    from .eval.settings import eval_settings

    given = {
        "adapters": adapters,
        "model": model,
        "base_model": base_model,
        "data": data,
        "task": task,
        "mode": mode,
        "split": split,
        "strategy": strategy,
        "template": template,
        "joined": joined,
        "near_ties": near_ties,
        "batch_tokens": batch_tokens,
        "dtype": dtype,
        "device": device,
        "backend": backend,
        "endpoint": endpoint,
        "limit": limit,
        "baseline": baseline,
        "out": out,
        "name": name,
    }
    evaluate_with_progress(eval_settings(declaration, given))


@app.command()
def query(
    sql: Annotated[str | None, typer.Argument(metavar="[SQL]", help="Statements. Default: a prompt.")] = None,
    results: Annotated[str, typer.Option("--results", metavar="DIR", help="The folder of result tables.")] = "results",
    form: Annotated[str, typer.Option("--format", help="table, csv, json or md.")] = "table",
    list_tables: Annotated[bool, typer.Option("--tables", help="List the views and their columns.")] = False,
) -> None:
    """Ask the result tables in SQL: "SELECT * FROM class_accuracy ORDER BY accuracy LIMIT 10"."""
    from .eval.query_console import query, tables

    if list_tables:
        tables(form)
    else:
        query(sql, results, form)


@app.command()
def report(
    runs: Annotated[
        list[str] | None,
        typer.Option("--run", metavar="ID", help="A run's name, id, or its beginning; repeats. Default: all."),
    ] = None,
    results: Annotated[str, typer.Option("--results", metavar="DIR", help="The folder of result tables.")] = "results",
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="The page to write.")] = "report.html",
) -> None:
    """Write the results as one HTML page: accuracy by class and length, comparison of runs, failures."""
    from .eval.report.write import report

    report(results, runs or [], out)


@app.command()
def compare(
    run_a: Annotated[str, typer.Argument(metavar="A", help="A run's name, its id, or how that begins.")],
    run_b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    results: Annotated[str, typer.Option("--results", metavar="DIR", help="The folder of result tables.")] = "results",
    as_json: Json = False,
) -> None:
    """Compare two runs problem by problem: what B gained and lost over A, and McNemar's exact test."""
    from .eval.compare import compare

    compare(run_a, run_b, results, as_json=as_json)


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


def run() -> None:
    """Run the command line as a process, which ends at once: taking its libraries apart costs a tenth of a second."""
    gc.set_threshold(100_000)  # imports make a hundred thousand objects, and no garbage worth looking for
    code: object = 0
    try:
        main(start_early=sys.argv[1:2] == ["build"])
    except SystemExit as end:
        code = end.code
    if workers := sys.modules.get(f"{__package__}.pipelines.workers"):
        workers.remove_sockets()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or 1
    os._exit(code if isinstance(code, int) else int(code is not None))


def main(*, start_early: bool = False) -> None:
    """Run the command line; errors of the user's are printed without a traceback.

    Args:
        start_early: start what workers need, while this process reads its options, imports and plans.
    """
    try:
        _check_process()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # names of files need not be text
                stream.reconfigure(errors="backslashreplace")
        if start_early:
            from .pipelines.workers import start_fork_server

            start_fork_server()
        app()
    except UserError as error:
        _end(2, f"error: {error}")
    except KeyboardInterrupt:
        _end(130, "stopped")
    except BrokenPipeError:
        _silence(sys.stdout)
        _end(1)
    except OSError as error:  # a name too long, a folder that may not be written, output to a full disk
        if error.filename is None:
            _silence(sys.stdout)
        place = "" if error.filename is None else f"\n  where:   {clip(os.fsdecode(error.filename), 300)}"
        _end(2, f"error: the system refuses: {error.strerror or error}{place}")


def _check_process() -> None:
    """Give a process that was started without input or error output one that leads nowhere.

    Raises:
        UserError: it has no standard output, or stands in no folder.
    """
    if None in (sys.stdin, sys.stdout, sys.stderr):  # else the next file that is opened takes its place
        for number in range(3):
            try:
                os.fstat(number)
            except OSError:
                os.dup2(os.open(os.devnull, os.O_RDWR), number)
    closed = sys.stdout is None
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")
    if closed:
        raise UserError("standard output is closed", next_step="end the command with > FILE, or > /dev/null")
    try:
        os.getcwd()
    except OSError:
        raise UserError("the current folder does not exist any more", next_step="cd to another one") from None


def _end(code: int, text: str = "") -> NoReturn:
    """End with an exit code, and say why, if there is still somebody to be told."""
    try:
        if text:
            print(text, file=sys.stderr, flush=True)
    except OSError:
        _silence(sys.stderr)
    sys.exit(code)


def _silence(stream: TextIO) -> None:
    """Send what a stream still holds nowhere: Python would fail on it again at its end."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except io.UnsupportedOperation:  # it is no file
        pass
