"""The command line: parses, calls, prints."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

# One thread is enough for the sums of the split function; a pool of them costs start-up time and fights the workers.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import typer

from .options import (
    MODES,
    Configs,
    Directory,
    Engine,
    Json,
    Quiet,
    RayAddress,
    Readable,
    Results,
    Splits,
    Stage,
    Tasks,
    Workers,
    known_tasks,
    number,
    of_declaration,
    several,
)
from .process import run_and_leave, run_telling_errors

if TYPE_CHECKING:
    from .pipelines.settings import Declaration


app = typer.Typer(
    help="Exact, leak-free datasets of arithmetic executed as Turing machines.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
@of_declaration
def build(
    declared: "Declaration",
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="DIR", help="Dataset folder, or s3://bucket/prefix.")
    ] = "data",
    workers: Workers = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Build tasks again that the folder holds with other settings.")
    ] = False,
    engine: Engine = "local",
    ray_address: RayAddress = None,
    quiet: Quiet = False,
) -> None:
    """Build a dataset: --task sub --min 1 --max 100 --num 20, or a declaration such as paper."""
    from .pipelines.build import EngineChoice
    from .pipelines.console import build_with_progress

    build_with_progress(declared, out, overwrite, EngineChoice(engine, workers, ray_address))


@app.command()
@of_declaration
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


@app.command(context_settings={"ignore_unknown_options": True})
def show(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="EXPRESSION...", help='Such as "47819-12345="; operands with --task; - for lines of standard input.'
        ),
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="Task of bare operands: --task left_mask 45321.")] = None,
    dialect: Annotated[str, typer.Option("--dialect", help="consistent or published.")] = "consistent",
    nested: Annotated[bool, typer.Option("--nested", help="Show the traces of called machines too.")] = False,
    max_steps: Annotated[int, typer.Option("--max-steps", min=1, help="Longest trace that --json prints.")] = 10_000,
    as_json: Json = False,
) -> None:
    """Show the whole trace of expressions."""
    from rich.console import Console

    from .pipelines import show as traces

    words = words or ([] if sys.stdin.isatty() else ["-"])  # who types nothing at a terminal is told what to type
    problems = traces.problems_of(words, task, sys.stdin)
    traces.show(
        problems, Console(highlight=False), dialect=dialect, nested=nested, max_steps=max_steps, as_json=as_json
    )


@app.command()
def verify(
    directory: Readable = "data",
    fraction: Annotated[
        float, typer.Option("--fraction", help="Part of the rows to compute again: 0.1 for a tenth.")
    ] = 1.0,
    workers: Workers = None,
    as_json: Json = False,
    quiet: Quiet = False,
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
    quiet: Quiet = False,
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
    stage: Stage = "second",
    config: Configs = None,
    split: Splits = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Write the tokens that begin and end a text of this model into the rows (alpaca)."
        ),
    ] = None,
    out: Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="The folder to export to.")] = "export",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another export in this folder.")] = False,
    quiet: Quiet = False,
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
    config: Configs = None,
    split: Splits = None,
    stage: Stage = "second",
    rows: Annotated[
        int | None,
        typer.Option("--rows", min=1, help="Rows of each split to count. Default: all; 1,000 of a declaration's."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Count the tokens of rows under a real tokenizer: means, longest, rows that a trainer's limit would cut."""
    from .eval.token_counts import print_tokens

    print_tokens(source, tokenizer, config or [], split or [], stage=stage, rows=rows, as_json=as_json)


@app.command()
def adapters(
    task: Tasks = None,
    mode: Annotated[list[str] | None, several(f"{', '.join(MODES)}. Default: all.", *MODES)] = None,
) -> None:
    """List the adapters that an evaluation of a task needs, to know what to train."""
    from .eval.training import needed_adapters

    for name in needed_adapters(task or [], mode or []):
        typer.echo(name)


