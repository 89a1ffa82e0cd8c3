"""A trained model's folder as an MLflow model: configuration and safetensors, never a pickle.

MLflow loads it by `legoray.zoo.pyfunc`: texts of a history and of candidates in, scores out.
"""

from __future__ import annotations

import importlib.metadata
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from legoray.zoo.fields import model_name
from legoray.zoo.scorer import scores_texts

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.models import ModelSignature

LOADER = "legoray.zoo.pyfunc"
_REQUIRED = (
    "legoray",
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "safetensors",
    "pydantic",
    "pyarrow",
    "pandas",
)


def log_model(
    client: MlflowClient, *, experiment_id: str, run_id: str, name: str, folder: Path
) -> str:
    """Record a model folder as the output of a run; about 30 ms for a small one.

    Args:
        client: of the store that has the run.
        experiment_id: the run's experiment.
        run_id: the run whose output it is.
        name: shown in MLflow, the composition.
        folder: as `legoray.model.io.save_model` wrote it.

    Returns:
        The logged model's id.
    """
    from mlflow.entities import LoggedModelOutput

    for half in client.search_logged_models(
        [experiment_id], filter_string=f"source_run_id = '{run_id}'"
    ):
        if half.status == "READY":
            return str(half.model_id)
        client.delete_logged_model(half.model_id)  # left by a recorder that was killed
    model = client.create_logged_model(
        experiment_id, name=model_name(name), source_run_id=run_id, model_type="recommender"
    )
    with tempfile.TemporaryDirectory(prefix="legoray-zoo-") as temporary:
        path = Path(temporary) / "mlflow"
        _write(path, folder, model, run_id)
        client.log_model_artifacts(model.model_id, str(path))
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
    client.finalize_logged_model(model.model_id, "READY")
    return str(model.model_id)


def signature() -> ModelSignature:
    """Rows of `history` and `candidates` (texts, or attributes as mappings) to rows of `scores`."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, Array, ColSpec, DataType, Schema

    texts = Array(AnyType())  # a text or a mapping: MLflow has no type for 'one of two'
    inputs = Schema([ColSpec(texts, "history"), ColSpec(texts, "candidates")])
    return ModelSignature(inputs, Schema([ColSpec(Array(DataType.double), "scores")]))


def example() -> pd.DataFrame:
    """A row as the model reads it, stored beside it: two titles that were read, two to score."""
    import pandas as pd

    history = ["Storm closes coastal roads", "Flood warning for the harbour"]
    candidates = ["Rain expected all week", "Striker scores twice in cup final"]
    return pd.DataFrame([{"history": history, "candidates": candidates}])


def requirements() -> list[str]:
    """What the model needs to be loaded, at the versions that made it.

    Given explicitly, since MLflow would otherwise load the model to find out (seconds, not
    milliseconds).
    """
    found = []
    for name in _REQUIRED:
        try:
            found.append(f"{name}=={importlib.metadata.version(name).partition('+')[0]}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _write(path: Path, folder: Path, model: LoggedModel, run_id: str) -> None:
    """Write MLflow's folder with a copy of ours in it."""
    import mlflow.pyfunc
    from mlflow.models import Model

    described = Model(
        artifact_path=model.artifact_location,
        model_uuid=model.model_id,
        model_id=model.model_id,
        run_id=run_id,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a model of item numbers has no example of texts
        mlflow.pyfunc.save_model(
            path=str(path),
            loader_module=LOADER,
            data_path=str(folder),
            signature=signature(),
            input_example=example() if scores_texts(folder) else None,
            pip_requirements=requirements(),
            mlflow_model=described,
        )
