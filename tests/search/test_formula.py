"""The formulas of `where`, `case` and dependent ranges: what they mean, and what is refused."""

from __future__ import annotations

import pytest

from legoray.search.formula import AbsentError, FormulaError, keys_of_path, read_formula

VALUES = {
    "hidden_size": 64,
    "content.name": "llm",
    "content": {"name": "llm", "split": 5},
    "content.split": 5,
    "content.lora": None,
    "content.units": [64, 32],
    "content.units[0]": 64,
    "behavior.heads": 4,
    "train.rate": 1e-3,
    "train.compile": False,
    "train.batch_size": 128,
}
KNOWN = {keys_of_path(name): value for name, value in VALUES.items()}


def look(path):
    if path not in KNOWN:
        raise AbsentError(path)
    return KNOWN[path]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("behavior.heads divides hidden_size", True),
        ("hidden_size divides behavior.heads", False),
        ("0 divides hidden_size", False),
        ("content.split < 6", True),
        ("train.batch_size * 2 <= 256", True),
        ("train.batch_size*2<=255", False),
        ('not (content.name == "llm" and behavior.heads == 4)', False),
        ("content == 'llm'", True),
        ("content.name in ['cnn', 'llm']", True),
        ("content.name not in ['cnn', 'llm']", False),
        ("not content.split in [3, 4]", True),
        ("content.units[0] == 64 and len(content.units) == 2", True),
        ("64 in content.units", True),
        ("4 <= content.split < 6", True),
        ("4 <= content.split < 5", False),
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("2 ** 3 ** 2", 512),
        ("-2 ** 2", -4),
        ("7 // 2 + 7 % 4 - 1", 5),
        ("7 / 2", 3.5),
        ("min(content.split, 3) + max(1, 2) + abs(-1)", 6),
        ("content.lora == null", True),
        ("content.lora != null or false", False),
        ("train.compile == false", True),
        ("true == 1", False),
        ("'a' < 'b'", True),
        ("1e-3 == train.rate", True),
        ("true or true and false", True),
    ],
)
def test_what_a_formula_means(text, value):
    found = read_formula(text).evaluate(look)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "content.layers < 3",
        "content.layers < 3 or hidden_size == 64",
        "hidden_size == 64 or content.layers < 3",  # whatever stands first
        "content.lora < 3",
        "1 + content.lora == 3",
    ],
)
def test_a_setting_that_is_not_there(text):
    with pytest.raises(AbsentError):
        read_formula(text).evaluate(look)


@pytest.mark.parametrize(
    ("text", "at", "words"),
    [
        ("", 1, "a value was expected, not the end"),
        ("content.split <", 16, "a value was expected, not the end"),
        ("content.split < 6 7", 19, "an operator was expected, not '7'"),
        ("(content.split < 6", 19, "')' was expected"),
        ("content.split = 6", 15, "cannot read '='; use =="),
        ("a && b", 3, "cannot read '&&'; use and"),
        ("!a", 1, "cannot read '!'; use not"),
        ("content.name == 'llm", 17, "the quote ' is not closed"),
        ("a not 3", 7, "'in' was expected"),
        ("eval('1')", 1, "there is no function 'eval'; there are min, max, abs, len"),
        ("[1, 2", 6, "',' or ']' was expected"),
        ("a.__class__()", 1, "there is no function"),
        ("x : y", 3, "cannot read ':'"),
        ("lambda: 1", 7, "cannot read ':'"),
        ("(" * 5000, 1, "too many brackets"),
    ],
)
def test_what_is_no_formula(text, at, words):
    with pytest.raises(FormulaError) as caught:
        read_formula(text)
    assert words in str(caught.value)
    assert caught.value.at == at


@pytest.mark.parametrize(
    ("text", "at", "words"),
    [
        ("content.name < 3", 14, "'<' does not work on 'llm' and 3"),
        ("hidden_size and true", 1, "is 64, true or false was expected"),
        ("1 / 0 == 1", 3, "'/' division by zero"),
        ("2 ** 1000 > 1", 3, "'**' does not work on 2 and 1000"),
        ("3 in 4", 3, "'in' does not work on 3 and 4"),
        ("train.compile + 1 == 2", 15, "'+' does not work on False and 1"),
    ],
)
def test_values_that_do_not_go_together(text, at, words):
    with pytest.raises(FormulaError) as caught:
        read_formula(text).evaluate(look)
    assert words in str(caught.value)
    assert caught.value.at == at


def test_the_settings_that_a_formula_names():
    formula = read_formula("content.split < 6 and content.split != behavior.heads")
    assert formula.paths == [
        (("content", "split"), 1), (("content", "split"), 23), (("behavior", "heads"), 40),
    ]  # fmt: skip
    assert formula.path is None
    assert formula.is_condition
    assert read_formula("content.units[0]").path == ("content", "units", 0)
