"""The questions to a model: a prompt filled in for every item or user of prepared tables.

A user's profile is made from what was known in the train period, and never from more:

- of a user with training interactions, the history as it was before the last of them
- of a user without any, the history before the user's first validation or test interaction
- of both, nothing that stands in the history at or after the place where the first validation or
  test interaction with that history came

so that no profile holds an item that the user clicked after an interaction which measures a model.
It may hold items that training interactions are about, as any history of a later one does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from legoray.data.corpus import Corpus, Split
from legoray.data.load import load_corpus, load_items, load_users, read_manifest
from legoray.errors import InputError, Problem, unknown
from legoray.llm.generation.prompt import PLACES, PromptConfig
from legoray.llm.text import default_template, render, template_attributes, template_pieces

MOST_WORDS = 400  # of an attribute that are read: a book's description may be a book
_TEXT = pa.large_string()
_FAR = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Question:
    """What is asked about one item or user."""

    key: str
    system: str
    user: str


@dataclass(frozen=True)
class Questions:
    """All questions of a prompt; rows stand in the tables' order."""

    keys: list[str]
    system: list[str]
    user: list[str]
    shown: list[str]  # what the model reads of each, to be shown beside its answer
    blank: NDArray[np.bool_]  # nothing is known of this one: nothing is asked

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, row: int) -> Question:
        return Question(self.keys[row], self.system[row], self.user[row])


def questions_of(tables: Path, prompt: PromptConfig, attributes: Sequence[str]) -> Questions:
    """A prompt filled in for every item (or user) of prepared tables.

    Args:
        tables: folder of the prepared tables.
        prompt: what is asked.
        attributes: of the items: what `{text}` and the items of `{history}` are made of.

    Raises:
        InputError: the prompt or `attributes` name what the tables lack, or a table is damaged.
    """
    known = read_manifest(tables).attributes
    wrong = [name for name in attributes if name not in known]
    if wrong:
        raise InputError(*[unknown("item attribute", name, known) for name in wrong])
    if prompt.of == "items":
        return _of_items(tables, prompt, attributes)
    return _of_users(tables, prompt, attributes)


def _of_items(tables: Path, prompt: PromptConfig, attributes: Sequence[str]) -> Questions:
    own = [name for name in prompt.names() if name not in PLACES]
    _check(prompt, own, read_manifest(tables).attributes, "item")
    read = list(attributes) if "text" in prompt.names() else []
    table = load_items(tables, list(dict.fromkeys(["key", *own, *read])))
    columns = {name: shortened(table[name]) for name in table.column_names if name != "key"}
    if read:
        newline = pa.scalar("\n", _TEXT)
        joined = pc.binary_join_element_wise(*(columns[name] for name in read), newline)
        columns["text"] = _lines(joined)
    return _filled(prompt, table["key"].to_pylist(), columns)


def _of_users(tables: Path, prompt: PromptConfig, attributes: Sequence[str]) -> Questions:
    own = [name for name in prompt.names() if name not in PLACES]
    _check(prompt, own, read_manifest(tables).user_attributes, "user")
    table = load_users(tables, list(dict.fromkeys(["key", *own])))
    columns = {name: shortened(table[name]) for name in table.column_names if name != "key"}
    if "history" in prompt.names():
        columns["history"] = _histories(tables, prompt, attributes, len(table))
    return _filled(prompt, table["key"].to_pylist(), columns)


def _check(prompt: PromptConfig, names: list[str], known: list[str], kind: str) -> None:
    wrong = [name for name in names if name not in known]
    if wrong:
        where = f"prompt {prompt.name}"
        raise InputError(*[unknown(f"{kind} attribute", name, known, where) for name in wrong])


def _histories(tables: Path, prompt: PromptConfig, attributes: Sequence[str], users: int) -> Any:
    """`[users]` the lines of what each user read."""
    template = prompt.history.item or default_template(attributes[:1])
    names = template_attributes(template)
    known = read_manifest(tables).attributes
    wrong = [name for name in names if name not in known]
    if wrong:
        where = f"prompt {prompt.name}: history.item"
        raise InputError(*[unknown("item attribute", name, known, where) for name in wrong])
    table = load_items(tables, names)
    items = render(template, {name: shortened(table[name]) for name in names})
    offsets, ids = known_before(load_corpus(tables), users, prompt.history.most)
    titles = items.take(pa.array(ids - 1))
    lines = pc.binary_join_element_wise(pa.scalar("- ", _TEXT), titles, pa.scalar("", _TEXT))
    lines = pc.if_else(pc.equal(titles, ""), pa.scalar("", _TEXT), lines)
    lists = pa.LargeListArray.from_arrays(pa.array(offsets), lines)
    return _lines(pc.binary_join(lists, pa.scalar("\n", _TEXT)))


