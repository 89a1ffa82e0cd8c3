"""Amazon: three releases of one world, bad rows, and the real Magazine Subscriptions counted."""

from __future__ import annotations

import gzip
import html
import json
import re
from collections import Counter

import pyarrow.parquet as pq
import pytest
from raw_amazon import JUNK, OPTIONS, RELEASES, REPEATED, write_lines, write_raw
from raw_files import dataset, prepared, write
from world_tables import expected_clicks, found_clicks
from worlds import world

from legoray.data.load import load_items
from legoray.data.prepare import prepare
from legoray.errors import InputError


def unzipped(path):
    return gzip.decompress(path.read_bytes()).decode()


def rows_of(path):
    return [json.loads(line) for line in unzipped(path).splitlines()]


@pytest.fixture
def raw(tmp_path):
    write_raw(tmp_path / "raw", world())
    return tmp_path / "raw"


@pytest.mark.parametrize("release", RELEASES)
def test_releases_give_the_world(tmp_path, home, release):
    write_release, options = RELEASES[release]
    write_release(tmp_path / "raw", world())
    made = prepared(tmp_path, "amazon", options=OPTIONS | options)
    assert found_clicks(made.tables) == expected_clicks(world(), user="A{}".format)
    counts = made.manifest.counts
    assert [counts[f"raw/{what}"] for what in ("items", "events", "users")] == [30, 400, 24]
    alone = prepared(tmp_path, "amazon", options={"negatives": 3})  # nothing said: found out
    assert alone.manifest.fingerprint == made.manifest.fingerprint
    for path in (tmp_path / "raw").iterdir():
        write(path.with_suffix(""), gzip.decompress(path.read_bytes()))
        path.unlink()
    plain = prepared(tmp_path, "amazon", options=OPTIONS | options)  # unpacked
    assert plain.manifest.fingerprint == made.manifest.fingerprint


def test_texts_of_2018_are_cleaned_and_counted(raw, tmp_path, home):
    made = prepared(tmp_path, "amazon", options=OPTIONS)
    items = {row["key"]: row for row in load_items(made.tables).to_pylist()}
    for number, item in enumerate(world().items):
        row = items[item.key]
        assert row["title"] == ("" if number % 10 in JUNK else item.title)
        assert row["categories"] == ", ".join(["Books", "Arts & Photography", *item.tags])
        assert row["brand"] == f"{item.tags[0]} & Co"
        assert row["description"] == f"{item.text} More text"
    assert made.manifest.counts["items_without/title"] == 6
    quoted = sum('"' in i.title or "&" in i.title for i in world().items
                 if int(i.key) % 10 not in (2, 3))  # fmt: skip
    assert {k: v for k, v in made.manifest.dropped.items() if "clicks" not in k} == {
        "items_given_again": len(REPEATED),
        "page_code/title": 3,
        "markup/title": 3 + quoted,
        "markup/categories": 30,
        "markup/brand": 30,
        "markup/description": 30,
    }


def test_long_texts_are_cut_and_counted(raw, tmp_path, home):
    made = prepared(tmp_path, "amazon", options=OPTIONS | {"longest": 12})
    items = load_items(made.tables).to_pylist()
    full = {item.key: f"{item.text} More text"[:12].rstrip() for item in world().items}
    assert {row["key"]: row["description"] for row in items} == full
    assert made.manifest.dropped["cut/description"] == 30


def test_texts_of_2014_may_be_absent(tmp_path, home):
    RELEASES["2014"][0](tmp_path / "raw", world())
    made = prepared(tmp_path, "amazon", options=OPTIONS)
    rows = load_items(made.tables).to_pylist()
    assert rows[1]["title"] == rows[1]["brand"] == rows[1]["description"] == ""
    first = world().items[0]
    assert rows[0]["title"] == first.title
    assert rows[0]["categories"] == f"Books, {first.tags[0]}; Gifts & More"
    assert made.manifest.counts["items_without/title"] == 5


BAD = {
    "{": "is not JSON",
    '{"overall": 4.0, "asin": "1001", "unixReviewTime": 5}': "has no value of 'reviewerID'",
    '{"overall": 4.0, "reviewerID": "", "asin": "1001", "unixReviewTime": 5}': "'reviewerID'",
    '{"overall": NaN, "reviewerID": "A", "asin": "1", "unixReviewTime": 5}': "of 'overall'",
    '{"overall": 7, "reviewerID": "A", "asin": "1", "unixReviewTime": 5}': "its 'overall' is 7",
    '{"overall": "x", "reviewerID": "A", "asin": "1", "unixReviewTime": 5}': "'overall' is 'x'",
    '{"overall": 4, "reviewerID": "A", "asin": "1", "unixReviewTime": -5}':
        "its 'unixReviewTime' is -5, expected seconds since 1970",
}  # fmt: skip


