"""MicroLens: three releases with titles of three forms, milliseconds, bad rows."""

from __future__ import annotations

import pytest
from raw_files import prepared, write

from legoray.data.load import load_corpus, load_items
from legoray.errors import InputError

PAIRS = [  # user, video, milliseconds; in no order
    (2, 11, 1_600_000_300_999),
    (1, 10, 1_600_000_100_500),
    (1, 12, 1_600_000_200_000),
    (1, 11, 1_600_000_400_000),
    (2, 10, 1_600_000_200_001),
    (2, 12, 1_600_000_500_000),
    (2, 13, 1_600_000_600_000),
    (1, 13, 1_600_000_700_000),
]
OPTIONS = {"split": "leave-last-out", "negatives": 1}
TITLES = ['One, "quoted" # tag', "Two # tag", "", "四 # 东京"]
FORMS = {
    "50k": (
        "MicroLens-50k_titles.csv",
        'item,title\n10,"One, ""quoted"" # tag"\n11,Two # tag\n12,\n13,四 # 东京\n',
    ),
    "100k": (
        "MicroLens-100k_title_en.csv",
        '10, One, "quoted" # tag   \n11, Two # tag\n12, \n13, 四 # 东京\n',
    ),
    "1M": (
        "MicroLens-1M_title.csv",
        '10,One, "quoted" # tag\n11,Two # tag\n12,\n13,四 # 东京\n',
    ),
}


def write_release(folder, release):
    name, titles = FORMS[release]
    write(folder / "raw" / name, titles)
    rows = ["user,item,timestamp", *(",".join(map(str, row)) for row in PAIRS)]
    return write(folder / f"raw/MicroLens-{release}_pairs.csv", "\n".join(rows) + "\n")


@pytest.mark.parametrize("release", FORMS)
def test_titles_and_times(tmp_path, home, release):
    write_release(tmp_path, release)
    made = prepared(tmp_path, "microlens", options=OPTIONS)
    assert load_items(made.tables)["title"].to_pylist() == TITLES
    assert made.manifest.counts["items_without/title"] == 1
    corpus = load_corpus(made.tables)
    seen = {
        name: [
            (int(s.time[i]), int(s.user[i]), int(s.item[s.offsets[i]]), int(s.history_end[i]))
            for i in range(len(s))
        ]
        for name, s in corpus.splits.items()
    }
    # User 1 (number 0) had 10, 12, 11, 13; user 2 had 10, 11, 12, 13.
    assert seen == {
        "train": [(1_600_000_200, 0, 3, 1), (1_600_000_300, 1, 2, 1)],
        "valid": [(1_600_000_400, 0, 2, 2), (1_600_000_500, 1, 3, 2)],
        "test": [(1_600_000_700, 0, 4, 3), (1_600_000_600, 1, 4, 3)],
    }
    raw = [made.manifest.counts[f"raw/{what}"] for what in ("items", "events", "users")]
    assert raw == [4, 8, 2]


def test_titles_may_hold_quotes_that_do_not_come_in_pairs(tmp_path, home):
    write_release(tmp_path, "1M")
    write(tmp_path / "raw/MicroLens-1M_title.csv", '10,"One\n11,Two "" three\n12,x\n13,y"\n')
    made = prepared(tmp_path, "microlens", options=OPTIONS)
    assert load_items(made.tables)["title"].to_pylist() == ['"One', 'Two "" three', "x", 'y"']


def test_a_release_is_named_or_found_by_what_is_left_of_it(tmp_path, home):
    path = write_release(tmp_path, "100k")
    path.unlink()
    with pytest.raises(InputError, match=r"MicroLens-100k_pairs.csv: no such file"):
        prepared(tmp_path, "microlens", options=OPTIONS)
    with pytest.raises(InputError, match=r"MicroLens-1M_title.csv: no such file"):
        prepared(tmp_path, "microlens", options=OPTIONS | {"release": "1m"})


BAD = {
    "1,10,soon": "the time is 'soon', expected whole milliseconds since 1970",
    "1,10,-1600000100500": "the time is '-1600000100500'",
    "1,10": "has 2 fields, expected 3",
    ",10,1600000100500": "the user is empty",
    "NaN,10,1600000100500": "the user is empty",
    "1,,1600000100500": "the video is empty",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_pairs(tmp_path, home, line):
    path = write_release(tmp_path, "50k")
    write(path, path.read_text() + line + "\n")
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "microlens", options=OPTIONS)
    assert caught.value.problems[0].where == f"{path}:10"
    assert BAD[line] in caught.value.problems[0].message
    made = prepared(tmp_path, "microlens", options=OPTIONS, on_bad_row="skip")
    assert made.manifest.dropped[f"bad_rows/raw/{path.name}"] == 1


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("14", "has 1 field, expected 2 separated by the first comma: id, title"),
        ("x,y", "the video's id is 'x'"),
        ("10,again", "video '10' stands twice"),
    ],
)
def test_bad_titles(tmp_path, home, line, told):
    write_release(tmp_path, "100k")
    path = tmp_path / "raw/MicroLens-100k_title_en.csv"
    write(path, path.read_text() + line + "\n")
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "microlens", options=OPTIONS)
    assert caught.value.problems[0].where == f"{path}:5"
    assert told in caught.value.problems[0].message
