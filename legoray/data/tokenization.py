"""Text to token ids: tokenizers of the data set's own words, and tokenizing many texts at once."""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from legoray.data.engine import ray_wish
from legoray.errors import InputError, Problem

PADDING, UNKNOWN = "[PAD]", "[UNK]"
CHUNK = 8192  # texts that are tokenized at a time
RAY_FROM = 300_000  # below so many texts Ray Data takes longer to start than the work takes

Encoded = tuple[NDArray[np.int64], NDArray[np.int32]]  # tokens per text, and all their ids


def word_tokenizer(texts: Iterable[str], min_count: int = 1) -> Tokenizer:
    """A tokenizer of lower-case words: letters, marks and digits; all else separates.

    Id 0 is padding, 1 any word that occurs fewer than `min_count` times; then words by frequency.
    """
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    separator = Regex(r"[^\p{L}\p{M}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(separator, behavior="removed")
    trainer = trainers.WordLevelTrainer(
        vocab_size=2**31 - 1,  # the library's own default would drop words silently
        min_frequency=min_count,
        special_tokens=[PADDING, UNKNOWN],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def load_tokenizer_file(file: Path) -> Tokenizer:
    """Read a `tokenizer.json`.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        return Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(Problem(str(file), "no such file")) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Problem(str(file), f"cannot be read: {error}")) from None
    except Exception as error:  # the library raises bare Exception for bad content
        raise InputError(Problem(str(file), f"is damaged: {error}")) from None


def tokenizer_checksum(tokenizer: Tokenizer) -> str:
    """A hash of everything that decides a tokenizer's output."""
    return hashlib.sha256(tokenizer.to_str().encode()).hexdigest()


def vocabulary_size(tokenizer: Tokenizer, shift: int) -> int:
    """One more than the highest shifted id; ids need not be dense."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=0) + 1 + shift


def encode(texts: Sequence[str], *, length: int, tokenizer: Tokenizer) -> Encoded:
    """Tokenize texts without special tokens, in this process.

    Returns:
        Tokens per text `[len(texts)]`, and all their ids, one text after another.
    """
    own = _ready(tokenizer.to_str(), length)
    chunks = (texts[i : i + CHUNK] for i in range(0, len(texts), CHUNK))
    return _joined([_encode_chunk(own, chunk) for chunk in chunks])


@dataclass(frozen=True)
class TextUnit:
    """Texts that are tokenized by one task: a column of one row group of a Parquet file."""

    path: str
    group: int
    column: str
    number: str  # the column that numbers the rows
    first: int  # the number of the first row
    rows: int
    empty: bool  # whether a missing text is an empty one


def text_units(
    files: Sequence[Path], column: str, number: str, *, empty: bool = False
) -> list[TextUnit]:
    """The row groups of files whose rows are numbered from 1 on; see `TextUnit`."""
    units, first = [], 1
    for file in files:
        metadata = pq.read_metadata(file)
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            units.append(TextUnit(str(file), group, column, number, first, rows, empty))
            first += rows
    return units


def encode_units(
    units: Sequence[TextUnit], *, length: int, tokenizer: Tokenizer
) -> Iterator[Encoded]:
    """Tokenize the texts of each unit, in order: spread by Ray Data where that helps.

    A unit is in memory at a time, or, with Ray, a bounded number of them.

    Raises:
        ValueError: the rows of a unit are not numbered as they should be, or lack a text.
    """
    spec = tokenizer.to_str()
    if _use_ray(sum(unit.rows for unit in units)):
        yield from _encode_by_ray(units, spec, length)
        return
    own = _ready(spec, length)
    for unit in units:
        yield _encode_unit(own, unit)


def _encode_by_ray(units: Sequence[TextUnit], spec: str, length: int) -> Iterator[Encoded]:
    """The same by Ray Data over all its CPUs."""
    from legoray.data.engine import ray_data, stream

    rows = [asdict(unit) for unit in units]
    data = ray_data().from_items(rows, override_num_blocks=len(rows))
    encode_batch = functools.partial(_encode_batch, spec=spec, length=length)
    for table in stream(data.map_batches(encode_batch, batch_size=1, batch_format="pyarrow")):
        for row in table.to_pylist():
            if row["problem"]:
                raise ValueError(row["problem"])
            yield np.frombuffer(row["counts"], np.int64), np.frombuffer(row["ids"], np.int32)


def _encode_unit(tokenizer: Tokenizer, unit: TextUnit) -> Encoded:
    found, at = [], unit.first
    columns = [unit.number, unit.column]
    file = pq.ParquetFile(unit.path)
    for batch in file.iter_batches(CHUNK, row_groups=[unit.group], columns=columns):
        numbers = batch[unit.number].to_numpy(zero_copy_only=False)
        if not np.array_equal(numbers, np.arange(at, at + len(numbers))):
            raise ValueError(f"{unit.path}: the rows are not numbered from {unit.first} on")
        texts = pc.fill_null(batch[unit.column], "") if unit.empty else batch[unit.column]
        if texts.null_count:
            raise ValueError(f"{unit.path}: a row has no {unit.column}")
        at += len(numbers)
        found.append(_encode_chunk(tokenizer, texts.to_pylist()))
    return _joined(found)


def _joined(parts: list[Encoded]) -> Encoded:
    counts = np.concatenate([np.zeros(0, np.int64), *(count for count, _ in parts)])
    return counts, np.concatenate([np.zeros(0, np.int32), *(ids for _, ids in parts)])


def _ready(spec: str, length: int) -> Tokenizer:
    """A tokenizer of its own that cuts at `length` and never pads."""
    tokenizer = Tokenizer.from_str(spec)
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=length)
    return tokenizer


_kept_ready = functools.lru_cache(maxsize=4)(_ready)  # in a worker, which does unit after unit


def _encode_chunk(tokenizer: Tokenizer, texts: Sequence[str]) -> Encoded:
    rows = [e.ids for e in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
    counts = np.fromiter((len(row) for row in rows), np.int64, len(rows))
    ids = np.fromiter((i for row in rows for i in row), np.int32, int(counts.sum()))
    return counts, ids


def _use_ray(texts: int) -> bool:
    """Whether Ray Data shall do it: much to do, Ray runs, this is its driver, and a CPU is free.

    Inside a trial every CPU may be taken: waiting for one there would be waiting for ever.
    """
    wish = ray_wish()
    if not texts or wish == "never" or "ray" not in sys.modules:
        return False
    import ray

    if not ray.is_initialized() or ray.get_runtime_context().get_task_id() is not None:
        return False
    enough = wish == "always" or texts >= RAY_FROM
    return enough and ray.available_resources().get("CPU", 0) >= 1


def _encode_batch(batch: pa.Table, spec: str, length: int) -> pa.Table:
    """One unit as one row of raw bytes. Its task has one CPU: the library shall take no more."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    counts, ids, problem = np.zeros(0, np.int64), np.zeros(0, np.int32), ""
    try:
        unit = TextUnit(**batch.to_pylist()[0])
        counts, ids = _encode_unit(_kept_ready(spec, length), unit)
    except (ValueError, OSError, pa.ArrowException) as error:  # Ray would bury it in tracebacks
        problem = str(error)
    return pa.table(
        {
            "counts": pa.array([counts.tobytes()], pa.large_binary()),
            "ids": pa.array([ids.tobytes()], pa.large_binary()),
            "problem": [problem],
        }
    )
