"""What was found, as plots."""

from __future__ import annotations

from html import escape

import numpy as np
import plotly.graph_objects as go

from legoray.data.inspecting.bins import bars_of, curve_of
from legoray.data.inspecting.result import Distribution, Inspection, Timeline
from legoray.pages.looks import BLUE, GREEN, ORANGE, PALETTE, figure_of

COLORS = {"train": BLUE, "valid": ORANGE, "test": GREEN}


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
    return figure_of(traces, what, "% of impressions", x_type="category")


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
    figure = figure_of(traces, "UTC", f"impressions per {known.unit}", x_type="date")
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
    return figure_of([trace], "rank of the item", "clicks in train", x_type="log", y_type="log")


def _texts(found: Inspection) -> go.Figure | None:
    """Names come from the data: Plotly would read marks in them."""
    every = [one for one in found.texts if one.of == "items" and one.words.count]
    some = [one for one in every if one.words.quantile(0.99) > 1] or every  # not mere categories
    if not some:
        return None
    traces = []
    for place, one in enumerate(some):
        x, y = curve_of(one.words)
        color = PALETTE[place % len(PALETTE)]
        name = escape(one.name)
        traces.append(go.Scatter(name=name, x=x, y=y, mode="lines+markers", line_color=color))
    figure = figure_of(traces, "words", "% of texts", x_type="log")
    figure.update_xaxes(tickvals=[step * 10**power for power in range(7) for step in (1, 2, 5)])
    return figure
