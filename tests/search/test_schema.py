"""The JSON schemas: as they are made, true of every YAML file here, and false of mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft7Validator
from space_cases import edited

from legoray.search.schema import SCHEMAS, schema_of, text_of_schema
from legoray.yamlfile import parse_yaml, read_yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"search-space": "search_spaces", "dataset": "datasets", "preset": "legoray/presets"}
FIRST = "# yaml-language-server: $schema=schema.json\n"
FILES = [(k, p) for k, folder in FOLDERS.items() for p in sorted((ROOT / folder).rglob("*.yaml"))]


@pytest.fixture(scope="module")
def validators():
    return {kind: Draft7Validator(schema_of(kind)) for kind in SCHEMAS}


@pytest.mark.parametrize("kind", SCHEMAS)
def test_the_committed_schema_is_the_one_that_is_made(kind):
    path = ROOT / FOLDERS[kind] / "schema.json"
    hint = f"legoray schema {kind} > {path.relative_to(ROOT)}"
    assert path.read_text(encoding="utf-8") == text_of_schema(kind), hint
    Draft7Validator.check_schema(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(("kind", "path"), FILES, ids=lambda value: getattr(value, "stem", value))
def test_every_file_here_is_valid_and_names_its_schema(validators, kind, path):
    assert [e.message for e in validators[kind].iter_errors(read_yaml(path).data)] == []
    first = path.read_text(encoding="utf-8").partition("\n")[0] + "\n"
    nested = len(path.relative_to(ROOT / FOLDERS[kind]).parents) - 1
    assert first == FIRST.replace("schema.json", "../" * nested + "schema.json")


def errors(validators, text: str, kind: str = "search-space") -> list[str]:
    return [e.message for e in validators[kind].iter_errors(parse_yaml(text).data)]


FINE = {
    "whole": ("", ""),
    "case": ("log: [1e-4, 1e-2]", "case: content, cnn: {log: [1e-3, 1e-2]}, else: 1e-3"),
    "formula": ("{int: [1, 3]}", "{int: [1, behavior.heads]}"),
    "choice of ranges": ("{choice: [3, 5]}", "{choice: [3, {int: [5, 9], step: 2}]}"),
    "named by choice": ("{name: additive}", "{name: {choice: [additive, gru]}}"),
    "part of one's own": ("{name: additive}", "{name: 'my_parts:Mine', anything: 3}"),
    "nested": ("{name: id}", "{name: hybrid, text: {name: cnn, kernel_size: {choice: [3, 5]}}}"),
    "subtree": ("- {name: id}", "- {name: llm, lora: {choice: [null, {rank: {choice: [4, 8]}}]}}"),
    "in a list": ("{name: dot}", "{name: dnn, units: [64, {choice: [16, 32]}]}"),
    "conditions": ("trials: 5", "hours: 2.5}\nwhere: [hidden_size == 16]\nfinal: {top: 2"),
    "data sets": ("data: data.yaml", "data: [a.yaml, b.yaml]"),
    "starts": ("trials: 5", "start_from: [naml], start_with: [{model: {content: {name: id}}}]"),
    "null": ("epochs: 3", "epochs: 3\n  clip_norm: {choice: [null, 1.0]}"),
}  # fmt: skip
WRONG = {
    "unknown key of the file": ("search:", "serach:"),
    "unknown part": ("name: cnn", "name: cnnn"),
    "setting of another part": ("{name: additive}", "{name: additive, heads: 4}"),
    "misspelt setting": ("kernel_size", "kernel"),
    "misspelt training": ("epochs: 3", "epoch: 3"),
    "word for a number": ("epochs: 3", "epochs: many"),
    "too small": ("hidden_size: 16", "hidden_size: 0"),
    "too large": ("log: [1e-4, 1e-2]}", "choice: [1e-3, 3]}"),
    "choice of no list": ("{choice: [3, 5]}", "{choice: 3}"),
    "empty choice": ("{choice: [3, 5]}", "{choice: []}"),
    "another tool's word": ("log: [1e-4, 1e-2]", "loguniform: [1e-4, 1e-2]"),
    "three ends": ("{int: [1, 3]}", "{int: [1, 2, 3]}"),
    "fractions of an integer": ("{int: [1, 3]}", "{float: [1, 3]}"),
    "a case of nothing": ("log: [1e-4, 1e-2]", "case: content"),
    "range of a word": ("epochs: 3", "task: {int: [1, 2]}"),
    "searched outside": ("trials: 5", "trials: {choice: [5, 6]}"),
    "unknown sampler": ("trials: 5", "sampler: {name: tpee}"),
    "unknown preset": ("trials: 5", "start_from: [namll]"),
    "part without a name": ("{name: id}", "{dropout: 0.1}"),
}
INLINE = edited("search:\n  trials: 5\n", "search: {trials: 5}\n")


@pytest.mark.parametrize("case", FINE)
def test_what_the_notation_allows_is_valid(validators, case):
    old, new = FINE[case]
    assert errors(validators, edited(old, new, INLINE)) == []


@pytest.mark.parametrize("case", WRONG)
def test_typical_mistakes_are_not(validators, case):
    assert errors(validators, edited(*WRONG[case], INLINE)), case


def test_mistakes_in_data_sets_and_presets(validators):
    data = (ROOT / "datasets/own_example.yaml").read_text()
    for old, new in (
        ("processor: own", "processor: owm"),
        ("file: interactions.csv", "fil: interactions.csv"),
        ("{temporal: 0.8/0.1/0.1}", "{temporal: most}"),
        ("on_bad_row: fail", "on_bad_row: ignore"),
    ):
        assert errors(validators, data, "dataset") == []
        assert errors(validators, data.replace(old, new, 1), "dataset"), new
    preset = (ROOT / "legoray/presets/naml.yaml").read_text()
    for old, new in (("name: cnn", "name: cn"), ("title:", "titel:"), ("negatives:", "negative:")):
        assert errors(validators, preset.replace(old, new, 1), "preset"), new


def test_editors_are_told_what_a_setting_is(validators):
    schema = validators["search-space"].schema
    cnn = schema["$defs"]["content-cnn"]
    assert cnn["properties"]["length"]["description"] == "tokens per attribute at most"
    assert cnn["properties"]["length"]["default"] == 32
    assert "description" in cnn
    assert schema["properties"]["search"]["properties"]["hours"]["description"]
