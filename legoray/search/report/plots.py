"""The report's plots of how the search went: the best so far, learning curves, importances."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from legoray.pages.looks import (
    BLUE,
    GRAY,
    HEIGHT,
    INK,
    ORANGE,
    PALETTE,
    RED,
    axis,
    figure_of,
)
from legoray.records import TrialRecord
from legoray.search.closing import told_apart
from legoray.search.report.gather import Facts
from legoray.search.report.importance import Importance
from legoray.search.report.progress import Step

TOP = 5  # learning curves that are told apart
LOOKS = {  # of a trial's mark: name, color, symbol
    "completed": ("completed", BLUE, "circle"),
    "pruned": ("stopped early", ORANGE, "circle-open"),
}


def by_trial(facts: Facts, done: Sequence[Step]) -> go.Figure | None:
    """Every trial's value by its number, and the best so far."""
    shown = [step for step in done if math.isfinite(step.value)]
    if not shown:
        return None
    traces = []
    for status, (name, color, symbol) in LOOKS.items():
        own = [step for step in shown if step.record.status == status]
        if own:
            marks = {"color": color, "symbol": symbol, "size": 7, "line": {"width": 1.5}}
            traces.append(
                go.Scatter(
                    name=name,
                    x=[step.record.number for step in own],
                    y=[step.value for step in own],
                    mode="markers",
                    marker=marks,
                    text=[about(step.record) for step in own],
                    hovertemplate="%{text}<br>%{y:.4f}<extra></extra>",
                )
            )
    low, high = _range(step.value for step in shown)
    lost = [step.record for step in done if step.record.status in ("failed", "infeasible")]
    if lost:
        traces.append(
            go.Scatter(
                name="failed or infeasible",
                x=[record.number for record in lost],
                y=[low if facts.mode == "max" else high] * len(lost),
                mode="markers",
                marker={"color": RED, "symbol": "x", "size": 7},
                text=[f"{about(record)}<br>{record.status}" for record in lost],
                hovertemplate="%{text}<extra></extra>",
                cliponaxis=False,
            )
        )
    traces.append(_best([step.record.number for step in done], done))
    figure = figure_of(traces, "trial", f"validation {facts.select}", height=400,
                       hovermode="closest")  # fmt: skip
    figure.update_layout(yaxis={"rangemode": "normal", "range": [low, high]})
    last = max(step.record.number for step in done)
    figure.update_layout(xaxis={"dtick": max(1, 5 * round(last / 50))})  # no half trials
    return figure


def by_spent(facts: Facts, done: Sequence[Step]) -> go.Figure | None:
    """The best so far by epochs, and by hours of training."""
    if not any(math.isfinite(step.best) for step in done):
        return None
    figure = make_subplots(rows=2, cols=1, vertical_spacing=0.24)
    minutes = done[-1].hours < 1
    unit = 60 if minutes else 1
    epochs: list[float] = [step.epochs for step in done]
    for row, places in enumerate((epochs, [step.hours * unit for step in done]), 1):
        figure.add_trace(_best(places, done, legend=False), row=row, col=1)
    words = f"best {facts.select}"
    base = figure_of([], "epochs trained, all trials", words, height=400, hovermode="closest")
    figure.update_layout(base.layout)
    figure.update_layout(
        showlegend=False,
        xaxis={"nticks": 6},
        xaxis2=axis(f"{'minutes' if minutes else 'hours'} of training, all trials", nticks=6),
        yaxis={"rangemode": "normal", "nticks": 5},
        yaxis2=axis(words, rangemode="normal", nticks=5),
    )
    return figure


