"""What an evaluation is asked to do: options of the command line, or the table ``[eval]`` of a declaration."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

from ..errors import UserError, did_you_mean, is_whole, printable_path, quoted
from ..pipelines.declaration import load_declaration, read_toml
from ..pipelines.manifest import define_machines
from ..pipelines.settings import HEADER, check_task
from ..pipelines.spelling import Spelling
from ..pipelines.store import open_folder
from ..tm import tasks as all_tasks
from .backends.endpoint import base_url
from .problems import MODES, RAW, SLIPS
from .tables import RUN_ID
from .template import template_text

STRATEGIES = ("verify", "generate", "rollout")
BACKENDS = ("transformers", "openai", "oracle")
DTYPES = ("auto", "float32", "bfloat16", "float16")
NAME = re.compile(r"\w[\w.+-]{0,59}")  # of a run: printed, typed after --run, and part of no path
CHOICES: dict[str, tuple[str, ...]] = {
    "mode": (*MODES, SLIPS),
    "split": ("train", "test", "stress", "all"),
    "strategy": STRATEGIES,
    "backend": BACKENDS,
    "dtype": DTYPES,
    "stage": ("first", "second"),
    "near_ties": ("alone", "count"),
}
PUBLIC = {"json": "as_json"}  # the option's name, where the field has another
LEAST = {"batch_tokens": 16, "limit": 1}


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """Settings of an evaluation. Constructing them checks them.

    Raises:
        UserError: a value that these rules refuse.
    """

    adapters: str | None = None
    """The checkpoint folder, or that of one adapter, or its name on the Hub; None for a model alone and the oracle."""
    model: str | None = None
    """Folder or Hub name of a whole model, which is asked in place of every adapter."""
    base_model: str | None = None
    """Folder or Hub name of the base model; None takes it from the adapters' configs."""
    data: str = "data"
    """The built dataset folder, or published raw files, that problems come from; or a name on the Hub."""
    task: tuple[str, ...] = ()
    """Tasks; none for every task whose adapters are there."""
    mode: tuple[str, ...] = ()
    """Modes; none for every mode whose adapters and rows are there."""
    expressions: str | None = None
    """A file of expressions that problems come from, in place of a dataset."""
    split: str = "test"
    """The split of the problems; all is for expressions of a file, and their default."""
    strategy: str = "verify"
    """How answers are judged: verify, generate or rollout."""
    template: str | None = None
    """The text around each prompt, or a file of it; ``chat`` for the tokenizer's template, None for the bare prompt."""
    stage: str = "second"
    """first: the machine's instruction stands before each prompt; second: the prompt alone."""
    joined: bool = False
    """Adapters were trained on prompt and completion tokenised as one text."""
    near_ties: str = "alone"
    """Rows that the shape of a batch could decide: alone decodes them one by one, count only counts them."""
    batch_tokens: int | None = None
    """Tokens of a batch, padding included; None for what suits the device."""
    dtype: str = "auto"
    """Of the weights: auto is bfloat16 on a GPU that has it, float32 otherwise."""
    device: str = "auto"
    """Device: auto, cpu, cuda, cuda:1 ..."""
    backend: str = "transformers"
    """What answers: transformers, openai or oracle."""
    endpoint: str | None = None
    """URL of the server, for the openai backend."""
    limit: int | None = None
    """Expressions a task, at most; the same ones in every mode and run."""
    baseline: bool = False
    """Evaluate the base model without adapters on raw questions."""
    out: str = "results"
    """The results folder."""
    name: str | None = None
    """What the run is called; the same run whatever its name."""
    as_json: bool = False
    """Print the accuracies as JSON; the same run, too."""

    @property
    def base(self) -> str | None:
        """Folder or Hub name of the model that was named; None where the adapters' configs name it."""
        return self.model or self.base_model

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of the problems."""
        return ("train", "test", "stress") if self.split == "all" else (self.split,)

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
            if value not in (field.default, ()) and field.name != "as_json":
                text = ",".join(value) if isinstance(value, tuple) else str(value)
                words += [option] if value is True else [option, text]
        return shlex.join(words)

    def __post_init__(self) -> None:
        if self.task and isinstance(self.data, str):  # a machine of the dataset is a task
            with suppress(UserError, OSError, ValueError):  # told where the dataset is opened
                define_machines(open_folder(self.data).manifest(), self.data)
        for name, order in (("task", tuple(all_tasks())), ("mode", CHOICES["mode"])):
            given = getattr(self, name)
            given = (given,) if isinstance(given, str) else given or ()
            if not isinstance(given, list | tuple):
                raise _refuse(name, given, "text, or a list of texts")
            if name == "task":
                spelling = Spelling(options={"task": list(given)})
                given = [one if one == "all" else check_task(one, spelling, "eval") for one in given]
            for word in given if name == "mode" else ():
                _check_word(name, word, order)
            # Each once, in one order: the same work is the same run.
            chosen = () if "all" in given else tuple(word for word in order if word in given)
            object.__setattr__(self, name, chosen)
        for field in fields(self):
            if field.name not in ("task", "mode"):
                _check_value(field.name, getattr(self, field.name), field.default)
        self._check_together()

    def _check_together(self) -> None:
        if self.name is not None and (not NAME.fullmatch(self.name) or RUN_ID.fullmatch(self.name)):
            raise _refuse("name", self.name, "up to 60 letters, digits and . _ - +, the first one no sign; no run's id")
        if self.model is not None and (self.adapters is not None or self.base_model is not None):
            raise UserError(
                "--model is asked in place of every adapter: it goes with neither --adapters nor --base-model",
                next_step="leave out --model, or the others",
            )
        if self.expressions is None and self.split == "all":
            raise UserError("--split is 'all', for expressions of a file", allowed=", ".join(CHOICES["split"][:3]))
        if self.expressions is not None and self.data != "data":
            what = "--expressions are asked in place of a dataset's rows: --data goes without"
            raise UserError(what, next_step="leave out one of them")
        if self.baseline and self.base is None and self.adapters is None:
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
            object.__setattr__(self, "template", template_text(self.template))  # a file may change: the text is kept


def _check_value(name: str, value: object, default: object) -> None:
    if name in CHOICES:
        _check_word(name, value, CHOICES[name])
    elif isinstance(default, bool):
        if not isinstance(value, bool):
            raise _refuse(name, value, "true or false")
    elif value is None and default is None:
        return
    elif name in LEAST:
        if type(value) is not int or not is_whole(value, LEAST[name]):
            raise _refuse(name, value, f"a whole number, {LEAST[name]} or more")
    elif not isinstance(value, str) or not value or "\0" in value:
        raise _refuse(name, value, "text")


def _check_word(name: str, word: object, choices: tuple[str, ...]) -> None:
    if word not in choices:
        raw = "; --baseline asks the raw question" if (name, word) == ("mode", RAW) else ""
        raise _refuse(name, word, ", ".join(choices), did_you_mean(str(word)[:60], choices) if not raw else raw)


def _refuse(name: str, value: object, allowed: str, hint: str = "") -> UserError:
    option = "--" + name.replace("_", "-")
    return UserError(f"{option} is {quoted(value)}{hint}", allowed=allowed, next_step="caef-data eval --help")


def eval_settings(declaration: str | None, given: Mapping[str, Any]) -> EvalSettings:
    """Return the settings that a declaration's table ``[eval]`` holds, changed by the options that were given.

    Args:
        declaration: path of a ``.toml`` file, or None.
        given: options by name; None where an option was not given.

    Raises:
        UserError: no such declaration, no ``[eval]`` in it, an unknown key, or a value that is refused.
    """
    held: dict[str, Any] = {}
    if declaration is not None:
        values = read_toml(declaration) if declaration.endswith(".toml") else {"task": ()}
        if {*values} - {*HEADER, "eval"}:
            load_declaration(declaration)  # what it says of a dataset must make sense too
        if not declaration.endswith(".toml"):
            raise UserError(
                f"the declaration {quoted(declaration)} is shipped for building, it holds no evaluation",
                allowed="a .toml file with a table [eval]",
                next_step="caef-data eval --adapters ckpt/ --data DIR",
            )
        table: Any = values.get("eval")
        held = {PUBLIC.get(key, str(key)): value for key, value in table.items()} if isinstance(table, dict) else {}
        if not held:
            raise UserError(
                "the declaration has no table [eval]",
                where=quoted(declaration),
                next_step='add one, with lines such as adapters = "ckpt" and data = "data", or use options',
            )
    names = [*(field.name for field in fields(EvalSettings)), *PUBLIC]
    for key in (*held, *given):
        if key not in names:
            raise UserError(
                f"unknown setting {quoted(key)}{' in [eval]' if key in held else ''}{did_you_mean(key[:60], names)}",
                where=quoted(declaration) if key in held else None,
                allowed=", ".join(name for name in names if name not in PUBLIC.values()),
                next_step="caef-data eval --help",
            )
    if given.get("baseline") and not given.get("mode"):
        held.pop("mode", None)  # a declaration's modes and stage are about its adapters
        held.pop("stage", None)
    given = {name: value for name, value in given.items() if value not in (None, [], ())}
    if given.get("expressions", held.get("expressions")) is not None:
        held = {"split": "all", **held}
    try:
        return EvalSettings(**{**held, **given})
    except UserError as error:
        for key in held.keys() - given.keys():  # which was not typed as an option
            name = "--" + key.replace("_", "-")
            if error.what.startswith(f"{name} is "):
                what, where = error.what.replace(name, key, 1), f"{printable_path(str(declaration))}, table [eval]"
                raise UserError(what, where=where, allowed=error.allowed, next_step="mend it there") from None
        raise
