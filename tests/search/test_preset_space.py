"""Spaces that consist of presets: reading, drawing, mistakes, the grid, and the paper's table."""

from __future__ import annotations

import pytest
from space_cases import make_space, problems_of_space

from legoray.model.presets import names
from legoray.search.asktell import AskTell
from legoray.search.cover import listing
from legoray.search.finals import count_groups
from legoray.search.start import start_params
from legoray.spaceconfig import SamplerConfig

SPACE = """\
name: named
data: data.yaml
model:
  hidden_size: 32
  preset:
    choice:
      - naml
      - {name: nrms, content: {heads: {choice: [4, 8]}}, train: {epochs: 7}}
      - dcn-text
      - {name: naml-id, hidden_size: {choice: [16, 64]}}
train: {epochs: 2}
search: {sampler: {name: grid}}
final: {each: preset, seeds: 2}
"""


def test_presets_are_options_of_one_choice(tmp_path):
    space = make_space(tmp_path, SPACE)
    assert space.params == (
        "model/preset",
        "model/preset.naml-id/hidden_size",
        "model/preset.nrms/content/heads",
    )
    found = {c.model.label(): c for c in space.corners()}
    assert set(found) == {
        "naml (cnn+additive+dot)",
        "nrms (attention+attention+dot)",
        "dcn-text (pooling+pooling+dcn)",
        "naml-id (id+additive+dot)",
    }
    naml, nrms = found["naml (cnn+additive+dot)"], found["nrms (attention+attention+dot)"]
    assert naml.model.preset == "naml"
    assert naml.model.content["dropout"] == 0.2, "the preset's own"
    assert naml.model.hidden_size == 32, "the file's word for all models goes before"
    assert naml.train.epochs == 2
    assert nrms.train.epochs == 7, "and its word for one preset before that"
    assert found["dcn-text (pooling+pooling+dcn)"].train.task == "ranking"
    assert {c.model.content.get("heads") for c in space.corners()} >= {4, 8}
    assert {c.model.hidden_size for c in space.corners()} == {16, 32, 64}
    assert count_groups(space, space.config.final) == 4


def test_settings_below_a_setting_are_laid_over(tmp_path):
    text = SPACE.replace("- dcn-text", "- {name: dire, content: {lora: {rank: {choice: [4, 8]}}}}")
    space = make_space(tmp_path, text)
    found = [c.model.content["lora"] for c in space.corners() if c.model.preset == "dire"]
    assert {lora["rank"] for lora in found} == {4, 8}
    assert all(lora["alpha"] == 128 for lora in found)


def test_all_presets_in_one_space(tmp_path):
    listed = ", ".join(names())
    text = f"name: all\ndata: data.yaml\nmodel: {{preset: {{choice: [{listed}]}}}}\n"
    space = make_space(tmp_path, text)
    assert {c.model.preset for c in space.corners()} == set(names())
    assert len(listing(space)) == len(names()), "also those that would train the same model"


def test_one_preset_alone(tmp_path):
    space = make_space(tmp_path, "name: one\ndata: data.yaml\nmodel: {preset: naml}\n")
    assert [c.model.preset for c in space.corners()] == ["naml"]


CASES = {
    "unknown preset": ("- naml\n", "- nmal\n", [":7: model.preset.choice[0]", "'naml'"]),
    "preset twice": ("- dcn-text", "- naml", [":9:", "'naml' stands twice"]),
    "unknown setting": ("heads:", "haeds:", [":8: ", "'haeds'", "'heads'"]),
    "value of a wrong type": ("[4, 8]", "[4, x]", [":8: ", "'x'"]),
    "unknown key": ("content: {heads", "contents: {heads", [":8: ", "'content'"]),
    "unknown key of the training": ("{epochs: 7}", "{epoch: 7}", [":8: ", "'epochs'"]),
    "a part beside it": (
        "  hidden_size: 32\n",
        "  hidden_size: 32\n  content: {name: id}\n",
        [":5: model.content", "stands beside 'preset'"],
    ),
    "a number": ("- naml\n", "- 3\n", [":7:", "a preset's name was expected"]),
    "a range": (
        "    choice:\n      - naml\n",
        "    int: [1, 2]\n    choice:\n      - naml\n",
        [":5: model.preset", "was expected"],
    ),
    "heads that do not go with the width": ("[4, 8]", "[4, 5]", [":8:", "5"]),
    "another part that does not fit": (
        "- naml\n",
        "- {name: naml, behavior: {name: none}}\n",
        [":7:", "reads one vector per user"],
    ),
    "grid without an end": (
        "train: {epochs: 2}",
        "train: {learning_rate: {log: [1e-4, 1e-2]}}",
        [":11: train.learning_rate", "continuous"],
    ),
    "start from a preset that is not there": (
        "sampler: {name: grid}",
        "start_from: [npa]",
        [":12: search.start_from[0]", "no preset 'npa'"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_told_with_its_line(tmp_path, case):
    old, new, words = CASES[case]
    assert old in SPACE
    told = problems_of_space(tmp_path, SPACE.replace(old, new, 1))
    assert len(told) == 1, told
    for word in words:
        assert word in told[0], told[0]


def test_finals_of_presets_need_presets(tmp_path):
    text = "name: x\ndata: data.yaml\nmodel: {content: {name: id}, behavior: {name: additive},"
    told = problems_of_space(tmp_path, text + " predictor: {name: dot}}\nfinal: {each: preset}\n")
    assert "the space has no presets" in told[0]


def test_starting_points_among_presets(tmp_path):
    search = "start_with: [{model: {preset: nrms}}], start_from: [naml-id]"
    space = make_space(tmp_path, SPACE.replace("sampler: {name: grid}", search))
    assert start_params(space) == [{"model/preset": "nrms"}, {"model/preset": "naml-id"}]


def test_the_grid_proposes_each_configuration_once(tmp_path):
    space = make_space(tmp_path, SPACE)
    study = AskTell(space, tmp_path / "study.journal", name="grid")
    study.resume()
    first = [study.ask() for _ in range(3)]
    for found in first[:2]:
        study.conclude(found.number, "completed", value=0.5)
    again = AskTell(space, tmp_path / "study.journal", name="grid")  # the third was interrupted
    again.resume()
    seen = [found.config for found in first[:2]]
    while (found := again.ask()) is not None:
        seen.append(found.config)
        again.conclude(found.number, "completed", value=0.4)
    assert again.exhausted == "all configurations of this space have been tried"
    assert len(seen) == len(listing(space)) == 6
    assert len({repr(config) for config in seen}) == 6


def test_the_grid_is_a_sampler():
    assert SamplerConfig(name="grid").name == "grid"
