"""Two data sets of one name are told apart by their items' own texts."""

from __future__ import annotations

import json

import pytest
from raw_files import dataset, write

from legoray.data.evidence import SAMPLE, contradicts, evidence_of
from legoray.data.prepare import Prepared, prepare

OPTIONS = {"items": {"file": "items.csv"}, "sequences": {"file": "users.jsonl"}}


@pytest.fixture
def made(tmp_path, home):
    """Prepares items of these titles, by their keys."""

    def make(titles: dict[str, str], *, attributes: bool = True) -> Prepared:
        head = "item,title" if attributes else "item"
        rows = [f"{key},{title}" if attributes else key for key, title in titles.items()]
        write(tmp_path / "raw/items.csv", "\n".join([head, *rows]) + "\n")
        user = {"user": "u", "items": list(titles)[:4]}
        write(tmp_path / "raw/users.jsonl", json.dumps(user) + "\n")
        return prepare(dataset(tmp_path, "sequences", options=OPTIONS), say=print)

    return make


def titles(count: int, word: str) -> dict[str, str]:
    return {str(n): f"{word} {n}" for n in range(count)}


def test_edited_and_added_items_are_the_same_data(made):
    first = made(titles(400, "film"))
    evidence = evidence_of(first.tables, first.manifest)
    assert len(evidence) == SAMPLE
    assert not contradicts(evidence, first.tables, first.manifest)
    edited = {k: f"{t} (the cut)" if int(k) % 3 == 0 else t for k, t in titles(900, "film").items()}
    second = made(edited)
    assert not contradicts(evidence, second.tables, second.manifest)


def test_the_same_keys_with_other_texts_are_other_data(made):
    first = made(titles(50, "film"))
    evidence = evidence_of(first.tables, first.manifest)
    second = made(titles(60, "book"))
    assert contradicts(evidence, second.tables, second.manifest)


def test_nothing_is_known_of_other_keys_or_of_items_without_texts(made):
    first = made(titles(50, "film"))
    evidence = evidence_of(first.tables, first.manifest)
    others = made({f"b{key}": title for key, title in titles(50, "book").items()})
    assert not contradicts(evidence, others.tables, others.manifest)
    bare = made(titles(50, "film"), attributes=False)
    assert not contradicts(evidence, bare.tables, bare.manifest)
    assert evidence_of(bare.tables, bare.manifest) == {}
    untold = made(dict.fromkeys(titles(50, ""), ""))
    assert not contradicts(evidence, untold.tables, untold.manifest)
