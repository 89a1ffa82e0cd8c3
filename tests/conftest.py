"""What all tests share: one thread per process, no hub, and where real data may lie."""

from __future__ import annotations

import os
import sys

# Set before torch or transformers are imported anywhere.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """With `--dist loadgroup`: a file's tests stay in one process unless they say otherwise."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(scope="session")
def real_data():
    """Gives a folder of real data, beside the checkout or in $LEGORAY_TEST_DATA, or skips."""

    def find(*parts: str) -> Path:
        base = Path(os.environ.get("LEGORAY_TEST_DATA", ROOT.parent / "shared" / "data"))
        folder = base.joinpath(*parts)
        if not folder.exists():
            pytest.skip(f"real data are not here: {folder} (set LEGORAY_TEST_DATA)")
        return folder

    return find


@pytest.fixture(scope="module", autouse=True)
def _no_ray_left_over():
    """A module that used Ray in this process leaves none behind for the next."""
    yield
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    folder = tmp_path / "home"
    monkeypatch.setenv("LEGORAY_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def sample_tables(tmp_path_factory):
    """The embedded corpus, prepared once for all test processes: the folder of its tables."""
    from filelock import FileLock

    from legoray.data.prepare import prepare

    root = tmp_path_factory.getbasetemp()
    root = root.parent if os.environ.get("PYTEST_XDIST_WORKER") else root
    with FileLock(root / "sample.lock"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEGORAY_HOME", str(root / "sample_home"))
        return prepare(ROOT / "datasets" / "mind_sample.yaml", say=lambda text: None).tables


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """An empty MLflow database; making one takes seconds, copying it none."""
    from legoray.zoo.store import connect

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    connect(f"sqlite:///{file}").search_experiments()
    return file
