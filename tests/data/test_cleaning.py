"""HTML in texts: each rule by examples, and whole columns against Python's own parser."""

from __future__ import annotations

import html
import random
import unicodedata
from html.parser import HTMLParser

import pyarrow as pa
import pytest

from legoray.data.cleaning import joined, joined_paths, plain_text, whole_column, without_code
from legoray.errors import InputError

EXAMPLES = {
    "plain, as it is": "plain, as it is",
    "F&W Publications & Co; R&D": "F&W Publications & Co; R&D",
    "Disney &amp; Me": "Disney & Me",
    "D&eacute;cor &ndash; &quot;Chuck&quot; &#39;s &#x2019;": 'Décor – "Chuck" \'s ’',
    "twice &amp;amp; &amp;quot;": 'twice & "',
    "no entity &bogus; &#; &": "no entity &bogus; &#; &",
    "<b>W</b>ord and <i>other</i><br>line<BR/>two<br />three": "Word and other line two three",
    "<a href=\"x?a=1&amp;b=2\" title='y'>link</a>": "link",
    "<p>one</p><P class=x>two</P>": "one two",
    "escaped &lt;p&gt;tags&lt;/p&gt;": "escaped tags",
    "a < b and c > d, 1<2, I <3 you": "a < b and c > d, 1<2, I <3 you",
    "<Unknown> Pleasures": "<Unknown> Pleasures",
    "before<script type='x'>var a = '<b>';</script>after": "before after",
    "before<style>.a{b:c}</STYLE >after<!-- not <b>this</b> -->!": "before after !",
    "text <script>never closed": "text",
    '<span class="a-size-medium a-color-secondary"': "",
    ' Magazines" />': "",
    "cut off <a href='http": "cut off",
    "  a\u00a0\u2003b\t\r\n c\u200b\x00\x07d ": "a b c d",
    "": "",
}
UNMARKED = ["plain, as it is", "F&W Publications & Co; R&D", "no entity &bogus; &#; &",
            "a < b and c > d, 1<2, I <3 you", "<Unknown> Pleasures",
            "  a\u00a0\u2003b\t\r\n c\u200b\x00\x07d ", ""]  # fmt: skip


def test_each_rule_in_one_column():
    plain = plain_text(pa.chunked_array([list(EXAMPLES), [None]], pa.string()))
    assert plain.text.to_pylist() == [*EXAMPLES.values(), ""]
    marked = [text not in UNMARKED for text in EXAMPLES]
    assert plain.marked.to_pylist() == [*marked, False]


@pytest.mark.parametrize("text", EXAMPLES)
def test_each_rule_alone(text):
    plain = plain_text(pa.array([text]))
    assert plain.text.to_pylist() == [EXAMPLES[text]]
    assert plain_text(plain.text).text.equals(plain.text)  # nothing is left to clean


class Reader(HTMLParser):
    """The text of a page by Python's parser; other tags than these two leave a blank."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.parts = []

    def handle_starttag(self, tag, attrs):
        self.parts.append("" if tag in ("b", "i") else " ")

    handle_endtag = lambda self, tag: self.handle_starttag(tag, [])  # noqa: E731

    def handle_data(self, data):
        self.parts.append(data)


def test_pages_against_pythons_parser():
    draw = random.Random(3)
    words = ["plain", "Müller", "東京", "R&D", "x > y", "&amp;", "&eacute;tude", "&#8212;", "5"]
    tags = ["<b>", "</b>", "<p>", "</p>", "<br/>", '<div class="a b">', "</div>", "<i>", "</i>"]
    texts = []
    for _ in range(3000):
        parts = [draw.choice(words + tags) for _ in range(draw.randrange(1, 20))]
        # A blank after each word: `&amp;` and `eacute;` side by side would be a third thing.
        texts.append("".join(part if part in tags else f"{part} " for part in parts))
    expected = []
    for text in texts:
        reader = Reader()
        reader.feed(text)
        reader.close()
        expected.append(" ".join("".join(reader.parts).split()))
    found = plain_text(pa.array(texts))
    assert found.text.to_pylist() == expected
    assert found.marked.to_pylist() == [
        " ".join(text.split()) != plain for text, plain in zip(texts, expected, strict=True)
    ]


def test_every_named_entity():
    names = [f"&{name}" for name in html.entities.html5 if name.endswith(";")]
    plain = [html.unescape(name).replace("\u200b", " ") for name in names]  # of no width
    expected = [" ".join(f"x{text}x".split()) for text in plain]
    found = plain_text(pa.array([f"x{name}x" for name in names])).text.to_pylist()
    assert found == expected
    assert len(names) > 2000


def test_pages_of_code_are_emptied():
    code = [
        "var aPageStart = (new Date()).getTime();",
        ".a-box-inner{background-color:#fff}#x{a:b}",
        "(function(f) {var _np=(window.P)}",
    ]
    kept = ["The function (of) x", "{braces}: a novel", "C# {sharp}", ".NET for all"]
    assert without_code(pa.array(code + kept)).to_pylist() == ["", "", "", *kept]


def test_lists_become_texts():
    lists = pa.array([["a", None, " ", "b"], [], None, ["c"]], pa.list_(pa.string()))
    assert joined(lists, ", ").to_pylist() == ["a, b", "", "", "c"]
    assert joined(pa.chunked_array([lists, lists]).slice(3, 2), "|").to_pylist() == ["c", "a|b"]
    paths = pa.array([[["Books", "Art"], [], ["Gifts"]], None, []], pa.list_(lists.type))
    assert joined_paths(paths).to_pylist() == ["Books, Art; Gifts", "", ""]


def test_a_column_that_is_too_long(monkeypatch):
    monkeypatch.setattr("legoray.data.cleaning.COLUMN_BYTES", 30)
    table = pa.table({"title": pa.array(["x" * 40])})
    with pytest.raises(InputError, match=r"the titles hold 0.0 GB, .* at most 2 GB .cut them"):
        whole_column(table, "title", "cut them")


def test_every_kind_of_white_space():
    """All separators and control characters of Unicode, alone and at the ends."""
    kinds = [c for c in map(chr, range(0x11_0000)) if unicodedata.category(c) in SPACES]
    texts = [form.format(c) for c in kinds for form in ("a{0}b", "{0}ab", "ab{0}", "a {0} b")]
    found = plain_text(pa.array(texts)).text.to_pylist()
    assert found == ["a b", "ab", "ab", "a b"] * len(kinds)
    assert len(kinds) > 80


SPACES = ("Zs", "Zl", "Zp", "Cc")
