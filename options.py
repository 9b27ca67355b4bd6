"""Options that several commands share, and those that spell out a declaration."""

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from .errors import UserError, quoted

if TYPE_CHECKING:
    from .pipelines.settings import Declaration

VIEWS = ("one_step", "full", "aligner", "raw", "scratchpad", "commands", "slips")
SPLITS = ("train", "test", "stress")
USAGE: Any = typer.BadParameter.__mro__[1]  # any error of usage: the class has no public name in typer
MODES = ("one_step", "executor", "aligner_in", "aligner_out", "process", "slips")


def _integer(text: str) -> int:
    """Read an option's number; ``int`` alone takes digits of every script, blanks and underscores."""
    if not text.isascii() or not text.removeprefix("-").isdigit() or len(text) > 20:
        raise typer.BadParameter(f"{quoted(text)} is not a whole number in digits 0-9")
    return int(text)


def _at_commas(values: list[str] | None) -> list[str] | None:
    """Return the names in the values of an option that repeats: ``--task add,sub`` is ``--task add --task sub``."""
    return values and [name.strip() for value in values for name in value.split(",")]


@contextmanager
def _told_alike() -> Iterator[None]:
    try:
        yield
    except USAGE as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            raise
        name = " ".join(["caef-data", *(error.ctx.command_path.split()[1:] if error.ctx else ())])
        told = error.format_message().strip().removesuffix(".")
        raise UserError(told[:1].lower() + told[1:], where=name, next_step=f"{name} --help") from None


class Commands(TyperGroup):
    """The commands: what is wrong with their options is told as every other error is."""

    make_context = _told_alike()(TyperGroup.make_context)
    invoke = _told_alike()(TyperGroup.invoke)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command and its words; an option of one value is given once, or one would be lost."""
        name, command, words = super().resolve_command(ctx, args)
        if command is not None and not ctx.resilient_parsing:  # as it is while a shell completes
            context = command.context_class(command, info_name=name, parent=ctx, **command.context_settings)
            given: list[Any] = command.make_parser(context).parse_args(list(words))[2]
            for one, times in Counter(given).items():
                if times > 1 and one.param_type_name == "option" and not (one.multiple or one.is_flag):
                    what, where = f"{' or '.join(one.opts)} is given {times} times", f"caef-data {name}"
                    allowed = f"it once; {getattr(one, 'help', '')}"
                    raise UserError(what, where=where, allowed=allowed, next_step=f"{where} --help")
        return name, command, words


def known_tasks() -> list[str]:
    """Return what ``--task`` takes."""
    from .tm import tasks

    return [*tasks(), "all"]


def several(help: str, *names: str, known: Callable[[], list[str]] | None = None) -> Any:
    """Return an option that takes several names; a shell completes them, also behind a comma."""

    def complete(incomplete: str) -> Iterator[str]:
        before, comma, begun = incomplete.rpartition(",")
        words = known() if known else names
        return (f"{before}{comma}{word}" for word in words if word.startswith(begun))

    return typer.Option(help=f"{help} Several: a,b, or repeat.", callback=_at_commas, autocompletion=complete)


def _quiet(wanted: bool) -> None:
    from .pipelines.terminal import set_quiet

    set_quiet(wanted)


def option(help: str, *names: str, metavar: str | None = None) -> Any:
    """Return an option, of its parameter's name if it is given no other."""
    return typer.Option(*names, help=help, metavar=metavar)


def number(help: str) -> Any:
    """Return an option that takes a whole number."""
    return typer.Option(parser=_integer, metavar="N", help=help)


