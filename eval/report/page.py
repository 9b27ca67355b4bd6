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
from os.path import commonprefix
from pathlib import Path

from ...errors import UserError
from ...schemas import RESULTS
from .charts import library, specs, style
from .numbers import Count, Numbers, Panel, Row

PARTS = Path(__file__).parent
BEFORE, AFTER = 22, 44  # characters shown around the first wrong one, which a phone shows without scrolling
LONGEST = 6000  # characters of a prompt or an answer
NAME = 200  # characters of a name
GOOD = 0.99
END = "ends here"


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
        styles={letter: style(place) for place, letter in enumerate(letters.values())},
        data=_packed(json.dumps(_data(numbers.panels, letters))),
        library=_packed(drawing),
        script=Markup(script),  # noqa: S704  our own
        css=Markup(_part("style.css")),  # noqa: S704  our own
        policy=_policy(drawing, script),
        notice=Markup(_part("notice.txt")),  # noqa: S704  our own
        percent=percent,
        percents=percents,
        Count=Count,
        good_up_to=good_up_to,
        change=change,
        difference=difference,
        by_run=lambda row: dict(zip(row["runs"], row["problems"], strict=True)),
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


def _data(panels: list[Panel], letters: dict[str, str]) -> Row:
    """Return what the page's script draws; counts stand in a table, which the cells of all maps point into."""
    counts: dict[Count, int] = {}
    drawn = [_panel(panel, letters, counts) for panel in panels]
    listed = [
        [one.n, one.correct, one.accuracy, *(one.interval or (None, None)), percent(one), in_words(one)]
        for one in counts
    ]
    return {"runs": list(letters.values()), "counts": listed, "panels": drawn, "specs": specs(tuple(letters.values()))}


def _panel(panel: Panel, letters: dict[str, str], counts: dict[Count, int]) -> Row:
    """Return a panel with its counts as places in ``counts``; -1 is a class that the dataset does not have."""

    def place(count: Count | None) -> int:
        return -1 if count is None else counts.setdefault(Count(count.n, count.correct), len(counts))

    known = {lengths for classes in panel.classes.values() for lengths in classes}
    all_a, all_b = sorted({a for a, _ in known}), sorted({b for _, b in known})
    cells, lengths = {}, {}
    for run, classes in panel.classes.items():
        cells[letters[run]] = [place(classes.get((a, b))) for a in all_a for b in all_b]
        lengths[letters[run]] = [[length, place(count)] for length, count in panel.lengths(run).items() if count.n]
    return {
        "title": symbols(_cut(f"{panel.task} {panel.mode}", NAME)),
        "a": all_a,
        "b": all_b,
        "cells": cells,
        "totals": {letters[run]: place(panel.total(run)) for run in panel.classes},
        "lengths": lengths,
        "tenths": {letters[run]: problems for run, problems in panel.tenths.items()},
    }


def percent(count: Count) -> str:
    """Return an accuracy: 100% and 0% only where they are meant, a dash where nothing was evaluated."""
    if count.accuracy is None:
        return "–"
    if count.correct in (0, count.n):
        return f"{count.accuracy:.0%}"
    shown = f"{count.accuracy:.1%}"
    return {"100.0%": ">99.9%", "0.0%": "<0.1%"}.get(shown, shown)


def percents(count: Count) -> str:
    """Return the 95% interval of an accuracy."""
    if count.interval is None:
        return ""
    low, high = count.interval
    return f"{100 * low:.1f}–{100 * high:.1f}%"


def in_words(count: Count) -> str:
    """Return a count as a sentence without its subject."""
    if not count.n:
        return "not evaluated"
    return f"{percent(count)} right ({count.correct:,} of {count.n:,}; interval {percents(count)})"


def good_up_to(panel: Panel, run: str) -> int | None:
    """Return the length up to which every evaluated one is right in ``GOOD`` of its problems; None for all or none."""
    lengths = {length: count.accuracy for length, count in panel.lengths(run).items() if count.accuracy is not None}
    reached = 0
    for length, accuracy in lengths.items():
        if accuracy < GOOD:
            return reached
        reached = length
    return None


def change(gain: Row) -> tuple[str, bool]:
    """Return what a run gained over the first one in points of accuracy, and whether their intervals do not touch."""
    old, new = Count(gain["old_n"], gain["old_correct"]), Count(gain["n"], gain["correct"])
    points = 100 * ((new.accuracy or 0) - (old.accuracy or 0))
    shown = f"{points:+.1f}".replace("-", "−") if abs(points) >= 0.05 else "0.0"
    apart = old.interval and new.interval and (old.interval[1] < new.interval[0] or new.interval[1] < old.interval[0])
    return shown, bool(apart)


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
