"""A small set of configurations in which everything that is searched appears at least once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from legoray.config import TrialConfig
from legoray.errors import InputError, Problem
from legoray.search.draw import Draw, UnmetError
from legoray.search.space import Space, key_of
from legoray.search.tree import END, Choice, Pick, Range, Scalar, same, text_of
from legoray.search.walk import Atom, atoms

T = TypeVar("T")
TRIES = 400  # drawings before values are said to go together with nothing
KEEP_LOOKING = 12  # valid drawings of which the one that covers most is kept
MOST_LISTED = 3000  # configurations of a space that is small enough to be listed
MOST_TRIED = 20_000  # combinations, valid or not, that are gone through for that
MANY = 4000  # drawings before conditions are said to be impossible
RESTART = 25  # repairs of a drawing before a new one is begun


@dataclass(frozen=True)
class Drawing:
    """A configuration, the values that were picked for it, and what they were picked from."""

    config: TrialConfig
    draw: Draw

    @property
    def picked(self) -> dict[str, Scalar]:
        return self.draw.picked


@dataclass
class Cover:
    """A covering set, and the values that no valid configuration holds."""

    configs: list[TrialConfig] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def cover(space: Space) -> Cover:
    """Find a small covering set; the same for the same space."""
    dice = random.Random(0)
    first, refused = complete(space, {}, dice, MANY if space.where else TRIES)
    if first is None:
        return Cover(problems=unmet(space) if space.where else refused)
    missing = [atom for path, tree in space.trees().items() for atom in _ends(tree, path)]
    found = Cover([] if missing else [first.config])
    while missing:
        atom = missing[0]
        best, why = _best(space, missing, dice)
        if best is None and why is None:  # the conditions rule it out
            missing = [other for other in missing[1:] if not other.needs(atom)]
            continue
        if best is not None:
            found.configs.append(best.config)
            missing = [other for other in missing if not _has(best.draw, other)]
            continue
        found.problems.append(_problem(space, atom, why or []))
        missing = [other for other in missing[1:] if not other.needs(atom)]
    return found


def complete(
    space: Space, pins: Mapping[str, Scalar], dice: random.Random, tries: int = TRIES
) -> tuple[Drawing | None, list[Problem]]:
    """A valid configuration with some values pinned, or the last reason why there is none."""
    refused: list[Problem] = []
    for draw, error in _draws(space, pins, {}, dice, tries):
        try:
            if error is None:
                return Drawing(draw.config(), draw), []
        except InputError as invalid:
            error = invalid
        refused = error.problems if error is not None else refused
    return None, refused


def repaired(space: Space, picked: Mapping[str, Scalar], dice: random.Random) -> Drawing | None:
    """A valid configuration near picks that are not valid; None where none is found."""
    kept, found = dict(picked), None
    for share in (0.8, 0.8, 0.6, 0.4, 0.2, 0.0):
        for draw, error in _draws(space, {}, {}, dice, TRIES // 6, kept):
            try:
                found = Drawing(draw.config(), draw) if error is None else None
            except InputError:
                found = None
            if found is not None:
                return found
            if not isinstance(error, UnmetError):
                break  # the conditions hold, the settings do not go together
        kept = {path: value for path, value in picked.items() if dice.random() < share}
    return None


def valid_share(space: Space, tries: int = 400) -> float:
    """The share of drawings at random that fulfil the conditions of a space."""
    dice, valid = random.Random(0), 0
    for _ in range(tries):
        try:
            Draw(space, _picker({}, {}, dice), {}).values()
            valid += 1
        except InputError:
            continue
    return valid / tries


def unmet(space: Space) -> list[Problem]:
    """Which conditions no configuration fulfils, where none fulfils all."""
    dice, failed = random.Random(0), Counter[str]()
    other: list[Problem] = []
    for _, error in _draws(space, {}, {}, dice, TRIES):
        if isinstance(error, UnmetError):
            failed[error.problems[0].where] += 1
        elif error is not None:
            other = error.problems
    if not failed:
        return other or [Problem(space.document.where(("where",)), "nothing fulfils it")]
    problems = []
    for condition in space.where:
        where, text = space.document.where(condition.keys), condition.formula.text
        if failed[where]:
            alone = len(failed) == 1
            what = "" if alone else " together with the other conditions"
            message = f"no configuration of this space fulfils '{text}'{what}"
            problems.append(Problem(where, f"{message} ({MANY} were drawn)"))
    return problems


def _draws(
    space: Space,
    pins: Mapping[str, Scalar],
    wanted: Mapping[str, list[Scalar]],
    dice: random.Random,
    tries: int,
    kept: Mapping[str, Scalar] | None = None,
) -> Iterator[tuple[Draw, InputError | None]]:
    """Drawings, each with what is wrong with it.

    Where a condition does not hold, the next one keeps what was drawn, but for one or all of the
    values that the condition looked at.
    """
    kept = dict(kept or {})
    for number in range(tries):
        held = {**kept, **pins}
        draw = Draw(space, _picker(pins, wanted, dice, kept), held)
        kept = {}
        try:
            draw.values()
        except UnmetError as error:
            if (number + 1) % RESTART:
                kept = _without(draw.picked, error.paths, dice)
            yield draw, error
        except InputError as error:
            yield draw, error
        else:
            yield draw, None


def _without(
    picked: Mapping[str, Scalar], paths: Collection[str], dice: random.Random
) -> dict[str, Scalar]:
    """What was picked without one, or without all, of some values and what lies below them."""
    ordered = sorted(paths)
    gone = ordered if not ordered or dice.random() < 0.5 else [dice.choice(ordered)]
    below = tuple(f"{path}{sign}" for path in gone for sign in "./")
    return {p: v for p, v in picked.items() if p not in gone and not p.startswith(below)}


def _has(draw: Draw, atom: Atom) -> bool:
    """Whether a value was picked, or one of the ends of a range that moves."""
    for path, value in atom.pins().items():
        base = path.removesuffix(END)
        if base not in draw.picked:
            return False
        node = draw.nodes[base]
        if base != path:
            assert isinstance(node, Range)
            value = node.low if value == "low" else node.high
        if not same(draw.picked[base], value):
            return False
    return True


def _ends(tree: Any, path: str) -> Iterator[Atom]:
    """Every option, and the two ends of every range (not what lies between)."""
    for atom in atoms(tree, path):
        if atom.end:
            yield atom


def _best(
    space: Space, missing: list[Atom], dice: random.Random
) -> tuple[Drawing | None, list[Problem] | None]:
    """The drawing with the first missing value that covers most of the other missing ones.

    Returns:
        It, or why there is none: None where conditions alone rule the value out.
    """
    best, most, valid = None, 0, 0
    refused: list[Problem] = []
    unmet = False
    pins = missing[0].pins()
    wanted: dict[str, list[Scalar]] = {}
    for atom in missing:
        for path, value in atom.pins().items():
            wanted.setdefault(path, []).append(value)
    for draw, error in _draws(space, pins, wanted, dice, TRIES):
        if isinstance(error, UnmetError):
            unmet = True
            continue
        if error is not None:
            refused = error.problems
            continue
        if not _has(draw, missing[0]):
            continue
        count = sum(_has(draw, atom) for atom in missing)
        if count > most:  # the costly part
            try:
                best, most = Drawing(draw.config(), draw), count
            except InputError as invalid:
                refused = invalid.problems
                continue
        valid += 1
        if valid >= KEEP_LOOKING:
            break
    return best, None if unmet and not refused else refused


def _picker(
    pins: Mapping[str, Scalar],
    wanted: Mapping[str, list[Scalar]],
    dice: random.Random,
    kept: Mapping[str, Scalar] | None = None,
) -> Pick:
    """Picks what is pinned, else what is kept and possible, else mostly what is still wanted."""

    def pick(path: str, node: Choice | Range) -> Scalar:
        if path in pins:
            return pins[path]
        if path + END in pins and isinstance(node, Range):
            return node.low if pins[path + END] == "low" else node.high
        if kept and path in kept and _possible(node, kept[path]):
            return kept[path]
        return _any(path, node)

    def _any(path: str, node: Choice | Range) -> Scalar:
        options: list[Scalar] = (
            list(node.labels()) if isinstance(node, Choice) else [node.low, node.high]
        )
        mine = [v for v in wanted.get(path, []) if any(same(v, option) for option in options)]
        if isinstance(node, Range):
            mine += [node.low if e == "low" else node.high for e in wanted.get(path + END, [])]
        if isinstance(node, Range) and not mine and not wanted:
            return _between(node, dice)
        return dice.choice(mine if mine and dice.random() < 0.8 else options)

    return pick


def _possible(node: Choice | Range, value: Scalar) -> bool:
    if isinstance(node, Range):
        return node.contains(value)
    return any(same(label, value) for label in node.labels())


def _between(node: Range, dice: random.Random) -> Scalar:
    """Any value of a range."""
    count = node.count()
    if count is not None:
        return node.value(dice.randrange(count))
    return node.at(dice.random())


def _problem(space: Space, atom: Atom, refused: list[Problem]) -> Problem:
    """A value that goes together with nothing, with the reason of the last attempt."""
    where = space.document.where(atom.keys)
    if not refused:
        return Problem(where, "no model of this space reads it", "leave it out")
    reason = "; ".join(dict.fromkeys(p.message for p in refused))
    message = f"{text_of(atom.value)} goes together with nothing else in this space"
    return Problem(where, f"{message}: {reason}")


def listing(space: Space) -> dict[str, dict[str, Scalar]] | None:
    """Every configuration of a small space by its key, as values by path; else None."""
    found: dict[str, dict[str, Scalar]] = {}
    try:
        for count, entry in enumerate(every(partial(_keyed, space), exact=True)):
            if entry is not None:
                found.setdefault(*entry)
            if len(found) > MOST_LISTED or count >= MOST_TRIED:
                return None
    except ValueError:  # a continuous range
        return None
    return found


def _keyed(space: Space, pick: Pick) -> tuple[str, dict[str, Scalar]] | None:
    """The key of one configuration and what was picked for it; None where it is not valid."""
    draw = Draw(space, pick, {})
    try:
        return key_of(draw.config().model_dump()), draw.picked
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
