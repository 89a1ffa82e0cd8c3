"""Finding a model by what people call it: a folder, a registered name, a run."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from legoray.errors import InputError, Problem, unknown
from legoray.storage.address import is_address, place
from legoray.storage.folders import fetch
from legoray.yamlfile import read_yaml
from legoray.zoo.registry import MODEL_ID
from legoray.zoo.store import open_zoo, resolve_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

KINDS = (
    "a model's folder or address, models:/<name>@champion, models:/<name>/<version>, a run's id or "
    "name"
)


@contextmanager
def located(model: str | Path, tracking: str) -> Iterator[Path]:
    """The folder of a model (`legoray.model.io`); what had to be fetched is removed afterwards.

    Args:
        model: a folder of ours or of MLflow's; `models:/name@alias`, `models:/name/version`,
            `models:/<model id>`; `runs:/<id>`, a run's id, or a run's name that is unique.
        tracking: MLflow's address, for everything but a folder.

    Raises:
        InputError: there is no such model, or several.
    """
    if is_address(model):
        yield _inside(_from_address(str(model)))
        return
    folder = Path(model)
    if folder.is_dir():
        yield _inside(folder)
        return
    client = open_zoo(tracking)
    model_id = _model_id(client, str(model), tracking)
    location = _location(client, model_id, tracking)
    place = Path(location.removeprefix("file://"))
    if place.is_dir():
        yield _inside(place)
        return
    with tempfile.TemporaryDirectory(prefix="legoray-model-") as temporary:
        yield _inside(_fetched(model_id, location, temporary, resolve_uri(tracking)))


def _from_address(text: str) -> Path:
    """A model that a sweep at an address left: `s3://.../models/<key>`, or `best` below it.

    Raises:
        InputError: there is none, or the service refuses.
    """
    folder = place(text, "the model")
    for training in (folder, folder.parent):
        if fetch(training) and folder.is_dir():
            return folder
    raise InputError(Problem(text, "there is no model here", f"expected: {KINDS}"))


def _inside(folder: Path) -> Path:
    """Our folder in one of MLflow's, in a trial's, or the folder itself."""
    if (folder / "MLmodel").is_file():
        flavors = read_yaml(folder / "MLmodel").data.get("flavors", {})
        data = flavors.get("python_function", {}).get("data")
        if data is None:
            raise InputError(Problem(str(folder), "is an MLflow model, but none of LegoRay's"))
        return folder / str(data)
    if not (folder / "config.json").exists() and (folder / "best").is_dir():
        return folder / "best"
    return folder


def _location(client: MlflowClient, model_id: str, tracking: str) -> str:
    """Where a logged model's files are: a folder, or an address that MLflow fetches from."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_logged_model(model_id).artifact_location)
    except MlflowException as error:
        first = str(error).splitlines()[0]
        raise InputError(Problem(tracking, f"there is no model {model_id}: {first}")) from None


def _fetched(model_id: str, location: str, temporary: str, uri: str) -> Path:
    """Fetch by the files' own address: MLflow looks `models:/` up in the process's store alone."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        path = download_artifacts(location, dst_path=temporary, tracking_uri=uri)
    except (MlflowException, OSError) as error:
        first = str(error).splitlines()[0]
        raise InputError(Problem(uri, f"model {model_id} cannot be fetched: {first}")) from None
    return Path(path)


def _model_id(client: MlflowClient, model: str, tracking: str) -> str:
    if model.startswith("models:/"):
        return _registered(client, model.removeprefix("models:/"), tracking)
    if model.startswith("runs:/"):
        model = model.removeprefix("runs:/").partition("/")[0]
    return _of_run(client, model, tracking)


def _registered(client: MlflowClient, name: str, tracking: str) -> str:
    """The id behind `name@alias`, `name/version` or `m-...`."""
    from mlflow.exceptions import MlflowException

    if re.fullmatch(r"m-[0-9a-f]{32}", name):
        return name
    found = re.fullmatch(r"([^@/]+)(?:@([^@/]+)|/(\d+))", name)
    if not found:
        raise InputError(Problem(f"models:/{name}", "is no model's name", f"expected: {KINDS}"))
    base, alias, version = found.groups()
    names = [known.name for known in client.search_registered_models()]
    if base not in names:
        raise InputError(unknown("registered model", base, names, tracking))
    try:
        entry = (
            client.get_model_version_by_alias(base, alias)
            if alias
            else client.get_model_version(base, version)
        )
    except MlflowException:
        what = f"alias '{alias}'" if alias else f"version {version}"
        aliases = ", ".join(f"@{a}" for a in client.get_registered_model(base).aliases)
        hint = f"it has: {aliases}" if aliases else "see the model registry in mlflow ui"
        raise InputError(Problem(f"models:/{base}", f"has no {what}", hint)) from None
    model_id = entry.tags.get(MODEL_ID)
    if model_id is None:
        raise InputError(Problem(f"models:/{name}", "was not registered by LegoRay"))
    return str(model_id)


def _of_run(client: MlflowClient, run: str, tracking: str) -> str:
    """The model that a run left, by the run's id or name."""
    by_id = re.fullmatch(r"[0-9a-f]{32}", run)
    where = f"attributes.run_id = '{run}'" if by_id else f"attributes.run_name = '{_quoted(run)}'"
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, where, max_results=5)
    if not runs:
        message = f"there is no folder and no run '{run}'"
        raise InputError(Problem(tracking, message, f"expected: {KINDS}"))
    if len(runs) > 1:
        told = ", ".join(r.info.run_id for r in runs)
        raise InputError(
            Problem(tracking, f"several runs are called '{run}'", f"take an id: {told}")
        )
    outputs = runs[0].outputs.model_outputs if runs[0].outputs else []
    if not outputs:
        status = runs[0].data.tags.get("status", runs[0].info.status)
        message = f"the run '{run}' left no model (it is {status})"
        raise InputError(Problem(tracking, message, "only completed trials do"))
    return str(outputs[-1].model_id)


def _quoted(name: str) -> str:
    return name.replace("'", "")
