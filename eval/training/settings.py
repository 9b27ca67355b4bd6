"""What a training is asked to do: the table ``[train]`` of a declaration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ...errors import UserError, did_you_mean, is_whole, printable_path, quoted
from ...pipelines.declaration import load_declaration, read_toml
from ...pipelines.settings import Declaration, check_task
from ...pipelines.spelling import PLAIN
from ...tm import machine, tasks
from ..checkpoint import KINDS
from ..settings import DTYPES
from ..template import template_text

STAGES = ("first", "second")
VIEWS = {"executors": "one_step", "aligners": "aligner"}  # what each kind of adapter learns
LENGTHS = ("steps", "epochs", "tokens")  # how much is trained: one of these
WORDS = {"which": "executors, aligners, all, or names such as executors/add", "stages": "first, second, all"}
DEVICES = ("auto", "cpu", "cuda")
COUNTS = {"steps": 1, "tokens": 1, "rank": 1, "batch_tokens": 16, "device_tokens": 16, "save_every": 1, "seed": 0}
COUNTS |= {"eval_every": 1, "eval_limit": 1, "patience": 1}
METHODS = ("each", "one", "full")
CHOICES = {"method": METHODS, "dtype": DTYPES[:3], "device": DEVICES}  # float16 has too small a range for training
RATES = ("learning_rate", "epochs")
# What may change between a stop and the command that goes on.
FREE = ("out", "save_every", "data", "results", "device_tokens")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of a training. Constructing them checks them.

    Raises:
        UserError: a value that these rules refuse.
    """

    base_model: str
    """Folder or Hub name of the base model."""
    task: tuple[str, ...] = ()
    """Tasks; none for every task of the declaration."""
    which: tuple[str, ...] = ("executors", "aligners")
    """What learns: executors, aligners, or names such as executors/add; a task without a raw text has no aligner."""
    method: str = "each"
    """each: a LoRA adapter for each task's executor and aligner; one: one adapter for all; full: all weights."""
    stages: tuple[str, ...] = ("first", "second")
    """first: the instruction stands before each prompt; second: the prompt alone, as evaluation asks."""
    steps: int | None = None
    """Steps of the optimiser, of each stage."""
    epochs: float | None = None
    """The same in epochs: an epoch has as many rows as a build."""
    tokens: int | None = None
    """The same in tokens of rows, about."""
    rank: int = 16
    """Of the LoRA matrices, which all linear layers get; their scale is 2."""
    learning_rate: float = 2e-4
    """The highest: it rises over the first twentieth of the steps, then falls along a cosine to 0."""
    batch_tokens: int = 8192
    """Tokens of rows that a step reads, about, on all devices together."""
    device_tokens: int = 16384
    """Tokens that a device reads at once, about: a batch of more goes in parts."""
    dtype: str = "auto"
    """Of the base model's weights: auto is bfloat16 on a GPU that has it, float32 otherwise. What learns is float32."""
    device: str = "auto"
    """auto, cpu or cuda: the first GPU that CUDA_VISIBLE_DEVICES shows."""
    template: str | None = None
    """The text around each prompt, or a file of it; ``chat`` for the tokenizer's template, None for the bare prompt."""
    save_every: int = 100
    """Steps between states, from which a stopped training goes on."""
    eval_every: int | None = None
    """Steps between evaluations on held-out rows; None for none."""
    eval_limit: int = 100
    """Expressions that each of them asks about."""
    patience: int | None = None
    """Training stops when the best one is so many evaluations ago; None for never."""
    data: str = "data"
    """The dataset whose test split holds these rows."""
    results: str = "results"
    """The folder of the result tables, a run for each evaluation."""
    seed: int = 42
    """Of the adapters' first weights, and of the rows."""
    out: str = "ckpt"
    """The folder that ``caef-data eval --adapters`` reads."""

    def __post_init__(self) -> None:
        for name in ("task", "which", "stages"):
            object.__setattr__(self, name, self._words(name))
        for field in fields(self):
            _check_value(field.name, getattr(self, field.name), optional=field.default is None)
        given = [name for name in LENGTHS if getattr(self, name) is not None]
        if len(given) > 1:
            what = f"{' and '.join(given)} both say how much is trained"
            raise UserError(what, allowed=f"one of {', '.join(LENGTHS)}", next_step="take one of them out")
        if not given:
            object.__setattr__(self, "epochs", 1.0)
        if self.patience is not None and self.eval_every is None:
            raise UserError("patience counts evaluations, and there are none", allowed="eval_every beside it")
        if self.template is not None:
            object.__setattr__(self, "template", template_text(self.template, "table [train]"))

    def _words(self, name: str) -> tuple[str, ...]:
        """Return the words of a setting, each once, in one order: the same work is the same training."""
        given = getattr(self, name)
        given = [given] if isinstance(given, str) else given
        if not isinstance(given, list | tuple) or not (given or name == "task"):
            raise _refuse(name, given, "text, or a list of texts")
        if name == "task":
            named = [one if one == "all" else check_task(one, PLAIN) for one in given]
            return () if "all" in named else tuple(dict.fromkeys(named))
        known = STAGES if name == "stages" else (*KINDS, *(f"{kind}/{task}" for task in tasks() for kind in KINDS))
        for word in given:
            if word not in (*known, "all"):
                raise _refuse(name, word, WORDS[name], did_you_mean(str(word)[:60], known))
        if name == "which" and "all" in given:
            return tuple(KINDS)
        return tuple(word for word in known if word in given or "all" in given)

    def identifying(self) -> dict[str, Any]:
        """Return the settings that decide what is learnt."""
        return {name: value for name, value in asdict(self).items() if name not in FREE}

    def learns(self, kind: str, task: str) -> bool:
        """Tell whether the executor or aligner of a task is asked for."""
        return kind in self.which or f"{kind}/{task}" in self.which

    def adapters(self, declaration: Declaration) -> list[tuple[str, str]]:
        """Return the kind and task of each adapter, or of each part of what one model learns, in the order of training.

        Raises:
            UserError: a task is not one of the declaration's, or nothing is left to train.
        """
        held = [own.task for own in declaration.tasks]
        for task in self.task:
            if task not in held:
                what = f"task is {quoted(task)}, which this declaration has no rows of"
                raise UserError(what, where=f"{_file(declaration)}, table [train]", allowed=", ".join(held))
        chosen = [task for task in held if task in self.task or not self.task]
        for name in self.which:
            if name not in KINDS and name.partition("/")[2] not in chosen:
                what = f"which names {name}, a task that is not trained here"
                raise UserError(what, where=f"{_file(declaration)}, table [train]", allowed=", ".join(chosen))
        pairs = [(kind, task) for task in chosen for kind in KINDS if self.learns(kind, task)]
        found = [(kind, task) for kind, task in pairs if VIEWS[kind] not in machine(task).missing_views()]
        if not found:
            raise UserError(
                f"{', '.join(chosen)}: nothing to train, there are no {' or '.join(self.which)} of these tasks",
                where=f"{_file(declaration)}, table [train]",
                next_step="name other tasks, or another which",
            )
        return found


