"""Declarations: what a dataset holds, from a TOML file or from the options of the command line."""

import re
import shlex
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..errors import UserError, clip, nearest
from .settings import (
    DEFAULTS,
    DIALECTS,
    HEADER,
    RULES,
    SPLITS,
    STEPS,
    VIEWS,
    Declaration,
    TaskSettings,
    canonical_json,
    check_header,
    check_twice,
    unknown_key,
)  # fmt: skip
from .settings_rules import MAX_LEN, FlagSpelling, Spelling, check_field, check_task, shown, task_names
from .toml_lines import KeyLines, key_lines

__all__ = [
    "DIALECTS", "SPLITS", "STEPS", "VIEWS", "Declaration", "TaskSettings", "canonical_json", "from_flags",
    "load_declaration", "parse_declaration", "rebuild_command", "shipped_declarations",
]  # fmt: skip

SHIPPED = Path(__file__).resolve().parent.parent / "datasets"
MAX_BYTES = 1_000_000  # a declaration is a page of text
MAX_DOTS = 500  # on a line: time and memory of tomllib grow with the square of the parts of a dotted key


class TomlSpelling(Spelling):
    """Settings as keys of a TOML file, in one of its ``[[task]]`` tables or at its top."""

    def __init__(self, file: str, lines: KeyLines, table: int | None = None) -> None:
        self.file = file
        own = lines.tables[table] if table is not None and table < len(lines.tables) else {}
        self.lines = {**lines.top, **own}
        header = table is not None and table < len(lines.headers)
        self.header = lines.headers[table] if header and table is not None else lines.top.get("task")

    def where(self, *keys: str) -> str | None:
        """Return the file and the lines of those of ``keys`` that it holds, or the line of the table."""
        lines = sorted({self.lines[key] for key in keys if key in self.lines}) or [self.header or 0]
        numbers = " and ".join(str(line) for line in lines if line)
        plural = "s" if len(lines) > 1 else ""
        return f"{self.file}, line{plural} {numbers}" if numbers else self.file


