"""Draws one configuration from a space.

Every searched value is picked once, by its path. What depends on other values (a case, a range that
another value moves, a condition) has them picked when it needs them, so that the order in a file
does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from legoray.config import ModelConfig, TrialConfig
from legoray.errors import InputError, Problem
from legoray.search.formula import AbsentError, Formula, FormulaError, Path
from legoray.search.notation import KINDS
from legoray.search.places import PRESET, Spot, canonical, roots, top_spot
from legoray.search.tree import (
    Case,
    Choice,
    Const,
    Group,
    Moved,
    Node,
    Option,
    Pick,
    Range,
    Resolved,
    Scalar,
    below,
    resolve,
    text_of,
)
from legoray.search.walk import searched
from legoray.yamlfile import Keys

if TYPE_CHECKING:
    from legoray.search.space import Space

ENCODER_RATE = "encoder_learning_rate"


class UnmetError(InputError):
    """A condition does not hold; `paths` are the searched values that it looked at."""

    def __init__(self, *problems: Problem | str, paths: frozenset[str] = frozenset()) -> None:
        super().__init__(*problems)
        self.paths = paths


class Draw:
    """One configuration under way.

    `picked` fills with what was picked, by path.
    """

    def __init__(self, space: Space, pick: Pick, pinned: Mapping[str, Scalar]) -> None:
        self.space = space
        self.picked: dict[str, Scalar] = {}
        self.nodes: dict[str, Choice | Range] = {}  # that were picked from, by path
        self.needs: dict[str, set[str]] = {}  # what moved a range, by its path
        self._pick = pick
        self._parts = {k: str(pinned[f"model/{k}"]) for k in KINDS if f"model/{k}" in pinned}
        self._origin: dict[Keys, Keys] = {(): ()}
        self._settling: list[str] = []
        self._looked: set[str] = set()
        self._roots: dict[str, dict[Any, Spot]] | None = None
        self._model: dict[str, Any] | None = None
        self._read_states: bool | None = None

    # --- the configuration

    def config(self) -> TrialConfig:
        """The configuration, checked.

        Raises:
            InputError: the values drawn do not go together; places are those of the space's file.
        """
        from legoray.search.space import check_train

        model, resolved = self._checked_model()
        train = check_train(self._train(), resolved)
        data: dict[str, Any] = {"model": model, "train": train}
        data |= {"evaluate": self.space.config.evaluate, "seed": self.space.config.seed}
        return TrialConfig.model_validate(data)

    def values(self) -> Draw:
        """Pick everything and see to the conditions, without checking the parts' settings.

        Raises:
            InputError: a condition does not hold, or nothing fits what is drawn.
        """
        self._drawn_model()
        self._train()
        return self

    def _checked_model(self) -> tuple[ModelConfig, Resolved]:
        from legoray.search.space import check_model

        model = self._drawn_model()
        document = self.space.document
        resolved = Resolved(document.path, model, document.lines, self._origin)
        return check_model(model, resolved), resolved

    def _drawn_model(self) -> dict[str, Any]:
        """The model as it was drawn, once the conditions hold."""
        if self._model is None:
            drawn: dict[str, Any] = {}
            for key, spot in self._ordered():
                node = self._part_node(str(key)) if spot.kind else cast(Node, spot.node)
                drawn[str(key)] = self._resolved(node, spot.path, ("model", key))
            self._meet()
            self._model = drawn
        return self._model

    def _ordered(self) -> list[tuple[str | int, Spot]]:
        """The model's keys with the parts last, in the order in which they are drawn."""
        tops = self._tops["model"]
        rest = [(key, spot) for key, spot in tops.items() if key not in KINDS]
        return [*rest, *((kind, tops[kind]) for kind in KINDS if kind in tops)]

    def _train(self) -> dict[str, Any]:
        return {
            str(key): self._resolved(cast(Node, spot.node), spot.path, ("train", key))
            for key, spot in self._tops["train"].items()
            if key != ENCODER_RATE or self._rate_is_read(spot)
        }

    def _resolved(self, node: Node, path: str, at: Keys) -> Any:
        return resolve(node, path, self._once, self._origin, at, self._settle)

    # --- picking

    def _once(self, path: str, node: Choice | Range) -> Scalar:
        """The value at a path, picked when it is first asked for."""
        self._looked.add(path)
        if path not in self.picked:
            value = self._pick(path, node)
            if isinstance(node, Range) and node.moved and not node.contains(value):
                span = f"{text_of(node.low)} to {text_of(node.high)}"
                message = f"is {text_of(value)}, here it goes from {span}"
                raise InputError(Problem(self.space.document.where(node.keys), message))
            self.picked[path], self.nodes[path] = value, node
        return self.picked[path]

    @property
    def _tops(self) -> dict[str, dict[Any, Spot]]:
        """The settings at the top of the trees, those of the drawn preset among them."""
        if self._roots is None:
            presets = self.space.presets
            if presets is None:
                self._roots = roots(self.space.model, self.space.train)
            else:
                label = self._once(PRESET, presets)
                tops = roots(self.space.model, self.space.train, label)
                tops["model"]["preset"] = Spot(PRESET, Const(str(label), presets.keys))
                self._roots = tops
        return self._roots

    def _part_node(self, kind: str) -> Node:
        """A part's node without the options that do not fit what is drawn already."""
        node = cast(Node, self._tops["model"][kind].node)
        if self.space.presets is not None:
            return node
        for before in KINDS[: KINDS.index(kind)]:
            self._name(before)
        return self._narrow(kind, node)

    def _name(self, kind: str) -> None:
        """See that the name of a part is picked."""
        node = self._tops["model"][kind].node
        if isinstance(node, Choice):
            known = self.picked.get(f"model/{kind}")
            if known is None:
                known = self._once(f"model/{kind}", cast(Choice, self._part_node(kind)))
            self._parts[kind] = str(known)
        elif isinstance(node, Group) and isinstance(name := node.children.get("name"), Const):
            self._parts[kind] = str(name.value)

    def _narrow(self, kind: str, node: Node) -> Node:
        if not isinstance(node, Choice):
            return node
        if f"model/{kind}" in self.nodes:
            return self.nodes[f"model/{kind}"]
        fits = self.space.fits
        names = dict(self._parts)
        offered = fits.offered(kind, names)
        if not offered:
            excluded = fits.excluded(names)
            told = Problem(self.space.document.where(node.keys), excluded or fits.why_not(names))
            if excluded:
                raise UnmetError(told, paths=frozenset(f"model/{k}" for k in KINDS))
            raise InputError(told)
        if len(offered) == len(node.options):
            return node
        before = [other for other in KINDS[: KINDS.index(kind)] if other not in names]
        return node.only(offered, "" if before else fits.suffix(kind, names))

    def _rate_is_read(self, spot: Spot) -> bool:
        """A language model's learning rate is searched only where there is one."""
        if spot.node is None or not searched(spot.node):
            return True
        if self._read_states is None:
            from legoray.search.space import content_reads_states

            part = self._tops["model"]["content"]
            content = self._resolved(self._part_node("content"), part.path, ("model", "content"))
            try:
                self._read_states = content_reads_states(content, self.space.text)
            except InputError:
                self._checked_model()  # says it with its place in the file
                raise
        return self._read_states

    # --- what depends on other values

    def look(self, path: Path) -> Any:
        """The value of a setting, by a formula's path.

        Raises:
            AbsentError: this configuration does not have it.
        """
        tree, key, *rest = canonical(path)
        spot = top_spot(self._tops, str(tree), key)
        if spot is not None and key == ENCODER_RATE and not self._rate_is_read(spot):
            spot = None
        if spot is not None and spot.kind:
            spot = Spot(spot.path, self._part_node(spot.kind), kind=spot.kind)
        for inner in rest:
            spot = self._opened(spot).child(inner) if spot is not None else None
        if spot is None:
            raise AbsentError(path)
        return self._value(self._opened(spot))

    def _opened(self, spot: Spot) -> Spot:
        """What a setting's choices and cases have become."""
        node = spot.node
        while isinstance(node, Choice | Case):
            if isinstance(node, Choice):
                option = node.option(self._once(spot.path, node))
            else:
                option = cast(Option, self._settle(spot.path, node))
            inner = below(spot.path, option.label)
            spot = Spot(inner, option.node, cls=spot.cls, kind=spot.kind)
            node = spot.node
        return spot

    def _value(self, spot: Spot) -> Any:
        node = spot.node
        if node is None:
            return spot.value
        if isinstance(node, Group) and isinstance(name := node.children.get("name"), Const):
            return name.value
        return resolve(node, spot.path, self._once, {}, (), self._settle)

    def _settle(self, path: str, node: Case | Moved) -> Option | Range:
        """What a node becomes by the values that it depends on."""
        where = self.space.document.where(node.keys)
        if path in self._settling:
            chain = " -> ".join(self._settling[self._settling.index(path) :])
            raise InputError(Problem(where, f"depends on itself: {chain} -> {path}"))
        self._settling.append(path)
        try:
            if isinstance(node, Case):
                return self._line(node, where)
            before, self._looked = self._looked, set()
            low, high = (self._end(end, where) for end in (node.low, node.high))
            self.needs[path] = self._looked
            self._looked = before | self._looked
            return node.between(low, high, where)
        finally:
            self._settling.remove(path)

    def _line(self, node: Case, where: str) -> Option:
        try:
            value = self._evaluated(node.of, where)
        except AbsentError:
            value = AbsentError
        found = node.option(value)
        if found is None:
            told = "is absent" if value is AbsentError else f"is {value!r}"
            raise InputError(Problem(where, f"{node.of.text} {told}: no line of the case holds"))
        return found

    def _end(self, end: float | Formula, where: str) -> float:
        if not isinstance(end, Formula):
            return end
        try:
            value = self._evaluated(end, where)
        except AbsentError as error:
            raise InputError(Problem(where, f"'{end.text}': {error} is absent here")) from None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(Problem(where, f"'{end.text}' is {value!r}, a number was expected"))
        return value

    def _evaluated(self, formula: Formula, where: str) -> Any:
        try:
            return formula.evaluate(self.look)
        except FormulaError as error:
            message = f"'{formula.text}', character {error.at}: {error}"
            raise InputError(Problem(where, message)) from None

    def _meet(self) -> None:
        """See that all conditions hold; one that names an absent setting does."""
        for condition in self.space.where:
            self._looked = set()
            where = self.space.document.where(condition.keys)
            try:
                held = self._evaluated(condition.formula, where)
            except AbsentError:
                continue
            if held is False:
                told = Problem(where, f"'{condition.formula.text}' does not hold")
                raise UnmetError(told, paths=frozenset(self._looked))
            if held is not True:
                message = f"'{condition.formula.text}' is {held!r}, true or false was expected"
                raise InputError(Problem(where, message))
