"""The user's own reviews through the whole DAG: columns, labels and files of various kinds."""

import csv
import json
from collections import Counter

import numpy as np
import pytest
from conftest import ROOT, WORDS, Project, use_small_data
from sklearn.metrics import f1_score
from test_dag import MODELS, stages_run
from test_declarations import NAMES

OPINIONS = {
    "mixed": ["not", "very"],
    "negative": ["dull", "tedious"],
    "positive": ["great", "witty"],
}
LABELS = list(OPINIONS)
SPLITS = ("train", "validation", "test")
COMMAND = (
    "dvc exp run -S dataset.path=my_reviews/ "
    "-S dataset.text_column=review -S dataset.label_column=sentiment"
)


def write_jsonl(path, size):
    """Reviews in which two words determine the label, with columns named as people name them."""
    random = np.random.default_rng(0)
    lines = []
    for number in range(size):
        label = LABELS[number % 3]
        words = [*random.choice(WORDS[:4], 3 + number % 4), *random.choice(OPINIONS[label], 2)]
        row = {"id": number, "review": " ".join(random.permutation(words)), "sentiment": label}
        lines.append(json.dumps(row))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def own(miniature, tmp_path_factory):
    """A project after the README's command, on a folder with a train file of three labels."""
    project = Project(tmp_path_factory.mktemp("own") / "project")
    use_small_data(project, "local/reviews", miniature)
    write_jsonl(project.path / "my_reviews/train.jsonl", 150)
    project.first = project.run(*COMMAND.split())
    return project


@pytest.fixture
def after_own(own, tmp_path):
    return own.copy(tmp_path / "after")


def predictions(project, name):
    with (project.path / f"data/predictions/{name}.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["split"] == "test"]


def test_all_stages_run_and_then_none(own):
    assert set(stages_run(own.first)) == set(NAMES)
    assert stages_run(own.dvc("repro")) == []


def test_the_command_is_that_of_the_readme():
    assert f"$ {COMMAND}\n" in (ROOT / "README.md").read_text()


def test_the_split_and_the_labels_are_told_and_recorded(own):
    told = "validation and test split off here: 80/10/10, stratified by label, dataset.split_seed 0"
    assert f"note: reviews: {told}\n" in own.first.stderr
    facts = own.read("metrics/download.json")
    about = own.read("data/raw/about.json")
    assert facts["reviews"]["split"] == about["reviews"]["split"] == told
    assert facts["reviews"]["labels"] == {label: label for label in LABELS}
    assert about["labels"] == LABELS
    counts = [facts[split]["labels"] for split in SPLITS]
    assert counts == [dict.fromkeys(LABELS, count) for count in (40, 5, 5)]


@pytest.mark.parametrize("name", MODELS)
def test_f1_is_the_mean_over_the_labels_that_the_predictions_name(own, name):
    rows = predictions(own, name)
    true, predicted = ([row[key] for row in rows] for key in ("label", "prediction"))
    assert Counter(true) == dict.fromkeys(LABELS, 5)
    assert set(predicted) <= set(LABELS)
    expected = f1_score(true, predicted, average="macro")
    assert own.read(f"metrics/{name}.json")["test"]["f1"] == pytest.approx(expected, abs=1e-6)
    assert all(1 / 3 <= float(row["score"]) <= 1 for row in rows)


def test_the_svm_learns_what_two_words_say(own):
    assert own.read("metrics/svm.json")["test"]["accuracy"] > 0.6


@pytest.mark.parametrize("name", ["finetune-head", "finetune-full"])
def test_a_model_knows_its_labels(own, name):
    config = own.read(f"data/models/{name}/config.json")
    assert config["id2label"] == {str(number): label for number, label in enumerate(LABELS)}


def test_the_report_counts_each_label(own):
    text = (own.path / "metrics/report.md").read_text()
    for label in LABELS:
        assert label in text


def test_the_confusion_matrix_is_of_all_labels(own, tmp_path):
    shown = own.dvc("plots", "show", "--json", "--split", "--out", str(tmp_path / "plots")).stdout
    (plot,) = json.loads(shown)["data"]["Confusion"]
    points = plot["anchor_definitions"]["<DVC_METRIC_DATA>"]
    counts = Counter()
    for point in points:
        if point["model"] == "finetune-full":
            counts[point["label"]] += int(point["reviews"])
    assert counts == dict.fromkeys(LABELS, 5)


def test_one_file_is_split_as_the_folders_train_file_and_a_change_runs_the_dag(after_own):
    folder = after_own.path / "my_reviews"
    before = [(after_own.path / f"data/raw/{split}.parquet").read_bytes() for split in SPLITS]
    file = folder.rename(after_own.path / "folder") / "train.jsonl"
    file = file.rename(after_own.path / "my_reviews.jsonl")
    done = after_own.dvc("exp", "run", "download", "-S", "dataset.path=my_reviews.jsonl")
    assert stages_run(done) == ["download"]
    after = [(after_own.path / f"data/raw/{split}.parquet").read_bytes() for split in SPLITS]
    assert after == before
    assert stages_run(after_own.dvc("repro", "download")) == []
    with file.open("a") as lines:
        lines.write('{"review": "it is a very witty film", "sentiment": "positive"}\n')
    assert "my_reviews.jsonl" in after_own.dvc("status", "download").stdout
    assert stages_run(after_own.dvc("repro", "download")) == ["download"]
    facts = after_own.read("metrics/download.json")
    assert sum(facts[split]["labels"]["positive"] for split in SPLITS) == 51


def test_a_subset_has_all_labels(after_own):
    after_own.set(dataset__subset=12)
    after_own.dvc("repro", "download")
    facts = after_own.read("metrics/download.json")
    assert [facts[split]["labels"] for split in SPLITS] == [dict.fromkeys(LABELS, 4)] * 3
    after_own.set(dataset__subset=5)
    done = after_own.dvc("repro", "download", check=False)
    assert "dataset.subset: 5 is wrong: it should be at least 6, for 3 labels" in done.stderr


def test_a_wrong_label_is_named_with_file_and_row(after_own):
    write_jsonl(after_own.path / "my_reviews/test.jsonl", 30)
    with (after_own.path / "my_reviews/test.jsonl").open("a") as lines:
        lines.write('{"review": "so so", "sentiment": "neutral"}\n')
    done = after_own.dvc("repro", "download", check=False)
    assert (
        "error: download: my_reviews/test.jsonl: row 31: label is 'neutral', which train lacks; it "
        "has mixed, negative, positive"
    ) in done.stderr
