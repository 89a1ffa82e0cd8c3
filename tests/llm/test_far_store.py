"""Caches at an S3 address: made by one machine, found by the next, and never computed twice."""

from __future__ import annotations

import pytest
import torch
from llm_cases import ITEMS
from storage_server import BUCKET, ask_only, served
from store_cases import ALL, recipe_of
from writing_cases import ROOT

from legoray.config import home
from legoray.data.built import ensure_folder
from legoray.data.plan import _fetch_written
from legoray.data.prepare import prepare
from legoray.data.written import list_written, written_folder
from legoray.llm import build
from legoray.llm.store import open_states
from legoray.records import write_json
from legoray.storage.folders import share


@pytest.fixture(scope="module")
def server():
    with served() as running:
        yield running


@pytest.fixture
def machine(server, monkeypatch, tmp_path, request):
    """Be a machine of some name: gives its mirror of LEGORAY_HOME."""
    ask_only(server, monkeypatch)
    monkeypatch.setenv("LEGORAY_HOME", f"s3://{BUCKET}/{request.node.name}")

    def be(name):
        monkeypatch.setenv("LEGORAY_NODE_CACHE", str(tmp_path / name))
        return home()

    return be


def test_hidden_states_are_computed_by_one_machine(
    machine, item_tables, tiny_bert, pairs, monkeypatch
):
    recipe = recipe_of(tiny_bert)
    ours = open_states(recipe, item_tables, machine("one")).gather(ALL)
    with monkeypatch.context() as patch:
        patch.setattr(build, "compute_block", None)  # all of it is there
        said = []
        theirs = open_states(recipe, item_tables, machine("two"), said.append).gather(ALL)
    assert torch.equal(theirs.hidden, ours.hidden)
    assert len(list(machine("two").glob("states/*/blocks/*"))) == (len(ITEMS) + 1) // 2
    assert not any("computing" in line for line in said)


def test_what_a_killed_machine_had_stored_is_not_computed_again(
    machine, item_tables, tiny_bert, pairs, monkeypatch
):
    compute, calls = build.compute_block, []

    def killed(*given):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(given)
        return compute(*given)

    monkeypatch.setattr(build, "compute_block", killed)
    with pytest.raises(KeyboardInterrupt):
        open_states(recipe_of(tiny_bert), item_tables, machine("one"))
    rest = []
    monkeypatch.setattr(build, "compute_block", lambda *given: (rest.append(1), compute(*given))[1])
    open_states(recipe_of(tiny_bert), item_tables, machine("two"))
    assert len(rest) == (len(ITEMS) + 1) // 2 - 2


def test_folders_that_are_made_once_are_fetched(machine):
    def make(folder):
        (folder / "content").write_text("1")

    ensure_folder(machine("one") / "codes" / "abc", make, "stored codes")
    there = machine("two") / "codes" / "abc"
    ensure_folder(there, lambda folder: pytest.fail("made twice"), "stored codes")
    assert (there / "content").read_text() == "1"


def test_tables_are_prepared_by_one_machine(machine):
    said = []
    dataset = ROOT / "datasets" / "mind_sample.yaml"
    machine("one")
    first = prepare(dataset, say=said.append)
    assert first.fresh
    machine("two")
    second = prepare(dataset, say=said.append)
    assert not second.fresh
    assert second.manifest.fingerprint == first.manifest.fingerprint
    assert second.tables != first.tables
    names = sorted(path.name for path in first.tables.iterdir())
    assert sorted(path.name for path in second.tables.iterdir()) == names


def test_written_attributes_are_seen_by_all(machine):
    folder = written_folder(machine("one"), "mind", "summary")
    (folder / "parts").mkdir(parents=True)
    write_json(folder / "meta.json", {"attribute": "summary"})
    (folder / "parts" / "0.parquet").write_bytes(b"1")
    share(folder)
    there = machine("two")
    _fetch_written("mind")
    assert list_written(there, "mind") == ["summary"]
    assert (written_folder(there, "mind", "summary") / "parts" / "0.parquet").read_bytes() == b"1"
