"""What a manifest says: against its declaration, which is planned again here, against the files, and against the card.

A dataset is a pure function of its declaration. The settings in the manifest are planned by the builder's own code, so
that nothing can be missing, added or put in another order; ``verify_shard`` compares the rows.
"""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .. import __version__
from ..errors import UserError, printable_path, quoted
from ..schemas import row_schema
from ..tm import machine as tm_machine
from ..tm import tasks as machines
from .budget import BUDGET
from .build import no_dataset
from .card import card, card_there, is_first_card
from .card_merge import OURS, Card, UnmarkedError, without_examples, without_place
from .declaration import from_flags, load_declaration, shipped_declarations
from .expressions import allowed_test
from .folder import Folder
from .manifest import CARD, CONFIG, MANIFEST, ShardRecord, WrongError, define_machines, manifest_from, shard_record
from .plan import Config, split_configs
from .settings import KEYS, Declaration, TaskSettings, digest
from .spelling import option
from .verify_shard import Finding, Part
from .versions import EARLIER, rules

UNMARKED = ("0.1.0",)  # releases whose cards have no marks
_ROWS_PER_PART = 100_000
Pairs = set[tuple[str, str]]  # (split, view)


def read_manifest(directory: Path, verb: str) -> dict[str, Any]:
    """Read the manifest of a built folder.

    Raises:
        UserError: there is no folder, no manifest (a build has not finished), or it cannot be understood.
    """
    path = directory / MANIFEST
    if not path.is_file():
        raise no_dataset(Folder(directory), verb)
    try:
        manifest = manifest_from(path.read_bytes())
    except (OSError, WrongError) as error:
        raise UserError(
            f"{MANIFEST} cannot be understood: {error}",
            where=printable_path(path),
            next_step="build the dataset again with caef-data build",
        ) from error
    define_machines(manifest, printable_path(path))
    return manifest


# ----------------------------------------------------------------------------------------------------------
# Against the declaration


@dataclass(eq=False)
class Declared:
    """What the declaration in a manifest gives.

    Attributes:
        configs: what is planned under (config, split); what cannot be planned here is missing.
        findings: where the manifest differs from it.
        notes: what could not be planned here, and why.
        other_rules: names of the rules (text, split, sampling) whose version is not the one of this caef-data.
    """

    configs: dict[tuple[str, str], Config] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    other_rules: tuple[str, ...] = ()

    def wrong(self, kind: str, message: str) -> None:
        """Add a finding about the manifest."""
        self.findings.append(Finding(kind, MANIFEST, None, message))

    def unchecked(self, total: int, read: int, planned: int) -> dict[str, int]:
        """Return how many rows the checks that look at rows could not look at, by the kinds of their findings."""
        unread, text = total - read, total if "text" in self.other_rules else total - read
        found = dict.fromkeys(("missing", "added", "order", "variant"), max(unread, total - planned))
        return {**found, "row": text, "instruction": text, "split": unread, "duplicate": unread}


def declared(manifest: Mapping[str, Any]) -> Declared:
    """Plan what a manifest's settings ask for, and compare the manifest with it."""
    found = Declared()
    theirs = _check_versions(manifest, found)
    shipped = (
        manifest["caef_data"] == __version__
    )  # the declarations that come with caef-data are those it was built by
    for task, own in manifest["tasks"].items():
        settings = _settings(task, own["settings"], found)
        if settings is None:
            continue
        named: dict[tuple[str, str], Mapping[str, Any]] = {
            (split, config.removeprefix(f"{task}-")): entry
            for config, splits in manifest["configs"].items()
            if config.rpartition("-")[0] == task
            for split, entry in splits.items()
        }
        found.notes += allowed_test({task: settings.to_dict()})
        identities = [(f"{task}-{view} {split}", entry, (view, split)) for (split, view), entry in named.items()]
        for name, entry, pair in identities:
            if entry["identity"] != (right := settings.config_identity(*pair, theirs)):
                found.wrong("identity", f"{name} has the identity {entry['identity']}, its settings give {right}")
        if own["identity"] != (right := settings.identity(theirs)):
            found.wrong("identity", f"the settings of {task} have the identity {right}, not {own['identity']}")
        elif not found.other_rules:
            _check_configs(settings, named, _asked(settings, named, shipped, found), found)
    right = digest(sorted(split["identity"] for splits in manifest["configs"].values() for split in splits.values()))
    if manifest["identity"] != right:
        found.wrong("identity", f"its configs have the identity {right} together, not {manifest['identity']}")
    return found


