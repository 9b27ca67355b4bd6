"""Declarations: what a dataset holds, from a TOML file or from the options of the command line, and back."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError, did_you_mean, printable_path, quoted, shell_quoted
from .budget import BUDGET, check_budget
from .settings import (
    HEADER,
    KEYS,
    MAX_LEN,
    OF_STREAMS,
    Declaration,
    TaskSettings,
    check_field,
    check_keys,
    check_task,
    task_names,
)
from .spelling import Spelling, as_option, literal, option

if TYPE_CHECKING:
    from .expressions import Own

DRAWN = ("min", "max", "num", "num_test", "balance", "rows", "tokens")  # which expressions are drawn
SHIPPED = Path(__file__).resolve().parent.parent / "datasets"
MAX_BYTES = 1_000_000  # a declaration is a page of text
Declared = str | Path | Mapping[str, object] | Declaration


def shipped_declarations() -> tuple[str, ...]:
    """Return the names of the declarations that come with the package."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.toml")))


def shipped_machines() -> tuple[str, ...]:
    """Make the Turing machines that come with caef-data tasks; return their names."""
    return load_declaration("machines").machines


def load_declaration(name_or_path: str, tokenizer: str | None = None) -> Declaration:
    """Return a shipped declaration by its name, or the declaration in a ``.toml`` file.

    ``tokenizer`` is taken in place of the one that it names, if any.

    Raises:
        UserError: there is no such declaration, or its text is refused; the message names the line.
    """
    names, shipped = shipped_declarations(), f"{name_or_path}.toml"
    if name_or_path in names or name_or_path.endswith(".toml"):
        given = Path(name_or_path), printable_path(name_or_path)
        path, file = (SHIPPED / shipped, shipped) if name_or_path in names else given
        made = parse_declaration(_read(path, file), file, source=name_or_path)
        return made if tokenizer is None else replace(made, tokenizer=tokenizer)
    raise UserError(
        f"there is no declaration {quoted(name_or_path)}{did_you_mean(name_or_path[:60], names)}",
        allowed=", ".join(names) + ", or a path that ends in .toml",
        next_step=f"caef-data build --task {name_or_path}" if name_or_path in task_names() else None,
    )


def declared(declaration: Declared | None = None, **settings: object) -> Declaration:
    """Return the declaration of a name, a path, a dict as TOML has it, or keyword settings.

    Raises:
        UserError: it is refused, or settings are given twice.
    """
    if settings and declaration is not None:
        what = f"a declaration and settings beside it: {', '.join(settings)}"
        raise UserError(what, allowed="a name, a path or a dict; or keyword settings alone")
    declaration = settings if declaration is None else declaration
    if isinstance(declaration, Declaration):
        return declaration
    if isinstance(declaration, str | Path):
        return load_declaration(str(declaration))
    if not isinstance(declaration, Mapping):
        raise UserError(f"this is no declaration: {quoted(declaration)}", allowed="a name, a path, a dict or settings")
    return declaration_of(declaration, Spelling(file="the declaration"))


def _read(path: Path, file: str) -> str:
    """Return the text of a file that may be anything."""
    try:
        if path.is_file() and path.stat().st_size <= MAX_BYTES:
            return path.read_bytes().decode("utf-8-sig")
        problem = "is too large" if path.is_file() else "is not a file" if path.exists() else "does not exist"
    except (OSError, ValueError) as error:  # ValueError: no UTF-8 text, or a path with a NUL byte
        problem = f"cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}"
    allowed = f"a TOML file in UTF-8 of up to {MAX_BYTES:,} bytes, or one of {', '.join(shipped_declarations())}"
    raise UserError(f"the declaration {file} {problem}", allowed=allowed, next_step="caef-data build smoke")


def parse_declaration(text: str, file: str = "declaration", *, source: str | None = None) -> Declaration:
    """Return the declaration in TOML ``text``; messages name it ``file``.

    Raises:
        UserError: TOML that is none, or a declaration that is refused.
    """
    return declaration_of(parse_toml(text, file), Spelling(file=file, text=text), source=source)


def read_toml(path: str) -> dict[str, Any]:
    """Return what a TOML file holds; raises UserError where it cannot be read, or is none."""
    file = printable_path(path)
    return parse_toml(_read(Path(path), file), file)


def parse_toml(text: str, file: str) -> dict[str, Any]:
    """Return the values of TOML text; raises UserError where it is none."""
    import tomllib  # inside: options need none

    try:
        return tomllib.loads(text)
    except RecursionError:
        raise UserError("lists or tables are nested too deeply", where=file) from None
    except ValueError as error:  # also int()'s, of numbers of more than 4,300 digits
        message = str(error).replace("at end of document", f"at line {text.rstrip().count(chr(10)) + 1}")
        line = re.search(r"at (line \d+)", message)
        raise UserError(
            f"this is not TOML: {quoted(message, 200)[1:-1]}",
            where=f"{file}, {line[1]}" if line else file,
        ) from None


