"""What was found, as one HTML file that needs nothing but a browser, and no network."""

from __future__ import annotations

from html import escape

from legoray.data.inspecting.plots import plots_of
from legoray.data.inspecting.result import Inspection
from legoray.data.inspecting.sections import WORDS, Section, sections
from legoray.pages import blocks
from legoray.pages.document import document

STYLE = "#lengths td:first-child { min-width: 12em; }"


def page_of(found: Inspection) -> str:
    """The page; every text of the data is escaped, and nothing is loaded from anywhere."""
    known = found.manifest
    title = known.title or known.name
    first, *rest = sections(found)
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(_lead(found))}</p>',
        *map(blocks.warning, _warnings(found)),
        '<div class="grid">',
        *(
            blocks.card(name, blocks.plot(place, figure))
            for place, (name, figure) in enumerate(plots_of(found).items())
        ),
        *(_card(section) for section in rest),
        _card(first),
        "</div>",
    ]
    return document(title, body, style=STYLE)


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


def _card(section: Section) -> str:
    inner = (
        blocks.table(section.head, section.rows, WORDS)
        if section.head
        else blocks.pairs(section.rows)
    )
    return blocks.card(
        section.title,
        blocks.scrolled(inner),
        key=section.key,
        wide=len(section.head) >= 5 or section.wide,
        notes=blocks.notes_of(section.notes),
    )
