"""What a dataset folder's own files say, as plain data: checked when it is read, wherever it comes from.

A manifest, the plan of an unfinished build and an export's notes may come from somebody else. Every name in them that
becomes part of a path must be one that we give, so that no command reads or writes outside its folder; and whatever is
printed of them is short and plain, or is escaped where it is printed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import is_ours, quoted
from .settings import REPO, SPLITS, VIEWS

MANIFEST, CARD, STATE = "manifest.json", "README.md", ".caef"
PLAN = f"{STATE}/plan.json"
TAKEN = "card"  # the manifest's key for what a push took from the folder's card, a digest; only where it was pushed to
FORMAT = 1
TASK = r"[a-z][a-z0-9_]*"
CONFIG = re.compile(rf"({TASK})-({'|'.join(VIEWS)})")
SHARD = re.compile(rf"({'|'.join(SPLITS)})-(\d{{5}})-of-(\d{{5}})\.parquet", re.ASCII)
IDENTITY, SHA256 = re.compile(r"[0-9a-f]{16}"), re.compile(r"[0-9a-f]{64}")
WORD = re.compile(r"[A-Za-z0-9][\w.!+-]{0,60}", re.ASCII)  # the name of a package, a version, the key of a setting

TASK_KEYS = {"settings": dict, "identity": str}
SPLIT_KEYS = {"identity": str, "classes": int, "expressions": int, "rows": int, "bytes": int, "command": str}
SPLIT_KEYS |= {"shards": list, "chars": dict}
TEXTS = {"prompt", "completion"}
MANIFEST_KEYS = {"versions": dict, "built_with": dict, "identity": str, "tasks": dict, "configs": dict}
PLAN_KEYS = {"identity": str, "tasks": dict, "shards": list}


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard: path inside the dataset folder, rows, bytes, sha256, and what its texts measure.

    ``chars`` maps a text column to (characters in all, longest).
    """

    path: str
    rows: int
    bytes: int
    sha256: str
    chars: dict[str, tuple[int, int]]


class WrongError(ValueError):
    """What is wrong with a file of a folder; its text can be printed."""


def is_shard(path: str) -> bool:
    """Tell whether a path inside a dataset is that of a shard."""
    config, _, name = path.partition("/")
    return CONFIG.fullmatch(config) is not None and SHARD.fullmatch(name) is not None


def manifest_from(text: bytes) -> dict[str, Any]:
    """Return the manifest that a file holds; raises ``WrongError`` where it is none, or of a later version."""
    return understood(text, _check_manifest)


def plan_from(text: bytes) -> dict[str, Any]:
    """Return the plan of an unfinished build that a file holds; raises ``WrongError`` where it is none."""
    return understood(text, _check_plan)


