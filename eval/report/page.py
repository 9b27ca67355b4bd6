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
from dataclasses import replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from ...atomic import put
from ...errors import UserError, installed, printable_path, shell_quoted, telling_of_full_disk
from ...schemas import RESULTS
from ..compare import in_short
from ..problems import RAW
from ..query import Database
from . import captions
from .captions import cause_title, cut, in_words, left_out, percent, symbols
from .queries import Count, Key, Panel, Report, Row, key_of, read_report

PARTS = Path(__file__).parent
COLOURS = ("ink", "soft", "line", "ground")  # of a light or dark page, which its script gives to the charts
LETTERS = "ABCDEFGHIJ"  # of runs; style.css and charts.yaml give each a colour, a point and a dash


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
        what, where = "a report is a file on this machine", f"--out {printable_path(out)}"
        raise UserError(what, where=where, allowed="a file name, such as report.html")
    with Database(Path(results)) as database:
        read = read_report(database, runs)
    page = render(read).encode()
    with telling_of_full_disk(printable_path(out), "make room and run the same command again, or choose another --out"):
        put(path, page, f"{os.getpid()}-")
    num, panels, size = len(read.runs), len(read.panels), len(page) / 1e6
    print(f"{printable_path(out)}: {num} run{'s' * (num > 1)}, {panels} tasks and modes, {size:.1f} MB")
    for why, command in left_out(read):
        print(why, command)
    print(f"open it:  {'open' if os.uname().sysname == 'Darwin' else 'xdg-open'} {shell_quoted(out)}")


def render(report: Report) -> str:
    """Return the page.

    Raises:
        UserError: a package of the extra ``report`` is not installed.
    """
    with installed("a report", "report"):
        import jinja2
        import vl_convert  # noqa: F401  below
        from markupsafe import Markup
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
    letters = {run["run_id"]: letter for run, letter in zip(report.runs, LETTERS, strict=False)}
    compared = _compared(report.panels)
    # Base models, which are bad at all of it, come last.
    worst_first = sorted(enumerate(report.panels), key=lambda item: (item[1].mode == RAW, item[1].worst))
    return environment.get_template("page.html", globals=vars(captions)).render(
        report=report,
        letters=letters,
        tasks=[list(panels) for _, panels in groupby(report.panels, lambda panel: panel.key[:2])],
        maps=worst_first,
        lengths=[(place, compared[place]) for place, _ in worst_first if place in compared],
        totals={(*panel.key, run): total for panel in report.panels for run, total in panel.totals.items()},
        causes=causes(report),
        data=_packed(json.dumps(_data(report, letters, compared))),
        library=_packed(drawing),
        script=script,
        css=css,
        notice=notice,
        policy=_policy(drawing, script),
        in_short=in_short,
        meanings={name: meaning for name, (_, meaning) in RESULTS["runs"].items()},
    )


@cache
def library() -> str:
    """Return the script that draws the charts; it defines ``vegaEmbed``."""
    import vl_convert

    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return script


@cache
def specs() -> dict[str, Any]:
    """Return the Vega specifications of the charts, compiled from charts.yaml; the page fills in their data."""
    import vl_convert
    import yaml

    charts = yaml.safe_load((PARTS / "charts.yaml").read_text(encoding="utf-8"))
    shared = charts.pop("shared")
    for spec in charts.values():
        spec["params"] = [{"name": name} for name in (*COLOURS, *spec["params"])]
    return {name: vl_convert.vegalite_to_vega(shared | spec, vl_version="6.4") for name, spec in charts.items()}


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
    compared = dict(enumerate(panels))
    processes = {(panel.split, panel.task): place for place, panel in compared.items() if panel.mode == "process"}
    for place, panel in enumerate(panels):
        if panel.mode == RAW and (process := processes.get((panel.split, panel.task))) is not None:
            compared[process] = replace(panels[process], classes=panels[process].classes | compared.pop(place).classes)
    return compared


def _data(report: Report, letters: dict[str, str], compared: dict[int, Panel]) -> Row:
    """Return what the page's script draws; counts stand in a table, which the cells of all maps point into."""
    counts: dict[Count, int] = {}

    def place_of(count: Count | None) -> int:
        """Return a count's place in the table; -1 is a class that the dataset does not have."""
        return -1 if count is None else counts.setdefault(Count(count.n, count.correct), len(counts))

    panels: dict[Key, Row] = {}
    for place, panel in enumerate(report.panels):
        beside = compared.get(place, panel)
        classes = {lengths for own in panel.classes.values() for lengths in own}
        all_a, all_b = sorted({a for a, _ in classes}), sorted({b for _, b in classes})
        panels[panel.key] = {
            "title": symbols(cut(f"{panel.task} {panel.mode}")),
            "a": all_a,
            "b": all_b,
            "cells": {
                letters[run]: [place_of(own.get((a, b))) for a in all_a for b in all_b]
                for run, own in panel.classes.items()
            },
            "totals": {letters[run]: place_of(total) for run, total in beside.totals.items()},
            "lengths": {
                letters[run]: [[length, place_of(count)] for length, count in beside.lengths(run).items() if count.n]
                for run in beside.classes
            },
            "changes": {},
            "tenths": {letters[run]: problems for run, problems in panel.tenths.items()},
        }
    places = {key: place for place, key in enumerate(panels)}
    for gain in report.gains:
        new, old = letters[gain["run_id"]], letters[gain["old_run"]]
        before = places[gain["split"], gain["task"], gain["old_mode"]]
        panels[key_of(gain)]["changes"][f"{new}−{old}"] = [new, before, old]
    return {
        "runs": list(letters.values()),
        "counts": [
            [one.n, one.correct, one.accuracy, *(one.interval or (None, None)), percent(one), in_words(one)]
            for one in counts
        ],
        "panels": list(panels.values()),
        "specs": specs(),
    }


def causes(report: Report) -> list[Row]:
    """Return the causes of failed problems, each with its ``rows`` of how many by run, task and mode, and examples.

    The most frequent come first, those of base models last.
    """
    causes: dict[str, Row] = {}
    for kind, rows in (("rows", report.causes), ("examples", report.examples)):
        for row in rows:
            new = {"title": cause_title(row), "baseline": row["mode"] == RAW, "rows": [], "examples": []}
            causes.setdefault(new["title"], new)[kind].append(row)
    for cause in causes.values():
        cause["total"] = sum(row["problems"] for row in cause["rows"])
    return sorted(causes.values(), key=lambda cause: (cause["baseline"], -cause["total"], cause["title"]))
