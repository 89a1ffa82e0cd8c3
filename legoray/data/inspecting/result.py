"""What `legoray inspect` found: one typed object, which the terminal and the page both show."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from legoray.config import Strict
from legoray.data.schema import Manifest

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


class Distribution(Strict):
    """How often each whole number stood; exact, whatever its size."""

    values: list[int]  # rising
    counts: list[int]  # of each value, none of them 0

    @cached_property
    def count(self) -> int:
        """How many numbers there were."""
        return sum(self.counts)

    @cached_property
    def total(self) -> int:
        """Their sum."""
        return sum(value * count for value, count in zip(self.values, self.counts, strict=True))

    @property
    def mean(self) -> float:
        """Their mean; 0 where there are none."""
        return self.total / self.count if self.count else 0.0

    def of(self, value: int) -> int:
        """How often one value stood."""
        return dict(zip(self.values, self.counts, strict=True)).get(value, 0)

    def quantile(self, share: float) -> int:
        """The least value that at least this share of the numbers does not exceed."""
        if not self.count:
            return 0
        below = np.cumsum(self.counts)
        place = int(np.searchsorted(below, max(share * self.count, 1) * (1 - 1e-12)))
        return self.values[min(place, len(self.values) - 1)]

    def quantiles(self) -> list[int]:
        """Those of `QUANTILES`."""
        return [self.quantile(share) for share in QUANTILES]


class SplitFacts(Strict):
    """One split."""

    name: str
    labeled: bool
    alone: bool  # each click stands alone, to be ranked against all items
    impressions: int
    candidates: int
    clicks: int
    users: int
    items_shown: int
    items_clicked: int
    one_sided: int  # impressions without a click, or without anything but clicks
    clicks_each: Distribution  # per impression
    candidates_each: Distribution
    history: Distribution  # clicks before each impression that a model may read
    first: int | None  # second since 1970; None where no time is known
    last: int | None
    untimed: int  # impressions without a time


class ColdFacts(Strict):
    """What a later split has that train had not; as the slices of cold users and items mean it."""

    split: str
    users: int
    new_users: int  # without an impression in train
    items: int  # shown
    new_items: int
    clicked: int | None  # None where the split is unlabeled
    new_clicked: int | None


class SliceFacts(Strict):
    """How many impressions are marked with a slice (`legoray.data.slices`), per split."""

    slice: str
    impressions: dict[str, int]


class TokenFacts(Strict):
    """Tokens of an attribute that some model had made before."""

    tokenizer: str
    length: int  # longer texts were cut here
    tokens: Distribution


class TextFacts(Strict):
    """One attribute of items or users."""

    name: str
    of: str  # items or users
    default: bool  # text operators read it where nothing else is said
    origin: str
    count: int
    empty: int
    missing: int  # nobody wrote one
    distinct: int  # among those that are not empty
    words: Distribution  # of the texts that are not empty
    characters: Distribution
    tokens: list[TokenFacts]


class Popularity(Strict):
    """How unevenly train's clicks are spread over all items."""

    clicks: int
    items: int
    never: int  # items that were not clicked
    head_items: int  # the most clicked ones, which slices call the head
    gini: float  # 0: all alike; near 1: one item has all
    head: dict[str, float]  # the most clicked 1%, 10%, 20% of items -> their share of clicks
    ranks: list[int]  # from 1, at equal distances on a logarithmic scale
    at_rank: list[int]  # clicks of the item of each of these ranks


class Timeline(Strict):
    """Impressions over time, in equal periods."""

    unit: str  # such as `day`
    seconds: int
    start: int  # second since 1970 at which the first period begins
    counts: dict[str, list[int]]  # split -> of each period


class Sparsity(Strict):
    """How much of the users x items matrix is filled."""

    users: int
    items: int
    pairs: int  # distinct (user, item) with a click in any split

    @property
    def density(self) -> float:
        """Share of the matrix that is filled."""
        return self.pairs / (self.users * self.items) if self.pairs else 0.0


class Candidate(Strict):
    """An item of an example."""

    text: str
    clicked: bool | None  # None where nobody knows


class Example(Strict):
    """One impression, readable."""

    split: str
    impression: int
    user: str
    user_attributes: dict[str, str]
    time: int | None
    history: list[str]  # the last ones, oldest first
    history_length: int
    candidates: list[Candidate]  # clicks first
    candidates_count: int
    alone: bool  # the click is ranked against all items


class Inspection(Strict):
    """All of it."""

    manifest: Manifest
    licence: str
    citation: str
    url: str
    tables: str
    splits: list[SplitFacts]
    sparsity: Sparsity
    stored: Distribution  # items of each stored history
    cold: list[ColdFacts]
    slices: list[SliceFacts]
    popularity: Popularity
    timeline: Timeline | None  # None where no time is known
    texts: list[TextFacts]
    examples: list[Example]
