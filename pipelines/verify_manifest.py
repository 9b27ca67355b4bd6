"""What a manifest says: against its declaration, which is planned again here, against the files, and against the card.

A dataset is a pure function of its declaration. The settings in the manifest are planned by the builder's own code, so
that nothing can be missing, added or put in another order; ``verify_shard`` compares the rows.
"""

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import __version__, tm
from ..errors import UserError, printable_path, quoted
from .budget import BUDGET
from .build import no_dataset
from .card import card, card_there, is_first_card
from .card_merge import OURS, Card, UnmarkedError, without_examples, without_place
from .declaration import from_flags, load_declaration, shipped_declarations
from .expressions import allowed_test
from .folder import Folder
from .manifest import CARD, CONFIG, MANIFEST, WrongError, define_machines, manifest_from, split_entries
from .plan import Config, split_configs
from .settings import KEYS, Declaration, TaskSettings, digest
from .spelling import option
from .verify_report import Findings
from .versions import EARLIER, rules

UNMARKED = ("0.1.0",)  # releases whose cards have no marks
Pairs = set[tuple[str, str]]  # (split, view)
Entries = dict[tuple[str, str], dict[str, Any]]  # of a task: what the manifest says of (split, view)


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


@dataclass
class Declared(Findings):
    """What the declaration in a manifest gives, and where the manifest differs from it.

    Attributes:
        settings: those of each task that has some that a build writes.
        configs: what is planned under (config, split); what cannot be planned here is missing.
        other_rules: names of the rules (text, split, sampling) whose version is not the one of this caef-data.
    """

    settings: dict[str, TaskSettings] = field(default_factory=dict)
    configs: dict[tuple[str, str], Config] = field(default_factory=dict)
    other_rules: tuple[str, ...] = ()

    def unchecked(self, total: int, read: int, planned: int) -> dict[str, int]:
        """Return how many rows the checks that look at rows could not look at, by the kinds of their findings."""
        unread, text = total - read, total if "text" in self.other_rules else total - read
        found = dict.fromkeys(("missing", "added", "order", "variant"), max(unread, total - planned))
        return {**found, "row": text, "instruction": text, "split": unread, "duplicate": unread}


def declared(manifest: Mapping[str, Any]) -> Declared:
    """Plan what a manifest's settings ask for, and compare the manifest with it."""
    found = Declared(MANIFEST)
    theirs, entries_of = _check_versions(manifest, found), dict[str, Entries]()
    for name, split, entry in split_entries(manifest):
        task, _, view = name.rpartition("-")
        entries_of.setdefault(task, {})[split, view] = entry
    for task, own in manifest["tasks"].items():
        settings = _settings(task, own["settings"], found)
        if settings is None:
            continue
        found.settings[task] = settings
        found.notes += allowed_test({task: settings.to_dict()})
        entries = entries_of.get(task, {})
        for (split, view), entry in entries.items():
            if entry["identity"] != (right := settings.config_identity(view, split, theirs)):
                message = f"{task}-{view} {split} has the identity {entry['identity']}, its settings give {right}"
                found.add("identity", message)
        if own["identity"] != (right := settings.identity(theirs)):
            found.add("identity", f"the settings of {task} have the identity {right}, not {own['identity']}")
        elif not found.other_rules:
            # The declarations that come with caef-data are those it was built by.
            shipped = manifest["caef_data"] == __version__
            _check_configs(settings, entries, _asked(settings, entries, shipped, found), found)
    right = digest(sorted(entry["identity"] for _, _, entry in split_entries(manifest)))
    if manifest["identity"] != right:
        found.add("identity", f"its configs have the identity {right} together, not {manifest['identity']}")
    return found


def _check_versions(manifest: Mapping[str, Any], found: Declared) -> dict[str, int]:
    """Return the versions of the rules that the manifest names, if they may be; else those of this caef-data."""
    here, by = rules(), str(manifest["caef_data"])
    theirs: dict[str, int] = manifest["versions"]
    if manifest["built_with"].get("caef_data") != by:
        found.add("versions", f"caef_data is {quoted(by)}, built_with says otherwise")
    right = {**EARLIER, __version__: here}.get(by, theirs if theirs.keys() == here.keys() else here)
    if theirs != right or min(theirs.values()) < 1:
        found.add("versions", f"caef-data {by} has the rules {_told(right)}, the manifest says {_told(theirs)}")
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
    if task not in tm.tasks():
        found.add("machine", f"there is no machine {quoted(task)} here: its rows cannot be checked")
        return None
    try:
        settings = TaskSettings.of(given)
    except UserError as error:
        found.add("settings", f"{task}: {error.what}")
        return None
    side, values = tm.machine(task).side, settings.to_dict()
    if side is not None and settings.splits != (side,):
        found.add("split", f"the machine {task} belongs to {side}: it is asked for in {', '.join(settings.splits)}")
    changed = [key for key, value in given.items() if values.get(key, "") != value]
    if changed or settings.task != task:
        found.add("settings", f"{task}: {', '.join(changed) or 'task'} is not in the form that a build writes")
        return None
    return settings


