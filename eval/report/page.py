"""Renders a report's numbers as one page of HTML.

Whatever comes from results is data: names and model output. The template engine escapes it, what does not print or
turns the reading direction is shown as a symbol, and the page's own policy lets no other script run and nothing load.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from os.path import commonprefix
from pathlib import Path

from ...errors import UserError
from ...schemas import RESULTS
from ..compare import in_short
from ..runs import RAW
from .charts import library, specs, style
from .numbers import Count, Numbers, Panel, Row
from .words import (
    cause_title,
    change,
    good_up_to,
    in_words,
    left_out,
    models,
    outcome,
    percent,
    percents,
    titles,
    written,
)

PARTS = Path(__file__).parent
BEFORE, AFTER = 22, 44  # characters shown around the first wrong one, which a phone shows without scrolling
LONGEST = 6000  # characters of a prompt or an answer
NAME = 200  # characters of a name
END = "ends here"
MAX_CAUSES = 40
ENOUGH = 10  # failed problems from which on a chart of them says something


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
    beside = _beside(numbers.panels)
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
    drawing, script = library(), _part("script.js")
    return environment.get_template("page.html").render(
        numbers=numbers,
        letters=letters,
        tasks=tasks,
        styles={letter: style(place) for place, letter in enumerate(letters.values())},
        maps=worst_first,
        lengths=[(place, beside[place]) for place, _ in worst_first if place in beside],
        totals={(*_key(panel), run): panel.total(run) for panel in numbers.panels for run in panel.classes},
        causes=causes(numbers),
        data=_packed(json.dumps(_data(numbers, letters))),
        library=_packed(drawing),
        script=Markup(script),  # noqa: S704  our own
        css=Markup(_part("style.css")),  # noqa: S704  our own
        policy=_policy(drawing, script),
        notice=Markup(_part("notice.txt")),  # noqa: S704  our own
        **{
            one.__name__: one
            for one in (percent, percents, Count, good_up_to, change, difference, outcome, written, in_short)
        },
        left_out=left_out(numbers),
        titles=titles(numbers.runs),
        models=models(numbers.runs),
        base=RAW,
        most=MAX_CAUSES,
        enough=ENOUGH,
        whole=lambda text: [symbols(line) for line in _cut(text or "", LONGEST).split("\n")],
        name=lambda text: _cut(str(text), NAME),
        meanings={name: meaning for name, (_, meaning) in RESULTS["runs"].items()},
    )


def _part(name: str) -> str:
    return (PARTS / name).read_text(encoding="utf-8")


def _packed(text: str) -> str:
    """Return a text compressed, in letters; a report of many classes becomes a fifth."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _policy(*scripts: str) -> str:
    """Return the page's content security policy: these scripts and no others, no eval, and no request at all."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    parts = ("default-src 'none'", f"script-src {allowed}", "style-src 'unsafe-inline'", "img-src data:")
    return "; ".join([*parts, "base-uri 'none'", "form-action 'none'"])


def _data(numbers: Numbers, letters: dict[str, str]) -> Row:
    """Return what the page's script draws; counts stand in a table, which the cells of all maps point into."""
    counts: dict[Count, int] = {}
    beside = _beside(numbers.panels)
    drawn = [_panel(one, beside.get(place, one), letters, counts) for place, one in enumerate(numbers.panels)]
    places = {_key(panel): place for place, panel in enumerate(numbers.panels)}
    for gain in numbers.gains:
        new, old = letters[gain["run_id"]], letters[gain["old_run"]]
        before = places[gain["split"], gain["task"], gain["old_mode"]]
        drawn[places[gain["split"], gain["task"], gain["mode"]]]["changes"][f"{new}−{old}"] = [new, before, old]
    listed = [
        [one.n, one.correct, one.accuracy, *(one.interval or (None, None)), percent(one), in_words(one)]
        for one in counts
    ]
    runs = list(letters.values())
    colours = {letter: style(place)["colours"] for place, letter in enumerate(runs)}
    return {"runs": runs, "colours": colours, "counts": listed, "panels": drawn, "specs": specs(tuple(runs))}


