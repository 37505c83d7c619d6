"""The whole DAG through DVC, on a miniature backbone: what users do with it."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from conftest import run_here
from soak import forget
from test_declarations import NAMES

from stages.lib.models import registry

SCORES = ["accuracy", "f1"]
MODELS = list(registry.names())


def stages_run(done):
    return re.findall(r"Running stage '(.+)'", done.stdout)


def snapshot(project):
    """Return the bytes of every output, by path."""
    return {
        str(path.relative_to(project.path)): path.read_bytes()
        for folder in ("data", "metrics")
        for path in sorted((project.path / folder).rglob("*"))
        if path.is_file()
    }


def results(project):
    """Return the bytes that the inputs determine: all but costs and the report, which has costs."""
    return {
        path: content
        for path, content in snapshot(project).items()
        if not path.startswith(("metrics/costs", "metrics/report"))
    }


def test_all_stages_ran_and_nothing_is_left_to_do(ran):
    assert set(ran.read("dvc.lock")["stages"]) == set(NAMES)
    assert ran.dvc("status").stdout.strip() == "Data and pipelines are up to date."
    done = ran.dvc("repro")
    assert stages_run(done) == []
    assert ran.git("status", "--porcelain") == ""


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_scores_costs_and_predictions(ran, name):
    scores = ran.read(f"metrics/{name}.json")
    assert list(scores) == ["validation", "test"]
    for split in scores.values():
        assert list(split) == SCORES
    costs = ran.read(f"metrics/costs/{name}.json")
    assert {"trainable_parameters", "seconds", "samples_per_second", "peak_memory_mb"} <= set(costs)
    assert {"size_bytes", "precision", "device"} <= set(costs)
    with (ran.path / f"data/predictions/{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 48
    test = [row for row in rows if row["split"] == "test"]
    right = sum(row["label"] == row["prediction"] for row in test) / len(test)
    assert right == pytest.approx(scores["test"]["accuracy"], abs=1e-6)


@pytest.mark.precision
def test_the_svm_learns_what_two_words_say(ran):
    """The SVM beats chance even on vectors of a backbone with random weights."""
    assert ran.read("metrics/svm.json")["test"]["accuracy"] > 0.7


@pytest.mark.precision
def test_the_same_again_elsewhere_is_byte_identical(ran, tmp_path, monkeypatch):
    other = ran.copy(tmp_path / "elsewhere")
    forget(other)
    monkeypatch.chdir(other.path)
    run_here(monkeypatch, *NAMES)
    found, expected = results(other), results(ran)
    assert set(found) == set(expected)
    assert [path for path in found if found[path] != expected[path]] == []


@pytest.fixture(scope="module")
def another_C(ran, tmp_path_factory):
    """A project after `dvc repro` with another svm.C on the branch `try`; `branch` is the one it
    started from, `done` the finished run."""
    project = ran.copy(tmp_path_factory.mktemp("another_C") / "project")
    project.branch = project.git("branch", "--show-current").strip()
    project.git("checkout", "--quiet", "-b", "try")
    project.set(svm__C=1e-7)
    project.done = project.dvc("repro")
    return project


def test_a_change_of_svm_C_runs_svm_cards_and_report(another_C):
    assert stages_run(another_C.done) == ["train-svm", "svm", "cards", "report"]


def test_going_back_takes_the_result_from_the_run_cache(after):
    before = after.read("metrics/svm.json")
    after.set(svm__C=1e-6)
    after.dvc("repro", "svm")
    after.git("checkout", "params.yaml")
    done = after.dvc("repro", "svm")
    assert stages_run(done) == []
    assert after.read("metrics/svm.json") == before


def test_a_bump_of_a_library_runs_what_it_can_change(after):
    """Only the LoRA stages use PEFT. They are not run here, because that would need the library."""
    path = after.path / "libraries.yaml"
    path.write_text(re.sub(r"peft: .*", "peft: 99.0", path.read_text()))
    status = json.loads(after.dvc("status", "--json").stdout)
    assert set(status) == {"train-lora-2e-5", "train-lora-2e-4", "train-lora", "claims"}
    done = after.dvc("repro", "lora", check=False)
    assert done.returncode != 0
    assert re.search(
        r"^error: train-lora: libraries.yaml: peft: 99.0 is pinned but [\d.]+ is installed; ",
        done.stderr,
        re.M,
    )


@pytest.mark.precision
def test_lora_at_2e_4_gives_the_numbers_of_lora_2e_4(after):
    published = after.read("params.yaml")["lora-2e-4"]
    after.set(**{f"lora__{key}": value for key, value in published.items() if key != "lr"})
    after.git("commit", "--quiet", "--all", "--message", "as published")
    done = after.dvc("exp", "run", "--set-param", "lora.lr=2e-4", "lora")
    assert stages_run(done) == ["train-lora", "lora"]
    status = json.loads(after.dvc("status", "--json").stdout)
    assert set(status) == {"claims", "cards", "report"}
    assert after.read("params.yaml")["lora"]["lr"] == 2e-4
    assert after.read("metrics/lora.json") == after.read("metrics/lora-2e-4.json")
    predictions = [
        (after.path / f"data/predictions/{name}.csv").read_bytes() for name in ("lora", "lora-2e-4")
    ]
    assert predictions[0] == predictions[1]
    shown = json.loads(after.dvc("exp", "show", "--json").stdout)
    rates = {
        rev["data"]["params"]["params.yaml"]["data"]["lora"]["lr"]
        for base in shown
        for rev in [base, *[r for e in base.get("experiments") or [] for r in e["revs"]]]
    }
    assert 2e-4 in rates
    # The same number, written as a person would write it, runs nothing again.
    path = after.path / "params.yaml"
    text = path.read_text()
    section = text.index("\nlora:")
    path.write_text(text[:section] + re.sub(r"lr: \S+", "lr: 2e-4", text[section:], count=1))
    assert json.loads(after.dvc("status", "--json").stdout) == status
    assert stages_run(after.dvc("repro", "lora")) == []


def test_metrics_show_fits_a_terminal(ran):
    lines = ran.dvc("metrics", "show").stdout.splitlines()
    assert len(lines) == 1 + len(MODELS)
    assert max(map(len, lines)) <= 120


@pytest.mark.precision
def test_metrics_diff_names_model_split_and_score(after):
    branch = after.git("branch", "--show-current").strip()
    after.git("checkout", "--quiet", "-b", "try")
    before = after.read("metrics/svm.json")
    # Which of them moves the scores depends on the rounding of the features.
    for strength in (100.0, 1.0, 1e-7):
        after.set(svm__C=strength)
        after.dvc("repro", "svm")
        if after.read("metrics/svm.json") != before:
            break
    after.git("commit", "--quiet", "--all", "--message", "try")
    diff = json.loads(after.dvc("metrics", "diff", branch, "--json").stdout)
    assert "metrics/lora.json" not in diff
    names = {f"{split}.{score}" for split in ("validation", "test") for score in SCORES}
    assert diff["metrics/svm.json"].keys() <= names


PLOTS = [
    "Training loss",
    "Validation loss",
    "Validation accuracy",
    "Confusion",
    "Reliability",
    "Accuracy by length",
]


def test_plots_dag_and_artifacts_work(ran, tmp_path):
    done = ran.dvc("plots", "show", "--out", str(tmp_path / "plots"))
    assert done.stderr == ""
    page = (tmp_path / "plots/index.html").read_text()
    for title in PLOTS:
        assert title in page
    # The plot of score against cost is a picture.
    assert list((tmp_path / "plots/static").glob("*cost.png"))
    assert "extract-cls-features" in ran.dvc("dag").stdout
    assert set(ran.read("dvc.yaml")["artifacts"]) == set(MODELS)


def test_every_plot_has_the_data_of_all_models(ran):
    shown = json.loads(ran.dvc("plots", "show", "--json").stdout)["data"]
    assert {"metrics/report/cost.png", *PLOTS} <= set(shown)
    for title in PLOTS:
        spec = json.dumps(shown[title])
        trained = MODELS[1:] if title.startswith(("Training", "Validation")) else MODELS
        assert [name for name in trained if f'"{name}"' not in spec] == []


def test_plots_diff_shows_what_a_branch_changes(another_C, tmp_path):
    done = another_C.dvc("plots", "diff", another_C.branch, "--out", str(tmp_path / "plots"))
    assert done.stderr == ""
    page = (tmp_path / "plots/index.html").read_text()
    for title in ("Confusion", "Reliability", "Accuracy by length"):
        assert title in page
    assert len(list((tmp_path / "plots/static").glob("*cost.png"))) == 2


def test_push_and_pull_give_another_clone_everything_without_a_run(after, tmp_path):
    remote = tmp_path / "remote"
    after.dvc("remote", "add", "--default", "shared", str(remote))
    after.git("commit", "--quiet", "--all", "--message", "remote")
    after.dvc("push")
    clone = after.copy(tmp_path / "clone")
    for path in ("data", ".dvc/cache"):
        shutil.rmtree(clone.path / path)
    clone.dvc("pull")
    assert stages_run(clone.dvc("repro")) == []
    assert snapshot(clone) == snapshot(after)


@pytest.mark.parametrize(
    ("change", "stage", "line"),
    [
        (
            {"lora__r": 0},
            "train-lora",
            "params.yaml: lora.r: 0 is wrong: it should be greater than 0",
        ),
        (
            {"lora__targets": ["query"]},
            "train-lora",
            "params.yaml: lora.targets: the backbone has no 'query'; it has k_lin, lin1, lin2, "
            "out_lin, q_lin, v_lin",
        ),
        (
            {"lora__lr": 1e38},
            "train-lora",
            "training diverged: the loss is nan at step 3 with lr 1e+38; try a lower lr",
        ),
        ({"svm__C": "big"}, "train-svm", "params.yaml: svm.C.0: 'big' is wrong"),
        ({"tokenize__max_length": 65}, "tokenize", "it should be at most the backbone's 64"),
        (
            {"precision": "fp16"},
            "extract-cls-features",
            "params.yaml: precision: 'fp16' is wrong: it needs a CUDA GPU and there is none; "
            "use auto, fp32 or bf16",
        ),
        (
            {"dataset__path": "stages"},
            "download",
            "dataset.path: stages lacks train.parquet, train.csv, train.tsv or train.jsonl",
        ),
    ],
)
def test_a_wrong_input_is_one_line_and_outputs_stay(after, change, stage, line):
    before = snapshot(after)
    after.set(**change)
    done = after.dvc("repro", stage, check=False)
    assert done.returncode != 0
    errors = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith(f"error: {stage}: ")
    assert line in errors[0]
    assert "Traceback" not in done.stderr
    assert snapshot(after) == before
    after.git("checkout", "params.yaml")
    assert stages_run(after.dvc("repro")) == []


def test_a_path_that_does_not_exist_is_named(after):
    before = snapshot(after)
    after.set(dataset__path="nowhere")
    done = after.dvc("repro", check=False)
    assert done.returncode != 0
    line = done.stderr.strip()
    assert line.startswith("ERROR: failed to reproduce 'download': [Errno 2] No such file")
    assert line.endswith("/nowhere'")
    # DVC itself stops here, after removing the stage's outputs, which are in its cache.
    after.git("checkout", "params.yaml")
    assert stages_run(after.dvc("repro")) == []
    assert snapshot(after) == before


def test_a_change_of_ones_own_reviews_runs_the_dag_again(after, tmp_path):
    reviews = shutil.copytree(after.read("params.yaml")["dataset"]["path"], tmp_path / "mine")
    after.set(dataset__path=f"{reviews}/")
    assert stages_run(after.dvc("repro", "download")) == ["download"]
    with (reviews / "test.csv").open("a") as file:
        file.write("a great film,1\n")
    assert stages_run(after.dvc("repro", "download")) == ["download"]
    assert after.read("metrics/download.json")["test"]["reviews"] == 25


def test_a_train_review_that_is_also_in_test_is_warned_of_and_counted(after, tmp_path):
    reviews = shutil.copytree(after.read("params.yaml")["dataset"]["path"], tmp_path / "mine")
    row = (reviews / "train.csv").read_text().splitlines()[1]
    with (reviews / "test.csv").open("a") as file:
        file.write(f"{row}\n")
    after.set(dataset__path=str(reviews))
    before = after.read("metrics/download.json")["duplicates_across_splits"]["train_test"]
    done = after.dvc("repro", "download")
    assert f"warning: {before + 1} reviews are in both train and test" in done.stderr
    facts = after.read("metrics/download.json")
    assert facts["duplicates_across_splits"]["train_test"] == before + 1


@pytest.mark.precision
def test_the_curves_best_epoch_is_what_the_metrics_say(after, tmp_path, monkeypatch):
    """Every review is evaluated, even if no batch size divides their number."""
    reviews = shutil.copytree(after.read("params.yaml")["dataset"]["path"], tmp_path / "mine")
    with (reviews / "validation.csv").open("a") as file:
        file.write("a great film,1\nit is a dull film,0\nwitty film,1\n")
    after.set(dataset__path=str(reviews))
    monkeypatch.chdir(after.path)
    models = ("finetune-head", "finetune-full")
    run_here(monkeypatch, *NAMES[:3], *(f"train-{name}" for name in models), *models)
    for name in models:
        curve = after.path / f"data/curves/{name}/plots/metrics/validation/accuracy.tsv"
        best = max(float(line.split("\t")[1]) for line in curve.read_text().splitlines()[1:])
        accuracy = after.read(f"metrics/{name}.json")["validation"]["accuracy"]
        assert best == pytest.approx(accuracy, abs=1e-6)


def test_a_file_of_costs_that_is_not_json_is_named_by_report(after):
    (after.path / "metrics/costs/svm.json").write_text("{")
    done = after.run("python", "-m", "stages.report", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: metrics/costs/svm.json: not JSON: ")


def test_features_have_one_vector_a_review(ran, monkeypatch):
    from stages.lib.encoder import tokens
    from stages.lib.vectors import features

    monkeypatch.chdir(ran.path)
    for split in ("train", "validation", "test"):
        cls, labels = features.load(split)
        assert cls.shape == (24, 32)
        assert cls.dtype == np.float32
        assert np.array_equal(labels, tokens.load(split).labels)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_scores_are_those_of_the_saved_model_in_float32(after, monkeypatch, precision):
    """The scores of four models; a CPU without hardware support for bf16 emulates it."""
    import torch

    from stages.lib.models.prediction import load
    from stages.lib.vectors import features

    if precision == "fp16" and not torch.cuda.is_available():
        pytest.skip("fp16 needs a GPU")
    after.set(precision="fp32")
    monkeypatch.chdir(after.path)
    run_here(monkeypatch, "extract-cls-features")
    expected = {split: features.load(split)[0] for split in ("train", "test")}
    after.set(precision=precision)
    models = ("svm", "finetune-head", "finetune-full", "lora")
    run_here(monkeypatch, "extract-cls-features", *(f"train-{name}" for name in models))
    assert np.array_equal(features.load("test")[0], expected["test"])
    difference = np.abs(features.load("train")[0] - expected["train"]).max()
    assert difference == 0 if precision == "fp32" else 0 < difference < 0.05
    texts = pq.read_table("data/raw/test.parquet")["text"].to_pylist()
    for name in models:
        reported = pd.read_csv(f"data/predictions/{name}.csv").query("split == 'test'")
        model = load(Path("data/models") / name, "fp32")
        scores = model.probabilities(texts)
        assert np.abs(scores.max(-1) - reported["score"]).max() < 1e-5
        if name.startswith(("finetune-full", "lora")):
            assert after.read(f"metrics/costs/{name}.json")["precision"] == precision


def test_the_report_has_a_table_of_all_models_and_its_pictures(ran):
    text = (ran.path / "metrics/report.md").read_text()
    for name in MODELS:
        assert re.search(rf"^\| {name} +\|", text, re.M)
    assert "Not like for like" in text
    pictures = re.findall(r"\]\((.+\.png)\)", text)
    assert len(pictures) == 7
    for picture in pictures:
        assert (ran.path / "metrics" / picture).stat().st_size > 5_000
    page = (ran.path / "metrics/report.html").read_text()
    assert page.count("<figure ") == len(pictures)
