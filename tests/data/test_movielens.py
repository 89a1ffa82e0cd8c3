"""MovieLens: formats and encodings, histories, splits, negatives; counts by plain Python."""

from __future__ import annotations

import csv
from collections import defaultdict

import numpy as np
import pyarrow.parquet as pq
import pytest
from raw_files import dataset, prepared, write

from legoray.data.load import load_corpus, load_items, load_users
from legoray.data.prepare import prepare
from legoray.errors import InputError

RATINGS = [  # user, movie, rating, time; in no order
    ("7", "20", "5", 300),
    ("7", "10", "4", 100),
    ("3", "10", "5", 150),
    ("7", "30", "4", 200),
    ("7", "40", "4", 200),  # the same second
    ("3", "30", "3", 250),  # seen, not liked
    ("3", "20", "4", 400),
    ("3", "40", "5", 500),
    ("7", "50", "5", 600),
]
TITLES = {
    "10": ("Toy Story (1995)", "Animation|Comedy"),
    "20": ("Misérables, Les (1995)", "Drama|Musical"),
    "30": ('"Great" Performances (Cabin, Fever) (1975)', "(no genres listed)"),
    "40": ("unknown", "(no genres listed)"),
    "50": ("M*A*S*H (1970)", "Drama"),
    "60": ("Never rated (2001)", "Drama"),
}
OPTIONS = {"split": {"temporal": [0.4, 0.3, 0.3]}, "negatives": 2}