Text = str | None
Number = int | None
Names = list[str] | None
Json = Annotated[bool, option("Print JSON, for programs.", "--json")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", callback=_quiet, help="Print results and errors, no progress and no notes.")
]
Directory = Annotated[str, typer.Argument(metavar="[DIR]", help="A dataset folder.")]
Readable = Annotated[
    str,
    typer.Argument(
        metavar="[DIR]", help="A dataset folder, s3://bucket/prefix, or hf://datasets/user/name, @revision behind it."
    ),
]
Workers = Annotated[Number, typer.Option("--workers", min=1, help="Processes. Default: all processors.")]
Streamed = Annotated[
    Number, typer.Option("--stream", min=1, metavar="N", help="Check N rows of each stream of a declaration, DIR here.")
]
Engine = Annotated[
    str,
    option("local, or ray: on the nodes of the Ray cluster that RAY_ADDRESS names, or of this machine's.", "--engine"),
]
Tasks = Annotated[Names, several("Task; all for every one.", known=known_tasks)]
Configs = Annotated[Names, several("Part of the dataset, such as sub-one_step. Default: all.")]
Splits = Annotated[Names, several("train, test or stress. Default: all.", *SPLITS)]
Modes = Annotated[Names, several(f"{', '.join(MODES)}. Default: all but slips that adapters and rows allow.", *MODES)]
Stage = Annotated[str, option("first puts the instruction before each prompt; second leaves it out.")]
Results = Annotated[str, option("The folder of result tables.", "--results", metavar="DIR")]
Adapters = Annotated[
    Text,
    option(
        "Folder with executors/<task>/ and aligners/<task>/, or of one adapter; or user/name on the Hub.", metavar="DIR"
    ),
]
Around = Annotated[
    Text,
    option(
        "What training put around prompts: chat, a text with {prompt}, or a file of it. Default: nothing.",
        metavar="TEXT|FILE",
    ),
]
NearTies = Annotated[
    Text, option("Where rounding could decide a token: alone decodes the row by itself, count does not.")
]
Backend = Annotated[Text, option("transformers (default); openai: a vLLM server; oracle: the machines themselves.")]
Expressions = Annotated[
    Text, option("Those of a file: lines such as 12+9=; or CSV or Parquet, column expression.", metavar="FILE")
]
Within = Annotated[
    Text, option("Declaration or dataset folder that describes a Turing machine.", "--in", metavar="FILE|DIR")
]
Joined = Annotated[bool | None, option("The adapters were trained on prompt and completion as one text.", "--joined")]
Baseline = Annotated[bool | None, option("Ask the base model alone: raw question, raw answer.", "--baseline")]
RunName = Annotated[
    Text, option("A name for the run, for report and compare; one that was evaluated before is renamed.")
]
Words = Annotated[
    Names,
    typer.Argument(
        metavar="EXPRESSION...", help='Such as "47819-12345="; operands with --task; - for lines of standard input.'
    ),
]
Files = Annotated[list[str], typer.Argument(metavar="FILE...", help="Texts, Parquet tables, or folders of them.")]
Clean = Annotated[
    Text,
    option("Write a copy without the lines, or rows, that hold one; a folder, for several FILEs.", metavar="OUT"),
]


Trainable = Annotated[str, typer.Argument(metavar="FILE.toml", help="A declaration with a table train.")]
AdaptersOut = Annotated[Text, option("Folder of the adapters. Default: ckpt.", "--out", "-o", metavar="DIR")]
DryRun = Annotated[bool, option("Show what would be done; change nothing.", "--dry-run")]
Form = Annotated[
    str,
    option(
        "jsonl (prompt, completion), alpaca (instruction, input, output: LLaMA-Factory) or chat (messages).",
        "--format",
    ),
]
WithEnds = Annotated[
    Text,
    option("Write the tokens that begin and end a text of this model into the rows (alpaca).", metavar="MODEL"),
]
Counted = Annotated[
    str,
    typer.Argument(metavar="[DIR|DECLARATION]", help="A dataset folder; or paper, smoke, stress, a .toml file."),
]
Vocabulary = Annotated[str, option("Folder or Hub name of a model or tokenizer.", "--tokenizer", metavar="MODEL")]
Sampled = Annotated[
    Number,
    typer.Option("--rows", min=1, help="Rows of each split to count. Default: all; 1,000 of a declaration's."),
]
Overwrite = Annotated[bool, option("Build tasks again that the folder holds with other settings.", "--overwrite")]
Runs = Annotated[
    Names,
    option("A run's name, its id, or how that begins; repeats. Default: all.", "--run", metavar="RUN"),
]
Repo = Annotated[Text, option("Dataset repository on the Hub; made if missing.", "--repo", metavar="USER/NAME")]


