"""Out-of-sample probabilities: whom a model has seen, what it can judge, what it costs."""

import numpy as np
import pytest

from stages.lib.labels import crossvalidation


def features(labels, distance, dim=8, seed=0):
    """Return a function that yields vectors around one centre per label, in blocks."""
    random = np.random.default_rng(seed)
    centres = distance * np.eye(labels.max() + 1, dim)
    vectors = (random.standard_normal((len(labels), dim)) + centres[labels]).astype(np.float32)

    def blocks():
        for start in range(0, len(labels), 37):
            yield vectors[start : start + 37], labels[start : start + 37]

    return blocks


def different(count):
    return np.arange(count, dtype=np.uint64)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_each_label_is_spread_over_all_folds(classes):
    labels = np.arange(350) % classes
    fold = crossvalidation.folds(different(350), labels)
    counts = np.array([np.bincount(fold[labels == label]) for label in range(classes)])
    assert counts.shape == (classes, crossvalidation.FOLDS)
    assert counts.max() - counts.min() <= 1


def test_copies_of_a_text_are_in_one_fold_whatever_their_labels():
    texts = different(60) % 20
    labels = np.random.default_rng(0).integers(0, 2, 60)
    fold = crossvalidation.folds(texts, labels)
    assert all(len(set(fold[texts == text])) == 1 for text in range(20))


def test_no_review_is_predicted_by_a_model_that_was_fitted_on_it():
    """With more dimensions than reviews, a model knows those that it was fitted on by heart."""
    labels = np.random.default_rng(1).integers(0, 2, 200)
    blocks = features(labels, distance=0, dim=400)
    fold = crossvalidation.folds(different(200), labels)
    found = crossvalidation.probabilities(blocks, labels, fold, 2)
    assert 0.35 < (found.argmax(1) == labels).mean() < 0.65


@pytest.mark.parametrize("classes", [2, 5])
def test_labels_that_the_vectors_show_are_predicted(classes):
    labels = np.arange(300) % classes
    fold = crossvalidation.folds(different(300), labels)
    found = crossvalidation.probabilities(features(labels, 6), labels, fold, classes)
    assert found.shape == (300, classes)
    assert np.allclose(found.sum(1), 1)
    assert (found.argmax(1) == labels).mean() > 0.95


def test_a_label_of_two_reviews_is_judged_by_the_other_one():
    labels = np.array([0, 1] * 31 + [2, 2])
    fold = crossvalidation.folds(different(64), labels)
    assert fold[-1] != fold[-2]
    found = crossvalidation.probabilities(features(labels, 6), labels, fold, 3)
    assert np.all((found[-2:, 2] > 0) & (found[-2:, 2] < 1))


def test_a_label_that_is_in_one_fold_alone_counts_as_right():
    labels = np.array([0, 1] * 31 + [2, 2])
    texts = different(64)
    texts[-1] = texts[-2]
    found = crossvalidation.probabilities(
        features(labels, 6), labels, crossvalidation.folds(texts, labels), 3
    )
    assert found[-2:].tolist() == [[0, 0, 1]] * 2
    assert np.allclose(found.sum(1), 1)


@pytest.mark.parametrize(
    ("texts", "labels"),
    [([1, 1, 2, 2], [0, 0, 1, 1]), ([1, 2, 3, 3], [0, 0, 1, 1]), ([1, 2, 1, 2], [0, 0, 1, 1])],
)
def test_four_reviews_are_no_error(texts, labels):
    labels = np.array(labels)
    fold = crossvalidation.folds(np.array(texts, np.uint64), labels)
    found = crossvalidation.probabilities(features(labels, 6), labels, fold, 2)
    assert np.allclose(found.sum(1), 1)


def test_of_many_reviews_a_sample_is_fitted_and_all_are_predicted(monkeypatch):
    monkeypatch.setattr(crossvalidation, "LARGEST", 100)
    fitted = []
    fit = crossvalidation.LogisticRegression.fit

    def spy(model, vectors, labels):
        fitted.append(np.bincount(labels))
        return fit(model, vectors, labels)

    monkeypatch.setattr(crossvalidation.LogisticRegression, "fit", spy)
    labels = np.array([0, 0, 0, 1] * 250)
    fold = crossvalidation.folds(different(1000), labels)
    found = crossvalidation.probabilities(features(labels, 6), labels, fold, 2)
    assert len(fitted) == crossvalidation.FOLDS
    assert sum(counts.sum() for counts in fitted) == 100 * (crossvalidation.FOLDS - 1)
    assert sum(counts[1] for counts in fitted) == 25 * (crossvalidation.FOLDS - 1)
    assert (found.argmax(1) == labels).mean() > 0.95
