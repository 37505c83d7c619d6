"""Scores and predictions of a model: the same JSON and the same table for every model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from stages.lib.core import outputs
from stages.lib.core.paths import METRICS, PREDICTIONS


def scores(labels: np.ndarray, predictions: np.ndarray, *, classes: int) -> dict[str, float]:
    """Accuracy, F1, precision and recall of int [reviews].

    With two classes the last three are of the second (the positive one), with more they are means
    over the classes (macro).
    """
    average = {"average": "binary" if classes == 2 else "macro", "zero_division": 0}
    return {
        "accuracy": float(accuracy_score(labels, predictions)),
        "f1": float(f1_score(labels, predictions, **average)),
        "precision": float(precision_score(labels, predictions, **average)),
        "recall": float(recall_score(labels, predictions, **average)),
    }


def of_predictions(rows: pd.DataFrame, labels: Sequence[str]) -> dict[str, dict[str, float]]:
    """The content of metrics/<name>.json, from the rows of data/predictions/<name>.csv."""
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


def read_predictions(name: str) -> pd.DataFrame:
    """The rows of data/predictions/<name>.csv. Labels are text, whatever they look like."""
    return pd.read_csv(
        PREDICTIONS / f"{name}.csv",
        dtype={"label": str, "prediction": str},
        keep_default_na=False,
    )


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {key: round(value, 6) for key, value in values.items()}


def write(
    name: str, labels: Sequence[str], results: dict[str, tuple[np.ndarray, np.ndarray]]
) -> dict[str, dict[str, float]]:
    """Write metrics/<name>.json and data/predictions/<name>.csv; gives what is in the former.

    `results` has for each split the true labels (int [reviews]) and the probabilities (float
    [reviews, labels]); `labels` names them. A row of the predictions has the names of the true and
    the most probable label, and the score, which is the probability of the latter.
    """
    metrics: dict[str, Any] = {}
    with outputs.replacing(PREDICTIONS / f"{name}.csv") as aside:
        for number, (split, (true, probabilities)) in enumerate(results.items()):
            predicted = probabilities.argmax(-1)
            metrics[split] = _rounded(scores(true, predicted, classes=len(labels)))
            # Codes, not an object a row: predictions may be many.
            table = pd.DataFrame(
                {
                    "split": pd.Categorical.from_codes(np.zeros(len(true), np.int8), [split]),
                    "index": np.arange(len(true)),
                    "label": pd.Categorical.from_codes(true, labels),
                    "prediction": pd.Categorical.from_codes(predicted, labels),
                    "score": probabilities.max(-1),
                }
            )
            # Nine significant digits give a float32 back exactly.
            table.to_csv(
                aside,
                mode="a",
                header=number == 0,
                index=False,
                float_format="%.9g",
                lineterminator="\n",
            )
    outputs.write_json(METRICS / f"{name}.json", metrics)
    return metrics
