"""What inspect counts, against plain loops over the tables; and quantiles against numpy."""

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter, defaultdict

import numpy as np
import pyarrow.parquet as pq
import pytest
from raw_files import dataset, news, prepared, write

from legoray.config import DatasetConfig, build
from legoray.data.inspecting.bins import bars_of, curve_of
from legoray.data.inspecting.measure import measure
from legoray.data.inspecting.result import QUANTILES, Distribution, Inspection
from legoray.data.inspecting.rows import blocks_of
from legoray.data.inspecting.sections import percent, when
from legoray.data.inspecting.spread import gini
from legoray.data.inspecting.tally import SparseTally, Tally
from legoray.data.load import read_manifest
from legoray.data.prepare import prepare
from legoray.errors import DamagedError

CONFIG = build(DatasetConfig, {"name": "x", "path": "x", "processor": "x"})


def look(made, **keys) -> Inspection:
    return measure(made.tables, made.manifest, CONFIG, **keys)


class Plain:
    """The tables as Python objects."""

    def __init__(self, tables):
        self.splits = {}
        self.histories = [
            (row["user"], row["items"]) for row in pq.read_table(tables / "histories").to_pylist()
        ]
        self.items = pq.read_table(tables / "items").to_pylist()
        self.users = pq.read_table(tables / "users").num_rows
        for folder in sorted((tables / "interactions").iterdir()):
            rows = defaultdict(list)
            for row in pq.read_table(folder).to_pylist():
                rows[row["impression_id"]].append(row)
            self.splits[folder.name] = list(rows.values())

    def user(self, impression):
        return self.histories[impression[0]["history_id"]][0]

    def known_items(self):
        known = set()
        for rows in self.splits["train"]:
            known |= {row["item_id"] for row in rows if row["label"]}
            known |= set(self.histories[rows[0]["history_id"]][1][: rows[0]["history_end"]])
        return known


def as_counter(one: Distribution) -> dict[int, int]:
    assert one.values == sorted(one.values)
    return dict(zip(one.values, one.counts, strict=True))


def check_against_plain(found: Inspection, plain: Plain) -> None:
    train_users = {plain.user(rows) for rows in plain.splits["train"]}
    known, pairs = plain.known_items(), set()
    cold = {one.split: one for one in found.cold}
    for facts in found.splits:
        split = plain.splits[facts.name]
        shown = {row["item_id"] for rows in split for row in rows}
        clicked = {row["item_id"] for rows in split for row in rows if row["label"]}
        users = {plain.user(rows) for rows in split}
        pairs |= {(plain.user(r), row["item_id"]) for r in split for row in r if row["label"]}
        assert facts.impressions == len(split)
        assert facts.candidates == sum(map(len, split))
        assert facts.users == len(users)
        assert facts.items_shown == len(shown)
        assert facts.items_clicked == len(clicked)
        clicks = [sum(row["label"] for row in rows) for rows in split]
        assert facts.clicks == sum(clicks)
        assert as_counter(facts.clicks_each) == Counter(clicks)
        assert as_counter(facts.candidates_each) == Counter(map(len, split))
        assert as_counter(facts.history) == Counter(rows[0]["history_end"] for rows in split)
        if facts.labeled:
            one_sided = sum(c in (0, len(r)) for c, r in zip(clicks, split, strict=True))
            assert facts.one_sided == one_sided
        times = [rows[0]["time"] for rows in split if rows[0]["time"] >= 0]
        assert facts.first == min(times, default=None)
        assert facts.last == max(times, default=None)
        assert facts.untimed == len(split) - len(times)
        if facts.name == "train":
            check_popularity(found, split, len(plain.items))
            continue
        one = cold[facts.name]
        new = users - train_users
        assert (one.users, one.new_users) == (len(users), len(new))
        marked = {one.slice: one.impressions[facts.name] for one in found.slices}
        assert marked["cold-user"] == sum(plain.user(rows) in new for rows in split)
        assert marked["short-history"] == sum(rows[0]["history_end"] <= 5 for rows in split)
        assert (one.items, one.new_items) == (len(shown), len(shown - known))
        expected = (len(clicked), len(clicked - known)) if facts.labeled else (None, None)
        assert (one.clicked, one.new_clicked) == expected
    assert found.sparsity.pairs == len(pairs)
    assert found.sparsity.density == len(pairs) / (plain.users * len(plain.items))
    assert as_counter(found.stored) == Counter(len(items) for _, items in plain.histories)
    check_timeline(found, plain)


