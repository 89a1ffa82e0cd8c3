"""Token ids of the items' text: made once per (tokenizer, attribute, length), shared by all trials.

<tables>/tokens/words-<key>/tokenizer.json   vocabulary of the data set's own words
<tables>/tokens/<key>/tokens.safetensors     one attribute's ids, flat, with offsets per item

The keys are hashes of the data's fingerprint and of everything else that decides the content. Files
appear under their name only when they are whole, and are memory-mapped, so that all processes of a
node share one copy.
"""

from __future__ import annotations

import errno
import os
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor

from legoray.data.load import load_items, read_manifest
from legoray.data.recipes import Tokens
from legoray.data.schema import Manifest
from legoray.data.tokenbuild import build_tokens
from legoray.data.tokenization import (
    TextUnit,
    encode,
    load_tokenizer_file,
    text_units,
    tokenizer_checksum,
    word_tokenizer,
)
from legoray.errors import DamagedError, InputError, Problem, unknown
from legoray.records import digest
from legoray.storage.folders import get_file, send_file

VERSION = 1  # of the files' content: raise it when the same key would mean other ids


@dataclass(frozen=True)
class TokenTable:
    """The token ids of one attribute of all items.

    `ids [T]` int32 and `offsets [N + 2]` int64: item i owns `ids[offsets[i]:offsets[i + 1]]`; item
    0 is padding and owns nothing.
    """

    ids: Tensor
    offsets: Tensor


def gather_tokens(tables: Sequence[TokenTable], items: Tensor) -> Tokens:
    """The tokens of `items [N]`, attributes one after another, as long as the longest of these.

    Every row starts with its first token: padding stands at the end only.
    """
    starts = [table.offsets[items] for table in tables]
    counts = [table.offsets[items + 1] - start for table, start in zip(tables, starts, strict=True)]
    ends = torch.stack(counts).cumsum(dim=0)
    width = max(int(ends[-1].max()) if len(items) else 0, 1)
    column = torch.arange(width)
    mask = column < ends[-1][:, None]
    ids = torch.zeros(len(items), width, dtype=torch.int64)
    attribute = torch.zeros_like(ids)
    for number, (table, start, count) in enumerate(zip(tables, starts, counts, strict=True)):
        begin = (ends[number] - count)[:, None]
        inside = (column >= begin) & (column < ends[number][:, None])
        ids[inside] = table.ids[(column + (start[:, None] - begin))[inside]].long()
        if number:
            attribute.masked_fill_(inside, number)
    return Tokens(ids, mask, attribute)


def token_counts(tables: Sequence[TokenTable], items: Tensor) -> Tensor:
    """How many tokens each of `items [N]` has: `[N]`."""
    counts = [table.offsets[items + 1] - table.offsets[items] for table in tables]
    return torch.stack(counts).sum(dim=0)


def make_table(
    texts: Sequence[str], *, length: int, tokenizer: Tokenizer, shift: int
) -> TokenTable:
    """Tokenize one text per item; the first text is item 1's.

    Args:
        texts: `[N]`; an empty one gives no tokens.
        length: tokens per item at most.
        tokenizer: used without special tokens.
        shift: added to each id, so that 0 is free for padding.
    """
    counts, ids = encode(texts, length=length, tokenizer=tokenizer)
    offsets = np.concatenate([np.zeros(2, np.int64), np.cumsum(counts)])
    return TokenTable(torch.from_numpy(ids + np.int32(shift)), torch.from_numpy(offsets))


