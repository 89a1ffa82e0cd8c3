"""Every mistake in a space is told with its line, path, value and the nearest valid name."""

from __future__ import annotations

import pytest
from space_cases import SPACE, edited, make_space, problems_of_space, write_space

from legoray.errors import InputError
from legoray.search.space import read_space

RATE = "learning_rate: {log: [1e-4, 1e-2]}"
KERNEL = "kernel_size: {choice: [3, 5]}"
DROPOUT = "dropout: {float: [0.0, 0.2], step: 0.1}"
HEADS = "heads: {choice: [2, 4]}"
LAYERS = "cross_layers: {int: [1, 3]}"

# what is replaced, by what, and the words of the one problem that is told
CASES: dict[str, tuple[str, str, list[str]]] = {
    "unknown key of the file": ("search:", "serach:", [":24: serach", "'search'"]),
    "unknown key of the model": ("hidden_size", "hiden_size", [":4:", "'hidden_size'"]),
    "unknown setting of an option": ("kernel_size", "kernel", [":9:", "'kernel_size'"]),
    "unknown setting of the training": ("epochs: 3", "epoch: 3", [":22:", "'epochs'"]),
    "unknown part": ("name: cnn", "name: cn", [":8:", "'cn'", "'cnn'"]),
    "unknown behavior": ("name: additive", "name: aditive", [":14:", "'additive'"]),
    "part without a name": ("{name: id}", "{nam: id}", [":7:", "'name' is missing"]),
    "part that is a word": ("{name: id}", "id", [":7:", "'id'", "{name: id}"]),
    "part's name is a number": ("{name: id}", "{name: 3}", [":7:", "is 3"]),
    "empty choice": (KERNEL, "kernel_size: {choice: []}", [":9:", "is empty"]),
    "choice of no list": (KERNEL, "kernel_size: {choice: 3}", [":9:", "is 3", "list"]),
    "option of a wrong type": (KERNEL, "kernel_size: {choice: [3, big]}", [":9:", "'big'"]),
    "option twice": (KERNEL, "kernel_size: {choice: [3, 5, 3]}", [":9:", "'3'", "twice"]),
    "part twice": ("{name: id}", "{name: cnn}", [":8:", "'cnn'", "twice", "join"]),
    "choice in a choice": (
        KERNEL,
        "kernel_size: {choice: [3, {choice: [5, 7]}]}",
        [":9:", "inside a choice"],
    ),
    "mixed notations": (KERNEL, "kernel_size: {choice: [3], int: [1, 2]}", [":9:", "mixes"]),
    "misspelt notation": (KERNEL, "kernel_size: {chioce: [3, 5]}", [":9:", "'chioce'", "'choice'"]),
    "another tool's notation": (RATE, "learning_rate: {loguniform: [1e-4, 1]}", [":23:", "'log'"]),
    "lo above hi": (LAYERS, "cross_layers: {int: [3, 1]}", [":19:", "[3, 1]", "larger"]),
    "one bound": (LAYERS, "cross_layers: {int: [3]}", [":19:", "[3]", "two numbers"]),
    "three bounds": (RATE, "learning_rate: {log: [1e-4, 1e-3, 1e-2]}", [":23:", "two numbers"]),
    "bound that is a word": (RATE, "learning_rate: {log: [small, 1]}", [":23:", "'small'"]),
    "int with fractions": (LAYERS, "cross_layers: {int: [1.5, 3]}", [":19:", "whole numbers"]),
    "log from zero": (RATE, "learning_rate: {log: [0, 1e-2]}", [":23:", "above 0"]),
    "log is a word": (LAYERS, "cross_layers: {int: [1, 3], log: maybe}", [":19:", "'maybe'"]),
    "step too long": (DROPOUT, "dropout: {float: [0.0, 0.25], step: 0.1}", [":10:", "0.2 would"]),
    "step of zero": (DROPOUT, "dropout: {float: [0.0, 0.2], step: 0}", [":10:", "above 0"]),
    "step and log": (LAYERS, "cross_layers: {int: [1, 3], step: 1, log: true}", [":19:", "step"]),
    "word beside a range": (LAYERS, "cross_layers: {int: [1, 3], setp: 1}", [":19:", "'step'"]),
    "end outside of the field": (
        RATE,
        "learning_rate: {log: [1e-4, 3]}",
        [":23: train.learning_rate", "3.0", "less than or equal to 1"],
    ),
    "fraction where a whole number is": (
        LAYERS,
        "cross_layers: {float: [1, 3]}",
        [":19:", "valid integer"],
    ),
    "nothing goes with an option": (HEADS, "heads: {choice: [2, 5]}", [":15:", "5", "16"]),
    "end that goes with nothing": (
        "hidden_size: 16\n  content",
        "hidden_size: {choice: [16, 0]}\n  content",
        [":4: model.hidden_size", "is 0"],
    ),
    "part that fits with nothing": (
        "    choice:\n      - {name: none}\n",
        "    choice:\n",
        [":19:", "'din' fits with none"],
    ),
    "unread encoder rate": (
        "epochs: 3",
        "encoder_learning_rate: {log: [1e-4, 1e-3]}",
        [":22:", "no model of this space reads it"],
    ),
    "loss that contradicts": (
        "epochs: 3",
        "task: ranking\n  loss: cross-entropy",
        ["train.loss", "cross-entropy"],
    ),
    "searched outside": ("trials: 5", "trials: {choice: [5, 6]}", [":25:", "cannot be searched"]),
    "searched metric": (
        "search:",
        "evaluate: {select: {choice: [auc, mrr]}}\nsearch:",
        [":24: evaluate.select", "cannot be searched"],
    ),
    "unknown metric": ("search:", "evaluate: {metrics: [auc, mr]}\nsearch:", [":24:", "'mrr'"]),
    "metric that is not measured": (
        "search:",
        "evaluate: {metrics: [mrr], select: auc}\nsearch:",
        [":24: evaluate.select", "'auc' is not measured"],
    ),
    "unknown select": ("search:", "evaluate: {select: auk}\nsearch:", ["'auk'", "'auc'"]),
    "no data set": ("data: data.yaml", "data: date.yaml", [":2: data", "'date.yaml'", "data.yaml"]),
    "unset variable": ("data: data.yaml", "data: $NOWHERE_X/d.yaml", [":2: data", "NOWHERE_X"]),
    "unknown start": (
        "trials: 5",
        "start_with: [{model: {content: {name: cmn}}}]",
        [":25: search.start_with[0].model.content", "'cnn'"],
    ),
    "start that is not in the space": (
        "trials: 5",
        "start_with: [{train: {learning_rate: 0.5}}]",
        [":25:", "0.5", "from 0.0001 to 0.01"],
    ),
    "start against a constant": (
        "trials: 5",
        "start_with: [{train: {epochs: 9}}]",
        [":25:", "is 9", "fixes it to 3"],
    ),
    "start with an unknown key": (
        "trials: 5",
        "start_with: [{train: {lerning_rate: 0.001}}]",
        [":25:", "'lerning_rate'", "'learning_rate'"],
    ),
    "impossible start": (
        "trials: 5",
        "start_with: [{model: {behavior: {name: none}, predictor: {name: dot}}}]",
        [":25: search.start_with[0]", "not valid"],
    ),
    "start with a setting of another option": (
        "trials: 5",
        "start_with: [{model: {content: {name: id, kernel_size: 3}}}]",
        [":25:", "no 'kernel_size' here"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_told_once_and_well(tmp_path, case):
    old, new, words = CASES[case]
    told = problems_of_space(tmp_path, edited(old, new))
    assert len(told) == 1, told
    for word in words:
        assert word in told[0], told[0]


def test_the_space_itself_is_fine(tmp_path):
    assert make_space(tmp_path).config.name == "tiny"


@pytest.mark.parametrize("tree", ["model", "train"])
def test_a_tree_cannot_be_a_choice_itself(tmp_path, tree):
    lines = [line for line in SPACE.splitlines() if not line.startswith("  ")]
    text = "\n".join(lines).replace(f"{tree}:", f"{tree}: {{choice: [{{}}, {{a: 1}}]}}")
    assert any("put choices below" in told for told in problems_of_space(tmp_path, text))


def test_no_composition_is_valid(tmp_path):
    text = edited("      - {name: additive}\n", "")
    text = edited("      - {name: attention, heads: {choice: [2, 4]}}\n", "", text)
    text = edited("      - {name: din, softmax: {choice: [true, false]}}\n", "", text)
    (told,) = problems_of_space(tmp_path, text)
    assert ":3: model" in told
    assert "no composition of these parts is valid" in told
    assert "additive" in told, "the nearest valid choices are named"


def test_all_mistakes_come_at_once(tmp_path):
    text = SPACE
    for case in ("unknown part", "lo above hi", "unknown setting of the training", "no data set"):
        text = edited(*CASES[case][:2], text)
    assert len(problems_of_space(tmp_path, text)) == 4


def test_a_damaged_data_set_file_is_told_with_the_rest(tmp_path):
    path = write_space(tmp_path, edited("name: cnn", "name: cn"))
    (tmp_path / "data.yaml").write_text("name: tiny\nprocesor: mind\npath: raw\n")
    with pytest.raises(InputError) as caught:
        read_space(path)
    text = str(caught.value)
    assert "'cnn'" in text
    assert "data.yaml:2" in text
    assert "'processor'" in text


def test_a_value_that_only_some_combinations_allow_is_no_mistake(tmp_path):
    text = edited("hidden_size: 16", "hidden_size: {choice: [16, 18]}")
    space = make_space(tmp_path, edited("choice: [2, 4]}", "choice: [2, 8, 9]}", text))
    for config in space.corners():
        if config.model.behavior["name"] == "attention":
            assert config.model.hidden_size % config.model.behavior["heads"] == 0