@pytest.mark.parametrize("line", BAD)
def test_bad_reviews(raw, tmp_path, home, line):
    path = raw / "Books_5.json.gz"
    write(path, gzip.compress((unzipped(path) + line + "\n").encode()))
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "amazon", options=OPTIONS)
    assert caught.value.problems[0].where == f"{path}:401"
    assert BAD[line] in caught.value.problems[0].message
    made = prepared(tmp_path, "amazon", options=OPTIONS, on_bad_row="skip")
    assert made.manifest.dropped["bad_rows/raw/Books_5.json.gz"] == 1
    assert found_clicks(made.tables) == expected_clicks(world(), user="A{}".format)


BAD_RATINGS = {
    "A,1001,4.0": "has 3 fields, expected 4 separated by commas",
    ",1001,4.0,5": "has no value of 'user_id'",
    "A,1001,nan,5": "its 'rating' is 'nan', expected a number",
    "A,1001,6,5": "its 'rating' is 6, expected a number from 1 to 5",
    "A,1001,4,noon": "its 'timestamp' is 'noon', expected a number",
    "A,1001,4,-1": "its 'timestamp' is -1, expected milliseconds since 1970",
}


@pytest.mark.parametrize("line", BAD_RATINGS)
def test_bad_ratings_of_2023(tmp_path, home, line):
    write_release, options = RELEASES["2023-5-core"]
    write_release(tmp_path / "raw", world())
    path = tmp_path / "raw/Books.csv.gz"
    write(path, gzip.compress((unzipped(path) + line + "\n").encode()))
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "amazon", options=OPTIONS | options)
    assert caught.value.problems[0].where == f"{path}:402"
    assert BAD_RATINGS[line] in caught.value.problems[0].message
    write(path, gzip.compress(unzipped(path).replace("parent_asin", "asin").encode()))
    with pytest.raises(InputError, match=r"csv.gz:1: has no column 'parent_asin'"):
        prepared(tmp_path, "amazon", options=OPTIONS | options)


def test_files_that_are_not_there_or_not_what_they_should_be(raw, tmp_path, home):
    def told(**options):
        with pytest.raises(InputError) as caught:
            prepared(tmp_path, "amazon", options=OPTIONS | options)
        return str(caught.value)

    assert "reviews_Books_5.json.gz: no such file (there is a 'Books_5.json.gz'" in told(
        release=2014
    )
    assert "meta_CDs_and_Vinyl.json.gz: no such file" in told(category="CDs_and_Vinyl")
    assert "/Books.json.gz: no such file" in told(reviews="all")
    assert "options.release: is 2019, expected 'auto', 2014" in told(release=2019)
    meta = raw / "meta_Books.json.gz"
    write(raw / "meta_Toys.json.gz", meta.read_bytes())
    assert "holds several categories: Books, Toys (say which" in told(category=None)
    (raw / "meta_Toys.json.gz").unlink()
    good = meta.read_bytes()
    write(meta, good[:-30])
    assert "meta_Books.json.gz: is a truncated or damaged gzip file" in told()
    write(meta, gzip.compress(unzipped_bytes(good).replace(b'"asin"', b'"asins"')))
    assert "meta_Books.json.gz: has no key 'asin' (is it 'asins'?)" in told()
    meta.unlink()
    assert "meta_<category>.json.gz: no such file" in told(category=None)


def unzipped_bytes(data):
    return gzip.decompress(data)


def test_reviews_of_unknown_products_and_second_reviews_are_counted(raw, tmp_path, home):
    path = raw / "Books_5.json.gz"
    rows = rows_of(path)
    again = {**rows[0], "unixReviewTime": rows[0]["unixReviewTime"] + 9}
    write_lines(path, [*rows, {**rows[0], "asin": "unheard"}, again])
    dropped = prepared(tmp_path, "amazon", options=OPTIONS).manifest.dropped
    assert dropped["reviews_of_unknown_items"] == 1
    assert dropped["reviews_given_again"] == 1


