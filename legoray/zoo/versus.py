"""`legoray compare`: models of the zoo against each other, on the same groups of one split."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from legoray.errors import InputError, Problem, nearest, unknown
from legoray.model.io import saved_config
from legoray.train.groupvalues import read_values
from legoray.train.metrics import POOLED, direction
from legoray.zoo.bootstrap import LEVEL, RESAMPLES, tie_letters
from legoray.zoo.comparison import Compared, Comparison
from legoray.zoo.evaluating import evaluate_with_groups
from legoray.zoo.locate import located
from legoray.zoo.pairwise import Side, compare_pairs
from legoray.zoo.verdicts import heading, sentence

FORMS = ("table", "json")
SEED = 1
Say = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """What is compared, and on what."""

    models: Sequence[str]
    data: Path | None = None  # where it is not given, what each model's test left is compared
    split: str = "valid"
    metrics: Sequence[str] = ()  # the first is tested
    group: str | None = None
    tracking: str = ""


def compare_models(asked: Asked, say: Say = lambda text: None) -> Comparison:
    """Compare models as they are: each is one training, so no seeds vary.

    Raises:
        InputError: fewer than two models, none of such a name, or they were not measured on the
            same groups.
    """
    if len(asked.models) < 2:
        raise InputError(Problem("compare", "needs two models or more"))
    sides = [_side(asked, model, say) for model in asked.models]
    sides = _told_apart(sides, asked.models)
    _check_alike(sides, asked.models)
    first = sides[0].values[0]
    metric = _metric(asked, sides)
    mode = direction(metric)
    pairs = compare_pairs(sides, metric, mode, seed=SEED)
    place = {side.key: index for index, side in enumerate(sides)}
    differ = [(place[p.a], place[p.b]) for p in pairs if p.verdict != "tie"]
    letters = tie_letters(len(sides), differ)
    return Comparison(
        sweep="",
        split=first.origin.split,
        metric=metric,
        mode=mode,
        group="user" if first.origin.kind == "user" else "impression",
        groups=len(first.group),
        users=len(np.unique(first.user)),
        level=LEVEL,
        resamples=RESAMPLES,
        bootstrap_seed=SEED,
        compared=[_compared(side, told) for side, told in zip(sides, letters, strict=True)],
        pairs=pairs,
    )


def print_versus(found: Comparison, *, form: str, console: Console) -> None:
    """Print it as a table and sentences, or as JSON.

    Raises:
        InputError: there is no such form.
    """
    check_form(form)
    if form == "json":
        console.file.write(json.dumps(found.model_dump(), indent=1) + "\n")
        return
    table = Table()
    names = sorted(found.compared[0].mean, key=lambda name: (name != found.metric, name))
    table.add_column("model")
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("ties")
    for one in found.compared:
        values = [f"{one.mean[name]:.4f}" if name in one.mean else "" for name in names]
        table.add_row(one.label, *values, one.letters)
    console.print(table)
    for line in [heading(found), *(f"  {sentence(pair)}" for pair in found.pairs)]:
        console.print(line, markup=False, soft_wrap=True)


def check_form(form: str) -> None:
    """Refuse a format that there is not.

    Raises:
        InputError: it is none of `FORMS`.
    """
    if form not in FORMS:
        raise InputError(unknown("format", form, FORMS, "--format"))


def _side(asked: Asked, model: str, say: Say) -> Side:
    """A model with its values: measured, or those that its test left."""
    if asked.data is not None:
        evaluated, values = evaluate_with_groups(
            model,
            asked.data,
            split=asked.split,
            metrics=asked.metrics,
            group=asked.group,
            tracking=asked.tracking,
            say=say,
        )
        label = evaluated.model
    else:
        with located(model, asked.tracking) as folder:
            label, values = saved_config(folder).label(), read_values(folder)
    if values is None:
        message = "keeps no values of a test"
        raise InputError(Problem(model, message, "give --data to measure the models on a split"))
    return Side(model, label, [values])


def _told_apart(sides: Sequence[Side], models: Sequence[str]) -> list[Side]:
    """Keys by place, so that a model may meet itself; labels that repeat with the model's name."""
    labels = [side.label for side in sides]
    return [
        Side(
            f"{place}",
            f"{side.label} ({model})" if labels.count(side.label) > 1 else side.label,
            side.values,
        )
        for place, (side, model) in enumerate(zip(sides, models, strict=True))
    ]


def _check_alike(sides: Sequence[Side], models: Sequence[str]) -> None:
    first = sides[0].values[0]
    for side, model in zip(sides, models, strict=True):
        values = side.values[0]
        if not first.matches(values):
            was = f"{first.origin.data}, {first.origin.fingerprint[:12]}, by {first.origin.kind}"
            now = f"{values.origin.data}, {values.origin.fingerprint[:12]}, by {values.origin.kind}"
            message = f"was measured on other groups ({now}) than {models[0]} ({was})"
            raise InputError(Problem(model, message, "only equal data and protocols compare"))


def _metric(asked: Asked, sides: Sequence[Side]) -> str:
    """The metric that is tested: the first asked for, or the first that all have."""
    every = [set(side.values[0].metrics) for side in sides]
    shared = [name for name in sides[0].values[0].metrics if all(name in own for own in every)]
    if not shared:
        raise InputError(Problem("compare", "the models share no metric of groups"))
    wanted = next((name for name in asked.metrics if name not in POOLED), None)
    if wanted is None:
        return "auc" if "auc" in shared else shared[0]
    if wanted not in shared:
        close = nearest(wanted, shared)
        hint = f"did you mean '{close}'?" if close else f"all have: {', '.join(shared)}"
        raise InputError(Problem("--metric", f"not all models have '{wanted}'", hint))
    return wanted


def _compared(side: Side, letters: str) -> Compared:
    columns = side.values[0].metrics.items()
    mean = {name: float(np.mean(values, dtype=np.float64)) for name, values in sorted(columns)}
    return Compared(
        key=side.key, label=side.label, phase="final", seeds=[], trials=[], mean=mean,
        letters=letters,
    )  # fmt: skip
