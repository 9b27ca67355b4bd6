"""The command ``caef-data report``: reads the results, and renders them as one page of HTML.

Whatever comes from results is data: names and model output. The template engine escapes it, what does not print or
turns the reading direction is shown as a symbol, and the page's own policy lets no other script run and nothing load.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...atomic import put
from ...errors import UserError, printable_path, shell_quoted, telling_of_full_disk
from ...schemas import RESULTS
from ..compare import in_short
from ..problems import RAW
from ..query import Database
from . import captions
from .captions import cause_title, cut, left_out, models, symbols, titles
from .charts import library, specs, style
from .queries import Count, Key, Numbers, Panel, Row, key_of, read_numbers

PARTS = Path(__file__).parent
LONGEST = 6000  # characters of a prompt or an answer
NAME = 200  # characters of a name
MAX_CAUSES = 40
ENOUGH = 10  # failed problems from which on a chart of them says something
CAPTIONS = ("percent", "percents", "good_up_to", "change", "difference", "outcome", "written")


def report(results: str, runs: Sequence[str], out: str) -> None:
    """Write the report of some runs, and print where it is.

    Args:
        results: the folder of result tables.
        runs: ids of runs, or how they begin; none for all finished ones.
        out: the HTML file to write; one that is there is replaced.

    Raises:
        UserError: there are no results, a run is unknown or unfinished, ``out`` is a folder, or the extra ``report``
            is not installed.
    """
    path = Path(out)
    if not path.name or path.is_dir() or "://" in out:
        raise UserError(
            "a report is a file on this machine",
            where=f"--out {printable_path(out)}",
            allowed="a file name, such as report.html",
        )
    database = Database(Path(results))
    try:
        numbers = read_numbers(database, runs)
    finally:
        database.close()
    page = render(numbers).encode()
    with telling_of_full_disk(printable_path(out), "make room and run the same command again, or choose another --out"):
        put(path, page, f"{os.getpid()}-")
    size = f"{len(page) / 1e6:.1f} MB" if len(page) >= 1e6 else f"{len(page) / 1e3:.0f} kB"
    num = len(numbers.runs)
    print(f"{printable_path(out)}: {num} run{'s' * (num > 1)}, {len(numbers.panels)} tasks and modes, {size}")
    for why, command in left_out(numbers):
        print(why, command)
    print(f"open it:  {'open' if os.uname().sysname == 'Darwin' else 'xdg-open'} {shell_quoted(out)}")


def render(numbers: Numbers) -> str:
    """Return the page.

    Raises:
        UserError: a package of the extra ``report`` is not installed.
    """
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError:
        raise UserError("a report needs jinja2", next_step="pip install 'caef-data[report]'") from None
    # Base models, which are bad at all of it, come last.
    worst_first = sorted(enumerate(numbers.panels), key=lambda one: (one[1].mode == RAW, one[1].worst))
    compared = _compared(numbers.panels)
    tasks: dict[tuple[str, str], list[Panel]] = {}
    for panel in numbers.panels:
        tasks.setdefault((panel.split, panel.task), []).append(panel)
    letters = {run["run_id"]: "ABCDEFGHIJ"[place] for place, run in enumerate(numbers.runs)}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PARTS),
        autoescape=True,
        finalize=lambda value: symbols(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    drawing = library()
    script, css, notice = (
        Markup((PARTS / name).read_text(encoding="utf-8"))  # noqa: S704  our own
        for name in ("script.js", "style.css", "notice.txt")
    )
    return environment.get_template("page.html").render(
        numbers=numbers,
        letters=letters,
        tasks=tasks,
        styles={letter: style(place) for place, letter in enumerate(letters.values())},
        maps=worst_first,
        lengths=[(place, compared[place]) for place, _ in worst_first if place in compared],
        totals={(*panel.key, run): total for panel in numbers.panels for run, total in panel.totals.items()},
        causes=causes(numbers),
        data=_packed(json.dumps(_data(numbers, letters, compared))),
        library=_packed(drawing),
        script=script,
        css=css,
        notice=notice,
        policy=_policy(drawing, script),
        **{name: getattr(captions, name) for name in CAPTIONS},
        in_short=in_short,
        Count=Count,
        left_out=left_out(numbers),
        titles=titles(numbers.runs),
        models=models(numbers.runs),
        base=RAW,
        most=MAX_CAUSES,
        enough=ENOUGH,
        whole=lambda text: [symbols(line) for line in cut(text or "", LONGEST).split("\n")],
        name=lambda text: cut(str(text), NAME),
        meanings={name: meaning for name, (_, meaning) in RESULTS["runs"].items()},
    )


def _packed(text: str) -> str:
    """Return a text compressed, in letters; a report of many classes becomes a fifth."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _policy(*scripts: str) -> str:
    """Return the page's content security policy: these scripts and no others, no eval, and no request at all."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    parts = ("default-src 'none'", f"script-src {allowed}", "style-src 'unsafe-inline'", "img-src data:")
    return "; ".join([*parts, "base-uri 'none'", "form-action 'none'"])


def _compared(panels: list[Panel]) -> dict[int, Panel]:
    """Return panels by their places, those of base models with the whole process: both lead from question to answer."""
    kept = dict(enumerate(panels))
    processes = {(panel.split, panel.task): place for place, panel in kept.items() if panel.mode == "process"}
    for place, panel in enumerate(panels):
        if panel.mode == RAW and (process := processes.get((panel.split, panel.task))) is not None:
            kept[process] = replace(panels[process], classes={**panels[process].classes, **kept.pop(place).classes})
    return kept


def _data(numbers: Numbers, letters: dict[str, str], compared: dict[int, Panel]) -> Row:
    """Return what the page's script draws; counts stand in a table, which the cells of all maps point into."""
    counts: dict[Count, int] = {}

    def place_of(count: Count | None) -> int:
        """Return a count's place in the table; -1 is a class that the dataset does not have."""
        return -1 if count is None else counts.setdefault(Count(count.n, count.correct), len(counts))

    def drawn(panel: Panel, beside: Panel) -> Row:
        known = {lengths for classes in panel.classes.values() for lengths in classes}
        all_a, all_b = sorted({a for a, _ in known}), sorted({b for _, b in known})
        return {
            "title": symbols(cut(f"{panel.task} {panel.mode}", NAME)),
            "a": all_a,
            "b": all_b,
            "cells": {
                letters[run]: [place_of(classes.get((a, b))) for a in all_a for b in all_b]
                for run, classes in panel.classes.items()
            },
            "totals": {letters[run]: place_of(total) for run, total in beside.totals.items()},
            "lengths": {
                letters[run]: [[length, place_of(count)] for length, count in beside.lengths(run).items() if count.n]
                for run in beside.classes
            },
            "changes": {},
            "tenths": {letters[run]: problems for run, problems in panel.tenths.items()},
        }

    panels: dict[Key, Row] = {one.key: drawn(one, compared.get(place, one)) for place, one in enumerate(numbers.panels)}
    places = {key: place for place, key in enumerate(panels)}
    for gain in numbers.gains:
        new, old = letters[gain["run_id"]], letters[gain["old_run"]]
        before = places[gain["split"], gain["task"], gain["old_mode"]]
        panels[key_of(gain)]["changes"][f"{new}−{old}"] = [new, before, old]
    runs = list(letters.values())
    return {
        "runs": runs,
        "colours": {letter: style(place)["colours"] for place, letter in enumerate(runs)},
        "counts": [
            [one.n, one.correct, one.accuracy, *(one.interval or (None, None))]
            + [captions.percent(one), captions.in_words(one)]
            for one in counts
        ],
        "panels": list(panels.values()),
        "specs": specs(tuple(runs)),
    }


@dataclass
class Cause:
    """Where failed problems first went wrong: how many by run, task and mode, and examples."""

    title: str
    baseline: bool
    rows: list[Row] = field(default_factory=list)
    examples: list[Row] = field(default_factory=list)

    @property
    def total(self) -> int:
        """All problems that failed for it."""
        return sum(row["problems"] for row in self.rows)


def causes(numbers: Numbers) -> list[Cause]:
    """Return the causes of failed problems, the most frequent first, those of base models last."""
    found: dict[str, Cause] = {}

    def of(row: Row) -> Cause:
        title = cause_title(row)
        return found.setdefault(title, Cause(title, row["mode"] == RAW))

    for row in numbers.causes:
        of(row).rows.append(row)
    for row in sorted(numbers.examples, key=lambda row: row["place"]):
        of(row).examples.append(row)
    return sorted(found.values(), key=lambda cause: (cause.baseline, -cause.total, cause.title))