def shipped_declarations() -> tuple[str, ...]:
    """Return the names of the declarations that come with the package."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.toml")))


def load_declaration(name_or_path: str) -> Declaration:
    """Return a shipped declaration by its name, or the declaration in a ``.toml`` file.

    Raises:
        UserError: there is no such declaration, or its text is refused; the message names the line.
    """
    if name_or_path in shipped_declarations():
        text = _read(SHIPPED / f"{name_or_path}.toml", f"{name_or_path}.toml")
        return parse_declaration(text, f"{name_or_path}.toml", source=name_or_path)
    if name_or_path.endswith(".toml"):
        shown_path = name_or_path if name_or_path.isprintable() and len(name_or_path) < 300 else clip(name_or_path)
        return parse_declaration(_read(Path(name_or_path), shown_path), shown_path, source=name_or_path)
    names = shipped_declarations()
    next_step = "caef-data build paper, or caef-data build my.toml"
    if name_or_path in task_names():
        next_step = f"caef-data build --task {name_or_path}"
    raise UserError(
        f"there is no declaration {clip(name_or_path)}{nearest(name_or_path[:60], names)}",
        allowed=", ".join(names) + ", or a path that ends in .toml",
        next_step=next_step,
    )


def _read(path: Path, shown_path: str) -> str:
    """Return the text of a file that may be anything, also a pipe, a folder or a film."""
    try:
        if not path.is_file():
            problem = "is not a file" if path.exists() else "does not exist"
            raise UserError(
                f"the declaration {shown_path} {problem}",
                allowed="a TOML file, or one of " + ", ".join(shipped_declarations()),
            )
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL byte or a lone surrogate in the path
        reason = getattr(error, "strerror", None) or "not a path"
        raise UserError(f"the declaration {shown_path} cannot be read: {reason}") from None
    if len(data) > MAX_BYTES:
        raise UserError(f"the declaration {shown_path} is too large", allowed=f"up to {MAX_BYTES:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            "the declaration is not UTF-8 text", where=f"{shown_path}, line {line}", allowed="TOML in UTF-8"
        ) from None


def parse_declaration(text: str, file: str = "declaration", *, source: str | None = None) -> Declaration:
    """Return the declaration in TOML ``text``; messages name it ``file``.

    Raises:
        UserError: TOML that is none, or a declaration that is refused.
    """
    values, lines = _toml(text, file)
    spelling = TomlSpelling(file, lines)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(source or "").stem).strip("-._")[:96] or "declaration"
    known = (*HEADER, *RULES)
    if isinstance(values.get("eval"), dict):
        del values["eval"]  # settings of `caef-data eval`, which reads them itself
    for key in values:
        if key not in known:
            raise unknown_key(key, known, spelling)
    header = check_header({"name": name, **{key: values[key] for key in HEADER if key in values}}, spelling)
    defaults = {key: value for key, value in values.items() if key in RULES and key != "task"}
    for key, value in defaults.items():  # also one that every task overrides must make sense
        check_field(key, value, RULES[key], spelling)
    found: list[tuple[TaskSettings, Spelling]] = []
    for index, table in enumerate(_tables(values, file, spelling)):
        own = TomlSpelling(file, lines, index)
        found += [(settings, own) for settings in _settings_of(table, defaults, own)]
    check_twice([(settings.task, where) for settings, where in found])
    tasks = tuple(settings for settings, _ in found)
    return Declaration(**header, tasks=tasks, source=source)  # type: ignore[arg-type]


def _toml(text: str, file: str) -> tuple[dict[str, object], KeyLines]:
    """Return the values of TOML text and the lines of its keys."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > MAX_DOTS:
            raise UserError(
                f"a line holds more than {MAX_DOTS} dots",
                where=f"{file}, line {number}",
                next_step="break long text into lines between triple quotes",
            )
    try:
        return tomllib.loads(text), key_lines(text)
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).partition(" (at ")
        found_line = re.search(r"line (\d+)", place)  # or: at end of document
        number = int(found_line.group(1)) if found_line else text.rstrip().count("\n") + 1
        raise UserError(
            f"this is not TOML: {clip(message, 200)[1:-1]}",
            where=f"{file}, line {number}",
            next_step=f"compare with one that works: {SHIPPED / 'smoke.toml'}",
        ) from None
    except ValueError:  # int() refuses decimal numbers of more than 4,300 digits
        digits = re.search(r"[\d_]{4300,}", text)
        place = f"{file}, line {text.count(chr(10), 0, digits.start()) + 1}" if digits else file
        raise UserError("a number is too long", where=place, allowed="at most 19 digits") from None
    except RecursionError:
        raise UserError("lists or tables are nested too deeply", where=file) from None


def _tables(values: Mapping[str, object], file: str, spelling: Spelling) -> list[Mapping[str, object]]:
    """Return the ``[[task]]`` tables, or one that stands for ``task = "sub"`` at the top."""
    tasks = values.get("task")
    hint = 'write\n           [[task]]\n           task = "sub"'
    if "task" not in values:
        what = "the declaration names no task" if values else "the declaration is empty"
        raise UserError(what, where=file, allowed=", ".join(task_names()) + ", or all", next_step=hint)
    if isinstance(tasks, list) and tasks and all(isinstance(table, dict) for table in tasks):
        return tasks
    if isinstance(tasks, str) or (isinstance(tasks, list) and tasks and isinstance(tasks[0], str)):
        return [{"task": tasks}]
    raise UserError(
        f"task is {shown(tasks)}",
        where=spelling.where("task"),
        allowed="[[task]] tables, a name, or a list of names",
        next_step=hint,
    )


