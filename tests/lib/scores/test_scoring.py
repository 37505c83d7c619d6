"""stages.lib.scores.scoring: the same JSON and the same table for every model."""

import json

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


def test_files_have_every_review_and_both_splits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    probabilities = np.array([[0.9, 0.1], [2 / 3, 1 / 3]], np.float32)
    split = (np.array([0, 1]), probabilities)
    scoring.write("model", ["bad", "good"], {"validation": split, "test": split})
    metrics = json.loads((tmp_path / "metrics/model.json").read_text())
    assert metrics["test"] == {"accuracy": 0.5, "f1": 0.0, "precision": 0.0, "recall": 0.0}
    assert list(metrics) == ["validation", "test"]
    table = pd.read_csv(tmp_path / "data/predictions/model.csv")
    assert list(table.columns) == ["split", "index", "label", "prediction", "score"]
    assert table["split"].tolist() == ["validation"] * 2 + ["test"] * 2
    assert table["index"].tolist() == [0, 1, 0, 1]
    assert table["label"].tolist()[:2] == ["bad", "good"]
    assert table["prediction"].tolist()[:2] == ["bad", "bad"]
    assert np.array_equal(table["score"].to_numpy(np.float32)[:2], probabilities[:, 0])
