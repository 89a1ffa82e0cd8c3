"""The report of a sweep against what its records say, counted here once more by plain loops."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from html_page import Page, check_alone, in_browser
from made_sweeps import START, baseline, on_disk, sweep_info, trial
from optuna.distributions import CategoricalDistribution, FloatDistribution
from plotly.offline import get_plotlyjs
from typer.testing import CliRunner

from legoray.cli import app
from legoray.errors import InputError
from legoray.search.report.command import write_report
from legoray.search.report.importance import importances
from legoray.search.report.progress import matrix, steps
from legoray.zoo.comparison import Compared, Comparison, Difference, Pair, write_comparison

EVIL = "</script><script>document.title='taken'</script><img src=x onerror=x()>"
PLOTS = 11
CONTENTS, BEHAVIORS = ("cnn", "pooling", "id"), ("attention", "additive")


def made(number, **changes):
    """A trial of some composition, whose numbers follow from its own."""
    label = f"{CONTENTS[number % 3]}+{BEHAVIORS[number % 2]}+dot"
    parts = dict(zip(("content", "behavior", "predictor"), label.split("+"), strict=True))
    status = changes.pop("status", "completed")
    epochs = 2 if status == "pruned" else 4
    rate = 0.001 * (number + 1)
    params = {f"model/{kind}": name for kind, name in parts.items()}
    params["train/learning_rate"] = rate
    if parts["content"] == "cnn":
        params["model/content.cnn/kernel_size"] = 3 + 2 * (number % 4 == 0)
    costs = {
        "seconds": 60.0 + number,
        "parameters": 1000.0 + 100 * (number * 7 % 11),
        "trainable": 900.0,
        "train_seconds": 50.0 + number * 5 % 13,
        "memory_mb": 512.0,
    }
    return trial(number, label=label, status=status, epochs=changes.pop("epochs", epochs),
                 auc=changes.pop("auc", 0.6 + 0.01 * (number * 5 % 17)), rate=rate, params=params,
                 costs=changes.pop("costs", costs), **changes)  # fmt: skip


def searched():
    """Twenty trials: fourteen whole ones, four stopped, one failed, one infeasible."""
    status = {4: "pruned", 7: "pruned", 11: "pruned", 15: "pruned", 6: "failed", 13: "infeasible"}
    lost = {"epochs": 0, "best": {}, "costs": {}}
    return [
        made(n, status=status.get(n, "completed"), **(lost if n in (6, 13) else {}),
             reason=f"reason {n} {EVIL}" if n in (6, 13) else "")
        for n in range(20)
    ]  # fmt: skip


def finals(best, first=20):
    """Three seeds of a configuration, measured on the test split."""
    return [
        made(best.number, phase="final", seed=8 + n, test={"auc": 0.7 + 0.01 * n, "ndcg@5": 0.3})
        .model_copy(update={"number": first + n})
        for n in range(3)
    ]  # fmt: skip


def finished(folder):
    """A sweep's folder with finals and baselines."""
    records = searched()
    best = max((r for r in records if r.status == "completed"), key=lambda r: r.best["auc"])
    records += [*finals(best), baseline(23, "random"), baseline(24, "popularity", 0.52)]
    on_disk(folder, sweep_info(state="finished", ended="trials"), *records)
    (folder / "space.yaml").write_text("name: mind-test\ndescription: What <b>works</b>.\n")
    return folder


@pytest.fixture
def sweep(tmp_path):
    return finished(tmp_path / "sweep")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    text = write_report(finished(tmp_path_factory.mktemp("page") / "sweep"))
    return check_alone(text.read_text(encoding="utf-8"))


def whole():
    return [r for r in searched() if r.status == "completed"]


def test_the_leaderboard_has_every_trial_in_order_with_its_numbers(page):
    head, *rows = page.table("#", "model", "valid auc")
    own = sorted(whole(), key=lambda r: -r.best["auc"])
    own += sorted((r for r in searched() if r.status == "pruned"), key=lambda r: -r.best["auc"])
    ranked = [row for row in rows if row[0]]
    assert [row[head.index("trial")] for row in ranked] == [str(r.number) for r in own]
    assert [row[2] for row in ranked] == [f"{r.best['auc']:.4f}" for r in own]
    assert [row[head.index("seconds")] for row in ranked] == [
        f"{r.costs['seconds']:.1f}" for r in own
    ]
    assert ranked[0][head.index("test auc")] == f"0.7100 ± {np.std([0.7, 0.71, 0.72], ddof=1):.4f}"
    assert [row[1] for row in rows[-2:]] == ["random", "popularity"]
    assert len(rows) == 20 + 2


