"""The notation: what each form becomes, and what nothing but its meaning decides."""

from __future__ import annotations

from legoray.search.notation import Reader
from legoray.search.tree import Choice, Const, Group, Range, resolve
from legoray.search.walk import atoms
from legoray.yamlfile import parse_yaml


def read(text: str):
    reader = Reader(parse_yaml(f"x: {text}"))
    node = reader.node(reader.document.data["x"], ("x",))
    assert not reader.problems, [str(p) for p in reader.problems]
    return node


def test_constants_stay_constants():
    assert read("3") == Const(3, ("x",))
    assert read("null") == Const(None, ("x",))
    assert read("[64, 32]") == Const([64, 32], ("x",))


def test_ranges():
    assert read("{int: [1, 5]}") == Range("int", 1, 5, ("x",))
    assert read("{int: [2, 8], step: 2}") == Range("int", 2, 8, ("x",), step=2)
    assert read("{int: [1, 64], log: true}") == Range("int", 1, 64, ("x",), log=True)
    assert read("{float: [0, 1]}") == Range("float", 0.0, 1.0, ("x",))
    assert read("{float: [0.1, 0.3], step: 0.1}") == Range("float", 0.1, 0.3, ("x",), step=0.1)
    assert read("{log: [1e-4, 1e-2]}") == Range("float", 1e-4, 1e-2, ("x",), log=True)


def test_values_of_a_range():
    steps = read("{float: [0.1, 0.3], step: 0.1}")
    assert steps.count() == 3
    assert steps.contains(0.2)
    assert not steps.contains(0.25)
    assert read("{float: [0.0, 0.3]}").count() is None
    assert read("{int: [5, 5]}").count() == 1
    assert not read("{int: [1, 5]}").contains(2.0)
    assert not read("{int: [0, 1]}").contains(True)


def test_labels_do_not_depend_on_the_order():
    one = read("{choice: [{name: a, k: 1}, 3, null, {rank: 4}, 1.5]}")
    other = read("{choice: [1.5, {rank: 4}, null, {name: a, k: 1}, 3]}")
    assert one.labels() == other.labels() == (1.5, 3, "a", None, "rank")


def test_options_without_a_name_are_called_by_their_keys():
    node = read("{choice: [null, {rank: {choice: [4, 8]}, alpha: 16}]}")
    assert node.labels() == ("alpha-rank", None)
    alike = read("{choice: [{alpha: 16, rank: 4}, {alpha: 32, rank: 4}]}")
    assert alike.labels() == ("alpha-16-rank-4", "alpha-32-rank-4")
    assert read("{choice: [[64, 32], [128]]}").labels() == ("128", "64-32")


def test_words_that_yaml_would_turn_into_booleans():
    assert read("{choice: [on, off, yes]}").labels() == ("off", "on", "yes")
    assert read("{choice: [true, false]}").labels() == (False, True)


def test_a_chosen_mapping_opens_its_own_parameters():
    node = read("{choice: [{name: a, k: {int: [1, 2]}}, {name: b, k: {int: [5, 6]}}]}")
    seen = []

    def pick(path, searched):
        seen.append(path)
        return "b" if isinstance(searched, Choice) else searched.high

    origin = {}
    assert resolve(node, "x", pick, origin) == {"name": "b", "k": 6}
    assert seen == ["x", "x.b/k"]
    assert origin["k",] == ("x", "choice", 1, "k")


def test_ranges_in_lists_and_in_choices():
    node = read("[64, {choice: [16, 32]}]")
    assert isinstance(node, Group)
    assert resolve(node, "x", lambda path, _: 32, {}) == [64, 32]
    assert [a.path for a in atoms(node, "x")] == ["x/1", "x/1"]
    mixed = read("{choice: [null, {log: [1e-4, 1e-3]}]}")
    labels = mixed.labels()
    value = resolve(mixed, "x", lambda p, n: labels[0] if p == "x" else 5e-4, {})
    assert value == 5e-4


def test_part_by_a_searched_name():
    document = parse_yaml("c: {name: {choice: [cnn, attention]}, dropout: {choice: [0.1, 0.2]}}")
    reader = Reader(document)
    node = reader.part(document.data["c"], ("c",))
    assert node.labels() == ("attention", "cnn")
    paths = {atom.path for atom in atoms(node, "c")}
    assert paths == {"c", "c.cnn/dropout", "c.attention/dropout"}
