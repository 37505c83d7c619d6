"""Scores and predictions of a model: the same JSON and the same table for every model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from stages.lib import outputs

SCORES = Path("metrics")
PREDICTIONS = Path("data/predictions")


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


def write(
    name: str, labels: Sequence[str], results: dict[str, tuple[np.ndarray, np.ndarray]]
) -> dict[str, dict[str, float]]:
    """Write metrics/<name>.json and data/predictions/<name>.csv; gives what is in the former.

    `results` has for each split the true labels (int [reviews]) and the probabilities (float
    [reviews, labels]); `labels` names them. A row of the predictions has the names of the true and
    the most probable label, and the score, which is the probability of the latter.
    """
    tables = []
    metrics: dict[str, Any] = {}
    names = np.array(labels)
    for split, (true, probabilities) in results.items():
        predicted = probabilities.argmax(-1)
        metrics[split] = {
            key: round(value, 6)
            for key, value in scores(true, predicted, classes=len(labels)).items()
        }
        tables.append(
            pd.DataFrame(
                {
                    "split": split,
                    "index": np.arange(len(true)),
                    "label": names[true],
                    "prediction": names[predicted],
                    "score": probabilities.max(-1),
                }
            )
        )
    with outputs.replacing(PREDICTIONS / f"{name}.csv") as aside:
        # Nine significant digits give a float32 back exactly.
        pd.concat(tables).to_csv(aside, index=False, float_format="%.9g", lineterminator="\n")
    outputs.write_json(SCORES / f"{name}.json", metrics)
    return metrics