def _lines(texts: Any) -> Any:
    """Texts without empty lines."""
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(texts, r"\n+", "\n"))


def known_before(
    corpus: Corpus, users: int, most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What each user had read when the train period ended; see the module.

    Args:
        corpus: histories and splits.
        users: how many users the tables have.
        most: the newest items of each, this many.

    Returns:
        offsets `[users + 1]` and item ids `[T]`, oldest first; user u owns
        `items[offsets[u]:offsets[u + 1]]`.
    """
    measured = [corpus.splits[name] for name in ("valid", "test") if name in corpus.splits]
    limit = np.full(len(corpus.history_offsets) - 1, _FAR)
    for split in measured:
        np.minimum.at(limit, split.history, split.history_end.astype(np.int64))
    history = np.full(users, -1, np.int64)
    end = np.zeros(users, np.int64)
    # the earliest measured interaction of a user, where there is no training interaction
    for split in reversed(measured):
        _choose(split, history, end, last=False)
    if "train" in corpus.splits:
        _choose(corpus.splits["train"], history, end, last=True)
    end = np.where(history >= 0, np.minimum(end, limit[history]), 0)
    count = np.minimum(end, most)
    offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    start = corpus.history_offsets[:-1][history] + end - count
    position = np.repeat(start - offsets[:-1], count) + np.arange(int(offsets[-1]))
    return offsets, corpus.history_items[position].astype(np.int64)


def _choose(
    split: Split, history: NDArray[np.int64], end: NDArray[np.int64], *, last: bool
) -> None:
    """Write in each user's first or last interaction of a split."""
    order = np.lexsort((split.history_end, split.time, split.user))
    users = split.user[order]
    edge = np.flatnonzero(users[1:] != users[:-1])
    if not len(users):
        return
    chosen = order[np.append(edge, len(users) - 1) if last else np.append(0, edge + 1)]
    history[split.user[chosen]] = split.history[chosen]
    end[split.user[chosen]] = split.history_end[chosen]


def shortened(column: Any, most: int = MOST_WORDS) -> pa.Array:
    """Texts with single spaces, the first words of each."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    array = pc.utf8_trim_whitespace(pc.fill_null(array.cast(_TEXT), ""))
    words = pc.utf8_split_whitespace(array)
    return pc.binary_join(pc.list_slice(words, 0, most), pa.scalar(" ", _TEXT))


def _filled(prompt: PromptConfig, keys: list[str], columns: Mapping[str, Any]) -> Questions:
    """The questions; what stands around the braces keeps its lines."""
    count = len(keys)
    choices = pa.array([", ".join(prompt.answer.choices)] * count, _TEXT)
    given = {**columns, "choices": choices}
    system, user = (_fill(text, given, count) for text in prompt.texts())
    shown = [name for name in prompt.names() if name in columns]
    empty = [pc.equal(columns[name], "").to_numpy(zero_copy_only=False) for name in shown]
    blank = np.logical_and.reduce(empty) if empty else np.zeros(count, bool)
    texts = _fill(" ".join("{" + name + "}" for name in shown), given, count)
    return Questions(keys, system, user, [" ".join(text.split()) for text in texts], blank)


def _fill(template: str, columns: Mapping[str, Any], count: int) -> list[str]:
    if "{" not in template:
        return [template.strip()] * count
    parts: list[Any] = []
    for literal, name in template_pieces(template):
        parts.append(pa.scalar(literal, _TEXT))
        if name:
            parts.append(columns[name])
    joined = pc.binary_join_element_wise(*parts, pa.scalar("", _TEXT))
    texts: list[str] = pc.utf8_trim_whitespace(joined).to_pylist()
    return texts


def check_raw(name: str, raw: Sequence[str], of: str) -> None:
    """Refuse to write an attribute under the name of one that is not ours to write.

    Raises:
        InputError: it is one.
    """
    if name in raw:
        message = f"'{name}' is an attribute that the {of} have already"
        raise InputError(Problem("--as", message, f"write another name, such as {name}-augmented"))
