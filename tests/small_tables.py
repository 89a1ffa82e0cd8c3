"""Prepared tables of a few items, without histories or splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from legoray.data.schema import SCHEMA_VERSION, Manifest, items_schema
from legoray.records import write_json


def write_items(
    folder: Path,
    items: Sequence[Mapping[str, str]],
    *,
    key: str = "i",
    shards: int = 2,
    name: str = "small",
    fingerprint: str = "f" * 64,
) -> Path:
    """Write these items, known by `key` and their number, in so many shards; the folder."""
    attributes = list(items[0])
    rows = [{"item_id": n, "key": f"{key}{n}", **row} for n, row in enumerate(items, start=1)]
    size = -(-len(rows) // shards)
    files = []
    for number in range(shards):
        file = folder / "items" / f"part-{number:05d}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        shard = rows[number * size : (number + 1) * size]
        pq.write_table(pa.Table.from_pylist(shard, schema=items_schema(attributes)), file)
        files.append(str(file.relative_to(folder)))
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=name,
        title="a small corpus",
        synthetic=True,
        processor="own",
        config_hash="c" * 16,
        fingerprint=fingerprint,
        attributes=attributes,
        text=attributes,
        group="impression",
        max_history=10,
        labeled={},
        counts={"items": len(items)},
        sources=[],
        files=files,
    )
    write_json(folder / "manifest.json", manifest)
    return folder
