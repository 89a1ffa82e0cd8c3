"""What the comparison and the registry say, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from legoray.search.report.gather import Facts


def verdict_text(facts: Facts) -> str:
    """What the winner is against the second; empty where nothing was compared."""
    found = facts.comparison
    if found is None or found.winner is None or found.second is None:
        return ""
    pair = found.pair(found.winner, found.second)
    labels = {one.key: one.label for one in found.compared}
    if pair is None:
        return ""
    sign = 1 if pair.a == found.winner else -1
    low, high = sorted((sign * pair.low, sign * pair.high))
    words = {"better": "better than", "worse": "worse than", "tie": "a tie with"}
    verdict = words[found.against_second or "tie"]
    return (
        f"On the test split it is {verdict} the next by validation, "
        f"{labels.get(found.second, found.second)}: {found.metric} {sign * pair.difference:+.4f} "
        f"({found.level:.0%} interval {low:+.4f} to {high:+.4f}, p {pair.p_holm:.3f} after Holm)."
    )


def champion_text(facts: Facts) -> str:
    """What became of the registry's champion; empty where nothing was registered."""
    found = facts.comparison.champion if facts.comparison is not None else None
    if found is None:
        state = facts.tracking
        if state is None or not state.version:
            return ""
        return f"Registered as version {state.version} of {state.register_as}."
    moved = "it is the champion now" if found.moved else f"version {found.champion} stays champion"
    return f"Registered as version {found.version} of {found.name}; {moved}: {found.reason}"


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
