"""Where blocks are parsed and shards are written: in this process, or everywhere by Ray Data.

Both ways give the same tables in the same order. A local Ray takes five seconds to start and Ray
Data one second to warm up, so small files are read here, and Ray is used where it pays.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from legoray.data.lines import Block
from legoray.rayinit import ensure_ray

Parse = Callable[[Block], pa.Table]

RAY_BYTES = 256 << 20  # from here on Ray is started
RUNNING_RAY_BYTES = 16 << 20  # from here on a Ray that runs already is used


@dataclass(frozen=True)
class Engine:
    """Maps blocks to tables and writes tables as shards, in order."""

    distributed: bool = False

    def map(self, parse: Parse, blocks: list[Block]) -> Iterator[pa.Table]:
        """`parse` of each block, in order. `parse` must pickle."""
        if not self.distributed or not blocks:
            return map(parse, blocks)
        return _ray_map(parse, blocks)

    def write(self, tables: Iterable[pa.Table], folder: Path) -> None:
        """Each table as one Parquet file of a folder: part-00000.parquet and so on."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.distributed:
            _ray_write(tables, folder)
            return
        for number, table in enumerate(tables):
            pq.write_table(table, folder / shard_name(number), compression="zstd")


def shard_name(number: int) -> str:
    return f"part-{number:05d}.parquet"


def pick_engine(raw_bytes: int) -> Engine:
    """Ray Data where there is much to read (`LEGORAY_RAY_DATA=always|never` decides otherwise)."""
    wish = os.environ.get("LEGORAY_RAY_DATA", "auto")
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


def _ray_map(parse: Parse, blocks: list[Block]) -> Iterator[pa.Table]:
    import ray

    rows = [{"path": b.path, "start": b.start, "end": b.end} for b in blocks]
    data = ray_data().from_items(rows, override_num_blocks=len(rows))
    parsed = data.map_batches(
        functools.partial(_parse_batch, parse), batch_size=1, batch_format="pyarrow"
    ).materialize()
    for ref in parsed.to_arrow_refs():
        yield ray.get(ref)


def _parse_batch(parse: Parse, batch: pa.Table) -> pa.Table:
    return parse(Block(**batch.to_pylist()[0]))


def _ray_write(tables: Iterable[pa.Table], folder: Path) -> None:
    """Ray Data chooses file names that sort in order of the blocks; they are renamed after."""
    import ray

    refs = [ray.put(table) for table in tables]
    ray_data().from_arrow_refs(refs).write_parquet(str(folder), compression="zstd")
    for number, path in enumerate(sorted(folder.glob("*.parquet"))):
        path.rename(folder / shard_name(number))