def _best(places: Sequence[float], done: Sequence[Step], *, legend: bool = True) -> go.Scatter:
    """The best so far as stairs, which only ever rise from left to right."""
    pairs = sorted(zip(places, done, strict=True), key=lambda pair: (pair[0], pair[1].record.ended))
    known = [(place, step) for place, step in pairs if math.isfinite(step.best)]
    xs, ys = [place for place, _ in known], [step.best for _, step in known]
    return go.Scatter(
        name="best so far" if legend else None,
        x=xs,
        y=_running(ys, [step for _, step in known]),
        mode="lines",
        line={"shape": "hv", "color": INK, "width": 2},
        hovertemplate="best so far %{y:.4f}<extra></extra>",
    )


def _running(values: list[float], done: Sequence[Step]) -> list[float]:
    """The best until each place; by number, trials may have ended in another order."""
    rising = len(values) < 2 or done[-1].best >= done[0].best
    best, found = values[0] if values else 0.0, []
    for value in values:
        best = max(best, value) if rising else min(best, value)
        found.append(best)
    return found


def curves(facts: Facts) -> go.Figure | None:
    """Learning curves: the best few in colors, the others gray, stopped ones dashed."""
    select = facts.select
    shown = [
        r for r in facts.search if any(math.isfinite(e.get(select, math.nan)) for e in r.epochs)
    ]
    if not shown:
        return None
    top = facts.ranked[:TOP]
    best = {record.number for record in top}
    rest = [record for record in shown if record.number not in best]
    stopped = [record for record in rest if record.status == "pruned"]
    whole = [record for record in rest if record.status != "pruned"]
    traces = []
    if stopped:
        traces.append(_gray(stopped, select, "stopped early", "dot"))
    if whole:
        traces.append(_gray(whole, select, "others", "solid"))
    colors = [color for color in PALETTE if color != GRAY]
    for place, record in enumerate(top):
        dash = {"dash": "dash"} if record.status == "pruned" else {}
        traces.append(
            go.Scatter(
                name=f"{place + 1}. {about(record)}",
                x=[epoch["epoch"] for epoch in record.epochs],
                y=[_number(epoch.get(select)) for epoch in record.epochs],
                mode="lines+markers",
                line={"color": colors[place % len(colors)], "width": 2.5, **dash},
                hovertemplate=f"{about(record)}<br>epoch %{{x}}: %{{y:.4f}}<extra></extra>",
            )
        )
    figure = figure_of(traces, "epoch", f"validation {select}", hovermode="closest", height=420)
    figure.update_layout(
        yaxis={"rangemode": "normal"}, xaxis={"rangemode": "normal", "dtick": _tick(shown)}
    )
    return figure


def _gray(records: Sequence[TrialRecord], select: str, name: str, dash: str) -> go.Scatter:
    """Many curves as one trace, so that a browser draws hundreds of them at once."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    texts: list[str] = []
    for record in records:
        xs += [*(epoch["epoch"] for epoch in record.epochs), None]
        ys += [*(_number(epoch.get(select)) for epoch in record.epochs), None]
        texts += [about(record)] * (len(record.epochs) + 1)
    return go.Scatter(
        name=f"{name} ({len(records)})",
        x=xs,
        y=ys,
        text=texts,
        mode="lines+markers",
        marker={"size": 4},
        line={"color": "#a3acb5" if dash == "solid" else "#c08a2b", "width": 1, "dash": dash},
        opacity=0.75,
        hovertemplate="%{text}<br>epoch %{x}: %{y:.4f}<extra></extra>",
    )


def importance_bars(one: Importance) -> go.Figure:
    """One group's shares, the largest on top."""
    names = [escape(short(path)) for path in one.shares][::-1]
    shares = [100 * share for share in one.shares.values()][::-1]
    trace = go.Bar(
        y=names,
        x=shares,
        orientation="h",
        marker_color=BLUE,
        text=[f"{share:.0f}%" for share in shares],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{y}: %{x:.1f}%<extra></extra>",
    )
    height = 74 + 30 * len(names)
    figure = figure_of([trace], "% of the explained variance", "", y_type="category",
                       height=height, hovermode="closest")  # fmt: skip
    figure.update_layout(xaxis={"range": [0, 112], "nticks": 6, "tickangle": 0}, margin={"r": 24})
    return figure


