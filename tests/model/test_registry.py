"""Names and settings of parts, and every mistake that one can make with them."""

from __future__ import annotations

import pytest

from legoray.errors import InputError
from legoray.model.predictor.dot import DotPredictor
from legoray.model.registry import BEHAVIOR, PREDICTOR, parse_part, part_class
from legoray.yamlfile import parse_yaml


def test_a_name_gives_the_class_and_its_checked_settings():
    part, config = parse_part("content", {"name": "cnn", "kernel_size": 5})
    assert part.__name__ == "CnnOperator"
    assert config.kernel_size == 5
    assert config.tokenizer == "words"


def test_every_class_names_its_settings():
    for kind, table in (("behavior", BEHAVIOR), ("predictor", PREDICTOR)):
        for name in table:
            _, config = parse_part(kind, {"name": name})
            assert config == part_class(kind, name).Config()


def test_a_part_of_one_s_own_by_its_import_path():
    part, _ = parse_part("predictor", {"name": "legoray.model.predictor.dot:DotPredictor"})
    assert part is DotPredictor


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("content", {"name": "cmn"}, "did you mean 'cnn'"),
        ("behavior", {"name": "atention"}, "did you mean 'attention'"),
        ("predictor", {"name": "zzz"}, "known: autoint, bilinear, cosine"),
        ("predictor", {"name": "zzz"}, "there is no click predictor 'zzz'"),
        ("content", {}, "needs a name"),
        ("content", {"name": 3}, "needs a name"),
        ("content", None, "needs a name"),
        ("content", {"name": "cnn", "kernal_size": 3}, "did you mean 'kernel_size'"),
        ("content", {"name": "cnn", "kernel_size": "3"}, "is '3'"),
        ("content", {"name": "cnn", "kernel_size": 0}, "greater than 0"),
        ("content", {"name": "cnn", "dropout": 1.0}, "less than 1"),
        ("content", {"name": "cnn", "attributes": []}, "at least 1 item"),
        ("content", {"name": "pooling", "pool": "maxx"}, "did you mean 'max'"),
        ("predictor", {"name": "dnn", "units": []}, "at least 1 item"),
        ("predictor", {"name": "dnn", "activation": "rellu"}, "did you mean 'relu'"),
        ("predictor", {"name": "dot", "units": [3]}, "unknown key 'units'"),
        ("predictor", {"name": "no.such.module:Part"}, "cannot be imported"),
        ("predictor", {"name": "legoray.errors:Nothing"}, "cannot be imported"),
        ("predictor", {"name": ":Part"}, "cannot be imported"),
        ("predictor", {"name": "legoray.model.behavior.gru:GruOperator"}, "ClickPredictor"),
    ],
)
def test_mistakes_are_named(kind, settings, expected):
    with pytest.raises(InputError, match=r"model\.part") as error:
        parse_part(kind, settings, "model.part")
    assert expected in str(error.value)


def test_all_mistakes_of_a_part_come_at_once():
    with pytest.raises(InputError) as error:
        parse_part("content", {"name": "cnn", "kernel_size": -1, "dropout": 2, "heads": 3})
    assert len(error.value.problems) == 3


def test_a_document_gives_the_line():
    document = parse_yaml("model:\n  content:\n    name: cnn\n    kernel_size: x\n", "space.yaml")
    settings = document.data["model"]["content"]
    with pytest.raises(InputError, match=r"space.yaml:4: model.content.kernel_size"):
        parse_part("content", settings, document=document, at=("model", "content"))


def test_an_import_path_with_a_dot_for_the_colon():
    with pytest.raises(InputError, match=r"one of your own: 'mine\.parts:Recency'"):
        part_class("behavior", "mine.parts.Recency")
