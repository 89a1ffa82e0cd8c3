"""In a Ray job's copy of the folder, results go where they last, or are refused."""

from __future__ import annotations

import pytest

from legoray.config import home, lasting
from legoray.errors import InputError
from legoray.rayjob import command_of, in_copy
from legoray.search.faraway import sweep_folder
from legoray.spaceconfig import TrackingConfig
from legoray.zoo.store import resolve_uri


@pytest.fixture
def job(tmp_path, monkeypatch):
    """The current folder is a job's copy; gives the folder that all nodes see."""
    copy = tmp_path / "session" / "runtime_resources" / "working_dir_files" / "_ray_pkg_0a1b"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    monkeypatch.delenv("LEGORAY_HOME", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "shared"


def test_without_a_home_nothing_begins(job):
    assert in_copy()
    for ask in (
        home,
        lasting,
        lambda: sweep_folder(None, "x"),
        lambda: resolve_uri("sqlite:///m.db"),
    ):
        with pytest.raises(InputError, match="LEGORAY_HOME: is not set, and this job's folder"):
            ask()


def test_what_has_no_place_of_its_own_lies_below_home(job, monkeypatch):
    monkeypatch.setenv("LEGORAY_HOME", str(job))
    assert sweep_folder(None, "x") == job / "sweeps" / "x"
    assert resolve_uri("sqlite:///mlflow.db") == f"sqlite:///{job}/mlflow.db"
    assert resolve_uri("sqlite:////elsewhere/m.db") == "sqlite:////elsewhere/m.db"
    assert resolve_uri("http://127.0.0.1:5000") == "http://127.0.0.1:5000"
    assert command_of("python x.py") == "ray job submit --working-dir . -- python x.py"


def test_a_zoo_of_sqlite_has_no_place_at_an_address(job, monkeypatch, tmp_path):
    monkeypatch.setenv("LEGORAY_HOME", "s3://bucket/home")
    monkeypatch.setenv("LEGORAY_NODE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(InputError, match="would go with this Ray job's folder") as told:
        resolve_uri("sqlite:///mlflow.db")
    assert "MLFLOW_TRACKING_URI" in str(told.value)
    assert "s3://bucket/home has no SQLite" in str(told.value)
    assert resolve_uri("sqlite:////elsewhere/m.db") == "sqlite:////elsewhere/m.db"


def test_elsewhere_everything_is_as_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LEGORAY_HOME", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert not in_copy()
    assert home() == tmp_path / ".legoray"
    assert sweep_folder(None, "x") == tmp_path / "sweeps" / "x"
    assert sweep_folder("a/b", "x") == tmp_path / "a" / "b"
    assert resolve_uri("sqlite:///mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    assert command_of("python x.py") == "python x.py"
    assert TrackingConfig().uri == "sqlite:///mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert TrackingConfig().uri == "http://127.0.0.1:5000"
