"""Who rated: the users' files of MovieLens 100K and 1M. Their postal codes are left out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from legoray.data.badrows import repeated
from legoray.data.lines import PLACE, Layout, blocks_of, mark, read_fields
from legoray.data.processors.ages import GROUPS, age_groups
from legoray.data.processors.base import Run

ATTRIBUTES = ("age", "gender", "occupation")
OCCUPATIONS = (
    "other", "educator", "artist", "clerical", "student", "customer service", "doctor",
    "executive", "farmer", "homemaker", "K-12 student", "lawyer", "programmer", "retired",
    "sales", "scientist", "self-employed", "technician", "tradesman", "unemployed", "writer",
)  # fmt: skip


@dataclass(frozen=True)
class UsersFile:
    """How a release writes its users."""

    name: str
    layout: Layout
    coded: bool  # groups of age and occupations by their codes


USERS_100K = UsersFile(
    "u.user", Layout(("user", "age", "gender", "occupation", "zip"), "|", "'|'", "latin-1"), False
)
USERS_1M = UsersFile(
    "users.dat", Layout(("user", "gender", "age", "occupation", "zip"), "::", "'::'"), True
)


def read_users(run: Run, file: UsersFile, path: Path) -> pa.Table:
    """`user` and `ATTRIBUTES`, as text; the age as a group: 1M gives its first year, 100K years.

    Raises:
        InputError: a row is bad, and bad rows are not skipped.
    """
    rows = pa.concat_tables([read_fields(block, file.layout) for block in blocks_of(path)])
    rows = mark(rows, pc.equal(rows["user"], ""), "the user is empty", "user")
    rows = mark(rows, repeated(rows["user"]), "user '{value}' stands twice", "user")
    known = pc.is_in(rows["gender"], value_set=pa.array(["F", "M"]))
    rows = mark(rows, pc.invert(known), "the gender is '{value}', expected F or M", "gender")
    age = _whole(rows["age"])
    wrong = pc.invert(pc.is_in(age, value_set=pa.array(list(GROUPS)))) if file.coded else None
    expected = f"one of {', '.join(map(str, GROUPS))}" if file.coded else "whole years"
    rows = mark(rows, pc.is_null(age) if wrong is None else wrong,
                "the age is '{value}', expected " + expected, "age")  # fmt: skip
    occupation = rows["occupation"]
    if file.coded:
        place = pc.index_in(_whole(occupation), value_set=pa.array(range(len(OCCUPATIONS))))
        rows = mark(rows, pc.is_null(place), "the occupation is '{value}', expected a number up to "
                    f"{len(OCCUPATIONS) - 1}", "occupation")  # fmt: skip
        occupation = pa.array(OCCUPATIONS).take(place.combine_chunks())
    columns = {"age": age_groups(age), "gender": rows["gender"], "occupation": occupation}
    place = {name: rows[name] for name in ("user", *PLACE)}
    return run.bad_rows.good(pa.table({**columns, **place}), path)


def _whole(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Numbers of up to three digits; null where there is something else."""
    fits = pc.match_substring_regex(column, r"^\d{1,3}$")
    return pc.if_else(fits, column, pa.scalar(None, pa.string())).cast(pa.int64())
