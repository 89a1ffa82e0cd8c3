"""The report as one HTML page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from html import escape

import plotly.graph_objects as go

from legoray.pages import blocks
from legoray.pages.document import SORTING, document
from legoray.records import TrialRecord
from legoray.search.closing import commands, why
from legoray.search.phases import Goal
from legoray.search.report import maps, plots, tables
from legoray.search.report.gather import Facts
from legoray.search.report.importance import importances, inferred
from legoray.search.report.progress import spent, steps
from legoray.search.report.verdict import champion_text, comparison_notes, verdict_text
from legoray.search.sweep import data_title
from legoray.zoo import fields
from legoray.zoo.picture import composition_svg
from legoray.zoo.slicetable import slices_in, table_of

PAIRS = (("content", "behavior"), ("content", "predictor"), ("behavior", "predictor"))
STYLE = """
html { scroll-padding-top: 8px; }
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 0 0 16px; font-size: 0.9rem; }
nav a { color: #0b5cad; }
.tiles { display: flex; flex-wrap: wrap; gap: 10px; margin: 0 0 16px; padding: 0;
  list-style: none; }
.tiles li { background: #fff; border: 1px solid #e3e6ea; border-radius: 8px; padding: 8px 14px;
  flex: 1 1 96px; }
.tiles b { display: block; font-size: 1.35rem; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.tiles span { color: #51606f; font-size: 0.85rem; }
.state { display: inline-block; border-radius: 999px; padding: 1px 10px; font-size: 0.85rem;
  font-weight: 600; vertical-align: middle; margin-left: 8px; background: #d9efe6; color: #00533b; }
.state.interrupted, .state.searching, .state.finals { background: #fff4d6; color: #6b4a00; }
.picture svg { max-width: 100%; height: auto; display: block; margin: 0 auto; }
.picture .upright { display: none; }
@media (max-width: 699px) {
  .picture .across { display: none; }
  .picture .upright { display: block; }
}
.facts { columns: 260px 3; column-gap: 24px; margin: 12px 0 0; padding: 0; list-style: none; }
.facts li { break-inside: avoid; display: flex; justify-content: space-between; gap: 12px;
  border-bottom: 1px solid #eef0f3; padding: 3px 0; font-size: 0.9rem; }
.facts span { color: #51606f; }
.facts b { font-weight: 600; text-align: right; font-variant-numeric: tabular-nums; }
pre { background: #f5f6f8; border: 1px solid #e3e6ea; border-radius: 6px; padding: 8px 10px;
  margin: 8px 0 0; overflow-x: auto; font: 0.85rem/1.5 ui-monospace, monospace; }
.tall { max-height: 640px; overflow: auto; }
.tall thead th { position: sticky; top: 0; background: #fff; box-shadow: 0 1px 0 #d5dae0;
  z-index: 1; }
caption { text-align: left; color: #51606f; font-size: 0.85rem; padding: 0 0 6px; }
.sortable th button { font: inherit; color: inherit; background: none; border: 0; padding: 2px 0;
  cursor: pointer; font-weight: 600; white-space: nowrap; }
.sortable th button::after { content: " \\2195"; opacity: 0.45; }
.sortable th[aria-sort="ascending"] button::after { content: " \\2191"; opacity: 1; }
.sortable th[aria-sort="descending"] button::after { content: " \\2193"; opacity: 1; }
.sortable td { white-space: nowrap; }
.sortable td.long { white-space: normal; min-width: 19em; overflow-wrap: anywhere; }
.pairs th { width: 34%; }
.pairs td { overflow-wrap: anywhere; }
.leaderboard td:first-child, .leaderboard th:first-child { min-width: 2.5em; }
.below td { color: #51606f; border-top: 1px solid #d5dae0; }
h3 { font-size: 0.95rem; margin: 12px 0 4px; }
.empty { color: #51606f; margin: 0; }
details summary { cursor: pointer; font-weight: 600; }
@media print { .card { break-inside: avoid; } .tall { max-height: none; } nav { display: none; } }
"""


class Page:
    """Collects the cards; every plot has a place of its own."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.goal = Goal(facts.select, facts.mode)
        self.done = steps(facts.search, facts.select, facts.mode)
        self._places = 0

    def plot(self, figure: go.Figure, width: int = 0) -> str:
        self._places += 1
        return blocks.plot(self._places, figure, width=width)

    # --- the cards, in the order in which they are read; empty where there is nothing to say

    def winner(self) -> str:
        facts = self.facts
        best = facts.winner
        if best is None:
            text = "No trial has been measured yet." if facts.search else "No trial has begun yet."
            return blocks.card("Winner", f'<p class="empty">{text}</p>', key="winner", wide=True)
        reads = fields.reads_text(best) or ", ".join(facts.info.text) or "item texts"
        drawn = [
            composition_svg(best.config, best.params, reads=reads, upright=upright)
            for upright in (False, True)
        ]
        picture = (
            f'<div class="picture"><div class="across">{drawn[0]}</div>'
            f'<div class="upright">{drawn[1]}</div></div>'
        )
        told = "".join(
            f"<li><span>{escape(name)}</span><b>{escape(text)}</b></li>"
            for name, text in tables.of_winner(facts, best)
        )
        every = commands(facts.sweep, self.goal, self._links())[1:]
        lines = [line.strip() for line in every if not line.endswith(".html")]
        again = f"<pre>{escape(chr(10).join(lines))}</pre>"
        finished = facts.info.state == "finished"
        title = f"{'Winner' if finished else 'Best so far'}: {best.label}"
        notes = [self._chosen(best)]
        notes += [text for text in (verdict_text(facts), champion_text(facts)) if text]
        notes.append("Bold settings were chosen by the search; the others are the space's.")
        return blocks.card(title, f'{picture}<ul class="facts">{told}</ul>{again}',
                           key="winner", wide=True, notes=blocks.notes_of(notes))  # fmt: skip

    def _chosen(self, best: TrialRecord) -> str:
        """Why it is this one."""
        select = self.facts.select
        if best.phase != "final":
            return f"Chosen by validation {select} (trial {best.number})."
        seeds = next((s.seeds for s in self.facts.summaries if s.label == best.label), 1)
        return (
            f"Chosen by the mean validation {select} over the final trainings, {seeds} seeds each; "
            f"of its seeds the best one is kept (final {best.number})."
        )

    def _links(self) -> list[str]:
        state = self.facts.tracking
        if state is None or not state.version:
            return []
        data = self.facts.settings.get("data")
        data = data if isinstance(data, str) else "<data set>.yaml"
        return [f"legoray evaluate models:/{state.register_as}/{state.version} --data {data}"]

    def comparison(self) -> str:
        found = tables.compared(self.facts)
        figure = plots.tested(self.facts)
        if figure is None and found is None:
            return ""
        content = self.plot(figure) if figure is not None else ""
        notes = ["Measured once, after the search; the order is validation's."] if figure else []
        if found is not None:
            models, pairs = found
            for title, one in (("Models", models), ("Pairs", pairs)):
                if one.rows:
                    inner = blocks.sortable(
                        one.head, one.rows, words=tables.WORDS, long=tables.LONG
                    )
                    content += f"<h3>{title}</h3>{blocks.scrolled(inner)}"
            notes += comparison_notes(self.facts)
        return blocks.card("What is better than what, on the test split", content,
                           key="comparison", wide=True, notes=blocks.notes_of(notes))  # fmt: skip

    def leaderboard(self) -> str:
        one = tables.leaderboard(self.facts)
        if one is None:
            return ""
        inner = blocks.sortable(
            one.head, one.rows, words=tables.WORDS, long=tables.LONG, below=one.below
        )
        notes = [
            f"Ranked by validation {self.facts.select}. What was stopped early stands below what "
            "ran to its end. A click on a head sorts.",
        ]
        if "front" in one.head:
            names = ", ".join(objective.name for objective in self.facts.objectives)
            notes.append(f"{tables.MEMBER} on the Pareto front of {names}.")
        if self.facts.summaries:
            notes.append("Test: mean ± standard deviation over the seeds of the final trainings.")
        box = f'<div class="tall leaderboard">{inner}</div>'
        return blocks.card("Leaderboard", box, key="leaderboard", wide=True,
                           notes=blocks.notes_of(notes))  # fmt: skip

    def progress(self) -> Iterator[str]:
        first, second = plots.by_trial(self.facts, self.done), plots.by_spent(self.facts, self.done)
        if first is not None:
            yield blocks.card("Best so far, by trial", self.plot(first), key="progress")
        if second is not None:
            note = "Epochs and time of all trials of the search, those without success included."
            yield blocks.card("Best so far, by what was spent", self.plot(second),
                              notes=blocks.notes_of([note]))  # fmt: skip

    def importance(self) -> str:
        facts = self.facts
        if not facts.ranked:
            return ""
        known = facts.distributions or inferred(facts.search)
        target, found = importances(facts.search, facts.select, known)
        drawn, left, shaky = [], [], list[str]()
        for one in found:
            if one.shares:
                title = f"{one.title} ({one.trials})"
                shaky += [f"{title}: {one.note}."] if one.note else []
                drawn.append(f"<h3>{escape(title)}</h3>{self.plot(plots.importance_bars(one))}")
            else:
                left.append(f"{one.title} ({one.trials}): {one.note}")
        notes = [
            f"Functional ANOVA of {target.words}. Settings that a choice opens are judged among "
            "the trials that have them, not beside those that all trials have.",
        ]
        notes += shaky
        notes += ["Not said: " + "; ".join(left) + "."] if left else []
        content = "".join(drawn) or '<p class="empty">Too few trials to say what mattered.</p>'
        return blocks.card("Which settings mattered", content, key="importance",
                           notes=blocks.notes_of(notes))  # fmt: skip

    def curves(self) -> str:
        figure = plots.curves(self.facts)
        if figure is None:
            return ""
        return blocks.card("Learning curves", self.plot(figure), key="curves")

    def heat(self) -> Iterator[str]:
        for place, kinds in enumerate(PAIRS):
            found = maps.heat(self.facts, kinds)
            if found is None:
                continue
            figure, width = found
            note = (
                f"In each cell the best validation {self.facts.select}, and the number of trials. "
                "✕: tried, never measured. Empty: never tried."
            )
            yield blocks.card(f"Which parts work together: {kinds[0]} x {kinds[1]}",
                              self.plot(figure, width), key="" if place else "heat",
                              wide=width > 620, notes=blocks.notes_of([note]))  # fmt: skip

    def pareto(self) -> Iterator[str]:
        for place, cost in enumerate(maps.costs_shown(self.facts)):
            figure = maps.pareto(self.facts, cost)
            if figure is not None:
                note = "Trials that ran to their end. On the front none is better in both."
                yield blocks.card(f"Quality against {cost.name.replace('_', ' ')}",
                                  self.plot(figure), key="" if place else "pareto",
                                  notes=blocks.notes_of([note]))  # fmt: skip

    def parallel(self) -> str:
        found = maps.parallel(self.facts)
        if found is None:
            return ""
        figure, width = found
        note = (
            f"A line per measured trial: the better its {self.facts.select}, the darker; the best "
            "are red. Settings that fewer than half of the trials have are left out."
        )
        return blocks.card("Parallel coordinates", self.plot(figure, width), key="parallel",
                           wide=True, notes=blocks.notes_of([note]))  # fmt: skip

    def failures(self) -> str:
        one = tables.failures(self.facts)
        if one is None:
            return ""
        inner = blocks.sortable(one.head, one.rows, words=tables.WORDS, long=tables.LONG)
        title = f"Failed and infeasible trials ({len(one.rows)})"
        return blocks.card(title, f'<div class="tall">{inner}</div>', key="failures", wide=True)

    def slices(self) -> str:
        best = self.facts.winner
        if best is None or not slices_in(best.test):
            return ""
        head, *rows = table_of(
            best.test, str(self.facts.info.protocol.get("metrics_group", "impression"))
        )
        note = f"Test split; final {best.number}, seed {best.config.get('seed')}."
        return blocks.card("Slices of the winner", blocks.scrolled(blocks.table(head, rows)),
                           key="slices", wide=True, notes=blocks.notes_of([note]))  # fmt: skip

    def ground(self) -> Iterator[str]:
        for title, key, rows in (
            ("Data and protocol", "protocol", tables.protocol(self.facts)),
            ("Search", "search", tables.asked(self.facts)),
            ("Environment", "environment", tables.environment(self.facts)),
        ):
            found = list(rows)
            if found:
                yield blocks.card(title, blocks.pairs(found), key=key)
        if self.facts.space:
            inner = f"<pre>{escape(self.facts.space)}</pre>"
            text = f"<details><summary>space.yaml</summary>{inner}</details>"
            yield blocks.card("The space", text, key="space", wide=True)


def report_page(facts: Facts) -> str:
    """The page; every text is escaped, and nothing is loaded from anywhere."""
    page, info = Page(facts), facts.info
    cards = [
        page.winner(), page.comparison(), page.leaderboard(), *page.progress(), page.curves(),
        page.importance(), *page.heat(), *page.pareto(), page.parallel(), page.failures(),
        page.slices(), *page.ground(),
    ]  # fmt: skip
    body = [
        f'<h1>{escape(info.name)}<span class="state {escape(info.state)}">{escape(_state(facts))}'
        "</span></h1>",
        f'<p class="lead">{escape(_lead(facts))}</p>',
        *map(blocks.warning, _warnings(facts)),
        _tiles(facts),
        _nav(cards),
        '<div class="grid">',
        *(card for card in cards if card),
        "</div>",
    ]
    return document(f"{info.name}: report of a search", body, style=STYLE, script=SORTING)


def _state(facts: Facts) -> str:
    return {"searching": "under way", "finals": "finals under way"}.get(
        facts.info.state, facts.info.state
    )


def _lead(facts: Facts) -> str:
    info = facts.info
    told = str(facts.settings.get("description") or "")
    began = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(info.created)) if info.created else ""
    parts = [told, f"Data: {data_title(info)}.", f"Begun {began}." if began else ""]
    parts.append(why(facts.sweep) if info.state in ("finished", "interrupted") else "")
    return " ".join(part for part in parts if part)


def _warnings(facts: Facts) -> Iterator[str]:
    if facts.info.synthetic:
        yield "Synthetic data: the numbers say nothing of the world."
    for problem in facts.problems:
        yield f"Left out of this report: {problem}"


def _tiles(facts: Facts) -> str:
    epochs, hours = spent(facts.records)
    items = "".join(
        f"<li><b>{escape(value)}</b><span>{escape(name)}</span></li>"
        for name, value in tables.tiles(facts, epochs, hours)
    )
    return f'<ul class="tiles">{items}</ul>'


def _nav(cards: list[str]) -> str:
    names = {
        "winner": "Winner", "comparison": "Comparison", "leaderboard": "Leaderboard",
        "progress": "Best so far", "curves": "Learning curves", "importance": "Importances",
        "heat": "Heat maps", "pareto": "Pareto fronts", "parallel": "Parallel coordinates",
        "failures": "Failures", "slices": "Slices", "protocol": "Protocol",
        "environment": "Environment", "space": "Space",
    }  # fmt: skip
    there = [key for key in names if any(f'id="{key}"' in card[:200] for card in cards)]
    links = "".join(f'<a href="#{key}">{names[key]}</a>' for key in there)
    return f'<nav aria-label="On this page">{links}</nav>'
