"""The metrics of a split: scored, ranked, and measured as a whole and in slices.

What a split's scores are is `legoray.train.scoring`'s matter, where its candidates are listed, and
`legoray.train.ranking`'s, where its clicks are ranked against all items.
"""

from __future__ import annotations

import numpy as np

from legoray.config import EvaluateConfig
from legoray.data.corpus import Corpus, Split
from legoray.errors import InfeasibleError, InputError, Problem
from legoray.model.inputs import Inputs
from legoray.model.recommender import Recommender
from legoray.train.groupvalues import GroupValues, values_of
from legoray.train.metrics import POOLED, Pooled, TieBlocks, measured, tie_blocks
from legoray.train.ranking import Ranks, rank_split, ranked_blocks, ranking_problems
from legoray.train.scoring import Float, Int, Worker, score_split


def evaluate(
    recommender: Recommender,
    inputs: Inputs,
    split: str,
    corpus: Corpus,
    *,
    config: EvaluateConfig,
    max_history: int,
    worker: Worker | None = None,
    slices: bool = False,
) -> tuple[dict[str, float], Float]:
    """Score a split and measure the scores; every worker gets the whole result.

    Args:
        recommender: the model, on the worker's device; its mode (training or not) is kept.
        inputs: what the model reads.
        split: name of a split of the corpus.
        corpus: histories and splits.
        config: metrics and grouping key.
        max_history: items of a history at most.
        worker: this worker; alone on the CPU where it is not given.
        slices: measure the slices too, see `measure`.

    Returns:
        The metrics (none where the split has no labels) and the raw scores `[rows]` in the order of
        the split: of the clicks alone, where these are ranked against all items.

    Raises:
        InputError: there is no such split, it has no group with a click and a non-click, or a
            metric is not defined for it.
        InfeasibleError: a score is NaN.
    """
    scored = _scored(recommender, inputs, split, corpus, config, max_history, worker or Worker())
    if isinstance(scored, Ranks):
        return measure_ranks(scored, split, corpus, config, slices=slices), scored.score
    return measure(scored, split, corpus, config, slices=slices), scored


def evaluate_groups(
    recommender: Recommender,
    inputs: Inputs,
    split: str,
    corpus: Corpus,
    *,
    config: EvaluateConfig,
    max_history: int,
    worker: Worker | None = None,
) -> tuple[dict[str, float], GroupValues | None]:
    """As `evaluate` with slices, and beside the metrics those of each group by itself.

    The split is scored once; there are no values where it has no labels.

    Raises:
        InputError, InfeasibleError: as `evaluate`.
    """
    scored = _scored(recommender, inputs, split, corpus, config, max_history, worker or Worker())
    if isinstance(scored, Ranks):
        metrics = measure_ranks(scored, split, corpus, config, slices=True)
    else:
        metrics = measure(scored, split, corpus, config, slices=True)
    return metrics, group_values_of(scored, split, corpus, config)


def group_values_of(
    scored: Float | Ranks, split: str, corpus: Corpus, config: EvaluateConfig
) -> GroupValues | None:
    """The metrics of each group, of a split's raw scores or ranks; None without labels."""
    rows, kind = split_of(corpus, split), config.group or corpus.group
    if not rows.labeled:
        return None
    if isinstance(scored, Ranks):
        blocks = ranked_blocks(scored, rows)
    else:
        blocks = tie_blocks(scored, rows.label, groups_of(rows, kind))
    return values_of(blocks, rows, split, corpus, kind, config.metrics)


def _scored(
    recommender: Recommender,
    inputs: Inputs,
    split: str,
    corpus: Corpus,
    config: EvaluateConfig,
    max_history: int,
    worker: Worker,
) -> Float | Ranks:
    """The raw scores of a split, or the ranks of its clicks."""
    rows = split_of(corpus, split)
    problems = evaluation_problems(config, corpus, [split])
    if problems:
        raise InputError(*problems)
    score = rank_split if rows.full_ranking else score_split
    return score(recommender, inputs, rows, corpus, max_history=max_history, worker=worker)


def evaluation_problems(
    config: EvaluateConfig, corpus: Corpus, splits: list[str] | None = None
) -> list[Problem]:
    """What is asked for and not defined where clicks are ranked against all items.

    Args:
        config: what is asked for.
        corpus: whose valid and test splits are looked at.
        splits: other ones to look at.
    """
    named = [corpus.splits.get(name) for name in splits or ("valid", "test")]
    if not any(split is not None and split.full_ranking for split in named):
        return []
    return ranking_problems(config.metrics, config.group or corpus.group)


