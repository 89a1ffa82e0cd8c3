"""The check of a space runs a batch of every corner, and tells all that goes wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from space_cases import make_space

from legoray.data.load import load_corpus
from legoray.search.check import check_config, check_space
from legoray.search.cover import valid_share
from legoray.search.fits import part_names
from legoray.search.notation import KINDS
from legoray.search.space import read_spaces

SPACE = """\
name: checked
data: data.yaml
model:
  hidden_size: 8
  content: {choice: [%s]}
  behavior: {choice: [{name: none}, {name: additive}, {name: attention, heads: 2}, {name: gru}]}
  predictor: {choice: [{name: dot}, {name: dcn}, {name: din}]}
train: {epochs: 1, task: {choice: [matching, ranking]}, precision: {choice: [float32, bfloat16]}}
"""
CONTENT = "{name: id}, {name: pooling}, {name: cnn}, {name: attention, heads: 2}"


@pytest.fixture
def checked(tmp_path, sample_tables):
    """Checks a space with these content operators; what it tells, and what it says."""

    def run(content):
        said = []
        space = make_space(tmp_path, SPACE % content)
        corpus = load_corpus(sample_tables)
        problems = check_space(space, corpus, sample_tables, tmp_path / "home", said.append)
        return [str(problem) for problem in problems], said, space

    return run


def test_a_space_without_mistakes(checked):
    problems, said, space = checked(CONTENT)
    assert problems == []
    count = len(space.corners())
    assert len(said) == count + 1
    assert said[-1].startswith(f"{count} corners of the space built and run in ")
    assert all(line.endswith("fine") for line in said[:-1])


def test_everything_that_fails_is_told(checked):
    own = "{name: 'check_parts:Narrow'}, {name: 'check_parts:Diverging'}"
    problems, said, space = checked(f"{own}, {{name: 'check_parts:Plain'}}")
    narrow = [p for p in problems if "check_parts:Narrow" in p]
    diverging = [p for p in problems if "check_parts:Diverging" in p]
    assert narrow
    assert diverging
    assert len(problems) == len(narrow) + len(diverging)
    assert all("content operator 'check_parts:Narrow': gives the shape" in p for p in narrow)
    assert all("'check_parts:Diverging': gives NaN or infinite values" in p for p in diverging)
    assert str(space.document.path) in problems[0]
    assert any(": Plain+" in line and line.endswith("fine") for line in said)


def test_an_attribute_that_the_tables_lack(checked):
    problems, _, _ = checked("{name: id}, {name: cnn, attributes: [headline]}")
    assert problems
    assert all("headline" in problem and "cnn" in problem for problem in problems)


def test_what_full_ranking_does_not_define_is_told_before_anything_is_built(
    tmp_path, sample_tables
):
    text = SPACE % "{name: id}" + "evaluate: {metrics: [auc, logloss], group: user}\n"
    space = make_space(tmp_path, text)
    corpus = load_corpus(sample_tables)
    ranked = {name: replace(split, full_ranking=True) for name, split in corpus.splits.items()}
    corpus, said = replace(corpus, splits=ranked), []
    problems = check_space(space, corpus, sample_tables, tmp_path / "home", said.append)
    line = text.count("\n")
    metrics, group = (str(problem) for problem in problems)
    for found, key in ((metrics, "metrics"), (group, "group")):
        assert found.startswith(f"{space.document.path}:{line}: evaluate.{key}: "), found
    assert said == []
    one = space.corners()[0]
    alone = check_config(one, space.text, corpus, sample_tables, tmp_path / "home")
    assert [problem.message for problem in alone] == [problem.message for problem in problems]


ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "search_spaces").rglob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_space_here_reads_and_draws(path):
    """Where the data are absent, too: nothing but their YAML file is read."""
    for space in read_spaces(path):
        assert space.document.data["name"] == path.stem
        corners = space.corners()
        seen = {kind: {getattr(c.model, kind)["name"] for c in corners} for kind in KINDS}
        for kind in KINDS:
            offered = {name for _, node in space.parts(kind) for name in part_names(node)}
            assert seen[kind] == offered, "every part stands in a corner"
        assert not space.where or valid_share(space, 100) > 0.1
        header = path.read_text(encoding="utf-8").partition("\nname:")[0]
        assert f"python run_search.py search_spaces/{path.stem}.yaml" in header


def test_the_smallest_space_here_is_fine(tmp_path, sample_tables):
    (space,) = read_spaces(ROOT / "search_spaces" / "smoke.yaml")
    corpus = load_corpus(sample_tables)
    assert check_space(space, corpus, sample_tables, tmp_path / "home") == []
