"""H&M: ids with zeros in front, days, baskets, customers; what may be wrong with them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import raw_hm
from raw_files import prepared, write
from worlds import world

from legoray.data.load import load_corpus, load_items, load_users
from legoray.errors import InputError

OPTIONS = {"split": {"temporal": [0.4, 0.3, 0.3]}, "negatives": 2}
WHO = [raw_hm.customer(n) for n in ("7", "3", "9")]
BOUGHT = [  # day, customer, article; two of a day are one basket
    ("2018-09-20", WHO[0], "0108775015"),
    ("2018-09-20", WHO[0], "0108775044"),
    ("2018-09-21", WHO[1], "0108775015"),
    ("2018-09-22", WHO[0], "0108775015"),  # again
    ("2018-09-23", WHO[0], "0110065001"),
    ("2018-09-24", WHO[1], "0110065001"),
    ("2018-09-25", WHO[1], "0108775044"),
]
DAY = {f"2018-09-{n}": int(datetime(2018, 9, n, tzinfo=UTC).timestamp()) for n in range(20, 26)}


@pytest.fixture
def raw(tmp_path, home):
    """Four articles and three customers; one of each without a purchase."""
    folder = tmp_path / "raw"
    raw_hm.write_raw(folder, world())
    header = (folder / "articles.csv").read_text().splitlines()[0]
    row = (
        '{0},{0},{1},253,Vest top,Garment Upper body,1010016,Solid,09,Black,4,Dark,5,Black,1676,'
        "Jersey Basic,A,Ladieswear,1,Ladieswear,16,Womens Everyday Basics,1017,"
        '"Under-, Nightwear",{2}'
    )  # fmt: skip
    rows = [
        row.format("0108775015", "Strap top", '"Narrow straps, soft ""jersey""."'),
        row.format("0108775044", "Strap top (1)", ""),
        row.format("0110065001", "OP T-shirt (Idro)", "Bra"),
        row.format("0110065002", "Never bought", "Bra"),
    ]
    write(folder / "articles.csv", "\n".join([header, *rows]) + "\n")
    people = [
        "customer_id,FN,Active,club_member_status,fashion_news_frequency,age,postal_code",
        f"{WHO[0]},,,ACTIVE,NONE,49,52043ee2",
        f"{WHO[1]},1.0,1.0,LEFT CLUB,Regularly,24.0,2973abc5",
        f"{WHO[2]},,,,None,,2973abc5",
    ]
    write(folder / "customers.csv", "\n".join(people) + "\n")
    write_bought(folder, BOUGHT)
    return folder


def write_bought(folder, rows):
    header = "t_dat,customer_id,article_id,price,sales_channel_id\n"
    text = "".join(f"{day},{who},{item},0.0508,2\n" for day, who, item in rows)
    write(folder / "transactions_train.csv", header + text)


def test_tables(tmp_path, raw):
    made = prepared(tmp_path, "hm", options=OPTIONS)
    items = load_items(made.tables).to_pylist()
    assert [row["key"] for row in items] == ["0108775015", "0108775044", "0110065001", "0110065002"]
    assert items[0]["title"] == "Strap top"
    assert items[0]["description"] == 'Narrow straps, soft "jersey".'
    assert items[0]["garment"] == "Under-, Nightwear"
    assert (items[1]["description"], items[1]["colour"]) == ("", "Black")
    users = load_users(made.tables, ["key", "age", "club", "news"]).to_pylist()
    assert users == [
        {"key": WHO[0], "age": "45-49", "club": "active", "news": "none"},
        {"key": WHO[1], "age": "18-24", "club": "left club", "news": "regularly"},
    ]
    counts = made.manifest.counts
    assert (counts["raw/items"], counts["raw/events"], counts["raw/users"]) == (4, 7, 2)
    assert counts["items_without/description"] == 1
    assert made.manifest.dropped == {
        "customers_without_a_purchase": 1,
        "purchases_given_again": 1,
        "clicks_with_too_short_a_history": 3,
        "negatives_not_found/train": 2,
        "negatives_not_found/valid": 1,
        "negatives_not_found/test": 2,
    }


def test_a_basket_is_not_in_its_own_history(tmp_path, raw):
    corpus = load_corpus(prepared(tmp_path, "hm", options=OPTIONS).tables)
    seen = [
        (int(s.time[i]), int(s.user[i]), int(s.item[s.offsets[i]]), int(s.history_end[i]))
        for s in corpus.splits.values()
        for i in range(len(s))
    ]
    assert corpus.history_items.tolist() == [1, 2, 3, 1, 3, 2]
    expected = [(DAY["2018-09-23"], 0, 3, 2), (DAY["2018-09-24"], 1, 3, 1)]
    assert seen == [*expected, (DAY["2018-09-25"], 1, 2, 2)]


def test_copies_without_zeros_in_front_are_the_same(tmp_path, raw):
    whole = prepared(tmp_path, "hm", options=OPTIONS).manifest.fingerprint
    write_bought(raw, [(day, who, item.lstrip("0")) for day, who, item in BOUGHT])
    again = prepared(tmp_path, "hm", options=OPTIONS)
    assert again.fresh
    assert again.manifest.fingerprint == whole


BAD = {
    ("transactions_train.csv", "20.09.2018,{0},0108775015,0.05,2"): "the day is '20.09.2018'",
    ("transactions_train.csv", "2018-09-20,,0108775015,0.05,2"): "the customer is empty",
    ("transactions_train.csv", "2018-09-20,{0},0108775015,0.05"): "has 4 fields, expected 5",
    ("customers.csv", "{1},,,ACTIVE,NONE,old,x"): "the age is 'old'",
    ("customers.csv", "{1},,,ACTIVE,NONE,-3,x"): "the age is '-3'",
    ("customers.csv", "{0},,,ACTIVE,NONE,49,x"): f"customer '{WHO[0]}' stands twice",
}


@pytest.mark.parametrize(("name", "line"), BAD)
def test_bad_rows(tmp_path, raw, name, line):
    path = raw / name
    lines = path.read_text().splitlines()
    write(path, "\n".join([*lines, line.format(WHO[0], "f" * 64)]) + "\n")
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "hm", options=OPTIONS)
    assert caught.value.problems[0].where == f"{path}:{len(lines) + 1}"
    assert BAD[name, line] in caught.value.problems[0].message
    made = prepared(tmp_path, "hm", options=OPTIONS, on_bad_row="skip")
    assert made.manifest.dropped[f"bad_rows/raw/{name}"] == 1


def test_a_header_that_lacks_a_column(tmp_path, raw):
    path = raw / "transactions_train.csv"
    write(path, path.read_text().replace("t_dat", "date"))
    with pytest.raises(InputError, match=r"transactions_train.csv: has no column 't_dat'"):
        prepared(tmp_path, "hm", options=OPTIONS)
