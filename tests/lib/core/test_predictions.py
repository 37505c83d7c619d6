"""stages.lib.core.predictions: the same table for every model."""

import numpy as np
import pytest

from stages.lib.core import predictions
from stages.lib.core.errors import InputError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data/predictions/model.csv"


def test_the_table_has_every_review_of_both_splits(here):
    probabilities = np.array([[0.9, 0.1], [2 / 3, 1 / 3]], np.float32)
    split = (np.array([0, 1]), probabilities)
    predictions.write("model", ["bad", "NA"], {"validation": split, "test": split})
    table = predictions.read("model")
    assert list(table.columns) == ["split", "index", "label", "prediction", "score"]
    assert table["split"].tolist() == ["validation"] * 2 + ["test"] * 2
    assert table["index"].tolist() == [0, 1, 0, 1]
    assert table["label"].tolist()[:2] == ["bad", "NA"]
    assert table["prediction"].tolist()[:2] == ["bad", "bad"]
    assert np.array_equal(table["score"].to_numpy(np.float32)[:2], probabilities[:, 0])


@pytest.mark.parametrize(
    ("content", "reason"), [("", "No columns"), ("split,index,label\n", "no column 'prediction'")]
)
def test_a_broken_table_is_named(here, content, reason):
    here.parent.mkdir(parents=True)
    here.write_text(content)
    with pytest.raises(InputError, match=f"data/predictions/model.csv: {reason}"):
        predictions.read("model")
