"""Netflix Prize: blocks headed by movies, cut anywhere; titles with commas; both forms alike."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from raw_files import prepared, write
from raw_netflix import OPTIONS, title_of, write_movies_apart, write_raw
from worlds import world

from legoray.data.lines import blocks_of
from legoray.data.load import load_corpus, load_items, load_users
from legoray.data.processors.netflix import parse_ratings
from legoray.errors import InputError

BLOCKS = "1:\n7,5,2005-09-06\n8,3,2005-09-07\n22:\n17770:\n7,1,1999-12-31\n\n9,4,2000-01-01"
ROWS = [
    ("7", "1", 5.0, "2005-09-06"),
    ("8", "1", 3.0, "2005-09-07"),
    ("7", "17770", 1.0, "1999-12-31"),
    ("9", "17770", 4.0, "2000-01-01"),
]


def seconds(day):
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize("size", [*range(1, 25), 40, 1000])
@pytest.mark.parametrize("look", [1, 3, 1 << 16])
def test_wherever_blocks_are_cut_each_rating_has_its_movie(tmp_path, monkeypatch, size, look):
    monkeypatch.setattr("legoray.data.processors.netflix.LOOK_BACK", look)
    path = write(tmp_path / "x.txt", BLOCKS)
    rows = pa.concat_tables([parse_ratings(block) for block in blocks_of(path, size)])
    found = [(r["user"], r["item"], r["value"], r["time"]) for r in rows.to_pylist()]
    assert found == [(u, i, v, seconds(day)) for u, i, v, day in ROWS]


@pytest.mark.parametrize("write_files", [write_raw, write_movies_apart])
def test_the_tables_are_the_world(tmp_path, home, write_files):
    made_of = world()
    write_files(tmp_path / "raw", made_of)
    made = prepared(tmp_path, "netflix", options=OPTIONS)
    counts = made.manifest.counts
    assert counts["raw/events"] == len(made_of.events)
    assert counts["raw/items"] == counts["items"] == len(made_of.items)
    assert counts["raw/users"] == len({event.user for event in made_of.events})
    items = load_items(made.tables).to_pylist()
    assert [row["title"] for row in items] == [title_of(item.title) for item in made_of.items]
    assert any("," in row["title"] for row in items)
    years = ["" if n % 5 == 0 else str(1990 + n) for n in range(len(items))]
    assert [row["year"] for row in items] == years
    liked = {(e.user, e.item, e.time // 86_400) for e in made_of.events if e.value >= 4}
    corpus = load_corpus(made.tables)
    assert len(corpus.history_items) == len(liked)
    users = load_users(made.tables, ["key"])["key"].to_pylist()
    measured = 0
    for split in corpus.splits.values():
        for i in range(len(split)):
            who, day = users[split.user[i]], int(split.time[i]) // 86_400
            assert (who, items[split.item[split.offsets[i]] - 1]["key"], day) in liked
            before = [1 for user, _, at in liked if user == who and at < day]
            assert split.history_end[i] == len(before) >= 1
            measured += 1
    first = {user: min(at for u, _, at in liked if u == user) for user, _, _ in liked}
    assert measured == sum(at > first[user] for user, _, at in liked)


def test_both_forms_give_one_data_set(tmp_path, home):
    prints = []
    for name, write_files in (("a", write_raw), ("b", write_movies_apart)):
        write_files(tmp_path / name / "raw", world())
        prints.append(prepared(tmp_path / name, "netflix", options=OPTIONS).manifest.fingerprint)
    assert prints[0] == prints[1]


BAD = {
    "101,6,2005-09-06": "the rating is '6', expected 1 to 5",
    "101,five,2005-09-06": "the rating is 'five'",
    "101,5,06.09.2005": "the date is '06.09.2005', expected 2005-09-06",
    "101,5,1969-01-01": "the date is '1969-01-01'",
    "101,5": "has 2 fields, expected 3 separated by commas: user, value, date",
    ",5,2005-09-06": "the user is '', expected a key",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_ratings(tmp_path, home, line):
    write_raw(tmp_path / "raw", world())
    path = tmp_path / "raw/combined_data_2.txt"
    text = path.read_text()
    write(path, text + line + "\n")
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "netflix", options=OPTIONS)
    assert caught.value.problems[0].where == f"{path}:{len(text.splitlines()) + 1}"
    assert BAD[line] in caught.value.problems[0].message
    made = prepared(tmp_path, "netflix", options=OPTIONS, on_bad_row="skip")
    assert made.manifest.dropped["bad_rows/raw/combined_data_2.txt"] == 1
    assert made.manifest.counts["raw/events"] == 400


def test_bad_files_titles_and_options(tmp_path, home):
    write_raw(tmp_path / "raw", world())
    first, titles = tmp_path / "raw/combined_data_1.txt", tmp_path / "raw/movie_titles.csv"
    text, known = first.read_text(), titles.read_bytes()
    write(first, "101,5,2005-09-06\n" + text)
    with pytest.raises(InputError, match=r"combined_data_1.txt:1: stands before the first movie"):
        prepared(tmp_path, "netflix", options=OPTIONS)
    write(first, text + "9999:\n101,5,2005-09-06\n")
    dropped = prepared(tmp_path, "netflix", options=OPTIONS).manifest.dropped
    assert dropped["ratings_of_unknown_items"] == 1
    write(titles, known + b"77,two thousand,Late\n")
    with pytest.raises(InputError, match=r"titles.csv:31: is '77,two thousand,Late', expected a n"):
        prepared(tmp_path, "netflix", options=OPTIONS)
    write(titles, known + b"1001,2000,Again\n")
    with pytest.raises(InputError, match=r"titles.csv:31: movie '1001' stands twice"):
        prepared(tmp_path, "netflix", options=OPTIONS)
    write(titles, known)
    first.unlink()
    with pytest.raises(InputError, match=r"combined_data_1.txt: no such file"):
        prepared(tmp_path, "netflix", options=OPTIONS)
    with pytest.raises(InputError, match=r"'official', expected temporal or leave-last-out"):
        prepared(tmp_path, "netflix", options={"split": "official"})
