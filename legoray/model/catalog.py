"""The catalogue for a reader: parts, presets, and why two parts do not fit together."""

from __future__ import annotations

from rich.console import Console

from legoray.errors import InputError, Problem, nearest
from legoray.model.parts import KINDS, TABLES, count_compositions, declared, misfit
from legoray.model.presets import names, preset

TITLES = {
    "content": "content operators: item -> vector",
    "behavior": "behavior operators: history -> user",
    "predictor": "click predictors: user x item -> score",
}
LONGEST = 76  # characters of a text before its paper


def print_catalog(console: Console) -> None:
    """All parts and presets, one line each, and how many compositions are valid."""
    for kind in KINDS:
        rows = [(part.name, part.summary, part.paper) for part in declared(kind)]
        _print(console, TITLES[kind], rows)
    print_presets(console)
    count = f"{count_compositions():,} valid compositions of {_sizes()} parts"
    console.print(count, markup=False, soft_wrap=True)
    console.print("why two do not fit: legoray catalog explain none dot", markup=False)


def print_presets(console: Console) -> None:
    """All presets, one line each."""
    known = [preset(name) for name in names()]
    rows = [
        (p.name, p.composition(), f"{p.title}; {p.paper}" if p.title else p.paper) for p in known
    ]
    _print(console, "presets: legoray train --preset <name> --data <data set>", rows)


def explain_text(words: list[str]) -> str:
    """Whether some parts fit together, in words.

    Args:
        words: two or three names of parts, in the order content, behavior, predictor.

    Raises:
        InputError: there is no such part, or not as many.
    """
    names = [part for word in words for part in word.replace("+", " ").split()]
    if len(names) not in (2, 3):
        hint = "such as: legoray catalog explain cnn none dot"
        raise InputError(Problem("", f"two or three parts were expected, not {len(names)}", hint))
    kinds = _kinds_of(names)
    chosen = {"content": "id", **dict(zip(kinds, names, strict=True))}
    told = "+".join(names)
    if "behavior" not in chosen or "predictor" not in chosen:
        return f"{told} fit together: any content operator goes with any other part"
    reason = _reason(chosen)
    return f"{told} is not valid: {reason}" if reason else f"{told} is valid"


def _reason(chosen: dict[str, str]) -> str:
    """Why three parts do not fit together; a user's own are imported, the others are not."""
    if any(":" in name for name in chosen.values()):
        from legoray.model.compose import explain

        return explain(*(chosen[kind] for kind in KINDS)) or ""
    states = {
        kind: {part.name: part.states for part in declared(kind)}[chosen[kind]]
        for kind in ("behavior", "predictor")
    }
    behavior, predictor = chosen["behavior"], chosen["predictor"]
    found = misfit(behavior, next(iter(states["behavior"])), predictor, states["predictor"])
    return f"{found[0]} ({found[1]})" if found else ""


def _kinds_of(names: list[str]) -> list[str]:
    """Which kinds the names are of, in order; behavior and predictor where two may be both."""
    orders: list[list[str]] = [list(KINDS)]
    if len(names) == 2:
        orders = [["behavior", "predictor"], ["content", "behavior"], ["content", "predictor"]]
    for kinds in orders:
        if all(":" in n or n in TABLES[kind] for kind, n in zip(kinds, names, strict=True)):
            return kinds
    problems = []
    for kind, name in zip(orders[0], names, strict=True):
        if ":" not in name and name not in TABLES[kind]:
            close = nearest(name, TABLES[kind])
            hint = f"did you mean '{close}'?" if close else f"known: {', '.join(TABLES[kind])}"
            problems.append(Problem("", f"there is no {kind} '{name}'", hint))
    raise InputError(*problems)


def _print(console: Console, title: str, rows: list[tuple[str, str, str]]) -> None:
    """Rows of name, text and paper, each on one line, which a terminal's width cuts."""
    first = max(len(name) for name, _, _ in rows)
    second = min(max(len(text) for _, text, _ in rows), LONGEST)
    console.print(title, markup=False, style="bold")
    for name, text, paper in rows:
        line = f"  {name:<{first}}  {_cut(text, second):<{second}}  {paper}".rstrip()
        line = _cut(line, console.width) if console.is_terminal else line
        console.print(line, markup=False, soft_wrap=True)
    console.print()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


def _sizes() -> str:
    return " x ".join(str(len(TABLES[kind])) for kind in KINDS)
