"""The page around the blocks: its style, its scripts, and a policy that lets nothing be fetched."""

from __future__ import annotations

from html import escape

from plotly.offline import get_plotlyjs

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
.plot { width: 100%; }
table { border-collapse: collapse; font-size: 0.9rem; width: 100%; }
th, td { padding: 4px 10px 4px 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid #eef0f3; }
th { font-weight: 600; white-space: nowrap; }
thead th { color: #51606f; }
td.number, th.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td:first-child { min-width: 6em; }
.pairs th { width: 50%; padding-right: 16px; white-space: normal; }
.wide .pairs th { width: 1%; min-width: 6em; }
.wide .pairs td { overflow-wrap: anywhere; }
@media (min-width: 700px) { .pairs th { width: 1%; white-space: nowrap; } }
.note { color: #51606f; font-size: 0.85rem; margin: 8px 0 0; }
"""
SCRIPT = """
const places = [...document.querySelectorAll(".plot")];
function draw() {
  const place = places.shift();
  if (!place) return;
  const figure = JSON.parse(document.getElementById(place.id + "-data").textContent);
  Plotly.newPlot(place, figure.data, figure.layout, {responsive: true, displayModeBar: false});
  setTimeout(draw);
}
draw();
"""
SORTING = """
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const read = (row, at) => {
    const cell = row.cells[at];
    const text = cell.dataset.sort ?? cell.textContent;
    const number = text === "" ? NaN : Number(text);
    return {text, number, empty: text === ""};
  };
  heads.forEach((head, at) => head.firstElementChild.addEventListener("click", () => {
    const known = head.getAttribute("aria-sort");
    const falling = known ? known === "ascending" : head.classList.contains("number");
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const sign = falling ? -1 : 1;
    const rows = [...body.rows].map(row => [read(row, at), row]);
    rows.sort(([a], [b]) => a.empty - b.empty || sign * (
      isNaN(a.number) || isNaN(b.number) ? a.text.localeCompare(b.text) : a.number - b.number));
    body.append(...rows.map(([, row]) => row));
  }));
}
"""


def document(title: str, body: list[str], *, style: str = "", script: str = "") -> str:
    """The whole page.

    Args:
        title: a text.
        body: HTML, whose texts are escaped.
        style: beside the common one.
        script: beside the one that draws the plots.
    """
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}{style}</style></head><body><main>",
            *body,
            "</main>",
            f"<script>{get_plotlyjs()}</script>",
            f"<script>{SCRIPT}{script}</script></body></html>\n",
        ]
    )
