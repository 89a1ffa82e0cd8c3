"""`legoray recommend`: rank items that a model has never seen, from their texts alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from legoray.zoo.locate import located
from legoray.zoo.scorer import Scorer, Text
from legoray.zoo.store import DEFAULT_URI
from legoray.zoo.texts import read_texts

__all__ = ["read_texts", "recommend"]


def recommend(
    model: str | Path,
    history: Sequence[Text],
    candidates: Sequence[Text],
    top: int = 10,
    *,
    tracking: str = DEFAULT_URI,
) -> list[tuple[int, float, str]]:
    """The best candidates for a user who read `history`.

    Args:
        model: a folder, `models:/name@champion`, or a run (see `legoray.zoo.locate`).
        history: what the user read, oldest first: texts, or mappings attribute -> text.
        candidates: what to rank; likewise.
        top: how many to give.
        tracking: MLflow's address.

    Returns:
        `(rank from 1, score, text)`, best first; equal scores keep the candidates' order.

    Raises:
        InputError: no such model, a model that knows items by number alone, or an item that lacks
            an attribute that the model reads.
    """
    with located(model, tracking) as folder:
        scorer = Scorer(folder)
        (scores,) = scorer.score([history], [candidates])
        order = np.argsort(-scores, kind="stable")[:top]
        first = scorer.attributes[0]
        return [
            (rank, float(scores[index]), _shown(candidates[index], first))
            for rank, index in enumerate(order, start=1)
        ]


def _shown(item: Text, attribute: str) -> str:
    return item if isinstance(item, str) else str(item[attribute])
