"""`<sweep>/tracking.json`: what of a sweep MLflow already has, so that nothing is sent twice.

The file only saves questions: without it the recorder finds its runs again by their tags.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from legoray.config import Strict
from legoray.errors import InputError
from legoray.records import read_json, write_json
from legoray.zoo.comparison import Champion

FILE = "tracking.json"


class SentTrial(Strict):
    """What MLflow has of one trial."""

    run_id: str
    epochs: list[int] = Field(default_factory=list)  # those whose metrics were sent
    sent: str = ""  # digest of the record that was sent last; empty if it was interrupted
    model: str | None = None  # id of the logged model, once it is complete


class TrackingState(Strict):
    """Where a sweep is recorded and how far."""

    uri: str
    experiment: str
    register_as: str
    experiment_id: str | None = None
    parent: str | None = None
    trials: dict[str, SentTrial] = Field(default_factory=dict)  # by `<number>-<key>`
    ending: bool = False  # the sweep has ended but MLflow may not know it
    ended: bool = False  # the parent run is closed and the winner registered
    winner: int | None = None  # number of the best trial
    interrupted: bool = False
    version: str | None = None  # the winner's version in the registry
    champion: Champion | None = None  # what the winner is against the champion
    report: str = ""  # digest of the report that was sent last


def load_state(folder: Path, fresh: TrackingState) -> TrackingState:
    """What was sent to the same place before; `fresh` if nothing was, or the file is damaged."""
    try:
        old = read_json(folder / FILE, TrackingState)
    except InputError:
        return fresh
    same = (old.uri, old.experiment, old.register_as)
    return old if same == (fresh.uri, fresh.experiment, fresh.register_as) else fresh


def save_state(folder: Path, state: TrackingState) -> None:
    """Write the state atomically."""
    write_json(folder / FILE, state)
