"""The statistics of the report, on arrays: intervals, paired tests, calibration."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

LEVEL = 0.95
RESAMPLES = 2000
BINS = 10

Z = 1.959963984540054  # of a two-sided interval at LEVEL


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


@dataclass(frozen=True)
class Pair:
    """Two models on the same reviews; `difference` is the first's accuracy less the second's."""

    only_first: int
    only_second: int
    reviews: int
    p: float
    interval: Interval

    @property
    def difference(self) -> float:
        return (self.only_first - self.only_second) / self.reviews


def wilson(right: int, count: int) -> Interval:
    """Wilson's interval of the share `right` of `count`."""
    low, high = proportion_confint(right, count, alpha=1 - LEVEL, method="wilson")
    return Interval(float(low), float(high))


def confusion_matrix(
    true: Sequence[str], predicted: Sequence[str], labels: Sequence[str]
) -> np.ndarray:
    """Reviews by true and predicted label: int [labels, labels].

    scikit-learn's sorts the texts several times over: seconds where reviews are many.
    """
    places = pd.Index(labels)
    codes = places.get_indexer(true) * len(labels) + places.get_indexer(predicted)
    return np.bincount(codes, minlength=len(labels) ** 2).reshape(len(labels), -1)


def f1(confusion: np.ndarray) -> np.ndarray:
    """F1 of confusion matrices [..., labels, labels] (true, predicted): with two labels that of the
    second, with more the mean over the labels that occur in either; 0 where nothing was right."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1).astype(float)
    total = confusion.sum(-1) + confusion.sum(-2)
    each = np.divide(2 * right, total, out=np.zeros_like(right), where=total > 0)
    if confusion.shape[-1] == 2:
        return each[..., 1]
    return each.sum(-1) / np.maximum((total > 0).sum(-1), 1)


def bootstrap_f1(
    true: Sequence[str], predicted: Sequence[str], labels: Sequence[str], seed: int = 0
) -> Interval:
    """The percentile interval of F1 over RESAMPLES draws of the reviews with replacement.

    What a draw changes is how often each pair of true and predicted label occurs, so the counts are
    drawn: the same distribution, without a loop over the reviews.
    """
    counts = confusion_matrix(true, predicted, labels)
    random = np.random.default_rng(seed)
    drawn = random.multinomial(counts.sum(), counts.ravel() / counts.sum(), size=RESAMPLES)
    values = f1(drawn.reshape(RESAMPLES, *counts.shape))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high))


def compare(first: np.ndarray, second: np.ndarray) -> Pair:
    """Two models by where they are right (bool [reviews], the same reviews).

    p is of McNemar's exact test; the interval of the difference is Agresti and Min's (Wald's after
    half a review is added to each cell), which holds with few reviews too.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    table = [[0, only_first], [only_second, 0]]
    p = float(mcnemar(table, exact=True).pvalue) if only_first + only_second else 1.0
    b, c, n = only_first + 0.5, only_second + 0.5, len(first) + 2
    centre, spread = (b - c) / n, Z * np.sqrt(b + c - (b - c) ** 2 / n) / n
    interval = Interval(float(max(-1, centre - spread)), float(min(1, centre + spread)))
    return Pair(only_first, only_second, len(first), min(p, 1.0), interval)


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, by Holm's method."""
    if not values:
        return []
    return [float(value) for value in multipletests(values, method="holm")[1]]


def reliability(right: np.ndarray, score: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """Bins of about equal numbers of reviews by score: confidence (mean score), accuracy, reviews.

    Fewer bins where many scores are equal, or reviews are few.
    """
    bins = max(1, min(bins, len(score) // 5))
    groups = pd.qcut(score, bins, labels=False, duplicates="drop")
    table = pd.DataFrame({"bin": groups, "score": score, "right": right})
    # All scores equal: no edges, one bin.
    table["bin"] = table["bin"].fillna(0)
    by_bin = table.groupby("bin")
    return pd.DataFrame(
        {
            "confidence": by_bin["score"].mean(),
            "accuracy": by_bin["right"].mean(),
            "reviews": by_bin.size(),
        }
    ).reset_index(drop=True)


def calibration_error(bins: pd.DataFrame) -> float:
    """The expected calibration error: the mean distance of accuracy and confidence over the bins of
    `reliability`, weighted by their reviews."""
    distance = (bins["accuracy"] - bins["confidence"]).abs()
    return float((distance * bins["reviews"]).sum() / bins["reviews"].sum())


def length_bins(lengths: np.ndarray, bins: int = 5) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Bins of about equal numbers of reviews by length: the bin of each (int [reviews]), and each
    bin's shortest and longest. Fewer bins where lengths are few."""
    bins = max(1, min(bins, len(lengths) // 5))
    codes = pd.Series(pd.qcut(lengths, bins, labels=False, duplicates="drop")).fillna(0)
    numbers = np.unique(codes, return_inverse=True)[1]
    ranges = [
        (int(lengths[numbers == number].min()), int(lengths[numbers == number].max()))
        for number in range(numbers.max() + 1)
    ]
    return numbers, ranges