@pytest.fixture(scope="module")
def real(tmp_path_factory, real_data):
    """The real Magazine Subscriptions of 2018, prepared, and its rows by plain Python."""
    folder = real_data("amazon", "Magazine_Subscriptions")
    base = tmp_path_factory.mktemp("amazon")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEGORAY_HOME", str(base / "home"))
        made = prepare(dataset(base, "amazon", raw=str(folder)), say=lambda line: None)
    meta = rows_of(folder / "meta_Magazine_Subscriptions.json.gz")
    reviews = rows_of(folder / "Magazine_Subscriptions_5.json.gz")
    return made, meta, reviews


def first_of(rows, *keys):
    found = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), row)
    return found


def test_real_counts(real):
    made, meta, reviews = real
    counts, dropped = made.manifest.counts, made.manifest.dropped
    products = first_of(meta, "asin")
    assert len(reviews) == 2375  # as published
    assert counts["raw/events"] == len(reviews)
    assert counts["raw/items"] == len(products)
    assert dropped["items_given_again"] == len(meta) - len(products)
    known = [row for row in reviews if (row["asin"],) in products]
    assert dropped["reviews_of_unknown_items"] == len(reviews) - len(known)
    assert counts["raw/users"] == len({row["reviewerID"] for row in reviews})
    in_time = sorted(known, key=lambda row: row["unixReviewTime"])
    pairs = first_of(in_time, "reviewerID", "asin").values()
    assert dropped["reviews_given_again"] == len(known) - len(pairs)
    assert counts["items"] == len({row["asin"] for row in pairs})
    likes = [row for row in pairs if row["overall"] >= 4]
    assert counts["users"] == len({row["reviewerID"] for row in likes})
    assert counts["history_items"] == len(likes)


def test_real_splits(real):
    made, meta, reviews = real
    products = first_of(meta, "asin")
    known = [row for row in reviews if (row["asin"],) in products]
    in_time = sorted(known, key=lambda row: row["unixReviewTime"])
    pairs = first_of(in_time, "reviewerID", "asin").values()
    likes = [
        (row["reviewerID"], row["asin"], row["unixReviewTime"])
        for row in pairs
        if row["overall"] >= 4
    ]
    first = {}
    for user, _, when in likes:
        first[user] = min(when, first.get(user, when))
    eligible = sorted((when, user, item) for user, item, when in likes if first[user] < when)
    counts = made.manifest.counts
    clicks = [counts[f"clicks/{split}"] for split in ("train", "valid", "test")]
    assert sum(clicks) == len(eligible)
    dropped = made.manifest.dropped["clicks_with_too_short_a_history"]
    assert dropped == len(likes) - len(eligible)
    cuts = [eligible[round(share * len(eligible))][0] for share in (0.8, 0.9)]
    times = [when for when, _, _ in eligible]
    assert clicks[0] == sum(when < cuts[0] for when in times)
    assert clicks[1] == sum(cuts[0] <= when < cuts[1] for when in times)
    found = {(user, item, when) for user, item, when, _ in found_clicks(made.tables)}
    assert found == {(user, item, when) for when, user, item in eligible}


SPAN = '<span class="a-size-medium a-color-secondary"'


def test_real_texts(real):
    made, meta, _ = real
    raw = {asin: row for (asin,), row in first_of(meta, "asin").items()}
    empty = [row for row in raw.values() if row["title"] in ("", SPAN, ' Magazines" />')]
    kept = load_items(made.tables, ["key"])["key"].to_pylist()
    lacking = sum(row["asin"] in kept for row in empty)
    assert made.manifest.counts["items_without/title"] == lacking > 100
    dropped = made.manifest.dropped
    touched = [r for r in raw.values() if "<" in r["title"] or "/>" in r["title"]
               or re.search(r"&#?\w+;", r["title"])]  # fmt: skip
    assert dropped["markup/title"] == len(touched)
    brands = [row for row in raw.values() if re.search(r"&#?\w+;", row["brand"])]
    assert dropped["markup/brand"] == len(brands)
    items = load_items(made.tables).to_pylist()
    for row in items:
        given = raw[row["key"]]
        if not re.search("[<>]", given["title"]):
            assert row["title"] == " ".join(html.unescape(given["title"]).split())
        parts = [re.sub("<[^<>]*>", "", html.unescape(part)) for part in given["category"]]
        assert row["categories"] == ", ".join(part for part in parts if part)
        assert not re.search(r"</?(p|br|b|i|span|div|ul|li)\b|&(amp|quot|nbsp|#\d+);",
                             row["description"])  # fmt: skip
    words = Counter(word for row in items for word in row["description"].split())
    assert words["magazine"] > 100  # the texts themselves are there
    assert pq.read_table(made.tables / "items").num_rows == len(items)
