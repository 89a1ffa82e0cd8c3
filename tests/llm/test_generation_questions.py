"""Prompts filled in; and what a user's profile may be made from."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from legoray.data.load import load_corpus, load_items, load_users, read_manifest
from legoray.errors import InputError
from legoray.llm.generation.prompt import PromptConfig, read_prompt
from legoray.llm.generation.questions import known_before, questions_of

PROMPT = {"name": "p", "attribute": "a"}


def test_a_prompt_of_items(sample_tables):
    prompt = PromptConfig(**PROMPT, system="Be brief.", user="On {category}:\n\n{text}\n")
    found = questions_of(sample_tables, prompt, ["title", "abstract"])
    rows = load_items(sample_tables, ["key", "category", "title", "abstract"]).to_pylist()
    assert len(found) == len(rows)
    for number in (0, 7, len(rows) - 1):
        row, question = rows[number], found[number]
        lines = [" ".join(row[name].split()) for name in ("title", "abstract") if row[name].strip()]
        assert question.key == row["key"]
        assert question.system == "Be brief."
        assert question.user == "\n".join([f"On {row['category']}:", "", *lines])
    assert not found.blank.any()


def test_nothing_is_asked_of_items_without_a_text(item_tables):
    found = questions_of(item_tables, PromptConfig(**PROMPT, user="Sum up: {text}"), ["title"])
    assert np.flatnonzero(found.blank).tolist() == [2], "its title is empty"


def test_unknown_attributes(sample_tables):
    with pytest.raises(InputError, match="did you mean 'title'"):
        questions_of(sample_tables, PromptConfig(**PROMPT, user="{titel}"), [])
    with pytest.raises(InputError, match="did you mean 'title'"):
        questions_of(sample_tables, PromptConfig(**PROMPT, user="{text}"), ["titel"])
    with pytest.raises(InputError, match="no user attribute 'age'"):
        questions_of(sample_tables, PromptConfig(**PROMPT, of="users", user="{age}"), [])
    history = {"item": "{titel}"}
    prompt = PromptConfig(**PROMPT, of="users", user="{history}", history=history)
    with pytest.raises(InputError, match=r"history\.item: .*'title'"):
        questions_of(sample_tables, prompt, ["title"])


def expected_history(corpus, user, most):
    """The rule, by plain loops over interactions."""
    limits = {}
    for name in ("valid", "test"):
        split = corpus.splits[name]
        for history, end in zip(split.history.tolist(), split.history_end.tolist(), strict=True):
            limits[history] = min(limits.get(history, end), end)
    states = {}
    for name, split in corpus.splits.items():
        rows = zip(split.user, split.time, split.history_end, split.history, strict=True)
        states[name] = sorted((int(t), int(e), int(h)) for u, t, e, h in rows if u == user)
    if states["train"]:
        _, end, history = states["train"][-1]
    elif states["valid"] or states["test"]:
        _, end, history = (states["valid"] or states["test"])[0]
    else:
        return []
    end = min(end, limits.get(history, end))
    start = corpus.history_offsets[history]
    return corpus.history_items[start : start + end].tolist()[-most:]


def test_histories_of_profiles_by_plain_loops(sample_tables):
    corpus = load_corpus(sample_tables)
    users = read_manifest(sample_tables).counts["users"]
    offsets, items = known_before(corpus, users, 5)
    kinds = set()
    for user in range(0, users, 3):
        expected = expected_history(corpus, user, 5)
        assert items[offsets[user] : offsets[user + 1]].tolist() == expected, user
        kinds.add((user in corpus.splits["train"].user, bool(expected)))
    assert {(True, True), (False, True)} <= kinds, "users with and without training interactions"


def test_profiles_never_see_the_future(sample_tables):
    """Whatever stands in a history from its first measured interaction on changes nothing."""
    corpus = load_corpus(sample_tables)
    users = read_manifest(sample_tables).counts["users"]
    before = known_before(corpus, users, 50)
    poisoned = corpus.history_items.copy()
    touched = 0
    for name in ("valid", "test"):
        split = corpus.splits[name]
        for history, end in zip(split.history, split.history_end, strict=True):
            start, stop = corpus.history_offsets[history : history + 2]
            poisoned[start + end : stop] = 1
            touched += int(stop - start - end)
    after = known_before(dataclasses.replace(corpus, history_items=poisoned), users, 50)
    assert np.array_equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])

    # sliding windows: one history per user, in which later interactions have later ends
    one = sliding(corpus)
    offsets, items = known_before(one, 3, 50)
    assert [items[offsets[u] : offsets[u + 1]].tolist() for u in range(3)] == [[1, 2], [], [7]]


def sliding(corpus):
    """User 0 trains, then is tested; user 1 begins with a test; user 2 is tested alone."""

    def split(rows):
        user, end, time = (np.array(column) for column in zip(*rows, strict=True))
        zero = np.zeros(len(rows), np.int64)
        return dataclasses.replace(
            corpus.splits["test"],
            impression=zero, history=user, history_end=end, user=user, time=time,
            offsets=np.arange(len(rows) + 1), clicks=zero, item=zero, label=zero,
        )  # fmt: skip

    return dataclasses.replace(
        corpus,
        history_items=np.array([1, 2, 3, 4, 5, 6, 7, 8]),
        history_offsets=np.array([0, 5, 6, 8]),
        splits={
            "train": split([(0, 1, 10), (0, 2, 20)]),
            "valid": split([(0, 3, 30)]),
            "test": split([(0, 4, 40), (1, 0, 35), (2, 2, 50), (2, 1, 45)]),
        },
    )


def test_a_profile_prompt_has_the_titles(sample_tables):
    prompt = read_prompt("profile")
    found = questions_of(sample_tables, prompt, ["title"])
    keys = load_users(sample_tables, ["key"])["key"].to_pylist()
    titles = load_items(sample_tables, ["title"])["title"].to_pylist()
    corpus = load_corpus(sample_tables)
    assert found.keys == keys
    for user in (0, 100, len(keys) - 1):
        items = expected_history(corpus, user, prompt.history.most)
        lines = "\n".join("- " + " ".join(titles[item - 1].split()) for item in items)
        assert lines in found.user[user]
        assert found.blank[user] == (not items)
