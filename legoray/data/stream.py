"""Files of lines, plain or gzip, as a stream of blocks of whole lines.

A gzip file can only be read from its beginning, so one reader cuts the blocks, and they are parsed
in threads or by Ray tasks. Only a few blocks are in memory at a time, however long the file is.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from legoray.data.engine import Engine
from legoray.data.files import RawFolder
from legoray.data.lines import BLOCK_BYTES, Layout, lines_in, split_lines
from legoray.errors import InputError, Problem

LONGEST_LINE = 64 << 20  # a longer one is no line: the file is of another format
THREADS = 8
GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class TextBlock:
    """Whole lines, and how many lines of the (decompressed) file stand before them."""

    data: bytes
    line: int


Parse = Callable[[TextBlock], pa.Table]


def text_source(raw: RawFolder, *names: str) -> Path:
    """The first of these files that is there, each as named or with (or without) `.gz`.

    A problem is noted in `raw` where there is none, or where it is not what its ending says.
    """
    spelled = [spelling for name in names for spelling in _spellings(name)]
    found = [name for name in spelled if (raw.path / name).exists()]
    path = raw.file(found[0] if found else names[0], text=bool(found) and not _is_gz(found[0]))
    if found and _is_gz(found[0]) and path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            head = file.read(2)
        if head != GZIP:
            plain = path.name.removesuffix(".gz")
            hint = f"if it is plain text, rename it to {plain}; else download it again"
            raw.problems.append(Problem(str(path), "is not a gzip file", hint))
    return path


def optional_source(raw: RawFolder, name: str) -> Path | None:
    """The same where a data set need not have the file; one that is still zipped is a problem."""
    names = [*_spellings(name), *(f"{spelling}.zip" for spelling in _spellings(name))]
    return text_source(raw, name) if any((raw.path / n).exists() for n in names) else None


def text_blocks(path: Path, size: int = BLOCK_BYTES) -> Iterator[TextBlock]:
    """The lines of a file in blocks of about `size` bytes, in order.

    Raises:
        InputError: it is truncated or damaged gzip, holds nothing, or has a line without end.
    """
    rest, line, first = b"", 0, True
    for piece in _pieces(path, size):
        if first:
            piece, first = piece.removeprefix(_BOM), False
        cut = piece.rfind(b"\n") + 1
        if not cut and len(rest) + len(piece) > LONGEST_LINE:
            told = f"the line is longer than {LONGEST_LINE >> 20} MB"
            raise InputError(Problem(f"{path}:{line + 1}", told, "is it one record per line?"))
        if not cut:
            rest += piece
            continue
        block = TextBlock(rest + piece[:cut], line)
        rest = piece[cut:]
        line += block.data.count(b"\n")
        yield block
    if rest:
        yield TextBlock(rest, line)
    elif not line:
        raise InputError(Problem(str(path), "holds no lines"))


def mapped(engine: Engine, parse: Parse, blocks: Iterable[TextBlock]) -> Iterator[pa.Table]:
    """`parse` of each block, in order: in threads of this process, or by Ray tasks.

    At most twice as many blocks as cores are in memory. `parse` must pickle. What the blocks
    before a damaged place hold comes first, then the error.
    """
    if engine.distributed:
        return _by_ray(parse, blocks)
    return _by_threads(parse, blocks)


def read_fields(block: TextBlock, layout: Layout) -> pa.Table:
    """The block's lines as one string column per field: see `lines.read_fields`."""
    return split_lines(lines_in(block.data, layout.encoding, first=block.line), layout)


def _spellings(name: str) -> tuple[str, str]:
    return (name, name.removesuffix(".gz") if _is_gz(name) else f"{name}.gz")


def _is_gz(name: str) -> bool:
    return name.lower().endswith(".gz")


def _pieces(path: Path, size: int) -> Iterator[bytes]:
    """The file's bytes, decompressed by Arrow, which leaves the other threads alone meanwhile."""
    try:
        with pa.OSFile(str(path)) as file:
            gz = _is_gz(path.name)
            stream = pa.CompressedInputStream(file, "gzip") if gz else file
            while piece := stream.read(size):
                yield piece
    except OSError as error:
        reason = str(error).splitlines()[0]
        kind = "is a truncated or damaged gzip file" if _is_gz(path.name) else "cannot be read"
        raise InputError(Problem(str(path), f"{kind}: {reason}", "download it again")) from None


def _by_threads(parse: Parse, blocks: Iterable[TextBlock]) -> Iterator[pa.Table]:
    workers = min(os.cpu_count() or 1, THREADS)
    pool = ThreadPoolExecutor(workers)
    try:
        yield from _windowed(partial(_submitted, pool, parse), Future.result, blocks, 2 * workers)
    finally:
        pool.shutdown(cancel_futures=True)


def _submitted(pool: ThreadPoolExecutor, parse: Parse, block: TextBlock) -> Future[pa.Table]:
    return pool.submit(parse, block)


def _by_ray(parse: Parse, blocks: Iterable[TextBlock]) -> Iterator[pa.Table]:
    import ray

    task = ray.remote(num_cpus=1)(_apply)
    window = 2 * max(int(ray.cluster_resources().get("CPU", 1)), 1)
    yield from _windowed(lambda block: task.remote(parse, block), ray.get, blocks, window)


def _apply(parse: Parse, block: TextBlock) -> pa.Table:
    return parse(block)


def _windowed(
    start: Callable[[TextBlock], Any],
    result: Callable[[Any], pa.Table],
    blocks: Iterable[TextBlock],
    window: int,
) -> Iterator[pa.Table]:
    """Results in order, with at most `window` blocks begun and not yet handed on."""
    begun: deque[Any] = deque()
    damage: InputError | None = None
    try:
        for block in blocks:
            begun.append(start(block))
            if len(begun) >= window:
                yield result(begun.popleft())
    except InputError as error:
        damage = error
    while begun:
        yield result(begun.popleft())
    if damage:
        raise damage
