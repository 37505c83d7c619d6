"""Facts about the reviews: how many, how long, how balanced, what is there twice."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from stages.lib.reviews import Splits
from stages.lib.splits import SPLITS

PERCENTILES = (5, 50, 95, 100)


def describe(splits: Splits, labels: Sequence[str]) -> dict[str, Any]:
    """Facts by split, `labels` counted by name, and exact duplicates within and across splits.

    Lengths are in words; tokens are counted by the tokenize stage.
    """
    texts = {name: splits[name]["text"].to_pylist() for name in SPLITS}
    return {
        name: _describe_split(texts[name], splits[name]["label"].to_numpy(), labels)
        for name in SPLITS
    } | {
        "duplicates_across_splits": {
            f"{first}_{second}": len(set(texts[first]) & set(texts[second]))
            for first, second in (
                ("train", "validation"),
                ("train", "test"),
                ("validation", "test"),
            )
        }
    }


def _describe_split(texts: list[str], numbers: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    return {
        "reviews": len(texts),
        "labels": {name: int((numbers == number).sum()) for number, name in enumerate(labels)},
        "words": distribution([len(text.split()) for text in texts]),
        "duplicates": sum(count - 1 for count in Counter(texts).values()),
        "empty": sum(not text.strip() for text in texts),
    }


def distribution(lengths: Sequence[int] | np.ndarray) -> dict[str, float]:
    """Mean and percentiles, rounded to two decimals."""
    percentiles = np.percentile(lengths, PERCENTILES)
    return {
        "mean": round(float(np.mean(lengths)), 2),
        **{f"p{p}": round(float(v), 2) for p, v in zip(PERCENTILES, percentiles, strict=True)},
    }
