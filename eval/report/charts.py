"""The charts of a report as Vega specifications; the page fills in their data and draws them.

They are written in Vega-Lite, the grammar for people, and compiled here: the page draws what was tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from ...errors import UserError

# On white and on a dark page, 3:1 at the least on either and apart for the colour-blind; the letters of runs stand at
# their lines. Where colours come back, dashes differ.
COLOURS = (
    *(("#1d55d8", "#59a4ff"), ("#bf5f02", "#ff8f2c"), ("#04846c", "#3ccfa3"), ("#8e3390", "#cd5ea6")),
    *(("#8b470d", "#f4dd37"), ("#2a93e0", "#a0e1ff"), ("#4b0f5e", "#8848f2"), ("#7398a1", "#f0ffcc")),
)
POINTS = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
DASHES = (("solid", [1, 0]), ("dashed", [6, 3]))

FEW = 10  # problems of which an accuracy says little

Spec = dict[str, Any]
RUN_COLOUR: Spec = {"field": "colour", "type": "nominal", "scale": None}  # the page's, which may be light or dark


def style(place: int) -> Spec:
    """Return how the run in this place is drawn: colours on light and dark, point, dash, and the border of its name."""
    kinds = len(COLOURS)
    border, dash = DASHES[place // kinds % len(DASHES)]
    return {"colours": COLOURS[place % kinds], "point": POINTS[place % kinds], "dash": dash, "border": border}


@cache
def library() -> str:
    """Return the script that draws the charts; it defines ``vegaEmbed``.

    Raises:
        UserError: what it comes in is not installed.
    """
    script: str = _converter().javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return script


@cache
def specs(letters: tuple[str, ...]) -> dict[str, Spec]:
    """Return the specifications of the charts ``map``, ``lengths`` and ``tenths``; runs go by their letters.

    Raises:
        UserError: what compiles them is not installed.
    """
    written = {"map": _map(), "lengths": _lengths(letters), "tenths": _tenths()}
    return {name: _converter().vegalite_to_vega(_whole(spec), vl_version="6.4") for name, spec in written.items()}


def _converter() -> Any:
    try:
        import vl_convert
    except ImportError:
        raise UserError("charts need vl-convert-python", next_step="pip install 'caef-data[report]'") from None
    return vl_convert


def _whole(spec: Spec) -> Spec:
    quiet = {"axis": {"labelOverlap": True}, "legend": {"disable": True}}
    return {"width": 300, "height": 200, "background": None, "config": quiet, **spec}


def _map() -> Spec:
    """Accuracy over (digits of a, digits of b): cells, their numbers where there is room, the chosen cell's frame."""
    place = {
        "x": {"field": "a", "type": "ordinal", "title": "digits of a", "axis": _ticks("ticks_a")},
        "y": {
            "field": "b",
            "type": "ordinal",
            "sort": "descending",
            "title": "digits of b",
            "axis": _ticks("ticks_b"),
        },
    }
    frame = {"type": "rect", "fill": None, "strokeWidth": 2.5, "stroke": {"expr": "ink"}, "tooltip": None}
    ticks, colours = [_param("ticks_a", []), _param("ticks_b", [])], [_param("ink", "#000"), _param("ground", "#fff")]
    return {
        "params": [*ticks, *colours, _param("gap", 1)],
        "data": {"name": "cells"},
        "encoding": place,
        "layer": [
            {
                "mark": {"type": "rect", "stroke": {"expr": "ground"}, "strokeWidth": {"expr": "gap"}},
                "encoding": {"fill": {"field": "fill", "type": "nominal", "scale": None}},
            },
            {
                "mark": {"type": "text", "fontSize": 10},
                "encoding": {
                    "text": {"field": "label", "type": "nominal"},
                    "color": {"field": "ink", "type": "nominal", "scale": None},
                },
            },
            {"data": {"name": "chosen"}, "mark": frame},
        ],
    }


def _param(name: str, value: Any) -> Spec:
    """Return a value that the page sets."""
    return {"name": name, "value": value}


def _ticks(name: str) -> Spec:
    return {"values": {"expr": name}, "labelAngle": 0, "ticks": False, "domain": False, "grid": False}


def _lengths(letters: Sequence[str]) -> Spec:
    """Accuracy against the digits of the longer operand, a line a run with its letter; intervals as bars.

    Points of few problems are faint; where runs would lie on each other, the page puts them side by side.
    """
    x = {
        "field": "at",
        "type": "quantitative",
        "title": "digits of the longer operand",
        "axis": {"values": {"expr": "ticks"}, "format": "d", "grid": False},
        "scale": {"domain": [{"expr": "first"}, {"expr": "last"}], "nice": False, "padding": 14},
    }
    y = {
        "field": "accuracy",
        "type": "quantitative",
        "scale": {"domain": [0, 1]},
        "axis": {"format": "%", "title": None, "tickCount": 5},
    }
    drawn = [_param("dot", 36), _param("bars", 0.5), _param("ticks", [])]
    faint = {"condition": {"test": f"datum.n < {FEW}", "value": 0.4}, "value": 1}
    return {
        "params": [*drawn, _param("first", 1), _param("last", 2), _param("ink", "#000")],
        "data": {"name": "rows"},
        "encoding": {"x": x, "color": RUN_COLOUR},
        "layer": [
            {
                "mark": {"type": "rule", "opacity": {"expr": "bars"}},
                "encoding": {"y": {**y, "field": "low"}, "y2": {"field": "high"}},
            },
            {
                "mark": {"type": "line", "strokeWidth": 2},
                "encoding": {"y": y, "detail": {"field": "run"}, "strokeDash": _run_scale(letters, "dash")},
            },
            {
                "mark": {"type": "point", "size": {"expr": "dot"}, "filled": True},
                "encoding": {"y": y, "shape": _run_scale(letters, "point"), "opacity": faint},
            },
            {
                "data": {"name": "ends"},
                "mark": {"type": "text", "align": "left", "dx": 10, "fontWeight": "bold", "fontSize": 12},
                "encoding": {"y": y, "text": {"field": "run"}},
            },
            {
                "data": {"name": "chosen"},
                "mark": {"type": "point", "size": 160, "filled": False, "opacity": 1, "stroke": {"expr": "ink"}},
                "encoding": {"y": y},
            },
        ],
    }


def _tenths() -> Spec:
    """Failed problems by the share of their calls before the first failing one: a bar a tenth and run."""
    encoding = {
        "x": {
            "field": "from",
            "type": "quantitative",
            "scale": {"domain": [0, 1]},
            "title": "share of the calls before the first failing one",
            "axis": {"format": "%", "tickCount": 5, "grid": False},
        },
        "x2": {"field": "to"},
        "y": {
            "field": "problems",
            "type": "quantitative",
            "title": "failed problems",
            "scale": {"domain": [0, {"expr": "most"}]},
            "axis": {"tickCount": {"expr": "min(5, most)"}, "format": "~s"},
        },
        "y2": {"datum": 0},
        "color": RUN_COLOUR,
    }
    return {
        "params": [_param("ink", "#000"), _param("most", 1)],
        "data": {"name": "rows"},
        "encoding": encoding,
        "layer": [
            {"mark": {"type": "rect", "stroke": None}},
            {"data": {"name": "chosen"}, "mark": {"type": "rect", "stroke": {"expr": "ink"}, "strokeWidth": 2}},
        ],
    }


def _run_scale(letters: Sequence[str], what: str) -> Spec:
    scale = {"domain": list(letters), "range": [style(place)[what] for place in range(len(letters))]}
    return {"field": "run", "type": "nominal", "scale": scale}
