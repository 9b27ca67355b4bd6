"""The dataset card: YAML that names configs and splits, then what a reader needs to know."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..schemas import COLUMNS, VIEW_TEXT
from .settings import SPLITS

if TYPE_CHECKING:
    from .folder import Folder

SIZES: tuple[tuple[int, str], ...] = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
)
SIZES += ((10**7, "1M<n<10M"), (10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"))

ABOUT = """\
# Arithmetic executed as Turing machines

Every row teaches a language model one piece of executing arithmetic on a Turing machine, after the CAEF method
([arXiv 2410.07896](https://arxiv.org/abs/2410.07896)). Built by caef-data {version}; the answers are exact, no
expression occurs twice in a split, and train, test and stress never share one.

Operands are written units first with a bar before each digit: 120 is `|0|2|1`. A *basic* machine's entry is a state
line (tapes, heads, registers, output) and a command line; one training step leads from an entry to the next. A
*composer* (sub, mul, div) calls basic machines: its prompt ends with the halting entry of the machine it called, its
completion with the first entry of the machine to call. Completions carry no end-of-text token: the trainer adds it.
The column `instruction` describes the machine in words; put it before the prompt in the first training stage, leave it
out in the second.

    from datasets import load_dataset
    rows = {load}
"""

GUARANTEE = """\
## Splits

The split of an expression is a function of the task and its operands, of nothing else: not of the seed, the range or
the run; a + b and b + a stand on the same side. About a tenth of every equivalence class (len a, len b) is held out
for test and stress. Powers of ten, their neighbours and nines, of three digits or more, are reserved for stress.
Leak-free is per task: sub, mul and div call add and others on operands that may stand in those tasks' own train split.
"""

END = """\
## Licence and citation

Apache-2.0. The method is due to the paper:

    @article{caef2024,
      title   = {Executing Arithmetic: Fine-Tuning Large Language Models as Turing Machines},
      journal = {arXiv preprint arXiv:2410.07896},
      year    = {2024}
    }
"""


Loads = Callable[[str, str], str]  # the Python call that loads a config and split


def from_folder(config: str, split: str, place: str = "PATH_OR_REPO") -> str:
    """Return the call that loads a split from a folder on disk, or from a repository on the Hub."""
    return f'load_dataset({json.dumps(place)}, "{config}", split="{split}")'


def card(manifest: dict[str, Any], folder: Folder, loads: Loads = from_folder) -> str:
    """Return the card of a dataset folder whose shards are all written.

    Args:
        manifest: the folder's manifest.
        folder: where its shards can be read.
        loads: writes the call that loads a split of a config.
    """
    configs = {name: manifest["configs"][name] for name in sorted(manifest["configs"])}
    if not configs:
        return "This dataset is being rebuilt.\n"
    first, split = first_split(manifest)
    parts = [
        "\n".join(_front_matter(configs)),
        ABOUT.format(version=manifest["caef_data"], load=loads(first, split)),
        _contents(configs),
        GUARANTEE,
        *_examples(configs, folder),
        _provenance(manifest),
        END,
    ]
    return "\n".join(parts)


def first_split(manifest: dict[str, Any]) -> tuple[str, str]:
    """Return the config and split that examples load."""
    name = min(manifest["configs"], key=lambda one: (not one.endswith("-one_step"), one))
    return name, next(split for split in SPLITS if split in manifest["configs"][name])


def commands(manifest: dict[str, Any]) -> list[str]:
    """Return the commands that built what a manifest names, each once."""
    configs = [manifest["configs"][name] for name in sorted(manifest["configs"])]
    return list(dict.fromkeys(split["command"] for splits in configs for split in splits.values()))


def _front_matter(configs: dict[str, Any]) -> list[str]:
    rows = sum(split["rows"] for splits in configs.values() for split in splits.values())
    size = next((name for most, name in SIZES if rows < most), "10B<n<100B")
    lines = ["---", "license: apache-2.0", "language:", "- en", "pretty_name: Arithmetic as Turing machines"]
    lines += ["task_categories:", "- text-generation", "size_categories:", f"- {size}"]
    lines += [
        "tags:",
        "- arithmetic",
        "- turing-machine",
        "- caef",
        "- length-generalization",
        "- synthetic",
        "configs:",
    ]
    for name, splits in configs.items():
        lines += [f"- config_name: {name}", "  data_files:"]
        for split in (one for one in SPLITS if one in splits):
            lines += [f"  - split: {split}", f"    path: {name}/{split}-*.parquet"]
    return [*lines, "---", ""]


def _contents(configs: dict[str, Any]) -> str:
    lines = ["## Contents", ""]
    lines += ["| config | split | classes | expressions | rows | MB | prompt chars, mean / max | completion chars |"]
    lines += ["|---|---|---:|---:|---:|---:|---:|---:|"]
    for name, splits in configs.items():
        for split in (one for one in SPLITS if one in splits):
            own = splits[split]
            sizes = [f"{own['chars'][text]['mean']:,.0f} / {own['chars'][text]['max']:,}" for text in own["chars"]]
            counts = " | ".join(f"{own[key]:,}" for key in ("classes", "expressions", "rows"))
            lines.append(f"| {name} | {split} | {counts} | {own['bytes'] / 1e6:,.1f} | {' | '.join(sizes)} |")
    return "\n".join([*lines, ""])


def _examples(configs: dict[str, Any], folder: Folder) -> list[str]:
    """Return a section a view: its columns, and a real row with short texts."""
    parts = []
    for view, text in VIEW_TEXT.items():
        names = [name for name in configs if name.rpartition("-")[2] == view]
        if not names:
            continue
        parts += [f"## {view}", "", text, ""]
        parts += [f"- `{name}`: {meaning}" for name, (_, meaning) in COLUMNS[view].items()]
        parts += ["", *_example(configs[names[0]], folder), ""]
    return ["\n".join(parts)]


def _example(splits: dict[str, Any], folder: Folder) -> list[str]:
    split = next(one for one in SPLITS if one in splits)
    try:
        with folder.open(splits[split]["shards"][0]["path"]) as file:
            table = pq.ParquetFile(file).read_row_group(0, columns=["prompt", "completion"])
    except (OSError, pa.ArrowException):  # another task's shard, damaged since: no reason to fail this build
        return []
    rows = table.slice(0, 200).to_pylist()
    row = min(rows, key=lambda one: len(one["prompt"]) + len(one["completion"]))
    lines = ["A short row of " + splits[split]["shards"][0]["path"] + ":", "", "```text", "prompt:"]
    return [
        *lines,
        row["prompt"].removesuffix("\n"),
        "completion:",
        row["completion"].removesuffix("\n"),
        "```",
    ]


def _provenance(manifest: dict[str, Any]) -> str:
    lines = ["## How it was built", ""]
    for command in commands(manifest):
        lines += [f"    {command}", ""]
    built = ", ".join(f"{name} {version}" for name, version in sorted(manifest["built_with"].items()))
    numbers = ", ".join(f"{name} {number}" for name, number in sorted(manifest["versions"].items()))
    lines += [f"Identity `{manifest['identity']}`; versions of the rules: {numbers}; built with {built}.", ""]
    dialects = {task: own["settings"]["dialect"] for task, own in manifest["tasks"].items()}
    lines += [
        "Dialects: " + ", ".join(f"{task} {dialect}" for task, dialect in sorted(dialects.items())) + ".",
        "",
    ]
    return "\n".join(lines)
