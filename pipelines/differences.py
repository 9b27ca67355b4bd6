"""Says why a task that lies in a folder is another one than that of a build, in the words of its declaration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import quoted
from ..tm import VERSIONED, machine
from .settings import DATA_KEYS, canonical_json

WORDS = {"words": "input", "output": "output", "side": "split"}  # what a declaration calls the parts of a machine
BY_HAND = "built by another version of caef-data, or its manifest was edited by hand"


def differences(task: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Say what differs: settings, the machine's parts, or the rules of caef-data.

    Args:
        task: the task.
        there: what the folder's manifest, or the plan of an unfinished build, holds.
        here: the same of the build.
    """
    old, new = there["tasks"][task], here["tasks"][task]
    told = [*_settings(old["settings"], new["settings"])]
    try:
        told += _machine(old.get("machine"), new.get("machine"))
    except (LookupError, TypeError, AttributeError, ValueError):  # a manifest that is not as we write it
        told.append("a machine that cannot be understood")
    versions, rules = there.get("versions", here["versions"]), here["versions"]
    changed = [f"{name} {versions.get(name)} -> {rules[name]}" for name in rules if versions.get(name) != rules[name]]
    told += [f"built by another version of caef-data ({', '.join(changed)})"] if changed else []
    if not told and task not in VERSIONED and "machine" not in new:
        told = [f"the machine's file {quoted(machine(task).source, 120)} was another one"]
    return ", ".join(told) or BY_HAND


def _settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    was, now = (
        {**own, **{f"budget.{key}": value for key, value in own.get("budget", {}).items()}, "budget": None}
        for own in (old, new)
    )
    for key in dict.fromkeys((*now, *was)):
        if key.partition(".")[0] in DATA_KEYS and was.get(key) != now.get(key):
            yield f"{key} {was.get(key)} -> {now.get(key)}"


def _machine(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> Iterator[str]:
    """Say how the description of a Turing machine differs; a machine that is code has none."""
    if not old or not new:
        if old or new:
            yield f"a {'Turing machine' if old else 'machine that is code'} of this name"
        return
    was, now = old["table"], new["table"]
    rules, given = ({canonical_json(rule[:2]): canonical_json(rule[2:]) for rule in own["rules"]} for own in (was, now))
    if keys := [key for key in {**given, **rules} if rules.get(key) != given.get(key)]:
        first = next(rule for rule in (*now["rules"], *was["rules"]) if canonical_json(rule[:2]) == keys[0])
        where = f"state {quoted(first[0])}, read {quoted(' '.join(first[1]))}"
        yield f"{len(keys):,} of the machine's rules (the first: {where})"
    pairs = [(key, was[key], now[key]) for key in ("start", "blank")]
    for name, before, after in (*pairs, *((word, old[key], new[key]) for key, word in WORDS.items())):
        if before != after:
            yield f"the machine's {name} {quoted(before)} -> {quoted(after)}"