def _file(declaration: Declaration) -> str:
    return printable_path(declaration.source or declaration.name)


def _check_value(name: str, value: object, *, optional: bool) -> None:
    if name in ("task", *WORDS) or (value is None and optional):
        return
    if name in CHOICES:
        if value not in CHOICES[name]:
            raise _refuse(name, value, ", ".join(CHOICES[name]), did_you_mean(str(value)[:60], CHOICES[name]))
    elif name in COUNTS:
        if type(value) is not int or not is_whole(value, COUNTS[name]):
            raise _refuse(name, value, f"a whole number, {COUNTS[name]} or more")
    elif name in RATES:
        most = 1.0 if name == "learning_rate" else 1e6
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
            raise _refuse(name, value, f"a number above 0, up to {most:g}")
    elif not isinstance(value, str) or not value or "\0" in value:
        raise _refuse(name, value, "text")


def _refuse(name: str, value: object, allowed: str, hint: str = "") -> UserError:
    return UserError(f"{name} is {quoted(value)}{hint}", where="table [train]", allowed=allowed)


def train_settings(path: str, given: Mapping[str, Any]) -> tuple[Declaration, TrainSettings]:
    """Return a declaration and the settings of its table ``[train]``, changed by the options that were given.

    Args:
        path: of a ``.toml`` file.
        given: options by name; None where an option was not given.

    Raises:
        UserError: no such declaration, no ``[train]`` in it, an unknown key, or a value that is refused.
    """
    declaration = load_declaration(path)
    table: Any = read_toml(path).get("train") if path.endswith(".toml") else None
    if not isinstance(table, dict) or not table:
        raise UserError(
            "the declaration has no table [train]",
            where=printable_path(path),
            allowed="a .toml file with a table [train] at its end",
            next_step='add one, with a line such as base_model = "HuggingFaceTB/SmolLM2-135M"',
        )
    names, where = [field.name for field in fields(TrainSettings)], f"{printable_path(path)}, table [train]"
    for key in table:
        if key not in names:
            what = f"unknown setting {quoted(key)} in [train]{did_you_mean(key[:60], names)}"
            raise UserError(what, where=printable_path(path), allowed=", ".join(names))
    if "base_model" not in table:
        raise UserError(
            "there is no base model",
            where=where,
            allowed="a folder, or a name on the Hub",
            next_step='add a line such as base_model = "HuggingFaceTB/SmolLM2-135M"',
        )
    try:
        settings = TrainSettings(**{**table, **{name: value for name, value in given.items() if value is not None}})
    except UserError as error:
        if error.where in (None, "table [train]"):
            error = UserError(
                error.what, where=where, allowed=error.allowed, next_step=error.next_step or "mend it there"
            )
        raise error from None
    return declaration, settings
