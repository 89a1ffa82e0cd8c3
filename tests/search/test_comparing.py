"""What of a sweep's final models is better than what, from records and values on disk."""

from __future__ import annotations

import io
import json
import time

import numpy as np
import pytest
import tinytrain
from rich.console import Console
from scipy import stats

from legoray.errors import InputError
from legoray.search.closing import closing
from legoray.search.comparing import compare_finals
from legoray.search.opening import open_sweep
from legoray.search.phases import Goal
from legoray.train.groupvalues import FILE, GroupValues, Origin, write_values
from legoray.zoo.boardtext import print_board, to_markdown
from legoray.zoo.comparison import read_comparison, write_comparison
from legoray.zoo.leaderboard import leaderboard
from legoray.zoo.verdicts import comparison_lines

GOAL = Goal("auc", "max")
GROUPS = 400
ORIGIN = Origin("test", "impression", "tiny", "f", "{}")


@pytest.fixture
def sweep(tmp_path):
    space = tinytrain.TinySpace(tmp_path / "space.yaml", tinytrain.SPACE)
    found = open_sweep(space, tmp_path / "sweep", tmp_path / "tables", tinytrain.MANIFEST)
    yield found
    found.close()


def values(mean, seed, *, groups=GROUPS, metrics=("auc", "mrr")):
    """Values of groups around a mean; what a group is like is the same for all models."""
    common = np.random.default_rng(0).normal(0, 0.1, groups)
    own = np.random.default_rng(seed).normal(0, 0.02, groups)
    column = (mean + common + own).astype(np.float32)
    return GroupValues(
        ORIGIN,
        np.arange(groups, dtype=np.int32),
        np.arange(groups, dtype=np.int32) // 2,
        dict.fromkeys(metrics, column),
    )


def add(sweep, label, rate, *, valid, mean, seeds=(2, 3), phase="final", kept=True, **more):
    """Trainings of a configuration that have ended, with what their tests left."""
    for number, seed in enumerate(seeds):
        config = {} if phase == "baseline" else tinytrain.config(rate, seed=seed)
        record = sweep.begin(f"{label}-{rate}-{seed}", phase, label, config, {"train/rate": rate})
        own = values(mean, 100 * len(sweep.records) + seed, **more)
        test = {name: float(column.mean()) for name, column in own.metrics.items()}
        best = {"epoch": 1, "auc": valid + number / 1000, "loss": 1.0}
        sweep.change(record.number, status="completed", best=best, test=test, ended=time.time())
        folder = sweep.model_folder(record.key)
        if kept:
            write_values(folder / "best" if phase == "final" else folder, own)


def test_the_winner_by_validation_may_be_a_tie_on_the_test(sweep):
    add(sweep, "b+b+b", 0.2, valid=0.6, mean=0.7)
    add(sweep, "a+a+a", 0.1, valid=0.7, mean=0.7)
    add(sweep, "c+c+c", 0.3, valid=0.5, mean=0.6)
    add(sweep, "random", 0.0, valid=0.5, mean=0.5, phase="baseline", seeds=(0,))
    found = compare_finals(sweep, GOAL)
    assert [one.label for one in found.compared] == ["a+a+a", "b+b+b", "c+c+c", "random"]
    assert [one.letters for one in found.compared] == ["a", "a", "b", "c"]
    assert [one.seeds for one in found.compared] == [[2, 3], [2, 3], [2, 3], []]
    assert found.against_second == "tie"
    assert found.winner == found.compared[0].key
    assert (found.groups, found.users) == (GROUPS, GROUPS // 2)
    verdicts = {(p.label_a, p.label_b): p.verdict for p in found.pairs}
    assert verdicts["a+a+a", "b+b+b"] == "tie"
    assert verdicts["b+b+b", "c+c+c"] == "better"
    assert len(verdicts) == 6
    for pair in found.pairs:
        means = {one.key: one.mean for one in found.compared}
        expected = means[pair.a]["auc"] - means[pair.b]["auc"]
        assert pair.difference == pytest.approx(expected, abs=1e-9)
        assert pair.low <= pair.difference <= pair.high
        assert pair.p <= pair.p_holm
        assert set(pair.others) == {"mrr"}
        assert pair.others["mrr"].difference == pytest.approx(pair.difference)
    assert compare_finals(sweep, GOAL) == found
    write_comparison(sweep.folder, found)
    assert read_comparison(sweep.folder) == found


def test_single_trainings_agree_with_the_paired_test(sweep):
    """A user has two groups here, whose difference is what is paired."""
    add(sweep, "a+a+a", 0.1, valid=0.7, mean=0.703, seeds=(2,))
    add(sweep, "b+b+b", 0.2, valid=0.6, mean=0.7, seeds=(2,))
    pair = compare_finals(sweep, GOAL).pairs[0]
    columns = [values(m, 100 * n + 2).metrics["auc"] for n, m in ((1, 0.703), (2, 0.7))]
    by_user = (columns[0].astype(float) - columns[1]).reshape(-1, 2).mean(1)
    expected = stats.ttest_1samp(by_user, 0)
    assert pair.p == pytest.approx(expected.pvalue, rel=0.25)
    interval = expected.confidence_interval(0.95)
    assert pair.low == pytest.approx(interval.low, abs=0.0003)
    assert pair.p_holm == pair.p


def test_less_may_be_better(sweep):
    add(sweep, "a+a+a", 0.1, valid=0.5, mean=0.5)
    add(sweep, "b+b+b", 0.2, valid=0.6, mean=0.6)
    found = compare_finals(sweep, Goal("auc", "min"))
    assert found.compared[0].label == "a+a+a"
    assert found.pairs[0].verdict == "better"
    assert found.pairs[0].difference < 0


def test_equal_labels_are_told_apart_by_what_was_chosen(sweep):
    add(sweep, "a+a+a", 0.1, valid=0.7, mean=0.7)
    add(sweep, "a+a+a", 0.2, valid=0.6, mean=0.7)
    labels = [one.label for one in compare_finals(sweep, GOAL).compared]
    assert labels == ["a+a+a rate=0.1", "a+a+a rate=0.2"]


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"kept": False}, "c+c+c was tested before values of groups were kept"),
        ({"groups": 300}, "c+c+c was tested on other groups"),
        ({"metrics": ["mrr"]}, "auc is of all rows together"),
    ],
)
def test_what_cannot_be_compared_is_told(sweep, change, note):
    add(sweep, "a+a+a", 0.1, valid=0.7, mean=0.7)
    add(sweep, "b+b+b", 0.2, valid=0.6, mean=0.5)
    add(sweep, "c+c+c", 0.3, valid=0.5, mean=0.5, **change)
    found = compare_finals(sweep, GOAL)
    assert note in found.note
    assert len(found.pairs) == (0 if "metrics" in change else 1)
    assert list(comparison_lines(found))[-1] == f"not compared: {found.note}"


