"""Reading an HTML page in tests: with the standard library's parser, and in a real browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

OUTSIDE = {"src", "srcset", "action", "data", "poster", "background"}


class Page(HTMLParser):
    """The tags, their attributes, tables as rows of texts, and the text outside of scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.scripts, self.inside = [], [], [], ""
        self.tables, self._cell = [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = tag
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._cell = ""

    def handle_endtag(self, tag):
        self.inside = ""
        if tag in ("td", "th"):
            self.tables[-1][-1].append(self._cell)
            self._cell = None

    def handle_data(self, data):
        code = self.inside in ("script", "style")
        (self.scripts if code else self.words).append(data)
        if self._cell is not None:
            self._cell += data

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def table(self, *head):
        """The table whose first row begins like this."""
        return next(t for t in self.tables if t and t[0][: len(head)] == list(head))

    def figures(self):
        """The plots' data, in the page's order."""
        return [json.loads(text) for text in self.scripts if text.startswith('{"data"')]


def check_alone(text):
    """Nothing in a page is fetched, and no attribute runs anything; the parsed page."""
    read = Page(text)
    for tag, attributes in read.tags:
        assert not OUTSIDE & set(attributes), (tag, attributes)
        assert attributes.get("href", "#").startswith("#"), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert tag not in ("link", "iframe", "object", "base", "img", "embed", "form")
    policy = next(a["content"] for _, a in read.tags if a.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert any(a.get("name") == "viewport" for _, a in read.tags)
    assert sum("plotly.js v" in text[:200] for text in read.scripts) == 1
    return read


def in_browser(page: Path, profile: Path, width=1280):
    """The page's HTML after its scripts have run, in a headless Chromium, or skips."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no Chromium here")
    words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000"]
    words += [f"--window-size={width},900", f"--user-data-dir={profile}", "--dump-dom"]
    done = subprocess.run([*words, page.as_uri()], capture_output=True, text=True, timeout=300)
    return done.stdout
