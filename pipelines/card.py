"""The dataset card: YAML that names configs and splits, then what a reader needs to know."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Mapping
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import printable_path
from ..schemas import COLUMNS, VIEW_TEXT
from ..schemas.rows import COMMON
from ..tm import transition
from .card_merge import END_MARK, Card, UnmarkedError, conflict, text_of
from .expressions import allowed_test
from .manifest import CARD, split_entries
from .rebuild import declaration_text
from .settings import SPLITS, digest
from .store import split_url
from .token_table import token_lines

if TYPE_CHECKING:
    from .folder import Folder

SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "1B<n<10B", "10B<n<100B")
TEXTS = ("prompt", "completion")
REBUILT = "This dataset is being rebuilt."
DIALECT_TEXT = {
    "consistent": "Prompts of composers hold what the called machines really emit.",
    "published": "The text of the published scripts, byte for byte; some prompts of `SUB` and `MUL` differ from that.",
}
_BLOCK = re.compile(rf"(?<=yours -->\n\n).*(?=^{END_MARK})", re.MULTILINE | re.DOTALL)

Loads = Callable[[str, str], str]  # the Python call that loads a config and split


def from_folder(config: str, split: str, place: str = "PATH_OR_REPO") -> str:
    """Return the call that loads a split from a folder on disk, or from a repository on the Hub."""
    return f'load_dataset({json.dumps(place)}, "{config}", split="{split}")'


def loads_from(place: str) -> Loads:
    """Return what writes the call that loads a split from a path or a URL."""
    url = split_url(place)
    if url is not None and url[0] != "file":  # the library looks for a card in folders and on the Hub only
        root = f"{url[0]}://{url[1]}"
        return lambda config, split: (
            f'load_dataset("parquet", data_files={json.dumps(f"{root}/{config}/{split}-*.parquet")}, split="train")'
        )
    return lambda config, split: from_folder(config, split, place if url is None else url[1])


def card(manifest: dict[str, Any], folder: Folder, loads: Loads = from_folder) -> str:
    """Return the card of a dataset folder whose shards are all written.

    Args:
        manifest: the folder's manifest.
        folder: where its shards can be read.
        loads: writes the call that loads a split of a config.
    """
    text, splits = files(__package__).joinpath("card.md").read_text("utf-8"), split_entries(manifest)
    text, rows = _with_machines(text, manifest), sum(entry["rows"] for _, _, entry in splits)
    values = {"size": SIZES[min(max(len(str(rows)) - 3, 0), len(SIZES) - 1)]}
    if splits:
        step, call, (config, split) = transition("add", 12, 9, 2), transition("sub", 12, 7, 1), first_split(manifest)
        values |= {"configs": _configs(manifest), "holds": _holds(manifest), "load": loads(config, split)}
        values |= {"entry": step.prompt, "after": step.completion, "prompt": call.prompt, "completion": call.completion}
        values |= {"example": _example("A row of", config, split, manifest, folder)}
        values |= {"views": _views(manifest, config, folder), "common": _columns(COMMON), **_provenance(manifest)}
        values |= {"contents": "\n".join([*(_measures(*entry) for entry in splits), *token_lines(splits)])}
    else:
        text = _BLOCK.sub(f"{REBUILT}\n", text.replace("$configs\n", ""))
    text = Template(text).substitute({name: value.rstrip("\n") for name, value in values.items()})
    return re.sub(r"\n{3,}", "\n\n", text)


def _with_machines(text: str, manifest: dict[str, Any]) -> str:
    """Return the card's template with what a reader needs to know of Turing machines, where there are some."""
    specs = [own["machine"] for own in manifest["tasks"].values() if own.get("machine")]
    if not specs:
        return text
    intro, reading, sides = files(__package__).joinpath("card_machines.md").read_text("utf-8").split("%%\n")
    told = "\nMachines of a family are train or test as a whole, by the hash of their canonical form, in any dataset."
    sides = Template(sides).substitute(sides=told if any(spec["side"] for spec in specs) else "")
    if len(specs) < len(manifest["tasks"]):
        text = text.replace("## Views\n", f"{reading}\n## Views\n", 1)
        return text.replace("## Configs and sizes\n", f"{sides}\n## Configs and sizes\n", 1)
    text = text.replace("Arithmetic as Turing machines", "Turing machines, step by step")
    text = text.replace("# Arithmetic executed as Turing machines", "# Turing machines, step by step")
    for begin, end, own in (
        ("Rows that teach", "$holds", intro),
        ("## Splits\n", "## Configs", f"## Splits\n\n{sides}\n"),
    ):
        text = text[: text.index(begin)] + own + text[text.index(end) :]
    before, title, after = text.partition("## How to read the text\n")
    return f"{before}{title}{reading.partition('machines')[2]}\n{after[after.index('## Views') :]}"


def card_there(folder: Folder) -> Card | None:
    """Return the card that lies in a folder; None where there is none.

    Raises:
        UserError: it cannot be renewed without losing what a person wrote.
    """
    text = text_of(folder.read(CARD), folder.where(CARD))
    try:
        return None if text is None else Card.of(text)
    except UnmarkedError as error:
        raise conflict(str(error), folder.where(CARD), error.next_step) from None


def renewed_card(manifest: dict[str, Any], folder: Folder, loads: Loads = from_folder) -> str:
    """Return the card for a manifest, with all that a person wrote in the one that lies in the folder."""
    ours, there = card(manifest, folder, loads), card_there(folder)
    return ours if there is None else there.renewed(Card.of(ours))


def first_split(manifest: dict[str, Any]) -> tuple[str, str]:
    """Return the config and split that examples load."""
    return min(split_entries(manifest), key=lambda names: (not names[0].endswith("-one_step"), names[0]))[:2]


