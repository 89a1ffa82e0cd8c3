"""legoray inspect: what a person sees, and that no text of the data does more than stand there."""

from __future__ import annotations

import json

import pytest
from html_page import Page, check_alone, in_browser
from raw_files import ROOT, dataset, news, write
from typer.testing import CliRunner

from legoray.cli import app
from legoray.data.load import read_manifest

EVIL = "</script><script>document.title='taken'</script> [red]bold[/red] <img src=x onerror=x()>"
SAMPLE = ROOT / "datasets" / "mind_sample.yaml"


def inspect(*words):
    env = {"COLUMNS": "120"}  # as wide as a page
    return CliRunner().invoke(app, ["inspect", *map(str, words)], env=env)


@pytest.fixture
def evil(tmp_path, home):
    """Impressions of titles, keys and columns that hold marks of HTML and of the terminal."""
    raw = tmp_path / "raw"
    keys = [f"<b>N{n}</b>" for n in range(8)]
    rows = [{"k": key, "ti<i>tle": EVIL} for key in keys]
    write(raw / "items.jsonl", "\n".join(map(json.dumps, rows)) + "\n")
    lines = [{"user": f"<u>{u}", "items": " ".join(keys[u:])} for u in range(4)]
    write(raw / "users.jsonl", "\n".join(map(json.dumps, lines)) + "\n")
    options = {
        "items": {"file": "items.jsonl", "key": "k", "attributes": ["ti<i>tle"]},
        "sequences": {"file": "users.jsonl"},
        "negatives": 1,
    }
    return dataset(tmp_path, "sequences", options=options, title=f"T {EVIL}", licence="<a href=x>")


def test_the_terminal_shows_everything(home):
    done = inspect(SAMPLE, "--examples", "2")
    assert done.exit_code == 0, done.output
    for words in (
        "preparing mind_sample",
        "CC0-1.0",
        "Splits",
        "unknown news in histories in train",
        "clicks per impression, valid",
        "Gini coefficient",
        "What train has not seen",
        "abstract",
        "Example 2 of valid",
    ):
        assert words in done.output
    assert "Example 3" not in done.output
    again = inspect(SAMPLE, "--examples", "0")
    assert "preparing" not in again.output
    assert "Example" not in again.output


def test_the_page_stands_alone(home, tmp_path):
    page = tmp_path / "page.html"
    done = inspect(SAMPLE, "--html", page)
    assert done.exit_code == 0, done.output
    assert f"the page with plots: {page}" in done.output.replace("\n", "")
    read = check_alone(page.read_text(encoding="utf-8"))
    figures = [a for tag, a in read.tags if tag == "script" and a.get("type") == "application/json"]
    plots = [a for tag, a in read.tags if tag == "div" and a.get("class") == "plot"]
    assert len(figures) == len(plots) == 6
    words = " ".join(read.words)
    for title in ("Interactions over time", "Popularity of items", "Splits", "Texts", "3,910"):
        assert title in words


def test_texts_of_the_data_are_only_texts(evil, tmp_path):
    page = tmp_path / "page.html"
    done = inspect(evil, "--html", page)
    assert done.exit_code == 0, done.output
    shown = " ".join(done.output.split())
    assert EVIL in shown
    assert "<u>3" in shown
    read = Page(page.read_text(encoding="utf-8"))
    assert {tag for tag, _ in read.tags} <= {
        "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "p", "div",
        "section", "noscript", "script", "table", "thead", "tbody", "tr", "th", "td",
    }  # fmt: skip
    assert not any(name.startswith("on") for _, found in read.tags for name in found)
    assert any(EVIL in text for text in read.words)
    data = [json.loads(text) for text in read.scripts if text.startswith('{"data"')]
    names = [trace.get("name") for figure in data for trace in figure["data"]]
    assert "ti&lt;i&gt;tle" in names  # Plotly reads marks in names


def test_the_page_in_a_browser(evil, tmp_path):
    page = tmp_path / "page.html"
    assert inspect(evil, "--html", page).exit_code == 0
    shown = in_browser(page, tmp_path / "profile")
    read = Page(shown)
    plots = [set(a["class"].split()) for tag, a in read.tags if tag == "div" and "id" in a]
    plots = [names for names in plots if "plot" in names]
    assert len(plots) == 5  # no times
    assert all("js-plotly-plot" in names for names in plots)
    assert sum(tag == "svg" and a.get("class") == "main-svg" for tag, a in read.tags) >= 10
    title = shown.partition("<title>")[2].partition("</title>")[0]
    assert title.startswith("T &lt;/script&gt;")  # the data's script did not run


def test_an_unlabeled_split_and_deviations_are_told(tmp_path, home):
    for part in ("train", "dev", "test"):
        write(tmp_path / f"raw/{part}/news.tsv", news("N1", "N2", "N3"))
        labels = ("", "") if part == "test" else ("-1", "-0")
        lines = [
            f"{row + 1}\tU{row}\t11/1{row}/2019 1:00:00 PM\tN1\tN2{labels[0]} N3{labels[1]}"
            for row in range(5)
        ]
        write(tmp_path / f"raw/{part}/behaviors.tsv", "\n".join(lines) + "\n")
    published = {"items": 3, "users": 6}
    yaml = dataset(tmp_path, "mind", options={"test": "test"}, published=published)
    page = tmp_path / "page.html"
    for output in (inspect(yaml, "--html", page).output, page.read_text(encoding="utf-8")):
        assert "unlabeled" in output
        assert "as published" in output
        assert "likely a truncated download" in output
    assert "Not as published: users." in page.read_text(encoding="utf-8")
    assert "clicks per impression, test" not in inspect(yaml).output


def test_real_movielens(tmp_path, home, real_data):
    folder = real_data("movielens", "ml-latest-small")
    options = {"split": "leave-last-out", "candidates": "all", "negatives": 1}
    yaml = dataset(tmp_path, "movielens", raw=str(folder), options=options)
    page = tmp_path / "page.html"
    done = inspect(yaml, "--html", page, "--examples", "1")
    assert done.exit_code == 0, done.output
    assert "valid and test: each click is ranked against all items" in done.output
    assert "ranked against all items" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--html", "{tmp}"], "is a folder, a file was expected"),
        (["--html", "{tmp}/no/such/page.html"], "there is no folder"),
    ],
)
def test_a_wrong_place_is_refused_before_any_work(tmp_path, home, words, message):
    done = CliRunner().invoke(
        app, ["inspect", str(SAMPLE), *[w.format(tmp=tmp_path) for w in words]]
    )
    assert message in str(done.exception)
    assert not home.exists()


def test_wrong_options_and_missing_files_are_told(tmp_path, home):
    assert inspect(SAMPLE, "--examples", "-1").exit_code == 2
    assert inspect(SAMPLE, "--seed", "-1").exit_code == 2
    done = inspect(dataset(tmp_path, "movielens"))
    assert "no such folder" in str(done.exception)
    assert "Ask the owner." in str(done.exception)


def test_inspecting_leaves_the_tables_alone(home):
    inspect(SAMPLE)
    (tables,) = (home / "tables").glob("mind_sample-*")
    before = {path: path.stat().st_mtime_ns for path in tables.rglob("*")}
    manifest = read_manifest(tables)
    inspect(SAMPLE)
    assert {path: path.stat().st_mtime_ns for path in tables.rglob("*")} == before
    assert read_manifest(tables) == manifest
