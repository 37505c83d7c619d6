"""The predictions of a model on validation and test, in the same table for every model."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from stages.lib.core import outputs
from stages.lib.core.errors import InputError
from stages.lib.core.paths import PREDICTIONS

_COLUMNS = ("split", "index", "label", "prediction", "score")


def write(
    name: str, labels: Sequence[str], results: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    """Write data/predictions/<name>.csv.

    `results` has the true labels (int [reviews]) and the probabilities (float [reviews, labels]) of
    each split; `labels` are the label names. A row has the names of the true and the most probable
    label, and the score, which is the probability of the latter.
    """
    with outputs.replacing(PREDICTIONS / f"{name}.csv") as aside:
        for number, (split, (true, probabilities)) in enumerate(results.items()):
            # Categorical codes take less memory than one Python object per row.
            table = pd.DataFrame(
                {
                    "split": pd.Categorical.from_codes(np.zeros(len(true), np.int8), [split]),
                    "index": np.arange(len(true)),
                    "label": pd.Categorical.from_codes(true, labels),
                    "prediction": pd.Categorical.from_codes(probabilities.argmax(-1), labels),
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


def read(name: str) -> pd.DataFrame:
    """Read the rows of data/predictions/<name>.csv; labels are read as text, whatever they are.

    Raises InputError when the file cannot be read or lacks a column.
    """
    path = PREDICTIONS / f"{name}.csv"
    try:
        table = pd.read_csv(path, dtype={"label": str, "prediction": str}, keep_default_na=False)
    except ValueError as error:
        raise InputError(f"{path}: {error}; run the stage that writes it again") from None
    for column in _COLUMNS:
        if column not in table.columns:
            raise InputError(f"{path}: no column '{column}'; run the stage that writes it again")
    return table
