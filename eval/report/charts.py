"""The charts of a report as Vega specifications; the page fills in their data and draws them.

They are written in Vega-Lite, the grammar for people, and compiled here: the page draws what was tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from ...errors import UserError

# Light enough for a dark page and dark enough for a white one (3:1 at the least), and apart for the colour-blind;
# where colours come back, dashes and points differ.
COLOURS = ("#3d7fd9", "#c8621b", "#17906f", "#b355a5", "#8c7420")
POINTS = ("circle", "square", "triangle-up", "diamond", "cross")
DASHES = (("solid", [1, 0]), ("dashed", [6, 3]))

Spec = dict[str, Any]


def style(place: int) -> Spec:
    """Return how the run in this place is drawn: colour, point, dash, and the border of its name."""
    kinds = len(COLOURS)
    border, dash = DASHES[place // kinds % len(DASHES)]
    return {"colour": COLOURS[place % kinds], "point": POINTS[place % kinds], "dash": dash, "border": border}


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
    written = {"map": _map(), "lengths": _lengths(letters), "tenths": _tenths(letters)}
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
    """Accuracy against the digits of the longer operand, a line a run, with its interval as a band and as bars."""
    x = {
        "field": "length",
        "type": "quantitative",
        "title": "digits of the longer operand",
        "axis": {"tickMinStep": 1, "grid": False},
        "scale": {"domain": [{"expr": "first"}, {"expr": "last"}], "nice": False, "padding": 8},
    }
    percent = {"format": "%", "title": None, "tickCount": 5}
    y = {"type": "quantitative", "scale": {"domain": [0, 1]}, "axis": percent}
    drawn = [_param("dot", 36), _param("bars", 0.5)]
    ends = {"y": {**y, "field": "low"}, "y2": {"field": "high"}}
    return {
        "params": [*drawn, _param("first", 1), _param("last", 2), _param("ink", "#000")],
        "data": {"name": "rows"},
        "encoding": {"x": x, "color": _run_colour(letters)},
        "layer": [
            {"mark": {"type": "area", "opacity": 0.15}, "encoding": ends},
            {"mark": {"type": "rule", "opacity": {"expr": "bars"}}, "encoding": ends},
            {
                "mark": {"type": "line", "strokeWidth": 2},
                "encoding": {"y": {**y, "field": "accuracy"}, "strokeDash": _run_scale(letters, "dash")},
            },
            {
                "mark": {"type": "point", "size": {"expr": "dot"}, "filled": True, "opacity": 1},
                "encoding": {"y": {**y, "field": "accuracy"}, "shape": _run_scale(letters, "point")},
            },
            {
                "data": {"name": "chosen"},
                "mark": {"type": "point", "size": 160, "filled": False, "opacity": 1, "stroke": {"expr": "ink"}},
                "encoding": {"y": {**y, "field": "accuracy"}},
            },
        ],
    }


def _tenths(letters: Sequence[str]) -> Spec:
    """Failed problems by the tenth of their calls in which the first failing one is, a bar a run."""
    bar = {"type": "bar", "stroke": None}
    return {
        "params": [_param("ink", "#000"), _param("most", 1)],
        "data": {"name": "rows"},
        "encoding": {
            "x": {
                "field": "tenth",
                "type": "ordinal",
                "scale": {"domain": list(range(10))},
                "title": "first failing call, in % of the calls",
                "axis": {"labelAngle": 0, "labelExpr": "datum.value * 10"},
            },
            "xOffset": {"field": "run", "type": "nominal", "scale": {"domain": list(letters)}},
            "y": {
                "field": "problems",
                "type": "quantitative",
                "title": "failed problems",
                "stack": None,
                "scale": {"domain": [0, {"expr": "most"}]},
                "axis": {"tickCount": {"expr": "min(5, most)"}, "format": "~s"},
            },
            "color": _run_colour(letters),
        },
        "layer": [
            {"mark": bar},
            {"data": {"name": "chosen"}, "mark": {**bar, "stroke": {"expr": "ink"}, "strokeWidth": 2}},
        ],
    }


def _run_scale(letters: Sequence[str], what: str) -> Spec:
    scale = {"domain": list(letters), "range": [style(place)[what] for place in range(len(letters))]}
    return {"field": "run", "type": "nominal", "scale": scale}


def _run_colour(letters: Sequence[str]) -> Spec:
    return _run_scale(letters, "colour")
