"""The contract of every processor on damaged files: a clear message, or a count; never silence.

Each damage (`damage.py`) is done to each file that a release reads. Then preparing is refused with
the file's name, and the line's number where one line is damaged; or what was left out is counted;
or nobody reads what was damaged, and the tables are the same.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import damage
import pytest
from contract import WORLD, Case, Seen, each, seen_in
from damage import Damage

from legoray.data.load import load_items, load_users
from legoray.data.prepare import Prepared
from legoray.data.schema import Manifest
from legoray.errors import InputError

OPTIONAL = (  # files without which a data set is whole too
    "u.user", "users.dat",  # MovieLens: 10M has none
    "userid-profile.tsv", "usersha1-profile.tsv", "LFM-1b_users.txt", "user_taggedartists.dat",
    "goodreads_book_authors.json.gz", "yelp_academic_dataset_user.json",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _in_process(monkeypatch, home):
    monkeypatch.setenv("LEGORAY_RAY_DATA", "never")


@dataclass(frozen=True)
class Read:
    """What a release's undamaged files give."""

    manifest: Manifest
    seen: list[Seen]


READ: dict[Case, Read] = {}


@dataclass
class Good:
    """A release's undamaged files, what they give, and what came of damaged ones."""

    case: Case
    folder: Path
    manifest: Manifest
    raw: Path
    wrong: list[str]

    @classmethod
    def of(cls, case: Case, folder: Path) -> Good:
        """Written anew for each test; read once for all."""
        case.write(folder / "good", WORLD)
        if case not in READ:
            made = case.prepare(folder, WORLD)
            READ[case] = Read(made.manifest, seen_in(made))
        return cls(case, folder, READ[case].manifest, folder / "good", [])

    def files(self) -> list[Path]:
        """The files that are read; the second of those whose names differ by a number alone."""
        kinds: dict[str, list[Path]] = {}
        for source in self.manifest.sources:
            kinds.setdefault(re.sub(r"\d+", "0", source.path), []).append(Path(source.path))
        return [names[:2][-1] for names in kinds.values()]

    def fresh(self, name: Path) -> Path:
        """The file of this name among fresh copies of all."""
        return damage.copied(self.raw, self.folder / "raw") / name

    def outcome(self, name: Path, what: str, **keys: Any) -> Prepared | InputError | None:
        """The tables, or the refusal; any other error is noted."""
        try:
            return self.case.prepare(self.folder, **keys)
        except InputError as error:
            return error
        except Exception as error:
            self.wrong.append(f"{name}, {what}: {type(error).__name__}: {error}")
            return None

    def try_damages(
        self, make: Callable[[Path], Iterator[Damage]], allow: Callable[[Good, Prepared], bool]
    ) -> None:
        """Each damage of each file is refused with its place, or is as `allow` says."""
        for name in self.files():
            for one in make(self.raw / name):
                path = self.fresh(name)
                path.write_bytes(one.content)
                found = self.outcome(name, one.name)
                if isinstance(found, InputError):
                    self.check_told(name, one, found)
                elif found is not None and not allow(self, found):
                    self.wrong.append(f"{name}, {one.name}: passed without a word")
        assert not self.wrong, "\n".join(self.wrong)

    def check_told(self, name: Path, one: Damage, error: InputError) -> None:
        """The message names the file, and the line where one line is damaged."""
        place = f"{name.name}:{one.line}" if one.line else name.name
        if place not in str(error):
            self.wrong.append(f"{name}, {one.name}: {place} is not named in: {error}")

    def same(self, found: Prepared) -> bool:
        return found.manifest.fingerprint == self.manifest.fingerprint

    def counted(self, found: Prepared) -> bool:
        """Whether more was left out, or is without a text, than of the undamaged files."""
        usual, now = (_told(manifest) for manifest in (self.manifest, found.manifest))
        return any(count > usual.get(name, 0) for name, count in now.items())


def _told(manifest: Manifest) -> dict[str, int]:
    lacking = {name: n for name, n in manifest.counts.items() if "_without/" in name}
    return lacking | manifest.dropped


def shows(found: Prepared, *texts: str) -> bool:
    """Whether an attribute or key of an item or user holds one of these texts."""
    names = ["key", *found.manifest.user_attributes]
    tables = [load_items(found.tables), load_users(found.tables, names)]
    columns = [table[name].to_pylist() for table in tables for name in table.column_names]
    cells = {str(cell).lower() for column in columns for cell in column}
    return any(text.lower() in cell for cell in cells for text in texts)