def _key(panel: Panel) -> tuple[str, str, str]:
    return panel.split, panel.task, panel.mode


def _panel(panel: Panel, beside: Panel, letters: dict[str, str], counts: dict[Count, int]) -> Row:
    """Return a panel as the page's script draws it; ``beside``: with the runs that its chart of lengths holds too."""
    known = {lengths for classes in panel.classes.values() for lengths in classes}
    all_a, all_b = sorted({a for a, _ in known}), sorted({b for _, b in known})
    return {
        "title": symbols(_cut(f"{panel.task} {panel.mode}", NAME)),
        "a": all_a,
        "b": all_b,
        "cells": {
            letters[run]: [_place(classes.get((a, b)), counts) for a in all_a for b in all_b]
            for run, classes in panel.classes.items()
        },
        "totals": {letters[run]: _place(beside.total(run), counts) for run in beside.classes},
        "lengths": {
            letters[run]: [[length, _place(count, counts)] for length, count in beside.lengths(run).items() if count.n]
            for run in beside.classes
        },
        "changes": {},
        "tenths": {letters[run]: problems for run, problems in panel.tenths.items()},
    }


def _beside(panels: list[Panel]) -> dict[int, Panel]:
    """Return panels by their places, those of base models with the whole process: both lead from question to answer."""
    kept = dict(enumerate(panels))
    processes = {(panel.split, panel.task): place for place, panel in kept.items() if panel.mode == "process"}
    for place, panel in enumerate(panels):
        if panel.mode == RAW and (process := processes.get((panel.split, panel.task))) is not None:
            kept[process] = panels[process].beside(kept.pop(place))
    return kept


def _place(count: Count | None, counts: dict[Count, int]) -> int:
    """Return a count's place in ``counts``; -1 is a class that the dataset does not have."""
    return -1 if count is None else counts.setdefault(Count(count.n, count.correct), len(counts))


def causes(numbers: Numbers) -> list[Cause]:
    """Return the causes of failed problems, the most frequent first, those of base models last."""
    found: dict[str, Cause] = {}
    for row in numbers.causes:
        found.setdefault(cause_title(row), Cause(cause_title(row), row["mode"] == RAW)).rows.append(row)
    for row in sorted(numbers.examples, key=lambda row: row["place"]):
        found.setdefault(cause_title(row), Cause(cause_title(row), row["mode"] == RAW)).examples.append(row)
    return sorted(found.values(), key=lambda cause: (cause.baseline, -cause.total, cause.title))


def difference(expected: str, text: str) -> list[tuple[str, str, str, str]]:
    """Return the right answer and the model's around the first character in which they differ.

    Returns:
        (who, text before, that character or ``END``, text after), twice; symbols stand for what does not print.
    """
    pair = {"expected": expected, "answered": text}
    at = len(commonprefix(list(pair.values())))
    start = max(at - BEFORE, 0)
    return [
        (
            who,
            "…" * (start > 0) + symbols(one[start:at]),
            symbols(one[at : at + 1]).replace(" ", "␣") or END,
            symbols(one[at + 1 : at + 1 + AFTER]) + "…" * (len(one) > at + 1 + AFTER),
        )
        for who, one in pair.items()
    ]


def symbols(text: str) -> str:
    """Return a text with a symbol for every character that does not print, breaks a line or turns its direction."""
    return text if text.isprintable() else "".join(_symbols(text))


def _symbols(text: str) -> Iterator[str]:
    for one in text:
        if one.isprintable():
            yield one
        elif one == "\n":
            yield "↵"
        elif ord(one) < 0x20:
            yield chr(0x2400 + ord(one))  # Unicode has a picture of each
        else:
            yield "␡" if one == "\x7f" else f"⟨U+{ord(one):04X}⟩"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}… ({len(text):,} characters)"