def test_members_of_the_front_are_marked(tmp_path):
    info = sweep_info(state="finished", ended="trials", objectives=["auc", "parameters"])
    on_disk(tmp_path / "sweep", info, *searched())
    text = write_report(tmp_path / "sweep").read_text(encoding="utf-8")
    head, *rows = check_alone(text).table("#", "model", "front")
    marked = {row[head.index("trial")] for row in rows if row[head.index("front")]}

    def beaten(one):
        mine = (one.best["auc"], -one.costs["parameters"])
        others = [(r.best["auc"], -r.costs["parameters"]) for r in whole()]
        return any(o[0] >= mine[0] and o[1] >= mine[1] and o != mine for o in others)

    assert marked == {str(r.number) for r in whole() if not beaten(r)}
    assert "* on the Pareto front of auc, parameters." in text


def test_the_best_so_far_only_counts_whole_trials():
    done = steps(searched(), "auc", "max")
    best, epochs, seconds = -math.inf, 0, 0.0
    for step, record in zip(done, searched(), strict=True):  # they end in order of number
        epochs += len(record.epochs)
        seconds += record.costs.get("seconds", record.ended - record.started)
        if record.status == "completed":
            best = max(best, record.best["auc"])
        assert (step.record.number, step.epochs) == (record.number, epochs)
        assert step.hours == pytest.approx(seconds / 3600)
        assert step.best == best
    reused = [r.model_copy(update={"reused": True}) for r in searched()]
    assert steps(reused, "auc", "max")[-1].epochs == 0


def test_the_plots_show_what_the_records_say(page):
    figures = page.figures()
    plots = [a for tag, a in page.tags if tag == "div" and a.get("class") == "plot"]
    assert len(figures) == len(plots) == PLOTS
    axes = [f["layout"].get("xaxis", {}).get("title", {}).get("text") for f in figures]
    by_trial = figures[axes.index("trial")]
    points = {t["name"]: dict(zip(t["x"], t["y"], strict=True)) for t in by_trial["data"]}
    assert points["completed"] == {r.number: r.best["auc"] for r in whole()}
    assert set(points["failed or infeasible"]) == {6, 13}
    assert points["best so far"][19] == max(r.best["auc"] for r in whole())
    curves = figures[axes.index("epoch")]["data"]
    assert sum(y is None for t in curves for y in t["y"]) == 18 - 5  # gray ones end in a gap
    stopped = next(t for t in curves if t["name"].startswith("stopped early"))
    assert stopped["line"]["dash"] == "dot"
    for axis, cost in (("parameters, frozen ones included", "parameters"),
                       ("training time (s)", "train_seconds")):  # fmt: skip
        front = next(t for t in figures[axes.index(axis)]["data"] if "front" in t["name"])
        assert sorted(zip(front["x"], front["y"], strict=True)) == undominated(cost)


def undominated(cost):
    """Brute force over all pairs."""
    points = [(r.costs[cost], r.best["auc"]) for r in whole()]
    return sorted(
        p for p in points
        if not any(q != p and q[0] <= p[0] and q[1] >= p[1] for q in points)
    )  # fmt: skip


def test_heat_maps_count_every_trial_and_keep_the_best(page):
    found = matrix(searched(), ("content", "behavior"), "auc", "max")
    for content, behavior in itertools.product(CONTENTS, BEHAVIORS):
        own = [r for r in searched() if r.label.startswith(f"{content}+{behavior}")]
        assert found.count[content, behavior] == len(own)
        measured = [r.best["auc"] for r in own if r.status in ("completed", "pruned")]
        assert found.best[content, behavior].best["auc"] == max(measured)
    heat = [f for f in page.figures() if f["data"][0]["type"] == "heatmap"]
    assert len(heat) == 3
    cells = dict(zip(heat[0]["data"][0]["y"], heat[0]["data"][0]["text"], strict=True))
    text = cells["cnn"][heat[0]["data"][0]["x"].index("attention")]
    assert text == f"{found.best['cnn', 'attention'].best['auc']:.3f}<br>4"


def test_names_and_reasons_are_only_texts(page, sweep):
    assert f"reason 6 {EVIL}" in " ".join(page.words)
    assert "What <b>works</b>." in page.text
    record = json.loads((sweep / "trials" / "3.json").read_text())
    record["label"] = EVIL
    record["config"]["model"]["content"] = {"name": EVIL, EVIL: EVIL}
    record["params"] = {"model/content": EVIL, f"train/{EVIL}": EVIL}
    record["best"]["auc"] = 0.99
    for epoch in record["epochs"]:
        epoch["auc"] = 0.99
    (sweep / "trials" / "3.json").write_text(json.dumps(record))
    read = check_alone(write_report(sweep).read_text(encoding="utf-8"))
    assert {tag for tag, _ in read.tags} <= {
        "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p", "div",
        "span", "b", "a", "nav", "ul", "li", "pre", "section", "noscript", "script", "table",
        "thead", "tbody", "tr", "th", "td", "button", "details", "summary", "svg", "defs",
        "marker", "path", "rect", "line", "text",
    }  # fmt: skip
    for figure in read.figures():
        for text in strings(figure):
            assert "<script" not in text
            assert "<img" not in text