@each
def test_files_that_are_gone_or_something_else(tmp_path, case):
    good = Good.of(case, tmp_path)
    for name in good.files():
        for what, (change, words) in damage.GONE.items():
            change(good.fresh(name))
            found = good.outcome(name, what)
            if isinstance(found, InputError):
                if name.name not in str(found) or words not in str(found):
                    good.wrong.append(f"{name}, {what}: told is {found}")
            elif not any(fnmatch(name.name, optional) for optional in OPTIONAL):
                good.wrong.append(f"{name}, {what}: passed without a word")
    assert not good.wrong, "\n".join(good.wrong)


@each
def test_truncated_files(tmp_path, case):
    Good.of(case, tmp_path).try_damages(damage.truncated, lambda good, found: False)


@each
def test_bad_lines_are_refused_or_left_out(tmp_path, case):
    good = Good.of(case, tmp_path)
    good.try_damages(damage.bad_lines, lambda good, found: False)
    for name in good.files():
        for one in damage.bad_lines(good.raw / name):
            path = good.fresh(name)
            path.write_bytes(one.content)
            found = good.outcome(name, one.name, on_bad_row="skip")
            key = f"bad_rows/{path.parent.name}/{name.name}"
            if not isinstance(found, Prepared):
                good.wrong.append(f"{name}, {one.name}, skipped: {found}")
            elif found.manifest.dropped.get(key) != 1 or not good.same(found):
                good.wrong.append(f"{name}, {one.name}, skipped: {found.manifest.dropped}")
    assert not good.wrong, "\n".join(good.wrong)


@each
def test_bytes_that_are_not_text(tmp_path, case):
    """They are refused, counted, in a column that nobody reads, or text in the file's encoding."""
    latin = damage.NOT_TEXT.decode("latin-1")
    Good.of(case, tmp_path).try_damages(
        damage.wrong_encoding,
        lambda good, found: good.same(found) or good.counted(found) or shows(found, latin),
    )


@each
def test_missing_columns(tmp_path, case):
    """They are refused, or nobody reads them."""
    Good.of(case, tmp_path).try_damages(
        damage.without_columns, lambda good, found: good.same(found) or good.counted(found)
    )


@each
def test_rows_that_stand_twice(tmp_path, case):
    """They are refused, counted, or change nothing; one more impression is among the counts."""

    def allow(good: Good, found: Prepared) -> bool:
        usual, now = good.manifest.counts, found.manifest.counts
        more = any(now[name] > usual[name] for name in usual if name.startswith("impressions/"))
        handled = good.same(found) or good.counted(found) or more
        return now["items"] == usual["items"] and handled

    Good.of(case, tmp_path).try_damages(damage.doubled, allow)


@each
def test_nan(tmp_path, case):
    """It is refused, counted, in a column that nobody reads, or a text like any other."""
    Good.of(case, tmp_path).try_damages(
        damage.not_numbers,
        lambda good, found: good.same(found) or good.counted(found) or shows(found, "NaN"),
    )


@each
def test_unknown_items(tmp_path, case):
    good = Good.of(case, tmp_path)
    met = WORLD.events[len(WORLD.events) // 2].item
    fewer = replace(WORLD, items=[item for item in WORLD.items if item.key != met])
    try:
        found = case.prepare(tmp_path, fewer)
    except KeyError:
        pytest.skip("the file of events tells the items too")
    if found.manifest.counts.get("raw/events", len(WORLD.events)) < len(WORLD.events):
        pytest.skip("events stand below their item")
    assert good.counted(found)


@each
def test_negative_times(tmp_path, case):
    good = Good.of(case, tmp_path)
    if all(one.time < 0 for one in READ[case].seen):
        pytest.skip("nothing is known of time")
    early = replace(WORLD.events[0], time=-3 * 86_400)
    changed = replace(WORLD, events=[early, *WORLD.events[1:]])
    shutil.rmtree(tmp_path / "raw", ignore_errors=True)
    case.write(tmp_path / "raw", changed)
    found = good.outcome(Path(), "a time of -3 days")
    assert not good.wrong
    if isinstance(found, InputError):
        where = found.problems[0].where
        assert any(source.path in where for source in good.manifest.sources)
    else:
        assert good.counted(found)


@each
def test_empty_histories(tmp_path, case):
    """Users without a past are left out and counted, or are there with an empty history."""
    newcomer = replace(WORLD.events[-1], user="555", value=5)
    changed = replace(WORLD, events=[*WORLD.events[:-1], newcomer])
    made = case.prepare(tmp_path, changed)
    reasons = ("clicks_with_too_short_a_history", "users_with_too_few_")
    left_out = any(name.startswith(reasons) for name in made.manifest.dropped)
    assert left_out or any(not one.history for one in seen_in(made))
