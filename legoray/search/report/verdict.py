"""What the comparison and the registry say, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from legoray.search.report.gather import Facts
from legoray.zoo.promotion import champion_line
from legoray.zoo.verdicts import sentence


def verdict_text(facts: Facts) -> str:
    """What the winner is against the second; empty where nothing was compared."""
    found = facts.comparison
    if found is None or found.winner is None or found.second is None:
        return ""
    pair = found.pair(found.winner, found.second)
    return "" if pair is None else f"Against the next by validation, on the test: {sentence(pair)}."


def champion_text(facts: Facts) -> str:
    """What became of the registry's champion; empty where nothing was registered."""
    found = facts.comparison.champion if facts.comparison is not None else None
    state = facts.tracking
    if found is None and state is not None:
        found = state.champion
    if found is not None:
        return champion_line(found)
    if state is None or not state.version:
        return ""
    return f"registry: version {state.version} of '{state.register_as}'"


def comparison_notes(facts: Facts) -> Iterator[str]:
    """How the pairs were compared."""
    found = facts.comparison
    if found is None:
        return
    yield (
        f"Paired bootstrap over {found.users:,} users ({found.groups:,} {found.group}s, "
        f"{found.resamples:,} resamples) on {found.metric}; the verdicts go by p after Holm's "
        "correction over all pairs. An interval is one pair's alone."
    )
    if any(one.letters for one in found.compared):
        yield "Alike: models that share a letter are a tie."
    if found.note:
        yield found.note
