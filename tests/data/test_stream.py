"""Streams of lines: whatever the size of the blocks, every row is read once and named truly."""

from __future__ import annotations

import gzip
import importlib
import json
from functools import partial

import pyarrow as pa
import pytest
from raw_files import prepared, write
from worlds import world

from legoray.data.badrows import BadRows
from legoray.data.engine import Engine
from legoray.data.files import RawFolder
from legoray.data.jsonlines import read_records, records
from legoray.data.lines import BLOCK, LINE, PROBLEM, Layout
from legoray.data.stream import (
    TextBlock,
    mapped,
    optional_source,
    read_fields,
    text_blocks,
    text_source,
)
from legoray.errors import InputError

SCHEMA = pa.schema(
    [
        ("user", pa.string()),
        ("stars", pa.float64()),
        ("time", pa.int64()),
        ("words", pa.list_(pa.string())),
        ("by", pa.list_(pa.struct([("id", pa.string())]))),
    ]
)
GOOD = [
    {"user": "a", "stars": 4, "time": 7, "words": ["x", "y"], "by": [{"id": "1", "role": ""}]},
    {"user": "é東", "stars": 4.5, "time": 8, "words": [], "other": {"deep": [1]}},
    {"user": 'quote " and \n line', "stars": 1.0, "time": 9, "words": None, "by": []},
    {"time": 10, "user": "d", "stars": 5},
]
SIZES = [1, 7, 50, 100, 1000]


def as_lines(rows, dump=json.dumps):
    return "".join(dump(row) + "\n" for row in rows)


def read(path, size=1 << 20, **how):
    parse = partial(read_records, schema=SCHEMA, **how)
    return pa.concat_tables(mapped(Engine(), parse, text_blocks(path, size)))


def expected(row):
    by = None if row.get("by") is None else [{"id": one["id"]} for one in row["by"]]
    return {**{name: row.get(name) for name in SCHEMA.names}, "by": by}


def plain(table):
    return table.select(SCHEMA.names).to_pylist()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_blocks_of_any_size_hold_every_line_once(tmp_path, size, ending):
    text = "one\n\ntwo é\r\n" + "long " * 30 + "\nno end"
    data = text.encode()
    path = write(tmp_path / f"x.txt{ending}", gzip.compress(data) if ending else data)
    blocks = list(text_blocks(path, size))
    assert b"".join(block.data for block in blocks) == data
    assert all(block.data.endswith(b"\n") for block in blocks[:-1])
    before = [b"".join(b.data for b in blocks[:n]).count(b"\n") for n in range(len(blocks))]
    assert [block.line for block in blocks] == before


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dump", [json.dumps, partial(json.dumps, ensure_ascii=False), repr])
def test_rows_of_any_form_come_out_alike(tmp_path, size, dump):
    text = as_lines(GOOD, dump).replace("\n", "\r\n\n")
    path = write(tmp_path / "x.json.gz", gzip.compress(text.encode()))
    rows = read(path, size, form="python" if dump is repr else "json")
    assert plain(rows) == [expected(row) for row in GOOD]
    assert rows[PROBLEM].null_count == len(GOOD)
    assert rows[LINE].to_pylist() == [0, 2, 4, 6]
    assert set(rows[BLOCK].to_pylist()) == {0}
    both = read(path, size, form="either")
    assert both.equals(rows)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    path = write(tmp_path / "x.json", b"\xef\xbb\xbf" + as_lines(GOOD).encode())
    assert plain(read(path, 3)) == [expected(row) for row in GOOD]


