"""Book-Crossing: backslashes, entities, Latin-1, ratings of 0, ages as people wrote them."""

from __future__ import annotations

import numpy as np
import pytest
from raw_bookcrossing import OPTIONS, PLACES, age_of, title_of, write_copies, write_raw
from raw_files import prepared, write
from worlds import world

from legoray.data.load import load_corpus, load_items, load_users
from legoray.data.processors.bookcrossing import BOOK, read_quoted
from legoray.errors import InputError

GROUPS = {range(5, 18): "under 18", range(18, 25): "18-24", range(25, 35): "25-34",
          range(35, 45): "35-44", range(45, 50): "45-49", range(50, 56): "50-55",
          range(56, 101): "56+"}  # fmt: skip


def group(age):
    return next((name for ages, name in GROUPS.items() if age and int(age) in ages), "")


@pytest.mark.parametrize("write_files", [write_raw, write_copies])
def test_the_tables_are_the_world(tmp_path, home, write_files):
    made_of = world()
    write_files(tmp_path / "raw", made_of)
    made = prepared(tmp_path, "bookcrossing", options=OPTIONS)
    items = load_items(made.tables).to_pylist()
    assert [row["key"] for row in items] == [item.key for item in made_of.items]
    assert [row["title"] for row in items] == [title_of(item.title) for item in made_of.items]
    assert any('"' in row["title"] for row in items)
    assert any("&" in row["title"] for row in items)
    years = ["" if n % 6 == 0 else str(1970 + n) for n in range(len(items))]
    assert [row["year"] for row in items] == years
    assert {row["publisher"] for row in items} == {"Houghton & Sons"}
    users = load_users(made.tables, ["key", "age", "location", "country"]).to_pylist()
    keys = sorted({event.user for event in made_of.events})
    assert [row["key"] for row in sorted(users, key=lambda row: row["key"])] == keys
    for row in users:
        place = PLACES[keys.index(row["key"]) % 4]
        assert row["location"] == place
        assert row["country"] == place.rsplit(", ", 1)[1].replace("n/a", "")
        assert row["age"] == group(age_of(row["key"]))
    assert {"", "under 18", "35-44"} < {row["age"] for row in users}
    assert made.manifest.counts["raw/events"] == len(made_of.events)
    corpus = load_corpus(made.tables)
    had = [{e.item for e in made_of.events if e.user == row["key"]} for row in users]
    for split in corpus.splits.values():
        for i in range(len(split)):
            drawn = {items[n - 1]["key"] for n in split.item[split.offsets[i] + 1 :][:3]}
            assert items[split.item[split.offsets[i]] - 1]["key"] in had[split.user[i]]
            if split is corpus.splits["test"]:
                assert not drawn & had[split.user[i]]
    assert np.diff(corpus.history_offsets).tolist() == [len(own) for own in had]


def test_both_forms_give_one_data_set(tmp_path, home):
    prints = []
    for name, write_files in (("a", write_raw), ("b", write_copies)):
        write_files(tmp_path / name / "raw", world())
        made = prepared(tmp_path / name, "bookcrossing", options=OPTIONS)
        prints.append(made.manifest.fingerprint)
    assert prints[0] == prints[1]


def test_with_a_threshold_the_unrated_are_had_and_not_liked(tmp_path, home):
    made_of = world()
    write_raw(tmp_path / "raw", made_of)
    made = prepared(tmp_path, "bookcrossing", options=OPTIONS | {"like": 8})
    liked = sum(2 * event.value >= 8 for event in made_of.events)
    assert made.manifest.counts["history_items"] == liked < len(made_of.events)
    corpus = load_corpus(made.tables)
    users = load_users(made.tables, ["key"])["key"].to_pylist()
    keys = ["", *load_items(made.tables, ["key"])["key"].to_pylist()]
    had = {(e.user, e.item) for e in made_of.events}
    test = corpus.splits["test"]
    shown = [
        (users[test.user[i]], keys[test.item[j]])
        for i in range(len(test))
        for j in range(test.offsets[i] + 1, test.offsets[i + 1])
    ]
    assert shown
    assert not set(shown) & had


HEADER = ('"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher";"Image-URL-S";'
          '"Image-URL-M";"Image-URL-L"\n')  # fmt: skip


@pytest.mark.parametrize(
    ("field", "title"),
    [
        (r"DK Readers: The X-Men (Level 4)\"", 'DK Readers: The X-Men (Level 4)"'),
        (r"The Real \"J. Peterman\" &amp; Business", 'The Real "J. Peterman" &amp; Business'),
        ("ends in a backslash\\", "ends in a backslash\\"),
        (r"two \\ become one", r"two \ become one"),
        ("a; b", "a; b"),
        ("", ""),
    ],
)
def test_quotes_and_backslashes(tmp_path, field, title):
    row = f'"1";"{field}";"Michael";"2000";"DK";"u";"v";"w"\n'
    path = write(tmp_path / "x.csv", (HEADER + row).encode("latin-1"))
    assert read_quoted(path, BOOK).select(list(BOOK.values())).to_pylist() == [
        {"isbn": "1", "title": title, "author": "Michael", "year": "2000", "publisher": "DK"}
    ]


BAD = {
    "BX-Book-Ratings.csv": {
        '"101";"1001";"11"': "the rating is '11', expected 0 to 10",
        '"101";"1001";"x"': "the rating is 'x'",
        '"101";"1001"': "has not 3 quoted fields with ';' between: '\"101\";\"1001\"'",
        '"";"1001";"5"': "the user is '', expected a key",
    },
    "BX-Books.csv": {
        '"1001";"a";"b";"1";"c";"d";"e";"f"': "the ISBN '1001' stands twice",
        '"";"a";"b";"1";"c";"d";"e";"f"': "the ISBN is empty",
    },
    "BX-Users.csv": {'"101";"x";NULL': "user '101' stands twice"},
}


@pytest.mark.parametrize(("name", "line"), [(name, line) for name in BAD for line in BAD[name]])
def test_bad_rows(tmp_path, home, name, line):
    write_raw(tmp_path / "raw", world())
    path = tmp_path / "raw" / name
    text = path.read_bytes()
    write(path, text + line.encode() + b"\n")
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "bookcrossing", options=OPTIONS)
    assert caught.value.problems[0].where == f"{path}:{len(text.splitlines()) + 1}"
    assert BAD[name][line] in caught.value.problems[0].message
    made = prepared(tmp_path, "bookcrossing", options=OPTIONS, on_bad_row="skip")
    assert made.manifest.dropped[f"bad_rows/raw/{name}"] == 1


def test_missing_columns_books_and_times(tmp_path, home):
    write_raw(tmp_path / "raw", world())
    path = tmp_path / "raw/BX-Book-Ratings.csv"
    text = path.read_text()
    write(path, text + '"101";"unknown";"5"\n')
    dropped = prepared(tmp_path, "bookcrossing", options=OPTIONS).manifest.dropped
    assert dropped == {"ratings_of_unknown_items": 1}
    with pytest.raises(InputError, match=r"'leave-last-out', expected leave-random-out for this"):
        prepared(tmp_path, "bookcrossing", options=OPTIONS | {"split": "leave-last-out"})
    write(path, text.replace("ISBN", "Isbn13"))
    with pytest.raises(InputError, match=r"has no column 'ISBN' .its columns: User-ID, Isbn13"):
        prepared(tmp_path, "bookcrossing", options=OPTIONS)
    (tmp_path / "raw/BX-Users.csv").unlink()
    with pytest.raises(InputError, match=r"BX-Users.csv: no such file"):
        prepared(tmp_path, "bookcrossing", options=OPTIONS)
