"""What was found as tables of words, in the order in which they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from legoray.data.inspecting.result import (
    QUANTILES,
    Distribution,
    Example,
    Inspection,
    SliceFacts,
    SplitFacts,
    TextFacts,
    TokenFacts,
)
from legoray.data.published import comparable
from legoray.data.slices import HEAD

Row = tuple[str, ...]
NONE = "-"
WORDS = ("compared", "of", "from", "what")  # heads of columns that hold no numbers
_LABELS = {True: "clicked", False: "not clicked", None: "candidate"}
_QUANTILES = ("least", "25%", "median", "75%", "90%", "99%", "most")
assert len(_QUANTILES) == len(QUANTILES)


@dataclass(frozen=True)
class Section:
    """One table; without a head its rows are names and what they stand for."""

    key: str
    title: str
    rows: Sequence[Row]
    head: Row = ()
    notes: tuple[str, ...] = ()
    wide: bool = False  # its texts are long


def sections(found: Inspection) -> list[Section]:
    """All tables that have something to say."""
    made = [
        _identity(found),
        _splits(found),
        _published(found),
        _left_out(found),
        _lengths(found),
        _sparsity(found),
        _popularity(found),
        _cold(found),
        _slices(found),
        _times(found),
        _texts(found),
        *_examples(found),
    ]
    return [section for section in made if section.rows]


def _identity(found: Inspection) -> Section:
    known = found.manifest
    rows = [
        ("name", known.name),
        ("title", known.title),
        ("synthetic", "yes: its numbers say nothing of the world" if known.synthetic else "no"),
        ("licence", found.licence),
        ("citation", found.citation),
        ("url", found.url),
        ("processor", known.processor),
        ("files", ", ".join(f"{one.path} ({size(one.size)})" for one in known.sources)),
        ("fingerprint", known.fingerprint),
        ("tables", found.tables),
        ("text read by default", ", ".join(known.text)),
        ("metrics grouped by", known.group),
        *((f"protocol: {name}", str(value)) for name, value in known.protocol.items()),
    ]
    return Section("identity", "Data set", [row for row in rows if row[1]], wide=True)


def _splits(found: Inspection) -> Section:
    head = ("split", "impressions", "candidates", "clicks", "users", "items shown",
            "items clicked", "one-sided")  # fmt: skip
    rows = [
        (
            one.name,
            number(one.impressions),
            number(one.candidates),
            number(one.clicks) if one.labeled else "unlabeled",
            number(one.users),
            number(one.items_shown),
            number(one.items_clicked) if one.labeled else NONE,
            number(one.one_sided) if one.labeled and not one.alone else NONE,
        )
        for one in found.splits
    ]
    counts = found.manifest.counts
    totals = ", ".join(f"{number(counts[what])} {what}" for what in ("items", "users", "histories"))
    notes = [f"{totals} in all"]
    if any(one.one_sided and not one.alone for one in found.splits):
        notes.append(
            "one-sided: impressions without a click, or without anything else; ranking metrics "
            "leave them out"
        )
    alone = [one.name for one in found.splits if one.alone]
    if alone:
        notes.append(f"{' and '.join(alone)}: each click is ranked against all items")
    return Section("splits", "Splits", rows, head, tuple(notes))


def _published(found: Inspection) -> Section:
    known = found.manifest
    counted = comparable(known.counts)
    causes = {one.what: one.cause for one in known.deviations}
    rows = [
        (what, number(counted[what]), number(count), causes.get(what, "as published"))
        for what, count in known.published.items()
    ]
    return Section(
        "published", "Published counts", rows, ("what", "read here", "published", "compared")
    )


def _left_out(found: Inspection) -> Section:
    rows = [
        (name.replace("_", " ").replace("/", " in ", 1), number(count))
        for name, count in sorted(found.manifest.dropped.items())
    ]
    return Section("dropped", "Left out or cleaned in preparation", rows, ("what", "how many"))


def _lengths(found: Inspection) -> Section:
    rows: list[Row] = [("items of a stored history", *_spread(found.stored))]
    rows += [(f"history before an impression, {s.name}", *_spread(s.history)) for s in found.splits]
    rows += [
        (f"clicks per impression, {s.name}", *_spread(s.clicks_each))
        for s in found.splits
        if s.labeled
    ]
    rows += [
        (f"candidates per impression, {s.name}", *_spread(s.candidates_each))
        for s in found.splits
        if not s.alone
    ]
    without = [f"{s.name} {percent(s.history.of(0), s.impressions)}" for s in found.splits]
    note = f"impressions without a history: {', '.join(without)}"
    return Section("lengths", "Lengths", rows, ("", "mean", *_QUANTILES), (note,))


def _sparsity(found: Inspection) -> Section:
    known = found.sparsity
    rows = [
        ("users x items", f"{number(known.users)} x {number(known.items)}"),
        ("clicked pairs", number(known.pairs)),
        ("density", f"{known.density:.4%}"),
        ("clicked items per user", f"{known.pairs / max(known.users, 1):.2f}"),
        ("clicking users per item", f"{known.pairs / max(known.items, 1):.2f}"),
    ]
    note = "pairs of a user and an item with a click in any split; histories alone do not count"
    return Section("sparsity", "Sparsity", rows, notes=(note,))


def _popularity(found: Inspection) -> Section:
    known = found.popularity
    rows = [
        ("clicks in train", number(known.clicks)),
        ("items without one", f"{number(known.never)} ({percent(known.never, known.items)})"),
        ("Gini coefficient", f"{known.gini:.3f}"),
        *((f"clicks of the most clicked {name}", f"{s:.1%}") for name, s in known.head.items()),
    ]
    rows.append((f"items that make up {HEAD:.0%} of them", _part(known.head_items, known.items)))
    note = "over all items; a Gini coefficient of 0 is clicks spread evenly, 1 all on one item"
    return Section("popularity", "Popularity of items", rows, notes=(note,))


def _cold(found: Inspection) -> Section:
    rows = [
        (
            one.split,
            _part(one.new_users, one.users),
            _part(one.new_items, one.items),
            NONE if one.clicked is None else _part(one.new_clicked or 0, one.clicked),
        )
        for one in found.cold
    ]
    head = ("split", "new users", "new items shown", "new items clicked")
    note = (
        "new: users without an impression in train; items that nobody clicked in train or in the "
        "histories before its impressions"
    )
    return Section("cold", "What train has not seen", rows, head, (note,), wide=True)


def _slices(found: Inspection) -> Section:
    rows = [(one.slice, *(_marked(one, split) for split in found.splits)) for one in found.slices]
    note = "impressions of each kind; measured by themselves beside the total"
    head = ("slice", *(split.name for split in found.splits))
    return Section("slices", "Slices", rows, head, (note,))


def _marked(one: SliceFacts, split: SplitFacts) -> str:
    """Of unlabeled impressions nobody knows which items were clicked."""
    if one.slice.endswith("-item") and not split.labeled:
        return NONE
    return _with_share(one.impressions[split.name], split.impressions)


def _times(found: Inspection) -> Section:
    rows = [
        (one.name, when(one.first), when(one.last), _span(one.first, one.last), number(one.untimed))
        for one in found.splits
        if one.first is not None and one.last is not None
    ]
    return Section(
        "times", "Time", rows, ("split", "first", "last", "days", "without a time"),
        ("UTC, of impressions",),
    )  # fmt: skip


def _texts(found: Inspection) -> Section:
    head = ("attribute", "of", "texts", "empty", "again", "mean words", "median", "99%", "most",
            "characters", "from")  # fmt: skip
    rows = [_text_row(one) for one in found.texts]
    notes = [
        "* read by default; again: texts that an earlier item (or user) has, too; words of texts "
        "that are not empty, and the median of their characters"
    ]
    notes += [_token_note(one.name, made) for one in found.texts for made in one.tokens]
    return Section("texts", "Texts", rows, head, tuple(notes) if rows else ())


def _token_note(name: str, made: TokenFacts) -> str:
    known = made.tokens
    spread = f"mean {known.mean:.1f}, median {known.quantile(0.5)}, most {known.quantile(1)}"
    cut = (
        f"; {percent(known.of(made.length), known.count)} reach it" if known.of(made.length) else ""
    )
    return f"{name} in tokens ({made.tokenizer}), at most {made.length}: {spread}{cut}"


def _text_row(one: TextFacts) -> Row:
    some = one.words.count
    empty = one.empty + one.missing
    return (
        one.name + ("*" if one.default else ""),
        one.of,
        number(some),
        _with_share(empty, one.count),
        _with_share(some - one.distinct, some),
        f"{one.words.mean:.1f}",
        *(number(one.words.quantile(share)) for share in (0.5, 0.99, 1.0)),
        number(one.characters.quantile(0.5)),
        one.origin,
    )


def _examples(found: Inspection) -> Iterator[Section]:
    for place, one in enumerate(found.examples, 1):
        title = f"Example {place} of {one.split}: impression {one.impression}"
        yield Section(f"example-{place}", title, list(_example_rows(one)), wide=True)


def _example_rows(one: Example) -> Iterator[Row]:
    known = ", ".join(f"{name}: {text}" for name, text in one.user_attributes.items())
    yield ("user", f"{one.user} ({known})" if known else one.user)
    if one.time is not None:
        yield ("time", when(one.time))
    earlier = one.history_length - len(one.history)
    past = [f"{number(earlier)} earlier items, then"] if earlier else []
    past += one.history
    yield ("history", past[0] if past else "none")
    for text in past[1:]:
        yield ("", text)
    for candidate in one.candidates:
        yield (_LABELS[candidate.clicked], candidate.text)
    left = one.candidates_count - len(one.candidates)
    if left:
        yield ("", f"and {number(left)} more")
    if one.alone:
        yield ("", "ranked against all items")


def _spread(one: Distribution) -> Row:
    if not one.count:
        return (NONE,) * (len(QUANTILES) + 1)
    return (f"{one.mean:.2f}", *map(number, one.quantiles()))


def _part(part: int, total: int) -> str:
    return f"{number(part)} of {number(total)} ({percent(part, total)})"


def _with_share(part: int, total: int) -> str:
    return f"{number(part)} ({percent(part, total)})" if part else "0"


def _span(first: int, last: int) -> str:
    return f"{(last - first) / 86400:,.1f}"


def number(count: int) -> str:
    """A whole number as it is read."""
    return f"{count:,}"


def percent(part: int, total: int) -> str:
    """A share; only all of it is 100%, only nothing is 0%."""
    if not total or part in (0, total):
        return "100%" if total and part == total else "0%"
    return f"{min(max(100 * part / total, 0.1), 99.9):.1f}%"


def size(count: int) -> str:
    """Bytes as they are read."""
    return f"{count / 1e6:,.1f} MB" if count >= 100_000 else f"{count:,} bytes"


def when(seconds: int | None) -> str:
    """A second since 1970 as date and time, UTC; any year."""
    if seconds is None:
        return NONE
    return str(np.datetime_as_string(np.datetime64(seconds, "s"), unit="m")).replace("T", " ")
