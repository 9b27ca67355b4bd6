"""Verify rows of streams: by what checks built rows, which has no part in making them, and by the split function."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from dataclasses import replace
from typing import Any

import pyarrow as pa

from ..schemas import row_schema
from .declaration import load_declaration
from .plan import make_plan
from .stream import Stream
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


def print_streams(name: str, count: int, as_json: bool) -> bool:
    """Check rows of each stream of a declaration, print what was found, and tell whether all is well.

    There is one of each split and view that a build writes; with a mix one of each split.
    """
    declaration, found = load_declaration(name), list[dict[str, Any]]()
    plan, mixed = make_plan(declaration), declaration.mix is not None
    with Meter(open_console(stderr=True), "verifying") as meter:
        for split, view in dict.fromkeys((own.split, "one_step" if mixed else own.view) for own in plan.configs):
            stream = Stream(plan.declaration, split, view)
            views, own = [*dict.fromkeys(source.view for source in stream.sources)], check_stream(stream, count, meter)
            about = {"split": split, "views": views, "rows": count, "num_findings": own.num_findings}
            found.append({**about, "findings": [(one.row, one.message) for one in own.findings]})
    ok = not any(one["num_findings"] for one in found)
    if as_json:
        about = {"declaration": name, "identity": declaration.identity(), "ok": ok}
        print(json.dumps({**about, "streams": found}, indent=1))
        return ok
    console = open_console()
    for one in found:
        of = f"{one['split']} {', '.join(one['views'])}"
        console.print(f"{of}: {one['rows']:,} rows checked, {one['num_findings']:,} findings")
        for number, message in one["findings"][:_SHOWN]:
            console.print(f"  {of}, row {number:,}: {message}")
    console.print("every row is right and of its split" if ok else "not right: please report this")
    return ok
