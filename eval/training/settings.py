"""What a training is asked to do: the table ``[train]`` of a declaration."""

from dataclasses import InitVar, asdict, dataclass, fields
from typing import Annotated, Any, Literal

from msgspec import Meta

from ...errors import UserError, printable_path
from ...pipelines.declaration import load_declaration, read_toml
from ...pipelines.settings import Declaration, check_field, check_keys
from ...pipelines.spelling import Spelling
from ...tm import tasks
from ..checkpoint import KINDS
from ..settings import BatchTokens, Count, Stage, Text, check_words
from ..template import template_text

STAGES: tuple[Stage, ...] = ("first", "second")
VIEWS = {"executors": "one_step", "aligners": "aligner"}  # what each kind of adapter learns
LENGTHS = ("steps", "epochs", "tokens")  # how much is trained: one of these
# What may change between a stop and the command that goes on; other adapters may follow.
FREE = ("out", "save_every", "data", "results", "device_tokens", "task", "which")
Seed = Annotated[int, Meta(ge=0, le=2**63 - 1, description="a whole number, 0 or more")]
Rate = Annotated[float, Meta(gt=0, le=1, description="a number above 0, up to 1")]
Epochs = Annotated[float, Meta(gt=0, le=1e6, description="a number above 0, up to 1e+06")]
TABLE = Spelling(verb="train")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of a training. Constructing them checks them: ``UserError`` is raised at a value that is refused."""

    base_model: Text
    """Folder or Hub name of the base model."""
    task: tuple[str, ...] = ()
    """Tasks; none for every task of the declaration."""
    which: tuple[str, ...] = ("executors", "aligners")
    """What learns: executors, aligners, or names such as executors/add; a task without a raw text has no aligner."""
    method: Literal["each", "one", "full"] = "each"
    """each: a LoRA adapter for each task's executor and aligner; one: one adapter for all; full: all weights."""
    stages: tuple[str, ...] = STAGES
    """first: the instruction stands before each prompt; second: the prompt alone, as evaluation asks."""
    steps: Count | None = None
    """Steps of the optimiser, of each stage."""
    epochs: Epochs | None = None
    """The same in epochs: an epoch has as many rows as a build."""
    tokens: Count | None = None
    """The same in tokens of rows, about."""
    rank: Count = 16
    """Of the LoRA matrices, which all linear layers get; their scale is 2."""
    learning_rate: Rate = 2e-4
    """The highest: it rises over the first twentieth of the steps, then falls along a cosine to 0."""
    batch_tokens: BatchTokens = 8192
    """Tokens of rows that a step reads, about, on all devices together."""
    device_tokens: BatchTokens = 16384
    """Tokens that a device reads at once, about: a batch of more goes in parts."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"  # float16 has too small a range for training
    """Of the base model's weights: auto is bfloat16 on a GPU that has it, float32 otherwise. What learns is float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto, cpu or cuda: the first GPU that CUDA_VISIBLE_DEVICES shows."""
    template: Text | None = None
    """The text around each prompt, or a file of it; ``chat`` for the tokenizer's template, None for the bare prompt."""
    save_every: Count = 100
    """Steps between states, from which a stopped training goes on."""
    eval_every: Count | None = None
    """Steps between evaluations on held-out rows; None for none."""
    eval_limit: Count = 100
    """Expressions that each of them asks about."""
    patience: Count | None = None
    """Training stops when the best one is so many evaluations ago; None for never."""
    data: Text = "data"
    """The dataset whose test split holds these rows."""
    results: Text = "results"
    """The folder of the result tables, a run for each evaluation."""
    seed: Seed = 42
    """Of the adapters' first weights, and of the rows."""
    out: Text = "ckpt"
    """The folder that ``caef-data eval --adapters`` reads."""
    spelling: InitVar[Spelling] = TABLE
    """How messages name the settings."""

    def __post_init__(self, spelling: Spelling) -> None:
        named = tuple(f"{kind}/{task}" for task in tasks() for kind in KINDS)
        which = "executors, aligners, all, or names such as executors/add"
        words = {"task": (tasks(), None), "which": ((*KINDS, *named, "all"), which), "stages": (STAGES, None)}
        for key, (known, allowed) in words.items():
            chosen = check_words(key, getattr(self, key), known, spelling, allowed)
            if key != "task" and not chosen:
                raise spelling.refusal(f"{key} is empty", key, allowed=allowed or ", ".join(known))
            object.__setattr__(self, key, tuple(KINDS) if "all" in chosen else chosen)
        for field in fields(self):
            if field.name not in words and (getattr(self, field.name), field.default) != (None, None):
                check_field(TrainSettings, field.name, getattr(self, field.name), spelling)
        given = [name for name in LENGTHS if getattr(self, name) is not None]
        if len(given) > 1:
            what, allowed = f"{' and '.join(given)} both say how much is trained", f"one of {', '.join(LENGTHS)}"
            raise spelling.refusal(what, *given, allowed=allowed, advice="take one of them out")
        if not given:
            object.__setattr__(self, "epochs", 1.0)
        if self.patience is not None and self.eval_every is None:
            what = "patience counts evaluations, and there are none"
            raise spelling.refusal(what, "patience", allowed="eval_every beside it")
        if self.template is not None:
            object.__setattr__(self, "template", template_text(self.template, spelling.where("template") or "template"))

    def identifying(self) -> dict[str, Any]:
        """Return the settings that decide what is learnt."""
        return {name: value for name, value in asdict(self).items() if name not in FREE}

    def learns(self, kind: str, task: str) -> bool:
        """Tell whether the executor or aligner of a task is asked for."""
        return kind in self.which or f"{kind}/{task}" in self.which


def train_settings(path: str, out: str | None = None) -> tuple[Declaration, TrainSettings]:
    """Return a declaration and the settings of its table ``[train]``; ``out``: in place of the folder there.

    Raises:
        UserError: no such declaration, no ``[train]`` in it, an unknown key, or a value that is refused.
    """
    declaration = load_declaration(path)
    table: Any = read_toml(path).get("train") if path.endswith(".toml") else None
    given = {} if out is None else {"out": out}
    spelling = Spelling(options=given, file=printable_path(path), verb="train")
    if not isinstance(table, dict) or "base_model" not in table:
        what = "no table [train]" if not isinstance(table, dict) else "no base_model in its table [train]"
        next_step = 'add one, with a line such as base_model = "HuggingFaceTB/SmolLM2-135M"'
        raise UserError(f"the declaration has {what}", where=printable_path(path), next_step=next_step)
    check_keys(table, [field.name for field in fields(TrainSettings)], spelling)
    return declaration, TrainSettings(**table | given, spelling=spelling)
