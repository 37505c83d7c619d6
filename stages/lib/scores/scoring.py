"""The scores and predictions of a model, in the same JSON and the same table for every model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from stages.lib.core import outputs
from stages.lib.core.paths import METRICS, PREDICTIONS


def scores(labels: np.ndarray, predictions: np.ndarray, *, classes: int) -> dict[str, float]:
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


def of_predictions(rows: pd.DataFrame, labels: Sequence[str]) -> dict[str, dict[str, float]]:
    """Compute the content of metrics/<name>.json from the rows of data/predictions/<name>.csv."""
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
    """Read the rows of data/predictions/<name>.csv, with all labels as text."""
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
    """Write metrics/<name>.json and data/predictions/<name>.csv; returns the content of the former.

    `results` has the true labels (int [reviews]) and the probabilities (float [reviews, labels]) of
    each split; `labels` are the label names. A row of the predictions has the names of the true and
    the most probable label, and the score, which is the probability of the latter.
    """
    metrics: dict[str, Any] = {}
    with outputs.replacing(PREDICTIONS / f"{name}.csv") as aside:
        for number, (split, (true, probabilities)) in enumerate(results.items()):
            predicted = probabilities.argmax(-1)
            metrics[split] = _rounded(scores(true, predicted, classes=len(labels)))
            # Categorical codes take less memory than one Python object per row.
            table = pd.DataFrame(
                {
                    "split": pd.Categorical.from_codes(np.zeros(len(true), np.int8), [split]),
                    "index": np.arange(len(true)),
                    "label": pd.Categorical.from_codes(true, labels),
                    "prediction": pd.Categorical.from_codes(predicted, labels),
                    "score": probabilities.max(-1),
                }
            )
            # Nine significant digits represent a float32 exactly.
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