def strings(tree):
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict | list):
        for one in tree.values() if isinstance(tree, dict) else tree:
            yield from strings(one)


def test_the_winner_its_picture_and_the_commands(page):
    text = page.text
    best = max(whole(), key=lambda r: r.best["auc"])
    assert f"Winner: {best.label}" in text
    drawn = [a for tag, a in page.tags if tag == "svg"]
    assert len(drawn) == 2  # across, and upright for narrow screens
    assert all(a["aria-label"] == best.label.replace("+", " -> ") for a in drawn)
    assert "legoray leaderboard" in text
    assert "over 3 seeds" in text


def test_what_is_better_than_what(sweep):
    def compared(key, label, letters):
        return Compared(key=key, label=label, phase="final", seeds=[8, 9, 10], trials=[20],
                        mean={"auc": 0.7}, letters=letters)  # fmt: skip

    pair = Pair(a="k2", b="k1", label_a="second", label_b="first", difference=-0.0213, low=-0.03,
                high=-0.0127, p=0.0004, p_holm=0.0008, verdict="worse",
                others={"ndcg@5": Difference(difference=0.1, low=0.0, high=0.2)})  # fmt: skip
    found = Comparison(
        sweep="s-0001", metric="auc", mode="max", group="impression", groups=1300, users=685,
        resamples=10_000, bootstrap_seed=1, pairs=[pair], winner="k1", second="k2",
        compared=[compared("k1", "first", "a"), compared("k2", "second", "b")],
        against_second="better",
    )  # fmt: skip
    write_comparison(sweep, found)
    read = Page(write_report(sweep).read_text(encoding="utf-8"))
    head, row = read.table("model", "is", "than")
    assert row == ["second", "worse", "first", "-0.0213", "-0.0300 to -0.0127", "0.0008"]
    assert head[4] == "95% interval"
    assert "second is worse than first by 0.0213 (95% interval -0.0300 to -0.0127" in read.text
    (sweep / "comparison.json").write_text("{")
    read = Page(write_report(sweep).read_text(encoding="utf-8"))
    assert "Left out of this report" in read.text
    assert "comparison.json" in read.text


@pytest.mark.parametrize(
    ("records", "state", "words"),
    [
        ([], "interrupted", "No trial has begun yet."),
        ([made(0, status="running", epochs=0, best={})], "searching", "under way"),
        ([made(0, status="failed", epochs=0, best={}, reason="out of luck")], "interrupted",
         "out of luck"),
        ([made(0)], "finished", "Winner: cnn+attention+dot"),
        ([made(0), made(1, status="interrupted")], "interrupted", "Best so far: cnn+attention+dot"),
        ([made(4, status="pruned")], "interrupted", "Best so far"),
        ([baseline(0, "random")], "finished", "No trial has begun yet."),
        ([made(0), made(3, best={})], "finished", "Winner"),
    ],
)  # fmt: skip
def test_little_to_show(tmp_path, records, state, words):
    on_disk(tmp_path, sweep_info(state=state), *records)
    read = check_alone(write_report(tmp_path).read_text(encoding="utf-8"))
    assert words in read.text
    assert "nan" not in read.text.lower().split()


def test_hundreds_of_trials_stay_small(tmp_path):
    on_disk(tmp_path, sweep_info(), *(made(n) for n in range(250)))
    page = write_report(tmp_path)
    without = len(check_alone(page.read_text(encoding="utf-8")).table("#")) - 1
    assert without == 250
    assert page.stat().st_size - len(get_plotlyjs().encode()) < 1_500_000
    figures = Page(page.read_text(encoding="utf-8")).figures()
    assert max(len(figure["data"]) for figure in figures) <= 14  # traces, not one per trial


