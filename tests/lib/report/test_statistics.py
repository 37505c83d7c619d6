"""Intervals, tests and calibration, compared with values computed in another way."""

import itertools
import math

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, f1_score

from stages.lib.report import statistics


def test_wilsons_interval_is_the_formulas():
    """(p + z²/2n ± z·sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)."""
    right, n, z = 81, 263, 1.959964
    p = right / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    interval = statistics.wilson(right, n)
    assert interval.low == pytest.approx(centre - half, abs=1e-6)
    assert interval.high == pytest.approx(centre + half, abs=1e-6)


@pytest.mark.parametrize("right", [0, 5])
def test_wilsons_interval_stays_within_shares(right):
    interval = statistics.wilson(right, 5)
    assert 0 <= interval.low < interval.high <= 1


@pytest.mark.parametrize(("b", "c"), [(10, 2), (3, 3), (0, 6), (7, 0), (1, 0), (0, 0)])
def test_mcnemars_p_is_twice_the_tail_of_a_fair_coin(b, c):
    first = np.array([True] * b + [False] * c + [True, False])
    second = np.array([False] * b + [True] * c + [True, False])
    pair = statistics.compare(first, second)
    tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
    assert pair.p == pytest.approx(min(1, 2 * tail))
    assert (pair.only_first, pair.only_second) == (b, c)
    assert pair.difference == pytest.approx((b - c) / (b + c + 2))
    assert pair.interval.low <= pair.difference <= pair.interval.high


def test_the_interval_of_a_difference_covers_it_as_often_as_it_says():
    random = np.random.default_rng(0)
    # The shares of: both right, only the first right, only the second right, both wrong.
    shares, truth, hits, draws = [0.6, 0.16, 0.08, 0.16], 0.08, 0, 2000
    for counts in random.multinomial(300, shares, size=draws):
        first = np.repeat([True, True, False, False], counts)
        second = np.repeat([True, False, True, False], counts)
        interval = statistics.compare(first, second).interval
        hits += interval.low <= truth <= interval.high
    assert hits / draws == pytest.approx(0.95, abs=0.015)


def test_holm_multiplies_the_smallest_by_all_and_never_falls():
    assert statistics.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert statistics.holm([0.5, 0.9]) == [1.0, 1.0]
    assert statistics.holm([]) == []


@pytest.mark.parametrize("labels", [2, 3, 5])
def test_f1_is_scikit_learns(labels):
    random = np.random.default_rng(labels)
    true, predicted = random.integers(0, labels, (2, 200))
    predicted[predicted == labels - 1] = 0 if labels > 2 else 1
    expected = f1_score(
        true, predicted, average="binary" if labels == 2 else "macro", zero_division=0
    )
    counts = confusion_matrix(true, predicted, labels=range(labels))
    assert statistics.f1(counts) == pytest.approx(expected)


def test_the_bootstrap_agrees_with_drawing_reviews_one_by_one():
    random = np.random.default_rng(1)
    true = random.integers(0, 2, 300)
    predicted = np.where(random.random(300) < 0.8, true, 1 - true)
    names = np.array(["no", "yes"])
    found = statistics.bootstrap_f1(names[true], names[predicted], ["no", "yes"])
    values = []
    for _ in range(1000):
        rows = random.integers(0, 300, 300)
        values.append(f1_score(true[rows], predicted[rows]))
    assert [found.low, found.high] == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.01)
    assert found == statistics.bootstrap_f1(names[true], names[predicted], ["no", "yes"])


def test_reliability_is_scikit_learns_and_counts_the_reviews():
    random = np.random.default_rng(2)
    score = random.uniform(0.5, 1, 500)
    right = random.random(500) < score
    bins = statistics.reliability(right, score)
    accuracy, confidence = calibration_curve(right, score, n_bins=10, strategy="quantile")
    assert bins["accuracy"].to_numpy() == pytest.approx(accuracy)
    assert bins["confidence"].to_numpy() == pytest.approx(confidence)
    assert bins["reviews"].sum() == 500


def test_the_calibration_error_is_the_mean_distance_weighted_by_reviews():
    right = np.array([True] * 5 + [True, False, False, False, False])
    score = np.array([0.9] * 5 + [0.6] * 5)
    bins = statistics.reliability(right, score)
    assert list(bins["reviews"]) == [5, 5]
    assert statistics.calibration_error(bins) == pytest.approx((5 * 0.4 + 5 * 0.1) / 10)


