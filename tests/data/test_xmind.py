"""MIND in another language: xMIND's titles in place of the English ones, and never in between."""

from __future__ import annotations

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from log_rows import arrived
from raw_files import prepared
from raw_mind import write_raw, write_xmind
from worlds import world

from legoray.data.load import load_items
from legoray.errors import InputError

FINNISH = {"titles": "xMIND/fin"}


@pytest.fixture
def raw(tmp_path):
    write_xmind(tmp_path / "raw", world())
    return tmp_path / "raw"


def path_of(raw, part):
    return raw / f"xMIND/fin/xMINDsmall_{part}/news.tsv"


def texts_of(made) -> dict[str, tuple[str, str]]:
    rows = load_items(made.tables, ["key", "title", "abstract"]).to_pylist()
    return {row["key"]: (row["title"], row["abstract"]) for row in rows}


def test_all_titles_are_the_translated_ones(tmp_path, home, raw):
    english = prepared(tmp_path, "mind")
    made = prepared(tmp_path, "mind", options=FINNISH)
    assert texts_of(english) != texts_of(made)
    titles = {key: title for key, (title, _) in texts_of(made).items()}
    assert titles == {item.key: f"{item.title} (fin)" for item in world().items}
    for split in ("train", "valid", "test"):
        assert arrived(made, split) == arrived(english, split)
    counts = made.manifest.counts
    assert (counts["raw/titles/train"], counts["raw/titles/dev"]) == (27, 25)
    assert counts["translated_items"] == 30
    assert made.manifest.dropped == {}


def test_a_missing_translation_is_refused(tmp_path, home, raw):
    for part in ("train", "dev"):
        rows = path_of(raw, part).read_text().splitlines()
        path_of(raw, part).write_text("\n".join(r for r in rows if "1010\t" not in r) + "\n")
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, "mind", options=FINNISH)
    first, summary = caught.value.problems
    assert first.where == f"{raw / 'MINDsmall_train/news.tsv'}:10"
    assert first.message == "news '1010' has no translated title"
    assert summary.message == "1 of 30 news have no translated title"
    assert "untranslated: english" in summary.hint


def test_a_missing_translation_may_stay_in_english(tmp_path, home, raw):
    texts = texts_of(prepared(tmp_path, "mind"))
    rows = [line.split("\t") for line in path_of(raw, "train").read_text().splitlines()]
    assert (rows[6][0], rows[7][0], rows[13][0]) == ("1006", "1007", "1013")
    rows[6][1] = " "  # no title: both of its texts stay as they are
    rows[7][2] = ""  # no abstract beside its title: it has none, rather than an English one
    rows.append(["1999", "Otsikko", ""])
    text = "".join("\t".join(row) + "\n" for row in rows)
    path_of(raw, "train").write_text(text)
    options = FINNISH | {"untranslated": "english"}
    made = prepared(tmp_path, "mind", options=options)
    found = texts_of(made)
    assert found["1006"] == texts["1006"]
    assert texts["1007"][1]
    assert found["1007"][0].endswith("(fin)")
    assert found["1007"][1] == ""
    assert made.manifest.dropped == {
        "untranslated_news_kept_in_English": 1,
        "abstracts_without_a_translation": 1,
        "translations_of_unknown_news": 1,
    }


def test_without_quotes_and_without_a_header(tmp_path, home, raw):
    plain = prepared(tmp_path, "mind", options=FINNISH).manifest.fingerprint
    for part in ("train", "dev"):
        rows = [line.split("\t") for line in path_of(raw, part).read_text().splitlines()[1:]]
        assert any(field.startswith('"') for row in rows for field in row)
        bare = [[f[1:-1].replace('""', '"') if f.startswith('"') else f for f in r] for r in rows]
        path_of(raw, part).write_text("".join("\t".join(row) + "\n" for row in bare))
    again = prepared(tmp_path, "mind", options=FINNISH)
    assert again.fresh
    assert again.manifest.fingerprint == plain


def test_as_parquet(tmp_path, home, raw):
    """The copies on the Hugging Face hub have the same columns."""
    plain = prepared(tmp_path, "mind", options=FINNISH).manifest.fingerprint
    w = world()
    for part, items in (("train", w.items[:-3]), ("dev", w.items[:4:-1])):
        shutil.rmtree(path_of(raw, part).parent)
        abstracts = [None if n % 5 == 0 else f"{i.text} (fin)" for n, i in enumerate(items)]
        table = pa.table({
            "nid": [i.key for i in items], "title": [f"{i.title} (fin)" for i in items],
            "abstract": abstracts,
        })  # fmt: skip
        pq.write_table(table, raw / f"xMIND/fin/{part}.parquet.gzip", compression="gzip")
    again = prepared(tmp_path, "mind", options=FINNISH)
    assert again.fresh
    assert again.manifest.fingerprint == plain


def test_another_language_makes_other_tables(tmp_path, home, raw):
    first = prepared(tmp_path, "mind", options=FINNISH)
    shutil.copytree(raw / "xMIND/fin", raw / "xMIND/ron")
    second = prepared(tmp_path, "mind", options={"titles": "xMIND/ron"})
    assert second.tables != first.tables


MISSING = {
    "the language": ("xMIND/ron", r"xMIND/ron: no such folder \(there is a 'fin' beside it|"
                     r"xMIND/ron: no such folder"),
    "the part": ("xMIND/fin", r"xMIND/fin/xMINDsmall_dev: no such folder"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISSING)
def test_missing_files(tmp_path, home, raw, case):
    titles, message = MISSING[case]
    shutil.rmtree(path_of(raw, "dev").parent)
    with pytest.raises(InputError, match=message):
        prepared(tmp_path, "mind", options={"titles": titles})


def test_still_zipped(tmp_path, home, raw):
    shutil.rmtree(path_of(raw, "dev").parent)
    (raw / "xMIND/fin/xMINDsmall_dev.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match=r"xMINDsmall_dev.zip: is still zipped"):
        prepared(tmp_path, "mind", options=FINNISH)


def test_bad_rows(tmp_path, home, raw):
    with path_of(raw, "dev").open("a") as file:
        file.write("1007\tToinen\t\n")
    with pytest.raises(InputError, match=r"news.tsv:27: news id '1007' stands twice"):
        prepared(tmp_path, "mind", options=FINNISH)
    made = prepared(tmp_path, "mind", options=FINNISH, on_bad_row="skip")
    assert made.manifest.dropped == {"bad_rows/xMINDsmall_dev/news.tsv": 1}


def test_titles_of_a_world_without_translations_are_english(tmp_path, home):
    write_raw(tmp_path / "raw", world())
    made = prepared(tmp_path, "mind")
    assert {t for t, _ in texts_of(made).values()} == {item.title for item in world().items}
    assert "translated_items" not in made.manifest.counts
