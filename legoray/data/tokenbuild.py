"""The tokens of big item tables, made unit by unit: an interruption loses one, memory holds one.

<tokens>/<key>/unfinished/ids      int32, the ids of all units so far
<tokens>/<key>/unfinished/counts   int64, tokens per text of these units

Who is interrupted goes on after the last whole unit. The finished file is plain safetensors: `ids`,
`offsets` and their CRC-32 (see `tokens`), moved into place when it is whole.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from legoray.data.numberfile import NumberFile
from legoray.data.tokenization import TextUnit, encode_units

_BLOCK = 1 << 24


def build_tokens(
    file: Path,
    units: Sequence[TextUnit],
    note: Mapping[str, str],
    *,
    length: int,
    tokenizer: Tokenizer,
    shift: int,
) -> None:
    """Write the tokens of all units' texts as one file. Nobody else writes it meanwhile.

    Args:
        file: the file.
        units: the texts of items 1, 2, ... in order.
        note: strings to keep with them, for people and for `legoray inspect`.
        length: tokens per text at most.
        tokenizer: used without special tokens.
        shift: added to each id.

    Raises:
        ValueError: a unit is not as it should be.
        OSError: a file cannot be read or written.
    """
    folder = file.parent / "unfinished"
    folder.mkdir(exist_ok=True)
    counts = NumberFile(folder / "counts", np.int64)
    ids = NumberFile(folder / "ids", np.int32)
    done = _go_on(units, counts, ids)
    for number, found in encode_units(units[done:], length=length, tokenizer=tokenizer):
        ids.append(found + np.int32(shift))
        counts.append(number)
    texts = sum(unit.rows for unit in units)
    if len(counts) != texts:
        raise ValueError(f"{len(counts)} texts came back of {texts}")
    _assemble(file, counts, ids, note)
    shutil.rmtree(folder)


def _go_on(units: Sequence[TextUnit], counts: NumberFile, ids: NumberFile) -> int:
    """How many units an interrupted run finished; what it left beyond them is cut off."""
    ends = np.cumsum([0, *[unit.rows for unit in units]])
    done = int(np.searchsorted(ends, len(counts), side="right")) - 1
    texts = int(ends[done])
    tokens = int(counts.gather(np.arange(texts)).sum())
    if tokens > len(ids):  # only after a crash of the machine
        done = texts = tokens = 0
    for written, size in ((counts, texts), (ids, tokens)):
        written.path.touch()
        os.truncate(written.path, size * np.dtype(written.dtype).itemsize)
    return done


def _assemble(file: Path, counts: NumberFile, ids: NumberFile, note: Mapping[str, str]) -> None:
    """Write under a temporary name and move into place."""
    per_text = np.fromfile(counts.path, np.int64)
    offsets = np.concatenate([np.zeros(2, np.int64), np.cumsum(per_text)])
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".new-", delete=False) as temporary:
        try:
            with ids.path.open("rb") as source:
                told = {**note, "crc32": str(_checksum(source, offsets))}
                temporary.write(_header(offsets, len(ids), told))
                temporary.write(offsets.data)
                source.seek(0)
                shutil.copyfileobj(source, temporary, _BLOCK)
            temporary.flush()
            os.fsync(temporary.fileno())
            os.chmod(temporary.name, 0o644)
            os.replace(temporary.name, file)
        except BaseException:
            Path(temporary.name).unlink(missing_ok=True)
            raise


def _checksum(ids: BinaryIO, offsets: NDArray[Any]) -> int:
    value = 0
    while block := ids.read(_BLOCK):
        value = zlib.crc32(block, value)
    return zlib.crc32(offsets.data, value)


def _header(offsets: NDArray[Any], ids: int, note: Mapping[str, str]) -> bytes:
    """8 bytes of length, then JSON, padded so that the numbers are aligned."""
    end = offsets.nbytes
    content = {
        "__metadata__": note,
        "offsets": {"dtype": "I64", "shape": [len(offsets)], "data_offsets": [0, end]},
        "ids": {"dtype": "I32", "shape": [ids], "data_offsets": [end, end + 4 * ids]},
    }
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