def _settings_of(table: Mapping[str, object], defaults: Mapping[str, object], spelling: Spelling) -> list[TaskSettings]:
    """Return the settings of every task that one ``[[task]]`` table names."""
    for key in table:
        if key in HEADER:
            raise UserError(
                f"{key} belongs to the whole declaration, not to a task",
                where=spelling.where(key),
                next_step="move it to the top of the file, before the first [[task]]",
            )
        if key not in RULES:
            raise unknown_key(key, RULES, spelling)
    if "task" not in table:
        raise UserError(
            "this [[task]] table names no task",
            where=spelling.where(),
            allowed=", ".join(task_names()) + ", or all",
            next_step='add a line such as task = "sub"',
        )
    return [TaskSettings.of({**defaults, **table, "task": name}, spelling) for name in _expand(table["task"], spelling)]


def _expand(tasks: object, spelling: Spelling) -> list[str]:
    """Return the short names of a task, a list of tasks, or all."""
    given: Iterable[object] = tasks if isinstance(tasks, list | tuple) else [tasks]
    names: list[str] = []
    for task in given:
        names += task_names() if task == "all" else [check_task(task, spelling)]
    if not names:
        raise UserError(
            f"no {spelling.name('task')} is given",
            where=spelling.where("task"),
            allowed=", ".join(task_names()) + ", or all",
        )
    return names


def from_flags(tasks: Sequence[str], **settings: object) -> Declaration:
    """Return the declaration that options of the command line make, the same settings for each task.

    Args:
        tasks: the values of ``--task``; ``all`` stands for every task.
        settings: fields of ``TaskSettings``; None and empty lists count as not given.

    Raises:
        UserError: a value that is refused; the message names the option.
    """
    given = {key: value for key, value in settings.items() if value is not None and value not in ([], ())}
    spelling = FlagSpelling({**given, "task": list(tasks)})
    options = tuple(key for key in RULES if key not in ("task", "max_len"))
    for key in given:
        if key not in options:
            raise unknown_key(spelling.name(key), options, spelling, where="the command line")
    if not tasks:
        raise UserError(
            "no --task and no declaration is given",
            allowed=", ".join(task_names()) + ", all; or " + ", ".join(shipped_declarations()),
            next_step="caef-data build --task sub, or caef-data build smoke",
        )
    names = _expand(list(tasks), spelling)
    check_twice([(name, spelling) for name in names])
    name = "all" if set(names) == set(task_names()) else "-".join(names)[:96].strip("-")
    return Declaration(name=name, tasks=tuple(TaskSettings.of({**given, "task": n}, spelling) for n in names))


def rebuild_command(declaration: Declaration) -> str:
    """Return the command line that builds the same dataset again.

    Tasks with their own settings and no file need one command each; they add to the same folder.
    """
    if declaration.source is not None:
        file = Path(declaration.source).name  # the folder it lay in is nobody else's concern
        plain = "".join(one if one.isprintable() else "?" for one in file)
        return f"caef-data build {shlex.quote(plain)}"
    if any(settings.max > MAX_LEN for settings in declaration.tasks):
        return f"caef-data build {declaration.name}.toml"  # only a file may raise the ceiling
    groups: dict[str, list[str]] = {}
    for settings in declaration.tasks:
        groups.setdefault(_options(settings), []).append(settings.task)
    commands = []
    for options, names in groups.items():
        every = set(names) == set(task_names())
        commands.append(" ".join(["caef-data build", *(f"--task {n}" for n in (["all"] if every else names)), options]))
    return " && ".join(commands)


def _options(settings: TaskSettings) -> str:
    """Return the lengths, the number and whatever differs from the defaults, as options."""
    values = settings.to_dict()
    defaults = {**DEFAULTS, "num_test": max(1, settings.num // 10), "splits": ["train", "test"]}
    skipped = ("task", "max_len")  # only a file holds max_len
    keys = [key for key in RULES if key not in skipped]
    spelling = FlagSpelling({})
    return " ".join(
        spelling.setting(key, values[key])
        for key in keys
        if key in ("min", "max", "num") or values[key] != defaults[key]
    )