def _check_versions(manifest: Mapping[str, Any], found: Declared) -> dict[str, int]:
    """Return the versions of the rules that the manifest names, if they may be; else those of this caef-data."""
    here, by = rules(), str(manifest["caef_data"])
    theirs: dict[str, int] = manifest["versions"]
    if manifest["built_with"].get("caef_data") != by:
        found.wrong("versions", f"caef_data is {quoted(by)}, built_with says otherwise")
    right = {**EARLIER, __version__: here}.get(by, theirs if theirs.keys() == here.keys() else here)
    if theirs != right or min(theirs.values()) < 1:
        found.wrong("versions", f"caef-data {by} has the rules {_told(right)}, the manifest says {_told(theirs)}")
        return here
    found.other_rules = tuple(name for name in here if theirs[name] != here[name])
    if found.other_rules:
        found.notes.append(
            f"made by the rules {_told(theirs)}; this is caef-data {__version__} with {_told(here)}: caef-data"
            f" {quoted(by)} replays the declaration, here it is not known whether all that it asks for is there"
        )
    return theirs


def _told(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(numbers.items()))


def _settings(task: str, given: Mapping[str, Any], found: Declared) -> TaskSettings | None:
    """Return the settings of a task, if they are ones that a build writes."""
    if task not in machines():
        found.wrong("machine", f"there is no machine {quoted(task)} here: its rows cannot be checked")
        return None
    try:
        settings = TaskSettings.of(given)
    except UserError as error:
        found.wrong("settings", f"{task}: {error.what}")
        return None
    values = settings.to_dict()
    changed = [key for key, value in given.items() if values.get(key, "") != value]
    side = tm_machine(task).side
    if side is not None and settings.splits != (side,):
        found.wrong("split", f"the machine {task} belongs to {side}: it is asked for in {', '.join(settings.splits)}")
    if changed or settings.task != task:
        found.wrong("settings", f"{task}: {', '.join(changed) or 'task'} is not in the form that a build writes")
        return None
    return settings


def _check_configs(
    settings: TaskSettings, named: Mapping[tuple[str, str], Mapping[str, Any]], asked: Pairs, found: Declared
) -> None:
    """Plan all that is asked of a task, and compare the counts and the names of shards."""
    for split in sorted({split for split, _ in asked}):
        views = sorted(view for of, view in asked if of == split)
        for config in split_configs(settings, split, views)[0]:
            name, entry = f"{config.name} {split}", named.get((split, config.view))
            if entry is None:
                found.wrong("missing", f"{name}: the declaration asks for it, it is not named")
                continue
            found.configs[config.name, split] = config
            for what, right in (("classes", len(config.population.classes)), ("expressions", len(config.population))):
                if entry[what] != right:
                    found.wrong("counts", f"{name}: {entry[what]:,} {what}, the declaration gives {right:,}")
            paths = [shard["path"] for shard in entry["shards"]]
            planned = [config.shard_path(number) for number in range(config.num_shards)]
            if paths != planned:
                less, more = len(paths) < len(planned), len(paths) > len(planned)
                message = f"{name}: {len(paths):,} shards are named, the declaration gives {len(planned):,}, in order"
                found.wrong("missing" if less else "added" if more else "order", message)
    rows = sum(named.get(("train", view), {"rows": 0})["rows"] for view in settings.views_of("train"))
    if settings.budget is not None and settings.budget.rows != rows:
        message = f"{settings.task}: {rows:,} train rows, the budget came to {settings.budget.rows:,}"
        found.wrong("counts", message)
    for split, view in named:
        if (f"{settings.task}-{view}", split) not in found.configs:
            found.wrong("added", f"{settings.task}-{view} {split}: no declaration asks for it")


def _asked(
    settings: TaskSettings, named: Mapping[tuple[str, str], Mapping[str, Any]], shipped: bool, found: Declared
) -> Pairs:
    """Return what is asked of a task: by the settings, which are the last build's, and by earlier commands.

    A folder can be added to: each config names the command that built it.
    """
    last = {(split, view) for view, split in settings.configs()}
    asked, commands = set(last), dict[str, Pairs]()
    for pair, entry in named.items():
        commands.setdefault(entry["command"], set()).add(pair)
    for command, pairs in commands.items():
        told = f"{settings.task}: the command {quoted(command, 200)}"
        try:
            made = _asked_by(command, settings, shipped)
        except ValueError as error:
            found.wrong("settings", f"{told} {error}")
            asked |= pairs
            continue
        if pairs.isdisjoint(last):
            asked |= pairs if made is None else made
        elif made not in (None, last):
            found.wrong("settings", f"{told} asks for other configs")
    return asked


