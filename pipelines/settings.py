"""Settings of a task and declarations of many: frozen objects, checked on construction, with identities."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast

from ..errors import UserError, clip, nearest
from . import versions
from .settings_rules import MAX_LEN, PLAIN, RAISED_MAX_LEN, Rule, Spelling, check_settings, shown, task_names

SPLITS = ("train", "test", "stress")
VIEWS = ("one_step", "full", "aligner", "raw", "scratchpad", "commands")
DIALECTS = ("consistent", "published")
STEPS = ("sampled", "all")
DEFAULT_VIEWS = {
    "train": ("one_step", "aligner"),
    "test": ("one_step", "full", "aligner", "raw"),
    "stress": ("one_step", "full", "aligner", "raw"),
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
RAW_VIEWS = ("aligner", "raw")  # they need a raw text such as 1+2=, which helpers do not have


def setting(rule: Rule, default: Any = MISSING) -> Any:
    """Return a dataclass field with its rule; a field without one cannot be checked or identified."""
    return field(default=default, metadata={"rule": rule})


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """What is built for one task. Constructing it checks it; every value is then in its canonical form.

    Args:
        task: short name; the paper's long names are accepted and become short.
        min: smallest operand length, in digits.
        max: largest operand length, in digits, at most ``max_len``.
        num: expressions per class of the train split, before the balance table.
        num_test: expressions per class of the test split, and per class and family of the stress split; 0
            only where the train split is built alone. Default: a tenth of ``num``, at least 1.
        splits: the splits to build.
        views: the views to build, in every split; None for the defaults of each split.
        seed: seed of the sampling; never decides on which side of a split an expression lies.
        dialect: text of composers' prompts.
        steps: keep the sampled steps of a run in one_step, or all.
        balance: multiply ``num`` by the balance table.
        max_steps: no run with more transitions is written whole.
        rows_per_shard: largest number of rows of a shard; None bounds shards by bytes of text only.
        max_len: ceiling of ``max``.

    Raises:
        UserError: a value has the wrong type, is out of range or contradicts another.
    """

    task: str = setting(Rule("data", "word"))
    min: int = setting(Rule("data", "integer", low=1), 1)
    max: int = setting(Rule("data", "integer", low=1), 100)
    num: int = setting(Rule("data", "integer", low=1, high=10**9), 20)
    # None is accepted and resolved on construction; readers always see an int
    num_test: int = setting(Rule("data", "integer", low=0, high=10**9, optional=True), None)
    splits: tuple[str, ...] = setting(Rule("selection", "words", choices=SPLITS), ("train", "test"))
    views: tuple[str, ...] | None = setting(Rule("selection", "words", choices=VIEWS, optional=True), None)
    seed: int = setting(Rule("data", "integer", low=0, high=2**63 - 1), 42)
    dialect: Literal["consistent", "published"] = setting(Rule("data", "word", choices=DIALECTS), "consistent")
    steps: Literal["sampled", "all"] = setting(Rule("data", "word", choices=STEPS), "sampled")
    balance: bool = setting(Rule("data", "boolean"), True)
    max_steps: int = setting(Rule("data", "integer", low=1, high=10**6), 10_000)
    # the order of rows follows the shards, so this one changes the data too
    rows_per_shard: int | None = setting(Rule("data", "integer", low=1, high=10**9, optional=True), None)
    max_len: int = setting(Rule("none", "integer", low=1, high=RAISED_MAX_LEN), MAX_LEN)

    def __post_init__(self) -> None:
        given = {key: getattr(self, key) for key in RULES}
        for key, value in check_settings(given, RULES, PLAIN).items():
            object.__setattr__(self, key, value)

    @classmethod
    def of(cls, values: Mapping[str, object], spelling: Spelling = PLAIN) -> "TaskSettings":
        """Return the settings of a mapping; messages name them as ``spelling`` does.

        Raises:
            UserError: an unknown key, no task, or a value that the rules refuse.
        """
        for key in values:
            if key not in RULES:
                raise unknown_key(key, RULES, spelling)
        if "task" not in values:
            raise UserError(f"{spelling.name('task')} is missing", where=spelling.where("task"))
        return cls(**check_settings({**DEFAULTS, **values}, RULES, spelling))

    def views_of(self, split: str) -> tuple[str, ...]:
        """Return the views built for ``split``, in canonical order; none if it is not asked for."""
        asked = self._asked(split)
        return asked if self.has_raw else tuple(view for view in asked if view not in RAW_VIEWS)

    def left_out(self) -> tuple[str, ...]:
        """Return the views that are asked for, by default or by name, and that this task does not have."""
        asked = {view for split in self.splits for view in self._asked(split)}
        return () if self.has_raw else tuple(view for view in RAW_VIEWS if view in asked)

    def configs(self) -> tuple[tuple[str, str], ...]:
        """Return every (view, split) to build."""
        return tuple((view, split) for split in self.splits for view in self.views_of(split))

    @property
    def has_raw(self) -> bool:
        """Whether the task has a raw text, and so the aligner and raw views."""
        from .. import tm

        return bool(tm.machine(self.task).has_raw)

    def _asked(self, split: str) -> tuple[str, ...]:
        if split not in self.splits:
            return ()
        return DEFAULT_VIEWS[split] if self.views is None else self.views

    def to_dict(self) -> dict[str, object]:
        """Return the settings as JSON knows them; ``of`` reads them back."""
        values = {key: getattr(self, key) for key in RULES}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    def identity(self, rules: Mapping[str, int] | None = None) -> str:
        """Return 16 hex digits that change with every setting and version that changes the data.

        Views and splits stay out, so that more of them can be added to the same folder.

        Args:
            rules: the versions of the rules that the rows follow, those of this caef-data by default.
        """
        values = self.to_dict()
        return digest({
            "settings": {key: values[key] for key, rule in RULES.items() if rule.effect == "data"},
            "versions": dict(rules or versions.rules()),
            **_own_machine(self.task),
        })  # fmt: skip

    def config_identity(self, view: str, split: str, rules: Mapping[str, int] | None = None) -> str:
        """Return the identity of one view of one split of this task."""
        return digest({"task": self.identity(rules), "view": view, "split": split})


def _own_machine(task: str) -> dict[str, str]:
    """Return a digest of the file of a user's own machine: an edited machine makes other rows."""
    from .. import tm

    if task in tm.VERSIONED:
        return {}
    source = Path(tm.machine(task).source)
    content = source.read_bytes() if source.is_file() else b""
    return {"machine": hashlib.blake2b(content, digest_size=8).hexdigest()}


