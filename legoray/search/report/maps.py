"""The report's plots over all trials at once: heat maps, Pareto fronts, parallel coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from legoray.objectives import COSTS, UNITS, Objective
from legoray.pages.looks import INK, ORANGE, RED, SCALE, axis, figure_of
from legoray.records import TrialRecord
from legoray.search.pareto import comparable, front
from legoray.search.report.gather import Facts
from legoray.search.report.plots import about, short
from legoray.search.report.progress import Matrix, matrix
from legoray.zoo.board import OPERATORS

CELL, NAMES = 48, 140  # pixels of a heat map's column, and of its rows' names
AXIS = 118  # pixels between two parallel axes
BANDS = 12  # of color
FADED = [[0, "#c9d6e3"], [1, "#08306b"]]  # the better, the darker


def heat(facts: Facts, kinds: tuple[str, str]) -> tuple[go.Figure, int] | None:
    """Best value and number of trials of each pair of operators, and the plot's least width."""
    found = matrix(facts.search, kinds, facts.select, facts.mode)
    if not found.best:
        return None
    values = [
        [_best(found, row, column, facts.select) for column in found.columns] for row in found.rows
    ]
    texts = [[_cell(found, row, column, facts.select) for column in found.columns]
             for row in found.rows]  # fmt: skip
    names = [[_about(found, row, column) for column in found.columns] for row in found.rows]
    trace = go.Heatmap(
        x=[_operator(name) for name in found.columns],
        y=[_operator(name) for name in found.rows],
        z=values,
        text=texts,
        texttemplate="%{text}",
        customdata=names,
        hovertemplate="%{y} + %{x}<br>%{customdata}<extra></extra>",
        colorscale=SCALE,
        reversescale=facts.mode == "min",
        xgap=2,
        ygap=2,
        hoverongaps=False,
        showscale=False,  # each cell says its value
    )  # fmt: skip
    width = NAMES + CELL * len(found.columns)
    figure = figure_of([trace], f"{kinds[1]} operator".replace("predictor operator", "predictor"),
                       f"{kinds[0]} operator", x_type="category", y_type="category",
                       height=130 + 44 * len(found.rows), hovermode="closest")  # fmt: skip
    figure.update_layout(
        xaxis={
            "tickangle": -40,
            "nticks": len(found.columns),
            "showgrid": False,
            "title": {"standoff": 12},
        },
        yaxis={"autorange": "reversed", "nticks": len(found.rows), "showgrid": False},
    )
    _untried(figure, found)
    return figure, width


def _untried(figure: go.Figure, found: Matrix) -> None:
    """Pairs without a value: how many trials they had, or that there was none."""
    for row in found.rows:
        for column in found.columns:
            if (row, column) not in found.best and found.count.get((row, column)):
                figure.add_annotation(
                    x=_operator(column), y=_operator(row), showarrow=False, font={"color": RED},
                    text=f"✕<br>{found.count[row, column]}",
                )  # fmt: skip


def _best(found: Matrix, row: str, column: str, select: str) -> float | None:
    record = found.best.get((row, column))
    return record.best[select] if record else None


def _cell(found: Matrix, row: str, column: str, select: str) -> str:
    record = found.best.get((row, column))
    return f"{record.best[select]:.3f}<br>{found.count[row, column]}" if record else ""


def _about(found: Matrix, row: str, column: str) -> str:
    record, count = found.best.get((row, column)), found.count.get((row, column), 0)
    told = f"{count} trial{'' if count == 1 else 's'}"
    return f"{told}, the best is {about(record)}" if record else told


def _operator(name: str) -> str:
    return escape(name.rpartition(":")[2])


def pareto(facts: Facts, against: Objective) -> go.Figure | None:
    """Quality against a cost: all whole trials, those of the front joined by a line."""
    quality = Objective(facts.select, facts.mode)
    pair = (quality, against)
    known = comparable(facts.search, pair)
    if not known:
        return None
    best = sorted(front(known, pair), key=lambda r: r.costs[COSTS[against.name]])
    inside = {record.number for record in best}
    rest = [record for record in known if record.number not in inside]
    traces = []
    if rest:
        traces.append(_points(rest, pair, "dominated", {"color": "#a3acb5", "size": 7}, "markers"))
    looks = {"color": ORANGE, "size": 10, "line": {"color": INK, "width": 1}}
    traces.append(_points(best, pair, "Pareto front", looks, "lines+markers"))
    costs = [record.costs[COSTS[against.name]] for record in known]
    wide = min(costs) > 0 and max(costs) / min(costs) > 20
    figure = figure_of(traces, _title(against), f"validation {facts.select}",
                       x_type="log" if wide else "linear", hovermode="closest")  # fmt: skip
    figure.update_layout(yaxis={"rangemode": "normal"}, xaxis={"nticks": 6, "tickangle": 0})
    if wide and max(costs) / min(costs) < 1000:
        figure.update_layout(xaxis={"dtick": "D2"})
    return figure


def _points(
    records: Sequence[TrialRecord],
    pair: tuple[Objective, Objective],
    name: str,
    looks: dict[str, object],
    mode: str,
) -> go.Scatter:
    return go.Scatter(
        name=f"{name} ({len(records)})",
        x=[pair[1].value(r.best, r.costs) for r in records],
        y=[pair[0].value(r.best, r.costs) for r in records],
        text=[about(record) for record in records],
        mode=mode,
        marker=looks,
        line={"color": ORANGE, "width": 1.5, "shape": "hv"},
        hovertemplate=f"%{{text}}<br>%{{y:.4f}} at %{{x:,.4~g}} {pair[1].name}<extra></extra>",
    )


