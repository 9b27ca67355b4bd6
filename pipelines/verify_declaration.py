"""What a manifest's declaration asks for, against what the manifest names: identities, configs, counts and shards.

A dataset is a pure function of its declaration. The settings in the manifest are planned again here, by the builder's
own code, so that nothing can be missing, added or put in another order; ``verify_plan`` compares the rows.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import __version__
from ..errors import UserError, quoted
from ..tm import tasks as known_machines
from .declaration import from_flags, load_declaration, shipped_declarations
from .manifest import MANIFEST
from .plan import Config, split_configs
from .settings import KEYS, TaskSettings, digest, option
from .verify_shard import Finding
from .versions import EARLIER, rules

Asked = set[tuple[str, str]]  # (split, view)


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


def declared(manifest: Mapping[str, Any]) -> Declared:
    """Plan what a manifest's settings ask for, and compare the manifest with it."""
    found = Declared()
    theirs = _check_versions(manifest, found)
    for task, own in manifest["tasks"].items():
        settings = _settings(task, own, theirs, found)
        if settings is None:
            continue
        configs = _Configs(settings, manifest, found)
        configs.check_identities(theirs)
        if own["identity"] != settings.identity(theirs):
            found.wrong(
                "identity", f"the settings of {task} have the identity {settings.identity(theirs)}, not this one"
            )
        elif not found.other_rules:
            configs.plan()
    names = sorted(split["identity"] for splits in manifest["configs"].values() for split in splits.values())
    if manifest["identity"] != digest(names):
        found.wrong(
            "identity", f"its configs have the identity {digest(names)} together, not {quoted(manifest['identity'])}"
        )
    return found


def _check_versions(manifest: Mapping[str, Any], found: Declared) -> dict[str, int]:
    """Return the versions of the rules that the manifest names, if they may be; else those of this caef-data."""
    here, by = rules(), manifest["caef_data"]
    theirs: dict[str, int] = manifest["versions"]
    if manifest["built_with"].get("caef_data") != by:
        found.wrong("versions", f"caef_data is {quoted(by)}, built_with says otherwise")
    known = {**EARLIER, __version__: here}.get(str(by))
    if theirs.keys() != here.keys() or min(theirs.values()) < 1:
        found.wrong("versions", f"versions of the rules are {quoted(theirs)}, expected {_told(known or here)}")
        return here
    if known is not None and theirs != known:
        found.wrong("versions", f"caef-data {by} has the rules {_told(known)}, the manifest says {_told(theirs)}")
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


def _settings(task: str, own: Mapping[str, Any], theirs: Mapping[str, int], found: Declared) -> TaskSettings | None:
    """Return the settings of a task, if they are ones that a build writes."""
    if task not in known_machines():
        found.wrong("settings", f"there is no machine {quoted(task)} here: its rows cannot be checked")
        return None
    given = own["settings"]
    try:
        settings = TaskSettings.of(given)
    except UserError as error:
        found.wrong("settings", f"{task}: {error.what}")
        return None
    values = settings.to_dict()
    changed = [key for key, value in given.items() if values[key] != value]
    if changed or settings.task != task:
        found.wrong("settings", f"{task}: {', '.join(changed) or 'task'} is not in the form that a build writes")
        return None
    return settings


