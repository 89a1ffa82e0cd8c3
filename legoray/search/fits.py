"""Which parts of a space fit together, and under which names the search draws them.

A predictor that no behavior operator of the space can feed is a mistake. One that fits some of
them is drawn only after one of those: the choice is then narrowed, and the narrowed choice is a
parameter of its own, `model/predictor@sequence`, so that no trial is wasted on an impossible
composition and the sampler never sees one name with two sets of options.

A condition of `where` that names nothing but parts decides here, too: `not (content == "llm" and
behavior == "gru")`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import product
from typing import Any

from legoray.search.formula import AbsentError, Formula, FormulaError
from legoray.search.notation import KINDS
from legoray.search.places import canonical
from legoray.search.tree import Choice, Const, Group, Node

Triple = tuple[str, str, str]
_FORMS = [(kind, (kind, *rest)) for kind in KINDS for rest in ((), ("name",))]
_NAMES = {path: kind for kind, short in _FORMS for path in (short, canonical(short))}


def part_names(node: Node) -> tuple[str, ...]:
    """The names of the parts that a node may become."""
    if isinstance(node, Choice):
        return tuple(str(label) for label in node.labels())
    name = node.children.get("name") if isinstance(node, Group) else None
    return (str(name.value),) if isinstance(name, Const) else ()


class Fits:
    """The valid compositions among the parts that a space offers."""

    def __init__(
        self, parts: Mapping[str, tuple[str, ...]], conditions: Iterable[Formula] = ()
    ) -> None:
        """The compositions of some parts; of the conditions, those on parts alone count."""
        self._conditions = [c for c in conditions if all(p in _NAMES for p, _ in c.paths)]
        self.parts = {kind: parts[kind] for kind in KINDS}
        self._offered: dict[tuple[str, tuple[str | None, ...]], tuple[str, ...]] = {}
        self._suffixes: dict[tuple[str, tuple[str, ...]], str] = {}

    @cached_property
    def triples(self) -> frozenset[Triple]:
        """All valid `(content, behavior, predictor)`."""
        every = product(*(self.parts[kind] for kind in KINDS))
        return frozenset((c, b, p) for c, b, p in every if not self.explain(c, b, p))

    def explain(self, content: str, behavior: str, predictor: str) -> str | None:
        """Why a composition is refused; None where it is valid."""
        from legoray.model.compose import explain

        reason = explain(content, behavior, predictor)
        names = dict(zip(KINDS, (content, behavior, predictor), strict=True))
        for condition in self._conditions if not reason else ():
            try:
                held = condition.evaluate(lambda path: names[_NAMES[path]])
            except (AbsentError, FormulaError):
                continue  # told where it is checked
            if held is False:
                return f"`where` excludes it: {condition.text}"
        return reason

    def why_not(self, drawn: Mapping[str, str] | None = None) -> str:
        """Why a composition with the drawn parts, the rest as it comes first, is refused."""
        names = [(drawn or {}).get(kind, self.parts[kind][0]) for kind in KINDS]
        return str(self.explain(*names) or "these parts do not fit together")

    def excluded(self, drawn: Mapping[str, str]) -> str | None:
        """Which condition alone stands against parts that would fit together; None if none does."""
        from legoray.model.compose import explain

        if not self._conditions:
            return None
        parts = {kind: (drawn[kind],) if kind in drawn else self.parts[kind] for kind in KINDS}
        fitting = (names for names in product(*parts.values()) if not explain(*names))
        names = next(fitting, None)
        return self.explain(*names) if names is not None else None

    def strangers(self, kind: str) -> list[tuple[str, str]]:
        """Parts of a kind that fit with nothing here, conditions aside, each with a reason."""
        from legoray.model.compose import explain

        at = KINDS.index(kind)
        found = []
        for name in self.parts[kind]:
            others = {**self.parts, kind: (name,)}
            if all(explain(*names) for names in product(*(others[k] for k in KINDS))):
                sample = [self.parts[other][0] for other in KINDS]
                sample[at] = name
                found.append((name, str(explain(*sample) or "")))
        return found

    def offered(self, kind: str, drawn: Mapping[str, str]) -> tuple[str, ...]:
        """The parts of a kind that some valid composition with the drawn ones holds."""
        fixed = tuple(None if other == kind else drawn.get(other) for other in KINDS)
        if (kind, fixed) not in self._offered:
            self._offered[kind, fixed] = self._fitting(KINDS.index(kind), fixed)
        return self._offered[kind, fixed]

    def _fitting(self, at: int, fixed: tuple[str | None, ...]) -> tuple[str, ...]:
        matching = (
            t for t in self.triples if all(f in (None, n) for f, n in zip(fixed, t, strict=True))
        )
        fitting = {triple[at] for triple in matching}
        return tuple(name for name in self.parts[KINDS[at]] if name in fitting)

    def suffix(self, kind: str, drawn: Mapping[str, str]) -> str:
        """What tells a narrowed choice apart: by the user state where that explains it."""
        before = tuple(drawn[name] for name in KINDS[: KINDS.index(kind)])
        if kind != "predictor":
            return "+".join(before)
        if (kind, before) not in self._suffixes:
            self._suffixes[kind, before] = self._of_predictor(kind, drawn)
        return self._suffixes[kind, before]

    def _of_predictor(self, kind: str, drawn: Mapping[str, str]) -> str:
        state = _produces(drawn["behavior"])
        alike = [b for b in self.parts["behavior"] if _produces(b) == state]
        sets = {
            self.offered(kind, {"content": c, "behavior": b})
            for c, b in product(self.parts["content"], alike)
        } - {()}
        return state if len(sets) == 1 else f"{drawn['content']}+{drawn['behavior']}"

    def aliases(self, kind: str, name: str) -> list[str]:
        """Every parameter name under which a part may be drawn."""
        path = f"model/{kind}"
        before = KINDS[: KINDS.index(kind)]
        found = []
        for names in product(*(self.parts[other] for other in before)):
            drawn = dict(zip(before, names, strict=True))
            offered = self.offered(kind, drawn)
            if name in offered:
                narrowed = len(offered) < len(self.parts[kind])
                found.append(f"{path}@{self.suffix(kind, drawn)}" if narrowed else path)
        return _distinct(found)


def _produces(behavior: str) -> str:
    from legoray.model.registry import part_class

    cls: Any = part_class("behavior", behavior)
    return str(cls.produces)


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
