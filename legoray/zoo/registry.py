"""The registry: each sweep's winner is a version, and the best of the comparable is `champion`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from legoray.records import SweepInfo, TrialRecord, digest
from legoray.zoo import fields
from legoray.zoo.state import SentTrial

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
COMPARABLE = "legoray.comparable"
VALUE = "legoray.value"
MODEL_ID = "legoray.model_id"  # stores do not all give back the one that MLflow is told


def register(
    client: MlflowClient, name: str, sent: SentTrial, winner: TrialRecord, sweep: SweepInfo
) -> str:
    """Make the winner's model a version; `champion` unless an older one is known to be better.

    Older and new compare only where data, protocol and metric are equal; otherwise the newest is
    champion.

    Returns:
        The version. The same model is never registered twice.
    """
    _ensure(client, name, sweep)
    version = _existing(client, name, sent) or client.create_model_version(
        name,
        source=_source(client, str(sent.model)),
        run_id=sent.run_id,
        model_id=sent.model,
        tags={MODEL_ID: str(sent.model), **_tags(winner, sweep)},
        description=f"{fields.run_name(winner)} of sweep {sweep.name} ({sweep.id})",
    )
    champion = _champion(client, name)
    if champion is None or not _better(champion, version, sweep.select):
        client.set_registered_model_alias(name, CHAMPION, version.version)
    return str(version.version)


def comparable(sweep: SweepInfo) -> str:
    """Equal where two sweeps' validation numbers may be compared."""
    return digest([sweep.data, sweep.fingerprint, sweep.protocol, sweep.select])


def _tags(winner: TrialRecord, sweep: SweepInfo) -> dict[str, str]:
    shown = {"composition": winner.label, "data": sweep.data, "sweep": sweep.id}
    value = winner.best.get(sweep.select)
    return shown | {COMPARABLE: comparable(sweep), VALUE: "" if value is None else repr(value)}


def _ensure(client: MlflowClient, name: str, sweep: SweepInfo) -> None:
    if not client.search_registered_models(filter_string=f"name = '{name}'"):
        kind = "synthetic data " if sweep.synthetic else ""
        text = f"Recommender for {kind}{sweep.data_title or sweep.data}"
        client.create_registered_model(name, description=text)


def _source(client: MlflowClient, model_id: str) -> str:
    """Where the version's files are, as the store must be told.

    A server wants the model's own address. A database would look that address up in whatever store
    is the process's default, so it is told the place itself.
    """
    if client.tracking_uri.startswith("http"):
        return f"models:/{model_id}"
    return str(client.get_logged_model(model_id).artifact_location)


def _existing(client: MlflowClient, name: str, sent: SentTrial) -> ModelVersion | None:
    versions = client.search_model_versions(f"name = '{name}' and run_id = '{sent.run_id}'")
    return next((v for v in versions if v.tags.get(MODEL_ID) == sent.model), None)


def _champion(client: MlflowClient, name: str) -> ModelVersion | None:
    aliases = client.get_registered_model(name).aliases
    version = aliases.get(CHAMPION)
    return client.get_model_version(name, version) if version else None


def _better(old: ModelVersion, new: ModelVersion, select: str) -> bool:
    if old.tags.get(COMPARABLE) != new.tags.get(COMPARABLE):
        return False
    if not old.tags.get(VALUE) or not new.tags.get(VALUE):
        return False
    sign = 1.0 if fields.greater_is_better(select) else -1.0
    return sign * float(old.tags[VALUE]) > sign * float(new.tags[VALUE])