def split_of(corpus: Corpus, name: str) -> Split:
    """A split by name.

    Raises:
        InputError: the data set has none of that name, or it is empty.
    """
    split = corpus.splits.get(name)
    if split is None or not split.rows:
        known = ", ".join(name for name, one in corpus.splits.items() if one.rows) or "none"
        raise InputError(
            Problem(f"data set {corpus.name}", f"the split '{name}' is empty", f"it has: {known}")
        )
    return split


def groups_of(split: Split, group: str) -> Int:
    """The group of each row `[rows]`: its impression's or its user's number."""
    numbers = split.user.astype(np.int64) if group == "user" else np.arange(len(split))
    return np.repeat(numbers, np.diff(split.offsets))


def group_counts(split: Split, group: str) -> tuple[int, int]:
    """How many groups have both a click and a non-click, and how many are left out.

    Where clicks are ranked against all items there are non-clicks, unless a user has had all.
    """
    numbers = split.user if group == "user" else np.arange(len(split))
    clicks = np.bincount(numbers, weights=split.clicks)
    rows = np.bincount(numbers, weights=np.diff(split.offsets))
    both = int(((clicks > 0) & ((clicks < rows) | split.full_ranking)).sum())
    return both, int((rows > 0).sum()) - both


def measure(
    scores: Float, split: str, corpus: Corpus, config: EvaluateConfig, *, slices: bool = False
) -> dict[str, float]:
    """The metrics of a split's raw scores; empty where the split has no labels.

    Args:
        scores: `[rows]` of the split.
        split: its name.
        corpus: whose split it is.
        config: metrics and grouping key.
        slices: give beside each metric, such as `auc`, that of each slice as `auc/cold-item`, and
            how many groups there are as `groups/all` and `groups/cold-item`. A slice's numbers are
            those of its impressions, as if there were no others, also where groups are users. A
            slice without a group that has both a click and a non-click is left out.

    Raises:
        InputError: the split has no group with both a click and a non-click.
        InfeasibleError: a score is NaN.
    """
    rows = split_of(corpus, split)
    if not rows.labeled:
        return {}
    bad = int(np.isnan(scores).sum())
    if bad:
        raise InfeasibleError(f"{bad} of {len(scores)} scores of the {split} split are NaN")
    group = config.group or corpus.group
    groups = groups_of(rows, group)
    blocks = tie_blocks(scores, rows.label, groups)
    _check_groups(blocks, split, corpus, config)
    if slices and group == "user":
        return _sliced_users(scores, rows, groups, config.metrics)
    members = rows.slices if slices else None
    pooled = Pooled(scores, rows.label, groups)
    return measured(blocks, config.metrics, pooled=pooled, members=members)


def measure_ranks(
    ranks: Ranks, split: str, corpus: Corpus, config: EvaluateConfig, *, slices: bool = False
) -> dict[str, float]:
    """As `measure`, of a split whose clicks were ranked against all items."""
    rows = split_of(corpus, split)
    blocks = ranked_blocks(ranks, rows)
    _check_groups(blocks, split, corpus, config)
    return measured(blocks, config.metrics, members=rows.slices if slices else None)


def _sliced_users(scores: Float, split: Split, groups: Int, names: list[str]) -> dict[str, float]:
    """The metrics by users, of all rows and of those of each slice's impressions alone.

    A slice parts the rows of a user, so that its rows are put in order anew.
    """
    parts = {"all": np.ones(len(split), bool), **split.slices}
    found: dict[str, float] = {}
    for one, marked in parts.items():
        inside = np.repeat(marked, np.diff(split.offsets))
        rows = scores[inside], split.label[inside], groups[inside]
        blocks = tie_blocks(*rows)
        if len(blocks) or one == "all":
            values = measured(blocks, names, pooled=Pooled(*rows))
            end = "" if one == "all" else f"/{one}"
            found |= {f"{name}{end}": value for name, value in values.items()}
            found[f"groups/{one}"] = float(len(blocks))
    return found


def _check_groups(blocks: TieBlocks, split: str, corpus: Corpus, config: EvaluateConfig) -> None:
    if len(blocks) or all(name in POOLED for name in config.metrics):
        return
    group = config.group or corpus.group
    raise InputError(
        Problem(
            f"data set {corpus.name}",
            f"the {split} split has no {group} with both a click and a non-click",
            "nothing can be measured on it",
        )
    )