def _asked_by(command: str, settings: TaskSettings, shipped: bool) -> Pairs | None:
    """Return what a command asks of a task; None where that stands in a file that is not at hand.

    Raises:
        ValueError: it does not build this task with these settings; the text goes on after the command.
    """
    made: list[TaskSettings] = []
    for line in command.split(" && "):
        words = shlex.split(line)[2:]  # caef-data build
        name = words[0] if len(words) == 1 else ""
        if "--expressions" in words or name.endswith(".toml") or (name in shipped_declarations() and not shipped):
            return None
        try:
            asked = load_declaration(name) if name in shipped_declarations() else _from_options(words)
            made += asked.as_resolved(settings)
        except (ValueError, LookupError, UserError):
            raise ValueError("is none that caef-data writes") from None
    own = [one for one in made if one.task == settings.task]
    if len(own) != 1 or own[0].identity() != settings.identity():
        raise ValueError("builds it with other settings" if own else "does not build it")
    return {(split, view) for view, split in own[0].configs()}


def _from_options(words: list[str]) -> Declaration:
    """Return the declaration that options make; raises ValueError, LookupError or UserError where they are none."""
    keys, given = {option(key): key for key in (*KEYS, *BUDGET)}, dict[str, Any](task=[])
    words = " ".join(words).replace("--no-balance", "--balance false").split()
    for name, value in zip(words[::2], words[1::2], strict=True):
        key = keys[name]
        if key in ("task", "splits", "views"):
            given.setdefault(key, []).append(value)
        else:
            given[key] = int(value) if value.isdecimal() else False if value == "false" else value
    return from_flags(given.pop("task"), **given)


# ----------------------------------------------------------------------------------------------------------
# Against the files


def check_files(directory: Path, manifest: Mapping[str, Any]) -> list[Finding]:
    """Compare the manifest with itself and with the names in the config folders.

    Files whose names begin with a dot are nobody's concern, and what lies outside the config folders is the user's.
    """
    findings, named = list[Finding](), dict[str, int]()
    for config, splits in manifest["configs"].items():
        for split, entry in splits.items():
            named |= {shard["path"]: named.get(shard["path"], 0) + 1 for shard in entry["shards"]}
            for what in ("rows", "bytes"):
                total = sum(shard[what] for shard in entry["shards"])
                if total != entry[what]:
                    message = f"{config} {split}: {entry[what]} {what}, its shards have {total}"
                    findings.append(Finding("manifest", MANIFEST, None, message))
    if max(named.values(), default=1) > 1:
        findings.append(Finding("manifest", MANIFEST, None, "names a shard twice"))
    ours = [folder for folder in sorted(directory.iterdir()) if folder.is_dir() and CONFIG.fullmatch(folder.name)]
    for file in (file for folder in ours for file in sorted(folder.rglob("*"))):
        path = file.relative_to(directory).as_posix()
        if not file.is_dir() and not file.name.startswith(".") and path not in named:
            findings.append(Finding("foreign", path, None, "is no part of the dataset"))
    return findings


def open_shards(
    directory: Path, manifest: Mapping[str, Any], plan: Declared, fraction: float
) -> Iterator[tuple[list[Finding], list[Part]]]:
    """Yield what is wrong with each shard's size, rows and schema, and the parts of it to re-execute.

    Args:
        directory: the dataset's folder.
        manifest: its manifest.
        plan: what its declaration gives.
        fraction: the share of the rows to re-execute.
    """
    for name, splits in manifest["configs"].items():
        task, _, view = name.rpartition("-")
        dialect = manifest["tasks"][task]["settings"].get("dialect", "consistent")
        for split, entry in splits.items():
            config = plan.configs.get((name, split))
            paths = [config.shard_path(number) for number in range(config.num_shards)] if config else []
            for shard in map(shard_record, entry["shards"]):
                wrong, groups = _open(directory, shard, view)
                blocks = (config, paths.index(shard.path), slice(None)) if config and shard.path in paths else None
                part = Part(
                    directory, shard.path, task, view, split, dialect, (), 0, 0, shard.sha256, fraction, blocks,
                    plan.other_rules,
                )  # fmt: skip
                known = groups is not None and task in machines()
                findings = [Finding(kind, shard.path, None, message) for kind, message in wrong]
                yield findings, list(_parts(part, groups or [])) if known else []


