"""Last.fm: four releases, repeated listens, two encodings, and the real hetrec-2k."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import pytest
from raw_files import ROOT, prepared, write
from raw_lastfm import (
    COUNTRIES,
    OPTIONS,
    RELEASES,
    mbid,
    name_of,
    plays_of,
    write_2k,
    write_360k,
    write_raw,
)
from worlds import world

from legoray.data.lines import BLOCK_BYTES
from legoray.data.load import load_corpus, load_items, load_users
from legoray.data.prepare import prepare
from legoray.errors import InputError

MADE_OF = world()
ALL = {"1k": (write_raw, OPTIONS), **RELEASES}
TIMED = [name for name in ALL if name[0] == "1"]


def rows_of(made):
    """Per split: user, history, clicked item, time; by the items' names."""
    corpus = load_corpus(made.tables)
    users = load_users(made.tables, ["key"])["key"].to_pylist()
    name = made.manifest.attributes[0]
    names = ["", *load_items(made.tables, [name])[name].to_pylist()]
    found = {}
    for split, rows in corpus.splits.items():
        found[split] = []
        for i in range(len(rows)):
            start = corpus.history_offsets[rows.history[i]]
            past = corpus.history_items[start : start + rows.history_end[i]]
            clicked = names[rows.item[rows.offsets[i]]]
            one = (users[rows.user[i]], [names[n] for n in past], clicked, int(rows.time[i]))
            found[split].append(one)
    return found


@pytest.mark.parametrize("release", TIMED)
def test_first_listens_in_time(tmp_path, home, release):
    write_files, options = ALL[release]
    write_files(tmp_path / "raw", MADE_OF)
    made = prepared(tmp_path, "lastfm", options=options)
    prefix = "Song of " if "tracks" in release else ""
    titles = {item.key: prefix + name_of(item) for item in MADE_OF.items}
    expected, had = [], defaultdict(list)
    for event in sorted(MADE_OF.events, key=lambda event: event.time):
        past = had[event.user]
        if past:
            expected.append((event.user, list(past), titles[event.item], event.time))
        past.append(titles[event.item])
    cuts = [round(len(expected) * share) for share in (0.8, 0.9)]
    found = rows_of(made)
    assert found["train"] == expected[: cuts[0]]
    assert found["valid"] == expected[cuts[0] : cuts[1]]
    assert found["test"] == expected[cuts[1] :]
    twice = 2 if release == "1k" else 1
    assert made.manifest.counts["raw/events"] == twice * len(MADE_OF.events)
    assert made.manifest.dropped.get("listens_given_again", 0) == (twice - 1) * len(MADE_OF.events)


@pytest.mark.parametrize("size", [200, 3000, BLOCK_BYTES])
def test_where_blocks_are_cut_changes_nothing(tmp_path, home, monkeypatch, size):
    """The first listen to an artist may stand in a later block than the second."""
    monkeypatch.setattr("legoray.data.lines.blocks_of.__defaults__", (size,))
    write_raw(tmp_path / "raw", MADE_OF)
    made = prepared(tmp_path, "lastfm", options=OPTIONS)
    (tmp_path / "whole").mkdir()
    monkeypatch.undo()
    monkeypatch.setenv("LEGORAY_HOME", str(tmp_path / "other"))
    write_raw(tmp_path / "whole/raw", MADE_OF)
    whole = prepared(tmp_path / "whole", "lastfm", options=OPTIONS)
    assert made.manifest.fingerprint == whole.manifest.fingerprint
    assert made.manifest.dropped == whole.manifest.dropped
    assert made.manifest.counts == whole.manifest.counts


def test_tracks_of_1k_go_by_artist_and_title(tmp_path, home):
    write_raw(tmp_path / "raw", MADE_OF)
    made = prepared(tmp_path, "lastfm", options=OPTIONS | {"item": "track"})
    items = load_items(made.tables).to_pylist()
    names = {
        f"Song {n} of {name_of(item)}": name_of(item) for item in MADE_OF.items for n in (0, 1)
    }
    assert {row["title"]: row["artist"] for row in items} == names
    assert {row["key"] for row in items} == {f"{artist} / {t}" for t, artist in names.items()}
    assert made.manifest.counts["history_items"] == 2 * len(MADE_OF.events)


