"""The suspected labels as a table, and facts about them."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd

from stages.lib.core import outputs
from stages.lib.core.errors import InputError

PATH = Path("data/label-issues.csv")
_TEXTS = ("text", "label", "suggested_label")
_COLUMNS = ("row", *_TEXTS, "confidence")


class Ratings(TypedDict):
    """How often a human rating contradicts the label: of all training reviews, and of the first
    suspects in the order of the list, by their number.

    {"base_rate": 0.026521, "precision": {"50": 0.18, "100": 0.13}}
    """

    base_rate: float
    precision: dict[str, float]


class LabelIssues(TypedDict):
    """metrics/label-issues.json: training reviews, suspects by label, the out-of-sample accuracy of
    the model that suspects them, and the comparison with ratings where the source has any.

    {"reviews": 8484, "suspects": {"negative": 889, "positive": 945}, "accuracy": 0.718058,
    "ratings": {"base_rate": 0.026521, ...}}
    """

    reviews: int
    suspects: dict[str, int]
    accuracy: float
    ratings: Ratings | None


def write(
    suspects: np.ndarray,
    texts: Sequence[str],
    labels: np.ndarray,
    probabilities: np.ndarray,
    names: Sequence[str],
) -> None:
    """Write data/label-issues.csv, in the order of `suspects`.

    `suspects` are positions in train (int64 [suspects]) and `texts` their texts; `labels` (int64
    [reviews]) and `probabilities` (float64 [reviews, labels]) are those of all reviews. A row has
    the number of the review in train, counted from 1, its label, the most probable label, and the
    confidence, which is the probability of its label.
    """
    given, probable = labels[suspects], probabilities[suspects]
    table = pd.DataFrame(
        {
            "row": suspects + 1,
            "text": texts,
            "label": pd.Categorical.from_codes(given, names),
            "suggested_label": pd.Categorical.from_codes(probable.argmax(-1), names),
            "confidence": probable[np.arange(len(given)), given].round(6),
        }
    )
    with outputs.replacing(PATH) as aside:
        # Without quotes, a carriage return would end a row.
        table.to_csv(
            aside,
            index=False,
            lineterminator="\n",
            quoting=csv.QUOTE_NONNUMERIC,
        )


def read(count: int) -> pd.DataFrame:
    """Read the first `count` rows of data/label-issues.csv; texts and labels are read as text.

    Raises InputError when the file cannot be read or lacks a column.
    """
    try:
        table = pd.read_csv(
            PATH, nrows=count, dtype=dict.fromkeys(_TEXTS, str), keep_default_na=False
        )
    except ValueError as error:
        raise InputError(f"{PATH}: {error}; run the stage that writes it again") from None
    for column in _COLUMNS:
        if column not in table.columns:
            raise InputError(f"{PATH}: no column '{column}'; run the stage that writes it again")
    return table