def _title(one: Objective) -> str:
    titles = {
        "parameters": "parameters, frozen ones included",
        "trainable": "parameters that are trained",
        "train_seconds": "training time (s)",
        "latency": f"latency ({UNITS['latency']})",
        "memory": "memory at its peak (MiB)",
    }
    return titles.get(one.name, one.title)


def parallel(facts: Facts) -> tuple[go.Figure, int] | None:
    """One line per measured trial over its settings and value, and the plot's least width.

    Lines lie in bands of color by the value, each band one trace: hundreds of trials stay quick.
    """
    records = [r for r in facts.ranked if r.params]
    if len(records) < 2:
        return None
    axes = _axes(facts, records)
    places = [one.places for one in axes]
    values = [record.best[facts.select] for record in records]
    low, high = min(values), max(values)
    groups: dict[int, list[int]] = {}
    for index, value in enumerate(values):
        share = (value - low) / (high - low) if high > low else 1.0
        share = share if facts.mode == "max" else 1 - share
        groups.setdefault(min(int(share * BANDS), BANDS - 1), []).append(index)
    traces = [
        _band(
            band,
            [records[index] for index in members],
            [[place[index] for place in places] for index in members],
            facts.select,
        )
        for band, members in sorted(groups.items())
    ]
    figure = figure_of(traces, "", "", height=460, hovermode="closest")
    figure.update_layout(
        showlegend=False,
        margin={"l": 30, "r": 30, "t": 44, "b": 12},
        xaxis={**axis("", rangemode="normal"), "range": [-0.15, len(axes) - 0.45],
               "visible": False},
        yaxis={"range": [-0.04, 1.04], "visible": False},
    )  # fmt: skip
    for at, one in enumerate(axes):
        _draw_axis(figure, at, one)
    return figure, 60 + AXIS * len(axes)


class _Axis:
    """One axis: its title, where each trial stands on it (0 to 1), and its ticks."""

    def __init__(self, title: str, places: list[float], ticks: list[tuple[float, str]]) -> None:
        self.title, self.places, self.ticks = title, places, ticks


def _axes(facts: Facts, records: Sequence[TrialRecord]) -> list[_Axis]:
    """What most trials have in common, and the selecting metric last."""
    paths = dict.fromkeys(path for record in records for path in record.params)
    first = [path for path in OPERATORS if path in paths]
    ordered = dict.fromkeys([*first, *paths])
    often = [p for p in ordered if 2 * sum(p in r.params for r in records) >= len(records)]
    found = []
    for path in often:
        values = [record.params.get(path) for record in records]
        if len({repr(value) for value in values}) > 1:
            log = getattr(facts.distributions.get(path), "log", False)
            found.append(_axis_of(short(path), values, log=bool(log)))
    values = [record.best[facts.select] for record in records]
    return [*found, _axis_of(f"validation {facts.select}", values)]


def _axis_of(title: str, values: Sequence[object], *, log: bool = False) -> _Axis:
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values) or len(set(numbers)) <= 4:
        names = sorted({_name(v) for v in values}, reverse=True)
        step = 1 / max(len(names) - 1, 1)
        ticks = [(step * place, name) for place, name in enumerate(names)]
        where = {name: place for place, name in ticks}
        return _Axis(title, [where[_name(v)] for v in values], ticks)
    scale = math.log10 if log else float
    low, high = scale(min(numbers)), scale(max(numbers))
    places = [(scale(v) - low) / (high - low) for v in numbers]
    shares = [0, 0.25, 0.5, 0.75, 1]
    at = [low + share * (high - low) for share in shares]
    told = [f"{10**v if log else v:.3g}" for v in at]
    return _Axis(title, places, list(zip(shares, told, strict=True)))


def _name(value: object) -> str:
    return "not there" if value is None else str(value).rpartition(":")[2]


def _band(
    band: int, records: Sequence[TrialRecord], lines: Sequence[Sequence[float]], select: str
) -> go.Scatter:
    color = sample_colorscale(FADED, [band / (BANDS - 1)])[0]
    xs: list[float | None] = []
    ys: list[float | None] = []
    texts: list[str] = []
    for record, line in zip(records, lines, strict=True):
        xs += [*range(len(line)), None]
        ys += [*line, None]
        texts += [f"{about(record)}: {select} {record.best[select]:.4f}"] * (len(line) + 1)
    best = band == BANDS - 1
    return go.Scatter(
        x=xs, y=ys, text=texts, mode="lines", hovertemplate="%{text}<extra></extra>",
        line={"color": RED if best else color, "width": 2.5 if best else 1.2},
    )  # fmt: skip


def _draw_axis(figure: go.Figure, at: int, one: _Axis) -> None:
    figure.add_shape(type="line", x0=at, x1=at, y0=0, y1=1, line={"color": INK, "width": 1})
    figure.add_annotation(x=at, y=1, yshift=24, text=f"<b>{escape(one.title)}</b>",
                          showarrow=False, font={"size": 12})  # fmt: skip
    for place, name in one.ticks:
        figure.add_annotation(
            x=at, y=place, xshift=4, text=escape(name[:20]), showarrow=False, xanchor="left",
            font={"size": 11}, bgcolor="rgba(255,255,255,0.75)",
        )  # fmt: skip


def costs_shown(facts: Facts) -> list[Objective]:
    """The costs that quality is drawn against: the search's own objectives, seconds, parameters."""
    asked = [one for one in facts.objectives if one.name in COSTS]
    names = {one.name for one in asked}
    every = [
        Objective(name, "min") for name in ("train_seconds", "parameters") if name not in names
    ]
    measured = {name for r in facts.search for name in r.costs}
    if "latency" not in names and COSTS["latency"] in measured:
        every.append(Objective("latency", "min"))
    return [*asked, *every]