@app.command("eval")
def evaluate(
    context: typer.Context,
    declaration: Annotated[
        str | None, typer.Argument(help="A .toml file with a table named eval; options change what it says.")
    ] = None,
    adapters: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Folder with executors/<task>/ and aligners/<task>/, or of one adapter; or user/name on the Hub.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Folder or Hub name of a whole model, asked in place of every adapter.")
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(help="Folder or Hub name. Default: the one that the adapters name.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="DIR", help="Dataset folder, raw files, or user/name. Default: data.")
    ] = None,
    task: Annotated[list[str] | None, several("Task. Default: all that have adapters.", known=known_tasks)] = None,
    mode: Annotated[
        list[str] | None, several(f"{', '.join(MODES)}. Default: all that adapters and rows allow.", *MODES)
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
        bool | None, typer.Option("--joined", help="The adapters were trained on prompt and completion as one text.")
    ] = None,
    near_ties: Annotated[
        str | None,
        typer.Option(help="Where rounding could decide a token: alone decodes the row by itself, count does not."),
    ] = None,
    batch_tokens: Annotated[int | None, number("Most tokens of a batch. Default: as suits the device.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16. Default: auto.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 ... Default: auto.")] = None,
    backend: Annotated[
        str | None,
        typer.Option(help="transformers (default); openai: a vLLM server; oracle: the machines themselves."),
    ] = None,
    endpoint: Annotated[str | None, typer.Option(metavar="URL", help="The server of --backend openai.")] = None,
    limit: Annotated[
        int | None, number("Expressions of each task, the same in all modes and runs. Default: all.")
    ] = None,
    baseline: Annotated[
        bool | None, typer.Option("--baseline", help="Ask the base model alone: raw question, raw answer.")
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="DIR", help="Folder of result tables. Default: results.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="A name for the run, for report and compare. The newest run has it.")
    ] = None,
    as_json: Annotated[bool | None, typer.Option("--json", help="Print the accuracies as JSON, for programs.")] = None,
    quiet: Quiet = False,
) -> None:
    """Evaluate adapters on a built dataset: --adapters ckpt/; writes result tables."""
    from .eval.console import evaluate_with_progress
    from .eval.settings import eval_settings

    given = {option: value for option, value in context.params.items() if option not in ("declaration", "quiet")}
    evaluate_with_progress(eval_settings(declaration, given))


@app.command()
def query(
    sql: Annotated[str | None, typer.Argument(metavar="[SQL]", help="Statements. Default: a prompt.")] = None,
    results: Results = "results",
    form: Annotated[str, typer.Option("--format", help="table, csv, json or md.")] = "table",
    list_tables: Annotated[bool, typer.Option("--tables", help="List the tables and their columns.")] = False,
) -> None:
    """Ask the result tables in SQL: "SELECT * FROM class_accuracy ORDER BY accuracy LIMIT 10"."""
    from .eval.query_console import print_tables, query

    if list_tables:
        print_tables(form, sys.stdout)
    else:
        query(sql, results, form)


@app.command()
def report(
    runs: Annotated[
        list[str] | None,
        typer.Option("--run", metavar="RUN", help="A run's name, its id, or how that begins; repeats. Default: all."),
    ] = None,
    results: Results = "results",
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE", help="The page to write.")] = "report.html",
) -> None:
    """Write the results as one HTML page: accuracy by class and length, comparison of runs, failures."""
    from .eval.report.page import report

    report(results, runs or [], out)


@app.command()
def compare(
    run_a: Annotated[str, typer.Argument(metavar="A", help="A run's name, its id, or how that begins.")],
    run_b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    results: Results = "results",
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
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Exact, leak-free datasets of arithmetic executed as Turing machines."""


def run() -> None:
    """Run the command line as a process, which ends with it."""
    run_and_leave(lambda: main(start_early=sys.argv[1:2] == ["build"]))


def main(*, start_early: bool = False) -> None:
    """Run the command line; errors of the user's are printed without a traceback.

    Args:
        start_early: start what workers need, while this process reads its options, imports and plans.
    """

    def command() -> None:
        if start_early:
            from .pipelines.workers import start_fork_server

            start_fork_server()
        app()

    run_telling_errors(command)
