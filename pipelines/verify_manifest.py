"""What the manifest says is there, against what is on disk: names, sizes, rows, schemas."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import UserError, printable_path, quoted
from ..tm import tasks as known_machines
from .manifest import CONFIG, MANIFEST, WrongError, manifest_from
from .plan import Config
from .verify_plan import Planned
from .verify_shard import Finding, Part

_TEXTS = ("a", "b", "prompt", "completion", "instruction")
_ROWS_PER_PART = 100_000


@dataclass(frozen=True)
class Shard:
    """A shard as the manifest names it."""

    task: str
    view: str
    split: str
    dialect: str
    path: str
    rows: int
    bytes: int
    sha256: str
    chars: Any

    @property
    def config(self) -> str:
        """Name of the config."""
        return f"{self.task}-{self.view}"


@dataclass(frozen=True)
class SplitCount:
    """The counts of one split of one config, as the manifest gives them."""

    config: str
    split: str
    rows: int
    bytes: int
    expressions: int
    chars: Any


@dataclass(frozen=True)
class Manifest:
    """A manifest that was understood: its values, and the shards and counts that it names."""

    values: dict[str, Any]
    shards: list[Shard]
    counts: list[SplitCount]


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest of a built folder.

    Raises:
        UserError: there is no folder, no manifest (a build has not finished), or it cannot be understood.

    """
    path = directory / MANIFEST
    if not directory.is_dir():
        raise UserError(f"there is no folder {quoted(str(directory))}", next_step="caef-data build --help")
    if not path.is_file():
        raise UserError(
            f"{quoted(str(directory))} holds no finished dataset: {MANIFEST}, written last, is missing",
            where=printable_path(path),
            next_step="run the same caef-data build command again; it goes on where it stopped",
        )
    try:
        return _understand(manifest_from(path.read_bytes()))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{MANIFEST} cannot be understood: {error if isinstance(error, WrongError) else quoted(error, 120)}",
            where=printable_path(path),
            next_step="build the dataset again with caef-data build",
        ) from error


def _understand(manifest: dict[str, Any]) -> Manifest:
    shards, counts = [], []
    for config, splits in manifest["configs"].items():
        task, _, view = config.rpartition("-")
        dialect = str(manifest["tasks"][task]["settings"].get("dialect", "consistent"))
        for split, held in splits.items():
            sizes = int(held["rows"]), int(held["bytes"]), int(held["expressions"])
            counts.append(SplitCount(config, str(split), *sizes, held.get("chars")))
            for entry in held["shards"]:
                shards.append(
                    Shard(
                        task,
                        view,
                        str(split),
                        dialect,
                        str(entry["path"]),
                        int(entry["rows"]),
                        int(entry["bytes"]),
                        str(entry["sha256"]),
                        entry.get("chars"),
                    )
                )
    return Manifest(manifest, shards, counts)


def check_files(directory: Path, manifest: Manifest) -> list[Finding]:
    """Compare the manifest with itself and with the names in the config folders.

    Files whose names begin with a dot are nobody's concern, and what lies outside the config folders is the user's.
    """
    shards, counts = manifest.shards, manifest.counts
    findings = []
    named = {shard.path for shard in shards}
    if len(named) != len(shards):
        findings.append(Finding("manifest", MANIFEST, None, "names a shard twice"))
    for count in counts:
        held = [shard for shard in shards if (shard.config, shard.split) == (count.config, count.split)]
        for what, said, total in (
            ("rows", count.rows, sum(shard.rows for shard in held)),
            ("bytes", count.bytes, sum(shard.bytes for shard in held)),
        ):
            if total != said:
                message = f"{count.config} {count.split}: {said} {what}, its shards have {total}"
                findings.append(Finding("manifest", MANIFEST, None, message))
    for folder in sorted(directory.iterdir()):
        if not folder.is_dir() or CONFIG.fullmatch(folder.name) is None:
            continue
        for file in sorted(folder.rglob("*")):
            path = file.relative_to(directory).as_posix()
            if not file.is_dir() and path not in named and not file.name.startswith("."):
                findings.append(Finding("foreign", path, None, "is no part of the dataset"))
    return findings


