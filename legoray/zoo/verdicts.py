"""What is better than what, in words: the lines below the table of the test split."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console

from legoray.zoo.comparison import Comparison, Pair

MOST = 6  # lines about the winner against others


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print a comparison's claims: the winner's against every other, then the other claims."""
    for line in comparison_lines(comparison):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """The lines of `print_comparison`."""
    if comparison.pairs:
        yield heading(comparison)
        own, others = _of_winner(comparison)
        yield from (f"  {sentence(pair)}" for pair in own[:MOST])
        left = own[MOST:] + others
        if left:
            claims = sum(pair.verdict != "tie" for pair in left)
            counts = f"{_number(claims, 'difference')}, {_number(len(left) - claims, 'tie')}"
            yield f"  {_number(len(left), 'more pair')}: {counts} (comparison.json in its folder)"
    if comparison.note:
        yield f"not compared: {comparison.note}"


def heading(comparison: Comparison) -> str:
    """By what was compared."""
    groups = f"{comparison.groups:,} {comparison.group}s"
    if comparison.users < comparison.groups:
        groups += f" of {comparison.users:,} users"
    pairs = len(comparison.pairs)
    holm = f", Holm's correction over {pairs} pairs" if pairs > 1 else ""
    where = f"{groups} of the {comparison.split} split"
    return f"{comparison.metric} on {where}, paired bootstrap{holm}:"


def _of_winner(comparison: Comparison) -> tuple[list[Pair], list[Pair]]:
    """The pairs that the winner is in, and the others."""
    winner = comparison.winner
    own = [pair for pair in comparison.pairs if winner in (pair.a, pair.b)]
    return own, [pair for pair in comparison.pairs if pair not in own]


def sentence(pair: Pair) -> str:
    """`A is better than B by 0.0123 (95% interval 0.0050 to 0.0196, p 0.0012)`."""
    numbers = f"95% interval {_span(pair.low, pair.high)}, p {small(pair.p_holm)}"
    if pair.verdict == "tie":
        return f"{pair.label_a} and {pair.label_b} are a tie: {pair.difference:+.4f} ({numbers})"
    words = f"{pair.label_a} is {pair.verdict} than {pair.label_b}"
    return f"{words} by {abs(pair.difference):.4f} ({numbers})"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _span(low: float, high: float) -> str:
    return f"{low:+.4f} to {high:+.4f}"


def small(p: float) -> str:
    """A p-value, short."""
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.1 else f"{p:.2f}"