def _open(directory: Path, shard: ShardRecord, view: str) -> tuple[list[tuple[str, str]], list[int] | None]:
    """Return (kind, message) of what is wrong with a file, and the rows of its groups; None if it cannot be checked."""
    path, wrong = directory / shard.path, list[tuple[str, str]]()
    if not path.is_file():
        return [("file", "is missing")], None
    if (size := path.stat().st_size) != shard.bytes:
        wrong.append(("file", f"has {size:,} bytes, the manifest says {shard.bytes:,}"))
    try:
        with path.open("rb") as source, pq.ParquetFile(source) as file:  # Arrow opens no name that is not UTF-8
            groups = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
            schema = file.schema_arrow
    except (pa.ArrowException, OSError, ValueError) as error:
        return [*wrong, ("file", f"is not a readable Parquet file: {quoted(str(error), 160)}")], None
    if sum(groups) != shard.rows:
        wrong.append(("file", f"has {sum(groups):,} rows, the manifest says {shard.rows:,}"))
    right = row_schema(view)
    if schema.names != right.names:
        return [*wrong, ("schema", f"columns are {', '.join(schema.names)}; expected {', '.join(right.names)}")], None
    types = [(name, *(_plain(one.field(name).type) for one in (schema, right))) for name in right.names]
    off = [
        ("schema", f"column {name} has type {there}, expected {kind}") for name, there, kind in types if there != kind
    ]
    return wrong + off, None if off else groups


def _plain(kind: pa.DataType) -> pa.DataType:
    """Take away what is only a way of storing: dictionaries, and the three layouts of texts and lists."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    return pa.list_(_plain(kind.value_type)) if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind


def _parts(whole: Part, rows: list[int]) -> Iterator[Part]:
    """Cut a shard into parts of some row groups each; of one that has other groups than the plan has blocks, one."""
    apart = whole.plan is None or len(rows) == whole.plan[0].num_blocks(whole.plan[1])
    first = start = 0
    while start == 0 or start < len(rows):
        stop, total = start, 0
        while stop < len(rows) and (stop == start or not apart or total + rows[stop] <= _ROWS_PER_PART):
            total, stop = total + rows[stop], stop + 1
        plan = whole.plan and (*whole.plan[:2], slice(start, stop) if apart else slice(None))
        sha256 = None if start else whole.sha256
        yield replace(whole, groups=tuple(range(start, stop)), first_row=first, rows=total, sha256=sha256, plan=plan)
        first, start = first + total, max(stop, 1)


# ----------------------------------------------------------------------------------------------------------
# Against the card: the part between its marks is ours, the rest belongs to whoever edits it


def check_card(directory: Path, manifest: dict[str, Any], damaged: bool) -> tuple[list[Finding], list[str]]:
    """Return what is wrong with the card, and notes about it.

    Args:
        directory: the dataset's folder.
        manifest: its manifest.
        damaged: files are damaged: the rows shown as examples may not be there.
    """
    folder, by, wrong, notes = Folder(directory), manifest["caef_data"], list[str](), list[str]()
    try:
        text = card_there(folder)
        there = None if text is None else Card.of(text)
        right = Card.of(card(manifest, folder))
        same = without_examples if damaged else without_place
        if there is None:
            wrong.append("is missing")
        else:
            keys = [key for key in OURS if there.values.get(key) != right.values.get(key)]
            wrong += [f"{key} in its YAML is not what the manifest gives" for key in keys]
            if same(there.block) != same(right.block) and by == __version__:
                wrong.append("the part between the marks is not what the manifest gives")
            elif same(there.block) != same(right.block):
                notes.append(f"{CARD} was written by caef-data {by}: its text is not compared with the manifest")
    except UnmarkedError as error:
        if by in UNMARKED:
            edited = "" if is_first_card(text or "", manifest, folder) else ", edited since"
            notes.append(f"{CARD} is a card of caef-data {by}{edited}: the next build into the folder renews it")
        else:
            wrong.append(str(error))
    except UserError as error:
        wrong.append(error.what)
    return [Finding("card", CARD, None, message) for message in wrong], notes