def tiny_csv(folder):
    lines = ["userId,movieId,rating,timestamp", *(",".join(map(str, row)) for row in RATINGS)]
    write(folder / "raw/ratings.csv", "\r\n".join(lines) + "\r\n")
    (folder / "raw/movies.csv").parent.mkdir(exist_ok=True)
    with (folder / "raw/movies.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerows([("movieId", "title", "genres"), *((k, *v) for k, v in TITLES.items())])


def tiny_1m(folder):
    rows = ["::".join(map(str, row)) for row in RATINGS]
    write(folder / "raw/ratings.dat", "\n".join(rows) + "\n")
    movies = "".join(f"{key}::{title}::{genres}\n" for key, (title, genres) in TITLES.items())
    write(folder / "raw/movies.dat", movies.encode("latin-1"))


GENRES_100K = ["unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime",
               "Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery",
               "Romance", "Sci-Fi", "Thriller", "War", "Western"]  # fmt: skip


def tiny_100k(folder):
    rows = ["\t".join(map(str, row)) for row in RATINGS]
    write(folder / "raw/u.data", "\n".join(rows) + "\n")
    lines = []
    for key, (title, genres) in TITLES.items():
        flags = ["1" if genre in genres.split("|") else "0" for genre in GENRES_100K]
        date = "" if title == "unknown" else "01-Jan-1995"
        flags[0] = "1" if title == "unknown" else "0"
        lines.append("|".join([key, title, date, "", "http://x?a b", *flags]) + "\n")
    write(folder / "raw/u.item", "".join(lines).encode("latin-1"))


@pytest.mark.parametrize("release", [tiny_csv, tiny_1m, tiny_100k])
def test_formats_and_encodings_give_one_data_set(tmp_path, home, release):
    release(tmp_path)
    made = prepared(tmp_path, "movielens", options=OPTIONS)
    items = load_items(made.tables).to_pylist()
    assert [row["title"] for row in items] == [
        "Toy Story", "Misérables, Les", '"Great" Performances (Cabin, Fever)', "unknown",
        "M*A*S*H", "Never rated",
    ]  # fmt: skip
    assert [row["year"] for row in items] == ["1995", "1995", "1975", "", "1970", "2001"]
    assert [row["genres"] for row in items][:3] == ["Animation, Comedy", "Drama, Musical", ""]
    corpus = load_corpus(made.tables)
    # User 7 (number 0) liked 10, then 30 and 40 in one second, 20, 50; user 3 liked 10, 20, 40.
    assert corpus.history_items.tolist() == [1, 3, 4, 2, 5, 1, 2, 4]
    assert corpus.history_offsets.tolist() == [0, 5, 8]
    clicks = [
        (int(s.time[i]), int(s.user[i]), int(s.item[s.offsets[i]]), int(s.history_end[i]))
        for s in corpus.splits.values()
        for i in range(len(s))
    ]
    assert clicks == [
        (200, 0, 3, 1), (200, 0, 4, 1), (300, 0, 2, 3), (400, 1, 2, 1), (500, 1, 4, 2),
        (600, 0, 5, 4),
    ]  # fmt: skip
    assert [len(s) for s in corpus.splits.values()] == [2, 2, 2]
    assert made.manifest.dropped["clicks_with_too_short_a_history"] == 2


def test_released_formats_agree(tmp_path, home):
    prints = []
    for release in (tiny_csv, tiny_1m):
        folder = tmp_path / release.__name__
        release(folder)
        prints.append(prepared(folder, "movielens", options=OPTIONS).manifest.fingerprint)
    assert prints[0] == prints[1]


USERS_100K = ["3|24|F|writer|85711", "7|9|M|student|T8H1N", "8|56|M|other|00000", "9|80|M|none|1"]
USERS_1M = ["3::F::18::20::85711", "7::M::1::10::T8H1N", "8::M::56::0::00000", "9::M::50::3::1"]
USERS = {tiny_100k: ("u.user", USERS_100K), tiny_1m: ("users.dat", USERS_1M)}
WHO = [
    {"key": "7", "age": "under 18", "gender": "M"},
    {"key": "3", "age": "18-24", "gender": "F", "occupation": "writer"},
]
WORK = {tiny_100k: "student", tiny_1m: "K-12 student"}


@pytest.mark.parametrize("release", USERS)
def test_users_have_attributes(tmp_path, home, release):
    release(tmp_path)
    without = prepared(tmp_path, "movielens", options=OPTIONS).manifest
    assert without.user_attributes == []
    name, lines = USERS[release]
    write(tmp_path / "raw" / name, "\n".join(lines) + "\n")
    made = prepared(tmp_path, "movielens", options=OPTIONS)
    assert made.fresh
    assert made.manifest.user_attributes == ["age", "gender", "occupation"]
    assert made.manifest.fingerprint != without.fingerprint
    assert made.manifest.counts == without.counts
    expected = [WHO[0] | {"occupation": WORK[release]}, WHO[1]]
    assert load_users(made.tables, ["key", *made.manifest.user_attributes]).to_pylist() == expected
    assert any(source.path == name for source in made.manifest.sources)
    write(tmp_path / "raw" / name, "\n".join(lines[1:]) + "\n")
    again = prepared(tmp_path, "movielens", options=OPTIONS)
    assert again.manifest.fingerprint != made.manifest.fingerprint
    empty = {"age": "", "gender": "", "occupation": ""}
    assert load_users(again.tables, list(empty)).to_pylist()[1] == empty


def test_ages_fall_into_the_groups_of_1m(tmp_path, home):
    groups = {
        "under 18": (7, 17), "18-24": (18, 24), "25-34": (25, 34), "35-44": (35, 44),
        "45-49": (45, 49), "50-55": (50, 55), "56+": (56, 100),
    }  # fmt: skip
    for ages in zip(*groups.values(), strict=True):
        ratings = [(f"u{age}", "10", "5", age // 2) for age in ages]
        tiny_100k(tmp_path)
        text = "".join("\t".join(map(str, row)) + "\n" for row in [*ratings, *RATINGS])
        write(tmp_path / "raw/u.data", text)
        users = "".join(f"u{age}|{age}|F|writer|0\n" for age in ages)
        write(tmp_path / "raw/u.user", users)
        made = prepared(tmp_path, "movielens", options=OPTIONS)
        found = load_users(made.tables, ["age"])["age"].to_pylist()
        assert found == [*groups, "", ""]


BAD_USERS = {
    "u.user": {
        "10|x|M|writer|0": "the age is 'x', expected whole years",
        "10|-4|M|writer|0": "the age is '-4'",
        "10|30|?|writer|0": "the gender is '?', expected F or M",
        "10|30|M|writer": "has 4 fields, expected 5",
        "3|30|M|writer|0": "user '3' stands twice",
        "|30|M|writer|0": "the user is empty",
    },
    "users.dat": {
        "10::M::19::3::0": "the age is '19', expected one of 1, 18, 25",
        "10::M::18::21::0": "the occupation is '21', expected a number up to 20",
        "10::M::18::none::0": "the occupation is 'none'",
        "10::18::M::3::0": "the gender is '18'",
    },
}


@pytest.mark.parametrize(
    ("release", "line"),
    [(release, line) for release, (name, _) in USERS.items() for line in BAD_USERS[name]],
)
def test_bad_users(tmp_path, home, release, line):
    release(tmp_path)
    name, lines = USERS[release]
    path = write(tmp_path / "raw" / name, "\n".join([*lines, line]) + "\n")
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "movielens", options=OPTIONS)
    assert caught.value.problems[0].where == f"{path}:5"
    assert BAD_USERS[name][line] in caught.value.problems[0].message
    made = prepared(tmp_path, "movielens", options=OPTIONS, on_bad_row="skip")
    assert made.manifest.dropped[f"bad_rows/raw/{name}"] == 1
    assert load_users(made.tables, ["gender"])["gender"].to_pylist() == ["M", "F"]


BAD_RATINGS = {
    "3,10,five,100": "the rating is 'five'",
    "3,10,nan,100": "the rating is 'nan'",
    "3,10,7.5,100": "the rating is '7.5'",
    "3,10,4": "has 3 fields, expected 4",
    "3,10,4.0,noon": "the time is 'noon'",
    ",10,4.0,100": "the user is empty",
}


@pytest.mark.parametrize("line", BAD_RATINGS)
def test_bad_ratings(tmp_path, home, line):
    tiny_csv(tmp_path)
    path = tmp_path / "raw/ratings.csv"
    write(path, path.read_text() + line + "\n")
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "movielens", options=OPTIONS)
    assert caught.value.problems[0].where == f"{path}:11"
    assert BAD_RATINGS[line] in caught.value.problems[0].message
    made = prepared(tmp_path, "movielens", options=OPTIONS, on_bad_row="skip")
    assert made.manifest.dropped["bad_rows/raw/ratings.csv"] == 1


def test_bad_headers_movies_and_options(tmp_path, home):
    tiny_csv(tmp_path)
    movies, ratings = tmp_path / "raw/movies.csv", tmp_path / "raw/ratings.csv"
    good = movies.read_bytes(), ratings.read_bytes()
    write(movies, good[0].replace(b"title", b"titel"))
    with pytest.raises(InputError, match=r"has no column 'title' .is it 'titel'"):
        prepared(tmp_path, "movielens", options=OPTIONS)
    write(movies, good[0] + b"10,Again,Drama\n")
    with pytest.raises(InputError, match=r"movies.csv:8: movie id '10' stands twice"):
        prepared(tmp_path, "movielens", options=OPTIONS)
    write(movies, good[0])
    write(ratings, good[1].replace(b"timestamp", b"date"))
    with pytest.raises(InputError, match=r"has no column 'timestamp'"):
        prepared(tmp_path, "movielens", options=OPTIONS)
    write(ratings, good[1])
    with pytest.raises(InputError, match=r"sum to 1"):
        prepared(tmp_path, "movielens", options={"split": {"temporal": "0.5/0.1/0.1"}})
    with pytest.raises(InputError, match=r"a period is empty"):
        prepared(tmp_path, "movielens", options={"split": {"temporal": "0.98/0.01/0.01"}})
    with pytest.raises(InputError, match=r"'like'"):
        prepared(tmp_path, "movielens", options={"lik": 4})


def test_unknown_movies_and_second_ratings_are_counted(tmp_path, home):
    tiny_csv(tmp_path)
    path = tmp_path / "raw/ratings.csv"
    write(path, path.read_text() + "3,99,5,100\n3,10,1,900\n")
    dropped = prepared(tmp_path, "movielens", options=OPTIONS).manifest.dropped
    assert dropped["ratings_of_unknown_items"] == 1
    assert dropped["ratings_given_again"] == 1


@pytest.fixture(scope="module")
def real(tmp_path_factory, real_data):
    """The real MovieLens latest-small, prepared, and its ratings as plain tuples."""
    folder = real_data("movielens", "ml-latest-small")
    base = tmp_path_factory.mktemp("movielens")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEGORAY_HOME", str(base / "home"))
        made = prepare(dataset(base, "movielens", raw=str(folder)), say=lambda line: None)
    with (folder / "ratings.csv").open() as file:
        ratings = [
            (int(row["userId"]), int(row["movieId"]), float(row["rating"]), int(row["timestamp"]))
            for row in csv.DictReader(file)
        ]
    return made, load_corpus(made.tables), ratings


def test_real_counts(real):
    made, corpus, ratings = real
    likes = [row for row in ratings if row[2] >= 4]
    by_user = defaultdict(list)
    for user, _, _, when in likes:
        by_user[user].append(when)
    eligible = sorted(when for u, _, _, when in likes if min(by_user[u]) < when)
    cuts = [eligible[round(share * len(eligible))] for share in (0.8, 0.9)]
    expected = {
        "train": sum(when < cuts[0] for when in eligible),
        "valid": sum(cuts[0] <= when < cuts[1] for when in eligible),
        "test": sum(when >= cuts[1] for when in eligible),
    }
    counts = made.manifest.counts
    assert {split: counts[f"clicks/{split}"] for split in expected} == expected
    assert counts["history_items"] == len(likes) == len(corpus.history_items)
    assert counts["raw/users"] == 610
    assert counts["users"] == len(by_user)
    assert counts["items"] == 9742
    assert len(eligible) + made.manifest.dropped["clicks_with_too_short_a_history"] == len(likes)


def test_real_histories_end_before_the_interaction(real):
    made, corpus, ratings = real
    users = pq.read_table(made.tables / "users")["key"].to_pylist()
    keys = load_items(made.tables, ["key"])["key"].to_pylist()
    when = {(str(u), str(m)): t for u, m, r, t in ratings if r >= 4}
    random = np.random.default_rng(0)
    for split in corpus.splits.values():
        for i in random.choice(len(split), 400, replace=False):
            user = users[split.user[i]]
            start = corpus.history_offsets[split.history[i]]
            stop = corpus.history_offsets[split.history[i] + 1]
            times = [when[user, keys[m - 1]] for m in corpus.history_items[start:stop]]
            assert times == sorted(times)
            now = when[user, keys[split.item[split.offsets[i]] - 1]]
            assert now == split.time[i]
            assert split.history_end[i] == sum(t < now for t in times) >= 1


def test_real_splits_do_not_overlap(real):
    _, corpus, _ = real
    train, valid, test = corpus.splits.values()
    assert train.time.max() < valid.time.min() <= valid.time.max() < test.time.min()


def test_real_negatives_keep_their_rule(real):
    made, corpus, ratings = real
    users = pq.read_table(made.tables / "users")["key"].to_pylist()
    keys = load_items(made.tables, ["key"])["key"].to_pylist()
    liked = {(str(u), str(m)): when for u, m, r, when in ratings if r >= 4}
    since: dict[str, int] = {}
    for _, movie, _, when in ratings:
        since[str(movie)] = min(when, since.get(str(movie), when))
    random = np.random.default_rng(1)
    for split in corpus.splits.values():
        assert set(split.clicks.tolist()) == {1}
        end = split.time.max()  # what is liked later is not known yet
        for i in random.choice(len(split), 300, replace=False):
            shown = [keys[m - 1] for m in split.item[split.offsets[i] + 1 : split.offsets[i + 1]]]
            assert len(set(shown)) == len(shown) <= 20
            assert all(since[movie] <= split.time[i] for movie in shown)
            user = users[split.user[i]]
            assert all(liked.get((user, movie), end + 1) > end for movie in shown)
    total = sum(made.manifest.counts[f"rows/{name}"] for name in corpus.splits)
    clicks = sum(made.manifest.counts[f"clicks/{name}"] for name in corpus.splits)
    missing = sum(n for k, n in made.manifest.dropped.items() if k.startswith("negatives"))
    assert total == clicks * 21 - missing


def test_real_popular_negatives_are_more_popular(real, real_data, tmp_path, home):
    _, corpus, _ = real
    folder = real_data("movielens", "ml-latest-small")
    yaml = dataset(tmp_path, "movielens", raw=str(folder), options={"negatives_by": "popularity"})
    made = prepare(yaml, say=lambda line: None)
    popular = load_corpus(made.tables)
    clicks = np.bincount(corpus.history_items, minlength=corpus.item_count)
    mean = {}
    for name, one in (("uniform", corpus), ("popularity", popular)):
        test = one.splits["test"]
        mean[name] = clicks[test.item[test.label == 0]].mean()
    assert mean["popularity"] > 3 * mean["uniform"]
    assert "in proportion" in made.manifest.protocol["negatives"]
    assert np.array_equal(popular.history_items, corpus.history_items)
