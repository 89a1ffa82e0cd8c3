"""Mistakes in `search.objectives`, each with its line."""

from __future__ import annotations

from typing import Any

from legoray.config import EvaluateConfig
from legoray.errors import Problem, nearest
from legoray.objectives import COSTS
from legoray.yamlfile import Document, Keys


def objective_problems(document: Document) -> list[Problem]:
    """Unknown objectives, those that are not measured or stand twice, and a wrong first one."""
    search, evaluate = document.data.get("search"), document.data.get("evaluate", {})
    given = search.get("objectives") if isinstance(search, dict) else None
    if not isinstance(given, list) or not isinstance(evaluate, dict):
        return []
    defaults = EvaluateConfig()
    select = evaluate.get("select", defaults.select)
    metrics = evaluate.get("metrics", defaults.metrics)
    names = [one.get("name") if isinstance(one, dict) else one for one in given]
    problems: list[Problem] = []
    for index, name in enumerate(names):
        where = document.where(_place(given, index))
        if not isinstance(name, str):
            continue
        if name in names[:index]:
            problems.append(Problem(where, f"'{name}' stands twice"))
        elif index == 0 and name != select:
            message = f"the first objective must be what selects: '{select}'"
            problems.append(Problem(where, message, "put it first, or change evaluate.select"))
        elif name not in COSTS:
            problems += _not_measured(name, metrics, where)
    return problems


def _place(given: list[Any], index: int) -> Keys:
    at: Keys = ("search", "objectives", index)
    return (*at, "name") if isinstance(given[index], dict) else at


def _not_measured(name: str, metrics: Any, where: str) -> list[Problem]:
    """Why a name is no objective: it is none at all, or a metric that is not measured."""
    from legoray.train.metrics import check_metrics

    measured = [m for m in metrics if isinstance(m, str)] if isinstance(metrics, list) else []
    if name in measured:
        return []
    if not check_metrics([name]):
        hint = f"add it to evaluate.metrics: {', '.join(measured)}"
        return [Problem(where, f"'{name}' is not measured", hint)]
    close = nearest(name, [*measured, *COSTS])
    known = f"metrics: {', '.join(measured)}; costs: {', '.join(COSTS)}"
    return [Problem(where, f"unknown objective '{name}'", _hint(close, known))]


def _hint(close: str | None, known: str) -> str:
    return f"did you mean '{close}'?" if close else known
