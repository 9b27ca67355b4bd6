"""What an evaluation is asked to do: options of the command line, or the table ``[eval]`` of a declaration."""

import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import InitVar, dataclass, fields
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from msgspec import Meta

from ..errors import UserError, did_you_mean, printable_path, quoted
from ..pipelines.declaration import load_declaration, read_toml
from ..pipelines.manifest import define_machines
from ..pipelines.settings import HEADER, SPLITS, check_field, check_keys, check_task
from ..pipelines.spelling import Spelling, literal
from ..pipelines.store import open_folder
from ..tm import machine
from ..tm import tasks as all_tasks
from .problems import MODES, RAW, SLIPS, needed
from .tables import RUN_ID
from .template import template_text

KEY = "OPENAI_API_KEY"  # the environment variable that holds a server's key
NAME = re.compile(r"\w[\w.+-]{0,59}")  # of a run: printed, typed after --run, and part of no path
Stage = Literal["first", "second"]
Strategy = Literal["verify", "generate", "rollout"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)
Text = Annotated[str, Meta(pattern="\\A[^\0]+\\Z", description="text")]
Count = Annotated[int, Meta(ge=1, le=2**63 - 1, description="a whole number, 1 or more")]
BatchTokens = Annotated[int, Meta(ge=16, le=2**63 - 1, description="a whole number, 16 or more")]
OPTIONS = Spelling(options={}, verb="eval")


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """Settings of an evaluation. Constructing them checks them.

    Raises:
        UserError: a value that these rules refuse.
    """

    adapters: Text | None = None
    """The checkpoint folder, or that of one adapter, or its name on the Hub; None for a model alone and the oracle."""
    model: Text | None = None
    """Folder or Hub name of a whole model, which is asked in place of every adapter."""
    base_model: Text | None = None
    """Folder or Hub name of the base model; None takes it from the adapters' configs."""
    data: Text = "data"
    """The built dataset folder, or published raw files, that problems come from; or a name on the Hub."""
    task: tuple[str, ...] = ()
    """Tasks; none for every task whose adapters are there."""
    mode: tuple[str, ...] = ()
    """Modes; none for every mode whose adapters and rows are there."""
    expressions: Text | None = None
    """A file of expressions that problems come from, in place of a dataset."""
    split: Literal["train", "test", "stress", "all"] = "test"
    """The split of the problems; all is for expressions of a file, and their default."""
    strategy: Strategy = "verify"
    """How answers are judged: verify, generate or rollout."""
    template: Text | None = None
    """The text around each prompt, or a file of it; ``chat`` for the tokenizer's template, None for the bare prompt."""
    stage: Stage = "second"
    """first: the machine's instruction stands before each prompt; second: the prompt alone."""
    joined: bool = False
    """Adapters were trained on prompt and completion tokenised as one text."""
    near_ties: Literal["alone", "count"] = "alone"
    """Rows that the shape of a batch could decide: alone decodes them one by one, count only counts them."""
    batch_tokens: BatchTokens | None = None
    """Tokens of a batch, padding included; None for what suits the device."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the weights: auto is bfloat16 on a GPU that has it, float32 otherwise."""
    device: Text = "auto"
    """Device: auto, cpu, cuda, cuda:1 ..."""
    backend: Literal["transformers", "openai", "oracle"] = "transformers"
    """What answers: transformers, openai or oracle."""
    endpoint: Text | None = None
    """URL of the server, for the openai backend."""
    limit: Count | None = None
    """Expressions a task, at most; the same ones in every mode and run."""
    baseline: bool = False
    """Evaluate the base model without adapters on raw questions."""
    out: Text = "results"
    """The results folder."""
    name: Text | None = None
    """What the run is called; the same run whatever its name."""
    json: bool = False
    """Print the accuracies as JSON; the same run, too."""
    spelling: InitVar[Spelling] = OPTIONS
    """How messages name the settings."""

    @property
    def base(self) -> str | None:
        """Folder or Hub name of the model that was named; None where the adapters' configs name it."""
        return self.model or self.base_model

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of the problems."""
        return SPLITS if self.split == "all" else (self.split,)

    @property
    def alone(self) -> bool:
        """Whether a whole model is asked in place of every adapter."""
        return self.adapters is None and not self.baseline and self.backend != "oracle"

    @property
    def command(self) -> str:
        """The command line that makes the same run; that of 0 options is ``caef-data eval``."""
        words = ["caef-data", "eval"]
        for field in fields(self):
            value, option = getattr(self, field.name), "--" + field.name.replace("_", "-")
            if value not in (field.default, ()) and field.name != "json":
                text = ",".join(value) if isinstance(value, tuple) else str(value)
                words += [option] if value is True else [option, text]
        return shlex.join(words)

    def __post_init__(self, spelling: Spelling) -> None:
        if self.task and isinstance(self.data, str):  # a machine of the dataset is a task
            with suppress(UserError, OSError, ValueError):  # told where the dataset is opened
                define_machines(open_folder(self.data).manifest(), self.data)
        if RAW in (self.mode if isinstance(self.mode, list | tuple) else [self.mode]):
            what = f"{spelling.name('mode')} is {RAW}; --baseline asks the raw question"
            raise spelling.refusal(what, "mode", allowed=", ".join((*MODES, SLIPS)))
        object.__setattr__(self, "task", check_words("task", self.task, all_tasks(), spelling))
        object.__setattr__(self, "mode", check_words("mode", self.mode, (*MODES, SLIPS), spelling))
        known = SPLITS if self.expressions is None else (*SPLITS, "all")
        if self.split not in (*SPLITS, "all"):
            what = f"{spelling.name('split')} is {literal(self.split)}{did_you_mean(str(self.split)[:60], known)}"
            raise spelling.refusal(what, "split", allowed=f"{', '.join(known)}; one a run")
        for field in fields(self):
            if field.name not in ("task", "mode", "split"):
                check_field(EvalSettings, field.name, getattr(self, field.name), spelling)
        self._check_together(spelling)

    def _check_together(self, spelling: Spelling) -> None:
        if self.name is not None and (not NAME.fullmatch(self.name) or RUN_ID.fullmatch(self.name)):
            allowed = "up to 60 letters, digits and . _ - +, the first one no sign; no run's id"
            raise spelling.refusal(f"{spelling.name('name')} is {literal(self.name)}", "name", allowed=allowed)
        if self.model is not None and (self.adapters is not None or self.base_model is not None):
            raise UserError(
                "--model is asked in place of every adapter: it goes with neither --adapters nor --base-model",
                next_step="leave out --model, or the others",
            )
        if self.expressions is None and self.split == "all":
            what = f"{spelling.setting('split', 'all')} is for expressions of a file"
            raise spelling.refusal(what, "split", allowed=f"{', '.join(SPLITS)}; one a run")
        if self.expressions is not None and self.data != "data":
            what = "--expressions are asked in place of a dataset's rows: --data goes without"
            raise UserError(what, next_step="leave out one of them")
        if self.baseline and self.base is None and self.adapters is None and self.backend != "oracle":
            raise UserError("the baseline needs a base model", where="--base-model", allowed="a folder or a Hub name")
        if self.alone and self.base is None:
            raise UserError(
                "there are no adapters to evaluate",
                where="--adapters",
                allowed="a folder with executors/<task>/ and aligners/<task>/",
                next_step="caef-data eval --adapters ckpt/ (or --model MODEL for a whole model, or --backend oracle)",
            )
        if self.baseline and self.mode:
            raise UserError(
                "a baseline is asked raw questions: it has no mode",
                where="--mode",
                next_step="leave out --mode, or --baseline",
            )
        if self.baseline and self.stage == "first":
            raise UserError(
                "a baseline is asked raw questions alone: an instruction goes before the prompts of adapters",
                where="--stage",
                next_step="leave out --stage, or --baseline",
            )
        if (self.backend == "openai") != (self.endpoint is not None):
            raise UserError(
                "--endpoint and --backend openai belong together",
                allowed="--backend openai --endpoint http://localhost:8000",
            )
        if self.endpoint is not None:
            base_url(self.endpoint)
        if self.template is not None:
            text = template_text(self.template, spelling.where("template") or "--template")
            object.__setattr__(self, "template", text)  # a file may change: the text is kept


def base_url(endpoint: str) -> str:
    """Return the address that the protocol's paths are appended to: it ends in ``/v1``.

    Raises:
        UserError: this is no address of a server.
    """
    if "@" in endpoint:
        raise UserError(
            "the address holds a name or password, which tables and messages would show",
            where="--endpoint",
            next_step=f"put the key into the environment variable {KEY}",
        )
    try:
        parts = urlsplit(endpoint)
        host = parts.hostname and parts.port != 0  # looking at the port checks it
        valid = host and parts.scheme in ("http", "https") and not parts.query + parts.fragment
    except ValueError:
        valid = False
    if not valid:
        raise UserError(
            f"{quoted(endpoint)} is no address of a server",
            where="--endpoint",
            allowed="http://localhost:8000, or https://host/v1",
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/v1')}/v1"


def check_words(
    key: str, given: Any, known: Sequence[str], spelling: Spelling, allowed: str | None = None
) -> tuple[str, ...]:
    """Return the words of a setting, each once and in one order: the same work is the same run.

    Args:
        key: the setting; the long names of ``task`` become short, ``all`` of them is none.
        given: a word or several, of any type.
        known: the words that may be given, in their order.
        spelling: how messages name the setting.
        allowed: what messages say is allowed, where that is not the words that are known.

    Raises:
        UserError: it is none, or holds another word.
    """
    words, name = [given] if isinstance(given, str) else given, spelling.name(key)
    if not isinstance(words, list | tuple):
        raise spelling.refusal(f"{name} is {literal(given)}", key, allowed="text, or a list of texts")
    if key == "task":
        words = [word if word == "all" else check_task(word, spelling) for word in words]
        # Looked up now: a shipped machine is a task from the moment on at which it is named.
        return () if "all" in words else tuple(task for task in all_tasks() if task in words)
    for word in words:
        if word not in known:
            what = f"{name} is {literal(word)}{did_you_mean(str(word)[:60], known)}"
            raise spelling.refusal(what, key, allowed=allowed or ", ".join(known))
    return tuple(word for word in known if word in words)


def needed_adapters(task: Sequence[str], mode: Sequence[str]) -> list[str]:
    """Return the names of the adapters, such as ``executors/add``, that tasks need in these modes; none is all.

    Raises:
        UserError: there is no such task or mode, or none of these tasks has one of these modes.
    """
    spelling = Spelling(options={"task": task, "mode": mode}, verb="adapters")
    tasks = check_words("task", task, (), spelling) or all_tasks()
    modes, every = check_words("mode", mode, (*MODES, SLIPS), spelling) or MODES, ("one_step", "executor", SLIPS)
    pairs = [(one, each) for one in tasks for each in modes]
    pairs = [pair for pair in pairs if pair[1] in every or "aligner" not in machine(pair[0]).missing_views()]
    if not pairs:
        what = f"{', '.join(tasks)}: no raw text, so no mode {' or '.join(modes)}"
        raise UserError(what, allowed=", ".join(every))
    return sorted({name for pair in pairs for name in needed(*pair)})


def eval_settings(declaration: str | None, given: Mapping[str, Any]) -> EvalSettings:
    """Return the settings that a declaration's table ``[eval]`` holds, changed by the options that were given.

    Args:
        declaration: path of a ``.toml`` file, or None.
        given: options by name; None where an option was not given.

    Raises:
        UserError: no such declaration, no ``[eval]`` in it, an unknown key, or a value that is refused.
    """
    held = {} if declaration is None else _table(declaration)
    file = None if declaration is None else printable_path(declaration)
    known = [field.name for field in fields(EvalSettings)]
    check_keys(given, known, Spelling(verb="eval"))
    if given.get("baseline") and not given.get("mode"):  # a declaration's modes and stage are about its adapters
        held = {key: value for key, value in held.items() if key not in ("mode", "stage")}
    given = {name: value for name, value in given.items() if value not in (None, [], ())}
    spelling = Spelling(options=given, file=file, verb="eval")
    check_keys(held, known, Spelling(file=file, verb="eval"))
    if given.get("expressions", held.get("expressions")) is not None:
        held = {"split": "all", **held}
    return EvalSettings(**{**held, **given}, spelling=spelling)


def _table(declaration: str) -> dict[str, Any]:
    """Return the table ``[eval]`` of a declaration, whatever it holds."""
    values = read_toml(declaration) if declaration.endswith(".toml") else {"task": ()}  # shipped ones are for building
    if {*values} - {*HEADER, "eval"}:
        load_declaration(declaration)  # what it says of a dataset must make sense too
    table = values.get("eval")
    if not isinstance(table, dict) or not table:
        raise UserError(
            "the declaration has no table [eval]",
            where=quoted(declaration),
            next_step='add one, with lines such as adapters = "ckpt" and data = "data", or use options',
        )
    return table
