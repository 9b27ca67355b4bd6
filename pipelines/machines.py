"""Turing machines that a declaration brings: its ``[[machine]]`` tables, and the list of what they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec
from rich.table import Table
from rich.text import Text

from ..errors import UserError, did_you_mean, printable_path, quoted
from ..tm.formats import LARGEST, read_table
from ..tm.formats.families import machine_side, random_machines
from ..tm.formats.rules import RuleTable
from ..tm.registry import machine, register, tasks
from ..tm.turing import TuringMachine, run_to_end
from .declaration import SHIPPED, load_declaration, read_toml
from .folder import no_dataset
from .manifest import MANIFEST, define_machines
from .store import open_folder
from .terminal import open_console, print_table

MACHINES = "machines"  # the declaration of those that come with caef-data


@dataclass(frozen=True, kw_only=True)
class MachineSettings:
    """A ``[[machine]]`` table: a machine in a format, or a family of random ones."""

    name: str
    """The task; of a family what its machines' names begin with."""
    format: str | None = None
    """turingmachine.io, bbchallenge, jflap or turingmachinesimulator."""
    table: str | None = None
    """The machine, as text."""
    file: str | None = None
    """The file that holds it; beside the declaration, unless its path is absolute."""
    input: str | None = None
    """A regular expression of the words that it is given; all words over its symbols by default."""
    output: str | None = None
    """Its answer: ``tape`` (``tape 2`` ...) or ``state``; without it there are no raw rows."""
    example: str | None = None
    """A word to show it with."""
    family: Literal["random"] | None = None
    """A family instead of one machine."""
    states: int | None = None
    """Of a family: the states of each machine."""
    symbols: int | None = None
    """Of a family: the symbols of each, the blank 0 included."""
    count: int | None = None
    """Of a family: the number of machines."""
    seed: int = 42
    """Of a family: the seed of the draw."""
    split: Literal["word", "machine"] = "word"
    """What train and test share none of: words, or whole machines (by the hash of their canonical form)."""


KEYS = tuple(setting.name for setting in fields(MachineSettings))
OF_FAMILY = ("states", "symbols", "count")


def machines_of(tables: object, file: str, folder: Path | None) -> dict[str, list[str]]:
    """Make the machines of a declaration tasks; return the tasks of each ``[[machine]]`` table, by its name.

    Args:
        tables: the tables, as TOML gives them; may be anything.
        file: what messages name.
        folder: where the files of machines are looked for; None for the current one.

    Raises:
        UserError: a value, a text or a name that is refused; no machine is a task then.
    """
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise UserError("machine must be a list of tables", where=file, allowed="[[machine]], then name = ...")
    made, found = _read_all(tables, file, folder)
    for one in found:
        register(one)
    return made


def is_shipped(name: str) -> bool:
    """Tell whether the Turing machine that is a task now is one that comes with caef-data."""
    return _shipped().get(name) == machine(name).identity()


@cache
def _shipped() -> dict[str, dict[str, object]]:
    path = str(SHIPPED / f"{MACHINES}.toml")
    return {one.name: one.identity() for one in _read_all(read_toml(path)["machine"], path, SHIPPED)[1]}


def _read_all(
    tables: list[Mapping[str, Any]], file: str, folder: Path | None
) -> tuple[dict[str, list[str]], list[TuringMachine]]:
    """Return the names of the machines of each table, and the machines."""
    made, taken = dict[str, list[str]](), dict[str, TuringMachine | None]()
    for number, table in enumerate(tables, 1):
        settings = _settings(table, f"{file}, [[machine]] {number}")
        own = {found.name: found for found in _machines(settings, f"{file}, machine {settings.name}", folder or Path())}
        if again := taken.keys() & {settings.name, *own}:
            raise UserError(f"two machines are called {quoted(min(again))}", where=file)
        taken |= {settings.name: None, **own}
        made[settings.name] = [*own]
    return made, [one for one in taken.values() if one is not None]


