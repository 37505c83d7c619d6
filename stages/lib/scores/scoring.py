"""The scores of a model, computed from its predictions in the same way for every model."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from stages.lib.core.metrics import AllScores


def scores(labels: np.ndarray, predictions: np.ndarray, *, classes: int) -> AllScores:
    """Compute accuracy, F1, precision and recall from labels and predictions, both int [reviews].

    With two classes, the last three are those of the second (positive) class; with more, they are
    macro averages over the classes.
    """
    average = {"average": "binary" if classes == 2 else "macro", "zero_division": 0}
    return {
        "accuracy": float(accuracy_score(labels, predictions)),
        "f1": float(f1_score(labels, predictions, **average)),
        "precision": float(precision_score(labels, predictions, **average)),
        "recall": float(recall_score(labels, predictions, **average)),
    }


def of_predictions(rows: pd.DataFrame, labels: Sequence[str]) -> dict[str, AllScores]:
    """Compute the scores by split from the rows of data/predictions/<name>.csv."""
    numbers = {name: number for number, name in enumerate(labels)}
    return {
        split: _rounded(
            scores(
                part["label"].map(numbers).to_numpy(),
                part["prediction"].map(numbers).to_numpy(),
                classes=len(labels),
            )
        )
        for split, part in rows.groupby("split", sort=False)
    }


def _rounded(values: AllScores) -> AllScores:
    return {
        "accuracy": round(values["accuracy"], 6),
        "f1": round(values["f1"], 6),
        "precision": round(values["precision"], 6),
        "recall": round(values["recall"], 6),
    }
