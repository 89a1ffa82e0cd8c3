"""What a language model reads of an item: a template filled in, then cut into tokens.

A template is literal text with attribute names in braces, such as `{title} ({category})`; a brace
itself is written twice. White space is put into single spaces and trimmed, so that an empty last
attribute leaves none behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import string
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from legoray.errors import InputError, Problem, nearest

_BATCH = 20_000
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Encoded:
    """Token ids of n texts one after another; text `i` owns `ids[offsets[i]:offsets[i + 1]]`.

    Every text has at least one token.
    """

    ids: NDArray[np.int64]  # [T]
    offsets: NDArray[np.int64]  # [n + 1]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """`[n]` tokens of each text."""
        return np.diff(self.offsets)


def default_template(text: Sequence[str]) -> str:
    """The data set's text attributes in their order, as sentences: `{title}. {abstract}`."""
    return ". ".join("{" + name + "}" for name in text)


def template_pieces(template: str) -> list[tuple[str, str | None]]:
    """A template as (literal text, attribute that follows it or None) pairs.

    Raises:
        ValueError: a brace is left open, a name is missing, or a format is given.
    """
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"the template '{template}' is not well formed: {error}") from None
    for _, name, spec, conversion in parsed:
        if name is not None and (spec or conversion or not _ok(name)):
            raise ValueError(
                f"the template '{template}' has '{{{name}}}', expected an attribute's name alone"
            )
    pieces = [(literal, name) for literal, name, _, _ in parsed]
    if not any(name for _, name in pieces):
        raise ValueError(
            f"the template '{template}' names no attribute, expected such as '{{title}}'"
        )
    return pieces


def _ok(name: str) -> bool:
    """Whether a name such as `title-augmented` is an attribute's, not an index or a path."""
    return bool(name) and all(c.isalnum() or c in "-_" for c in name)


def template_attributes(template: str) -> list[str]:
    """The attributes that a template names, each once, in order."""
    return list(dict.fromkeys(name for _, name in template_pieces(template) if name))


def check_attributes(template: str, known: Sequence[str], where: str = "") -> None:
    """See that the tables have what a template names.

    Raises:
        InputError: the template is not well formed, or names an attribute that the tables lack.
    """
    try:
        names = template_attributes(template)
    except ValueError as error:
        raise InputError(Problem(where, str(error))) from None
    problems = [
        Problem(
            where,
            f"the template '{template}' names the attribute '{name}', which the items lack",
            f"did you mean '{close}'?" if close else f"known: {', '.join(sorted(known))}",
        )
        for name in names
        if name not in known
        for close in [nearest(name, known)]
    ]
    if problems:
        raise InputError(*problems)


def render(template: str, columns: Mapping[str, Any]) -> pa.Array:
    """The texts of n items.

    Args:
        template: see the module.
        columns: attribute -> n strings (a list or an Arrow array); nulls count as empty.
    """
    parts: list[Any] = []
    for literal, name in template_pieces(template):
        parts.append(pa.scalar(literal, pa.large_string()))
        if name:
            parts.append(_strings(columns[name]))
    joined = pc.binary_join_element_wise(*parts, pa.scalar("", pa.large_string()))
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(joined, r"\s+", " "))


def _strings(values: Any) -> pa.Array:
    array = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else pa.array(values)
    return pc.fill_null(array.cast(pa.large_string()), "")


def texts_fingerprint(texts: pa.Array) -> str:
    """SHA-256 of n texts and of where each ends."""
    total = hashlib.sha256(np.asarray(pc.binary_length(texts), dtype=np.int64).tobytes())
    total.update("".join(texts.to_pylist()).encode())
    return total.hexdigest()


def encode(tokenizer: Any, texts: pa.Array, length: int) -> Encoded:
    """Token ids of every text, special tokens included, `length` of each at most.

    The tokenizer is as it was afterwards, and threads may share it.
    """
    rows: list[list[int]] = []
    cut = {"truncation": True, "max_length": length}
    for start in range(0, len(texts), _BATCH):
        batch = texts.slice(start, _BATCH).to_pylist()
        with _alone(tokenizer):
            told = tokenizer(batch, **cut, return_attention_mask=False, verbose=False)
        rows += told["input_ids"]
    # a text that has no token at all (empty, and a tokenizer without special tokens) would leave
    # nothing to pool over
    filler = [_filler(tokenizer)]
    rows = [row or filler for row in rows]
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = np.fromiter(itertools.chain.from_iterable(rows), np.int64, int(offsets[-1]))
    return Encoded(ids, offsets)


@contextlib.contextmanager
def _alone(tokenizer: Any) -> Iterator[None]:
    """The library writes into a tokenizer where it is to cut: no other thread's length may be met.

    Nor may it stay there: what is made of the tokenizer is keyed by all that it holds.
    """
    core = getattr(tokenizer, "backend_tokenizer", None)
    with _LOCK:
        if core is None:  # of Python alone: it is told each time
            yield
            return
        cut, fill = core.truncation, core.padding
        try:
            yield
        finally:
            core.enable_truncation(**cut) if cut else core.no_truncation()
            core.enable_padding(**fill) if fill else core.no_padding()


def _filler(tokenizer: Any) -> int:
    known = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    return next((token for token in known if token is not None), 0)
