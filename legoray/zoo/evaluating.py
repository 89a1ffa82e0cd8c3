"""`legoray evaluate`: a model that was trained before, measured on a split and on its slices."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from legoray.config import EvaluateConfig, TrialConfig, build, home
from legoray.data.load import load_corpus
from legoray.data.prepare import Prepared, prepare
from legoray.data.recipes import leaves
from legoray.errors import InputError, Problem, unknown
from legoray.model.io import LoadedModel, load_model
from legoray.model.reads import prints_of, reads_of
from legoray.records import Metrics
from legoray.train.groupvalues import GroupValues
from legoray.zoo.locate import located
from legoray.zoo.slicetable import print_table, to_markdown
from legoray.zoo.store import DEFAULT_URI

FORMS = ("table", "markdown", "json")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Evaluated:
    """What was measured, of what, and by which rules."""

    model: str
    data: str
    fingerprint: str
    split: str
    group: str
    protocol: dict[str, Any]
    metrics: Metrics = field(default_factory=dict)

    def title(self) -> str:
        """One line that says what the numbers are of."""
        return f"{self.model} on the {self.split} split of {self.data}, by {self.group}"

    def protocol_line(self) -> str:
        """The protocol in one line."""
        terms = "; ".join(f"{name}: {value}" for name, value in self.protocol.items())
        return f"data {self.data}, fingerprint {self.fingerprint[:12]}; {terms}"


def evaluate_model(
    model: str | Path,
    dataset: Path,
    *,
    split: str = "valid",
    metrics: Sequence[str] = (),
    group: str | None = None,
    tracking: str = DEFAULT_URI,
    say: Say = lambda text: None,
) -> Evaluated:
    """Measure a model on a split of the data set that it was trained on.

    Args:
        model: a folder, `models:/name@champion`, or a run (see `legoray.zoo.locate`).
        dataset: the data set's YAML; it is prepared where that was not done.
        split: valid, test or train.
        metrics: names; those of its training where none is given.
        group: impression or user; as in its training where it is not given.
        tracking: MLflow's address.
        say: told how preparation goes.

    Raises:
        InputError: no such model, split or metric; the model was trained on other data or texts;
            the split has no labels.
    """
    return evaluate_with_groups(
        model, dataset, split=split, metrics=metrics, group=group, tracking=tracking, say=say
    )[0]


def evaluate_with_groups(
    model: str | Path,
    dataset: Path,
    *,
    split: str,
    metrics: Sequence[str],
    group: str | None,
    tracking: str,
    say: Say,
) -> tuple[Evaluated, GroupValues | None]:
    """As `evaluate_model`, and the values of each group beside it."""
    with located(model, tracking) as folder:
        loaded = load_model(folder)
    prepared = prepare(dataset.absolute(), say=say)
    config = _config(loaded, metrics, group, str(model))
    _check_data(loaded, prepared, str(model))
    measured, values = _measured(loaded, prepared, config, split, say)
    evaluated = Evaluated(
        model=loaded.config.label(),
        data=prepared.manifest.name,
        fingerprint=prepared.manifest.fingerprint,
        split=split,
        group=config.evaluate.group or prepared.manifest.group,
        protocol=dict(prepared.manifest.protocol),
        metrics=measured,
    )
    return evaluated, values


def print_evaluation(found: Evaluated, *, form: str, console: Console) -> None:
    """Print it as a table, Markdown or JSON.

    Raises:
        InputError: there is no such form.
    """
    check_form(form)
    if form == "json":
        console.file.write(json.dumps(asdict(found), indent=1) + "\n")
    elif form == "markdown":
        lines = [f"### {found.title()}", "", *to_markdown(found.metrics, found.group)]
        console.file.write("\n".join([*lines, "", f"- {found.protocol_line()}", ""]))
    else:
        print_table(found.metrics, console, title=found.title(), group=found.group)
        console.print(found.protocol_line(), style="dim", markup=False, soft_wrap=True)


def check_form(form: str) -> None:
    """Refuse a format that there is not.

    Raises:
        InputError: it is none of `FORMS`.
    """
    if form not in FORMS:
        raise InputError(unknown("format", form, FORMS, "--format"))


def _config(
    loaded: LoadedModel, metrics: Sequence[str], group: str | None, model: str
) -> TrialConfig:
    """The model's own configuration, with what is asked for instead."""
    from legoray.train.metrics import check_metrics

    told = loaded.extra.get("config")
    if not isinstance(told, dict):
        message = "does not say how it was trained, so that it cannot be measured alike"
        raise InputError(Problem(model, message, "train it again with this version"))
    config = build(TrialConfig, told)
    wanted = list(metrics) or config.evaluate.metrics
    problems = check_metrics(wanted, where="--metric")
    if problems:
        raise InputError(*problems)
    if group not in (None, "impression", "user"):
        raise InputError(unknown("group", str(group), ["impression", "user"], "--group"))
    evaluate = EvaluateConfig.model_validate(
        {"metrics": wanted, "select": wanted[0], "group": group or config.evaluate.group}
    )
    return config.model_copy(update={"evaluate": evaluate})


def _check_data(loaded: LoadedModel, prepared: Prepared, model: str) -> None:
    """See that items, users and texts are those that the model was trained on."""
    manifest = prepared.manifest
    if loaded.extra.get("fingerprint") != manifest.fingerprint:
        was = f"{loaded.extra.get('data')}, {str(loaded.extra.get('fingerprint'))[:12]}"
        now = f"{manifest.name}, {manifest.fingerprint[:12]}"
        message = f"was trained on other data ({was}) than these ({now})"
        hint = "items have other numbers there; give the data set that it was trained on"
        raise InputError(Problem(model, message, hint))
    read = reads_of(loaded.recipes, prints_of(manifest))
    was_read = loaded.extra.get("reads", read)
    changed = sorted({name for name, _ in read.items() ^ was_read.items()})
    if changed:
        message = f"read other texts of {', '.join(changed)} in its training than are here now"
        raise InputError(Problem(model, message, "put them back, or train it anew"))


def _measured(
    loaded: LoadedModel, prepared: Prepared, config: TrialConfig, split: str, say: Say
) -> tuple[Metrics, GroupValues | None]:
    import torch

    from legoray.llm.store import ensure_states
    from legoray.train.cache import shared_inputs
    from legoray.train.evaluate import evaluate_groups, evaluation_problems, split_of
    from legoray.train.scoring import Worker

    corpus = load_corpus(prepared.tables)
    problems = evaluation_problems(config.evaluate, corpus, [split])
    if problems:
        raise InputError(*problems)
    if not split_of(corpus, split).labeled:
        where = f"data set {corpus.name}"
        raise InputError(Problem(where, f"the {split} split has no labels to measure by"))
    recipes = loaded.recipes
    read = [*leaves(recipes.items), *(leaves(recipes.history) if recipes.history else ())]
    ensure_states(read, prepared.tables, home(), say)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return evaluate_groups(
        loaded.recommender.to(device),
        shared_inputs(recipes, prepared.tables, home(), corpus),
        split,
        corpus,
        config=config.evaluate,
        max_history=config.train.max_history,
        worker=Worker(device=device, precision=config.train.precision),
    )