@pytest.mark.parametrize("count", [1, 3, 24])
def test_few_or_equal_scores_make_fewer_bins(count):
    bins = statistics.reliability(np.ones(count, bool), np.full(count, 0.75))
    assert bins["reviews"].sum() == count
    assert statistics.calibration_error(bins) == pytest.approx(0.25)


@pytest.mark.parametrize("lengths", [[3] * 24, [1, 2], list(range(1, 101)), [1] * 90 + [9] * 10])
def test_bins_of_length_part_the_reviews(lengths):
    lengths = np.array(lengths)
    numbers, ranges = statistics.length_bins(lengths)
    assert len(ranges) <= 5
    for (_, high), (low, _) in itertools.pairwise(ranges):
        assert high < low
    for number, (low, high) in enumerate(ranges):
        assert lengths[numbers == number].min() == low
        assert lengths[numbers == number].max() == high
    assert set(numbers) == set(range(len(ranges)))


def test_draws_spread_as_seeds_and_reviews_do():
    """The variance of a mean over seeds on a sample of reviews is the sum of both parts."""
    random = np.random.default_rng(3)
    right = random.random((3, 400)) < random.random(400)  # reviews are easy or hard for all seeds
    right[0, :100] = False
    right[2, :100] = True
    (draws,) = statistics.draw_accuracies([right]).T
    of_reviews = right.mean(0).var() / 400
    of_seeds = right.mean(1).var(ddof=1) / 3
    assert draws.mean() == pytest.approx(right.mean(), abs=0.002)
    assert draws.var() == pytest.approx(of_reviews + of_seeds, rel=0.15)
    assert of_seeds > 3 * of_reviews


def test_the_interval_of_draws_covers_the_truth_as_often_as_it_says(monkeypatch):
    monkeypatch.setattr(statistics, "DRAWS", 1_000)
    random = np.random.default_rng(4)
    hits, tries = 0, 300
    for _ in range(tries):
        # Two models with the same expected accuracy, whose seeds differ by 2 points.
        easy = random.normal(0.8, 0.15, 300)
        runs = [
            random.random((5, 300)) < np.clip(easy + random.normal(0, 0.02, (5, 1)), 0, 1)
            for _ in range(2)
        ]
        first, second = statistics.draw_accuracies(runs, int(random.integers(2**32))).T
        interval = statistics.difference(first, second, 0.0).interval
        hits += interval.low <= 0 <= interval.high
    assert 0.90 < hits / tries <= 0.99


def test_with_one_seed_draws_agree_with_agresti_and_min():
    random = np.random.default_rng(5)
    for count in (30, 1000):
        first, second = random.random((2, count)) < [[0.9], [0.8]]
        found = statistics.compare(first, second)
        one, two = statistics.draw_accuracies([first[None], second[None]]).T
        drawn = statistics.difference(one, two, found.difference)
        tolerance = 0.1 * (found.interval.high - found.interval.low)
        assert drawn.interval.low == pytest.approx(found.interval.low, abs=tolerance)
        assert drawn.interval.high == pytest.approx(found.interval.high, abs=tolerance)


def test_groups_of_many_reviews_spread_as_the_reviews_do():
    """Reviews that are sorted by label must not make groups of one label."""
    random = np.random.default_rng(6)
    right = np.sort(random.random(20_000) < 0.8)
    (draws,) = statistics.draw_accuracies([right[None]]).T
    assert draws.std() == pytest.approx(math.sqrt(0.8 * 0.2 / 20_000), rel=0.06)


def test_the_p_of_draws_is_twice_the_share_on_the_other_side():
    drawn = np.repeat([0.1, -0.1, 0.0], [890, 9, 100])
    found = statistics.difference(drawn, np.zeros(999), 0.08)
    assert found.p == pytest.approx(2 * (109 + 1) / 1000)
    assert found.difference == 0.08
    assert statistics.difference(np.zeros(9), np.zeros(9), 0.0).p == 1.0
    swapped = statistics.difference(np.zeros(999), drawn, -0.08)
    assert swapped.p == found.p
    assert swapped.interval.low == -found.interval.high
