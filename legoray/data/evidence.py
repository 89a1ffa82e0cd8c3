"""What tells two data sets of one name apart: the texts of some of their items.

Attributes that were written later are kept by the data set's name and the items' keys. Two data
sets of one name may have the same keys, such as numbers; their items' own texts are then others.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from legoray.data.schema import Manifest
from legoray.data.tables import read_folder
from legoray.records import digest

Evidence: TypeAlias = dict[str, dict[str, str]]  # key -> attribute -> digest of its text

SAMPLE = 64  # items that are looked at
FIRST = 3  # attributes of the data's own


def evidence_of(tables: Path, manifest: Manifest) -> Evidence:
    """The texts of some items, as digests; nothing where they have none.

    Args:
        tables: folder of the tables, perhaps not in its place yet.
        manifest: of them.
    """
    if not _own(manifest):
        return {}
    keys = read_folder(tables / "items", ["key"])["key"]
    at = np.unique(np.linspace(0, len(keys) - 1, SAMPLE).astype(np.int64))
    return _texts(tables, manifest, keys.take(at).to_pylist())


def contradicts(evidence: Evidence, tables: Path, manifest: Manifest) -> bool:
    """Whether most of the texts that both know are others in these tables.

    Some may be: items are edited, and new ones come. Nothing is known of data without texts.
    """
    found = _texts(tables, manifest, list(evidence)) if evidence and _own(manifest) else {}
    same = [
        found[key][name] == told
        for key, texts in evidence.items()
        for name, told in texts.items()
        if name in found.get(key, {})
    ]
    return 2 * sum(same) < len(same)


def _own(manifest: Manifest) -> list[str]:
    """The first attributes of the data's own."""
    return [name for name in manifest.attributes if name not in manifest.written][:FIRST]


def _texts(tables: Path, manifest: Manifest, keys: list[str]) -> Evidence:
    """The digests of the texts of those of some items that are there; empty texts tell nothing."""
    names = _own(manifest)
    wanted, rows = pa.array(keys, pa.string()), []
    for path in sorted((tables / "items").glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(columns=["key", *names]):
            rows += batch.filter(pc.is_in(batch["key"], value_set=wanted)).to_pylist()
    return {
        row["key"]: {name: digest(row[name], 12) for name in names if row[name].strip()}
        for row in rows
    }
