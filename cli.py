"""The command line: parses, calls, prints."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .options import Json, Names, Number, Quiet, Text, number, of_declaration, option, several
from .process import run_telling_errors

if TYPE_CHECKING:
    from .pipelines.settings import Declaration


app = typer.Typer(
    cls=options.Commands,
    help="Exact, leak-free datasets of arithmetic executed as Turing machines.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
@of_declaration
def build(
    declared: "Declaration",
    out: Annotated[str, option("Dataset folder, or s3://bucket/prefix.", "--out", "-o", metavar="DIR")] = "data",
    workers: options.Workers = None,
    overwrite: options.Overwrite = False,
    engine: options.Engine = "local",
    quiet: Quiet = False,
) -> None:
    """Build a dataset: --task sub --min 1 --max 100 --num 20, or a declaration such as paper."""
    from .eval import counter_of
    from .pipelines.console import build_with_progress

    build_with_progress(declared, out, overwrite, engine, workers, counter_of(declared))


@app.command()
@of_declaration
def plan(
    declared: "Declaration",
    workers: options.Workers = None,
    engine: options.Engine = "local",
    as_json: Json = False,
) -> None:
    """Show what a build would write, in rows, bytes and seconds; writes nothing."""
    from .eval import counter_of
    from .pipelines.build import choose_engine
    from .pipelines.console import print_plan

    choose_engine(engine, workers)  # refuses what a build would refuse
    print_plan(declared, workers, as_json, counter_of(declared))


@app.command(context_settings={"ignore_unknown_options": True})
def show(
    words: options.Words = None,
    task: Annotated[Text, option("Task of bare operands or words: --task left_mask 45321.", "--task")] = None,
    within: options.Within = None,
    expressions: options.Expressions = None,
    dialect: Annotated[str, option("consistent or published.", "--dialect")] = "consistent",
    nested: Annotated[bool, option("Show the traces of called machines too.", "--nested")] = False,
    max_steps: Annotated[int, typer.Option("--max-steps", min=1, help="Longest trace that --json prints.")] = 10_000,
    as_json: Json = False,
) -> None:
    """Show the whole trace of expressions."""
    from rich.console import Console

    from .pipelines.machines import find_task
    from .pipelines.show import problems_in, problems_of, show

    if expressions is not None:
        problems = problems_in(expressions, [*(words or []), *([task] if task else [])])
    else:
        words = words or ([] if sys.stdin.isatty() else ["-"])  # who types nothing at a terminal is told what to type
        if task is not None:
            find_task(task, within)
        problems = problems_of(words, task, sys.stdin)
    show(problems, Console(highlight=False), dialect=dialect, nested=nested, max_steps=max_steps, as_json=as_json)


@app.command()
def machines(
    declaration: Annotated[
        Text, typer.Argument(help="A .toml file with tables named machine. Default: those that come with caef-data.")
    ] = None,
    max_steps: Annotated[int, typer.Option("--max-steps", min=1, help="Longest run that is waited for.")] = 10_000_000,
    as_json: Json = False,
) -> None:
    """List Turing machines, and what each does on a blank tape or on its example."""
    from .pipelines.machines import list_machines

    list_machines(declaration, max_steps, as_json=as_json)


@app.command()
def verify(
    directory: options.Readable = "data",
    fraction: Annotated[float, option("Part of the rows to compute again: 0.1 for a tenth.", "--fraction")] = 1.0,
    workers: options.Workers = None,
    stream: options.Streamed = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check a dataset from scratch: files, every row, answers, duplicates, leaks. Exit 1 if anything is off."""
    from .eval import resolved
    from .pipelines.console import verify_with_progress
    from .pipelines.declaration import load_declaration

    streamed = None if stream is None else (resolved(load_declaration(directory)), stream)
    raise typer.Exit(0 if verify_with_progress(directory, fraction, workers, as_json, streamed) else 1)