def tested(facts: Facts) -> go.Figure | None:
    """The final models on the test split: each seed, the mean, and the deviation over seeds."""
    select = facts.select
    told = told_apart(facts.summaries)
    groups = [(s.label, s) for s in told if select in s.mean]
    if not groups:
        return None
    names = [_two_lines(place, label) for place, (label, _) in enumerate(groups, 1)]
    seeds: list[tuple[str, float, str]] = []
    for name, (_, summary) in zip(names, groups, strict=True):
        for record in facts.finals:
            if record.status == "completed" and _config(record) == summary.config:
                seed = f"seed {record.config.get('seed')}"
                seeds.append((name, record.test.get(select, math.nan), seed))
    means = [summary.mean[select] for _, summary in groups]
    spread = [summary.std[select] if summary.seeds > 1 else 0 for _, summary in groups]
    traces = [
        go.Scatter(
            name="one seed", y=[n for n, _, _ in seeds], x=[v for _, v, _ in seeds],
            text=[t for _, _, t in seeds], mode="markers",
            marker={"color": GRAY, "size": 7, "symbol": "circle-open"},
            hovertemplate="%{text}: %{x:.4f}<extra></extra>",
        ),
        go.Scatter(
            name="mean ± standard deviation over seeds", y=names, x=means, mode="markers",
            marker={"color": BLUE, "size": 10, "symbol": "diamond"},
            error_x={"type": "data", "array": spread, "color": BLUE, "thickness": 2},
            hovertemplate="mean %{x:.4f}<extra></extra>",
        ),
    ]  # fmt: skip
    bases = [r for r in facts.records if r.phase == "baseline" and select in r.test]
    if bases:
        traces.append(
            go.Scatter(
                name="baseline", y=[escape(r.label) for r in bases],
                x=[r.test[select] for r in bases], mode="markers",
                marker={"color": RED, "size": 9, "symbol": "x"},
                hovertemplate="%{x:.4f}<extra></extra>",
            )
        )  # fmt: skip
    rows = len(groups) + len(bases)
    figure = figure_of(traces, f"test {select}", "", y_type="category",
                       height=max(HEIGHT, 120 + 40 * rows), hovermode="closest")  # fmt: skip
    order = [*names, *(escape(r.label) for r in bases)]
    figure.update_layout(
        xaxis={"rangemode": "normal", "nticks": 6, "tickangle": 0},
        yaxis={"categoryorder": "array", "categoryarray": order[::-1], "automargin": True},
    )
    return figure


def _two_lines(place: int, label: str) -> str:
    """A model's name, and below it what tells it apart from one of the same name."""
    name, _, settings = label.partition(" ")
    more = f"<br><sub>{escape(settings)}</sub>" if settings else ""
    return f"{place}. {escape(name)}{more}"


def _config(record: TrialRecord) -> str:
    from legoray.records import digest

    bare = {k: v for k, v in record.config.items() if k != "seed"}
    return digest(bare | ({"reads": record.reads} if record.reads else {}))


def about(record: TrialRecord) -> str:
    """A trial in a plot: its number and composition, with no marks in it."""
    return f"trial {record.number} {escape(record.label)}"


def short(path: str) -> str:
    """A setting's path as plots name it: `content`, `learning_rate`, `content.cnn dropout`."""
    place, _, name = path.rpartition("/")
    inner = place.partition("/")[2] if place not in ("model", "train") else ""
    return f"{inner} {name}".strip().replace("/", " ")


def _number(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _range(values: Iterable[float]) -> list[float]:
    known = sorted(values)
    room = 0.05 * (known[-1] - known[0]) or 0.01
    return [known[0] - room, known[-1] + room]


def _tick(records: Sequence[TrialRecord]) -> int:
    longest = max(len(record.epochs) for record in records)
    return max(1, math.ceil(longest / 10))
