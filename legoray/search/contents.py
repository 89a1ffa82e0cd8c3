"""What the content operators of a space may be: settings that decide what is read of an item."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, cast

from legoray.search.cover import every
from legoray.search.formula import AbsentError, Formula, FormulaError, Path
from legoray.search.places import Spot, canonical
from legoray.search.space import Space
from legoray.search.tree import Node, resolve
from legoray.search.walk import independent

MOST_SETTINGS = 2000


def content_settings(space: Space) -> Iterator[dict[str, Any]]:
    """Settings of the content operator: all combinations of them, up to a limit.

    A long or continuous range gives its two ends alone. What other values decide is listed in all
    that it may be, unless a condition on the content operator alone rules it out.
    """
    count = 0
    for path, node in space.parts("content"):
        for settings in every(partial(resolve, cast(Node, independent(node)), path, origin={})):
            if count >= MOST_SETTINGS:
                return
            count += 1
            if all(_may_hold(c.formula, cast(dict[str, Any], settings)) for c in space.where):
                yield cast(dict[str, Any], settings)


def _may_hold(formula: Formula, content: dict[str, Any]) -> bool:
    """Whether a condition does not rule out a content operator by its settings alone."""

    def look(path: Path) -> Any:
        spot: Spot | None = Spot("model/content", None, content, kind="content")
        for key in canonical(path)[2:]:
            spot = spot.child(key) if spot is not None else None
        if spot is None or canonical(path)[:2] != ("model", "content"):
            raise AbsentError(path)
        return spot.value

    try:
        return formula.evaluate(look) is not False
    except (AbsentError, FormulaError):
        return True
