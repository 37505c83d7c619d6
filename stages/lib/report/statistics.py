"""Statistics of the report, on arrays: intervals, paired tests, calibration."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

LEVEL = 0.95
RESAMPLES = 2000
DRAWS = 10_000
GROUPS = 2_000
BINS = 10
LENGTHS = 5  # bins of reviews by length

Z = norm.ppf((1 + LEVEL) / 2)  # the normal quantile of a two-sided interval


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """The accuracy of a first model minus that of a second, on the same reviews, with its 95%
    interval, and the p-value of no difference."""

    difference: float
    interval: Interval
    p: float


@dataclass(frozen=True)
class Pair(Difference):
    """A difference between two single runs, and the reviews that only one of them gets right."""

    only_first: int
    only_second: int


def wilson(right: int, count: int) -> Interval:
    """Return Wilson's interval of the share `right` / `count`."""
    low, high = proportion_confint(right, count, alpha=1 - LEVEL, method="wilson")
    return Interval(float(low), float(high))


def confusion_matrix(
    true: Sequence[str], predicted: Sequence[str], labels: Sequence[str]
) -> np.ndarray:
    """Count reviews by true and predicted label: int [labels, labels].

    scikit-learn's function sorts the labels' texts several times, which takes seconds when there
    are many reviews.
    """
    places = pd.Index(labels)
    codes = places.get_indexer(true) * len(labels) + places.get_indexer(predicted)
    return np.bincount(codes, minlength=len(labels) ** 2).reshape(len(labels), -1)


def f1(confusion: np.ndarray) -> np.ndarray:
    """Compute F1 from confusion matrices [..., labels, labels] (true, predicted).

    With two labels it is the F1 of the second; with more, the mean over the labels that occur as a
    true or predicted label. It is 0 where no prediction is right.
    """
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _f1(right, confusion.sum(-1) + confusion.sum(-2))


