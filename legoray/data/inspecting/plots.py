"""What was found, as plots."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from legoray.data.inspecting.bins import bars_of, curve_of
from legoray.data.inspecting.result import Distribution, Inspection, Timeline

COLORS = {"train": "#0072b2", "valid": "#e69f00", "test": "#009e73"}  # told apart by anyone
OTHERS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#7f7f7f", "#000000")
GRID = "#e3e6ea"
INK = "#1c2733"


def plots_of(found: Inspection) -> dict[str, go.Figure]:
    """Title -> plot, in the order in which they are read; those that have something to show."""
    labeled = [one for one in found.splits if one.labeled]
    shown = [one for one in found.splits if not one.alone]
    made = {
        "History before an impression": _bars(
            {one.name: one.history for one in found.splits}, "clicks in the history"
        ),
        "Interactions over time": _timeline(found.timeline),
        "Clicks per impression": _bars({one.name: one.clicks_each for one in labeled}, "clicks"),
        "Candidates per impression": _bars(
            {one.name: one.candidates_each for one in shown}, "candidates"
        ),
        "Popularity of items": _popularity(found),
        "Length of texts": _texts(found),
    }
    return {title: figure for title, figure in made.items() if figure is not None}


def _bars(several: dict[str, Distribution], what: str) -> go.Figure | None:
    """Shares of each split's impressions."""
    known = {name: one for name, one in several.items() if one.count}
    if not known:
        return None
    bars = bars_of(list(known.values()))
    traces = [
        go.Bar(name=name, x=bars.names, y=shares, marker_color=COLORS[name])
        for name, shares in zip(known, bars.shares, strict=True)
    ]
    return _figure(traces, what, "% of impressions", x_type="category")


def _timeline(known: Timeline | None) -> go.Figure | None:
    if known is None:
        return None
    size = len(next(iter(known.counts.values())))
    begin = known.start + known.seconds * np.arange(size, dtype=np.int64)
    middles = _dates(begin + known.seconds // 2)
    traces = [
        go.Bar(
            name=name,
            x=middles,
            y=counts,
            width=1000 * known.seconds,  # milliseconds
            customdata=_dates(begin),
            hovertemplate="%{y:,} from %{customdata}",
            marker_color=COLORS[name],
        )
        for name, counts in known.counts.items()
    ]
    figure = _figure(traces, "UTC", f"impressions per {known.unit}", x_type="date")
    figure.update_layout(barmode="stack", bargap=0)
    return figure


def _dates(seconds: np.ndarray) -> list[str]:
    return [str(text) for text in np.datetime_as_string(seconds.astype("datetime64[s]"), unit="m")]


def _popularity(found: Inspection) -> go.Figure | None:
    known = found.popularity
    if not known.ranks:
        return None
    trace = go.Scatter(
        x=known.ranks, y=known.at_rank, mode="lines+markers", line_color=COLORS["train"],
        marker_size=4,
    )  # fmt: skip
    return _figure([trace], "rank of the item", "clicks in train", x_type="log", y_type="log")


def _texts(found: Inspection) -> go.Figure | None:
    """Names come from the data: Plotly would read marks in them."""
    every = [one for one in found.texts if one.of == "items" and one.words.count]
    some = [one for one in every if one.words.quantile(0.99) > 1] or every  # not mere categories
    if not some:
        return None
    traces = []
    for place, one in enumerate(some):
        x, y = curve_of(one.words)
        color = OTHERS[place % len(OTHERS)]
        name = escape(one.name)
        traces.append(go.Scatter(name=name, x=x, y=y, mode="lines+markers", line_color=color))
    figure = _figure(traces, "words", "% of texts", x_type="log")
    figure.update_xaxes(tickvals=[step * 10**power for power in range(7) for step in (1, 2, 5)])
    return figure


def _figure(
    traces: Sequence[Any], x: str, y: str, *, x_type: str, y_type: str = "linear"
) -> go.Figure:
    """The looks that all plots share; a legend stands where traces have names."""
    layout = go.Layout(
        template="none",
        height=320,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        paper_bgcolor="#ffffff",
        plot_bgcolor="#ffffff",
        hovermode="x unified",
        dragmode=False,  # a finger scrolls the page
        showlegend=any(trace.name for trace in traces),
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        barmode="group",
        xaxis={"nticks": 12, **_axis(x, x_type)},
        yaxis=_axis(y, y_type),
    )
    return go.Figure(list(traces), layout)


def _axis(title: str, kind: str) -> dict[str, Any]:
    lines = {"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": GRID, "automargin": True}
    shared = {**lines, "title": {"text": title}, "type": kind}
    if kind == "log":
        return shared | {"dtick": 1}  # a line for each power of ten
    return shared | ({"rangemode": "tozero"} if kind == "linear" else {})
