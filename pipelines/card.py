"""The dataset card: YAML that names configs and splits, then what a reader needs to know."""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import printable_path
from ..schemas import COLUMNS, VIEW_TEXT
from ..schemas.rows import COMMON
from .card_merge import BEGIN, NO_TEXT, SAVE, Card, UnmarkedError, conflict, renewed
from .card_merge import END as END_MARK
from .card_text import (
    ABOUT,
    DIALECT_TEXT,
    END,
    FIRST_TEXTS,
    READING,
    REBUILT,
    SPLITS_TEXT,
    TITLE,
    TRAINING,
    YOURS,
    format_text,
)
from .manifest import CARD
from .settings import SPLITS, digest
from .store import split_url

if TYPE_CHECKING:
    from .folder import Folder

SIZES: tuple[tuple[int, str], ...] = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
)
SIZES += ((10**7, "1M<n<10M"), (10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"))
TAGS = ("arithmetic", "math", "turing-machine", "caef", "length-generalization", "synthetic")
TEXTS = ("prompt", "completion")

Loads = Callable[[str, str], str]  # the Python call that loads a config and split


def from_folder(config: str, split: str, place: str = "PATH_OR_REPO") -> str:
    """Return the call that loads a split from a folder on disk, or from a repository on the Hub."""
    return f'load_dataset({json.dumps(place)}, "{config}", split="{split}")'


def loads_from(place: str) -> Loads:
    """Return what writes the call that loads a split from a path or a URL."""
    url = split_url(place)
    if url is not None and url[0] != "file":  # the library looks for a card in folders and on the Hub only
        files = f"{url[0]}://{url[1]}"
        return lambda config, split: (
            f'load_dataset("parquet", data_files={json.dumps(f"{files}/{config}/{split}-*.parquet")}, split="train")'
        )
    return lambda config, split: from_folder(config, split, place if url is None else url[1])


def card(manifest: dict[str, Any], folder: Folder, loads: Loads = from_folder) -> str:
    """Return the card of a dataset folder whose shards are all written.

    Args:
        manifest: the folder's manifest.
        folder: where its shards can be read.
        loads: writes the call that loads a split of a config.
    """
    configs = {name: manifest["configs"][name] for name in sorted(manifest["configs"])}
    first = first_split(manifest)[0] if configs else ""
    block = _facts(manifest, configs, folder, loads) if configs else f"{REBUILT}\n"
    ours = f"{BEGIN}\n{YOURS}\n{block}{END_MARK}\n"
    return "\n".join(["\n".join(_front_matter(configs, first, versions=True)), TITLE, ours, END])


def first_card(manifest: dict[str, Any], folder: Folder, loads: Loads = from_folder) -> str:
    """Return the card that caef-data 0.1.0 wrote: no marks, and nothing in its YAML that changes with the rows."""
    configs = {name: manifest["configs"][name] for name in sorted(manifest["configs"])}
    if not configs:
        return f"{REBUILT}\n"
    front = "\n".join(_front_matter(configs, first_split(manifest)[0], versions=False))
    facts = _facts(manifest, configs, folder, loads)
    for here, first in FIRST_TEXTS.items():
        facts = facts.replace(f"{here}\n", f"{first}\n" if first else "")
    return "\n".join([front, TITLE, facts, END])


def card_there(folder: Folder) -> str | None:
    """Return the card that lies in a folder; None where there is none.

    Raises:
        UserError: it is no text.
    """
    content = folder.read(CARD)
    try:
        return None if content is None else content.decode("utf-8")
    except UnicodeDecodeError:
        raise conflict(NO_TEXT, folder.where(CARD), SAVE) from None


def replaceable_card(manifest: dict[str, Any], folder: Folder) -> str | None:
    """Return the card that lies in a folder, if it is one of caef-data 0.1.0 that nobody edited: it may be replaced.

    Returns:
        None where there is no card, or one with a part of ours, which can be renewed.

    Raises:
        UserError: there is one that cannot be renewed without losing what a person wrote.
    """
    text = card_there(folder)
    if text is None:
        return None
    try:
        Card.of(text)
        return None
    except UnmarkedError as error:
        if text in (f"{REBUILT}\n", first_card({"configs": {}, **manifest}, folder)):
            return text
        raise conflict(str(error), folder.where(CARD)) from None


def renewed_card(manifest: dict[str, Any], folder: Folder, replaceable: str | None, loads: Loads = from_folder) -> str:
    """Return the card for a manifest, with all that a person wrote in the one that lies in the folder."""
    ours, text = card(manifest, folder, loads), card_there(folder)
    if text is None or text == replaceable:
        return ours
    try:
        return renewed(text, ours)
    except UnmarkedError:
        return text  # edited since the build began: verify says what is wrong with it


def _facts(manifest: dict[str, Any], configs: dict[str, Any], folder: Folder, loads: Loads) -> str:
    """Return what a reader needs to know, all of it from the manifest and the rows."""
    first = first_split(manifest)
    parts = [
        ABOUT.format(holds=_holds(manifest), load=loads(*first)),
        "## What a row is\n",
        _example("A row of", *first, configs, folder),
        format_text(),
        *_views(configs, first[0], folder),
        READING,
        TRAINING,
        SPLITS_TEXT,
        _contents(configs),
        _provenance(manifest),
    ]
    return "\n".join(part for part in parts if part)


def first_split(manifest: dict[str, Any]) -> tuple[str, str]:
    """Return the config and split that examples load."""
    name = min(manifest["configs"], key=lambda one: (not one.endswith("-one_step"), one))
    return name, next(split for split in SPLITS if split in manifest["configs"][name])


def commands(manifest: dict[str, Any]) -> list[str]:
    """Return the commands that built what a manifest names, each once."""
    configs = [manifest["configs"][name] for name in sorted(manifest["configs"])]
    return list(dict.fromkeys(split["command"] for splits in configs for split in splits.values()))


def version(splits: dict[str, Any]) -> str:
    """Return the version of a config: 0.0 and a digest of its files.

    The datasets library keeps what it has read of a folder under the folder's last name and what the card's YAML says
    of its configs: it takes other rows for the same ones unless something changes there. The version is the one value
    of which releases from 2.14.7 to 5.2.0 all take note.
    """
    files = {split: [shard["sha256"] for shard in own["shards"]] for split, own in splits.items()}
    return f"0.0.{int(digest(files), 16)}"


def _front_matter(configs: dict[str, Any], first: str, versions: bool) -> list[str]:
    rows = sum(split["rows"] for splits in configs.values() for split in splits.values())
    size = next((name for most, name in SIZES if rows < most), "10B<n<100B")
    lines = ["---", "license: apache-2.0", "language:", "- en", "pretty_name: Arithmetic as Turing machines"]
    lines += ["task_categories:", "- text-generation", "size_categories:", f"- {size}", "tags:"]
    lines += [f"- {tag}" for tag in TAGS]
    lines += ["configs:"] if configs else []
    for name, splits in configs.items():
        lines += [f"- config_name: {name}", *(["  default: true"] if name == first else [])]
        lines += [f"  version: {version(splits)}"] if versions else []
        lines.append("  data_files:")
        for split in (one for one in SPLITS if one in splits):
            lines += [f"  - split: {split}", f"    path: {name}/{split}-*.parquet"]
    return [*lines, "---", ""]


def _holds(manifest: dict[str, Any]) -> str:
    """Return a paragraph on how much of what is here."""
    splits = [split for one in manifest["configs"].values() for split in one.values()]
    tasks = sorted({name.rpartition("-")[0] for name in manifest["configs"]})
    settings = [manifest["tasks"].get(task, {}).get("settings", {}) for task in tasks]
    lengths = [one[key] for one in settings for key in ("min", "max") if isinstance(one.get(key), int)]
    operands = f", operands of {min(lengths):,} to {max(lengths):,} digits" if lengths else ""
    return _filled(
        f"Here: {sum(split['rows'] for split in splits):,} rows ({_size(sum(split['bytes'] for split in splits))}) of"
        f" {', '.join(f'`{task}`' for task in tasks)}{operands}."
        " A config is a task and a view, `<task>-<view>`."
    )


def _filled(text: str) -> str:
    """Return a paragraph."""
    return textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False) + "\n"


def _size(count: float) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"


def _contents(configs: dict[str, Any]) -> str:
    lines = ["## Configs and sizes", ""]
    lines += ["| config | split | classes | expressions | rows | size | prompt chars, mean / max | completion chars |"]
    lines += ["|---|---|---:|---:|---:|---:|---:|---:|"]
    for name, splits in configs.items():
        for split in (one for one in SPLITS if one in splits):
            own = splits[split]
            sizes = [f"{own['chars'][text]['mean']:,.0f} / {own['chars'][text]['max']:,}" for text in TEXTS]
            counts = " | ".join(f"{own[key]:,}" for key in ("classes", "expressions", "rows"))
            lines.append(f"| {name} | {split} | {counts} | {_size(own['bytes'])} | {' | '.join(sizes)} |")
    return "\n".join([*lines, ""])


def _views(configs: dict[str, Any], shown: str, folder: Folder) -> list[str]:
    """Return a section a view, with a real row, and one on the columns that all views have."""
    parts = ["## Views\n\nThe same runs, written in different ways. Every example is a row of this dataset.\n"]
    for view, text in VIEW_TEXT.items():
        names = [name for name in configs if name.rpartition("-")[2] == view]
        if names:
            own = "".join(
                f"- `{column}`: {meaning}\n" for column, (_, meaning) in COLUMNS[view].items() if column not in COMMON
            )
            parts += [f"### {view}\n\n{text}\n", own]
            if names[-1] != shown:
                split = next(one for one in SPLITS if one in configs[names[-1]])
                parts.append(_example("From", names[-1], split, configs, folder))
    columns = "".join(f"- `{column}`: {meaning}\n" for column, (_, meaning) in COMMON.items())
    return [*parts, f"### Columns of all views\n\n{columns}"]


def _example(words: str, name: str, split: str, configs: dict[str, Any], folder: Folder) -> str:
    """Return a short row of a split, all columns but the instruction and the trace; nothing where it cannot be read."""
    row = _short_row(configs[name][split]["shards"][0]["path"], name.rpartition("-")[2], folder)
    if row is None:
        return ""
    values = ", ".join(f"{column} {row[column]}" for column in row if column not in TEXTS and row[column] is not None)
    prompt, completion = (row[text].removesuffix("\n") for text in TEXTS)
    lines = ["```text", "prompt:", prompt, "completion:", completion, "```"]
    return "\n".join([f"{words} `{name}`, split {split} ({values}):", "", *lines, ""])


def _short_row(path: str, view: str, folder: Folder) -> dict[str, Any] | None:
    """Return the shortest of a shard's first rows; rather one of two digits and in the middle of a run."""

    def rank(row: dict[str, Any]) -> tuple[bool, bool, int]:
        edge = row.get("state") == "q0" or row.get("next_state") == "qH"
        return row["len_a"] < 2, edge, sum(len(row[text]) for text in TEXTS)

    columns = [column for column in COLUMNS[view] if column not in ("instruction", "trace")]
    try:
        with folder.open(path) as file:
            rows = pq.ParquetFile(file).read_row_group(0, columns=columns).slice(0, 200).to_pylist()
        return min(rows, key=rank)
    except (OSError, pa.ArrowException, ValueError, LookupError, TypeError):
        return None  # another task's shard, damaged since: no reason to fail this build


def _provenance(manifest: dict[str, Any]) -> str:
    lines = [f"## How it was built\n\nWith caef-data {manifest['caef_data']}, by\n"]
    for command in commands(manifest):
        lines += [f"    {printable_path(command)}\n", *_declaration(command, manifest)]
    built = ", ".join(f"{name} {version}" for name, version in sorted(manifest["built_with"].items()))
    numbers = ", ".join(f"{name} {number}" for name, number in sorted(manifest["versions"].items()))
    dialects: dict[str, list[str]] = {}
    for task, own in sorted(manifest["tasks"].items()):
        dialects.setdefault(str(own["settings"].get("dialect")), []).append(task)
    about = (
        f"Identity `{manifest['identity']}`; versions of the rules: {numbers}; built with {built}. The same"
        " command gives the same rows on any machine, and with these versions the same bytes. `manifest.json` has"
        " the settings and, for every file, its rows, bytes and sha256. This checks them, re-executes every row and"
        " looks for leaks:"
    )
    lines += [_filled(about), "    caef-data verify data\n"]
    lines += [_filled(f"Dialect {one}: {', '.join(own)}. {DIALECT_TEXT.get(one, '')}") for one, own in dialects.items()]
    return "\n".join(lines)


def _declaration(command: str, manifest: dict[str, Any]) -> list[str]:
    """Return the file that a command reads, where it does not come with caef-data."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = []
    if len(words) != 3 or not words[2].endswith(".toml"):
        return []
    built = {
        name.rpartition("-")[0]
        for name, splits in manifest["configs"].items()
        for split in splits.values()
        if split["command"] == command
    }
    lines = [f"where `{words[2]}` is\n", "```toml"]
    for task in sorted(built):
        settings = dict(sorted(manifest["tasks"].get(task, {}).get("settings", {}).items()))
        lines += ["[[task]]", *(f"{key} = {json.dumps(value)}" for key, value in settings.items() if value is not None)]
    return [*lines, "```\n"]