def _check_configs(settings: TaskSettings, entries: Entries, asked: Pairs, found: Declared) -> None:
    """Plan all that is asked of a task, and compare the counts and the names of shards."""
    views_of = {split: sorted(view for of, view in asked if of == split) for split, _ in sorted(asked)}
    planned = {
        (split, config.view): config
        for split, views in views_of.items()
        for config in split_configs(settings, split, views)[0]
    }
    for (split, view), entry in entries.items():
        name, config = f"{settings.task}-{view} {split}", planned.pop((split, view), None)
        if config is None:
            found.add("added", f"{name}: no declaration asks for it")
            continue
        found.configs[config.name, split] = config
        for what, right in (("classes", len(config.population.classes)), ("expressions", len(config.population))):
            if entry[what] != right:
                found.add("counts", f"{name}: {entry[what]:,} {what}, the declaration gives {right:,}")
        paths = [shard["path"] for shard in entry["shards"]]
        if paths != [config.shard_path(number) for number in range(config.num_shards)]:
            less, more = len(paths) < config.num_shards, len(paths) > config.num_shards
            named = f"{len(paths):,} shards are named, the declaration gives {config.num_shards:,}, in order"
            found.add("missing" if less else "added" if more else "order", f"{name}: {named}")
    for split, view in planned:
        found.add("missing", f"{settings.task}-{view} {split}: the declaration asks for it, it is not named")
    rows = sum(entries.get(("train", view), {"rows": 0})["rows"] for view in settings.views_of("train"))
    if settings.budget is not None and settings.budget.rows != rows:
        found.add("counts", f"{settings.task}: {rows:,} train rows, the budget came to {settings.budget.rows:,}")


def _asked(settings: TaskSettings, entries: Entries, shipped: bool, found: Declared) -> Pairs:
    """Return what is asked of a task: by the settings, which are the last build's, and by earlier commands.

    A folder can be added to: each config names the command that built it.
    """
    last = {(split, view) for view, split in settings.configs()}
    asked, commands = set(last), dict[str, Pairs]()
    for pair, entry in entries.items():
        commands.setdefault(entry["command"], set()).add(pair)
    for command, pairs in commands.items():
        made, earlier = None, pairs.isdisjoint(last)
        try:
            made = _asked_by(command, settings, shipped)
            if made not in (None, last) and not earlier:
                raise ValueError("asks for other configs")
        except ValueError as error:
            found.add("settings", f"{settings.task}: the command {quoted(command, 200)} {error}")
        asked |= made or (pairs if earlier else last)
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


def check_files(directory: Path, manifest: Mapping[str, Any]) -> Findings:
    """Compare the manifest with itself and with the names in the config folders.

    Files whose names begin with a dot are nobody's concern, and what lies outside the config folders is the user's.
    """
    found, named = Findings(MANIFEST), Counter[str]()
    for config, split, entry in split_entries(manifest):
        shards, rows = entry["shards"], max(entry["rows"], 1)
        named.update(shard["path"] for shard in shards)
        for what in ("rows", "bytes"):
            if (total := sum(shard[what] for shard in shards)) != entry[what]:
                found.add("manifest", f"{config} {split}: {entry[what]} {what}, its shards have {total}")
        for text, told in entry["chars"].items():
            sizes = [shard["chars"].get(text, (0, 0)) for shard in shards]
            right = {"mean": round(sum(size for size, _ in sizes) / rows, 1), "max": max(most for _, most in sizes)}
            if told != right:
                found.add("counts", f"{config} {split}: {told} characters in {text}s, its shards have {right}")
    if max(named.values(), default=1) > 1:
        found.add("manifest", "names a shard twice")
    ours = [folder for folder in sorted(directory.iterdir()) if folder.is_dir() and CONFIG.fullmatch(folder.name)]
    for file in (file for folder in ours for file in sorted(folder.rglob("*"))):
        path = file.relative_to(directory).as_posix()
        if not file.is_dir() and not file.name.startswith(".") and path not in named:
            found.add("foreign", "is no part of the dataset", path=path)
    return found


# ----------------------------------------------------------------------------------------------------------
# Against the card: the part between its marks is ours, the rest belongs to whoever edits it


def check_card(directory: Path, manifest: dict[str, Any], damaged: bool) -> Findings:
    """Return what is wrong with the card, and what there is to note of it.

    Args:
        directory: the dataset's folder.
        manifest: its manifest.
        damaged: files are damaged: the rows shown as examples may not be there.
    """
    folder, by, found, text = Folder(directory), manifest["caef_data"], Findings(CARD), None
    try:
        text = card_there(folder)
        right, there = Card.of(card(manifest, folder)), None if text is None else Card.of(text)
    except (UnmarkedError, UserError) as error:
        if by in UNMARKED and isinstance(error, UnmarkedError):
            edited = "" if is_first_card(text or "", manifest, folder) else ", edited since"
            found.notes.append(f"{CARD} is a card of caef-data {by}{edited}: the next build into the folder renews it")
        else:
            found.add("card", error.what if isinstance(error, UserError) else str(error))
        return found
    if there is None:
        found.add("card", "is missing")
        return found
    for key in OURS:
        if there.values.get(key) != right.values.get(key):
            found.add("card", f"{key} in its YAML is not what the manifest gives")
    same = without_examples if damaged else without_place
    if same(there.block) != same(right.block) and by == __version__:
        found.add("card", "the part between the marks is not what the manifest gives")
    elif same(there.block) != same(right.block):
        found.notes.append(f"{CARD} was written by caef-data {by}: its text is not compared with the manifest")
    return found
