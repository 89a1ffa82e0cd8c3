"""Where blocks are parsed and shards are written: in this process, or everywhere by Ray Data.

Both ways give the same tables in the same order, and neither holds them all: a table is made when
the one before it was used, or, with Ray, a bounded amount of them ahead of it. A local Ray takes
five seconds to start and Ray Data one second to warm up, so small files are read here, and Ray is
used where it pays.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from legoray.data.lines import Block
from legoray.errors import InputError, Problem, nearest
from legoray.rayinit import ensure_ray

Parse = Callable[[Block], pa.Table]

RAY_BYTES = 256 << 20  # from here on Ray is started
RUNNING_RAY_BYTES = 16 << 20  # from here on a Ray that runs already is used
AHEAD_BYTES = 64 << 20  # of tables that Ray Data makes ahead of their use, per CPU
REFUSED = "problems of the block"  # the one column of a block that could not be parsed
SWITCH, WISHES = "LEGORAY_RAY_DATA", ("auto", "always", "never")


@dataclass(frozen=True)
class Engine:
    """Maps blocks to tables and writes tables as shards, in order."""

    distributed: bool = False

    def map(self, parse: Parse, blocks: list[Block]) -> Iterator[pa.Table]:
        """`parse` of each block, in order, as they are asked for. `parse` must pickle."""
        if not self.distributed or not blocks:
            return map(parse, blocks)
        return _ray_map(parse, blocks)

    def write(self, tables: Iterable[pa.Table], folder: Path, group: int | None = None) -> None:
        """Each table as one Parquet file of a folder: part-00000.parquet and so on.

        Args:
            tables: taken one after another.
            folder: made where it is not there.
            group: rows that can be read for themselves; Arrow's own number where not given.
        """
        folder.mkdir(parents=True, exist_ok=True)
        files = ((table, str(folder / shard_name(n))) for n, table in enumerate(tables))
        if self.distributed:
            _ray_write(files, group)
            return
        for table, file in files:
            write_shard(table, file, group)


def shard_name(number: int) -> str:
    return f"part-{number:05d}.parquet"


def write_shard(table: pa.Table, file: str, group: int | None = None) -> None:
    """Write one Parquet file; `group` as in `Engine.write`."""
    pq.write_table(table, file, compression="zstd", row_group_size=group)


def ray_wish() -> str:
    """What `LEGORAY_RAY_DATA` says: `auto`, `always` or `never`.

    Raises:
        InputError: it is another word.
    """
    wish = os.environ.get(SWITCH, "") or "auto"
    if wish not in WISHES:
        near = nearest(wish, WISHES)
        hint = f"did you mean '{near}'?" if near else ""
        message = f"is '{wish}', expected {_either(WISHES)}"
        raise InputError(Problem(f"the environment variable {SWITCH}", message, hint))
    return wish


def pick_engine(raw_bytes: int) -> Engine:
    """Ray Data where there is much to read (`LEGORAY_RAY_DATA=always|never` decides otherwise).

    Raises:
        InputError: the variable says something else.
    """
    wish = ray_wish()
    ray = sys.modules.get("ray")
    running = ray is not None and ray.is_initialized()
    enough = raw_bytes >= (RUNNING_RAY_BYTES if running else RAY_BYTES)
    distributed = wish == "always" or (wish != "never" and enough)
    if distributed:
        ensure_ray()
    return Engine(distributed=distributed)


def ray_data() -> Any:
    """The module `ray.data`, quiet and keeping the order of blocks."""
    ensure_ray()
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    return ray.data


def stream(data: Any) -> Iterator[pa.Table]:
    """The blocks of a Ray data set in order, made while earlier ones are used.

    What was made and is not yet used takes `AHEAD_BYTES` per CPU, and a block for each running task
    beyond it. The data set's own context is changed.
    """
    import ray

    options = data.context.execution_options
    limit = AHEAD_BYTES * max(int(ray.cluster_resources().get("CPU", 1)), 1)
    options.resource_limits = options.resource_limits.copy(object_store_memory=limit)
    yield from data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


def _ray_map(parse: Parse, blocks: list[Block]) -> Iterator[pa.Table]:
    rows = [{"path": b.path, "start": b.start, "end": b.end} for b in blocks]
    data = ray_data().from_items(rows, override_num_blocks=len(rows))
    parsed = data.map_batches(
        functools.partial(_parse_batch, parse), batch_size=1, batch_format="pyarrow"
    )
    for table in stream(parsed):
        if table.column_names == [REFUSED]:
            raise InputError(*[Problem(**row) for row in table[REFUSED].to_pylist()])
        yield table


def _parse_batch(parse: Parse, batch: pa.Table) -> pa.Table:
    try:
        return parse(Block(**batch.to_pylist()[0]))
    except InputError as error:  # Ray would bury it in tracebacks
        rows = [{"where": p.where, "message": p.message, "hint": p.hint} for p in error.problems]
        return pa.table({REFUSED: rows})


def _ray_write(files: Iterable[tuple[pa.Table, str]], group: int | None) -> None:
    """Tables are written by tasks while the next ones are made, no more at a time than CPUs."""
    import ray

    write = ray.remote(write_shard)
    at_once = max(int(ray.cluster_resources().get("CPU", 1)), 1)
    waiting: deque[Any] = deque()
    for table, file in files:
        waiting.append(write.remote(table, file, group))
        if len(waiting) > at_once:
            ray.get(waiting.popleft())
    ray.get(list(waiting))


def _either(words: tuple[str, ...]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"
