"""POG: clicked items or clicked outfits, lists that repeat, titles with commas, bad lines."""

from __future__ import annotations

import pytest
from raw_files import prepared, write

from legoray.data.load import load_corpus, load_items, load_users
from legoray.errors import InputError

ITEMS = [
    "a,50010850,//img/a.jpg,连衣裙 夏",
    "b,162103,//img/b.jpg,毛衣, 女, 厚",
    "c,162103,//img/c.jpg,",
    "d,50006842,//img/d.jpg,包",
    "e,50006842,//img/e.jpg,never clicked",
]
OUTFITS = ["o1,a;b;c", "o2,d;x;a", "o3,e;d;c", "o4,b;d;a"]
LINES = [  # each: what the user had clicked before an outfit
    ("u", "a;b;c", "o1"),
    ("v", "d;a;b", "o2"),
    ("u", "b;c;d", "o2"),
    ("v", "a;b;c", "o1"),
    ("w", "a;y", "o3"),
    ("u", "c;d;b", "o3"),
    ("v", "d", "o3"),
    ("u", "b", "o4"),
]
OPTIONS = {"negatives": 1}


@pytest.fixture
def raw(tmp_path, home):
    write(tmp_path / "raw/item_data.txt", "".join(f"{line}\n" for line in ITEMS))
    write(tmp_path / "raw/outfit_data.txt", "".join(f"{line}\n" for line in OUTFITS))
    write(tmp_path / "raw/user_data.txt", "".join(",".join(line) + "\n" for line in LINES))
    return tmp_path / "raw"


def histories(made):
    """Each user's clicks in order, by keys."""
    corpus = load_corpus(made.tables)
    keys = ["", *load_items(made.tables, ["key"])["key"].to_pylist()]
    users = load_users(made.tables, ["key"])["key"].to_pylist()
    ends = zip(corpus.history_offsets, corpus.history_offsets[1:], strict=False)
    lists = [[keys[n] for n in corpus.history_items[a:b]] for a, b in ends]
    return dict(zip(users, lists, strict=True))


def first_of_each(clicks):
    found = {}
    for user, item in clicks:
        found.setdefault(user, {}).setdefault(item)
    return {user: list(items) for user, items in found.items()}


def test_clicked_items(tmp_path, raw):
    made = prepared(tmp_path, "pog", options=OPTIONS)
    items = load_items(made.tables).to_pylist()
    assert [(row["key"], row["category"], row["title"]) for row in items] == [
        ("a", "50010850", "连衣裙 夏"),
        ("b", "162103", "毛衣, 女, 厚"),
        ("c", "162103", ""),
        ("d", "50006842", "包"),
    ]
    clicks = [(user, item) for user, told, _ in LINES for item in told.split(";") if item in "abcd"]
    assert histories(made) == first_of_each(clicks)
    dropped = made.manifest.dropped
    assert dropped["clicks_of_unknown_items"] == 1  # y
    assert dropped["clicks_given_again"] == len(clicks) - len(set(clicks))
    assert dropped["users_with_too_few_clicks"] == 1
    assert made.manifest.counts["raw/items"] == 5
    assert made.manifest.counts["raw/events"] == len(clicks) + 1
    assert made.manifest.counts["raw/users"] == 3
    assert made.manifest.counts["items_without/title"] == 1
    assert made.manifest.protocol["split"].startswith("leave-last-out")


def test_clicked_outfits(tmp_path, raw):
    made = prepared(tmp_path, "pog", options=OPTIONS | {"of": "outfits"})
    items = load_items(made.tables).to_pylist()
    assert [(row["key"], row["title"], row["category"]) for row in items] == [
        ("o1", "连衣裙 夏, 毛衣, 女, 厚, ", "50010850, 162103, 162103"),
        ("o2", "包, 连衣裙 夏", "50006842, 50010850"),
        ("o3", "never clicked, 包, ", "50006842, 50006842, 162103"),
        ("o4", "毛衣, 女, 厚, 包, 连衣裙 夏", "162103, 50006842, 50010850"),
    ]
    assert histories(made) == first_of_each((user, outfit) for user, _, outfit in LINES)
    assert made.manifest.dropped["unknown_items_in_outfits"] == 1
    assert made.manifest.counts["raw/events"] == len(LINES)


def test_a_user_who_clicked_nothing_before(tmp_path, raw):
    with (raw / "user_data.txt").open("a") as file:
        file.write("x,,o1\nu,a;,o1\n")
    made = prepared(tmp_path, "pog", options=OPTIONS)
    assert made.manifest.dropped["clicks_without_an_item"] == 2
    assert "x" not in histories(made)


BAD = {
    ("user_data.txt", "u,a;b"): "has 2 fields, expected 3",
    ("user_data.txt", ",a;b,o1"): "the user is empty",
    ("user_data.txt", "u,a;b,"): "the outfit is empty",
    ("item_data.txt", "f,1"): "has 2 fields, expected 4",
    ("item_data.txt", "a,1,//img,again"): "item 'a' stands twice",
    ("outfit_data.txt", "o1,a"): "outfit 'o1' stands twice",
}


@pytest.mark.parametrize(("name", "line"), BAD)
def test_bad_lines(tmp_path, raw, name, line):
    path = raw / name
    count = len(path.read_text().splitlines())
    with path.open("a") as file:
        file.write(line + "\n")
    options = OPTIONS | {"of": "outfits" if name == "outfit_data.txt" else "items"}
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "pog", options=options)
    assert caught.value.problems[0].where == f"{path}:{count + 1}"
    assert BAD[name, line] in caught.value.problems[0].message
    made = prepared(tmp_path, "pog", options=options, on_bad_row="skip")
    assert made.manifest.dropped[f"bad_rows/raw/{name}"] == 1


def test_times_are_not_known(tmp_path, raw):
    with pytest.raises(InputError, match=r"options.split.*expected leave-last-out"):
        prepared(tmp_path, "pog", options=OPTIONS | {"split": "temporal"})
