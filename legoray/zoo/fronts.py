"""The Pareto front in MLflow: marked models, and versions with aliases `pareto-1`, `pareto-2`, ...

Every completed trial of a search with several objectives says by the tag `pareto`, on its run and
on its logged model, whether it is on the front. The members are versions in the registry beside the
winner, numbered from the best of the first objective; each new sweep takes the aliases over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from legoray.objectives import objectives_of
from legoray.pareto import comparable, front
from legoray.records import SweepInfo, TrialRecord
from legoray.zoo.registry import register
from legoray.zoo.state import SentTrial

if TYPE_CHECKING:
    from mlflow import MlflowClient

TAG = "pareto"
ALIAS = re.compile(r"pareto-\d+")


def send_front(
    client: MlflowClient,
    name: str,
    records: Sequence[TrialRecord],
    sent: Mapping[str, SentTrial],
    sweep: SweepInfo,
) -> list[str]:
    """Mark the trials of a sweep that has ended, and register the members of its front.

    Args:
        client: of the store.
        name: in the registry.
        records: of the sweep.
        sent: what the store has of each trial, by `<number>-<key>`.
        sweep: whose objectives count.

    Returns:
        The versions of the front's members, in its order; none for a sweep of one objective.
    """
    objectives = objectives_of(sweep.objectives, sweep.select)
    if len(objectives) < 2:
        return []
    members = front(records, objectives)
    versions = []
    for record in comparable(records, objectives):
        known = sent.get(f"{record.number}-{record.key}")
        if known is not None:
            _mark(client, known, str(record in members).lower())
    for record in members:
        known = sent.get(f"{record.number}-{record.key}")
        if known is not None and known.model is not None:
            versions.append(register(client, name, known, record, sweep))
    _give_aliases(client, name, versions)
    return versions


def _mark(client: MlflowClient, sent: SentTrial, value: str) -> None:
    client.set_tag(sent.run_id, TAG, value)
    if sent.model is not None:
        client.set_logged_model_tags(sent.model, {TAG: value})


def _give_aliases(client: MlflowClient, name: str, versions: list[str]) -> None:
    """`pareto-1` and so on for these versions alone."""
    wanted = {f"pareto-{place}": version for place, version in enumerate(versions, 1)}
    if not wanted:
        return
    for alias in client.get_registered_model(name).aliases:
        if ALIAS.fullmatch(alias) and alias not in wanted:
            client.delete_registered_model_alias(name, alias)
    for alias, version in wanted.items():
        client.set_registered_model_alias(name, alias, version)
