"""Small search spaces for tests, made of YAML text and a data set's file without its data."""

from __future__ import annotations

from pathlib import Path

import pytest

from legoray.errors import InputError
from legoray.search.space import Space, read_space

DATASET = "name: tiny\nprocessor: mind\npath: raw\ntext: [title]\n"

SPACE = """\
name: tiny
data: data.yaml
model:
  hidden_size: 16
  content:
    choice:
      - {name: id}
      - name: cnn
        kernel_size: {choice: [3, 5]}
        dropout: {float: [0.0, 0.2], step: 0.1}
  behavior:
    choice:
      - {name: none}
      - {name: additive}
      - {name: attention, heads: {choice: [2, 4]}}
  predictor:
    choice:
      - {name: dot}
      - {name: dcn, cross_layers: {int: [1, 3]}}
      - {name: din, softmax: {choice: [true, false]}}
train:
  epochs: 3
  learning_rate: {log: [1e-4, 1e-2]}
search:
  trials: 5
"""

# Four configurations: two contents that go with two compositions.
FOUR = """\
name: four
data: data.yaml
model:
  hidden_size: 8
  content: {choice: [{name: id}, {name: pooling}]}
  behavior: {choice: [{name: none}, {name: additive}]}
  predictor: {choice: [{name: dot}, {name: din}]}
train: {epochs: 3}
"""


def write_space(folder: Path, text: str = SPACE) -> Path:
    """A space's file with its data set's beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.yaml").write_text(DATASET)
    path = folder / "space.yaml"
    path.write_text(text)
    return path


def make_space(folder: Path, text: str = SPACE) -> Space:
    return read_space(write_space(folder, text))


def problems_of_space(folder: Path, text: str) -> list[str]:
    """What is wrong with a space."""
    with pytest.raises(InputError) as caught:
        make_space(folder, text)
    return [str(problem) for problem in caught.value.problems]


def edited(old: str, new: str, text: str = SPACE) -> str:
    assert old in text
    return text.replace(old, new, 1)
