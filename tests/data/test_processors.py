"""The contract of every processor: no look ahead, the same in any order, whole after a kill.

All is checked for each release of each family. What damage does stands in
`test_damaged_files.py`.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import damage
import pytest
from contract import CASES, FIRST, WORLD, Seen, batches_in, each, each_family, raw_module, seen_in
from worlds import DAY, START, World

from legoray.data.load import load_corpus
from legoray.data.processors import PROCESSORS

KILLS = 20  # over all processors together, at the least


def test_every_processor_has_raw_files():
    assert [name for name in PROCESSORS if raw_module(name) is None] == []


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
    made = case.prepare(tmp_path, WORLD)
    first, batches = seen_in(made), batches_in(made)
    given = case.feedback is None and case.processor != "sequences"
    if all(one.time < 0 for one in first):
        pytest.skip("nothing is known of time")
    train = sorted(one.time for one in first if one.split == "train")
    valid = min(one.time for one in first if one.split != "train")
    for now in (valid, train[len(train) // 2]):
        changed = WORLD.with_shuffled_future(now)
        assert changed.events != WORLD.events
        made = case.prepare(tmp_path, changed)
        second = seen_in(made)
        if now == valid and given:  # else how much there is in all decides the split, too
            assert batches_in(made) == batches
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
    made = case.prepare(tmp_path, liked(WORLD), options=options)
    first, batches = seen_in(made), batches_in(made)
    for later, splits in (("valid", {"train"}), ("test", {"train", "valid"})):
        now = min(one.time for one in first if one.split == later)
        changed = with_another_future(liked(WORLD), now)
        made = case.prepare(tmp_path, changed, options=options)
        second = seen_in(made)
        assert second != first
        assert batches_in(made) == batches
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
    (first, batches), (second, others) = (
        (seen_in(made), batches_in(made))
        for world in (slow, other_last_items(slow))
        for made in [case.prepare(tmp_path, world, options=options)]
    )
    assert batches == others
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


def progress(home: Path) -> int:
    """How far a preparation is: 1 once its folder is there, and 1 more for each stage done."""
    work = "tables/.tiny-*.partial"
    return sum(1 for name in ("stamp.json", "stages/*.json") for _ in home.glob(f"{work}/{name}"))


def killed(path: Path, home: Path, *, far: int, delay: float) -> bool:
    """Whether `legoray prepare` was killed, a while after it had come so far."""
    command = [sys.executable, "-m", "legoray.cli", "prepare", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while process.poll() is None and progress(home) < far:
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
        moment = {"far": draw.randint(1, 6), "delay": draw.choice((0.0, draw.uniform(0, 0.01)))}
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
