"""stages.lib.scores.scoring: the same scores for every model."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.lib.scores import scoring

PAIRS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1)


@given(PAIRS)
def test_scores_are_those_of_the_definitions(pairs):
    labels, predictions = map(np.array, zip(*pairs, strict=True))
    true = sum((labels == 1) & (predictions == 1))
    wrong = sum(labels != predictions)
    found = scoring.scores(labels, predictions, classes=2)
    assert found["accuracy"] == pytest.approx((labels == predictions).mean())
    assert found["f1"] == pytest.approx(2 * true / (2 * true + wrong) if true else 0)
    assert found["precision"] == pytest.approx(true / max(1, sum(predictions)))
    assert found["recall"] == pytest.approx(true / max(1, sum(labels)))


def test_more_than_two_classes_are_averaged():
    found = scoring.scores(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 1]), classes=3)
    assert found["accuracy"] == 0.75
    assert found["f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert found["recall"] == pytest.approx((1 + 1 + 1 / 2) / 3)


def test_every_split_is_scored_with_the_second_label_as_the_positive_one():
    rows = pd.DataFrame(
        {
            "split": ["validation"] * 3 + ["test"] * 2,
            "label": ["good", "good", "bad", "good", "bad"],
            "prediction": ["good", "bad", "bad", "bad", "bad"],
        }
    )
    found = scoring.of_predictions(rows, ["good", "bad"])
    assert list(found) == ["validation", "test"]
    assert found["validation"] == {
        "accuracy": 0.666667, "f1": 0.666667, "precision": 0.5, "recall": 1.0,
    }  # fmt: skip
    assert found["test"]["precision"] == 0.5