def open_shard(
    directory: Path, shard: Shard, fraction: float, config: Config | None, other_rules: tuple[str, ...]
) -> tuple[list[Finding], list[Part]]:
    """Check a shard's size, rows and schema; cut it into parts to re-execute.

    Args:
        directory: the dataset's folder.
        shard: what the manifest says of it.
        fraction: the share of the rows to re-execute.
        config: what it is a part of by the declaration; None where that is not known.
        other_rules: names of the rules that it does not have in common with this caef-data.
    """
    findings: list[Finding] = []

    def wrong(kind: str, message: str) -> None:
        findings.append(Finding(kind, shard.path, None, message))

    path = directory / shard.path
    if not path.is_file():
        wrong("file", "is missing")
        return findings, []
    size = path.stat().st_size
    if size != shard.bytes:
        wrong("file", f"has {size:,} bytes, the manifest says {shard.bytes:,}")
    try:
        with open(path, "rb") as source, pq.ParquetFile(source) as file:
            rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            schema = file.schema_arrow
    except (pa.ArrowException, OSError, ValueError) as error:
        wrong("file", f"is not a readable Parquet file: {quoted(str(error), 160)}")
        return findings, []
    if sum(rows) != shard.rows:
        wrong("file", f"has {sum(rows):,} rows, the manifest says {shard.rows:,}")
    for message in compare_schema(schema, shard.view):
        wrong("schema", message)
    if any(name not in schema.names or _plain(schema.field(name).type) != pa.string() for name in _TEXTS):
        return findings, []  # without these nothing can be said about rows
    if shard.task not in known_machines():
        return findings, []
    planned = None
    if config is not None:
        paths = [config.shard_path(number) for number in range(config.num_shards)]
        planned = Planned(config, paths.index(shard.path)) if shard.path in paths else None
    part = Part(
        directory, shard.path, shard.task, shard.view, shard.split, shard.dialect, (), 0, 0, None, fraction,
        planned, other_rules,
    )  # fmt: skip
    return findings, list(_parts(part, shard, rows))


def _parts(whole: Part, shard: Shard, rows: list[int]) -> list[Part]:
    """Cut a shard into parts of some row groups each, which are the blocks of the plan.

    Where there are more or fewer groups than blocks, it is one part.
    """
    plan = whole.plan
    apart = plan is None or len(rows) == plan.config.num_blocks(plan.shard)
    cuts: list[tuple[list[int], int, int]] = [([], 0, 0)]  # row groups, first row, rows
    for group, held in enumerate(rows):
        groups, first, total = cuts[-1]
        if groups and total + held > _ROWS_PER_PART and apart:
            cuts.append(([group], first + total, held))
        else:
            cuts[-1] = ([*groups, group], first, total + held)
    return [
        replace(
            whole,
            groups=tuple(groups),
            first_row=first,
            rows=total,
            sha256=None if index else shard.sha256,
            plan=replace(plan, first=groups[0], stop=groups[-1] + 1) if plan is not None and apart and groups else plan,
        )
        for index, (groups, first, total) in enumerate(cuts)
    ]


def compare_schema(found: pa.Schema, view: str) -> list[str]:
    """Say how a file's columns differ from the declared ones; how a text is encoded makes no difference."""
    from ..schemas import row_schema

    declared = row_schema(view)
    messages = []
    if found.names != declared.names:
        messages.append(f"columns are {', '.join(found.names)}; expected {', '.join(declared.names)}")
    for name in declared.names:
        if name in found.names:
            kind, expected = _plain(found.field(name).type), _plain(declared.field(name).type)
            if kind != expected:
                messages.append(f"column {name} has type {kind}, expected {expected}")
    return messages


def _plain(kind: pa.DataType) -> pa.DataType:
    """Take away what is only a way of storing: dictionaries, and the three layouts of texts and lists."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(_plain(kind.value_type))
    return kind
