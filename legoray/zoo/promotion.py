"""Who is the registry's champion: it changes hands only where the new model is better for sure.

The newest winner meets the champion on the values of groups that both keep of their one test
(`legoray.train.groupvalues`): the two models as they are, so users are drawn and no seeds. It takes
over where it is better at a level of 5%, on the same data and groups, under the same protocol and
metric. In every other case it becomes `challenger`, and the reason is told.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from legoray.errors import InputError, Problem
from legoray.records import SweepInfo
from legoray.train.groupvalues import GroupValues, read_values
from legoray.zoo import fields
from legoray.zoo.bootstrap import ALPHA, Gap, resample
from legoray.zoo.comparison import Champion, Difference
from legoray.zoo.locate import located
from legoray.zoo.registry import CHAMPION, COMPARABLE, MODEL_ID, champion_of, comparable
from legoray.zoo.store import open_zoo

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHALLENGER = "challenger"


def settle(
    client: MlflowClient, name: str, version: str, model: Path | None, sweep: SweepInfo
) -> Champion:
    """Give a sweep's winner the alias that it deserves, and say why.

    Args:
        client: of the store.
        name: of the registered model.
        version: of the winner.
        model: its folder, with what its test left.
        sweep: what its numbers are of.
    """
    holder = champion_of(client, name)
    if holder is not None and str(holder.version) == version:
        reason = "is champion already"
        return Champion(name=name, version=version, champion=version, outcome="same",
                        moved=False, reason=reason)  # fmt: skip
    found = _first(name, version) if holder is None else _met(client, holder, version, model, sweep)
    _set_aliases(client, name, version, champion=found.moved)
    return found


def promote(model: str, tracking: str) -> Champion:
    """Make a version of the registry champion because somebody asks for it.

    Args:
        model: `models:/<name>/<version>`.
        tracking: MLflow's address.

    Raises:
        InputError: there is no such version.
    """
    name, slash, version = model.removeprefix("models:/").partition("/")
    if not model.startswith("models:/") or not slash or not version.isdigit():
        raise InputError(Problem(model, "is no version", "expected models:/<name>/<version>"))
    client = open_zoo(tracking)
    with located(model, tracking):
        holder = champion_of(client, name)
    old = str(holder.version) if holder is not None else ""
    _set_aliases(client, name, version, champion=True)
    instead = f" in place of version {old}" if old not in ("", version) else ""
    return Champion(name=name, version=version, champion=old, outcome="asked",
                    moved=old != version, reason=f"is champion, as asked{instead}")  # fmt: skip


def champion_line(champion: Champion) -> str:
    """What became of the registry's champion."""
    return f"registry: version {champion.version} of '{champion.name}' {champion.reason}"


def _first(name: str, version: str) -> Champion:
    reason = "is champion: it is the first"
    return Champion(
        name=name, version=version, champion="", outcome="first", moved=True, reason=reason
    )


def _met(
    client: MlflowClient, holder: ModelVersion, version: str, model: Path | None, sweep: SweepInfo
) -> Champion:
    """The winner against the champion."""
    name, old = str(holder.name), str(holder.version)
    try:
        ours, theirs = _values(client, holder, model, sweep)
    except InputError as error:
        asked = f"legoray promote models:/{name}/{version} makes it champion all the same"
        reason = (
            f"is challenger; version {old} stays champion: {error.problems[0].message}. {asked}"
        )
        return Champion(name=name, version=version, champion=old, outcome="not compared",
                        moved=False, reason=reason)  # fmt: skip
    metric = sweep.select
    pair = [ours.metrics[metric][None], theirs.metrics[metric][None]]
    gap = resample(pair, ours.user, seed=sweep.seed).gap(0, 1)
    higher = (gap.difference > 0) == fields.greater_is_better(metric)
    better, clear = higher and gap.difference != 0, gap.p < ALPHA
    moved = better and clear
    return Champion(
        name=name,
        version=version,
        champion=old,
        outcome=("better" if better else "worse") if clear else "tie",
        moved=moved,
        reason=_reason(old, metric, gap, moved=moved, clear=clear),
        pair=Difference(difference=gap.difference, low=gap.low, high=gap.high),
        p=gap.p,
        groups=len(ours.group),
    )


def _reason(old: str, metric: str, gap: Gap, *, moved: bool, clear: bool) -> str:
    numbers = f"{gap.difference:+.4f} test {metric} (95% interval {gap.low:+.4f} to {gap.high:+.4f}"
    numbers += f", p {gap.p:.4f})"
    if moved:
        return f"is champion: better than version {old} by {numbers}"
    what = "this one is worse" if clear else "a tie"
    return f"is challenger; version {old} stays champion: {what}, {numbers}"


def _values(
    client: MlflowClient, holder: ModelVersion, model: Path | None, sweep: SweepInfo
) -> tuple[GroupValues, GroupValues]:
    """What the tests of the winner and of the champion left.

    Raises:
        InputError: they cannot be compared.
    """
    where = f"models:/{holder.name}/{holder.version}"
    if holder.tags.get(COMPARABLE) != comparable(sweep):
        data = holder.tags.get("data", "")
        other = f"other data ({data})" if data != sweep.data else "another preparation of the data"
        message = f"it was measured on {other}, or under another protocol"
        raise InputError(Problem(where, message))
    ours = read_values(model) if model is not None else None
    if ours is None:
        raise InputError(Problem(where, "the winner was not tested"))
    with located(f"models:/{holder.tags.get(MODEL_ID)}", client.tracking_uri) as folder:
        theirs = read_values(folder)
    if theirs is None:
        raise InputError(Problem(where, "it keeps no values of its test"))
    if not ours.matches(theirs):
        raise InputError(Problem(where, "it was tested on other groups"))
    if sweep.select not in ours.metrics or sweep.select not in theirs.metrics:
        message = f"{sweep.select} is of all rows together, so that chance cannot be told"
        raise InputError(Problem(where, message))
    return ours, theirs


def _set_aliases(client: MlflowClient, name: str, version: str, *, champion: bool) -> None:
    """The version becomes `champion`, and no longer `challenger` if it was, or `challenger`."""
    if not champion:
        client.set_registered_model_alias(name, CHALLENGER, version)
        return
    client.set_registered_model_alias(name, CHAMPION, version)
    aliases = client.get_registered_model(name).aliases
    if str(aliases.get(CHALLENGER, "")) == version:
        client.delete_registered_model_alias(name, CHALLENGER)
