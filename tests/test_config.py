from pathlib import Path

import pytest

from legoray.config import TrainConfig, build, expand, home
from legoray.errors import InputError, nearest, unknown
from legoray.spaceconfig import SpaceConfig
from legoray.yamlfile import parse_yaml

SPACE = """
name: x
data: d.yaml
model: {content: {name: id}}
"""


def mistakes(text):
    document = parse_yaml(text, "s.yaml")
    with pytest.raises(InputError, match=r".") as caught:
        build(SpaceConfig, document.data, document)
    return str(caught.value)


def test_a_short_space_is_valid():
    document = parse_yaml(SPACE)
    space = build(SpaceConfig, document.data, document)
    assert space.search.scheduler.name == "asha"
    assert space.evaluate.select == "auc"


def test_all_mistakes_come_at_once_with_their_lines():
    text = (
        SPACE + "seed: 1.5\nsearch:\n  trialz: 3\n  scheduler: {name: ashaa}\nfinal: {seeds: 0}\n"
    )
    found = mistakes(text).splitlines()
    assert len(found) == 4
    assert any("s.yaml:5: seed: is 1.5" in line for line in found)
    assert any("unknown key 'trialz' (did you mean 'trials'?)" in line for line in found)
    assert any("did you mean 'asha'?" in line for line in found)
    assert any("final.seeds: is 0" in line for line in found)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("search: {trials: true}", "search.trials: is True"),
        ("search: {trials: '3'}", "search.trials: is '3'"),
        ("search: {hours: .nan}", "search.hours: is nan"),
        ("search: {hours: -1}", "search.hours: is -1"),
        ("search: {trainer: worm}", "did you mean 'warm'?"),
        ("tracking: {url: x}", "did you mean 'uri'?"),
        ("evaluate: {metrics: []}", "evaluate.metrics"),
        ("name: '../x'", "name"),
    ],
)
def test_wrong_values(line, words):
    text = SPACE.replace("name: x\n", "") if line.startswith("name") else SPACE
    assert words in mistakes(text + line + "\n")


def test_a_missing_key_is_named():
    assert "the key 'data' is missing" in mistakes("name: x\nmodel: {}\n")


def test_an_integer_serves_as_a_float_but_a_bool_does_not():
    assert build(TrainConfig, {"weight_decay": 0}).weight_decay == 0
    with pytest.raises(InputError, match="weight_decay"):
        build(TrainConfig, {"weight_decay": True})


def test_paths_take_variables_and_the_files_own_folder(monkeypatch):
    monkeypatch.setenv("SOMEWHERE", "/data")
    assert expand("${SOMEWHERE}/x", Path("/base"), "w") == Path("/data/x")
    assert expand("x/y", Path("/base"), "w") == Path("/base/x/y")
    monkeypatch.delenv("SOMEWHERE")
    with pytest.raises(InputError, match="environment variable SOMEWHERE"):
        expand("$SOMEWHERE/x", Path("/base"), "f.yaml: path")


def test_home_is_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LEGORAY_HOME", raising=False)
    assert home() == tmp_path / ".legoray"


def test_nearest_names():
    assert nearest("atention", ["attention", "additive"]) == "attention"
    assert nearest("zzz", ["attention"]) is None
    assert "known: a, b" in str(unknown("part", "qqqq", ["b", "a"]))


def test_a_part_without_settings_says_so():
    from legoray.model.predictor.dot import DotPredictor

    with pytest.raises(InputError, match=r"unknown key 'fields' \(it has no settings\)"):
        build(DotPredictor.Config, {"fields": ["item.category"]})


def test_a_constrained_alternative_is_not_part_of_a_path():
    from legoray.model.content.iisan import IisanConfig

    with pytest.raises(InputError) as caught:
        build(IisanConfig, {"layers": [1, 9]})
    assert {problem.where for problem in caught.value.problems} == {"layers"}
