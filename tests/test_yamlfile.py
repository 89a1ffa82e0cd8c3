import pytest

from legoray.errors import InputError
from legoray.yamlfile import dotted, parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1.5e+2", 150.0),
        ("-.5", -0.5),
        ("5", 5),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("null", None),
        ("2019-11-13", "2019-11-13"),
        ("none", "none"),
        ("1e", "1e"),
        ("cnn", "cnn"),
    ],
)
def test_scalars_mean_what_people_write(text, value):
    read = parse_yaml(f"key: {text}").data["key"]
    assert read == value
    assert type(read) is type(value)


def test_lines_are_kept_for_every_path():
    document = parse_yaml("a: 1\nb:\n  - x\n  - {c: 2}\n", "f.yaml")
    assert document.lines[("b", 1, "c")] == 4
    assert document.where(("b", 1, "c")) == "f.yaml:4: b[1].c"
    assert document.where(("b", 1, "unknown", "deep")) == "f.yaml:4: b[1].unknown.deep"
    assert dotted(("a", 0, "b")) == "a[0].b"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("- a\n- b\n", "a mapping of keys was expected"),
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3: a: stands twice (first on line 1)"),
        ("a: {b: 1\n", "not valid YAML"),
        ("a: !!python/object:os.system x\n", "not valid YAML"),
        ("\ta: 1\n", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("[1, 2]: x\n", "is not a word"),
        ("1: x\n", "the key 1 is not a word"),
    ],
)
def test_what_is_wrong_is_said(text, words):
    with pytest.raises(InputError, match=r".") as caught:
        parse_yaml(text, "f.yaml")
    assert words in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_yaml(tmp_path / "absent.yaml")
    with pytest.raises(InputError, match="is a folder"):
        read_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("name: é".encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8"):
        read_yaml(tmp_path / "latin.yaml")
