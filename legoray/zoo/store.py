"""Where MLflow keeps the zoo: resolving its address, and connecting without noise.

The default is one SQLite file beside the project, with the artifacts in `mlruns` next to it, so
that a plain `mlflow ui` started in that folder shows runs, models and files.
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from legoray.config import lasting
from legoray.errors import InputError, Problem
from legoray.rayjob import in_copy
from legoray.storage.address import address_of, portable

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

DEFAULT_URI = "sqlite:///mlflow.db"
SQLITE = "sqlite:///"
# A server that is down must cost seconds, not MLflow's default of minutes; what was not sent is
# kept and tried again later. Whatever the user has set goes before.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_importing = threading.Lock()


def resolve_uri(uri: str, base: Path | None = None) -> str:
    """The address with a relative SQLite path made absolute, since workers change their folder.

    Args:
        uri: `sqlite:///relative.db`, `sqlite:////absolute.db`, another database, or a server.
        base: folder that a relative path starts from; the current one if None.

    Raises:
        InputError: the address names no kind of store that MLflow has; it is a file in the folder
            of a Ray job, and there is no other place that lasts.
    """
    if "://" not in uri:
        hint = f"a server such as http://host:5000, or {DEFAULT_URI}"
        raise InputError(Problem("tracking.uri", f"'{uri}' is not an address", hint))
    if not uri.startswith(SQLITE):
        return uri
    path = Path(uri.removeprefix(SQLITE)).expanduser()
    return SQLITE + str((base or _lasting(uri)) / path)


def _lasting(uri: str) -> Path:
    """The current folder, or LEGORAY_HOME in a Ray job, whose folder goes with it."""
    place = lasting()
    if (
        in_copy()
        and address_of(place) is not None
        and not Path(uri.removeprefix(SQLITE)).is_absolute()
    ):
        hint = (
            "set MLFLOW_TRACKING_URI or the space's `tracking: {uri: ...}` to a server or to "
            "sqlite:////an/absolute/path.db"
        )
        message = (
            f"'{uri}' would go with this Ray job's folder, and {portable(place)} has no SQLite"
        )
        raise InputError(Problem("tracking.uri", message, hint))
    return place


def artifact_root(uri: str) -> Path | None:
    """Folder of the artifacts of a resolved address; None where the server decides."""
    if uri.startswith(SQLITE):
        return Path(uri.removeprefix(SQLITE)).parent / "mlruns"
    return None if uri.startswith(("http:", "https:")) else Path.cwd() / "mlruns"


def quiet() -> None:
    """Keep MLflow's imports, migrations and advice off the user's screen."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    for name in ("alembic", "mlflow", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(
            logging.CRITICAL
        )  # failures are told by `Recorder.problem`
    warnings.filterwarnings("ignore", module=r"mlflow\..*")


def connect(uri: str) -> MlflowClient:
    """A client of a resolved address. The first one in a process imports MLflow (about 1 s)."""
    quiet()
    with _importing:
        from mlflow import MlflowClient

        quiet()  # the import sets MLflow's own log levels
        if uri.startswith(SQLITE):
            Path(uri.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
        return MlflowClient(uri, uri)


def open_zoo(uri: str) -> MlflowClient:
    """As `connect`, for reading: a store that is not there is the user's mistake.

    Raises:
        InputError: there is no such database, or the server does not answer.
    """
    resolved = resolve_uri(uri)
    path = Path(resolved.removeprefix(SQLITE))
    if resolved.startswith(SQLITE) and not path.is_file():
        hint = "run a search first, or give --tracking"
        raise InputError(Problem(str(path), "there is no model zoo here", hint))
    try:
        client = connect(resolved)
        client.search_experiments(max_results=1)
    except Exception as error:
        first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InputError(Problem(resolved, f"the model zoo cannot be read: {first}")) from None
    return client


def all_runs(client: MlflowClient, experiments: list[str], where: str) -> list[Run]:
    """Every run that matches a filter, page by page, the oldest first."""
    runs: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs(
            experiments,
            where,
            max_results=1000,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        runs.extend(page)
        token = page.token
        if not token:
            return runs
