"""A small set of configurations in which everything that is searched appears at least once."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

from legoray.config import TrialConfig
from legoray.errors import InputError, Problem
from legoray.search.space import Space, key_of
from legoray.search.tree import Atom, Choice, Pick, Range, Scalar, atoms, resolve, same, text_of

T = TypeVar("T")
TRIES = 400  # drawings before values are said to go together with nothing
KEEP_LOOKING = 12  # valid drawings of which the one that covers most is kept
MOST_SETTINGS = 2000
MOST_LISTED = 3000  # configurations of a space that is small enough to be listed


@dataclass(frozen=True)
class Drawing:
    """A configuration and the values that were picked for it."""

    config: TrialConfig
    picked: Mapping[str, Scalar]

    def has(self, atom: Atom) -> bool:
        return all(p in self.picked and same(self.picked[p], v) for p, v in atom.pins().items())


@dataclass
class Cover:
    """A covering set, and the values that no valid configuration holds."""

    configs: list[TrialConfig] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def cover(space: Space) -> Cover:
    """Find a small covering set; the same for the same space."""
    dice = random.Random(0)
    first, refused = complete(space, {}, dice)
    if first is None:
        return Cover(problems=refused)
    missing = [atom for path, tree in space.trees().items() for atom in _ends(tree, path)]
    found = Cover([] if missing else [first.config])
    while missing:
        atom = missing[0]
        best, refused = _best(space, missing, dice)
        if best is not None:
            found.configs.append(best.config)
            missing = [other for other in missing if not best.has(other)]
            continue
        found.problems.append(_problem(space, atom, refused))
        missing = [other for other in missing[1:] if not other.needs(atom)]
    return found


def complete(
    space: Space, pins: Mapping[str, Scalar], dice: random.Random, tries: int = TRIES
) -> tuple[Drawing | None, list[Problem]]:
    """A valid configuration with some values pinned, or the last reason why there is none."""
    refused: list[Problem] = []
    for _ in range(tries):
        picked: dict[str, Scalar] = {}
        try:
            config = space.draw(_picker(dict(pins), {}, dice, picked), pins)
            return Drawing(config, picked), []
        except InputError as error:
            refused = error.problems
    return None, refused


def _ends(tree: Any, path: str) -> Iterator[Atom]:
    """Every option, and the two ends of every range (not what lies between)."""
    for atom in atoms(tree, path):
        if atom.end:
            yield atom


def _best(
    space: Space, missing: list[Atom], dice: random.Random
) -> tuple[Drawing | None, list[Problem]]:
    """The drawing with the first missing value that covers most of the other missing ones."""
    best, most, valid = None, 0, 0
    refused: list[Problem] = []
    pins = missing[0].pins()
    wanted: dict[str, list[Scalar]] = {}
    for atom in missing:
        for path, value in atom.pins().items():
            wanted.setdefault(path, []).append(value)
    for _ in range(TRIES):
        picked: dict[str, Scalar] = {}
        try:
            config = space.draw(_picker(pins, wanted, dice, picked), pins)
        except InputError as error:
            refused = error.problems
            continue
        drawing = Drawing(config, picked)
        if not drawing.has(missing[0]):
            continue
        count, valid = sum(drawing.has(atom) for atom in missing), valid + 1
        best, most = (drawing, count) if count > most else (best, most)
        if valid >= KEEP_LOOKING:
            break
    return best, refused


def _picker(
    pins: Mapping[str, Scalar],
    wanted: Mapping[str, list[Scalar]],
    dice: random.Random,
    picked: dict[str, Scalar],
) -> Pick:
    """Picks what is pinned, else mostly what is still wanted, else anything."""

    def pick(path: str, node: Choice | Range) -> Scalar:
        picked[path] = pins[path] if path in pins else _any(path, node)
        return picked[path]

    def _any(path: str, node: Choice | Range) -> Scalar:
        options: list[Scalar] = (
            list(node.labels()) if isinstance(node, Choice) else [node.low, node.high]
        )
        mine = [v for v in wanted.get(path, []) if any(same(v, option) for option in options)]
        if isinstance(node, Range) and not mine and not wanted:
            return _between(node, dice)
        return dice.choice(mine if mine and dice.random() < 0.8 else options)

    return pick


def _between(node: Range, dice: random.Random) -> Scalar:
    """Any value of a range."""
    count = node.count()
    if count is not None:
        return node.value(dice.randrange(count))
    return dice.uniform(node.low, node.high)


def _problem(space: Space, atom: Atom, refused: list[Problem]) -> Problem:
    """A value that goes together with nothing, with the reason of the last attempt."""
    where = space.document.where(atom.keys)
    if not refused:
        return Problem(where, "no model of this space reads it", "leave it out")
    reason = "; ".join(dict.fromkeys(p.message for p in refused))
    message = f"{text_of(atom.value)} goes together with nothing else in this space"
    return Problem(where, f"{message}: {reason}")


def content_settings(space: Space) -> Iterator[dict[str, Any]]:
    """Settings of the content operator: all combinations of them, up to a limit.

    A long or continuous range gives its two ends alone.
    """
    count = 0
    for path, node in space.parts("content"):
        for settings in every(partial(resolve, node, path, origin={})):
            if count >= MOST_SETTINGS:
                return
            count += 1
            yield cast(dict[str, Any], settings)


def listing(space: Space) -> dict[str, dict[str, Scalar]] | None:
    """Every configuration of a small space by its key, as values by path; else None."""
    found: dict[str, dict[str, Scalar]] = {}
    try:
        for count, entry in enumerate(every(partial(_keyed, space), exact=True)):
            if count >= MOST_LISTED:
                return None
            if entry is not None:
                found.setdefault(*entry)
    except ValueError:  # a continuous range
        return None
    return found


def _keyed(space: Space, pick: Pick) -> tuple[str, dict[str, Scalar]] | None:
    """The key of one configuration and what was picked for it; None where it is not valid."""
    pins: dict[str, Scalar] = {}

    def noted(path: str, node: Choice | Range) -> Scalar:
        pins[path] = pick(path, node)
        return pins[path]

    try:
        return key_of(space.draw(noted).model_dump()), pins
    except InputError:
        return None


def every(draw: Callable[[Pick], T], *, exact: bool = False) -> Iterator[T]:
    """All results of `draw(pick)`, one for each combination of what `pick` may answer.

    Args:
        draw: called with a pick; what it picks next may depend on what it picked before.
        exact: go through every value of long ranges too.

    Raises:
        ValueError: `exact`, and a range is continuous.
    """
    turn = _Odometer(exact)
    while True:
        turn.sizes = []
        yield draw(turn.pick)
        if not turn.advance():
            return


class _Odometer:
    """Counts through decisions of which each may depend on the earlier ones."""

    def __init__(self, exact: bool) -> None:
        self.exact = exact
        self.position: list[int] = []
        self.sizes: list[int] = []

    def pick(self, path: str, node: Choice | Range) -> Scalar:
        values = _values(node, self.exact)
        if len(self.sizes) == len(self.position):
            self.position.append(0)
        self.sizes.append(len(values))
        return values[self.position[len(self.sizes) - 1]]

    def advance(self) -> bool:
        """Go to the next combination; False after the last one."""
        del self.position[len(self.sizes) :]
        while self.position and self.position[-1] + 1 >= self.sizes[len(self.position) - 1]:
            self.position.pop()
        if self.position:
            self.position[-1] += 1
        return bool(self.position)


def _values(node: Choice | Range, exact: bool) -> list[Scalar]:
    if isinstance(node, Choice):
        return list(node.labels())
    count = node.count()
    if count is not None and (exact or count <= 64):
        return [node.value(index) for index in range(count)]
    if exact:
        raise ValueError("a continuous range has no end of values")
    return [node.low, node.high]
