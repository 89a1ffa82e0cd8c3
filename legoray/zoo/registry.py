"""The registry: each sweep's winner is a version; `legoray.zoo.promotion` gives it its alias."""

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
    """Make the winner's model a version.

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
    return str(version.version)


def comparable(sweep: SweepInfo) -> str:
    """Equal where two sweeps' numbers may be compared."""
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


def champion_of(client: MlflowClient, name: str) -> ModelVersion | None:
    """The version that is champion; None where there is none."""
    version = client.get_registered_model(name).aliases.get(CHAMPION)
    return client.get_model_version(name, version) if version else None