class _Configs:
    """The configs of one task: those that are asked for, and those that the manifest names."""

    def __init__(self, settings: TaskSettings, manifest: Mapping[str, Any], found: Declared) -> None:
        self.settings, self.found = settings, found
        self.shipped = manifest.get("caef_data") == __version__
        self.named: dict[tuple[str, str], Mapping[str, Any]] = {
            (split, name.rpartition("-")[2]): own
            for name, splits in manifest["configs"].items()
            if name.rpartition("-")[0] == settings.task
            for split, own in splits.items()
        }

    def check_identities(self, theirs: Mapping[str, int]) -> None:
        for (split, view), own in self.named.items():
            right = self.settings.config_identity(view, split, theirs)
            if own["identity"] != right:
                message = (
                    f"{self.name(split, view)} has the identity {quoted(own['identity'])}, its settings give {right}"
                )
                self.found.wrong("identity", message)

    def name(self, split: str, view: str) -> str:
        return f"{self.settings.task}-{view} {split}"

    def plan(self) -> None:
        """Plan all that is asked for; what the manifest names besides was added."""
        asked = self.asked()
        for split in dict.fromkeys(split for split, _ in sorted(asked)):
            for config in split_configs(self.settings, split, sorted(view for one, view in asked if one == split))[0]:
                own = self.named.get((split, config.view))
                if own is None:
                    message = f"{self.name(split, config.view)}: the declaration asks for it, it is not named"
                    self.found.wrong("missing", message)
                    continue
                self.found.configs[config.name, split] = config
                self.compare(config, own)
        for split, view in self.named:
            if (f"{self.settings.task}-{view}", split) not in self.found.configs:
                self.found.wrong("added", f"{self.name(split, view)}: no declaration asks for it")

    def compare(self, config: Config, own: Mapping[str, Any]) -> None:
        """Compare the counts and the names of shards."""
        name = self.name(config.split, config.view)
        for what, right in (("classes", len(config.population.classes)), ("expressions", len(config.population))):
            if own.get(what) != right:
                self.found.wrong("counts", f"{name}: {quoted(own.get(what))} {what}, the declaration gives {right:,}")
        right_paths = [config.shard_path(shard) for shard in range(config.num_shards)]
        paths = [str(shard["path"]) for shard in own["shards"]]
        if paths != right_paths:
            kind = "missing" if len(paths) < len(right_paths) else "added" if len(paths) > len(right_paths) else "order"
            message = f"{name}: {len(paths):,} shards are named, the declaration gives {len(right_paths):,}, in order"
            self.found.wrong(kind, message)

    def asked(self) -> Asked:
        """Return what is asked for: by the settings, which are the last build's, and by earlier commands.

        A folder can be added to: each config names the command that built it.
        """
        last = {(split, view) for view, split in self.settings.configs()}
        asked, last_commands = set(last), set()
        for pair, own in sorted(self.named.items(), key=lambda item: item[0] not in last):  # the last build's first
            command, name = str(own["command"]), self.name(*pair)
            try:
                by_command = _asked_by(command, self.settings, self.shipped)
            except ValueError as error:
                self.found.wrong("settings", f"{name}: its command {quoted(command, 200)} {error}")
                asked |= {pair}
                continue
            if pair in last:
                last_commands.add(command)
                if by_command is not None and by_command != last:
                    self.found.wrong("settings", f"{name}: its command {quoted(command, 200)} asks for other configs")
            elif command not in last_commands:
                asked |= {pair} if by_command is None else by_command
        return asked


def _asked_by(command: str, settings: TaskSettings, shipped: bool) -> Asked | None:
    """Return what a command asks for of a task; None where that stands in a file that is not at hand.

    Args:
        command: what a config says it was built by.
        settings: those of the task.
        shipped: whether the declarations that come with caef-data are those that the build read.

    Raises:
        ValueError: it does not build this task with these settings; the text goes on after the command.
    """
    try:
        found = [_declaration(words.split()) for words in command.split(" && ")]
    except (ValueError, LookupError, StopIteration, UserError):
        raise ValueError("is none that caef-data writes") from None
    if any(isinstance(one, str) and (one.endswith(".toml") or not shipped) for one in found):
        return None
    tasks = [load_declaration(one).tasks if isinstance(one, str) else one for one in found]
    made = [one for group in tasks for one in group if one.task == settings.task]
    if len(made) != 1 or made[0].identity() != settings.identity():
        raise ValueError("builds it with other settings" if made else "does not build it")
    return {(split, view) for view, split in made[0].configs()}


def _declaration(words: list[str]) -> tuple[TaskSettings, ...] | str:
    """Return the settings that one build command makes, or the declaration that it names.

    Raises:
        ValueError, LookupError, StopIteration, UserError: it is no such command.
    """
    program, build, first, *rest = words
    if (program, build) != ("caef-data", "build"):
        raise ValueError(program)
    if not first.startswith("--"):
        name = shlex.split(" ".join([first, *rest]))
        if len(name) != 1 or not (name[0].endswith(".toml") or name[0] in shipped_declarations()):
            raise ValueError(first)
        return name[0]
    options = {option(key): key for key in KEYS}
    given: dict[str, Any] = {"task": []}
    left = iter([first, *rest])
    for word in left:
        if word in ("--balance", "--no-balance"):
            given["balance"] = word == "--balance"
            continue
        key, value = options[word], next(left)
        if key in ("task", "splits", "views"):
            given.setdefault(key, []).append(value)
        else:
            given[key] = int(value) if value.isdecimal() else value
    return from_flags(given.pop("task"), **given).tasks