@pytest.mark.parametrize("release", ["1k", "360k"])
def test_artists_by_number_or_name(tmp_path, home, release):
    write_files, options = ALL[release]
    write_files(tmp_path / "raw", MADE_OF)
    made = prepared(tmp_path, "lastfm", options=options)
    items = load_items(made.tables).to_pylist()
    titles = {mbid(item.key) or name_of(item): name_of(item) for item in MADE_OF.items}
    assert {row["key"]: row["name"] for row in items} == titles


@pytest.mark.parametrize("release", ["1k", "360k", "1b"])
def test_users_are_described(tmp_path, home, release):
    write_files, options = ALL[release]
    write_files(tmp_path / "raw", MADE_OF)
    made = prepared(tmp_path, "lastfm", options=options)
    users = {
        row.pop("key"): row
        for row in load_users(made.tables, ["key", "age", "gender", "country"]).to_pylist()
    }
    countries = [c[:2].upper() for c in COUNTRIES] if release == "1b" else COUNTRIES
    for n, key in enumerate(sorted({event.user for event in MADE_OF.events})):
        assert users[key] == {
            "age": ("", "18-24", "", "25-34")[n % 4],
            "gender": ("M", "F", "")[n % 3],
            "country": countries[n % 3],
        }


def test_counts_of_plays_and_tags(tmp_path, home):
    write_2k(tmp_path / "raw", MADE_OF)
    made = prepared(tmp_path, "lastfm", options=ALL["hetrec-2k"][1])
    items = {row["key"]: row for row in load_items(made.tables).to_pylist()}
    for item in MADE_OF.items:
        more = ["fußball"] if item.key == "1001" else []
        assert items[item.key]["name"] == name_of(item)
        # The first was given twice; of tags given equally often the one with the lower number.
        assert items[item.key]["tags"].split(", ") == [*item.tags, *more]
    liked = prepared(tmp_path, "lastfm", options=ALL["hetrec-2k"][1] | {"like": 400})
    plays = [plays_of(event) for event in MADE_OF.events]
    assert liked.manifest.counts["history_items"] == sum(n >= 400 for n in plays) < len(plays)
    assert liked.manifest.protocol["click"].startswith("an artist played at least 400 times")
    (tmp_path / "raw/user_taggedartists.dat").unlink()
    assert prepared(
        tmp_path, "lastfm", options=ALL["hetrec-2k"][1]
    ).manifest.attributes == ["name"]  # fmt: skip


BAD = {
    "1k": {
        "u\tnoon\tm\tn\tt\tx": "the time is 'noon', expected 2009-05-04T23:08:57Z",
        "u\t1960-05-04T23:08:57Z\tm\tn\tt\tx": "the time is '1960-05-04T23:08:57Z'",
        "u\t2009-05-04T23:08:57Z\tm\tn\tt": "has 5 fields, expected 6 separated by tabs",
        "\t2009-05-04T23:08:57Z\tm\tn\tt\tx": "the user is '', expected a key",
    },
    "1b": {"5\t1001\t7\t8\t-3": "the time is '-3', expected seconds since 1970"},
    "360k": {"u\tm\tn\t-3": "the plays are '-3', expected a whole number"},
    "hetrec-2k": {"5\t1001\tmany": "the plays are 'many'", "5\t1001": "has 2 fields"},
}


@pytest.mark.parametrize(("release", "line"), [(name, line) for name in BAD for line in BAD[name]])
def test_bad_rows(tmp_path, home, release, line):
    write_files, options = ALL[release]
    write_files(tmp_path / "raw", MADE_OF)
    (path,) = [p for p in (tmp_path / "raw").iterdir() if p.name in EVENTS]
    text = path.read_bytes()
    write(path, text + line.encode() + b"\n")
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "lastfm", options=options)
    assert caught.value.problems[0].where == f"{path}:{len(text.splitlines()) + 1}"
    assert BAD[release][line] in caught.value.problems[0].message
    made = prepared(tmp_path, "lastfm", options=options, on_bad_row="skip")
    assert made.manifest.dropped[f"bad_rows/raw/{path.name}"] == 1


