"""Verify rows of streams: by what checks built rows, which has no part in making them, and by the split function."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from dataclasses import replace
from typing import Any

import pyarrow as pa

from ..schemas import row_schema
from .plan import make_plan
from .settings import Declaration
from .stream import NoRowsError, Stream
from .terminal import Meter, open_console
from .verify_report import Findings
from .verify_shard import verify_rows

EPOCHS = 3  # rows are taken from so many
TOGETHER = 5_000  # rows
_SHOWN = 10


def check_stream(stream: Stream, count: int, meter: Meter) -> Findings:
    """Check some rows of a stream: the first ones, and as many from all over its first epochs."""
    found, first, most = Findings(""), count // 2, max(2 * count, EPOCHS * stream.epoch_rows)
    numbers = [*range(first), *sorted(random.Random(stream.identity).sample(range(first, most), count - first))]
    settings_of = {(source.settings.task, source.view): source.settings for source in stream.sources}
    for start in range(0, count, TOGETHER):
        meter.update(f"{stream.split} {stream.view}, {start:,} rows")
        some, kinds = numbers[start : start + TOGETHER], defaultdict[tuple[str, str], dict[int, Any]](dict)
        for number, row in zip(some, stream.__getitems__(some), strict=True):
            kinds[row["task"], row.get("view", stream.view)][number] = row
        for (task, view), rows in kinds.items():
            own = [*rows]
            if (task, view) not in settings_of:
                found.add("machine", f"it is of {task} and {view}, of which the stream has no rows", own[0])
                continue
            batch = pa.RecordBatch.from_pylist([*rows.values()], row_schema(view))
            wrong = verify_rows(batch, settings_of[task, view], view, stream.split)
            wrong.findings = [replace(finding, row=own[finding.row or 0]) for finding in wrong.findings]
            found.take(wrong)
    return found


def print_streams(declaration: Declaration, count: int, as_json: bool) -> bool:
    """Check rows of each stream of a declaration, print what was found, and tell whether all is well.

    There is one of each split and view that a build writes; with a mix one of each split of which it has rows.

    Raises:
        UserError: there is none.
    """
    pairs = ((own.split, "one_step" if declaration.mix else own.view) for own in make_plan(declaration).configs)
    console, streams, ok = open_console(), list[dict[str, Any]](), True
    lacking = dict[str, NoRowsError]()
    with Meter(open_console(stderr=True), "verifying") as meter:
        for split, view in dict.fromkeys(pairs):
            try:
                stream = Stream(declaration, split, view)
            except NoRowsError as error:  # a mix may name rows that one split lacks
                of = split if declaration.mix else f"{split} {view}"
                lacking[f"{of} is not checked: {error.what}"] = error
                continue
            found = check_stream(stream, count, meter)
            views = [*dict.fromkeys(source.view for source in stream.sources)]
            findings, ok = [(one.row, one.message) for one in found.findings], ok and not found.num_findings
            about = {"split": split, "views": views, "rows": count, "num_findings": found.num_findings}
            streams.append({**about, "findings": findings})
            if not as_json:
                of = f"{split} {', '.join(views)}"
                console.print(f"{of}: {count:,} rows checked, {found.num_findings:,} findings")
                for number, message in findings[:_SHOWN]:
                    console.print(f"  {of}, row {number:,}: {message}")
    if not streams:
        raise next(iter(lacking.values()))
    if as_json:
        about = {"declaration": declaration.source, "identity": declaration.identity()}
        print(json.dumps({**about, "ok": ok, "streams": streams, "notes": [*lacking]}, indent=1))
    else:
        for note in lacking:
            console.print(note)
        console.print("every row is right and of its split" if ok else "not right: please report this")
    return ok