def test_nothing_tested_nothing_compared(sweep):
    assert compare_finals(sweep, GOAL) is None
    add(sweep, "a+a+a", 0.1, valid=0.7, mean=0.7)
    found = compare_finals(sweep, GOAL)
    assert found.pairs == []
    assert found.second is None
    assert list(comparison_lines(found)) == []


def test_damaged_values_and_a_damaged_comparison_are_told(sweep):
    add(sweep, "a+a+a", 0.1, valid=0.7, mean=0.7)
    next(sweep.folder.rglob(FILE)).write_bytes(b"no values")
    with pytest.raises(InputError, match="is damaged"):
        compare_finals(sweep, GOAL)
    (sweep.folder / "comparison.json").write_text(json.dumps({"sweep": "s"}))
    with pytest.raises(InputError, match="is damaged"):
        read_comparison(sweep.folder)


def test_the_closing_lines_say_what_is_better_and_what_is_a_tie(sweep):
    add(sweep, "a+a+a", 0.1, valid=0.7, mean=0.7)
    add(sweep, "b+b+b", 0.2, valid=0.6, mean=0.7)
    add(sweep, "random", 0.0, valid=0.5, mean=0.5, phase="baseline", seeds=(0,))
    write_comparison(sweep.folder, compare_finals(sweep, GOAL))
    sweep.set_state("finished", ended="trials")
    screen = Console(file=io.StringIO(), width=200)
    closing(screen, sweep, goal=GOAL, again="again", links=[])
    text = screen.file.getvalue()
    assert "400 impressions of 200 users of the test split, paired bootstrap, Holm" in text
    assert "a+a+a and b+b+b are a tie:" in text
    assert "a+a+a is better than random by 0.2" in text
    assert "1 more pair: 1 difference, 0 ties" in text


def test_the_leaderboard_has_the_letters(sweep):
    add(sweep, "a+a+a", 0.1, valid=0.7, mean=0.7)
    add(sweep, "b+b+b", 0.2, valid=0.6, mean=0.7)
    add(sweep, "random", 0.0, valid=0.5, mean=0.5, phase="baseline", seeds=(0,))
    write_comparison(sweep.folder, compare_finals(sweep, GOAL))
    (board,) = leaderboard(sweep.folder)
    rows = [*board.rows, *board.baselines]
    assert {row.label: row.ties for row in rows} == {"a+a+a": "a", "b+b+b": "a", "random": "b"}
    text = to_markdown([board], 20)
    assert "| ties |" in text
    assert "ties: rows that share a letter are a tie in test auc" in text
    screen = Console(file=io.StringIO(), width=100)
    print_board(board, screen, 20)
    assert "ties" in screen.file.getvalue()