def declaration_of(
    values: Mapping[str, Any],
    spelling: Spelling,
    *,
    source: str | None = None,
) -> Declaration:
    """Return the declaration that values make, as TOML has them.

    Args:
        values: settings of every task, and ``task``: a name, names, or a list of tables.
        spelling: what messages name.
        source: the declaration's name or path, where it has one.

    Raises:
        UserError: a value that is refused.
    """
    values = {key: value for key, value in values.items() if key not in ("eval", "train")}  # others read these
    families = _families(values.pop("machine"), spelling, source) if "machine" in values else {}
    check_keys(values, (*HEADER, *OF_STREAMS, *KEYS), spelling)
    tables = values.get("task")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        tables = [{"task": tables}]
    file = values.pop("expressions", None)
    own = {} if file is None else _read_own(file, Path(source or "").parent, [values, *tables], spelling)
    if "task" not in values:
        tables = [{"task": [*families, *own] or None}]
    defaults = {key: value for key, value in values.items() if key in KEYS and key != "task"}
    for key, value in defaults.items():  # one that every task overrides must make sense, too
        if not (families and value == 0 and key in ("min", "max")):  # the empty word
            check_field(TaskSettings, key, value, spelling)
    tasks: list[TaskSettings] = []
    for table in tables:
        for name in _names(table.get("task"), spelling, families):
            tasks += _settings({**defaults, **table}, name, spelling, own)
    _check_own(own, tasks, spelling)
    check_budget(values, tables, any(settings.views_of("train") for settings in tasks), spelling)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(source or "").stem).strip("-._")[:96] or "declaration"
    header = {"name": name, **{key: values[key] for key in (*HEADER, *OF_STREAMS) if key in values}}
    brought = tuple(name for names in families.values() for name in names)
    return Declaration(**header, tasks=tuple(tasks), source=source, machines=brought, spelling=spelling)


def _families(tables: object, spelling: Spelling, source: str | None) -> dict[str, list[str]]:
    """Make the machines of a declaration tasks; return the tasks of each, a family's are many."""
    from .machines import machines_of  # inside: most declarations have none

    return machines_of(tables, spelling.file or "", Path(source).parent if source else None)


def _read_own(given: object, folder: Path, tables: Sequence[Mapping[str, Any]], spelling: Spelling) -> "dict[str, Own]":
    """Read the file of expressions that settings name; those that say which expressions are drawn are refused."""
    from .expression_file import read_expressions

    drawn = [key for table in tables for key in (*DRAWN, "expressions") if key in table]
    if drawn or not isinstance(given, str):
        name = spelling.name("expressions")
        allowed = f"the name of a file, once, at the top; without {', '.join(DRAWN)}"
        what = f"{name} goes without {spelling.name(drawn[0])}" if drawn else f"{name} is {literal(given)}"
        raise spelling.refusal(what, "expressions", *drawn[:1], allowed=allowed)
    try:
        return read_expressions(str(folder / given))
    except UserError as error:
        if spelling.file is None:
            raise
        where = f"{error.where}, named in {spelling.where('expressions')}"
        raise UserError(error.what, where=where, allowed=error.allowed, next_step=error.next_step) from error


def _check_own(own: "Mapping[str, Own]", tasks: Sequence[TaskSettings], spelling: Spelling) -> None:
    """Refuse a file of expressions that are built in no task, or of test in a build of train alone."""
    if lost := [one for task, one in own.items() if task not in [settings.task for settings in tasks]]:
        what = f"{lost[0].file} holds {len(lost[0].rows):,} expressions of {lost[0].task}, which is not asked for"
        raise spelling.refusal(what, "task", "expressions", allowed=f"all tasks of the file: {', '.join(own)}")
    for settings in tasks:
        held = own[settings.task].sides.nonzero()[0].tolist() if own else []
        if settings.splits == ("train",) and not settings.allow_test and held:
            first = own[settings.task].rows.row(held[0], named=True)
            told = f"the first is {' '.join(filter(None, (settings.task, first['a'], first['b'])))}"
            raise spelling.refusal(
                f"{len(held):,} expressions of {own[settings.task].file} belong to test or stress: {told},"
                f" line {first['line']:,}",
                *("splits", "expressions"),
                allowed=f"{spelling.setting('splits', ('train', 'test', 'stress'))}, which keeps them apart; or"
                f" {spelling.setting('allow_test', True)}, which trains on them",
            )