RULES: dict[str, Rule] = {f.name: cast(Rule, f.metadata["rule"]) for f in fields(TaskSettings)}
DEFAULTS: dict[str, object] = {f.name: f.default for f in fields(TaskSettings) if f.default is not MISSING}


# What the fields of a declaration do to the data; a test fails when a new field is not named here.
EFFECTS = {"name": "none", "tasks": "data", "description": "none", "repo": "none", "source": "none"}
HEADER = ("name", "description", "repo")  # the keys of a declaration that belong to no task


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What one dataset holds. Constructing it checks it.

    Args:
        name: letters, digits, ``.``, ``_``, ``-``; the title of the card.
        tasks: the settings of each task; a task appears once.
        description: a few sentences for the card.
        repo: repository on the Hub, ``user/name``.
        source: the shipped name or the path that it was loaded from; None where it was made from options.

    Raises:
        UserError: a value that these rules refuse, or no config at all to build.
    """

    name: str
    tasks: tuple[TaskSettings, ...]
    description: str = ""
    repo: str | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        check_header({key: getattr(self, key) for key in HEADER}, PLAIN)
        object.__setattr__(self, "tasks", tuple(self.tasks))
        if not self.tasks:
            raise UserError("a declaration needs at least one task", allowed=", ".join(task_names()))
        check_twice([(task.task, PLAIN) for task in self.tasks])
        if not any(task.configs() for task in self.tasks):
            names = ", ".join(task.task for task in self.tasks)
            raise UserError(
                f"nothing to build: {names} has no raw text, and so no aligner and raw views",
                allowed="one_step, full, scratchpad, commands",
            )

    def identity(self) -> str:
        """Return 16 hex digits of what is built: the configs of every task, in any order."""
        configs = [task.config_identity(view, split) for task in self.tasks for view, split in task.configs()]
        return digest(sorted(configs))

    def to_dict(self) -> dict[str, object]:
        """Return the declaration as JSON knows it, every setting spelled out; ``from_dict`` reads it back."""
        header = {"name": self.name, "description": self.description, "repo": self.repo}
        return {**header, "tasks": [task.to_dict() for task in self.tasks]}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "Declaration":
        """Return the declaration that ``to_dict`` gave, checked again: a manifest may have been edited.

        Raises:
            UserError: it is none.
        """
        tasks = values.get("tasks")
        if set(values) != {*HEADER, "tasks"} or not isinstance(tasks, list):
            raise UserError("this is not a declaration", allowed="keys " + ", ".join((*HEADER, "tasks")))
        if not all(isinstance(task, dict) for task in tasks):
            raise UserError("tasks of a declaration must be tables")
        header = check_header({key: values[key] for key in HEADER}, PLAIN)
        return cls(**header, tasks=tuple(TaskSettings.of(task) for task in tasks))  # type: ignore[arg-type]


def check_header(values: Mapping[str, object], spelling: Spelling) -> dict[str, object]:
    """Return name, description and repo unchanged, or say what is wrong with them."""

    def refuse(key: str, allowed: str) -> UserError:
        what = f"{spelling.name(key)} is {shown(values[key])}"
        return UserError(what, where=spelling.where(key), allowed=allowed)

    name, description, repo = values.get("name"), values.get("description", ""), values.get("repo")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise refuse("name", "1 to 96 letters, digits, '.', '_' or '-', a letter or digit first")
    if not isinstance(description, str) or len(description) > 5_000 or _CONTROL.search(description):
        raise refuse("description", "text of up to 5,000 characters without control characters")
    if repo is not None:
        fits = isinstance(repo, str) and REPO.fullmatch(repo) and repo[-1].isalnum()
        if not fits or ".." in str(repo) or "--" in str(repo) or str(repo).endswith(".git"):
            raise refuse("repo", "a repository on the Hub, user/name")
    return dict(values)


def check_twice(tasks: Sequence[tuple[str, Spelling]]) -> None:
    """Refuse a task that is given twice; the spelling of the second says where."""
    seen: set[str] = set()
    for task, spelling in tasks:
        if task in seen:
            raise UserError(
                f"the task {task} is given twice",
                where=spelling.where("task"),
                allowed="each task once; all stands for every task",
                next_step="for two ranges of one task, build two declarations into two folders",
            )
        seen.add(task)


def canonical_json(value: object) -> str:
    """Return the one JSON text of ``value``: sorted keys, no blanks, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: object) -> str:
    """Return 16 hex digits of blake2b over the canonical JSON of ``value``."""
    return hashlib.blake2b(canonical_json(value).encode("ascii"), digest_size=8).hexdigest()


def unknown_key(
    key: str, valid: Mapping[str, object] | tuple[str, ...], spelling: Spelling, *, where: str | None = None
) -> UserError:
    """Return the error for a key that no setting has, with the nearest one that exists."""
    named = [spelling.name(name) for name in valid]
    return UserError(
        f"unknown setting {clip(key)}{nearest(key[:60], named)}",
        where=where or spelling.where(key),
        allowed=", ".join(named),
    )
