"""A saved view of MLflow's table of runs, so that it opens as a leaderboard.

Without one, MLflow hides the trials below their sweep and shows none of their numbers. A view is an
experiment's tag whose value says the order and the columns; the interface offers it under 'Views',
and a link may name it. An interface that does not know it shows its ordinary table.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from legoray.zoo import fields

if TYPE_CHECKING:
    from mlflow import MlflowClient

VIEW = "legoray-leaderboard"
_TAG = f"mlflow.sharedViewState.{VIEW}"
_RUN = "attributes.`Run Name`"
_WIDTHS = {_RUN: 300, "attributes.`Models`": 200, "attributes.`Dataset`": 260}  # pixels


def save_view(
    client: MlflowClient,
    experiment_id: str,
    *,
    select: str,
    metrics: list[str],
    created: float,
    note: str,
) -> None:
    """Give an experiment its view, and say that it is about training models.

    Args:
        client: of the store.
        experiment_id: the experiment to write to.
        select: the metric that validation selects by; the order of the rows.
        metrics: all metrics of an epoch; the first few become columns.
        created: when, in seconds since 1970.
        note: what the experiment holds, as Markdown.
    """
    key = fields.metric_key("best", select)
    tags = {
        fields.NOTE: note,
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.experiment.primaryMetric.name": key,
        "mlflow.experiment.primaryMetric.greaterIsBetter": str(fields.greater_is_better(select)),
        _TAG: json.dumps(
            {
                "name": "Leaderboard",
                "createdAt": int(created * 1000),
                "state": json.dumps(_state(select, metrics)),
            }
        ),
    }
    for name, value in tags.items():
        client.set_experiment_tag(experiment_id, name, value)


def view_path(experiment_id: str | None) -> str:
    """The address of an experiment's leaderboard below that of MLflow's interface."""
    query = f"workflowType=machine_learning&viewStateShareKey={VIEW}"
    return f"/#/experiments/{experiment_id}/runs?{query}"


def _state(select: str, metrics: list[str]) -> dict[str, object]:
    shown = [select, *(name for name in metrics if name != select)][:4]
    columns = [
        "tags.`phase`",
        "tags.`status`",
        *(f"metrics.`{fields.metric_key('best', name)}`" for name in shown),
        *(f"metrics.`{fields.metric_key('test', name)}`" for name in shown[:2]),
        "metrics.`cost/seconds`",
        "metrics.`cost/trainable`",
        "params.`train.learning_rate`",
        "attributes.`Models`",
        "attributes.`Dataset`",
    ]
    order = f"metrics.`{fields.metric_key('best', select)}`"
    return {
        "orderByKey": order,
        "orderByAsc": not fields.greater_is_better(select),
        "selectedColumns": columns,
        "columnOrder": [_RUN, *columns],
        "columnWidths": _WIDTHS,
    }
