"""The looks that all plots share. Names that come from data are escaped by whoever draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

# Okabe and Ito: told apart by anyone.
BLUE, ORANGE, GREEN, PINK = "#0072b2", "#e69f00", "#009e73", "#cc79a7"
SKY, RED, GRAY, BLACK = "#56b4e9", "#d55e00", "#7f7f7f", "#000000"
PALETTE = (BLUE, ORANGE, GREEN, PINK, SKY, RED, GRAY, BLACK)
SCALE = "Cividis"
GRID = "#e3e6ea"
INK = "#1c2733"
HEIGHT = 320  # pixels


def figure_of(
    traces: Sequence[Any],
    x: str,
    y: str,
    *,
    x_type: str = "linear",
    y_type: str = "linear",
    height: int = HEIGHT,
    **more: Any,
) -> go.Figure:
    """A figure; a legend stands where traces have names.

    Args:
        traces: what is drawn.
        x: title of the axis, with its unit.
        y: the same.
        x_type: as Plotly has it: linear, log, date or category.
        y_type: the same.
        height: in pixels.
        more: of the layout, instead of what is set here.
    """
    layout: dict[str, Any] = {
        "template": "none",
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "hovermode": "x unified",
        "dragmode": False,  # a finger scrolls the page
        "showlegend": any(trace.name and trace.showlegend is not False for trace in traces),
        "legend": {
            "orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"
        },
        "barmode": "group",
        "xaxis": {"nticks": 12, **axis(x, x_type)},
        "yaxis": axis(y, y_type),
    }  # fmt: skip
    return go.Figure(list(traces), layout | more)


def axis(title: str, kind: str = "linear", **more: Any) -> dict[str, Any]:
    """An axis; linear ones begin at 0 unless `rangemode` says otherwise."""
    lines = {"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": GRID, "automargin": True}
    shared = {**lines, "title": {"text": title}, "type": kind}
    if kind == "log":
        shared["dtick"] = 1  # a line for each power of ten
    elif kind == "linear":
        shared["rangemode"] = "tozero"
    return shared | more
