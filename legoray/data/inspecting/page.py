"""What was found, as one HTML file that needs nothing but a browser, and no network."""

from __future__ import annotations

from html import escape

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from legoray.data.inspecting.plots import plots_of
from legoray.data.inspecting.result import Inspection
from legoray.data.inspecting.sections import WORDS, Section, sections

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)
STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f6f8; color: #1c2733; font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 16px; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 8px 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 0 0 8px; }
.lead { color: #51606f; margin: 0 0 16px; overflow-wrap: anywhere; }
.warning { background: #fff4d6; border: 1px solid #e0b84c; border-radius: 8px; padding: 8px 12px;
  margin: 0 0 16px; overflow-wrap: anywhere; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr));
  gap: 16px; align-items: start; grid-auto-flow: dense; }
.card { background: #fff; border: 1px solid #e3e6ea; border-radius: 8px; padding: 12px 14px;
  min-width: 0; }
.wide { grid-column: 1 / -1; }
.scroll { overflow-x: auto; }
.plot { width: 100%; min-height: 320px; }
table { border-collapse: collapse; font-size: 0.9rem; width: 100%; }
th, td { padding: 4px 10px 4px 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid #eef0f3; }
th { font-weight: 600; white-space: nowrap; }
thead th { color: #51606f; }
td.number, th.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td:first-child { min-width: 6em; }
#lengths td:first-child { min-width: 12em; }
.pairs th { width: 50%; padding-right: 16px; white-space: normal; }
.wide .pairs th { width: 1%; min-width: 6em; }
.wide .pairs td { overflow-wrap: anywhere; }
@media (min-width: 700px) { .pairs th { width: 1%; white-space: nowrap; } }
.note { color: #51606f; font-size: 0.85rem; margin: 8px 0 0; }
"""
SCRIPT = """
for (const place of document.querySelectorAll(".plot")) {
  const figure = JSON.parse(document.getElementById(place.id + "-data").textContent);
  Plotly.newPlot(place, figure.data, figure.layout, {responsive: true, displayModeBar: false});
}
"""


def page_of(found: Inspection) -> str:
    """The page; every text of the data is escaped, and nothing is loaded from anywhere."""
    known = found.manifest
    title = escape(known.title or known.name)
    first, *rest = sections(found)
    body = [
        f"<h1>{title}</h1>",
        f'<p class="lead">{escape(_lead(found))}</p>',
        *(f'<p class="warning">{escape(text)}</p>' for text in _warnings(found)),
        '<div class="grid">',
        *(
            _plot(place, name, figure)
            for place, (name, figure) in enumerate(plots_of(found).items())
        ),
        *(_card(section) for section in rest),
        _card(first),
        "</div>",
    ]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            f"<title>{title}</title>",
            f"<style>{STYLE}</style></head><body><main>",
            *body,
            "</main>",
            f"<script>{get_plotlyjs()}</script>",
            f"<script>{SCRIPT}</script></body></html>\n",
        ]
    )


def _lead(found: Inspection) -> str:
    counts = found.manifest.counts
    impressions = sum(one.impressions for one in found.splits)
    return (
        f"{counts['items']:,} items, {counts['users']:,} users, {impressions:,} impressions, "
        f"density {found.sparsity.density:.4%}"
    )


def _warnings(found: Inspection) -> list[str]:
    known = found.manifest
    told = ["Synthetic data: the numbers say nothing of the world."] if known.synthetic else []
    off = ", ".join(one.what for one in known.deviations)
    return told + ([f"Not as published: {off}. See the table of published counts."] if off else [])


def _plot(place: int, title: str, figure: go.Figure) -> str:
    """The figure lies in a block of JSON, which ends at no mark inside it."""
    data = (figure.to_json() or "").replace("<", "\\u003c")
    return (
        f'<section class="card"><h2>{escape(title)}</h2><div class="plot" id="plot-{place}"></div>'
        "<noscript>Plots need JavaScript; the tables do not.</noscript>"
        f'<script type="application/json" id="plot-{place}-data">{data}</script></section>'
    )


def _card(section: Section) -> str:
    wide = len(section.head) >= 5 or section.wide
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in section.notes)
    return (
        f'<section class="card{" wide" if wide else ""}" id="{escape(section.key)}">'
        f'<h2>{escape(section.title)}</h2><div class="scroll">{_table(section)}</div>{notes}'
        "</section>"
    )


def _table(section: Section) -> str:
    if not section.head:
        rows = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>"
            for name, text in section.rows
        )
        return f'<table class="pairs"><tbody>{rows}</tbody></table>'
    kinds = [
        "" if place == 0 or name in WORDS else ' class="number"'
        for place, name in enumerate(section.head)
    ]
    head = "".join(f"<th{k}>{escape(n)}</th>" for k, n in zip(kinds, section.head, strict=True))
    rows = "".join(
        "<tr>"
        + "".join(f"<td{k}>{escape(cell)}</td>" for k, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in section.rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