def _settings(
    values: Mapping[str, Any], name: str, spelling: Spelling, own: "Mapping[str, Own]"
) -> Iterator[TaskSettings]:
    """Yield the settings of a task; a machine of a family that is split by machines is built in its own split alone."""
    from ..tm import machine  # inside: options need no machines

    if own and name not in own:
        what = f"there is no expression of {name} in the file"
        raise spelling.refusal(what, "task", "expressions", allowed=", ".join(own))
    if own:
        low, high = own[name].lengths
        values = {**values, "min": low, "max": high, "expressions": own[name].key}
    settings, side = TaskSettings.of({**values, "task": name}, spelling), machine(name).side
    if side is None:
        yield settings
    elif side in settings.splits:
        yield replace(settings, splits=(side,))


def _names(given: object, spelling: Spelling, families: Mapping[str, list[str]]) -> list[str]:
    """Return the short names of a task or a list of tasks; ``all`` stands for all that caef-data has."""
    listed = (given or [None]) if isinstance(given, list) else [given]
    names: list[str] = []
    for task in listed:
        of_family = families.get(task) if isinstance(task, str) else None
        names += of_family or (_shipped_tasks() if task == "all" else [check_task(task, spelling)])
    return names


def _shipped_tasks() -> list[str]:
    """Return the tasks that ``all`` stands for: those of files of caef-data, not those of declarations."""
    from ..tm import machine

    return [name for name in task_names() if not machine(name).spec()]


def from_flags(tasks: Sequence[str], **settings: object) -> Declaration:
    """Return the declaration that options of the command line make, the same settings for each task.

    Args:
        tasks: the values of ``--task``; ``all`` stands for every task.
        settings: fields of ``TaskSettings``; None and empty lists count as not given.

    Raises:
        UserError: a value that is refused; the message names the option.
    """
    given = {key: value for key, value in settings.items() if value is not None and value not in ([], ())}
    known = [key for key in (*KEYS, *BUDGET) if key not in ("task", "max_len", "budget")]
    check_keys(given, known, Spelling(options={}))
    values = given | ({"task": list(tasks)} if tasks else {})
    made = declaration_of(values, Spelling(options={**given, "task": list(tasks)}))
    names = [task.task for task in made.tasks]
    return replace(made, name="all" if set(names) == set(_shipped_tasks()) else "-".join(names)[:96].strip("-"))


def rebuild_command(declaration: Declaration, *, here: bool = False) -> str:
    """Return the command line that builds the same dataset again; it names a file where options cannot say it.

    ``here`` gives files by the paths that were given; else by their names alone, for others to read.
    """
    if here and declaration.source is not None:
        return f"caef-data build {shell_quoted(declaration.source)}"
    if declaration.source is not None:  # the folder it lay in is nobody else's concern
        file = "".join(letter if letter.isprintable() else "?" for letter in Path(declaration.source).name)
        return f"caef-data build {shlex.quote(file)}"
    asked, budget = {key: getattr(declaration, key) for key in BUDGET}, declaration.tasks[0].budget
    if budget is not None:
        asked |= {budget.unit: budget.asked, "tokenizer": declaration.tokenizer or budget.tokenizer}
    options = {_options(settings, bool(asked["rows"] or asked["tokens"]), here) for settings in declaration.tasks}
    if len(options) > 1 or not all(map(_of_options, declaration.tasks)):
        return f"caef-data build {declaration.name}.toml"
    names = [settings.task for settings in declaration.tasks]
    words = [as_option("task", ["all"] if {*names} == {*_shipped_tasks()} else names), *options]
    words += [f"{option(key)} {shlex.quote(str(value))}" for key, value in asked.items() if value is not None]
    return f"caef-data build {' '.join(words)}"


def _of_options(settings: TaskSettings) -> bool:
    """Tell whether options can ask for a task: its lengths, and a machine that comes with caef-data."""
    from ..tm import machine

    if machine(settings.task).numbers:
        return settings.max <= MAX_LEN
    from .machines import is_shipped

    return 1 <= settings.min and settings.max <= MAX_LEN and is_shipped(settings.task)


def _options(settings: TaskSettings, budgeted: bool, here: bool) -> str:
    """Return the lengths, the number where no budget decides it, and whatever differs from the defaults, as options."""
    values = settings.to_dict()
    usual = TaskSettings(task=settings.task, num=settings.num).to_dict()
    always = ("min", "max") if budgeted else ("min", "max", "num")
    left_out, file = {"max_len", "budget", "expressions"}, ""
    if settings.expressions is not None:
        from .expressions import own_expressions

        own = own_expressions(settings.expressions)
        name = shlex.quote("".join(letter if letter.isprintable() else "?" for letter in own.file))
        left_out, file = left_out | {*DRAWN}, f"--expressions {shell_quoted(own.path) if here else name} "
    given = [key for key in KEYS[1:] if key in always or values.get(key) != usual.get(key)]
    return (file + " ".join(as_option(key, values[key]) for key in given if key not in left_out)).rstrip()
