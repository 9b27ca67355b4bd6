"""How a dataset is made again: the commands that its manifest records stay true, and the files that they read are told.

An entry of a manifest names the command that made it. A later build can leave that untrue: ``--overwrite`` replaces one
task of several, and a declaration's file asks for other views than before.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from itertools import chain, count
from pathlib import PurePath
from typing import Any

from ..errors import UserError
from ..tm import machine, tasks
from .card_merge import BEGIN, END_MARK
from .declaration import DRAWN, rebuild_command
from .folder import task_of
from .manifest import split_entries
from .settings import DEFAULT_VIEWS, SPLITS, VIEWS, Declaration, TaskSettings
from .spelling import as_toml

MOST_TEXT = 50_000  # characters of machines in a card
MOVES = {-1: "L", 0: "N", 1: "R"}
ARROWS = {-1: "<", 0: "-", 1: ">"}
BUILD = "caef-data build"
Manifest = Mapping[str, Any]
Pairs = set[tuple[str, str]]  # views with splits


# ----------------------------------------------------------------------------------------------------------
# The commands of a manifest


def without_tasks(manifest: Manifest, gone: set[str], where: str) -> None:
    """Have the commands that made tasks which go make what stays of their builds; the manifest changes.

    Raises:
        UserError: what stays was built of a file of expressions, which holds those of a task that goes, too.
    """
    for command in dict.fromkeys(
        entry["command"] for name, _, entry in split_entries(manifest) if task_of(name) in gone
    ):
        entries = [
            one for one in split_entries(manifest) if one[2]["command"] == command and task_of(one[0]) not in gone
        ]
        of_file = [task_of(name) for name, *_ in entries if manifest["tasks"][task_of(name)].get("expressions")]
        if of_file:
            both = f"{', '.join(sorted(gone))} and {of_file[0]}"
            raise UserError(
                f"{both} were built of one file of expressions: no command would make {of_file[0]} again",
                where=where,
                allowed="a file that has expressions of each of these tasks",
                next_step="choose another folder with --out",
            )
        if entries and file_of(command) is None:
            again = _command(manifest, _made(manifest, command, gone))
            for _, _, entry in entries:
                entry["command"] = again


def renamed(manifest: Manifest, command: str, made: Pairs) -> None:
    """Give what a command made, and makes no more, a file of its own to be made by; the manifest changes.

    Args:
        manifest: the manifest.
        command: of a build that has ended.
        made: its configs and splits.
    """
    entries = [(name, split, entry) for name, split, entry in split_entries(manifest) if entry["command"] == command]
    kept = [entry for name, split, entry in entries if (name, split) not in made]
    words = shlex.split(command)
    if kept and len(words) == 3:  # options say themselves what they make
        again = _fresh(manifest, PurePath(words[2]).stem, start=1)
        for entry in kept:
            entry["command"] = again


def _fresh(manifest: Manifest, stem: str, start: int = 0) -> str:
    taken = {entry["command"] for _, _, entry in split_entries(manifest)}
    names = (f"{BUILD} {shlex.quote(stem + (f'-{number}' if number else '') + '.toml')}" for number in count(start))
    return next(name for name in names if name not in taken)


def _command(manifest: Manifest, made: Mapping[str, dict[str, Any]]) -> str:
    """Return the command that makes some settings again: options where these can say it."""
    name = "-".join(made)[:90].strip("-_")
    notes = [manifest["tasks"][task] for task in made]
    if not any(own.get("machine") or own["settings"].get("budget") for own in notes):  # a budget is one of all tasks
        try:
            declared = Declaration(name=name, tasks=tuple(map(TaskSettings.of, made.values())))
            command = rebuild_command(declared)
        except UserError:  # a task that is not here
            return _fresh(manifest, name)
        if file_of(command) is None:
            return command
    return _fresh(manifest, name)


def file_of(command: str) -> str | None:
    """Return the name of the file that a command reads; None where it reads none but what comes with caef-data."""
    try:
        words = shlex.split(command)
    except ValueError:
        return None
    return words[2] if len(words) == 3 and words[2].endswith(".toml") else None


def _made(manifest: Manifest, command: str, gone: set[str] | None = None) -> dict[str, dict[str, Any]]:
    """Return the settings of each task that a command makes, with the views and splits that it makes of it."""
    own, there = dict[str, Pairs](), dict[str, Pairs]()
    for name, split, entry in split_entries(manifest):
        task, _, view = name.rpartition("-")
        there.setdefault(task, set()).add((view, split))
        if entry["command"] == command and task not in (gone or ()):
            own.setdefault(task, set()).add((view, split))
    return {task: _settings(manifest["tasks"].get(task, {}), task, own[task], there[task]) for task in sorted(own)}


def _settings(notes: Manifest, task: str, pairs: Pairs, there: Pairs) -> dict[str, Any]:
    """Return the settings that make some views and splits; those of a manifest are what the last build asked for.

    What an earlier build made, the last one did not ask for: all that it asks for has its own command.
    """
    settings: dict[str, Any] = notes.get("settings", {})
    views, splits = ([*own] if isinstance(own := settings.get(key), list) else None for key in ("views", "splits"))
    missing = _missing(notes, task)

    def asked(views: list[str] | None, splits: list[str]) -> Pairs:
        of = ((view, split) for split in splits for view in views or DEFAULT_VIEWS.get(split, ()))
        return {(view, split) for view, split in of if view not in missing}

    if pairs & asked(views, splits or []):
        return settings
    if not settings.get("expressions"):  # of some expressions a split may hold none
        splits = [split for split in SPLITS if split in {split for _, split in pairs}]
    every = [view for view in VIEWS if view in {view for view, _ in pairs}]
    held = {split for _, split in there}
    usual = {(view, split) for view, split in asked(None, splits or []) if split in held}
    return {**settings, "splits": splits, "views": None if pairs <= usual <= there else every}


def _missing(notes: Manifest, task: str) -> set[str]:
    """Return the views that a task has not."""
    if spec := notes.get("machine"):
        return {"aligner", "slips", *(["raw"] if spec.get("output") is None else [])}
    return {*machine(task).missing_views()} if task in tasks() else set()


# ----------------------------------------------------------------------------------------------------------
# The file that a command reads


def declaration_text(command: str, manifest: Manifest) -> list[str]:
    """Return what a card says of the file that a command reads; nothing where it reads none of its own."""
    if (file := file_of(command)) is None:
        return []
    made = _made(manifest, command)
    if (text := _written(made, manifest)) is not None:
        return [f"where `{file}` is\n", "```toml", text, "```\n"]
    machines = [task for task in made if manifest["tasks"].get(task, {}).get("machine")]
    named = ", ".join(f"`{task}`" for task in machines[:8]) + ", ..." * (len(machines) > 8)
    what = f"declares the machines {named}" if machines else "names several files"
    more = "`manifest.json` has the rules of each and all settings" if machines else "`manifest.json` has all settings"
    return [f"where `{file}` {what} in a way that cannot be written here; {more}.\n"]


def _written(made: Mapping[str, dict[str, Any]], manifest: Manifest) -> str | None:
    """Return a declaration of some settings; None where none makes the same, or none that a card can hold."""
    notes = {task: manifest["tasks"].get(task, {}) for task in made}
    tables = [_machine(task, own["machine"]) for task, own in notes.items() if own.get("machine")]
    files = {(own["expressions"]["file"] if own.get("expressions") else None) for own in notes.values()}
    if None in tables or len(files) > 1:
        return None
    file = next(iter(files), None)
    lines = [f"expressions = {as_toml(file)}"] if file is not None else []
    left_out = (*DRAWN, "expressions") if file is not None else ()
    for settings in made.values():
        values = {key: value for key, value in sorted(settings.items()) if value is not None and key not in left_out}
        lines += ["[[task]]", *(f"{key} = {as_toml(value)}" for key, value in values.items())]
    text = "\n".join([*lines, *(table for table in tables if table)])
    unfit = any(mark in text for mark in (BEGIN, END_MARK)) or any("\ud800" <= sign <= "\udfff" for sign in text)
    return None if unfit or sum(len(table or "") for table in tables) > MOST_TEXT else text


def _machine(task: str, spec: Manifest) -> str | None:
    """Return the ``[[machine]]`` table of a task; None where none makes it, as of families split by machines."""
    from ..tm.formats import read_table
    from ..tm.formats.rules import RuleTable

    keys = [(key, spec.get(own)) for key, own in (("input", "words"), ("output", "output"), ("example", "example"))]
    if spec.get("side") is not None:
        return None
    for format, write in (("turingmachine.io", _as_yaml), ("turingmachinesimulator", _as_pairs)):
        try:
            table = RuleTable.of(spec["table"])
            text = write(table)
            same = read_table(format, text, "card")[0].identity == table.identity
        except (UserError, LookupError, TypeError, ValueError, AttributeError):
            continue
        if same:
            values = [("name", task), ("format", format), *keys]
            lines = [f"{key} = {as_toml(value)}" for key, value in values if value is not None]
            written = as_toml(text) if "'''" in text else f"'''\n{text}'''"
            return "\n".join(["[[machine]]", *lines, f"table = {written}"])
    return None


def _as_yaml(table: Any) -> str:
    """Return a machine of one tape as turingmachine.io has it."""
    [blank, start], states = map(as_toml, (table.blank, table.start)), dict[str, list[str]]()
    for (state, (read,)), rule in table.rules.items():
        then = f"{{write: {as_toml(rule.write[0])}, {MOVES[rule.moves[0]]}: {as_toml(rule.next)}}}"
        states.setdefault(state, []).append(f"    {as_toml(read)}: {then}\n")
    rows = (f"  {as_toml(state)}:\n{''.join(states.get(state, ()))}" for state in table.states)
    return f"blank: {blank}\nstart state: {start}\ntable:\n{''.join(rows)}"


def _as_pairs(table: Any) -> str:
    """Return a machine as turingmachinesimulator.com has it."""
    if table.blank != "_":
        raise ValueError("its blank is always _")
    return f"init: {table.start}\n" + "".join(_pairs(table))


def _pairs(table: Any) -> Iterator[str]:
    for (state, read), rule in table.rules.items():
        yield f"{','.join([state, *read])}\n"
        yield f"{','.join(chain([rule.next], rule.write, (ARROWS[move] for move in rule.moves)))}\n"
