"""Settings of a task and declarations of many: frozen objects, checked on construction, with identities."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from ..errors import UserError, closest, did_you_mean, quoted
from . import versions
from .budget import BUDGET, Amount, Budget, Tokenizer
from .curriculum import Curriculum, Mix, mix_of, stages_of
from .spelling import PLAIN, Spelling, literal

if TYPE_CHECKING:
    from ..tm import Machine

Split = Literal["train", "test", "stress"]
View = Literal["one_step", "full", "aligner", "raw", "scratchpad", "commands", "slips"]
Count = Annotated[int, Meta(ge=1, le=10**9)]

SPLITS: tuple[str, ...] = get_args(Split)
VIEWS: tuple[str, ...] = get_args(View)
HELD_OUT_VIEWS = ("one_step", "full", "aligner", "raw")
DEFAULT_VIEWS = {"train": ("one_step", "aligner"), "test": HELD_OUT_VIEWS, "stress": HELD_OUT_VIEWS}
ALIASES = {"addition": "add", "subtraction": "sub", "multiplication": "mul", "division": "div"}
MEANT = {"plus": "add", "minus": "sub", "subtract": "sub", "times": "mul", "multiply": "mul", "divide": "div"} | ALIASES
MAX_LEN = 1_000  # ceiling of operand lengths, in digits, unless a declaration raises `max_len`
RAISED_MAX_LEN = 10_000  # one transition of 10,000 digits is some 80 kB of text; more is a typing error
MAX_STEPS = 10**6
REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")

NAME = r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,95}\Z"
PRINTABLE = "\\A[^\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]{0,5000}\\Z"
ON_THE_HUB = rf"\A(?!.*(\.\.|--|\.git\Z)){REPO.pattern}(?<![._-])\Z"
NAME_RULE = "1 to 96 letters, digits, '.', '_' or '-', a letter or digit first"
Name = Annotated[str, Meta(pattern=NAME, description=NAME_RULE)]
Text = Annotated[str, Meta(pattern=PRINTABLE, description="text of up to 5,000 characters without control characters")]
Repository = Annotated[str, Meta(pattern=ON_THE_HUB, description="a repository on the Hub, user/name")]


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """What is built for one task. Constructing it checks it; every value is then in its canonical form.

    Raises:
        UserError: a value has the wrong type, is out of range or contradicts another.
    """

    task: str
    """Short name; the paper's long names are accepted and become short."""
    min: Annotated[int, Meta(ge=1)] = 1
    """Smallest operand length, in digits; of a Turing machine its shortest word, which may be empty."""
    max: Annotated[int, Meta(ge=1)] = 100
    """Largest operand length, in digits (a word's: in symbols), at most ``max_len``."""
    num: Count = 20
    """Expressions per class of the train split, before the balance table."""
    num_test: Annotated[int, Meta(ge=0, le=10**9)] = None  # type: ignore[assignment]  # readers always see a number
    """Expressions per class of the test split, and per class and family of the stress split; 0 only where the train
    split is built alone. Default: a tenth of ``num``, at least 1."""
    splits: tuple[Split, ...] = ("train", "test")
    """The splits to build."""
    views: tuple[View, ...] | None = None
    """The views to build, in every split; None for the defaults of each split."""
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 42
    """Seed of the sampling; never decides on which side of a split an expression lies."""
    dialect: Literal["consistent", "published"] = "consistent"
    """Text of composers' prompts."""
    steps: Literal["sampled", "all"] = "sampled"
    """Keep the sampled steps of a run in one_step, or all."""
    balance: bool = True
    """Multiply ``num`` by the balance table."""
    max_steps: Annotated[int, Meta(ge=1, le=MAX_STEPS)] = 10_000
    """No run with more transitions is written whole."""
    rows_per_shard: Count | None = None
    """Largest number of rows of a shard, whose order of rows it changes; None bounds shards by bytes of text only."""
    max_len: Annotated[int, Meta(ge=1, le=RAISED_MAX_LEN)] = MAX_LEN
    """Ceiling of ``max``."""
    budget: Budget | None = None
    """Where a budget decided ``num``: what it came to."""
    expressions: tuple[str, str] | None = None
    """Expressions of a file in place of drawn ones: its sha256, and that of the task's expressions in it."""
    allow_test: bool = False
    """Their train split holds those of test and stress, too."""
    spelling: InitVar[Spelling] = PLAIN
    """How messages name the settings."""

    def __post_init__(self, spelling: Spelling) -> None:
        from .. import tm  # inside: reading a declaration's source needs no machines

        object.__setattr__(self, "task", check_task(self.task, spelling))
        machine = tm.machine(self.task)
        object.__setattr__(self, "_machine", machine.identity())
        for key in (key for key in KEYS[1:] if key != "expressions"):
            value = getattr(self, key)
            if key == "num_test" and value is None:
                value = max(1, self.num // 10)
                object.__setattr__(self, "_tenth", True)
            if value != 0 or key not in ("min", "max") or machine.numbers or isinstance(value, bool):
                object.__setattr__(self, key, check_field(type(self), key, value, spelling))
        _check_together(self, spelling)
        if "stress" in self.splits and not machine.numbers:
            allowed = "train, test: hard cases are known of the arithmetic tasks alone"
            raise spelling.refusal(f"{self.task} has no split stress", "splits", allowed=allowed)
        if self.steps == "all":
            _check_all_steps(self, spelling)

    @classmethod
    def of(cls, values: Mapping[str, Any], spelling: Spelling = PLAIN) -> "TaskSettings":
        """Return the settings of a mapping, which may be anything; messages name them as ``spelling`` does."""
        check_keys(values, KEYS, spelling)
        return cls(**{"task": None, **values}, spelling=spelling)

    def resolved(self, num: int, budget: Budget) -> "TaskSettings":
        """Return these settings with what a budget came to; a number of test expressions that was given stays."""
        tests: Any = None if "_tenth" in self.__dict__ else self.num_test
        return replace(self, num=num, budget=budget, num_test=tests)

    def views_of(self, split: str) -> tuple[str, ...]:
        """Return the views built for ``split``, in canonical order; none if it is not asked for."""
        return tuple(view for view in self._asked(split) if view not in self.left_out())

    def left_out(self) -> tuple[str, ...]:
        """Return the views that are asked for, by default or by name, and that this task does not have."""
        from .. import tm

        asked = {view for split in self.splits for view in self._asked(split)}
        return tuple(view for view in tm.machine(self.task).missing_views() if view in asked)

    def configs(self) -> tuple[tuple[str, str], ...]:
        """Return every (view, split) to build."""
        return tuple((view, split) for split in self.splits for view in self.views_of(split))

    def _asked(self, split: str) -> tuple[str, ...]:
        from .. import tm

        own, views = tm.machine(self.task), self.views or DEFAULT_VIEWS[split]
        if not own.numbers and self.views is None:  # nobody expects an aligner of a machine that is given words
            views = tuple(view for view in views if view not in own.missing_views())
        return views if split in self.splits else ()

    def to_dict(self) -> dict[str, object]:
        """Return the settings as JSON knows them; ``of`` reads them back."""
        values = {key: getattr(self, key) for key in KEYS if key not in AT_NEED or getattr(self, key)}
        values |= {} if self.budget is None else {"budget": self.budget.to_dict()}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    def machine(self) -> "Machine":
        """Return the task's machine; raises UserError where another one has taken its name since."""
        from .. import tm

        found = tm.machine(self.task)
        if found.identity() != self.__dict__["_machine"]:
            what = f"the machine {self.task} is another one by now than when these settings were made"
            raise UserError(what, next_step="make the declaration again")
        return found

    def identity(self) -> str:
        """Return 16 hex digits that change with every setting and rule that changes the data.

        Views and splits stay out, so that more of them can be added to the same folder.
        """
        own = self.machine().identity()
        values: dict[str, Any] = {key: value for key, value in self.to_dict().items() if key in DATA_KEYS}
        if self.budget is not None:  # a tokenizer is known by its digest, wherever it lies
            values["budget"] = replace(self.budget, tokenizer=None).to_dict()
        return digest({"settings": values, "versions": versions.rules(), **own})

    def config_identity(self, view: str, split: str) -> str:
        """Return the identity of one view of one split of this task."""
        return digest({"task": self.identity(), "view": view, "split": split})


KEYS = tuple(setting.name for setting in fields(TaskSettings))
AT_NEED = ("budget", "expressions", "allow_test")  # datasets that do without do not name them
# Those below leave every row as it is; a new setting changes the data, and every identity, unless it is named there.
DATA_KEYS = tuple(key for key in KEYS if key not in ("splits", "views", "max_len"))


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What one dataset holds. Constructing it checks it.

    Raises:
        UserError: a value that is refused, or no config at all to build.
    """

    name: Name
    """Letters, digits, ``.``, ``_``, ``-``; the title of the card."""
    tasks: tuple[TaskSettings, ...]
    """The settings of each task; a task appears once."""
    description: Text = ""
    """A few sentences for the card."""
    repo: Repository | None = None
    """Repository on the Hub, ``user/name``."""
    source: str | None = None
    """The shipped name or the path that it was loaded from; None where it was made from options."""
    machines: tuple[str, ...] = ()
    """The Turing machines that it brings, by their tasks."""
    rows: Amount | None = None
    """Rows that the train split should have: all views of all tasks together. They decide ``num``."""
    tokens: Amount | None = None
    """Tokens that the train split should have, in the same way."""
    tokenizer: Tokenizer | None = None
    """What counts tokens, for that and for the card: a folder, or a name on the Hub."""
    mix: Mix | None = None
    """Of its streams: the weights of tasks and views."""
    curriculum: Curriculum | None = None
    """Of its streams: how operands grow longer."""
    spelling: InitVar[Spelling] = PLAIN
    """How messages name the settings."""

    def __post_init__(self, spelling: Spelling) -> None:
        for key in (*HEADER, *OF_STREAMS):
            check_field(type(self), key, getattr(self, key), spelling)
        object.__setattr__(self, "tasks", tuple(self.tasks))
        mix_of(self, spelling=spelling)
        stages_of(self, spelling)
        names = [task.task for task in self.tasks]
        if twice := [name for number, name in enumerate(names) if name in names[:number]]:
            allowed = "each task once; all stands for every task, two ranges of one need two declarations"
            raise spelling.refusal(f"the task {twice[0]} is given twice", "task", allowed=allowed)
        if not any(task.configs() for task in self.tasks):
            raise self._nothing_to_build(spelling)

    def _nothing_to_build(self, spelling: Spelling) -> UserError:
        from .. import tm

        names, lacking = [own.task for own in self.tasks], tm.machine(self.tasks[0].task).missing_views()
        left_out = self.tasks[0].left_out()
        what = f"nothing to build: {', '.join(names)} has no rows of {', '.join(left_out)}: {lacking[left_out[0]]}"
        return spelling.refusal(what, "views", allowed=", ".join(view for view in VIEWS if view not in lacking))

    @property
    def unresolved(self) -> bool:
        """Whether it has a budget, and nobody has found yet what that comes to."""
        return (self.rows or self.tokens) is not None and not any(task.budget for task in self.tasks)

    def identity(self) -> str:
        """Return 16 hex digits of what is built: the configs of every task, in any order."""
        return digest(sorted(task.config_identity(*pair) for task in self.tasks for pair in task.configs()))


HEADER = ("name", "description", "repo", *BUDGET)  # the keys of a declaration that belong to no task
OF_STREAMS = ("mix", "curriculum")  # its tables that change no build


@cache
def _types(owner: type) -> dict[str, Any]:
    return get_type_hints(owner, include_extras=True)


def check_field(owner: type, key: str, value: object, spelling: Spelling) -> object:
    """Return the value of a field as its type has it, words in canonical order, or say what is wrong with it."""
    kind = _types(owner)[key]
    allowed, words = _allowed(kind)
    wrong = value
    try:
        checked = msgspec.convert(value, kind)
        if not isinstance(checked, tuple):
            return checked
        if checked and len(set(checked)) == len(checked):
            return tuple(word for word in words if word in checked)
        allowed += ", each at most once"
    except (msgspec.ValidationError, ValueError):  # ValueError: a number too long for msgspec's own message
        if isinstance(value, list | tuple):
            wrong = next((word for word in value if word not in words), value)
    near = did_you_mean(wrong[:60], words) if isinstance(wrong, str) else ""
    verb = "is" if wrong is value else "holds"
    raise spelling.refusal(f"{spelling.name(key)} {verb} {literal(wrong)}{near}", key, allowed=allowed)


def _allowed(kind: Any) -> tuple[str, tuple[str, ...]]:
    """Return what a type allows, in words, and the words themselves that it allows, if any."""
    if kind is bool:
        return "true or false", ()
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(parts), parts
    if origin is Annotated:
        meta = parts[1]
        return meta.description or f"a whole number from {meta.ge:,}" + (f" to {meta.le:,}" if meta.le else ""), ()
    if not parts:
        return f"a table of {', '.join(setting.name for setting in fields(kind))}, as a manifest has it", ()
    allowed, words = _allowed(parts[0])  # of a tuple of words, or beside None
    return (f'{allowed}; in a declaration as a list: ["{words[0]}"]' if origin is tuple else allowed), words


def task_names() -> tuple[str, ...]:
    """Return the names of the registered tasks."""
    from .. import tm  # inside: reading a declaration's source needs no machines

    return tuple(tm.tasks())


def check_task(value: object, spelling: Spelling) -> str:
    """Return the registered short name of a task, or say that it is none; a long name of the paper is accepted."""
    from .declaration import shipped_machines  # inside: declarations stand above settings

    names, given = task_names(), ALIASES.get(value, value) if isinstance(value, str) else ""
    if given in names or given in shipped_machines():  # these are read only where no other task is meant
        return given
    name, short = spelling.name("task"), MEANT.get(given) or closest(given[:60], (*names, *ALIASES, "all"))
    near = f" (did you mean {short!r}?)" if short else ""
    raise spelling.refusal(
        f"no {name} is given" if value is None else f"{name} is {literal(value)}, which is no task{near}",
        "task",
        allowed=f"{', '.join(names)}, or all",
        advice=("write " if name == "task" else f"caef-data {spelling.verb} ")
        + spelling.setting("task", short or "sub"),
    )


def check_keys(values: Iterable[str], known: Sequence[str], spelling: Spelling) -> None:
    """Refuse a key that no setting has, with the nearest one that exists."""
    for key in values:
        if key not in known:
            name, names = spelling.name(key), [spelling.name(setting) for setting in known]
            what = f"unknown setting {quoted(name)}{did_you_mean(name[:60], names)}"
            advice = f"{', '.join(HEADER)} stand above the first [[task]]" if key in HEADER else None
            raise spelling.refusal(what, key, allowed=", ".join(names), advice=advice)


def _check_together(values: TaskSettings, spelling: Spelling) -> None:
    """Refuse settings that contradict each other."""
    if values.expressions is not None or values.allow_test:
        from .expressions import check_own

        check_own(values, spelling)
    name, high = spelling.name, values.max
    if high > values.max_len:
        raise spelling.refusal(
            f"{name('max')} is {literal(high)} digits, above the ceiling of {values.max_len:,}",
            "max",
            allowed=f"1 to {values.max_len:,}; max_len in a declaration raises that, up to {RAISED_MAX_LEN:,}",
        )
    if values.min > high:
        raise spelling.refusal(
            f"{name('min')} is {literal(values.min)}, larger than {spelling.setting('max', high)}",
            *("min", "max"),
            allowed=f"{name('min')} from 1 to {high}",
        )
    held_out = " and ".join(split for split in values.splits if split != "train")
    if values.num_test == 0 and held_out:
        raise spelling.refusal(
            f"{name('num_test')} is 0, but the {held_out} split is asked for",
            *("num_test", "splits"),
            allowed=f"{name('num_test')} from 1, or {spelling.setting('splits', ('train',))}",
        )


def _check_all_steps(values: TaskSettings, spelling: Spelling) -> None:
    """Refuse whole traces that are longer than ``max_steps``, instead of quietly leaving them out."""
    from .. import tm

    machine, limit, setting = tm.machine(values.task), values.max_steps, spelling.setting
    if not machine.halts:
        return  # the plan leaves longer runs out
    name = spelling.name

    def longest(top: int) -> int:  # a corner of the lengths: mul's b or add's n is long, or div's b is short
        return max(machine.max_num_steps(top, top), machine.max_num_steps(top, values.min))

    if (needed := longest(values.max)) <= limit:
        return
    if values.expressions is not None:
        from .expressions import longest_run

        steps, which = longest_run(values, MAX_STEPS)
        if steps <= limit:
            return
        told = f"{steps:,}" if steps <= MAX_STEPS else f"more than {MAX_STEPS:,}"
        raise spelling.refusal(
            f"{values.task} with {setting('steps', 'all')}: the run of {which} has {told} transitions, more than"
            f" {setting('max_steps', limit)}",
            *("steps", "expressions", "max_steps"),
            allowed=f"a file without it, {name('max_steps')} up to {MAX_STEPS:,}, or {setting('steps', 'sampled')}",
        )
    raise spelling.refusal(
        f"{values.task} with {setting('steps', 'all')} has runs of {literal(needed)} transitions, more than"
        f" {setting('max_steps', limit)}",
        *("steps", "max", "max_steps"),
        allowed=f"a smaller {name('max')}, {name('max_steps')} up to {MAX_STEPS:,}, or {setting('steps', 'sampled')}",
    )


def canonical_json(value: object) -> str:
    """Return the one JSON text of ``value``: sorted keys, no blanks, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: object) -> str:
    """Return 16 hex digits of blake2b over the canonical JSON of ``value``."""
    return hashlib.blake2b(canonical_json(value).encode("ascii"), digest_size=8).hexdigest()