def _f1(right: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Compute F1 from how often each label is predicted rightly, and how often it is a true or a
    predicted label: int [..., labels] each."""
    each = np.divide(2 * right, total, out=np.zeros(right.shape), where=total > 0)
    if right.shape[-1] == 2:
        return each[..., 1]
    return each.sum(-1) / np.maximum((total > 0).sum(-1), 1)


def bootstrap_f1(true: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> Interval:
    """Return the percentile interval of F1 over RESAMPLES bootstrap resamples of the reviews.

    A resample only changes how often each pair of true and predicted label occurs, so the counts
    are drawn from a multinomial distribution: the same result without a loop over the reviews. Only
    pairs that occur are drawn, because all pairs of many labels would take too much memory.
    """
    counts = confusion_matrix(true, predicted, labels)
    rows, columns = np.nonzero(counts)
    shares = counts[rows, columns] / counts.sum()
    random = np.random.default_rng(0)
    drawn = random.multinomial(counts.sum(), shares, size=RESAMPLES)
    numbers = np.arange(len(labels))
    is_true, is_predicted = rows[:, None] == numbers, columns[:, None] == numbers
    right = drawn @ (is_true & is_predicted)
    return percentiles(_f1(right, drawn @ (is_true.astype(int) + is_predicted)))


def compare(first: np.ndarray, second: np.ndarray) -> Pair:
    """Compare two models by which of the same reviews they get right (bool [reviews] each).

    p is from McNemar's exact test; the interval of the difference is Agresti and Min's (Wald's with
    half a review added to each cell), which is valid with few reviews too.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    table = [[0, only_first], [only_second, 0]]
    p = float(mcnemar(table, exact=True).pvalue) if only_first + only_second else 1.0
    b, c, n = only_first + 0.5, only_second + 0.5, len(first) + 2
    centre, spread = (b - c) / n, Z * np.sqrt(b + c - (b - c) ** 2 / n) / n
    interval = Interval(float(max(-1, centre - spread)), float(min(1, centre + spread)))
    return Pair(
        difference=(only_first - only_second) / len(first),
        interval=interval,
        p=min(p, 1.0),
        only_first=only_first,
        only_second=only_second,
    )


def draw_accuracies(runs: Sequence[np.ndarray], seed: int = 0) -> np.ndarray:
    """Draw the accuracies of models by a hierarchical bootstrap: float [DRAWS, models].

    `runs` has, for each model, which of the same reviews each of its seeds gets right: bool
    [seeds, reviews]. Each draw resamples the reviews, the same for all models, and the seeds of
    each model, one fewer than there are: as many would understate the spread between few seeds (Rao
    and Wu, 1988). One seed is kept as it is.

    As in the interval of `compare`, half a review is added to the reviews that only one model of a
    pair gets right, so that few reviews on which models agree do not pass for certainty. More than
    GROUPS reviews are resampled in GROUPS random groups, which gives the same spread.
    """
    random = np.random.default_rng(seed)
    models, count = len(runs), runs[0].shape[1]
    owner = np.repeat(np.arange(models), [len(of_model) for of_model in runs])
    groups = min(count, GROUPS)
    starts = np.arange(groups) * count // groups
    right = np.concatenate(runs)[:, random.permutation(count)]
    # Each model also has a quarter of a review that it alone gets right, and one that it alone gets
    # wrong: for a pair, that is half a review each way.
    alone = owner[:, None] == np.arange(models)
    sums = np.hstack([np.add.reduceat(right, starts, axis=1, dtype=float), alone, ~alone])
    sizes = np.append(np.diff(starts, append=count), np.ones(2 * models))
    tickets = np.append(np.repeat(np.arange(groups), 4), groups + np.arange(2 * models))

    drawn = []
    block = 500  # draws at a time, so that memory does not grow with their number
    rows = np.arange(block)[:, None] * len(sizes)
    for _ in range(DRAWS // block):
        cells = tickets[random.integers(len(tickets), size=(block, groups))] + rows
        weights = np.bincount(cells.ravel(), minlength=block * len(sizes)).reshape(block, -1)
        accuracies = (weights @ sums.T) / (weights @ sizes)[:, None]
        by_model = []
        for number, of_model in enumerate(runs):
            mine, seeds = accuracies[:, owner == number], len(of_model)
            chosen = random.multinomial(max(1, seeds - 1), np.full(seeds, 1 / seeds), size=block)
            by_model.append((mine * chosen).sum(1) / chosen.sum(1))
        drawn.append(np.stack(by_model, axis=1))
    return np.concatenate(drawn)


def percentiles(values: np.ndarray) -> Interval:
    """Return the percentile interval of bootstrap draws."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high))


def difference(first: np.ndarray, second: np.ndarray, observed: float) -> Difference:
    """Compare two models by their draws (float [draws]); `observed` is the difference in the data.

    p is twice the smaller share of draws on either side of zero, where zero counts as both.
    """
    drawn = first - second
    below, above = int((drawn <= 0).sum()), int((drawn >= 0).sum())
    p = 2 * (min(below, above) + 1) / (len(drawn) + 1)
    return Difference(observed, percentiles(drawn), min(p, 1.0))


def holm(values: Sequence[float]) -> list[float]:
    """Correct p-values for multiple comparisons by Holm's method."""
    if not values:
        return []
    return [float(value) for value in multipletests(values, method="holm")[1]]


def reliability(right: np.ndarray, score: np.ndarray) -> pd.DataFrame:
    """Bin reviews by score into bins of about equal size.

    `right` is bool [reviews] and `score` float [reviews]. The result has a row per bin: confidence
    (mean score), accuracy and reviews (their number). There are fewer bins when many scores are
    equal or reviews are few.
    """
    bins = max(1, min(BINS, len(score) // 5))
    groups = pd.qcut(score, bins, labels=False, duplicates="drop")
    table = pd.DataFrame({"bin": groups, "score": score, "right": right})
    # When all scores are equal, qcut finds no edges: they form one bin.
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
    """Compute the expected calibration error from the bins of `reliability`.

    It is the mean absolute difference between accuracy and confidence over the bins, weighted by
    their numbers of reviews.
    """
    distance = (bins["accuracy"] - bins["confidence"]).abs()
    return float((distance * bins["reviews"]).sum() / bins["reviews"].sum())


def length_bins(lengths: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Bin reviews by length into bins of about equal size.

    Returns the bin of each review (int [reviews]), and the shortest and longest length of each bin.
    There are fewer bins when there are few different lengths or few reviews.
    """
    bins = max(1, min(LENGTHS, len(lengths) // 5))
    codes = pd.Series(pd.qcut(lengths, bins, labels=False, duplicates="drop")).fillna(0)
    numbers = np.unique(codes, return_inverse=True)[1]
    ranges = [
        (int(lengths[numbers == number].min()), int(lengths[numbers == number].max()))
        for number in range(numbers.max() + 1)
    ]
    return numbers, ranges
