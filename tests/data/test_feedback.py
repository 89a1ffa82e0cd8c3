"""Steps over feedback, and protocols, against plain Python on the real MovieLens."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from raw_files import dataset, prepared
from raw_movielens import write_raw
from worlds import world

from legoray.data.feedback import coded, count_within, first_of_each, in_order, k_core
from legoray.data.load import load_corpus, load_items
from legoray.data.prepare import prepare
from legoray.errors import InputError


@pytest.mark.parametrize("k", [1, 2, 3, 5, 30])
@pytest.mark.parametrize("seed", range(3))
def test_the_core_is_what_taking_out_one_by_one_leaves(seed, k):
    random = np.random.default_rng(seed)
    pairs = sorted({(int(u), int(i)) for u, i in random.integers(0, 25, (150, 2)) ** 2 // 25})
    left = list(pairs)
    while True:
        users, items = Counter(u for u, _ in left), Counter(i for _, i in left)
        fewer = [(u, i) for u, i in left if users[u] >= k and items[i] >= k]
        if fewer == left:
            break
        left = fewer
    user, item = (np.array(column, np.int32) for column in zip(*pairs, strict=True))
    kept = k_core(user, item, k)
    assert [pair for pair, one in zip(pairs, kept, strict=True) if one] == left


def test_counting_within_users():
    user = np.array([0, 0, 0, 3, 3, 7], np.int32)
    marked = np.array([True, False, True, False, True, False])
    assert count_within(marked, user).tolist() == [1, 1, 2, 0, 1, 0]
    assert count_within(marked[:0], user[:0]).tolist() == []


def test_events_in_pieces_are_coded_as_in_one():
    keys = pa.array(["b", "a", "c"])
    table = pa.table(
        {"user": ["u", "v", "u", "w"], "item": ["a", "zz", "c", "b"], "time": [5, 6, None, 7]}
    )
    for pieces in (
        [table],
        [table.slice(0, 1), table.slice(1)],
        [table.slice(n, 1) for n in range(4)],
    ):
        events, users, unknown = coded(pieces, keys)
        assert users.to_pylist() == ["u", "v", "w"]
        assert unknown == 1
        assert events.user.tolist() == [0, 0, 2]
        assert events.item.tolist() == [1, 2, 0]
        assert events.time.tolist() == [5, -1, 7]
        assert events.value.tolist() == [1, 1, 1]


@pytest.mark.parametrize("size", [1, 3, 17, 500])
def test_early_repeats_may_go_in_any_pieces(size):
    random = np.random.default_rng(4)
    events = [
        (f"u{u}", f"i{i}", int(t))
        for u, i, t in zip(*(random.integers(0, n, 300) for n in (6, 9, 40)), strict=True)
    ]
    columns = dict(zip(("user", "item", "time"), map(list, zip(*events, strict=True)), strict=True))
    table = pa.table({**columns, "value": np.arange(300)})
    pieces = [table.slice(at, size) for at in range(0, 300, size)]
    keys = pa.array([f"i{n}" for n in range(7)])
    found, users, unknown = coded(pieces, keys, first=True)
    known = [(t, n, u, i) for n, (u, i, t) in enumerate(events) if i < "i7"]
    assert unknown == 300 - len(known)
    first = {(u, i): (t, n) for t, n, u, i in sorted(known, reverse=True)}
    kept = first_of_each(in_order(found))
    rows = zip(kept.user, kept.item, kept.time, kept.value, strict=True)
    names = users.to_pylist()
    assert {(names[u], f"i{i}"): (t, int(n)) for u, i, t, n in rows} == first
    assert len(found) <= len(known)
    assert size < 500 or len(found) == len(first)


def real(folder, tmp_path, **options):
    """The real ratings prepared: tables, corpus, keys of users and items."""
    made = prepare(dataset(tmp_path, "movielens", str(folder), options=options), say=lambda _: None)
    users = pq.read_table(made.tables / "users")["key"].to_pylist()
    items = load_items(made.tables, ["key"])["key"].to_pylist()
    return made, load_corpus(made.tables), users, items


def ratings_of(folder):
    """user -> (time, place in the file, movie, rating) in order of time."""
    found = defaultdict(list)
    with (folder / "ratings.csv").open() as file:
        for place, row in enumerate(csv.DictReader(file)):
            told = (int(row["timestamp"]), place, row["movieId"], float(row["rating"]))
            found[row["userId"]].append(told)
    return {user: sorted(rows) for user, rows in found.items()}


def test_leave_last_out_with_a_core_equals_plain_python(tmp_path, home, real_data):
    folder = real_data("movielens", "ml-latest-small")
    made, corpus, users, items = real(
        folder, tmp_path, split="leave-last-out", k_core=5, unrated="drop", negatives=5
    )
    ratings = ratings_of(folder)
    clicks = {(u, m) for u, rows in ratings.items() for _, _, m, value in rows if value >= 4}
    while True:
        of_user, of_item = Counter(u for u, _ in clicks), Counter(m for _, m in clicks)
        fewer = {(u, m) for u, m in clicks if of_user[u] >= 5 and of_item[m] >= 5}
        if fewer == clicks:
            break
        clicks = fewer
    assert set(users) == {u for u, _ in clicks}
    assert sorted(items) == sorted({m for _, m in clicks})
    assert made.manifest.counts["history_items"] == len(clicks)
    sequence = {
        user: [(t, m) for t, _, m, _ in rows if (user, m) in clicks]
        for user, rows in ratings.items()
    }
    place = {"test": -1, "valid": -2}
    for name, split in corpus.splits.items():
        assert len(split) > 0
        for i in range(len(split)):
            user = users[split.user[i]]
            item = items[split.item[split.offsets[i]] - 1]
            row = sequence[user].index((split.time[i], item))
            assert split.history_end[i] == sum(t < split.time[i] for t, _ in sequence[user])
            if name in place:
                assert row == len(sequence[user]) + place[name]
            else:
                assert 1 <= row < len(sequence[user]) - 2
            # negatives: nothing that the user had before the first click of a later split
            hidden = {"train": 2, "valid": 1, "test": 0}[name]
            later = [m for _, m in sequence[user]][len(sequence[user]) - hidden :]
            rows = [m for _, _, m, _ in ratings[user]]
            until = rows.index(later[0]) if later else len(rows)
            shown = {items[m - 1] for m in split.item[split.offsets[i] + 1 : split.offsets[i + 1]]}
            assert not shown & set(rows[:until])


def test_measuring_against_all_items_stores_the_click_alone(tmp_path, home):
    write_raw(tmp_path / "raw", world())
    made = prepared(tmp_path, "movielens", options={"candidates": "all", "negatives": 3})
    counts = made.manifest.counts
    assert counts["rows/train"] == 4 * counts["clicks/train"]
    for split in ("valid", "test"):
        assert counts[f"rows/{split}"] == counts[f"clicks/{split}"] > 0
    assert "all items" in made.manifest.protocol["candidates"]


def test_without_an_order_items_are_left_out_at_random(tmp_path, home):
    write_raw(tmp_path / "raw", world())
    prints = []
    for seed in (1, 1, 2):
        options = {"split": "leave-random-out", "seed": seed}
        made = prepared(tmp_path, "movielens", options=options)
        prints.append(made.manifest.fingerprint)
        corpus = load_corpus(made.tables)
        assert all((split.time == -1).all() for split in corpus.splits.values())
        users = Counter(e.user for e in world().events if e.value >= 4)
        assert len(corpus.splits["test"]) == sum(count >= 3 for count in users.values())
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"split": "leave-last-ot"}, "did you mean 'leave-last-out'"),
        ({"split": "official"}, "is 'official', expected temporal or leave-last-out"),
        ({"split": {"temporal": "0.8/0.3"}}, "three positive ones that sum to 1"),
        ({"split": {"temporal": "a/b/c"}}, "three positive ones that sum to 1"),
        ({"split": {"by": "time"}}, "expected one of official, temporal"),
        ({"k_core": 400}, "no clicks are left"),
        ({"like": 5.0, "min_history": 300}, "a period is empty"),
        ({"split": "leave-last-out", "min_history": 300}, "leaves no clicks for train"),
        ({"candidates": "al"}, "candidates"),
    ],
)
def test_wrong_protocols_are_told(tmp_path, home, options, said):
    write_raw(tmp_path / "raw", world())
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "movielens", options=options)
    assert said in str(caught.value)
    assert "options" in str(caught.value) or "temporal split" in str(caught.value)
