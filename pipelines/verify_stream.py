"""Verify rows of streams: by what checks built rows, which has no part in making them, and by the split function."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.text import Text

from ..errors import UserError, printable_path, shell_quoted
from ..schemas import row_schema
from .declaration import load_declaration, shipped_declarations
from .plan import make_plan
from .sampling.index_space import permuted
from .sampling.random import text_key
from .settings import Declaration
from .stream import Row, Stream
from .terminal import Meter, new_table, open_console, print_table
from .verify_report import KEPT
from .verify_shard import verify_rows

EPOCHS = 3  # rows are taken from so many
TOGETHER = 5_000  # rows
_SHOWN = 10


@dataclass
class Checked:
    """Rows of a view of a stream: how many were checked, and what is wrong, as (number of the row, what)."""

    split: str
    view: str
    rows: int = 0
    num_findings: int = 0
    findings: list[tuple[int, str]] = field(default_factory=list)


def streams_of(declaration: Declaration) -> Iterator[Stream]:
    """Yield the streams of a declaration: of each split and view that a build writes; with a mix one a split."""
    plan = make_plan(declaration)
    pairs = dict.fromkeys((own.split, own.view) for own in plan.configs)
    if declaration.mix is not None:
        pairs = dict.fromkeys((split, "one_step") for split, _ in pairs)
    for split, view in pairs:
        yield Stream(plan.declaration, split, view)


def check_stream(stream: Stream, count: int, meter: Meter | None = None) -> list[Checked]:
    """Check some rows of a stream, view by view: the first ones, and as many from all over its first epochs."""
    checked = {source.view: Checked(stream.split, source.view) for source in stream.sources}
    first, others = count // 2, np.arange(count - count // 2, dtype=np.uint64)
    behind = max(2 * count, EPOCHS * stream.epoch_rows) - first
    key = np.full(len(others), text_key(f"verify {stream.identity}"), np.uint64)
    drawn = permuted(others, np.full(len(others), behind, np.uint64), key).astype(np.int64)  # none comes twice
    numbers = [*range(first), *(np.sort(drawn) + first).tolist()]
    for start in range(0, count, TOGETHER):
        some = numbers[start : start + TOGETHER]
        _check(stream, dict(zip(some, stream.__getitems__(some), strict=True)), checked)
        if meter is not None:
            meter.update(f"{stream.split}, {start + len(some):,} rows", advance=len(some))
    return [*checked.values()]


def _check(stream: Stream, rows: dict[int, Row], checked: dict[str, Checked]) -> None:
    kinds = defaultdict[tuple[str, str], list[int]](list)
    for number, row in rows.items():
        kinds[row["task"], row.get("view", stream.view)].append(number)
    settings_of = {(source.settings.task, source.view): source.settings for source in stream.sources}
    for (task, view), numbers in kinds.items():
        own = checked.setdefault(view, Checked(stream.split, view))
        own.rows += len(numbers)
        if (task, view) not in settings_of:
            own.num_findings += len(numbers)
            own.findings.append((numbers[0], f"it is of {task} and {view}, of which the stream has no rows"))
            continue
        schema = row_schema(view)
        batch = pa.RecordBatch.from_pylist([{name: rows[at][name] for name in schema.names} for at in numbers], schema)
        result = verify_rows(batch, settings_of[task, view], view, stream.split)
        own.num_findings += result.num_findings
        told = [(numbers[finding.row or 0], finding.message) for finding in result.findings]
        own.findings += told[: KEPT - len(own.findings)]


def print_streams(name: str, count: int, fraction: float, as_json: bool) -> bool:
    """Check rows of each stream of a declaration, print what was found, and tell whether all is well.

    Raises:
        UserError: there is no such declaration.
    """
    if fraction != 1:
        raise UserError("--fraction is for the rows of a folder", where="--stream", allowed="--stream N alone")
    if name not in shipped_declarations() and Path(name).is_dir():
        what = f"{printable_path(name)} is a folder, and --stream checks rows that a declaration's streams make"
        told = f"caef-data verify {shell_quoted(name)} checks all its rows"
        allowed = f"{', '.join(shipped_declarations())}, or a path that ends in .toml"
        raise UserError(what, where="--stream", allowed=allowed, next_step=told)
    declaration = load_declaration(name)
    if declaration.tokenizer is not None:
        what = "the tokens of a budget are counted by a build alone"
        raise UserError(what, where=printable_path(name), allowed="a declaration without a tokenizer")
    with Meter(open_console(stderr=True), "verifying") as meter:
        found = [one for stream in streams_of(declaration) for one in check_stream(stream, count, meter)]
    ok = not any(one.num_findings for one in found)
    if as_json:
        about = {"declaration": name, "identity": declaration.identity(), "ok": ok}
        print(json.dumps({**about, "streams": [one.__dict__ for one in found]}, indent=1))
        return ok
    console = open_console()
    table = new_table("rows checked", "findings", first=("split", "view"))
    for one in found:
        table.add_row(one.split, one.view, f"{one.rows:,}", f"{one.num_findings:,}")
    print_table(console, table)
    for one in found:
        for number, message in one.findings[:_SHOWN]:
            console.print(Text(f"  {one.split} {one.view}, row {number:,}: {message}"), soft_wrap=True)
    told = "every row is right and of its split" if ok else "not right: please report this, a stream makes no such row"
    console.print(Text(told, style="bold green" if ok else "bold red"))
    return ok
