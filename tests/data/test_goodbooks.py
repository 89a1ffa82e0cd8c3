"""goodbooks-10k: order in place of times, tags by Goodreads' numbers, zeros that ISBNs lost."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from raw_files import prepared, write
from raw_goodbooks import OPTIONS, goodreads, write_raw
from worlds import world

from legoray.data.load import load_corpus, load_items, load_users
from legoray.data.processors.tags import Tags
from legoray.errors import InputError


def test_the_tables_are_the_world(tmp_path, home):
    made_of = world()
    write_raw(tmp_path / "raw", made_of)
    made = prepared(tmp_path, "goodbooks", options=OPTIONS)
    items = load_items(made.tables).to_pylist()
    assert [row["key"] for row in items] == [item.key for item in made_of.items]
    assert [row["title"] for row in items] == [f"{i.title} (Series, #1)" for i in made_of.items]
    assert {row["authors"] for row in items} == {"J.K. Rowling, Mary GrandPré"}
    assert [row["tags"] for row in items] == [", ".join(item.tags) for item in made_of.items]
    assert [row["isbn"] for row in items][:3] == ["", "0439023484", "0439023485"]
    assert [row["year"] for row in items][:3] == ["", "1991", "1992"]
    assert {row["language"] for row in items} == {"eng"}
    counts = made.manifest.counts
    assert counts["raw/events"] == len(made_of.events)
    assert counts["raw/users"] == len({event.user for event in made_of.events})
    corpus = load_corpus(made.tables)
    users = load_users(made.tables, ["key"])["key"].to_pylist()
    keys = ["", *(row["key"] for row in items)]
    liked = sorted((e.time, e.user, e.item) for e in made_of.events if e.value >= 4)
    own = {user: [i for _, u, i in liked if u == user] for user in users}
    offsets = corpus.history_offsets
    for user, start, stop in zip(users, offsets[:-1], offsets[1:], strict=True):
        assert [keys[n] for n in corpus.history_items[start:stop]] == own[user]
    for name, left in (("test", 1), ("valid", 2)):
        split = corpus.splits[name]
        clicked = {
            users[split.user[i]]: keys[split.item[split.offsets[i]]] for i in range(len(split))
        }
        assert clicked == {user: had[-left] for user, had in own.items() if len(had) >= 3}
        assert (split.time == -1).all()


def test_tags_are_the_most_given_ones():
    random = np.random.default_rng(0)
    item, tag = random.integers(0, 5, 60), random.integers(0, 9, 60)
    count = random.integers(1, 4, 60)
    names = [f"t{n}" for n in range(9)]
    found = Tags(item, tag, count, pa.array(names)).top(7, 3).to_pylist()
    total = np.zeros((7, 9), int)
    for i, t, c in zip(item, tag, count, strict=True):
        total[i, t] += c
    for i in range(7):
        best = sorted((-total[i, t], t) for t in range(9) if total[i, t])[:3]
        assert found[i] == ", ".join(names[t] for _, t in best)
    none = np.zeros(0, np.int64)
    assert Tags(none, none, none, pa.array([], pa.string())).top(2, 3).to_pylist() == ["", ""]


def test_few_tags_and_none(tmp_path, home):
    made_of = world()
    write_raw(tmp_path / "raw", made_of)
    made = prepared(tmp_path, "goodbooks", options=OPTIONS | {"most_tags": 1})
    tags = load_items(made.tables, ["tags"])["tags"].to_pylist()
    assert tags == [item.tags[0] for item in made_of.items]
    (tmp_path / "raw/book_tags.csv").unlink()
    with pytest.raises(InputError, match=r"book_tags.csv: no such file"):
        prepared(tmp_path, "goodbooks", options=OPTIONS)
    made = prepared(tmp_path, "goodbooks", options=OPTIONS | {"most_tags": 0})
    assert "tags" not in made.manifest.attributes


BAD = {
    "ratings.csv": {
        "101,1001,0": "the rating is '0', expected 1 to 5",
        "101,1001,": "the rating is ''",
        "101,1001": "has 2 fields, expected 3 separated by commas: user, item, value",
        ",1001,4": "the user is '', expected a key",
    },
    "book_tags.csv": {"8998999,1,many": "the count is 'many', expected a whole number"},
    "tags.csv": {"1,again": "tag_id '1' stands twice"},
}


@pytest.mark.parametrize(("name", "line"), [(name, line) for name in BAD for line in BAD[name]])
def test_bad_rows(tmp_path, home, name, line):
    write_raw(tmp_path / "raw", world())
    path = tmp_path / "raw" / name
    text = path.read_text()
    write(path, text + line + "\n")
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "goodbooks", options=OPTIONS)
    assert caught.value.problems[0].where == f"{path}:{len(text.splitlines()) + 1}"
    assert BAD[name][line] in caught.value.problems[0].message
    made = prepared(tmp_path, "goodbooks", options=OPTIONS, on_bad_row="skip")
    assert made.manifest.dropped[f"bad_rows/raw/{name}"] == 1


def test_what_is_unknown_is_counted_and_what_is_wrong_is_told(tmp_path, home):
    write_raw(tmp_path / "raw", world())
    ratings, books = tmp_path / "raw/ratings.csv", tmp_path / "raw/books.csv"
    write(ratings, ratings.read_text() + "101,77,5\n")
    tags = tmp_path / "raw/book_tags.csv"
    write(tags, tags.read_text() + f"5,1,3\n{goodreads('1001')},99,3\n")
    dropped = prepared(tmp_path, "goodbooks", options=OPTIONS).manifest.dropped
    assert dropped["ratings_of_unknown_items"] == 1
    assert (dropped["tags_of_unknown_items"], dropped["tags_without_a_name"]) == (1, 1)
    write(ratings, ratings.read_text().replace("book_id", "book"))
    with pytest.raises(InputError, match=r"has no column 'book_id' .is it 'book'"):
        prepared(tmp_path, "goodbooks", options=OPTIONS)
    write(ratings, ratings.read_text().replace("book", "book_id", 1))
    with pytest.raises(InputError, match=r"'temporal', expected leave-last-out or leave-random-o"):
        prepared(tmp_path, "goodbooks", options=OPTIONS | {"split": "temporal"})
    write(books, books.read_text() + "1001" + "," * 14 + "\n")
    with pytest.raises(InputError, match=r"books.csv:32: book_id '1001' stands twice"):
        prepared(tmp_path, "goodbooks", options=OPTIONS)