def check_popularity(found, train, items):
    clicks = Counter(row["item_id"] for rows in train for row in rows if row["label"])
    counts = sorted([*clicks.values(), *[0] * (items - len(clicks))], reverse=True)
    one = found.popularity
    assert (one.clicks, one.items, one.never) == (sum(counts), items, items - len(clicks))
    for name, share in one.head.items():
        size = -(-items * int(name[:-1]) // 100)
        assert share == pytest.approx(sum(counts[:size]) / sum(counts))
    limit = 0.8 * sum(counts)  # the head: items with fewer clicks before them than that
    before = {count: sum(c for c in counts if c > count) for count in set(counts) if count}
    assert one.head_items == sum(before[c] < limit for c in counts if c)
    assert one.at_rank == [counts[rank - 1] for rank in one.ranks]
    assert (one.ranks[0], one.ranks[-1]) == (1, len(clicks))
    differences = np.abs(np.subtract.outer(counts, counts)).sum()
    assert one.gini == pytest.approx(differences / (2 * items * sum(counts)))


def check_timeline(found, plain):
    one = found.timeline
    if one is None:
        assert all(rows[0]["time"] < 0 for split in plain.splits.values() for rows in split)
        return
    for name, split in plain.splits.items():
        times = [rows[0]["time"] for rows in split if rows[0]["time"] >= 0]
        periods = Counter((time - one.start) // one.seconds for time in times)
        assert {i: c for i, c in enumerate(one.counts.get(name, [])) if c} == periods


def check_texts(found, plain):
    for one in found.texts:
        if one.of != "items":
            continue
        texts = [row[one.name] for row in plain.items]
        some = [text for text in texts if text.split()]
        assert (one.count, one.empty, one.missing) == (len(texts), len(texts) - len(some), 0)
        assert one.distinct == len(set(some))
        assert as_counter(one.words) == Counter(len(text.split()) for text in some)
        assert as_counter(one.characters) == Counter(map(len, some))


def test_the_embedded_corpus_against_plain_loops(sample_tables):
    plain = Plain(sample_tables)
    found = measure(sample_tables, read_manifest(sample_tables), CONFIG)
    check_against_plain(found, plain)
    check_texts(found, plain)
    assert {split.name for split in found.splits} == {"train", "valid", "test"}
    assert not any(split.alone for split in found.splits)


def test_real_movielens_against_plain_loops(tmp_path, home, real_data):
    folder = real_data("movielens", "ml-latest-small")
    options = {"negatives": 2, "release": "latest-small"}
    yaml = dataset(tmp_path, "movielens", raw=str(folder), options=options)
    made = prepare(yaml, say=lambda line: None)
    plain = Plain(made.tables)
    found = look(made)
    check_against_plain(found, plain)
    check_texts(found, plain)
    assert found.sparsity.users == 609
    assert {one.name: one.origin for one in found.texts}["title"] == "the data"


MOVIES = 12
RATINGS = [(u, m, 4 + (u + m) % 2) for u in range(7) for m in range(u % 4, MOVIES)]


def write_ratings(raw):
    films = [f"{m},{'Film ' * (m % 3)}{m} (1990),Drama" for m in range(MOVIES)]
    write(raw / "movies.csv", "\n".join(["movieId,title,genres", *films]) + "\n")
    rows = [f"{u},{m},{v},{1000 * u + 7 * m}" for u, m, v in RATINGS]
    write(raw / "ratings.csv", "\n".join(["userId,movieId,rating,timestamp", *rows]) + "\n")


def test_clicks_that_are_ranked_against_all_items(tmp_path, home):
    write_ratings(tmp_path / "raw")
    options = {"split": "leave-last-out", "candidates": "all", "negatives": 2}
    made = prepared(tmp_path, "movielens", options=options)
    found = look(made)
    check_against_plain(found, Plain(made.tables))
    assert [split.alone for split in found.splits] == [False, True, True]
    assert found.examples[0].alone
    assert [c.clicked for c in found.examples[0].candidates] == [True]


def test_data_without_times(tmp_path, home):
    write_ratings(tmp_path / "raw")
    options = {"split": "leave-random-out", "negatives": 2}
    made = prepared(tmp_path, "movielens", options=options)
    found = look(made)
    check_against_plain(found, Plain(made.tables))
    assert found.timeline is None
    assert all(split.first is None and split.untimed for split in found.splits)
    assert found.examples[0].time is None


def test_an_unlabeled_split(tmp_path, home):
    keys = [f"N{n}" for n in range(9)]
    for part in ("train", "dev", "test"):
        write(tmp_path / f"raw/{part}/news.tsv", news(*keys))
        mark = "" if part == "test" else "-{}"
        lines = [
            f"{row + 1}\tU{row % 5}\t11/1{row % 5}/2019 1:0{row % 10}:00 PM\tN{row % 9} N0\t"
            + " ".join(f"N{(row + i) % 9}{mark.format(int(i == row % 3))}" for i in range(4))
            for row in range(30)
        ]
        write(tmp_path / f"raw/{part}/behaviors.tsv", "\n".join(lines) + "\n")
    made = prepared(tmp_path, "mind", options={"test": "test"})
    assert made.manifest.labeled["test"] is False
    found = look(made, examples=2)
    check_against_plain(found, Plain(made.tables))
    test = found.splits[-1]
    assert (test.name, test.labeled, test.clicks, test.alone) == ("test", False, 0, False)


def test_impressions_that_files_cut_in_two_are_counted_once(sample_tables, tmp_path):
    tables = tmp_path / "tables"
    shutil.copytree(sample_tables, tables)
    manifest = json.loads((tables / "manifest.json").read_text())
    file = next(name for name in manifest["files"] if name.startswith("interactions/valid/"))
    whole = pq.read_table(tables / file)
    (tables / file).unlink()
    cuts = np.random.default_rng(0).choice(np.arange(1, len(whole)), 900, replace=False)
    bounds = [0, *sorted(cuts.tolist()), len(whole)]
    names = [f"interactions/valid/part-{n:05d}.parquet" for n in range(len(bounds) - 1)]
    for name, (begin, end) in zip(names, itertools.pairwise(bounds), strict=True):
        pq.write_table(whole.slice(begin, end - begin), tables / name)
    manifest["files"] = [name for name in manifest["files"] if name != file] + names
    (tables / "manifest.json").write_text(json.dumps(manifest))
    count = manifest["counts"]["impressions/valid"]
    known = read_manifest(tables)
    assert sum(len(block.id) for block in blocks_of(tables, known, "valid")) == count
    check_against_plain(measure(tables, known, CONFIG), Plain(tables))
    (tables / names[-1]).unlink()
    fewer = known.model_copy(update={"files": [f for f in known.files if f != names[-1]]})
    with pytest.raises(DamagedError, match="by the manifest"):
        measure(tables, fewer, CONFIG)
    with pytest.raises(DamagedError, match="is missing"):
        measure(tables, known, CONFIG)


def test_examples_are_what_the_tables_say(sample_tables):
    manifest = read_manifest(sample_tables)
    plain = Plain(sample_tables)
    title = [row["title"] for row in plain.items]
    keys = [row["key"] for row in pq.read_table(sample_tables / "users").to_pylist()]
    found = measure(sample_tables, manifest, CONFIG, examples=20, seed=3).examples
    again = measure(sample_tables, manifest, CONFIG, examples=20, seed=3).examples
    other = measure(sample_tables, manifest, CONFIG, examples=20, seed=4).examples
    assert found == again != other
    assert len(found) == 20
    by_id = {rows[0]["impression_id"]: rows for rows in plain.splits["valid"]}
    for one in found:
        rows = by_id[one.impression]
        user, items = plain.histories[rows[0]["history_id"]]
        past = items[: rows[0]["history_end"]]
        assert one.user == keys[user]
        assert one.time == rows[0]["time"]
        assert one.history == [title[n - 1] for n in past[-8:]] if past else one.history == []
        assert (one.history_length, one.candidates_count) == (len(past), len(rows))
        clicks_first = sorted(rows, key=lambda row: -row["label"])[:12]
        shown = [(title[row["item_id"] - 1], bool(row["label"])) for row in clicks_first]
        assert [(c.text, c.clicked) for c in one.candidates] == shown


def test_texts_that_are_blank_repeat_or_have_odd_spaces(tmp_path, home):
    texts = [
        "a b  c\u00a0d\u3000e",
        "",
        "  ",
        "twice",
        "twice",
        "x\u2028y\x1cz",
        "日本 語",
        "twice",
    ]
    rows = [{"id": str(i), "text": text} for i, text in enumerate(texts)]
    write(tmp_path / "raw/items.jsonl", "\n".join(map(json.dumps, rows)) + "\n")
    lines = [{"user": u, "items": " ".join("1234567"[u:])} for u in range(3)]
    write(tmp_path / "raw/users.jsonl", "\n".join(map(json.dumps, lines)) + "\n")
    options = {
        "items": {"file": "items.jsonl", "key": "id", "attributes": ["text"]},
        "sequences": {"file": "users.jsonl"},
        "negatives": 1,
    }
    made = prepared(tmp_path, "sequences", options=options)
    found = look(made)
    (one,) = found.texts
    some = [text for text in texts if text.split()]
    assert as_counter(one.words) == Counter(len(text.split()) for text in some)
    assert (one.empty, one.distinct, one.words.count) == (2, len(set(some)), len(some))
    blank = [c.text for e in found.examples for c in e.candidates] + found.examples[0].history
    assert not any(text.strip() == "" for text in blank)


def test_written_attributes_are_counted_with_what_is_missing(tmp_path, home):
    write_ratings(tmp_path / "raw")
    texts = "".join(f"{m},{'word ' * m}\n" for m in range(4))
    write(tmp_path / "raw/more.csv", f"id,text\n{texts}")
    source = {"file": "more.csv", "key": "id", "columns": {"text": "summary"}, "missing": "empty"}
    made = prepared(tmp_path, "movielens", attributes=[source], options={"negatives": 1})
    one = next(one for one in look(made).texts if one.name == "summary")
    assert one.count == MOVIES
    assert one.empty + one.missing == MOVIES - 3
    assert as_counter(one.words) == {1: 1, 2: 1, 3: 1}
    assert one.origin.startswith("more.csv (sha256 ")


@pytest.mark.parametrize("seed", range(3))
def test_quantiles_are_numpys(seed):
    random = np.random.default_rng(seed)
    numbers = random.geometric(0.05, int(random.integers(1, 300))) - 1
    tally = Tally()
    for part in np.array_split(numbers, 3):
        tally.add(part)
    one = tally.distribution()
    expected = [np.quantile(numbers, q, method="inverted_cdf") for q in QUANTILES]
    assert one.quantiles() == expected
    assert one.mean == pytest.approx(numbers.mean())
    assert (one.count, one.total, one.of(0)) == (len(numbers), numbers.sum(), (numbers == 0).sum())


def test_nothing_has_a_distribution_too():
    one = Tally().distribution()
    assert (one.count, one.mean, one.quantiles()) == (0, 0.0, [0] * len(QUANTILES))


def test_sparse_tallies_add_up():
    random = np.random.default_rng(0)
    numbers = 400_000 + random.integers(0, 50, 500)
    tally = SparseTally()
    for part in np.array_split(numbers, 7):
        tally.add(part)
    found = dict(zip(tally.numbers.tolist(), tally.counts.tolist(), strict=True))
    assert found == Counter(numbers.tolist())


def test_gini_at_its_ends():
    assert gini(np.array([3, 3, 3])) == pytest.approx(0)
    assert gini(np.array([0, 0, 0, 8])) == pytest.approx(3 / 4)  # (n - 1) / n
    assert gini(np.zeros(4, np.int64)) == 0


@pytest.mark.parametrize("most", [0, 1, 29, 30, 31, 400, 12345])
def test_bars_and_curves_hold_everything(most):
    random = np.random.default_rng(most)
    numbers = [random.integers(0, most + 1, 500), random.geometric(0.3, 200)]
    several = []
    for some in numbers:
        tally = Tally()
        tally.add(some)
        several.append(tally.distribution())
    bars = bars_of(several)
    assert len(bars.names) <= 31
    for shares, some in zip(bars.shares, numbers, strict=True):
        assert sum(shares) == pytest.approx(100, abs=0.1)
        for name, share in zip(bars.names, shares, strict=True):
            low, _, high = name.rstrip("+").partition("-")
            inside = some >= int(low)
            if not name.endswith("+"):
                inside &= some <= int(high or low)
            assert share == pytest.approx(100 * inside.mean(), abs=0.001)
    x, y = curve_of(several[1])
    assert sum(y) == pytest.approx(100, abs=0.1)
    assert all(a < b for a, b in itertools.pairwise(x))


def test_shares_say_all_and_nothing_only_where_it_is_so():
    assert [percent(*pair) for pair in ((0, 9), (9, 9), (0, 0))] == ["0%", "100%", "0%"]
    assert percent(1, 100_000) == "0.1%"
    assert percent(99_999, 100_000) == "99.9%"
    assert percent(1, 3) == "33.3%"


def test_any_second_has_a_date():
    assert when(0) == "1970-01-01 00:00"
    assert when(1_600_000_000_000).startswith("52671-")  # milliseconds taken for seconds
    assert when(None) == "-"


def test_tokens_that_were_made_before(tmp_path, home, sample_tables):
    from legoray.data.tokens import open_table, open_word_tokenizer

    tables = tmp_path / "tables"
    shutil.copytree(sample_tables, tables)
    shutil.rmtree(tables / "tokens", ignore_errors=True)
    manifest = read_manifest(tables)
    tokenizer = open_word_tokenizer(tables, ["title", "abstract"], 1)
    for attribute, length in (("title", 6), ("title", 50), ("abstract", 50)):
        open_table(tables, attribute, length=length, tokenizer=tokenizer, shift=1)
    found = {one.name: one for one in measure(tables, manifest, CONFIG, examples=0).texts}
    assert [one.length for one in found["title"].tokens] == [6, 50]
    assert [len(found[name].tokens) for name in ("abstract", "category")] == [1, 0]
    for name in ("title", "abstract"):
        texts = [row[name] for row in pq.read_table(tables / "items").to_pylist()]
        counts = [len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts]
        for one in found[name].tokens:
            assert as_counter(one.tokens) == Counter(min(c, one.length) for c in counts)
            assert one.tokenizer.startswith("WordLevel of ")
    file = next((tables / "tokens").glob("*/tokens.safetensors"))
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(DamagedError, match="delete the folder"):
        measure(tables, manifest, CONFIG)