def open_table(
    tables: Path, attribute: str, *, length: int, tokenizer: Tokenizer, shift: int
) -> TokenTable:
    """The tokens of one attribute; made now if nobody has made them yet.

    Args:
        tables: folder of the prepared tables.
        attribute: a column of the items table.
        length: as in `make_table`, and so are `tokenizer` and `shift`.
        tokenizer: see there.
        shift: see there.

    Raises:
        InputError: no such attribute, a missing value in it, a damaged file, an unwritable folder.
    """
    manifest = read_manifest(tables)
    check_attributes([attribute], manifest.attributes, tables)
    checksum, texts_of = tokenizer_checksum(tokenizer), manifest.prints([attribute])
    parts = [VERSION, manifest.fingerprint, checksum, attribute, length, shift, *texts_of.values()]
    file = tables / "tokens" / digest(parts) / "tokens.safetensors"

    def make() -> None:
        kind = f"{type(tokenizer.model).__name__} of {tokenizer.get_vocab_size():,} words"
        of_texts = {"attribute": attribute, "texts": texts_of.get(attribute, "")}
        note = {**of_texts, "length": str(length), "tokenizer": kind}
        try:
            units = _units(tables, attribute, manifest)
            build_tokens(file, units, note, length=length, tokenizer=tokenizer, shift=shift)
        except (ValueError, pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
                raise  # of this file; Arrow's own errors have no number
            read_texts(tables, attribute, manifest)  # says what is wrong with them
            raise _damaged(file, str(error)) from None

    _once(file, make)
    return _load(file, manifest.counts["items"])


def _units(tables: Path, attribute: str, manifest: Manifest) -> list[TextUnit]:
    """The texts of one attribute of all items, as they lie on disk."""
    written = manifest.written.get(attribute)
    if written is None:
        files = [tables / name for name in sorted(manifest.files) if name.startswith("items/")]
        return text_units(files, attribute, "item_id")
    files = [tables / name for name in written.files]
    return text_units(files, "text", "number", empty=written.missing == "empty")


def open_word_tokenizer(tables: Path, attributes: Sequence[str], min_count: int) -> Tokenizer:
    """The tokenizer of the words in these attributes; made now if nobody has made it yet.

    Raises:
        InputError: as `open_table`.
    """
    manifest = read_manifest(tables)
    check_attributes(attributes, manifest.attributes, tables)
    names = sorted(set(attributes))
    prints = manifest.prints(names)
    key = digest([VERSION, manifest.fingerprint, names, min_count, *([prints] if prints else [])])
    file = tables / "tokens" / f"words-{key}" / "tokenizer.json"

    def make() -> None:
        texts = (text for name in names for text in read_texts(tables, name, manifest))
        _write(file, word_tokenizer(texts, min_count).to_str().encode())

    _once(file, make)
    return load_tokenizer_file(file)


def read_texts(tables: Path, attribute: str, manifest: Manifest | None = None) -> list[str]:
    """One attribute of all items, in the order of their ids; `manifest` as for `load_items`.

    Raises:
        InputError: an item has no value (not even an empty text).
    """
    column = load_items(tables, [attribute], manifest)[attribute]
    if column.null_count:
        row = column.is_null().index(True).as_py()
        where = f"{tables}/items: {attribute}"
        raise InputError(Problem(where, f"item {row + 1} has no value", "prepare the data again"))
    return column.to_pylist()


def check_attributes(wanted: Sequence[str], known: Sequence[str], tables: Path) -> None:
    """Refuse attributes that the data set does not have, naming the nearest that it has.

    Raises:
        InputError: all unknown attributes at once.
    """
    problems = [unknown("attribute", a, known, str(tables)) for a in wanted if a not in known]
    if problems:
        raise InputError(*problems)


def _once(file: Path, make: Callable[[], None]) -> None:
    """Have `make` write `file` unless it is there, once even among many processes."""
    if file.exists():
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.parent / ".lock"):
            if not get_file(file):
                make()
                send_file(file)
    except OSError as error:
        raise InputError(Problem(str(file), f"cannot be written: {error.strerror}")) from None


def _write(file: Path, content: bytes) -> None:
    """Write under a temporary name and move into place."""
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".new-", delete=False) as temporary:
        try:
            temporary.write(content)
            temporary.flush()
            os.fsync(temporary.fileno())
            os.chmod(temporary.name, 0o644)
            os.replace(temporary.name, file)
        except BaseException:
            Path(temporary.name).unlink(missing_ok=True)
            raise


def _checksum(table: TokenTable) -> int:
    return zlib.crc32(table.offsets.numpy().data, zlib.crc32(table.ids.numpy().data))


def _load(file: Path, items: int) -> TokenTable:
    """Map a table's file and check that it is whole."""
    try:
        with safe_open(file, framework="pt") as opened:
            table = TokenTable(opened.get_tensor("ids"), opened.get_tensor("offsets"))
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _damaged(file, str(error)) from None
    if metadata.get("crc32") != str(_checksum(table)):
        raise _damaged(file, "its checksum is another")
    if len(table.offsets) != items + 2:
        raise _damaged(file, f"it has {len(table.offsets) - 2} items of {items}")
    return table


def _damaged(file: Path, reason: str) -> DamagedError:
    hint = f"delete the folder {file.parent}; it is made again when it is needed"
    return DamagedError(Problem(str(file), f"is damaged: {reason}", hint))
