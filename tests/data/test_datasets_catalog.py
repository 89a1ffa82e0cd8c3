"""legoray catalog datasets, the repository's YAML files, and the table of the documentation."""

from __future__ import annotations

import json

import pytest
from raw_files import ROOT, write
from typer.testing import CliRunner

from legoray.cli import app
from legoray.config import read_dataset
from legoray.data.datasetscmd import markdown_lines
from legoray.data.processors import processor_class

FILES = sorted((ROOT / "datasets").glob("*.yaml"))


def catalog(*words):
    return CliRunner().invoke(app, ["catalog", "datasets", *words])


@pytest.fixture
def folder(tmp_path, monkeypatch, home):
    """A folder of two data sets, of which one is here, and of a file that is none."""
    here = {"name": "here", "path": "raw", "processor": "mind", "licence": "CC0 (a | b)"}
    write(tmp_path / "datasets/here.yaml", json.dumps({**here, "published": {"items": 1234}}))
    away = {"name": "away", "path": "$NO_SUCH_VARIABLE/x", "processor": "own", "get": "Ask\nthem."}
    write(tmp_path / "datasets/away.yaml", json.dumps({**away, "url": "https://example.org"}))
    write(tmp_path / "datasets/broken.yaml", "name: [")
    (tmp_path / "datasets/raw").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "datasets"


def test_all_are_listed_and_a_broken_one_is_told(folder):
    done = catalog()
    assert done.exit_code == 0
    lines = {line.split()[0]: line for line in done.output.splitlines() if line.strip()}
    assert "1,234 items" in lines["here"]
    assert lines["here"].rstrip().endswith("raw files")
    assert "raw files" not in lines["away"]
    assert "broken.yaml:1" in done.output
    assert "not valid YAML" in done.output


def test_one_is_told_with_how_to_get_it(folder):
    done = catalog("away")
    assert "to get it: Ask them." in done.output
    assert "then: legoray prepare datasets/away.yaml" in done.output
    assert "did you mean 'away'?" in str(catalog("awy").exception)


def test_markdown_escapes_what_parts_columns(folder):
    assert "broken.yaml" in str(catalog("--markdown").exception)
    (folder / "broken.yaml").unlink()
    away, here = catalog("--markdown").output.splitlines()[2:]
    assert away.endswith("| [page](https://example.org) |")
    assert r"CC0 (a \| b)" in here


def test_a_folder_without_data_sets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "datasets: no such folder" in str(catalog().exception)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_yaml_of_the_repository_says_what_one_needs(file):
    config, _ = read_dataset(file)
    assert config.name == file.stem
    assert config.title
    assert config.licence
    assert config.get
    processor_class(config.processor).Options.model_validate(config.options)
    if not config.synthetic:
        assert config.url.startswith(("https://", "http://"))
        assert config.citation
        assert config.size


def test_the_documentation_has_the_table_of_all_data_sets(monkeypatch):
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs/data.md").read_text(encoding="utf-8")
    table = "\n".join(markdown_lines())
    assert table in page, "put the lines of `legoray catalog datasets --markdown` into docs/data.md"
