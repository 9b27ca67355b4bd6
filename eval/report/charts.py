"""The charts of a report: Vega-Lite in charts.json, compiled to Vega here; the page fills in their data and draws them.

Their parameters are values that the page sets.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from ...errors import UserError

LETTERS = "ABCDEFGHIJ"  # runs go by letters; charts.json gives each a point and a dash
# On white and on a dark page, 3:1 at the least on either and apart for the colour-blind; the letters of runs stand at
# their lines. Where colours come back, dashes differ.
COLOURS = (
    *(("#1d55d8", "#59a4ff"), ("#bf5f02", "#ff8f2c"), ("#04846c", "#3ccfa3"), ("#8e3390", "#cd5ea6")),
    *(("#8b470d", "#f4dd37"), ("#2a93e0", "#a0e1ff"), ("#4b0f5e", "#8848f2"), ("#7398a1", "#f0ffcc")),
)


def style(letter: str) -> dict[str, Any]:
    """Return how a run is drawn: its colours on light and on dark, and the border of its letter."""
    place = LETTERS.index(letter)
    return {"colours": COLOURS[place % len(COLOURS)], "border": "solid" if place < len(COLOURS) else "dashed"}


@cache
def library() -> str:
    """Return the script that draws the charts; it defines ``vegaEmbed``.

    Raises:
        UserError: what it comes in is not installed.
    """
    script: str = _converter().javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return script


@cache
def specs() -> dict[str, Any]:
    """Return the Vega specifications of the charts ``map``, ``lengths`` and ``tenths``.

    Raises:
        UserError: what compiles them is not installed.
    """
    charts = json.loads(Path(__file__).with_name("charts.json").read_text(encoding="utf-8"))
    return {name: _converter().vegalite_to_vega(spec, vl_version="6.4") for name, spec in charts.items()}


def _converter() -> Any:
    try:
        import vl_convert
    except ImportError:
        raise UserError("charts need vl-convert-python", next_step="pip install 'caef-data[report]'") from None
    return vl_convert
