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
    return {name: _converter().vegalite_to_vega(spec, vl_version="6.4") for name, spec in written.items()}


def _converter() -> Any:
    try:
        import vl_convert
    except ImportError:
        raise UserError("charts need vl-convert-python", next_step="pip install 'caef-data[report]'") from None
    return vl_convert


def _field(name: str, kind: str = "quantitative", **more: Any) -> Spec:
    return {"field": name, "type": kind, **more}


def _layer(mark: Spec, encoding: Spec | None = None, data: str | None = None) -> Spec:
    """Return a layer of a chart; ``data``: the table that it draws, where it is another one than the chart's."""
    drawn = {"mark": mark, **({"encoding": encoding} if encoding else {})}
    return {"data": {"name": data}, **drawn} if data else drawn


def _chart(data: str, encoding: Spec, layers: list[Spec], **params: Any) -> Spec:
    """Return a chart of a table; ``params``: values that the page sets."""
    quiet = {"axis": {"labelOverlap": True}, "legend": {"disable": True}}
    return {
        **{"width": 300, "height": 200, "background": None, "config": quiet},
        "params": [{"name": name, "value": value} for name, value in params.items()],
        **{"data": {"name": data}, "encoding": encoding, "layer": layers},
    }


def _map() -> Spec:
    """Accuracy over (digits of a, digits of b): cells, their numbers where there is room, the chosen cell's frame."""

    def digits(name: str, **more: Any) -> Spec:
        axis = {"values": {"expr": f"ticks_{name}"}, "labelAngle": 0, "ticks": False, "domain": False, "grid": False}
        return _field(name, "ordinal", title=f"digits of {name}", axis=axis, **more)

    cell = {"type": "rect", "stroke": {"expr": "ground"}, "strokeWidth": {"expr": "gap"}}
    frame = {"type": "rect", "fill": None, "strokeWidth": 2.5, "stroke": {"expr": "ink"}, "tooltip": None}
    number = {"text": _field("label", "nominal"), "color": _field("ink", "nominal", scale=None)}
    return _chart(
        "cells",
        {"x": digits("a"), "y": digits("b", sort="descending")},
        [
            _layer(cell, {"fill": _field("fill", "nominal", scale=None)}),
            _layer({"type": "text", "fontSize": 10}, number),
            _layer(frame, data="chosen"),
        ],
        **{"ticks_a": [], "ticks_b": [], "ink": "#000", "ground": "#fff", "gap": 1},
    )


def _lengths(letters: Sequence[str]) -> Spec:
    """Accuracy against the digits of the longer operand, a line a run with its letter; intervals as bars.

    Points of few problems are faint; where runs would lie on each other, the page puts them side by side.
    """

    def by_run(what: str) -> Spec:
        scale = {"domain": list(letters), "range": [style(place)[what] for place in range(len(letters))]}
        return _field("run", "nominal", scale=scale)

    domain: Spec = {"domain": [{"expr": "first"}, {"expr": "last"}], "nice": False, "padding": 14}
    ticks: Spec = {"values": {"expr": "ticks"}, "format": "d", "grid": False}
    x = _field("at", title="digits of the longer operand", axis=ticks, scale=domain)
    percents: Spec = {"scale": {"domain": [0, 1]}, "axis": {"format": "%", "title": None, "tickCount": 5}}
    y = _field("accuracy", **percents)
    faint = {"condition": {"test": f"datum.n < {FEW}", "value": 0.4}, "value": 1}
    letter = {"type": "text", "align": "left", "dx": 10, "fontWeight": "bold", "fontSize": 12}
    ring = {"type": "point", "size": 160, "filled": False, "opacity": 1, "stroke": {"expr": "ink"}}
    return _chart(
        "rows",
        {"x": x, "color": RUN_COLOUR},
        [
            _layer(
                {"type": "rule", "opacity": {"expr": "bars"}}, {"y": _field("low", **percents), "y2": {"field": "high"}}
            ),
            _layer(
                {"type": "line", "strokeWidth": 2}, {"y": y, "detail": {"field": "run"}, "strokeDash": by_run("dash")}
            ),
            _layer(
                {"type": "point", "size": {"expr": "dot"}, "filled": True},
                {"y": y, "shape": by_run("point"), "opacity": faint},
            ),
            _layer(letter, {"y": y, "text": {"field": "run"}}, "ends"),
            _layer(ring, {"y": y}, "chosen"),
        ],
        **{"dot": 36, "bars": 0.5, "ticks": [], "first": 1, "last": 2, "ink": "#000"},
    )


def _tenths() -> Spec:
    """Failed problems by the share of their calls before the first failing one: a bar a tenth and run."""
    shares: Spec = {"scale": {"domain": [0, 1]}, "axis": {"format": "%", "tickCount": 5, "grid": False}}
    heights: Spec = {
        "scale": {"domain": [0, {"expr": "most"}]},
        "axis": {"tickCount": {"expr": "min(5, most)"}, "format": "~s"},
    }
    encoding = {
        "x": _field("from", title="share of the calls before the first failing one", **shares),
        "x2": {"field": "to"},
        "y": _field("problems", title="failed problems", **heights),
        "y2": {"datum": 0},
        "color": RUN_COLOUR,
    }
    frame = {"type": "rect", "stroke": {"expr": "ink"}, "strokeWidth": 2}
    layers = [_layer({"type": "rect", "stroke": None}), _layer(frame, data="chosen")]
    return _chart("rows", encoding, layers, ink="#000", most=1)