@app.command()
def contamination(
    files: options.Files,
    against: Annotated[str, option("The dataset whose test and stress rows are looked for.", metavar="DIR")],
    clean: options.Clean = None,
    workers: options.Workers = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Look for a dataset's test and stress expressions in training data. Exit 1 if any is there."""
    from .pipelines.contamination import look_for

    raise typer.Exit(1 if look_for(files, against, clean, workers, as_json=as_json) else 0)


@app.command()
def info(directory: options.Readable = "data", as_json: Json = False) -> None:
    """Show what a dataset folder holds."""
    from .pipelines.console import print_info

    print_info(directory, as_json)


@app.command()
def push(
    directory: options.Directory = "data",
    repo: options.Repo = None,
    to: Annotated[Text, option("Not the Hub but s3://bucket/prefix, or a folder.", "--to", metavar="URL")] = None,
    private: Annotated[bool, option("Make the repository a private one.", "--private")] = False,
    dry_run: options.DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Push a dataset folder to the Hugging Face Hub, or to a store: checked before, and after."""
    from .pipelines.push import push_with_progress
    from .pipelines.push.dataset import PushSettings

    push_with_progress(PushSettings(directory, repo, to, private, dry_run), as_json=as_json)


@app.command()
def export(
    directory: options.Directory = "data",
    form: options.Form = "jsonl",
    stage: options.Stage = "second",
    config: options.Configs = None,
    split: options.Splits = None,
    tokenizer: options.WithEnds = None,
    out: Annotated[str, option("The folder to make.", "--out", "-o", metavar="DIR")] = "export",
    quiet: Quiet = False,
) -> None:
    """Export a dataset's rows as JSON files for other training tools."""
    from .pipelines.export import Style, export_with_progress

    style = Style(form, stage)
    if tokenizer is not None:
        from .eval.token_counts import around_rows

        style = Style(form, stage, tokenizer, *around_rows(tokenizer, directory, config or [], split or []))
    export_with_progress(directory, out, style, config or [], split or [])


@app.command()
def tokens(
    source: options.Counted = "data",
    tokenizer: options.Vocabulary = ...,  # type: ignore[assignment]
    config: options.Configs = None,
    split: options.Splits = None,
    stage: options.Stage = "second",
    rows: options.Sampled = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Count the tokens of rows under a real tokenizer: means, longest, rows that a trainer's limit would cut."""
    from .eval.token_counts import print_tokens

    print_tokens(source, tokenizer, config or [], split or [], stage=stage, rows=rows, as_json=as_json)


@app.command()
def adapters(
    task: options.Tasks = None,
    mode: Annotated[Names, several(f"{', '.join(options.MODES)}. Default: all.", *options.MODES)] = None,
) -> None:
    """List the adapters that an evaluation of a task needs, to know what to train."""
    from .eval.settings import needed_adapters

    for name in needed_adapters(task or [], mode or []):
        typer.echo(name)


@app.command()
def train(
    declaration: options.Trainable,
    out: options.AdaptersOut = None,
    dry_run: options.DryRun = False,
    quiet: Quiet = False,
) -> None:
    """Train executors and aligners as LoRA adapters on a declaration's rows; the same command goes on after a stop."""
    from .eval.training.console import train_with_progress

    train_with_progress(declaration, out, dry_run=dry_run)


@app.command("eval")
def evaluate(
    context: typer.Context,
    declaration: Annotated[
        Text, typer.Argument(metavar="[FILE.toml]", help="Its table eval holds options; options go before it.")
    ] = None,
    adapters: options.Adapters = None,
    model: Annotated[Text, option("Folder or Hub name of a whole model, asked in place of every adapter.")] = None,
    base_model: Annotated[Text, option("Folder or Hub name. Default: the one that the adapters name.")] = None,
    data: Annotated[Text, option("Dataset folder, raw files, or user/name. Default: data.", metavar="DIR")] = None,
    expressions: options.Expressions = None,
    task: Annotated[Names, several("Task. Default: all that have adapters.", known=options.known_tasks)] = None,
    mode: options.Modes = None,
    split: Annotated[Text, option("train, test or stress, one a run. Default: test; of --expressions all.")] = None,
    strategy: Annotated[Text, option("verify, generate or rollout. Default: verify.")] = None,
    template: options.Around = None,
    stage: Annotated[Text, option("first puts the instruction before each prompt. Default: second.")] = None,
    joined: options.Joined = None,
    near_ties: options.NearTies = None,
    batch_tokens: Annotated[Number, number("Most tokens of a batch. Default: as suits the device.")] = None,
    dtype: Annotated[Text, option("auto, float32, bfloat16 or float16. Default: auto.")] = None,
    device: Annotated[Text, option("auto, cpu, cuda, cuda:1 ... Default: auto.")] = None,
    backend: options.Backend = None,
    endpoint: Annotated[Text, option("The server of --backend openai.", metavar="URL")] = None,
    limit: Annotated[Number, number("Expressions of each task, the same in all modes and runs. Default: all.")] = None,
    baseline: options.Baseline = None,
    out: Annotated[
        Text, option("Folder of result tables. Default: results.", "--out", "-o", "--results", metavar="DIR")
    ] = None,
    name: options.RunName = None,
    json: Annotated[bool | None, option("Print the accuracies as JSON, for programs.", "--json")] = None,
    quiet: Quiet = False,
) -> None:
    """Evaluate adapters on a built dataset: --adapters ckpt/; writes result tables."""
    from .eval.console import evaluate_with_progress
    from .eval.settings import eval_settings

    given = {option: value for option, value in context.params.items() if option not in ("declaration", "quiet")}
    evaluate_with_progress(eval_settings(declaration, given))


@app.command()
def query(
    sql: Annotated[Text, typer.Argument(metavar="[SQL]", help="Statements. Default: standard input.")] = None,
    results: options.Results = "results",
    form: Annotated[str, option("table, csv, json or md.", "--format")] = "table",
    list_tables: Annotated[bool, option("List the tables and their columns.", "--tables")] = False,
) -> None:
    """Ask the result tables in SQL: "SELECT * FROM class_accuracy ORDER BY accuracy LIMIT 10"."""
    from .eval.query import print_tables, query

    if list_tables:
        print_tables(form)
    else:
        query(sql, results, form)


@app.command()
def report(
    runs: options.Runs = None,
    results: options.Results = "results",
    out: Annotated[str, option("The page to write.", "--out", "-o", metavar="FILE")] = "report.html",
) -> None:
    """Write the results as one HTML page: accuracy by class and length, comparison of runs, failures."""
    from .eval.report.page import report

    report(results, runs or [], out)


@app.command()
def compare(
    run_a: Annotated[str, typer.Argument(metavar="A", help="A run's name, its id, or how that begins.")],
    run_b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    results: options.Results = "results",
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


def main() -> None:
    """Run the command line; errors of the user's are printed without a traceback."""
    run_telling_errors(app)