BAD = {
    '{"user": "a", "stars": 4': "is not JSON: Expecting ',' delimiter at column 25",
    '{"user": "a"} {"user": "b"}': "is not JSON: Extra data at column 15",
    '[{"user": "a"}]': "is not an object {...}",
    '{"user": {"id": 3}}': "its 'user' is {'id': 3}, expected a text",
    '{"stars": "five"}': "its 'stars' is 'five', expected a number",
    '{"stars": true}': "its 'stars' is True, expected a number",
    '{"time": 4.5}': "its 'time' is 4.5, expected a whole number",
    '{"time": 99999999999999999999}': "expected a whole number",
    '{"words": {"x": 1}}': "expected a list, each a text",
    '{"by": ["x"]}': "its 'by' is ['x'], expected a list, each an object {...}",
    '{"user": "\\udc80", "stars": "x"}': "its 'stars' is 'x'",
    '{"deep": ' + "[" * 100_000 + "}": "is not JSON that can be read",
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("size", [30, 1 << 20])
def test_only_the_line_at_fault_is_a_problem(tmp_path, bad, size):
    text = as_lines(GOOD[:2]) + bad + "\n" + as_lines(GOOD[2:])
    path = write(tmp_path / "x.json.gz", gzip.compress(text.encode()))
    rows = read(path, size)
    with pytest.raises(InputError) as caught:
        BadRows("fail", print).good(rows, path)
    assert caught.value.problems[0].where == f"{path}:3"
    assert BAD[bad] in caught.value.problems[0].message
    skipping = BadRows("skip", lambda line: None)
    assert plain(skipping.good(rows, path)) == [expected(row) for row in GOOD]
    assert skipping.drain() == {f"bad_rows/{tmp_path.name}/x.json.gz": 1}


@pytest.mark.parametrize("form", ["json", "python"])
def test_text_of_another_encoding_is_named(tmp_path, form):
    dump = {"json": partial(json.dumps, ensure_ascii=False), "python": repr}[form]
    text = as_lines(GOOD[:1], dump).encode() + dump({"skipped": "é"}).encode("latin-1")
    path = write(tmp_path / "x.json", text)
    rows = read(path, form=form)
    assert rows[PROBLEM].to_pylist() == [None, "is not UTF-8 text"]


def test_an_object_over_two_lines_is_not_taken_for_one(tmp_path):
    path = write(tmp_path / "x.json", '{"user":\n"a"}\n{"user": "b"}{"user": "c"}\n')
    assert [bool(problem) for problem in read(path)[PROBLEM].to_pylist()] == [True, True, True]


@pytest.mark.parametrize("bad", ["NaN", "null", '""', None])
def test_required_values(tmp_path, bad):
    name = "user" if bad == '""' else "stars"
    row = {key: value for key, value in GOOD[0].items() if key != name}
    text = json.dumps(row) if bad is None else json.dumps(row)[:-1] + f', "{name}": {bad}}}'
    path = write(tmp_path / "x.json", as_lines(GOOD) + text)
    for more in ("", "\nbad"):  # all at once, and line by line
        write(path, as_lines(GOOD) + text + more)
        problems = read(path, required=["user", "stars"])[PROBLEM].to_pylist()
        assert problems[:5] == [None] * 4 + [f"has no value of '{name}'"]


def test_values_of_a_near_type_are_understood(tmp_path):
    row = {"user": 12, "stars": "4.0", "time": 8.0, "words": "one", "by": [{"id": 7}]}
    path = write(tmp_path / "x.json", json.dumps(row))
    assert plain(read(path)) == [
        {"user": "12", "stars": 4.0, "time": 8, "words": ["one"], "by": [{"id": "7"}]}
    ]


HOSTILE = ["__import__('os').system('x')", "{'a': open('x')}", "{'user': 'a'", "(" * 3000, "{'a'}"]


@pytest.mark.parametrize("line", HOSTILE)
def test_literals_are_never_evaluated(tmp_path, line):
    path = write(tmp_path / "x.json", f"{{u'user': u'a', 'time': 10L}}\n{line}\n{{'user': 'b'}}")
    problems = read(path, form="python")[PROBLEM].to_pylist()
    assert "is not a Python literal" in problems[0]  # 10L was one of Python 2
    assert problems[1].startswith(("is not a Python literal", "is not an object"))
    assert problems[2] is None


def cut(data):
    return data[:-20]


def changed(data):
    return data[:40] + bytes([data[40] ^ 255]) + data[41:]


def followed(data):
    return data + b"and more"


@pytest.mark.parametrize("damage", [cut, changed, followed])
def test_damaged_gzip_is_refused(tmp_path, damage):
    data = gzip.compress(as_lines(GOOD * 500).encode())
    path = write(tmp_path / "x.json.gz", damage(data))
    with pytest.raises(InputError, match=r"x.json.gz: is a truncated or damaged gzip file") as told:
        read(path)
    assert "download it again" in str(told.value)


def test_rows_before_the_damage_come_first(tmp_path):
    data = gzip.compress(as_lines(GOOD * 500).encode())
    path = write(tmp_path / "x.json.gz", data[:-4])
    tables = mapped(Engine(), partial(read_records, schema=SCHEMA), text_blocks(path, 4000))
    assert plain(next(tables))[:4] == [expected(row) for row in GOOD]
    with pytest.raises(InputError, match="truncated"):
        list(tables)


def test_files_of_several_gzip_members(tmp_path):
    one, two = (gzip.compress(as_lines(part).encode()) for part in (GOOD[:1], GOOD[1:]))
    assert plain(read(write(tmp_path / "x.json.gz", one + two))) == [expected(r) for r in GOOD]


@pytest.mark.parametrize(
    ("name", "data"),
    [("x.gz", gzip.compress(b"", mtime=0)), ("x.json", b"")],
    ids=["gzip", "plain"],
)
def test_nothing_is_no_file(tmp_path, name, data):
    with pytest.raises(InputError, match="holds no lines"):
        list(text_blocks(write(tmp_path / name, data)))


def test_a_line_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("legoray.data.stream.LONGEST_LINE", 1 << 20)
    path = write(tmp_path / "x.json", "ok\n[" + "1," * (1 << 20))
    with pytest.raises(InputError, match=r"x.json:2: the line is longer than 1 MB"):
        list(text_blocks(path, 1 << 16))


def test_sources_by_either_name(tmp_path):
    raw = RawFolder(tmp_path, "path", "Ask the owner.")
    plain_text = write(tmp_path / "a.json", "x")
    packed = write(tmp_path / "b.json.gz", gzip.compress(b"x"))
    assert text_source(raw, "no.json.gz", "a.json.gz") == plain_text
    assert text_source(raw, "b.json") == packed
    raw.check()
    write(tmp_path / "c.json.gz", "{}")
    write(tmp_path / "d.json", gzip.compress(b"x"))
    (tmp_path / "e.json.gz").mkdir()
    write(tmp_path / "f.json.gz", b"")
    write(tmp_path / "h.json.gz.zip", b"PK")
    for name in "cdefgh":
        text_source(raw, f"{name}.json.gz")
    told = [str(problem).removeprefix(f"{tmp_path}/") for problem in raw.problems]
    assert "c.json.gz: is not a gzip file (if it is plain text, rename it to c.json" in told[0]
    assert "d.json: is a gzip archive, plain text was expected" in told[1]
    assert "e.json.gz: is a folder" in told[2]
    assert "f.json.gz: is empty" in told[3]
    assert "g.json.gz: no such file" in told[4]
    assert "h.json.gz: no such file (unzip" in told[5]


def test_a_source_that_need_not_be_there(tmp_path):
    raw = RawFolder(tmp_path, "path", "Ask the owner.")
    assert optional_source(raw, "a.json.gz") is None
    raw.check()
    write(tmp_path / "a.json.zip", b"PK")
    assert optional_source(raw, "a.json.gz") is not None
    assert "a.json.gz: no such file (unzip" in str(raw.problems[0])
    assert optional_source(raw, "b.json.gz") is None
    plain_text = write(tmp_path / "b.json", "x")
    assert optional_source(raw, "b.json.gz") == plain_text


def test_a_file_of_other_keys_is_told_at_once(tmp_path):
    path = write(tmp_path / "x.json", "not json\n" + as_lines([{"users": "a", "stars": 3}] * 3))
    with pytest.raises(InputError) as caught:
        records(path, SCHEMA, ["user", "time"])
    assert [str(problem) for problem in caught.value.problems] == [
        f"{path}: has no key 'user' (is it 'users'?)",
        f"{path}: has no key 'time' (its keys: users, stars)",
    ]


def test_fields_of_text_lines(tmp_path):
    path = write(tmp_path / "x.csv.gz", gzip.compress(b"a,b\n\n1,2\r\nbad\n\xff,4\n"))
    parse = partial(read_fields, layout=Layout(("one", "two"), ",", "commas"))
    rows = pa.concat_tables(mapped(Engine(), parse, text_blocks(path, 5)))
    assert rows["two"].to_pylist() == ["b", "2", None, None]
    assert rows[LINE].to_pylist() == [0, 2, 3, 4]
    assert "has 1 field" in rows[PROBLEM][2].as_py()
    assert rows[PROBLEM][3].as_py() == "is not UTF-8 text"


def test_few_blocks_are_in_memory(tmp_path):
    path = write(tmp_path / "x.txt", b"0123456789\n" * 1000)
    seen = []

    def noted():
        for number, block in enumerate(text_blocks(path, 110)):
            seen.append(number)
            yield block

    window = 0
    for number, _ in enumerate(mapped(Engine(), _empty, noted())):
        window = max(window, len(seen) - number)
    assert len(seen) == 100
    assert window <= 2 * 8  # twice the threads, however many blocks there are


@pytest.mark.slow
@pytest.mark.cluster
def test_ray_gives_the_same(tmp_path, home, monkeypatch):
    from legoray.rayinit import ensure_ray

    ensure_ray(num_cpus=2)
    for name in ("amazon", "steam"):  # what they hand to their tasks pickles
        family = importlib.import_module(f"raw_{name}")
        family.write_raw(tmp_path / name / "raw", world())
        prints = set()
        for wish in ("never", "always"):
            monkeypatch.setenv("LEGORAY_RAY_DATA", wish)
            monkeypatch.setenv("LEGORAY_HOME", str(tmp_path / wish))
            made = prepared(tmp_path / name, name, options=family.OPTIONS)
            prints.add(made.manifest.fingerprint)
        assert len(prints) == 1
    path = write(tmp_path / "x.json.gz", gzip.compress(as_lines([*GOOD * 50, "bad"]).encode()))
    parse = partial(read_records, schema=SCHEMA)
    tables = list(mapped(Engine(distributed=True), parse, text_blocks(path, 1000)))
    assert len(tables) > 10
    assert pa.concat_tables(tables).combine_chunks().equals(read(path).combine_chunks())
    write(path, path.read_bytes()[:-9])
    with pytest.raises(InputError, match="truncated"):
        list(mapped(Engine(distributed=True), parse, text_blocks(path, 1000)))


def _empty(block: TextBlock) -> pa.Table:
    return pa.table({"bytes": [len(block.data)]})