def _settings(table: Mapping[str, Any], where: str) -> MachineSettings:
    for key in table:
        if key not in KEYS:
            what = f"unknown setting {quoted(key)}{did_you_mean(key, KEYS)}"
            raise UserError(what, where=where, allowed=", ".join(KEYS))
    try:
        settings: MachineSettings = msgspec.convert(table, MachineSettings)
    except msgspec.ValidationError as error:
        raise UserError(f"this machine is refused: {quoted(error, 200)}", where=where) from error
    given = [key for key in OF_FAMILY if getattr(settings, key) is not None]
    sources = [key for key in ("table", "file") if getattr(settings, key) is not None]
    if settings.family is None and (given or len(sources) != 1 or settings.format is None):
        what = f"{given[0]} is for a family" if given else "a machine is one text in one format"
        raise UserError(what, where=where, allowed="format with table or file; or family, states, symbols, count")
    if settings.family is not None and (len(given) < len(OF_FAMILY) or sources or settings.format):
        raise UserError("a family has no text of its own", where=where, allowed="family, states, symbols, count, seed")
    if settings.split == "machine" and settings.family is None:
        raise UserError("one machine cannot be split by machines", where=where, allowed='split = "machine" of a family')
    return settings


def _machines(settings: MachineSettings, where: str, folder: Path) -> list[TuringMachine]:
    more = {"words": settings.input, "output": settings.output}
    if settings.family is None:
        table, example = _read(settings, where, folder)
        return [TuringMachine(settings.name, table, example=settings.example or example, **more)]
    tables = random_machines(settings.states or 0, settings.symbols or 0, settings.count or 0, settings.seed)
    made = []
    for number, table in enumerate(tables, 1):
        name = f"{settings.name}_{str(number).zfill(len(str(settings.count)))}"
        side = machine_side(table) if settings.split == "machine" else None
        made.append(TuringMachine(name, table, side=side, **more))
    return made


def _read(settings: MachineSettings, where: str, folder: Path) -> tuple[RuleTable, str | None]:
    form = settings.format or ""
    if settings.file is None:
        return read_table(form, settings.table or "", where)
    path = folder / settings.file
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(LARGEST + 1)  # one more is refused
    except UnicodeDecodeError:
        raise UserError("this file is not UTF-8 text", where=printable_path(path)) from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a path"
        what = f"the file of machine {settings.name} cannot be read: {why}"
        raise UserError(
            what, where=printable_path(path), next_step="a file is looked for beside the declaration"
        ) from None
    return read_table(form, text, printable_path(path))


# ----------------------------------------------------------------------------------------------------------
# For people


def find_task(task: str, within: str | None) -> None:
    """Make a Turing machine a task: from a declaration or a dataset, or from those that come with caef-data.

    Raises:
        UserError: the declaration or dataset cannot be read.
    """
    if within is not None and Path(within).is_dir():
        folder = open_folder(within)
        manifest = folder.manifest()
        if not manifest:
            raise no_dataset(folder)
        define_machines(manifest, folder.where(MANIFEST))
    elif within is not None:
        load_declaration(within)
    elif task not in tasks() and (shipped := SHIPPED / f"{MACHINES}.toml").exists():
        load_declaration(shipped.stem)


def list_machines(declaration: str | None, most: int, *, as_json: bool) -> None:
    """Print what the machines of a declaration are, and what each does with its example, or on a blank tape.

    Args:
        declaration: its name or path; None for the machines that come with caef-data.
        most: steps of a run at most.
        as_json: a JSON list instead of a table.

    Raises:
        UserError: it cannot be read, or brings no machine.
    """
    brought = load_declaration(declaration or MACHINES).machines
    if declaration is not None and not brought:
        where, allowed = printable_path(declaration), "[[machine]] tables: see docs/machines.md"
        raise UserError("this declaration brings no machine", where=where, allowed=allowed)
    found = [one for one in map(machine, brought) if isinstance(one, TuringMachine)]
    rows = [_row(one, most) for one in found]
    if as_json:
        print(json.dumps(rows))
        return
    console = open_console()
    table = Table(box=None, pad_edge=False)
    for column in ("machine", "format", "states", "symbols", "word", "steps", "ends in", "marks"):
        table.add_column(column, justify="right" if column in ("states", "symbols", "steps", "marks") else "left")
    for row in rows:
        steps = f"{row['steps']:,}" if row["halted"] else f"more than {row['steps']:,}"
        word = row["word"] or "blank"
        cells = (row["name"], row["source"], row["states"], row["symbols"], word, steps, row["state"], row["marks"])
        table.add_row(*(Text(str(cell)) for cell in cells))
    print_table(console, table)


def _row(found: TuringMachine, most: int) -> dict[str, Any]:
    word = found.example[0]
    end = run_to_end(found.table, found.start(word), most)
    return {
        "name": found.name,
        "source": found.source,
        "states": len(found.table.states),
        "symbols": len(found.table.symbols),
        "tapes": found.table.num_tapes,
        "identity": found.table.identity,
        "side": found.side,
        "word": word,
        "steps": end.steps,
        "halted": end.halted,
        "state": end.state,
        "marks": end.marks,
    }
