"""The embedded corpus: its files, its generator, and how hard it is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

DATASETS = Path(__file__).resolve().parents[2] / "datasets"
CORPUS = DATASETS / "mind_sample"
FILES = [f"{part}/{name}.tsv" for part in ("train", "dev") for name in ("news", "behaviors")]
TIME = re.compile(r"[1-9]\d?/[1-9]\d?/2026 [1-9]\d?:\d\d:\d\d [AP]M")


def generate(*arguments):
    """Run the generator as its docstring says."""
    script = str(DATASETS / "make_mind_sample.py")
    return subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, check=False
    )


def rows(name):
    text = (CORPUS / name).read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [line.split("\t") for line in text[:-1].split("\n")]


@pytest.fixture(scope="module")
def news():
    return {part: rows(f"{part}/news.tsv") for part in ("train", "dev")}


@pytest.fixture(scope="module")
def behaviors():
    return {part: rows(f"{part}/behaviors.tsv") for part in ("train", "dev")}


@pytest.fixture(scope="module")
def world():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DATASETS))
        import mind_sample_world

        yield mind_sample_world.make_world()


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_generator_writes_the_committed_files_byte_for_byte(tmp_path, monkeypatch, hash_seed):
    monkeypatch.setenv("PYTHONHASHSEED", hash_seed)
    done = generate("--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (CORPUS / name).read_bytes(), name


def test_files_are_small_and_nothing_else_is_there():
    found = sorted(p.relative_to(CORPUS).as_posix() for p in CORPUS.rglob("*") if p.is_file())
    assert found == sorted(FILES)
    assert sum((CORPUS / name).stat().st_size for name in FILES) < 3_000_000


def test_another_scale_is_larger_and_needs_a_folder_of_its_own(tmp_path):
    refused = generate("--scale", "2")
    assert refused.returncode == 2
    assert "--out" in refused.stderr
    assert generate("--scale", "0", "--out", str(tmp_path)).returncode == 2
    assert generate("--scale", "2", "--out", str(tmp_path)).returncode == 0
    lines = (tmp_path / "train/behaviors.tsv").read_bytes().count(b"\n")
    assert lines == 2 * (CORPUS / "train/behaviors.tsv").read_bytes().count(b"\n")


@pytest.mark.parametrize("part", ["train", "dev"])
def test_news_has_minds_eight_columns(news, part):
    assert {len(row) for row in news[part]} == {8}
    keys = [row[0] for row in news[part]]
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch(r"N\d+", key) for key in keys)
    assert all(row[1] and row[2] and row[3] for row in news[part])
    for row in news[part]:
        for column, text in ((6, row[3]), (7, row[4])):
            for entity in json.loads(row[column]) if row[column] else []:
                start = entity["OccurrenceOffsets"][0]
                assert text[start:].startswith(entity["SurfaceForms"][0])
                assert entity["Type"] in ("O", "P", "G")


@pytest.mark.parametrize(("part", "days"), [("train", range(5, 11)), ("dev", range(11, 12))])
def test_behaviors_have_minds_five_columns(behaviors, part, days):
    assert {len(row) for row in behaviors[part]} == {5}
    for _, user, time, history, candidates in behaviors[part]:
        assert re.fullmatch(r"U\d+", user)
        assert TIME.fullmatch(time)
        assert datetime.strptime(time, "%m/%d/%Y %I:%M:%S %p").day in days
        assert all(re.fullmatch(r"N\d+", key) for key in history.split())
        assert len(history.split()) <= 30
        words = candidates.split(" ")
        assert all(re.fullmatch(r"N\d+-[01]", word) for word in words)
        assert 1 <= sum(word.endswith("-1") for word in words) <= 2
    numbers = [int(row[0]) for row in behaviors[part]]
    assert numbers == list(range(1, len(numbers) + 1))


def test_it_has_minds_quirks(news, behaviors):
    titles = [row[3] for part in news.values() for row in part]
    assert any(title.count('"') == 1 for title in titles)
    assert any(not row[4] for row in news["train"])
    assert any(not row[6] for row in news["train"])
    histories = [row[3].split() for part in behaviors.values() for row in part]
    assert any(not history for history in histories)
    assert any(len(set(history)) < len(history) for history in histories)
    for part in ("train", "dev"):
        known = {row[0] for row in news[part]}
        shown = {word.split("-")[0] for row in behaviors[part] for word in row[4].split()}
        read = {key for row in behaviors[part] for key in row[3].split()}
        assert 1 <= len((shown | read) - known) <= 6
    clocks = {row[2].split()[1].split(":")[0] for row in behaviors["train"]}
    assert {"9", "12"} <= clocks


def test_titles_are_readable(news):
    everything = {row[0]: row for part in news.values() for row in part}.values()
    titles = [row[3] for row in everything]
    for text in titles + [row[4] for row in everything if row[4]]:
        assert not re.search(r"[{}_]|\s\s|\ba [aeio]|\bA [aeio]", text), text
        first = next(letter for letter in text if letter.isalnum())
        assert first.isdigit() or first.isupper(), text
    assert 5 <= np.mean([len(title.split()) for title in titles]) <= 14
    assert max(len(title.split()) for title in titles) <= 20
    assert len(set(titles)) > 0.97 * len(titles)


def test_the_configuration_says_synthetic_and_how_the_valid_split_is_made():
    from legoray.config import read_dataset

    config = read_dataset(DATASETS / "mind_sample.yaml")[0]
    assert config.synthetic
    assert "synthetic" in config.title
    assert (config.processor, config.options) == ("mind", {"valid_share": 0.15})


def test_most_of_what_is_ranked_was_never_seen_before(behaviors):
    train = sorted(
        behaviors["train"], key=lambda row: datetime.strptime(row[2], "%m/%d/%Y %I:%M:%S %p")
    )
    cut = round(0.85 * len(train))
    for before, after in ((train, behaviors["dev"]), (train[:cut], train[cut:])):
        seen = {key for row in before for key in row[3].split() + shown(row)}
        ranked = [key for row in after for key in shown(row)]
        assert np.mean([key not in seen for key in ranked]) > 0.7
    seen = {key for row in train for key in row[3].split() + shown(row)}
    items = {key for row in behaviors["dev"] for key in shown(row)}
    assert np.mean([key not in seen for key in items]) > 0.5


def shown(row):
    return [word[:-2] for word in row[4].split()]


def impression_auc(impressions, score):
    """scikit-learn's AUC, averaged over impressions that have both labels."""
    return np.mean(
        [
            roc_auc_score(row.labels, score(row))
            for row in impressions
            if 0 < sum(row.labels) < len(row.labels)
        ]
    )


def test_clicks_follow_tastes_and_not_popularity(world):
    clicks = np.zeros(len(world.news))
    for row in world.train:
        clicks[row.candidates] += row.labels
    oracle = impression_auc(world.dev, lambda row: row.scores)
    popularity = impression_auc(world.dev, lambda row: clicks[row.candidates])
    assert oracle > 0.8
    assert 0.47 < popularity < 0.58


def test_report_measures_the_same(world, monkeypatch):
    monkeypatch.syspath_prepend(str(DATASETS))
    import make_mind_sample

    facts = make_mind_sample.report(world)
    oracle = impression_auc(world.dev, lambda row: row.scores)
    assert facts["auc/oracle"] == pytest.approx(oracle, abs=1e-12)
    assert facts["auc/random"] == 0.5
    assert facts["impressions/dev"] == len(world.dev)