EVENTS = (
    "userid-timestamp-artid-artname-traid-traname.tsv", "LFM-1b_LEs.txt",
    "usersha1-artmbid-artname-plays.tsv", "user_artists.dat",
)  # fmt: skip


def test_what_names_no_artist_is_counted(tmp_path, home):
    write_360k(tmp_path / "raw", MADE_OF)
    path = tmp_path / "raw" / EVENTS[2]
    write(path, path.read_text() + "101\t\t\t5\n")
    made = prepared(tmp_path, "lastfm", options=ALL["360k"][1])
    assert made.manifest.dropped == {"play_counts_of_unknown_items": 1}
    assert made.manifest.counts["raw/items"] == len(MADE_OF.items)


@pytest.mark.parametrize(
    ("release", "more", "message"),
    [
        ("360k", {"item": "track"}, "options.item.*is 'track', but 360k tells of artists alone"),
        ("1b", {"like": 5}, "options.like.*is 5, but 1b has single listens, not counts"),
        ("360k", {"split": "temporal"}, "is 'temporal', expected leave-random-out for this data"),
        ("1k", {"release": "2b"}, "hetrec-2k"),
        ("1k", {"min_histry": 5}, "'min_history'"),
    ],
)
def test_wrong_options(tmp_path, home, release, more, message):
    write_files, options = ALL[release]
    write_files(tmp_path / "raw", MADE_OF)
    with pytest.raises(InputError, match=message):
        prepared(tmp_path, "lastfm", options=options | more)


@pytest.fixture(scope="module")
def real(tmp_path_factory, real_data):
    """The real hetrec-2k, prepared, and its files' rows as plain tuples."""
    folder = real_data("lastfm", "hetrec2011-lastfm-2k")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEGORAY_HOME", str(tmp_path_factory.mktemp("lastfm")))
        patch.setenv("LASTFM_HOME", str(folder.parent))
        made = prepare(ROOT / "datasets/lastfm_2k.yaml", say=lambda line: None)
    return made, folder


def lines_of(path: Path) -> list[list[str]]:
    text = path.read_text(encoding="utf-8")
    return [line.rstrip("\r").split("\t") for line in text.split("\n")[1:] if line]


def test_real_counts(real):
    made, folder = real
    plays, artists = lines_of(folder / "user_artists.dat"), lines_of(folder / "artists.dat")
    counts = made.manifest.counts
    assert made.manifest.deviations == []
    assert made.manifest.published == {"items": 17_632, "events": 92_834, "users": 1_892}
    assert counts["raw/events"] == len(plays) == 92_834
    assert counts["raw/items"] == len(artists) == 17_632
    assert counts["raw/users"] == counts["users"] == len({row[0] for row in plays}) == 1_892
    assert counts["items"] == len({row[1] for row in plays})
    assert counts["history_items"] == len({(row[0], row[1]) for row in plays})
    had = Counter(row[0] for row in plays)
    long = [n for n in had.values() if n >= 3]
    assert counts["clicks/test"] == counts["clicks/valid"] == len(long)
    assert counts["clicks/train"] == sum(n - 3 for n in long)
    names = {row[0]: row[1] for row in artists}
    for row in load_items(made.tables, ["key", "name"]).to_pylist():
        assert row["name"] == names[row["key"]]


def test_real_negatives_and_histories(real):
    made, folder = real
    had = defaultdict(set)
    for user, artist, _ in lines_of(folder / "user_artists.dat"):
        had[user].add(artist)
    corpus = load_corpus(made.tables)
    users = load_users(made.tables, ["key"])["key"].to_pylist()
    keys = ["", *load_items(made.tables, ["key"])["key"].to_pylist()]
    offsets = corpus.history_offsets
    for number, user in enumerate(users):
        own = corpus.history_items[offsets[number] : offsets[number + 1]]
        assert {keys[n] for n in own} == had[user]
    test = corpus.splits["test"]
    for i in range(len(test)):
        shown = [keys[n] for n in test.item[test.offsets[i] : test.offsets[i + 1]]]
        assert len(set(shown)) == 21
        assert shown[0] in had[users[test.user[i]]]
        assert not set(shown[1:]) & had[users[test.user[i]]]
        assert test.history_end[i] == len(had[users[test.user[i]]]) - 1
