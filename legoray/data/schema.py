"""The normalized tables: their columns, their places, and the manifest that vouches for them.

<tables>/manifest.json            written last: a folder without it is not a prepared data set
<tables>/items/*.parquet          item_id int32 (1..N, dense), key string, then one string column
                                  per attribute (text or categorical; empty string = no value)
<tables>/histories/*.parquet      history_id int32 (0..H-1, dense), user int32, items list<int32>
<tables>/users/*.parquet          user int32 (0..U-1, dense), key string, then one string column
                                  per attribute of users, if there are any
<tables>/interactions/<split>/*.parquet
                                  impression_id int64, history_id int32, history_end int32,
                                  item_id int32, label int8, time int64; sorted by impression
<tables>/slices/<split>/*.parquet impression_id int64, then one bool column per slice (`SLICES`);
                                  one row per impression, in the order of the interactions. They
                                  follow from the tables above by a rule (`data.slices`), so they
                                  have no part in the fingerprint
<tables>/attributes/<name>-<fingerprint>/*.parquet
                                  an attribute written later: number int32 (item_id or user), text
                                  string (null = nobody wrote one)
<tables>/tokens/<key>/            tokens of one attribute, made later and on demand
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import pyarrow as pa
from pydantic import Field

from legoray.config import Strict
from legoray.data.written import Provenance

SCHEMA_VERSION = 2
COMPLETED = (1,)  # earlier versions that preparation completes: their tables lack slices alone
CONTENT_VERSION = 1  # goes up where tables of earlier versions must be made anew from raw files
SPLITS = ("train", "valid", "test")
CLEANED = ("cut", "markup", "page_code")  # reasons for which texts were changed, not left out
SLICES = ("cold-user", "cold-item", "short-history", "long-history", "head-item", "tail-item")

HISTORIES = pa.schema(
    [("history_id", pa.int32()), ("user", pa.int32()), ("items", pa.list_(pa.int32()))]
)
INTERACTIONS = pa.schema(
    [
        ("impression_id", pa.int64()),
        ("history_id", pa.int32()),
        ("history_end", pa.int32()),
        ("item_id", pa.int32()),
        ("label", pa.int8()),
        ("time", pa.int64()),
    ]
)
MARKS = pa.schema([("impression_id", pa.int64()), *((name, pa.bool_()) for name in SLICES)])
WRITTEN = pa.schema([("number", pa.int32()), ("text", pa.string())])


def items_schema(attributes: list[str]) -> pa.Schema:
    """The items table's columns for these attributes."""
    fixed = [("item_id", pa.int32()), ("key", pa.string())]
    return pa.schema(fixed + [(name, pa.string()) for name in attributes])


def users_schema(attributes: list[str]) -> pa.Schema:
    """The users table's columns for these attributes."""
    fixed = [("user", pa.int32()), ("key", pa.string())]
    return pa.schema(fixed + [(name, pa.string()) for name in attributes])


class SourceFile(Strict):
    """One raw file that the tables were made from."""

    path: str  # relative to the raw folder
    size: int
    mtime_ns: int
    sha256: str


class WrittenTable(Strict):
    """An attribute that was written later, as a table beside the items or users."""

    of: Literal["items", "users"]
    made: Literal["generated", "attached"]
    fingerprint: str  # of the texts, an empty one where there is none
    missing: Literal["fail", "empty"]  # what becomes of those without a text
    counts: dict[str, int]  # texts, missing, unknown_keys, refused, bad_rows/<file>, ...
    provenance: Provenance
    config_hash: str  # of the source in the data set's YAML
    sources: list[SourceFile]
    files: list[str]  # relative to the tables


class Deviation(Strict):
    """A published count that the data do not have (`legoray.data.published`)."""

    what: str
    published: int
    found: int
    cause: str  # the likely one, in words


class Manifest(Strict):
    """`manifest.json`: what the tables hold and what everything downstream is keyed by."""

    schema_version: int
    name: str
    title: str
    synthetic: bool
    processor: str
    raw: str = ""  # folder of the raw files; empty in manifests of earlier versions
    config_hash: str  # of the processor's name and options, on_bad_row, the path's content aside
    fingerprint: str  # of the tables' content; written attributes have their own
    attributes: list[str]  # raw ones, then written ones
    user_attributes: list[str] = Field(default_factory=list)
    written: dict[str, WrittenTable] = Field(default_factory=dict)
    text: list[str]
    group: str
    max_history: int
    labeled: dict[str, bool]  # per split
    full_ranking: list[str] = Field(default_factory=list)  # splits of clicks alone, each of which
    # is ranked against all items
    counts: dict[str, int]  # items, users, histories, impressions/<split>, rows/<split>, clicks/...
    dropped: dict[str, int] = Field(default_factory=dict)  # what was left out or cleaned, by reason
    published: dict[str, int] = Field(default_factory=dict)  # by the owners, as the YAML says
    deviations: list[Deviation] = Field(default_factory=list)  # of the counts from these
    protocol: dict[str, str | int | float | bool] = Field(default_factory=dict)
    sources: list[SourceFile]
    files: list[str]  # every Parquet file, relative to the tables; without written attributes

    @property
    def generated(self) -> list[str]:
        """The attributes that a language model wrote."""
        return [name for name, table in self.written.items() if table.made == "generated"]

    def prints(self, names: Iterable[str], of: str = "items") -> dict[str, str]:
        """The fingerprints of those of some attributes that were written later."""
        found = {name: self.written[name] for name in names if name in self.written}
        return {name: table.fingerprint for name, table in found.items() if table.of == of}
