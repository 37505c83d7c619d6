"""Scores and predictions of a model: the same JSON and the same table for every model."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from stages.lib import outputs

SCORES = Path("metrics")
PREDICTIONS = Path("data/predictions")


def scores(labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """Accuracy, and F1, precision and recall of the positive class; both inputs int [reviews]."""
    return {
        "accuracy": float(accuracy_score(labels, predictions)),
        "f1": float(f1_score(labels, predictions, zero_division=0)),
        "precision": float(precision_score(labels, predictions, zero_division=0)),
        "recall": float(recall_score(labels, predictions, zero_division=0)),
    }


def write(name: str, results: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    """Write metrics/<name>.json and data/predictions/<name>.csv.

    `results` has for each split labels (int), scores (float, higher is more positive) and
    predictions (int), each [reviews].
    """
    tables = []
    metrics: dict[str, Any] = {}
    for split, (labels, values, predictions) in results.items():
        metrics[split] = {
            key: round(value, 6) for key, value in scores(labels, predictions).items()
        }
        columns = {"label": labels, "score": values, "prediction": predictions}
        tables.append(pd.DataFrame({"split": split, "index": np.arange(len(labels)), **columns}))
    with outputs.replacing(PREDICTIONS / f"{name}.csv") as aside:
        # Nine significant digits give a float32 back exactly.
        pd.concat(tables).to_csv(aside, index=False, float_format="%.9g", lineterminator="\n")
    outputs.write_json(SCORES / f"{name}.json", metrics)
