"""The contract of every processor: no look ahead, whole after a kill, no damage unnoticed.

Each family writes its raw files of one small world (`raw_<processor>.py`), and all that is checked
here is checked for each of them, in all of its releases.
"""

from __future__ import annotations

import importlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType
from typing import Any

import damage
import pytest
from damage import Damage
from raw_files import prepared
from worlds import DAY, START, World, world

from legoray.data.load import load_corpus, load_items, load_users
from legoray.data.prepare import Prepared
from legoray.data.processors import PROCESSORS, processor_class
from legoray.data.processors.feedback import FeedbackProcessor
from legoray.data.schema import Manifest
from legoray.errors import InputError

WORLD = world()
KILLS = 20  # over all processors together, at the least
OPTIONAL = (  # files without which a data set is whole too
    "u.user", "users.dat",  # MovieLens: 10M has none
    "goodreads_book_authors.json.gz", "yelp_academic_dataset_user.json",
    "mv_*.txt",  # Netflix: one of 17,770; published counts tell
    "userid-profile.tsv", "usersha1-profile.tsv", "LFM-1b_users.txt", "user_taggedartists.dat",
    "goodreads_book_authors.json.gz", "yelp_academic_dataset_user.json",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Case:
    """A release of a family: how its files are written, and the options that read them."""

    processor: str
    release: str
    write: Callable[[Path, World], None]
    options: dict[str, Any]

    def prepare(self, folder: Path, world: World | None = None, **keys: Any) -> Prepared:
        """The world's files, written anew where one is given, and their tables."""
        if world is not None:
            shutil.rmtree(folder / "raw", ignore_errors=True)
            self.write(folder / "raw", world)
        options = {**self.options, **keys.pop("options", {})}
        return prepared(folder, self.processor, options=options, **keys)

    @property
    def feedback(self) -> FeedbackProcessor | None:
        cls = processor_class(self.processor)
        made = cls(cls.Options.model_validate(self.options))
        return made if isinstance(made, FeedbackProcessor) else None


def raw_module(name: str) -> ModuleType | None:
    """The module that writes a processor's raw files, if there is one."""
    if not (Path(__file__).parent / f"raw_{name}.py").exists():
        return None
    return importlib.import_module(f"raw_{name}")


def cases() -> Iterator[Case]:
    for name in PROCESSORS:
        module = raw_module(name)
        if module is not None:
            yield Case(name, "", module.write_raw, module.OPTIONS)
            for release, (write, options) in getattr(module, "RELEASES", {}).items():
                yield Case(name, release, write, options)


CASES = list(cases())
each = pytest.mark.parametrize("case", CASES, ids=[f"{c.processor} {c.release}" for c in CASES])
FIRST = [case for case in CASES if not case.release]
each_family = pytest.mark.parametrize("case", FIRST, ids=[case.processor for case in FIRST])


def test_every_processor_has_raw_files():
    assert [name for name in PROCESSORS if raw_module(name) is None] == []


@dataclass(frozen=True)
class Seen:
    """An interaction by the world's keys."""

    split: str
    time: int
    user: str
    clicked: frozenset[str]
    history: tuple[str, ...]
    shown: frozenset[str]

    def without_candidates(self, *, ordered: bool = True) -> tuple[Any, ...]:
        """What does not depend on negatives; the history as a set where its order is open."""
        history = self.history if ordered else frozenset(self.history)
        return (self.time, self.user, self.clicked, history)


def world_key(key: str) -> str:
    """Families write the world's numbers in their own way: N1001, 0000001001."""
    found = re.search(r"(\d+)$", key)
    return str(int(found[1])) if found else key


def seen_in(made: Prepared) -> list[Seen]:
    corpus = load_corpus(made.tables)
    users = [world_key(key) for key in load_users(made.tables, ["key"])["key"].to_pylist()]
    items = ["", *(world_key(k) for k in load_items(made.tables, ["key"])["key"].to_pylist())]
    found = []
    for name, split in corpus.splits.items():
        for i in range(len(split)):
            start = corpus.history_offsets[split.history[i]]
            history = corpus.history_items[start : start + split.history_end[i]]
            shown = split.item[split.offsets[i] : split.offsets[i + 1]]
            label = split.label[split.offsets[i] : split.offsets[i + 1]]
            found.append(
                Seen(
                    name,
                    int(split.time[i]),
                    users[split.user[i]],
                    frozenset(items[number] for number in shown[label == 1]),
                    tuple(items[number] for number in history),
                    frozenset(items[number] for number in shown),
                )
            )
    return found


def before(found: list[Seen], now: int) -> set[tuple[Any, ...]]:
    return {one.without_candidates() for one in found if one.time < now}


def liked(world: World) -> World:
    """The same world where everything met was liked: then each event is a click everywhere."""
    return replace(world, events=[replace(event, value=5) for event in world.events])


def one_a_day(world: World) -> World:
    """The same world, slowly: then no two events share a day, which is all that some files tell."""
    events = [replace(event, time=START + n * DAY) for n, event in enumerate(world.events)]
    return replace(world, events=events)


@pytest.fixture(autouse=True)
def _in_process(monkeypatch, home):
    monkeypatch.setenv("LEGORAY_RAY_DATA", "never")


@each
def test_the_future_changes_nothing_before_it(tmp_path, case):
    first = seen_in(case.prepare(tmp_path, WORLD))
    if all(one.time < 0 for one in first):
        pytest.skip("nothing is known of time")
    train = sorted(one.time for one in first if one.split == "train")
    valid = min(one.time for one in first if one.split != "train")
    for now in (valid, train[len(train) // 2]):
        changed = WORLD.with_shuffled_future(now)
        assert changed.events != WORLD.events
        second = seen_in(case.prepare(tmp_path, changed))
        assert before(first, now)
        assert before(second, now) == before(first, now)
        assert second != first


@each
def test_no_history_holds_the_present(tmp_path, case):
    when = {(event.user, event.item): event.time for event in WORLD.events}
    found = seen_in(case.prepare(tmp_path, WORLD))
    for one in found:
        past = [when[one.user, item] for item in one.history]
        if one.time >= 0:
            assert max(past, default=-1) < one.time
        assert len(past) == len(set(past))
        assert one.clicked.isdisjoint(one.history)
    if any(one.time >= 0 for one in found):
        assert any(len(one.history) > 1 for one in found)


def with_another_future(world: World, now: int) -> World:
    """From `now` on users meet other items, none that they had met before."""
    draw = random.Random(1)
    free = {event.user: {item.key for item in world.items} for event in world.events}
    events = []
    for event in world.events:
        new = draw.choice(sorted(free[event.user])) if event.time >= now else event.item
        free[event.user].discard(new)
        events.append(replace(event, item=new))
    return replace(world, events=events)


@each
def test_negatives_know_nothing_of_later_periods(tmp_path, case):
    if case.feedback is None or case.feedback.times != "known":
        pytest.skip("candidates are given, or nothing is known of time")
    options = {"split": "temporal", "negatives_by": "popularity"}
    first = seen_in(case.prepare(tmp_path, liked(WORLD), options=options))
    for later, splits in (("valid", {"train"}), ("test", {"train", "valid"})):
        now = min(one.time for one in first if one.split == later)
        changed = with_another_future(liked(WORLD), now)
        second = seen_in(case.prepare(tmp_path, changed, options=options))
        assert second != first
        kept = [{one for one in found if one.split in splits} for found in (first, second)]
        assert kept[0] == kept[1]
        assert all(len(one.shown) > 1 for one in kept[0])


def other_last_items(world: World) -> World:
    """The last item of each user is another one, which the user never met."""
    draw = random.Random(2)
    had: dict[str, set[str]] = {}
    last: dict[str, int] = {}
    for place, event in enumerate(world.events):
        had.setdefault(event.user, set()).add(event.item)
        last[event.user] = place
    keys = [item.key for item in world.items]
    events = list(world.events)
    for user, place in last.items():
        new = draw.choice([key for key in keys if key not in had[user]])
        events[place] = replace(events[place], item=new)
    return replace(world, events=events)


@each
def test_the_last_item_changes_nothing_before_it(tmp_path, case):
    options: dict[str, Any] = {}
    if case.feedback is not None and case.feedback.times != "none":
        options = {"split": "leave-last-out"}
    elif case.processor != "sequences":
        pytest.skip("there is no last item, or the split is another one")
    slow = one_a_day(liked(WORLD))
    first, second = (
        seen_in(case.prepare(tmp_path, world, options=options))
        for world in (slow, other_last_items(slow))
    )
    for split in ("train", "valid"):
        found = [{one for one in made if one.split == split} for made in (first, second)]
        assert found[0] == found[1] != set()
    tests = [[one for one in made if one.split == "test"] for made in (first, second)]
    clicked = [{(one.user, one.clicked) for one in made} for made in tests]
    assert clicked[0].isdisjoint(clicked[1])


@each
def test_rows_in_another_order_are_the_same_interactions(tmp_path, case):
    first = seen_in(case.prepare(tmp_path, WORLD))
    if all(one.time < 0 for one in first):
        pytest.skip("the order of the rows is all that is known")
    for path in raw_files(tmp_path):
        if not damage.in_blocks(path):
            path.write_bytes(damage.in_another_order(path, 3).content)
    second = seen_in(case.prepare(tmp_path))
    sets = [{one.without_candidates(ordered=False) for one in made} for made in (first, second)]
    assert sets[0] == sets[1]


def raw_files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "raw").rglob("*") if path.is_file())


def markers(home: Path) -> int:
    """How many stages of a preparation are done."""
    return sum(1 for _ in home.glob("tables/.tiny-*.partial/stages/*.json"))


def killed(path: Path, home: Path, *, stages: int, delay: float) -> bool:
    """Whether `legoray prepare` was killed, a while after so many stages were done."""
    command = [sys.executable, "-m", "legoray.cli", "prepare", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while process.poll() is None and markers(home) < stages:
        time.sleep(0.0005)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    told = process.communicate()[0].decode()
    assert process.returncode in (0, -signal.SIGKILL), told
    return process.returncode != 0


@each_family
def test_killed_in_the_middle_it_resumes_to_the_same_tables(tmp_path, home, case):
    whole = case.prepare(tmp_path, WORLD).manifest.fingerprint
    draw = random.Random(case.processor)
    path = tmp_path / "tiny.yaml"
    wanted, done = -(-KILLS // len(FIRST)), 0
    for _ in range(4 * wanted):
        shutil.rmtree(home)
        moment = {"stages": draw.randrange(6), "delay": draw.choice((0.0, draw.uniform(0, 0.01)))}
        done += killed(path, home, **moment)
        for made in home.glob("tables/[!.]*"):
            assert load_corpus(made).fingerprint == whole  # what stands at its place is whole
        again = case.prepare(tmp_path)
        assert again.manifest.fingerprint == whole
        assert not (again.tables / "scratch").exists()
        if done == wanted:
            return
    pytest.fail(f"only {done} of {wanted} kills came before the end")


def test_preparing_starts_neither_ray_nor_torch(tmp_path, home):
    CASES[0].prepare(tmp_path, WORLD)
    shutil.rmtree(home)
    script = (
        "import sys; from legoray.cli import app; app(standalone_mode=False); "
        "print([m for m in ('ray', 'torch', 'transformers') if m in sys.modules])"
    )
    command = [sys.executable, "-c", script, "prepare", str(tmp_path / "tiny.yaml")]
    told = subprocess.run(command, capture_output=True, text=True, env=os.environ.copy())
    assert told.stdout.splitlines()[-1] == "[]", told.stderr


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