def _declared(
    declaration: Annotated[
        Text, typer.Argument(help="A declaration: paper, smoke, stress, or a path to a .toml file.")
    ] = None,
    task: Tasks = None,
    min: Annotated[Number, number("Smallest length of operands, in digits. Default: 1.")] = None,
    max: Annotated[Number, number("Largest length of operands, in digits. Default: 100.")] = None,
    num: Annotated[
        Number,
        number("Train expressions of each class (each pair of operand lengths), before balancing. Default: 20."),
    ] = None,
    num_test: Annotated[Number, number("Test expressions of each class. Default: a tenth of --num, or 1.")] = None,
    expressions: Expressions = None,
    allow_test: Annotated[
        bool | None, option("Train on expressions of the file that belong to test, too.", "--allow-test")
    ] = None,
    split: Annotated[Names, several("train, test or stress. Default: train and test.", *SPLITS)] = None,
    view: Annotated[Names, several(f"What a row is: {', '.join(VIEWS)}. Default: as suits the split.", *VIEWS)] = None,
    rows: Annotated[Number, number("Train rows of all tasks and views together, within 1%, in place of --num.")] = None,
    tokens: Annotated[Number, number("The same in tokens of prompt, completion and end token.")] = None,
    tokenizer: Annotated[
        Text, option("Folder or Hub name of what counts --tokens, and what rows cost, for plan and card.")
    ] = None,
    seed: Annotated[Number, number("Seed of the sampling. Default: 42.")] = None,
    dialect: Annotated[Text, option("consistent, or published: the published text, mistakes included.")] = None,
    steps: Annotated[Text, option("Steps of a run that become one_step rows: sampled (default) or all.")] = None,
    balance: Annotated[
        bool | None,
        option(
            "Give some classes more or less than --num, as README's table says. Default: balance.",
            "--balance/--no-balance",
        ),
    ] = None,
    max_steps: Annotated[
        Number, number("Longest run, in steps, that a full, scratchpad or commands row holds. Default: 10000.")
    ] = None,
    rows_per_shard: Annotated[Number, number("Most rows of a file. Default: what about 100 MB of text hold.")] = None,
) -> "Declaration":
    """Return the declaration that a command line names or spells out."""
    given = {name: value for name, value in locals().items() if name != "declaration"}
    from .pipelines.declaration import from_flags, load_declaration

    if declaration is None:
        settings = {
            {"split": "splits", "view": "views"}.get(name, name): given[name] for name in given if name != "task"
        }
        return from_flags(task or [], **settings)
    for name, value in given.items():
        if value not in (None, []) and name != "tokenizer":
            raise UserError(
                f"the declaration {quoted(declaration)} cannot be combined with --{name.replace('_', '-')}",
                allowed="either a declaration or options",
                next_step=f"for several tasks: --task {','.join([*task, declaration])}"
                if task
                else "caef-data build -h",
            )
    return load_declaration(declaration, tokenizer)


def of_declaration(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the arguments and options of ``_declared`` in place of its first parameter."""
    shared = inspect.signature(_declared).parameters
    own = list(inspect.signature(command).parameters.values())[1:]

    @functools.wraps(command)
    def whole(**given: Any) -> None:
        command(_declared(**{name: given.pop(name) for name in shared}), **given)

    parameters = [*shared.values(), *own]
    whole.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    whole.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return whole