def commands(manifest: dict[str, Any]) -> list[str]:
    """Return the commands that built what a manifest names, each once."""
    return list(dict.fromkeys(entry["command"] for _, _, entry in split_entries(manifest)))


def version(splits: dict[str, Any]) -> str:
    """Return the version of a config: 0.0 and a digest of its files.

    The datasets library keeps what it has read of a folder under the folder's last name and what the card's YAML says
    of its configs: it takes other rows for the same ones unless something changes there. The version is the one value
    of which releases from 2.14.7 to 5.2.0 all take note.
    """
    files = {split: [shard["sha256"] for shard in own["shards"]] for split, own in splits.items()}
    return f"0.0.{int(digest(files), 16)}"


def _configs(manifest: dict[str, Any]) -> str:
    """Return the part of the YAML by which the datasets library finds the rows."""
    lines = ["configs:"]
    for name, splits in sorted(manifest["configs"].items()):
        lines += [f"- config_name: {name}", *["  default: true"] * (name == first_split(manifest)[0])]
        lines += [f"  version: {version(splits)}", "  data_files:"]
        for split in SPLITS:
            lines += [f"  - split: {split}", f"    path: {name}/{split}-*.parquet"] if split in splits else []
    return "\n".join(lines)


def _holds(manifest: dict[str, Any]) -> str:
    """Return a paragraph on how much of what is here."""
    entries = [entry for _, _, entry in split_entries(manifest)]
    tasks = sorted({name.rpartition("-")[0] for name in manifest["configs"]})
    settings = [manifest["tasks"].get(task, {}).get("settings", {}) for task in tasks]
    lengths = [own[key] for own in settings for key in ("min", "max") if isinstance(own.get(key), int)]
    words = (
        ("words", "symbols")
        if all(own.get("machine") for own in manifest["tasks"].values())
        else ("operands", "digits")
    )
    operands = f", {words[0]} of {min(lengths):,} to {max(lengths):,} {words[1]}" if lengths else ""
    return _filled(
        f"Here: {sum(entry['rows'] for entry in entries):,} rows ({_size(sum(entry['bytes'] for entry in entries))}) of"
        f" {', '.join(f'`{task}`' for task in tasks)}{operands}."
        " A config is a task and a view, `<task>-<view>`."
    )


def _filled(text: str) -> str:
    """Return a paragraph."""
    return textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False) + "\n"


def _size(count: float) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"


def _measures(name: str, split: str, entry: dict[str, Any]) -> str:
    """Return a line of the table of sizes."""
    cells = [name, split, *(f"{entry[key]:,}" for key in ("classes", "expressions", "rows")), _size(entry["bytes"])]
    cells += [f"{entry['chars'][text]['mean']:,.0f} / {entry['chars'][text]['max']:,}" for text in TEXTS]
    return f"| {' | '.join(cells)} |"


def _views(manifest: dict[str, Any], shown: str, folder: Folder) -> str:
    """Return a section a view, with a real row."""
    parts, entries = [], split_entries(manifest)[::-1]
    for view, text in VIEW_TEXT.items():
        splits = {name: split for name, split, _ in entries if name.rpartition("-")[2] == view}
        if splits:
            own = {column: meaning for column, meaning in COLUMNS[view].items() if column not in COMMON}
            name, split = next(iter(splits.items()))
            example = _example("From", name, split, manifest, folder) if name != shown else ""
            parts += [f"### {view}\n\n{text}\n", _columns(own), example]
    return "\n".join(filter(None, parts))


def _columns(columns: Mapping[str, tuple[Any, str]]) -> str:
    return "".join(f"- `{column}`: {meaning}\n" for column, (_, meaning) in columns.items())


def _example(words: str, name: str, split: str, manifest: dict[str, Any], folder: Folder) -> str:
    """Return a short row of a split, all columns but the instruction and the trace; nothing where it cannot be read."""
    row = _short_row(manifest["configs"][name][split]["shards"][0]["path"], name.rpartition("-")[2], folder)
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
            first = next(pq.ParquetFile(file).iter_batches(200, [0], columns), None)
        return min(first.to_pylist(), key=rank) if first else None
    except (OSError, pa.ArrowException, ValueError, LookupError, TypeError):
        return None  # another task's shard, damaged since: no reason to fail this build


def _provenance(manifest: dict[str, Any]) -> dict[str, str]:
    """Return how it was built: the commands, a paragraph on versions, and the dialects."""
    lines = []
    for command in commands(manifest):
        lines += [f"    {printable_path(command)}\n", *declaration_text(command, manifest)]
    built = ", ".join(f"{name} {version}" for name, version in sorted(manifest["built_with"].items()))
    numbers = ", ".join(f"{name} {number}" for name, number in sorted(manifest["versions"].items()))
    dialects: dict[str, list[str]] = {}
    for task, own in sorted(manifest["tasks"].items()):
        dialects.setdefault(str(own["settings"].get("dialect")), []).append(task)
    texts = [
        _filled(f"Dialect {name}: {', '.join(own)}. {DIALECT_TEXT.get(name, '')}") for name, own in dialects.items()
    ]
    settings = {task: own["settings"] for task, own in manifest["tasks"].items()}
    texts += map(_filled, allowed_test(settings))
    about = _filled(
        f"Identity `{manifest['identity']}`; versions of the rules: {numbers}; built with {built}. The same"
        " command gives the same rows on any machine, and with these versions the same bytes. `manifest.json` has"
        " the settings and, for every file, its rows, bytes and sha256. This checks them, re-executes every row and"
        " looks for leaks:"
    )
    return {
        "caef_data": manifest["caef_data"],
        "commands": "\n".join(lines),
        "about": about,
        "dialects": "\n".join(texts),
    }
