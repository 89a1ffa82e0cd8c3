"""A file with ten unlike mistakes: all are told, in the order of the lines, with what was meant."""

from __future__ import annotations

import re

from space_cases import problems_of_space

TEN = """\
name: ten
data: dat.yaml
where:
  - behavior.head divides hidden_size
model:
  hidden_sise: 16
  content:
    choice:
      - {name: idd}
      - name: cnn
        kernel: {choice: [3, 5]}
        dropout: {float: [0.2, 0.0]}
  behavior: {name: attention, heads: 4}
  predictor: {name: dot}
train:
  learning_rate: {loguniform: [1e-4, 1e-2]}
  epochs: {case: conten, cnn: 3, else: 2}
evaluate: {metrics: [auc, mrrr]}
search:
  sampler: {name: tpee}
  start_from: [namll]
  start_with: [{train: {batch_sice: 64}}]
final: {seedss: 2}
"""
# the line of each mistake, and what is told of it
TOLD = {
    2: "'data.yaml'",
    4: "'behavior.heads'",
    6: "'hidden_size'",
    9: "'id'",
    11: "'kernel_size'",
    12: "[0.0, 0.2]?",
    16: "use 'log'",
    17: "'content'",
    18: "'mrr'",
    20: "'tpe'",
    21: "'naml'",
    22: "the space has",
    23: "'seeds'",
}


def test_all_are_told_in_the_order_of_the_lines(tmp_path):
    told = problems_of_space(tmp_path, TEN)
    lines = [int(re.search(r"space\.yaml:(\d+): ", line).group(1)) for line in told]
    assert lines == list(TOLD), "\n".join(told)
    for line, words in zip(told, TOLD.values(), strict=True):
        assert words in line, line
