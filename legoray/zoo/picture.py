"""A composition as a picture: SVG, drawn of its configuration alone.

texts -> [content] -> item vectors -> [behavior] -> user -> [predictor] -> score
                           |______ candidate vectors ______^
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from legoray.pages.looks import BLUE, GREEN, INK, ORANGE

KINDS = {"content": BLUE, "behavior": GREEN, "predictor": ORANGE}
ROLES = {
    "content": "content operator",
    "behavior": "behavior operator",
    "predictor": "click predictor",
}
MOST = 7  # settings of a part
WIDTH, GAP, LINE = 236, 92, 19  # of a box, between two, of a line of text; pixels
HEAD, FOOT = 56, 10
FAINT, LINES = "#51606f", "#8a97a5"
FONT = "font-family='system-ui, -apple-system, Segoe UI, Roboto, sans-serif'"


@dataclass(frozen=True)
class Part:
    """One box."""

    kind: str
    name: str
    chosen: list[str]  # settings that the search chose
    others: list[str]  # those that the space fixes
    more: int  # settings that are not shown


def parts_of(config: Mapping[str, Any], params: Mapping[str, Any], most: int = MOST) -> list[Part]:
    """The three boxes of a training's configuration.

    Args:
        config: a `TrialConfig` as plain data.
        params: what the search chose, by path.
        most: settings of each that are shown.
    """
    model = config.get("model", {})
    return [_part(kind, model[kind], params, most) for kind in KINDS if kind in model]


def _part(kind: str, settings: Mapping[str, Any], params: Mapping[str, Any], most: int) -> Part:
    within = f"model/{kind}.{settings['name']}/"
    searched = {path.removeprefix(within) for path in params if path.startswith(within)}
    leaves = [(at, value) for at, value in _leaves(settings) if at != "name" and value is not None]
    chosen = [_line(at, value) for at, value in leaves if at in searched]
    others = [_line(at, value) for at, value in leaves if at not in searched]
    room = max(most - len(chosen), 0)
    more = max(len(others) - room, 0)
    name = str(settings["name"]).rpartition(":")[2]
    return Part(kind, name, chosen, others[: room - 1] if more and room else others[:room],
                more + 1 if more and room else more)  # fmt: skip


def _leaves(tree: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{at}{key}/")
        else:
            yield f"{at}{key}", value


def _line(at: str, value: Any) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return f"{at.replace('/', '.')} {text}"


def composition_svg(
    config: Mapping[str, Any],
    params: Mapping[str, Any],
    *,
    reads: str = "item texts",
    upright: bool = False,
    wide: int = 0,
) -> str:
    """The picture as an `<svg>` element that needs nothing else; empty where there is no model.

    Args:
        config: a `TrialConfig` as plain data.
        params: what the search chose, by path; drawn in bold.
        reads: what goes in.
        upright: the boxes below one another, for narrow screens.
        wide: pixels that it takes where nothing else says so; as many as it is drawn on if 0.
    """
    parts = parts_of(config, params)
    if len(parts) < len(KINDS):
        return ""
    inner, width, height = (_upright if upright else _across)(parts, reads)
    tip = "tip-upright" if upright else "tip"  # both may stand in one page
    inner = inner.replace("url(#tip)", f"url(#{tip})")
    label = escape(" -> ".join(part.name for part in parts), quote=True)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' "
        f"width='{wide or width}' height='{height * (wide or width) // width}' role='img' "
        f"aria-label='{label}' {FONT} font-size='13'>"
        f"<defs><marker id='{tip}' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='8' "
        f"markerHeight='8' orient='auto'><path d='M0 0L8 4L0 8z' fill='{LINES}'/></marker></defs>"
        f"<rect width='{width}' height='{height}' fill='#ffffff'/>{inner}</svg>"
    )


def _height(part: Part) -> int:
    lines = len(part.chosen) + len(part.others) + bool(part.more)
    return HEAD + LINE * max(lines, 1) + FOOT


def _across(parts: list[Part], reads: str) -> tuple[str, int, int]:
    top, side = 54, 118
    tall = max(map(_height, parts))
    middle = top + tall / 2
    lefts = [side + place * (WIDTH + GAP) for place in range(len(parts))]
    right = lefts[-1] + WIDTH
    pieces = [_box(p, x, top, tall) for p, x in zip(parts, lefts, strict=True)]
    pieces += [_arrow(side - 44, middle, lefts[0] - 4, middle), *_words(reads, 6, middle)]
    for place, words in enumerate((("history", "vectors"), ("user",))):
        start = lefts[place] + WIDTH
        pieces.append(_arrow(start + 4, middle, start + GAP - 4, middle))
        pieces += [
            _text(start + GAP / 2, middle - 8 if not row else middle + 18, word, anchor="middle")
            for row, word in enumerate(words)
        ]
    over, first, last = 26, lefts[0] + WIDTH / 2, lefts[2] + WIDTH / 2
    pieces.append(
        f"<path d='M{first} {top}V{over}H{last}V{top - 4}' fill='none' stroke='{LINES}' "
        "stroke-width='1.5' marker-end='url(#tip)'/>"
    )
    pieces.append(_text((first + last) / 2, over - 8, "candidate vectors", anchor="middle"))
    pieces += [
        _arrow(right + 4, middle, right + 44, middle),
        _text(right + 50, middle + 4, "score"),
    ]
    return "".join(pieces), right + 96, top + tall + 8


def _upright(parts: list[Part], reads: str) -> tuple[str, int, int]:
    left, width = 10, 340
    pieces = [*_words(reads, left + width / 2, 14, anchor="middle", most=44)]
    y = 24.0
    told = ("", "history vectors", "user")
    places: list[tuple[float, float]] = []
    for part, words in zip(parts, told, strict=True):
        pieces.append(_arrow(left + width / 2, y, left + width / 2, y + 30))
        if words:
            pieces.append(_text(left + width / 2 + 10, y + 20, words))
        y += 34
        tall = _height(part)
        pieces.append(_box(part, left, y, tall, wide=width))
        places.append((y, y + tall))
        y += tall + 4
    start, end = places[0][1] - 20, places[2][0] + 20
    rim = left + width
    pieces.append(
        f"<path d='M{rim} {start}H{rim + 18}V{end}H{rim + 4}' fill='none' stroke='{LINES}' "
        "stroke-width='1.5' marker-end='url(#tip)'/>"
    )
    turned = f"transform='rotate(90 {rim + 24} {(start + end) / 2})'"
    pieces.append(
        _text(rim + 24, (start + end) / 2, "candidate vectors", anchor="middle", more=turned)
    )
    pieces += [
        _arrow(left + width / 2, y, left + width / 2, y + 26),
        _text(left + width / 2, y + 42, "score", anchor="middle"),
    ]
    return "".join(pieces), rim + 40, int(y + 52)


def _box(part: Part, x: float, y: float, tall: float, wide: float = WIDTH) -> str:
    color = KINDS[part.kind]
    most = int((wide - 28) / 7)
    lines = [(line, INK, "600") for line in part.chosen]
    lines += [(line, FAINT, "400") for line in part.others]
    lines += [(f"and {part.more} more", FAINT, "400")] if part.more else []
    return (
        f"<rect x='{x}' y='{y}' width='{wide}' height='{tall}' rx='8' fill='#ffffff' "
        f"stroke='#c9d1d9'/><rect x='{x}' y='{y}' width='{wide}' height='5' rx='2.5' "
        f"fill='{color}'/>"
        + _text(x + 14, y + 23, ROLES[part.kind], size=11)
        + _text(x + 14, y + 44, part.name, size=17, color=INK, weight="700", most=int(most * 0.75))
        + "".join(
            _text(x + 14, y + HEAD + 9 + LINE * row, line, color=color, weight=weight, most=most)
            for row, (line, color, weight) in enumerate(lines)
        )
    )


def _words(text: str, x: float, y: float, *, anchor: str = "start", most: int = 10) -> list[str]:
    """A few words on as many lines as they need, three at most."""
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + len(word) < most:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    top = y + 4 - 8 * (min(len(lines), 3) - 1)
    return [
        _text(x, top + 16 * row, line, anchor=anchor, most=most)
        for row, line in enumerate(lines[:3])
    ]


def _arrow(x: float, y: float, to_x: float, to_y: float) -> str:
    return (
        f"<line x1='{x}' y1='{y}' x2='{to_x}' y2='{to_y}' stroke='{LINES}' stroke-width='1.5' "
        "marker-end='url(#tip)'/>"
    )


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: int = 13,
    color: str = FAINT,
    weight: str = "400",
    anchor: str = "start",
    most: int = 60,
    more: str = "",
) -> str:
    """A line of text, cut at so many letters; the whole of it shows under the pointer."""
    shown = text if len(text) <= most else f"{text[: most - 1]}…"
    whole = f"<title>{escape(text)}</title>" if shown != text else ""
    return (
        f"<text x='{x}' y='{y}' font-size='{size}' fill='{color}' font-weight='{weight}' "
        f"text-anchor='{anchor}' {more}>{escape(shown)}{whole}</text>"
    )
