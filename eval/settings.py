"""What an evaluation is asked to do: options of the command line, or the table ``[eval]`` of a declaration."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..errors import UserError, did_you_mean, quoted
from ..pipelines.declaration import load_declaration
from ..tm import tasks as all_tasks
from .backends.endpoint import base_url
from .problems import MODES
from .tables import RUN_ID
from .template import check_template

STRATEGIES = ("verify", "generate", "rollout")
BACKENDS = ("transformers", "openai", "oracle")
DTYPES = ("auto", "float32", "bfloat16", "float16")
NAME = re.compile(r"\w[\w.+-]{0,59}")  # of a run: printed, typed after --run, and part of no path
CHOICES: dict[str, tuple[str, ...]] = {
    "mode": MODES,
    "split": ("train", "test", "stress"),
    "strategy": STRATEGIES,
    "backend": BACKENDS,
    "dtype": DTYPES,
    "near_ties": ("alone", "count"),
}


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """Settings of an evaluation. Constructing them checks them.

    Args:
        adapters: the checkpoint folder, or the folder of one adapter, or its name on the Hub; None for a model alone
            and the oracle.
        model: folder or Hub name of a whole model, which is asked in place of every adapter.
        base_model: folder or Hub name of the base model; None takes it from the adapters' configs.
        data: the built dataset folder, or published raw files, that problems come from; or a name on the Hub.
        task: tasks; none for every task whose adapters are there.
        mode: modes; none for every mode whose adapters and rows are there.
        split: the split of the problems.
        strategy: verify, generate or rollout.
        template: the text around each prompt, ``chat`` for the tokenizer's chat template; None for the bare prompt.
        joined: adapters were trained on prompt and completion tokenised as one text.
        near_ties: rows that the shape of a batch could decide: alone decodes them one by one, count only counts them.
        batch_tokens: tokens of a batch, padding included; None for what suits the device.
        dtype: of the weights: auto is bfloat16 on a GPU that has it, float32 otherwise.
        device: auto, cpu, cuda, cuda:1 ...
        backend: transformers, openai or oracle.
        endpoint: URL of the server, for the openai backend.
        limit: expressions a task, at most; the same ones in every mode and run.
        baseline: evaluate the base model without adapters on raw questions.
        out: the results folder.
        name: what the run is called; the same run whatever its name.
        as_json: print the accuracies as JSON; the same run, too.

    Raises:
        UserError: a value that these rules refuse.
    """

    adapters: str | None = None
    model: str | None = None
    base_model: str | None = None
    data: str = "data"
    task: tuple[str, ...] = ()
    mode: tuple[str, ...] = ()
    split: str = "test"
    strategy: str = "verify"
    template: str | None = None
    joined: bool = False
    near_ties: str = "alone"
    batch_tokens: int | None = None
    dtype: str = "auto"
    device: str = "auto"
    backend: str = "transformers"
    endpoint: str | None = None
    limit: int | None = None
    baseline: bool = False
    out: str = "results"
    name: str | None = None
    as_json: bool = False

    @property
    def base(self) -> str | None:
        """Folder or Hub name of the model that was named; None where the adapters' configs name it."""
        return self.model or self.base_model

    @property
    def alone(self) -> bool:
        """Whether a whole model is asked in place of every adapter."""
        return self.adapters is None and not self.baseline and self.backend != "oracle"

    def __post_init__(self) -> None:
        for name in ("task", "mode"):
            given = getattr(self, name)
            if not isinstance(given, str | list | tuple):
                raise _refuse(name, given, "text, or a list of texts")
            object.__setattr__(self, name, (given,) if isinstance(given, str) else tuple(given or ()))
        self._check_kinds()
        for name, choices in {**CHOICES, "task": (*all_tasks(), "all")}.items():
            value = getattr(self, name)
            for one in value if isinstance(value, tuple) else (value,):
                if one not in choices:
                    raise _refuse(name, one, ", ".join(choices), did_you_mean(str(one)[:60], choices))
        if "all" in self.task:
            object.__setattr__(self, "task", ())
        for name, order in (("task", all_tasks()), ("mode", MODES)):  # each once: the same work is the same run
            given = getattr(self, name)
            object.__setattr__(self, name, tuple(one for one in order if one in given))
        self._check_together()

    def _check_kinds(self) -> None:
        kinds = {"batch_tokens": int, "limit": int, "baseline": bool, "joined": bool, "as_json": bool}
        for name, kind in kinds.items():
            value = getattr(self, name)
            if value is not None and (not isinstance(value, kind) or isinstance(value, bool) != (kind is bool)):
                raise _refuse(name, value, "true or false" if kind is bool else "a whole number")
        for name in ("adapters", "model", "base_model", "data", "device", "endpoint", "out", "template", "name"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value or "\0" in value):
                raise _refuse(name, value, "text")

    def _check_together(self) -> None:
        if self.name is not None and (not NAME.fullmatch(self.name) or RUN_ID.fullmatch(self.name)):
            raise _refuse("name", self.name, "up to 60 letters, digits and . _ - +, the first one no sign; no run's id")
        if self.batch_tokens is not None and not 16 <= self.batch_tokens <= 10**9:
            raise _refuse("batch_tokens", self.batch_tokens, "16 to 1,000,000,000")
        if self.limit is not None and self.limit < 1:
            raise _refuse("limit", self.limit, "1 or more")
        if self.model is not None and (self.adapters is not None or self.base_model is not None):
            raise UserError(
                "--model is asked in place of every adapter: it goes with neither --adapters nor --base-model",
                next_step="leave out --model, or the others",
            )
        if self.adapters is None and self.base is None and not self.baseline and self.backend != "oracle":
            raise UserError(
                "there are no adapters to evaluate",
                where="--adapters",
                allowed="a folder with executors/<task>/ and aligners/<task>/",
                next_step="caef-data eval --adapters ckpt/ (or --model MODEL for a whole model, or --backend oracle)",
            )
        if self.baseline and self.base is None and self.adapters is None:
            raise UserError("the baseline needs a base model", where="--base-model", allowed="a folder or a Hub name")
        if self.baseline and self.mode:
            raise UserError(
                "a baseline is asked raw questions: it has no mode",
                where="--mode",
                next_step="leave out --mode, or --baseline",
            )
        if (self.backend == "openai") != (self.endpoint is not None):
            raise UserError(
                "--endpoint and --backend openai belong together",
                allowed="--backend openai --endpoint http://localhost:8000",
            )
        if self.endpoint is not None:
            base_url(self.endpoint)
        if self.template is not None:
            check_template(self.template)


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
        load_declaration(declaration)  # its other tables must make sense too
        if not declaration.endswith(".toml"):
            raise UserError(
                f"the declaration {quoted(declaration)} is shipped for building, it holds no evaluation",
                allowed="a .toml file with a table [eval]",
                next_step="caef-data eval --adapters ckpt/ --data DIR",
            )
        held = dict(tomllib.loads(Path(declaration).read_text("utf-8-sig")).get("eval", {}))
        if not held:
            raise UserError(
                "the declaration has no table [eval]",
                where=quoted(declaration),
                next_step='add one, with lines such as adapters = "ckpt" and data = "data", or use options',
            )
    names = [field.name for field in fields(EvalSettings)]
    for key in (*held, *given):
        if key not in names:
            raise UserError(
                f"unknown setting {quoted(key)}{' in [eval]' if key in held else ''}{did_you_mean(key[:60], names)}",
                where=quoted(declaration) if key in held else None,
                allowed=", ".join(names),
            )
    if given.get("baseline") and not given.get("mode"):
        held.pop("mode", None)  # a declaration's modes are about its adapters
    return EvalSettings(**{**held, **{name: value for name, value in given.items() if value not in (None, [], ())}})
