"""What a manifest says: against its declaration, which is planned again here, against the files, and against the card.

A dataset is a pure function of its declaration. The settings in the manifest are planned by the builder's own code, so
that nothing can be missing, added or put in another order; ``verify_shard`` compares the rows.
"""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import __version__, tm
from ..errors import UserError, quoted
from .card import card, card_there
from .card_merge import OURS, Card, without_examples, without_place
from .expressions import allowed_test
from .folder import Folder, no_dataset
from .manifest import CARD, CONFIG, MANIFEST, define_machines, split_entries
from .plan import Config, split_configs
from .settings import TaskSettings, digest
from .verify_report import Findings
from .versions import rules

UNMARKED = ("0.1.0",)  # releases whose cards have no marks
Entries = dict[tuple[str, str], dict[str, Any]]  # of a task: what the manifest says of (split, view)
Configs = dict[tuple[str, str], Config]  # what is planned under (config, split)


def read_manifest(directory: Path) -> dict[str, Any]:
    """Read the manifest of a built folder, and make its machines known.

    Raises:
        UserError: there is no folder, no manifest (a build has not finished), or it cannot be understood.
    """
    folder = Folder(directory)
    manifest = folder.manifest()
    if not manifest:
        raise no_dataset(folder)
    define_machines(manifest, folder.where(MANIFEST))
    return manifest


# ----------------------------------------------------------------------------------------------------------
# Against the declaration


def declared(manifest: Mapping[str, Any]) -> tuple[Findings, Configs]:
    """Plan what a manifest's settings ask for, and compare the manifest with it; return what is wrong, and the plan.

    Raises:
        UserError: other rules than those of this caef-data made the dataset.
    """
    found, entries_of, configs, by = Findings(MANIFEST), dict[str, Entries](), Configs(), manifest["caef_data"]
    if (theirs := manifest["versions"]) != (here := rules()):
        raise UserError(
            f"this dataset was made by the rules {_told(theirs)}; caef-data {__version__} has the rules {_told(here)}",
            where=MANIFEST,
            next_step=f"verify it with caef-data {quoted(by)}, or build it again",
        )
    if manifest["built_with"].get("caef_data") != by:
        found.add("versions", f"caef_data is {quoted(by)}, built_with says otherwise")
    for name, split, entry in split_entries(manifest):
        task, _, view = name.rpartition("-")
        entries_of.setdefault(task, {})[split, view] = entry
    for task, own in manifest["tasks"].items():
        if (settings := _settings(task, own["settings"], found)) is None:
            continue
        found.notes += allowed_test({task: settings.to_dict()})
        if own["identity"] != (right := settings.identity()):
            found.add("identity", f"the settings of {task} have the identity {right}, not {own['identity']}")
        for (split, view), entry in (entries := entries_of.get(task, {})).items():
            if entry["identity"] != (right := settings.config_identity(view, split)):
                message = f"{task}-{view} {split} has the identity {entry['identity']}, its settings give {right}"
                found.add("identity", message)
        _check_configs(settings, entries, found, configs)
    right = digest(sorted(entry["identity"] for _, _, entry in split_entries(manifest)))
    if manifest["identity"] != right:
        found.add("identity", f"its configs have the identity {right} together, not {manifest['identity']}")
    return found, configs


def _told(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(numbers.items()))


def _settings(task: str, given: Mapping[str, Any], found: Findings) -> TaskSettings | None:
    """Return the settings of a task, if they are ones that a build writes."""
    if task not in tm.tasks():
        told = "put its file back into the folder tm/ of caef-data, then verify again"
        found.add("machine", f"there is no machine {quoted(task)} here: its rows cannot be checked; {told}")
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


def _check_configs(settings: TaskSettings, entries: Entries, found: Findings, configs: Configs) -> None:
    """Plan all that is asked of a task, and compare the counts and the names of shards.

    A folder can be added to: the settings ask for what the last build made, and what has another command than that was
    there before.
    """
    asked = {(split, view) for view, split in settings.configs()}
    last = {entry["command"] for pair, entry in entries.items() if pair in asked}
    asked |= {pair for pair, entry in entries.items() if entry["command"] not in last}
    planned: dict[tuple[str, str], Config] = {}
    for split in dict.fromkeys(split for split, _ in sorted(asked)):
        views = sorted(view for of, view in asked if of == split)
        planned |= {(split, config.view): config for config in split_configs(settings, split, views)[0]}
    for (split, view), entry in entries.items():
        name, config = f"{settings.task}-{view} {split}", planned.pop((split, view), None)
        if config is None:
            found.add("added", f"{name}: no declaration asks for it")
            continue
        configs[config.name, split] = config
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
    under_way = frozenset[str]()
    with suppress(UserError):  # notes that cannot be understood are told by the next build
        under_way = frozenset(Folder(directory).unfinished().get("shards", ()))
    ours = [folder for folder in sorted(directory.iterdir()) if folder.is_dir() and CONFIG.fullmatch(folder.name)]
    for file in (file for folder in ours for file in sorted(folder.rglob("*"))):
        path = file.relative_to(directory).as_posix()
        if not file.is_dir() and not file.name.startswith(".") and path not in named:
            own = path in under_way
            told = "is of a build that is unfinished" if own else "is no part of the dataset"
            found.add("unfinished" if own else "foreign", told, path=path)
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
    folder, by, found = Folder(directory), manifest["caef_data"], Findings(CARD)
    try:
        right, there = Card.of(card(manifest, folder)), card_there(folder)
    except UserError as error:
        if by in UNMARKED:
            found.notes.append(f"{CARD} is a card of caef-data {by}: move it away before you build into the folder")
        else:
            found.add("card", error.what)
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
