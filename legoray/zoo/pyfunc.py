"""What MLflow loads a model by (`loader_module`): rows of texts in, rows of scores out.

model = mlflow.pyfunc.load_model("models:/mind_llm@champion")
model.predict([{"history": ["Storm closes coastal roads"], "candidates": ["Flood ahead"]}])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from legoray.errors import InputError, Problem
from legoray.zoo.scorer import Scorer

if TYPE_CHECKING:
    import pandas as pd


class TextRecommender:
    """A recommender behind MLflow's interface."""

    def __init__(self, folder: Path) -> None:
        self.scorer = Scorer(folder)

    def predict(
        self, model_input: pd.DataFrame | Sequence[Mapping[str, Any]], params: Any = None
    ) -> pd.DataFrame:
        """Score each row's candidates for each row's history.

        Args:
            model_input: a table, or a list of mappings, with `history` and `candidates`: lists of
                texts, or of mappings attribute -> text. A plain text is the model's first text
                attribute.
            params: not used.

        Returns:
            A table with one column `scores`: per row a list, one number per candidate.

        Raises:
            InputError: a column is missing, or is not a list of such items.
        """
        import pandas as pd

        table = model_input if isinstance(model_input, pd.DataFrame) else pd.DataFrame(model_input)
        scores = self.scorer.score(_column(table, "history"), _column(table, "candidates"))
        return pd.DataFrame({"scores": [row.tolist() for row in scores]}, index=table.index)


def _column(table: pd.DataFrame, name: str) -> list[list[Any]]:
    if name not in table.columns:
        found = ", ".join(map(str, table.columns)) or "none"
        raise InputError(Problem("input", f"the column '{name}' is missing", f"there are: {found}"))
    rows = []
    for index, value in zip(table.index, table[name], strict=True):
        if isinstance(value, str | Mapping) or not hasattr(value, "__iter__"):
            where = f"row {index}, column '{name}'"
            raise InputError(Problem(where, f"{value!r} is not a list of items"))
        rows.append(list(value))
    return rows


def _load_pyfunc(data_path: str) -> TextRecommender:
    """MLflow's entry."""
    return TextRecommender(Path(data_path))
