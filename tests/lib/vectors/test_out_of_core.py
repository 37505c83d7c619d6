"""stages.lib.vectors.out_of_core: LinearSVC's hyperplanes without holding the vectors in memory."""

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from stages.lib.vectors import out_of_core

VALUES = [0.001, 0.03, 1.0]


def blobs(labels, rows=4000, dim=24):
    """Make overlapping classes with correlated columns of different scales and a nonzero mean.

    The training rows are sorted by label, as they may be in a file.
    """
    random = np.random.default_rng(0)
    numbers = np.arange(rows) % labels
    centres = random.normal(size=(labels, dim)) * 0.3
    mixing = random.normal(size=(dim, dim)) * np.logspace(0, -2, dim)
    vectors = (centres[numbers] + random.normal(size=(rows, dim))) @ mixing + 5
    train, test = np.arange(rows) % 4 > 0, np.arange(rows) % 4 == 0
    order = np.argsort(numbers[train], kind="stable")
    vectors = vectors.astype(np.float32)
    return vectors[train][order], numbers[train][order], vectors[test], numbers[test]


def in_blocks(vectors, numbers, size=500):
    def blocks():
        for start in range(0, len(numbers), size):
            yield vectors[start : start + size], numbers[start : start + size]

    return blocks


@pytest.mark.parametrize("labels", [2, 3])
def test_it_finds_what_linear_svc_finds(labels):
    vectors, numbers, test, true = blobs(labels)
    scaler, planes = out_of_core.fit(in_blocks(vectors, numbers), VALUES, labels)
    standardized = scaler.transform(test)
    for C, (weights, intercepts) in zip(VALUES, planes, strict=True):
        svm = LinearSVC(C=C, random_state=0, tol=1e-6, max_iter=100_000)
        svm.fit(scaler.transform(vectors), numbers)
        margins = standardized @ weights.T + intercepts
        found = margins.argmax(1) if labels > 2 else (margins[:, 0] > 0).astype(int)
        accuracy = svm.score(standardized, true)
        # Better than chance, but not perfect.
        assert 1.3 / labels < accuracy < 0.99
        assert abs((found == true).mean() - accuracy) < 0.005
        assert weights.shape == svm.coef_.shape
        assert np.allclose(weights, svm.coef_, atol=0.01 * abs(svm.coef_).max())
        assert np.allclose(intercepts, svm.intercept_, atol=0.01)


def test_neither_order_nor_size_of_the_blocks_matters():
    vectors, numbers, *_ = blobs(2)
    order = np.random.default_rng(1).permutation(len(numbers))
    _, one = out_of_core.fit(in_blocks(vectors, numbers), VALUES, 2)
    _, two = out_of_core.fit(in_blocks(vectors[order], numbers[order], 77), VALUES, 2)
    for (first, _), (second, _) in zip(one, two, strict=True):
        assert np.allclose(first, second, atol=1e-3 * abs(first).max())


def test_the_same_data_give_the_same_bytes():
    vectors, numbers, *_ = blobs(3)
    blocks = in_blocks(vectors, numbers)
    once, again = (out_of_core.fit(blocks, VALUES, 3)[1] for _ in range(2))
    for one, two in zip(once, again, strict=True):
        assert [array.tobytes() for array in one] == [array.tobytes() for array in two]


def test_a_column_that_never_changes_does_no_harm():
    vectors, numbers, *_ = blobs(2)
    vectors[:, 3] = 7
    _, [(weights, _)] = out_of_core.fit(in_blocks(vectors, numbers), [0.03], 2)
    assert np.isfinite(weights).all()
    assert abs(weights[0, 3]) < 1e-6


def test_few_passes_suffice_for_all_values_of_c():
    vectors, numbers, *_ = blobs(2)
    passes = []
    blocks = in_blocks(vectors, numbers)

    def counted():
        passes.append(1)
        return blocks()

    out_of_core.fit(counted, VALUES, 2)
    assert len(passes) < 30
