"""Written attributes: attached or generated, read like raw ones, and never taken for others."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from raw_files import dataset, write
from typer.testing import CliRunner

from legoray.cli import app
from legoray.data.evidence import evidence_of
from legoray.data.fields import open_fields
from legoray.data.load import load_items, load_users, read_manifest
from legoray.data.prepare import prepare
from legoray.data.tokenization import word_tokenizer
from legoray.data.tokens import open_table, open_word_tokenizer
from legoray.data.written import (
    Provenance,
    WrittenMeta,
    read_meta,
    write_meta,
    write_part,
    written_folder,
)
from legoray.errors import InputError

OPTIONS = {
    "items": {"file": "items.csv", "key": "id"},
    "histories": {"file": "histories.jsonl"},
    "interactions": {"file": "seen.csv", "split": "part", "time": None},
}
DESCRIBED = {"file": "more.csv", "key": "bid", "columns": {"desc": "description"}}
TEXTS = 'bid,desc\n7,"Ships, and a storm"\nb,Bread\nc,"Two\nlines"\nzz,Unknown\n'


def raw(folder, more=TEXTS):
    write(folder / "raw/items.csv", "id,title\n7,Seven\nb,Bees\nc,Sea\n")
    write(folder / "raw/histories.jsonl", '{"user": 1, "items": ["7", "b"]}\n')
    rows = ["1,7,1,1,train", "1,b,0,1,train", "1,c,1,2,valid", "2,7,1,3,test", "2,b,0,3,test"]
    write(folder / "raw/seen.csv", "user,item,label,impression,part\n" + "\n".join(rows) + "\n")
    write(folder / "raw/more.csv", more)


def made(folder, *attributes, said=None, **keys):
    path = dataset(folder, "own", options=OPTIONS, attributes=list(attributes), **keys)
    return prepare(path, say=said.append if said is not None else lambda line: None)


def generate(home, texts, attribute="summary", of="items", status="written", source="p"):
    folder = written_folder(home, "tiny", attribute)
    rows = [{"key": k, "source": source, "text": t, "status": status} for k, t in texts.items()]
    write_part(folder, pa.Table.from_pylist(rows))
    write_meta(folder, WrittenMeta(attribute=attribute, of=of, provenance=Provenance(model="m")))
    return folder


def column(prepared, name):
    return load_items(prepared.tables, [name])[name].to_pylist()


def test_a_file_is_attached_and_read_like_a_column(tmp_path, home):
    raw(tmp_path)
    plain, said = made(tmp_path), []
    prepared = made(tmp_path, DESCRIBED, said=said, text=["description"])
    manifest = prepared.manifest
    assert not prepared.fresh  # the tables themselves were not made again
    assert column(prepared, "description") == ["Ships, and a storm", "Bread", "Two\nlines"]
    both = load_items(prepared.tables, ["description", "key", "title"])
    assert both.column_names == ["description", "key", "title"]
    assert manifest.attributes == ["title", "description"]
    assert manifest.text == ["description"]
    assert manifest.fingerprint == plain.manifest.fingerprint
    known = manifest.written["description"]
    assert known.counts == {"texts": 3, "missing": 0, "unknown_keys": 1}
    assert known.provenance.file == "more.csv"
    assert len(known.provenance.sha256) == 64
    told = "attribute 'description' (attached): 3 of 3 items, all of them, have a text"
    assert said == [f"{told}; unknown keys: 1"]
    with pytest.raises(InputError, match="did you mean 'description'"):
        load_items(prepared.tables, ["descripton"])
    with pytest.raises(InputError, match="did you mean 'description'"):
        made(tmp_path, DESCRIBED, text=["descripton"])
    detached = made(tmp_path)
    assert detached.manifest.attributes == ["title"]
    assert detached.manifest.text == ["title"]


@pytest.mark.parametrize("name", ["block", "line", "problem"])
def test_columns_may_have_names_that_rows_once_had_inside(tmp_path, home, name):
    raw(tmp_path, TEXTS.replace("desc", name))
    write(tmp_path / "raw/items.csv", f"id,title,{name}\n7,Seven,1\nb,Bees,2\nc,Sea,3\n")
    columns = {name: "description"}
    prepared = made(tmp_path, {**DESCRIBED, "columns": columns}, text=["title"])
    assert column(prepared, name) == ["1", "2", "3"]
    assert column(prepared, "description") == ["Ships, and a storm", "Bread", "Two\nlines"]
    raw(tmp_path)
    prepared = made(tmp_path, {**DESCRIBED, "columns": {"desc": name}}, text=["title", name])
    assert column(prepared, name) == ["Ships, and a storm", "Bread", "Two\nlines"]


def test_nothing_is_done_twice_and_a_changed_text_is_another_attribute(tmp_path, home):
    raw(tmp_path)
    first = made(tmp_path, DESCRIBED)
    manifest = first.tables / "manifest.json"
    state = manifest.stat().st_mtime_ns
    said = []
    assert made(tmp_path, DESCRIBED, said=said).manifest == first.manifest
    assert (said, manifest.stat().st_mtime_ns) == ([], state)
    words = word_tokenizer(["ships bread stale two lines and a storm"])
    kept = open_table(first.tables, "description", length=9, tokenizer=words, shift=0)
    titles = open_word_tokenizer(first.tables, ["title"], 1).to_str()
    before = open_word_tokenizer(first.tables, ["title", "description"], 1).to_str()
    raw(tmp_path, TEXTS.replace("Bread", "Stale bread"))
    again = made(tmp_path, DESCRIBED)
    assert again.tables == first.tables
    assert again.manifest.fingerprint == first.manifest.fingerprint
    prints = [m.written["description"].fingerprint for m in (first.manifest, again.manifest)]
    assert prints[0] != prints[1]
    found = open_table(again.tables, "description", length=9, tokenizer=words, shift=0)
    assert np.diff(kept.offsets.numpy()).tolist() == [0, 4, 1, 2]
    assert np.diff(found.offsets.numpy()).tolist() == [0, 4, 2, 2]
    assert open_word_tokenizer(again.tables, ["title", "description"], 1).to_str() != before
    assert open_word_tokenizer(again.tables, ["title"], 1).to_str() == titles


def test_generated_texts_are_taken_in_and_refused_ones_are_missing(tmp_path, home):
    raw(tmp_path)
    made(tmp_path)
    folder = generate(home, {"7": "One", "b": "Two", "gone": "Three"})
    prepared = made(tmp_path)
    assert prepared.manifest.text == ["title"]  # nothing is read before the YAML names it
    said: list[str] = []
    with pytest.raises(InputError, match=r"'summary' has no text for 1 of 3 items, such as c"):
        column(prepared, "summary")
    generate(home, {"c": "I cannot help with that"}, status="refused")
    prepared = made(tmp_path, {"name": "summary", "missing": "empty"}, said=said)
    assert column(prepared, "summary") == ["One", "Two", ""]
    assert said[0].startswith("attribute 'summary' (generated): 2 of 3 items have a text; ")
    counts = prepared.manifest.written["summary"].counts
    assert (counts["texts"], counts["missing"], counts["refused"]) == (2, 1, 1)
    assert prepared.manifest.written["summary"].provenance.model == "m"
    generate(home, {"c": "Sea again"}, source="q")
    prepared = made(tmp_path, text=["title", "summary"])
    assert column(prepared, "summary") == ["One", "Two", "Sea again"]
    for part in (folder / "parts").iterdir():
        part.write_bytes(part.read_bytes()[:-3])
    with pytest.raises(InputError, match="is damaged") as caught:
        made(tmp_path, text=["title", "summary"])
    assert len(caught.value.problems) == 3


def test_fields_and_users(tmp_path, home):
    raw(tmp_path)
    write(
        tmp_path / "raw/who.log", '{"uid": 2, "likes": ["sea", "bread"]}\n{"uid": 1, "likes": []}\n'
    )
    who = {"file": "who.log", "format": "jsonl", "key": "uid", "of": "users", "missing": "empty",
           "columns": ["likes"]}  # fmt: skip
    prepared = made(tmp_path, who, DESCRIBED)
    assert load_users(prepared.tables, ["key", "likes"]).to_pylist() == [
        {"key": "1", "likes": ""}, {"key": "2", "likes": "sea, bread"},
    ]  # fmt: skip
    fields = open_fields(["user.likes", "item.description", "item.title"], prepared.tables)
    assert fields.codes["user.likes"].tolist() == [0, 1]
    assert fields.codes["item.description"].tolist() == [0, 2, 1, 3]
    with pytest.raises(InputError, match="item attribute 'likes'"):
        load_items(prepared.tables, ["likes"])
    assert read_manifest(prepared.tables).user_attributes == ["likes"]


BAD = {
    "no such file": ({"file": "mroe.csv"}, TEXTS, "there is a 'more.csv' beside it"),
    "no key column": ({"key": "bidd"}, TEXTS, "has no column 'bidd' .is it 'bid'"),
    "tabs": ({}, TEXTS.replace(",", "\t"), r"if \"\\t\" separates them, say `separator: \"\\t\"`"),
    "twice": ({}, TEXTS + "b,Butter\n", r"more.csv:7: bid 'b' stands twice"),
    "no key": ({}, TEXTS + ",Butter\n", r"more.csv:7: the bid is empty"),
    "too many": ({}, TEXTS + "d,Butter, salt\n", r"more.csv:7: has 3 fields, the header has 2"),
    "encoding": ({}, TEXTS.encode() + b"d,caf\xe9\n", r"more.csv:7: is not UTF-8 text"),
    "zipped": ({}, b"\x1f\x8b\x08\x00", "is a gzip archive, plain text was expected"),
    "missing": ({}, "bid,desc\n7,x\nb, \n", r"has no text for 2 of 3 items, such as b, c"),
    "strangers": ({}, "bid,desc\n1,x\n2,x\n", r"none of its 2 keys is one of the items'"),
    "raw name": ({"columns": {"desc": "title"}}, TEXTS, r"'title' cannot be a written attribute"),
    "no columns": ({"columns": []}, TEXTS, "a file needs `key` and `columns`"),
    "no setting": ({"kye": "bid"}, TEXTS, r"unknown key 'kye' .did you mean 'key'"),
    "two of one name": ({"columns": {"desc": "x", "bid": "x"}}, TEXTS, "an attribute twice"),
    "both": ({"name": "x"}, TEXTS, "needs either `file` or `name`"),
    "ending": ({"file": "items.txt"}, TEXTS, "has the ending '.txt'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_attributes_are_refused(tmp_path, home, name):
    change, text, message = BAD[name]
    raw(tmp_path, text)
    write(tmp_path / "raw/items.txt", "id,title\n")
    with pytest.raises(InputError, match=message):
        made(tmp_path, DESCRIBED | change)
    made(tmp_path)  # the tables are none the worse


def test_what_is_no_value_is_missing(tmp_path, home):
    raw(tmp_path)
    lines = ['{"bid": 7, "desc": NaN}', '{"bid": "b", "desc": null}', '{"bid": "c", "desc": "nan"}']
    write(tmp_path / "raw/more.jsonl", "\n".join(lines) + "\n")
    prepared = made(tmp_path, DESCRIBED | {"file": "more.jsonl", "missing": "empty"})
    assert column(prepared, "description") == ["", "", "nan"]
    table = pa.table({"bid": [7.0, 8.0], "desc": ["Seven", None]})
    pq.write_table(table, tmp_path / "raw/more.parquet")
    prepared = made(tmp_path, DESCRIBED | {"file": "more.parquet", "missing": "empty"})
    assert column(prepared, "description") == ["Seven", "", ""]
    (tmp_path / "raw/more.parquet").rename(tmp_path / "raw/more.data")
    named = {"file": "more.data", "format": "parquet", "missing": "empty"}
    assert column(made(tmp_path, DESCRIBED | named), "description") == ["Seven", "", ""]


def test_an_attribute_without_texts_yet(tmp_path, home):
    raw(tmp_path)
    write_meta(written_folder(home, "tiny", "later"), WrittenMeta(attribute="later"))
    known = made(tmp_path).manifest.written["later"]
    assert known.counts == {"texts": 0, "missing": 3, "unknown_keys": 0}


def test_bad_rows_may_be_left_out(tmp_path, home):
    raw(tmp_path, TEXTS + "b,Butter\n,Salt\n")
    prepared = made(tmp_path, DESCRIBED, on_bad_row="skip")
    assert column(prepared, "description")[1] == "Bread"
    assert prepared.manifest.written["description"].counts["bad_rows/raw/more.csv"] == 2


def test_generated_names_are_checked(tmp_path, home):
    raw(tmp_path)
    with pytest.raises(InputError, match="`legoray augment` writes them"):
        made(tmp_path, {"name": "summary"})
    generate(home, {"7": "One"})
    with pytest.raises(InputError, match="did you mean 'summary'"):
        made(tmp_path, {"name": "sumary"})
    with pytest.raises(InputError, match=r"attributes\[1\]: 'summary' stands twice .first at"):
        made(tmp_path, {"name": "summary"}, {"name": "summary", "missing": "empty"})
    with pytest.raises(InputError, match=r"'description' cannot be a written attribute: .*another"):
        made(tmp_path, DESCRIBED, DESCRIBED)
    with pytest.raises(InputError, match="belongs to a `file`"):
        made(tmp_path, {"name": "summary", "key": "id"})
    generate(home, {"7": "One"}, attribute="title")
    with pytest.raises(InputError, match=r"'title' cannot be a written attribute.*with --as"):
        made(tmp_path)


def test_the_command_lists_all_of_them(tmp_path, home, monkeypatch):
    raw(tmp_path, TEXTS.replace("Bread", "Bread " * 30))
    generate(home, {"7": "One", "b": "Two"})
    path = dataset(tmp_path, "own", options=OPTIONS, attributes=[DESCRIBED], text=["description"])
    monkeypatch.setenv("COLUMNS", "200")
    done = CliRunner().invoke(app, ["attributes", str(path)])
    assert done.exit_code == 0
    lines = {line.split()[0]: line for line in done.output.splitlines() if line.split()}
    assert re.search(r"items +3 of 3 \(100%\) +the data +Seven", lines["title"])
    assert re.search(r"3 of 3 \(100%\) +more.csv \(sha256 \w{8}\) +Ships", lines["description*"])
    assert re.search(r"items +2 of 3 \(66%\) +m +One", lines["summary"])
    assert "`text: [description]`" in done.output


def test_replaced_texts_go_after_a_while(tmp_path, home):
    raw(tmp_path)
    first = made(tmp_path, DESCRIBED)
    folder = (first.tables / first.manifest.written["description"].files[0]).parent
    raw(tmp_path, TEXTS.replace("Bread", "Butter"))
    second = made(tmp_path, DESCRIBED)
    assert folder.exists(), "another process may be about to read it"
    os.utime(folder, (0, 0))
    raw(tmp_path, TEXTS.replace("Bread", "Salt"))
    made(tmp_path, DESCRIBED)
    assert not folder.exists()
    assert (second.tables / second.manifest.written["description"].files[0]).exists()


def test_a_damaged_attribute_is_named(tmp_path, home):
    raw(tmp_path)
    prepared = made(tmp_path, DESCRIBED)
    file = prepared.tables / prepared.manifest.written["description"].files[0]
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(InputError, match=r"attributes.*damaged"):
        made(tmp_path, DESCRIBED)


@pytest.mark.parametrize("damage", ["meta", "part", "keys"])
def test_a_generated_attribute_that_nothing_names_is_left_out_where_it_is_damaged(
    tmp_path, home, damage
):
    raw(tmp_path)
    folder = generate(home, {"zz": "Not one of these"} if damage == "keys" else {"7": "One"})
    if damage == "meta":
        (folder / "meta.json").write_text("{")
    elif damage == "part":
        next(folder.glob("parts/*.parquet")).write_bytes(b"PAR1")
    for _ in range(2):
        said: list[str] = []
        prepared = made(tmp_path, DESCRIBED, said=said)
        assert list(prepared.manifest.written) == ["description"]
        assert [line for line in said if line.startswith("attribute 'summary' is left out, as")]
    for keys in ({"text": ["summary"]}, {"attributes": [{"name": "summary"}]}):
        path = dataset(tmp_path, "own", options=OPTIONS, **keys)
        with pytest.raises(InputError, match="summary"):
            prepare(path, say=print)


def test_texts_of_another_data_set_of_this_name_are_not_taken_in(tmp_path, home):
    raw(tmp_path)
    first = made(tmp_path)
    folder = generate(home, {"7": "One", "b": "Two"})
    meta = read_meta(folder).model_copy(
        update={"evidence": evidence_of(first.tables, first.manifest)}
    )
    write_meta(folder, meta)
    write(tmp_path / "raw/items.csv", "id,title\n7,Seven\nb,Bumblebees\nc,Sea\n")  # edited
    assert list(made(tmp_path).manifest.written) == ["summary"]
    write(tmp_path / "raw/items.csv", "id,title\n7,Bread\nb,Butter\nc,Salt\nd,Sea\n")
    said: list[str] = []
    assert not made(tmp_path, said=said).manifest.written
    assert any("was written for other data of the name 'tiny'" in line for line in said)
    with pytest.raises(InputError, match=r"attributes\[0\]: 'summary' was written for other data"):
        made(tmp_path, {"name": "summary", "missing": "empty"})


def test_an_older_manifest_has_no_written_attributes(tmp_path, home):
    raw(tmp_path)
    prepared = made(tmp_path)
    path = prepared.tables / "manifest.json"
    content = json.loads(path.read_text())
    del content["written"]
    path.write_text(json.dumps(content))
    assert made(tmp_path).manifest == prepared.manifest
