"""`<sweep>/comparison.json`: what of the final models is better than what on the test split.

How the numbers come about is `legoray.zoo.bootstrap`'s matter and told in docs/evaluation.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from legoray.config import Strict
from legoray.records import read_json, write_json

FILE = "comparison.json"
Verdict = Literal["better", "worse", "tie"]


class Difference(Strict):
    """A metric's mean of `a` less that of `b`, and its interval (`Comparison.level`).

    The interval is this difference's alone: it knows nothing of other pairs.
    """

    difference: float
    low: float
    high: float


class Pair(Difference):
    """Two models on the selecting metric. The verdict goes by `p_holm`, and says what `a` is."""

    a: str  # key of a `Compared`
    b: str
    label_a: str
    label_b: str
    p: float  # two-sided, of this pair alone
    p_holm: float  # after Holm's correction over all pairs
    verdict: Verdict  # `better`: a is better than b, whether more or less of the metric is better
    others: dict[str, Difference] = Field(
        default_factory=dict, description="metrics that do not select: shown, not tested"
    )


class Compared(Strict):
    """One configuration with its seeds, or a baseline."""

    key: str  # digest of the configuration without its seed (`fields.config_key`)
    label: str
    phase: Literal["final", "baseline"]
    seeds: list[int]
    trials: list[int]  # numbers of the trainings behind it
    mean: dict[str, float]  # of every metric that was compared, over groups and seeds
    letters: str = ""  # two models are a tie exactly where they share a letter


class Champion(Strict):
    """The winning model against the registry's champion, both as they are: no seeds vary here."""

    name: str  # in the registry
    version: str  # that the winner has there
    champion: str  # the champion's version before; empty where there was none
    outcome: Literal["first", "same", "better", "tie", "worse", "not compared", "asked"]
    moved: bool  # whether `champion` is now the winner
    reason: str  # the outcome in words
    pair: Difference | None = None  # winner less champion on the selecting metric
    p: float | None = None  # two-sided; one test, so that nothing is corrected
    groups: int = 0


class Comparison(Strict):
    """All pairs of a sweep's final models and baselines, on the per-group values of one test."""

    sweep: str
    split: str = "test"
    metric: str  # that selected, and is tested
    mode: Literal["max", "min"]
    group: Literal["impression", "user"]
    groups: int  # how many were compared: those with both a click and a non-click
    users: int  # whose groups are drawn together
    level: float = 0.95
    resamples: int
    bootstrap_seed: int
    compared: list[Compared]  # in order of validation, the winner first; baselines last
    pairs: list[Pair]
    winner: str | None = None  # key of the one that validation chose
    second: str | None = None  # key of the next by validation
    against_second: Verdict | None = None  # what the winner is against it
    champion: Champion | None = None  # once the winner is in the registry
    note: str = ""  # why there is less than one would expect

    def pair(self, a: str, b: str) -> Pair | None:
        """The pair of two keys, in the order in which it was tested."""
        return next((pair for pair in self.pairs if {pair.a, pair.b} == {a, b}), None)


def read_comparison(sweep: Path) -> Comparison | None:
    """A sweep's comparison; None where there is none.

    Raises:
        InputError: the file is damaged.
    """
    path = sweep / FILE
    return read_json(path, Comparison) if path.exists() else None


def write_comparison(sweep: Path, comparison: Comparison) -> None:
    """Write it atomically.

    Raises:
        InputError: the folder cannot be written.
    """
    write_json(sweep / FILE, comparison)
