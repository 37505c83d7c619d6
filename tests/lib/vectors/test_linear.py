"""stages.lib.vectors.linear: the SVM as arrays."""

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from stages.lib.vectors import linear


def fitted(classes):
    vectors, labels = make_blobs(90, 4, centers=classes, cluster_std=6, random_state=0)
    model = make_pipeline(StandardScaler(), LinearSVC(random_state=0)).fit(vectors, labels)
    scaler, svm = model
    fit = linear.Linear(scaler.mean_, scaler.scale_, svm.coef_, svm.intercept_, 0.5)
    return model, fit, vectors


@pytest.mark.parametrize("classes", [2, 3])
def test_the_most_probable_label_is_the_svms_own(classes):
    model, fit, vectors = fitted(classes)
    probabilities = fit.probabilities(vectors)
    assert probabilities.shape == (90, classes)
    assert np.allclose(probabilities.sum(1), 1)
    assert np.array_equal(probabilities.argmax(1), model.predict(vectors))


def test_two_labels_have_the_logistic_of_the_margin():
    margins = np.array([-1.0, 0.0, 2.0])
    expected = 1 / (1 + np.exp(-margins / 0.5))
    assert np.allclose(linear.probabilities(margins, 0.5)[:, 1], expected)


@pytest.mark.parametrize("classes", [2, 3])
def test_what_is_saved_is_loaded(tmp_path, classes):
    _, fit, vectors = fitted(classes)
    fit.save(tmp_path, [f"c{number}" for number in range(classes)], C=0.1)
    again, labels = linear.load(tmp_path)
    assert labels == ["c0", "c1", "c2"][:classes]
    assert np.array_equal(again.probabilities(vectors), fit.probabilities(vectors))