def understood(text: bytes, check: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Return the JSON object that a file holds, once ``check`` finds nothing wrong with it; else ``WrongError``."""
    try:
        content: dict[str, Any] = json.loads(text.decode("utf-8"))
        check(content)
    except WrongError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise WrongError(quoted(error, 200)) from error
    return content


def shard_record(values: dict[str, Any], own: str = "") -> ShardRecord:
    """Return a record from its JSON form.

    Raises:
        ValueError, LookupError, TypeError: it is none; or its path is not that of a shard, or does not begin with
            ``own``.
    """
    _check(values, {"path": str, "rows": int, "bytes": int, "sha256": str})
    if not is_shard(values["path"]) or not values["path"].startswith(own):
        raise WrongError(f"{quoted(values['path'])} is not the path of a file that belongs here")
    _matches("sha256", values["sha256"], SHA256)
    chars = {str(name): (int(total), int(longest)) for name, (total, longest) in values["chars"].items()}
    return ShardRecord(values["path"], values["rows"], values["bytes"], values["sha256"], chars)


def shard_records(manifest: Mapping[str, Any]) -> dict[str, ShardRecord]:
    """Return the shards that a manifest names, by path."""
    splits = [split for splits in manifest.get("configs", {}).values() for split in splits.values()]
    return {shard["path"]: shard_record(shard) for split in splits for shard in split["shards"]}


def json_bytes(value: object) -> bytes:
    """Return readable JSON text."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode()


def check_split(config: str, split: str) -> None:
    """Refuse what is not the name of a config and of a split, with a ``WrongError``."""
    _matches("a config", config, CONFIG)
    if split not in SPLITS:
        raise WrongError(f"{quoted(split)} is not the name of a split")


def check_identity(value: object) -> None:
    """Refuse what is no identity, with a ``WrongError``."""
    _matches("identity", value, IDENTITY)


def _matches(what: str, value: object, pattern: re.Pattern[str]) -> None:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise WrongError(f"{what} is {quoted(value)}")


def _check(values: dict[str, Any], keys: Mapping[str, type | tuple[type, ...]]) -> None:
    for key, kind in keys.items():
        value = values[key]
        fits = isinstance(value, kind) and not isinstance(value, bool)
        if not fits or (isinstance(value, int) and not 0 <= value < 2**63):
            raise WrongError(f"{key} is {quoted(value)}")
    if "identity" in keys:
        check_identity(values["identity"])
    if "command" in keys and not is_ours(values["command"], "build"):
        raise WrongError(f"command is {quoted(values['command'])}")


def _check_manifest(manifest: dict[str, Any]) -> None:
    if manifest["format"] != FORMAT:
        raise WrongError(f"it has format {quoted(manifest['format'])}, this version reads format {FORMAT}")
    _check(manifest, MANIFEST_KEYS)
    if "repo" in manifest:
        _matches("repo", manifest["repo"], REPO)
    if TAKEN in manifest:
        _matches(TAKEN, manifest[TAKEN], IDENTITY)
    _matches("caef_data", manifest["caef_data"], WORD)
    for name, version in manifest["built_with"].items():
        _matches("built_with", name, WORD)
        _matches(name, version, WORD)
    for name in manifest["versions"]:
        _matches("versions", name, WORD)
    _check(manifest["versions"], dict.fromkeys(manifest["versions"], int))
    _check_tasks(manifest["tasks"])
    for config, splits in manifest["configs"].items():
        if not splits:
            raise WrongError(f"{quoted(config)} has no splits")
        for split, entry in splits.items():
            check_split(config, split)
            manifest["tasks"][config.rpartition("-")[0]]
            _check(entry, SPLIT_KEYS)
            if not entry["shards"] or not TEXTS <= entry["chars"].keys():
                raise WrongError(f"{config} {split} has no shards, or does not say how long its texts are")
            for shard in entry["shards"]:
                shard_record(shard, f"{config}/{split}-")
            for size in entry["chars"].values():
                _check(size, {"mean": (int, float), "max": int})


def _check_tasks(tasks: dict[str, Any]) -> None:
    for name, task in tasks.items():
        _matches("a task", name, re.compile(TASK))
        _check(task, TASK_KEYS)
        for key, value in _flat(task["settings"]):
            _matches("a setting", key, WORD)
            if isinstance(value, str):
                _matches(key, value, WORD)


def _flat(settings: dict[str, Any]) -> Iterator[tuple[str, object]]:
    """Yield keys and values, of lists every one."""
    for key, value in settings.items():
        for one in value if isinstance(value, list) else [value]:
            if not isinstance(one, str | int | None):
                raise WrongError(f"{quoted(key)} is {quoted(one)}")
            yield key, one


def _check_plan(plan: dict[str, Any]) -> None:
    _check(plan, PLAN_KEYS)
    if not isinstance(plan.get("source"), str | None):
        raise WrongError(f"source is {quoted(plan['source'])}")
    _check_tasks(plan["tasks"])
    for path in plan["shards"]:
        if not isinstance(path, str) or not is_shard(path):
            raise WrongError(f"{quoted(path)} is not the path of a shard")