def test_importances_find_what_decides():
    """The value is the content's, plus a little of the kernel; the rate is noise."""
    dice = np.random.default_rng(0)
    records = []
    for number in range(90):
        content = CONTENTS[dice.integers(3)]
        kernel, rate = int(dice.choice([3, 5])), float(10 ** dice.uniform(-3, -2))
        params = {"model/content": content, "train/learning_rate": rate}
        params |= {"model/content.cnn/kernel_size": kernel} if content == "cnn" else {}
        value = {"cnn": 0.7, "pooling": 0.6, "id": 0.5}[content]
        value += 0.02 * (kernel == 5) * (content == "cnn")
        records.append(trial(number, auc=value, params=params))
    distributions = {
        "model/content": CategoricalDistribution(CONTENTS),
        "train/learning_rate": FloatDistribution(1e-3, 1e-2, log=True),
        "model/content.cnn/kernel_size": CategoricalDistribution((3, 5)),
    }
    target, (common, inside) = importances(records, "auc", distributions)
    assert target.words == "validation auc"
    assert set(common.shares) == {"model/content", "train/learning_rate"}
    assert common.shares["model/content"] > 0.95
    assert inside.title == "trials with content cnn"
    assert inside.trials == sum(r.params["model/content"] == "cnn" for r in records)
    assert inside.shares == {"model/content.cnn/kernel_size": pytest.approx(1.0)}
    _, (few, *_) = importances(records[:9], "auc", distributions)
    assert "too few" in few.note
    assert not few.shares


def test_trials_that_were_stopped_are_compared_where_all_were_measured():
    records = [made(n, status="pruned" if n % 2 else "completed") for n in range(12)]
    target, _ = importances(records, "auc", {})
    assert target.words == "validation auc within the first 2 epochs, which all trials have"
    assert target.values == [max(e["auc"] for e in r.epochs[:2]) for r in target.records]


def test_the_command(sweep, tmp_path):
    done = CliRunner().invoke(app, ["report", str(sweep)])
    assert done.exit_code == 0, done.output
    assert (sweep / "report.html").exists()
    other = tmp_path / "other.html"
    assert CliRunner().invoke(app, ["report", str(sweep), "--html", str(other)]).exit_code == 0
    assert other.exists()
    for words, message in (
        ([str(tmp_path / "none")], "is not a sweep's folder"),
        ([str(sweep), "--html", str(tmp_path / "no" / "such.html")], "there is no folder"),
        ([str(sweep), "--html", str(tmp_path)], "is a folder, a file was expected"),
    ):
        with pytest.raises(InputError, match=message):
            CliRunner().invoke(app, ["report", *words], catch_exceptions=False)


@pytest.mark.slow
def test_every_plot_is_drawn_in_a_real_browser(sweep, tmp_path):
    shown = Page(in_browser(write_report(sweep), tmp_path / "profile"))
    plots = [a["class"].split() for tag, a in shown.tags if tag == "div" and "id" in a]
    plots = [names for names in plots if "plot" in names]
    assert len(plots) == PLOTS
    assert all("js-plotly-plot" in names for names in plots)


def test_the_command_on_several_data_sets(tmp_path):
    for name in ("first", "second"):
        on_disk(tmp_path / "sweeps" / name, sweep_info(data=name), made(0))
    done = CliRunner().invoke(app, ["report", str(tmp_path / "sweeps")])
    assert done.exit_code == 0, done.output
    assert all((tmp_path / "sweeps" / n / "report.html").exists() for n in ("first", "second"))
    words = ["report", str(tmp_path / "sweeps"), "--html", str(tmp_path / "one.html")]
    with pytest.raises(InputError, match="reports of 2 data sets"):
        CliRunner().invoke(app, words, catch_exceptions=False)


def test_a_click_sorts_in_a_real_browser(sweep, tmp_path):
    text = write_report(sweep).read_text(encoding="utf-8")
    before = Page(text).table("#")
    column, status = before[0].index("seconds"), before[0].index("status")
    click = f"document.querySelector('.leaderboard th:nth-child({column + 1}) button').click();"
    text = text.replace(get_plotlyjs(), "const Plotly = {newPlot() {}};")  # it is not about plots
    clicked = tmp_path / "clicked.html"
    clicked.write_text(text.replace("</body>", f"<script>{click}</script></body>"), "utf-8")
    once = in_browser(clicked, tmp_path / "profile")
    assert 'aria-sort="descending"' in once
    rows = Page(once).table("#")[1:]
    told = [row[column] for row in rows if row[status] != "baseline"]
    known = [row[column] for row in before[1:] if row[status] != "baseline"]
    assert told[-2:] == ["", ""]  # what has no value comes last
    assert told[:-2] == sorted(filter(None, known), key=float, reverse=True)
    assert [row[1] for row in rows[-2:]] == ["random", "popularity"]


def test_no_time_stands_for_the_epoch_of_unix(tmp_path):
    on_disk(tmp_path, sweep_info(created=START), made(0))
    assert "Begun 2025-10-09 08:53 UTC" in Page(write_report(tmp_path).read_text()).text
