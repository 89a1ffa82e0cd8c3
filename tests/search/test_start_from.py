"""`search.start_from`: presets as the first trials of a space of parts."""

from __future__ import annotations

import pytest
from space_cases import make_space, problems_of_space

from legoray.search.asktell import AskTell
from legoray.search.start import start_params
from legoray.search.start_from import start_notes, starts_from

SPACE = """\
name: started
data: data.yaml
model:
  hidden_size: {choice: [32, 64]}
  content:
    choice:
      - name: cnn
        kernel_size: 5
        attention_size: 200
        dropout: {float: [0.0, 0.3], step: 0.1}
        length: {choice: [16, 32]}
      - {name: attention, heads: {choice: [4, 8]}, attention_size: {int: [50, 100]}}
      - name: llm
        lora:
          choice:
            - null
            - {rank: {choice: [8, 32]}, alpha: 128, dropout: 0.1}
        pooling: attention
      - {name: id}
  behavior:
    choice:
      - {name: additive, attention_size: 200}
      - {name: attention}
      - {name: none}
  predictor:
    choice:
      - {name: dot}
      - {name: din, units: {choice: [[8], [200, 80]]}}
train:
  epochs: 2
  task: {choice: [matching, ranking]}
  learning_rate: {log: [1e-4, 1e-2]}
search: {trials: 5, start_from: [naml]}
"""


def started(folder, names):
    return make_space(folder, SPACE.replace("[naml]", names))


def test_what_the_space_searches_is_pinned_and_what_it_fixes_stays(tmp_path):
    space = started(tmp_path, "[naml]")
    (start,) = starts_from(space)
    assert start.pins == {
        "model/hidden_size": 64,
        "model/content": "cnn",
        "model/content.cnn/dropout": 0.2,
        "model/content.cnn/length": 32,  # a default of the part
        "model/behavior": "additive",
        "model/predictor": "dot",
        "train/task": "matching",
    }
    assert start.notes == ["naml: content kernel_size 3 is not in the space, which has 5"]
    assert start_notes(space) == start.notes


def test_what_is_out_of_range_is_drawn_and_told(tmp_path):
    space = started(tmp_path, "[nrms]")
    (start,) = starts_from(space)
    assert start.pins["model/content.attention/heads"] == 8
    assert "model/content.attention/attention_size" not in start.pins
    assert (
        "nrms: content attention_size 200 is not in the space, which has 50 to 100" in start.notes
    )
    assert "nrms: behavior dropout 0.2 is not in the space, which leaves it at 0.1" in start.notes
    assert "nrms: content dropout 0.2 is not in the space, which leaves it at 0.1" in start.notes


def test_lists_and_nested_settings_are_found_among_the_options(tmp_path):
    space = started(tmp_path, "[din, dire]")
    din, dire = starts_from(space)
    assert din.pins["model/predictor.din/units"] == "200-80"
    assert din.pins["train/task"] == "ranking"
    ranks = [value for path, value in dire.pins.items() if path.endswith("/rank")]
    assert ranks == [32]
    assert not any("lora" in note for note in dire.notes)


def test_presets_are_the_first_trials_and_are_enqueued_once(tmp_path):
    space = started(tmp_path, "[naml, din]")
    assert [params["model/content"] for params in start_params(space)] == ["cnn", "id"]
    journal = tmp_path / "study.journal"
    for _ in range(2):  # a process that was killed before its first trial
        study = AskTell(space, journal, name="started")
        study.resume()
    first, second = study.ask(), study.ask()
    assert first.config["model"]["content"]["dropout"] == 0.2
    assert first.config["model"]["behavior"]["name"] == "additive"
    assert second.config["model"]["predictor"]["units"] == [200, 80]
    assert second.config["train"]["task"] == "ranking"
    assert sum("start" in row.user_attrs for row in study.rows()) == 2


def test_start_with_comes_before_start_from(tmp_path):
    text = SPACE.replace("start_from:", "start_with: [{model: {content: {name: id}}}], start_from:")
    assert [p["model/content"] for p in start_params(make_space(tmp_path, text))] == ["id", "cnn"]


def test_settings_that_do_not_go_together_leave_the_parts(tmp_path):
    text = SPACE.replace("[32, 64]", "[20, 64]").replace("[4, 8]", "[5, 8]")
    text = text.replace("- {name: attention}\n", "- {name: attention, heads: 5}\n")
    text = text.replace("[naml]", "[nrms]")
    (start,) = starts_from(make_space(tmp_path, text))
    assert start.pins == {
        "model/content": "attention",
        "model/behavior": "attention",
        "model/predictor": "dot",
    }
    assert "only its parts are taken" in start.notes[0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nmal", [":33: search.start_from[0]", "no preset 'nmal'", "did you mean 'naml'?"]),
        (
            "lstur",
            ["'lstur' needs behavior 'lstur', which the space does not have", "model.behavior"],
        ),
        ("fastformer", ["content 'fastformer' and behavior 'fastformer'", "or start from"]),
        ("dcn-text", ["content 'pooling' and behavior 'pooling' and predictor 'dcn'"]),
    ],
)
def test_a_preset_that_is_not_in_the_space(tmp_path, name, words):
    (told,) = problems_of_space(tmp_path, SPACE.replace("[naml]", f"[{name}]"))
    for word in words:
        assert word in told, told
