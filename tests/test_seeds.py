"""commands.seeds: mean and standard deviation from `dvc exp show --json` and dvc.lock."""

import json
import statistics
import sys
from collections import Counter
from pathlib import Path

import pytest

from commands import collecting, experiments, seeds
from stages.lib.core.errors import InputError
from stages.lib.report import seeds as collection

PARAMS = {"seed": 0, "svm": {"C": [0.1, 1.0]}, "lora": {"lr": 2e-3}, "tokenize": {"max_length": 32}}


def scores(accuracy):
    return {split: {"accuracy": accuracy, "f1": accuracy / 2} for split in ("validation", "test")}


def lock(params, code="c0de"):
    """Return dvc.lock as it is after a small DAG has run completely."""

    def stage(sections, before, out, script):
        values = {section: params[section] for section in sections}
        deps = [{"path": path, "md5": path} for path in before] + [{"path": script, "md5": code}]
        outs = [{"path": out, "md5": out}]
        return {"deps": deps, "params": {"params.yaml": values}, "outs": outs}

    return {
        "tokenize": stage(["tokenize"], [], "data/tokenized", "stages/tokenize.py"),
        "svm": stage(["svm", "seed"], ["data/tokenized"], "data/models/svm", "stages/svm.py"),
        "lora": stage(["lora", "seed"], ["data/tokenized"], "data/models/lora", "stages/lora.py"),
    }


def experiment(params, accuracies, state="success"):
    """Return an experiment in the form of `dvc exp show --json`."""
    metrics = {f"metrics/{name}.json": {"data": scores(a)} for name, a in accuracies.items()}
    metrics["metrics/download.json"] = {"data": {"test": {"reviews": 24}}}
    metrics["metrics/costs/svm.json"] = {"data": {"seconds": 1.0}}
    data = {"params": {"params.yaml": {"data": params}}, "metrics": metrics}
    return {"revs": [{"rev": "abc", "data": data, "error": None}], "executor": {"state": state}}


def run(seed, svm, lora, /, **changes):
    """Return the rows of an experiment that ran everything."""
    params = PARAMS | changes | {"seed": seed}
    (tip,) = experiment(params, {"svm": svm, "lora": lora})["revs"]
    return experiments.measured(tip, lock(params))


def test_mean_and_standard_deviation_over_seeds():
    accuracies = {1: 0.70, 2: 0.72, 3: 0.77}
    rows = [row for seed, a in accuracies.items() for row in run(seed, a, 0.5)[0]]
    table = seeds.summarize(rows).set_index("model")
    assert list(table.index) == ["svm", "lora"]
    assert table.seeds["svm"] == 3
    assert table["test.accuracy mean"]["svm"] == pytest.approx(0.73)
    deviation = statistics.stdev(accuracies.values())  # n - 1
    assert table["test.accuracy std"]["svm"] == pytest.approx(deviation)
    assert table["validation.f1 mean"]["svm"] == pytest.approx(0.365)
    text = seeds.readable(seeds.summarize(rows))
    assert text["test accuracy"].tolist() == ["0.730 ± 0.036", "0.500 ± 0.000"]
    assert "settings" not in text


def test_the_same_seed_twice_counts_once():
    rows = run(1, 0.7, 0.5)[0] + run(1, 0.7, 0.5)[0] + run(2, 0.8, 0.5)[0]
    assert seeds.summarize(rows).seeds.tolist() == [2, 2]


def test_a_model_that_reads_no_seed_counts_once():
    rows = []
    for seed in (1, 2):
        (tip,) = experiment(PARAMS | {"seed": seed}, {"svm": 0.7})["revs"]
        stages = lock(PARAMS | {"seed": seed})
        del stages["svm"]["params"]["params.yaml"]["seed"]
        rows += experiments.measured(tip, stages)[0]
    assert seeds.summarize(rows).seeds.tolist() == [1]


def test_one_seed_has_no_standard_deviation():
    summary = seeds.summarize(run(1, 0.7, 0.5)[0])
    assert summary["test.accuracy std"].isna().all()
    assert seeds.readable(summary)["test accuracy"].tolist() == ["0.700", "0.500"]


def test_a_sweep_is_not_mixed_in_and_splits_only_the_model_that_it_is_of():
    sweep = [*run(1, 0.7, 0.5)[0], *run(2, 0.7, 0.6)[0]]
    sweep += run(1, 0.7, 0.8, lora={"lr": 0.01})[0] + run(3, 0.7, 0.9, lora={"lr": 0.01})[0]
    table = seeds.readable(seeds.summarize(sweep))
    assert table[["model", "settings", "seeds", "val. accuracy"]].values.tolist() == [
        ["svm", "", "3", "0.700 ± 0.000"],
        ["lora", "lora.lr=0.002", "2", "0.550 ± 0.071"],
        ["lora", "lora.lr=0.01", "2", "0.850 ± 0.071"],
    ]


def test_a_parameter_of_an_earlier_stage_and_other_code_split_too():
    rows = run(1, 0.7, 0.5)[0] + run(2, 0.7, 0.5, tokenize={"max_length": 16})[0]
    assert seeds.summarize(rows).settings.tolist() == [
        "tokenize.max_length=32", "tokenize.max_length=16",
    ] * 2  # fmt: skip
    (tip,) = experiment(PARAMS, {"svm": 0.7})["revs"]
    rows = (
        experiments.measured(tip, lock(PARAMS))[0]
        + experiments.measured(tip, lock(PARAMS, "new"))[0]
    )
    assert "stages/svm.py=c0de" in seeds.summarize(rows).settings[0]


def test_scores_that_the_experiment_did_not_run_are_left_out():
    """`dvc exp run -S seed=1 svm` keeps metrics/lora.json, which is from the seed before."""
    params = PARAMS | {"seed": 1}
    (tip,) = experiment(params, {"svm": 0.7, "lora": 0.5})["revs"]
    stages = lock(PARAMS) | {"svm": lock(params)["svm"]}
    rows, stale = experiments.measured(tip, stages)
    assert [row["model"] for row in rows] == ["svm"]
    assert stale == {"lora"}


def test_scores_on_data_that_were_made_again_are_left_out():
    (tip,) = experiment(PARAMS, {"svm": 0.7, "lora": 0.5})["revs"]
    stages = lock(PARAMS)
    stages["tokenize"]["outs"][0]["md5"] = "new"
    assert experiments.measured(tip, stages) == ([], {"svm", "lora"})


def test_experiments_that_are_not_finished_are_counted():
    shown = [
        {"rev": "workspace", "experiments": None},
        {
            "rev": "abc",
            "experiments": [
                experiment(PARAMS, {"svm": 0.7}, state)
                for state in ("success", "failed", "failed", "running", "queued")
            ],
        },
    ]
    shown[1]["experiments"].append(experiment(PARAMS, {"svm": 0.7}) | {"executor": None})
    done, others = experiments.finished(shown)
    assert len(done) == 2
    assert others == Counter(failed=2, running=1, queued=1)


def test_without_experiments_one_line_says_what_to_run(ran):
    done = ran.run("python", "-m", "commands.seeds", check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "error: no finished experiments of this commit (--all-commits includes those of other "
        "commits); run dvc exp run --queue -S 'seed=0,1,2,3,4', then dvc queue start\n"
    )


@pytest.fixture(scope="module")
def tried(ran, tmp_path_factory):
    """A project with an experiment."""
    project = ran.copy(tmp_path_factory.mktemp("tried") / "project")
    for name in ("name", "email"):
        project.git("config", f"user.{name}", "t")
    project.dvc("exp", "run", "--quiet", "-S", "svm.C=0.5", "svm", HF_HUB_OFFLINE="1")
    return project


@pytest.mark.parametrize(
    ("place", "status", "line"),
    [
        (">&-", 1, "error: standard output is closed: there is nowhere to print to"),
        ("> /dev/full", 1, "error: no space left on device; the previous outputs are unchanged"),
        ("--json > /dev/full", 1, "error: no space left on device; the previous outputs are unch"),
        ("--json | true", 141, ""),
    ],
)
def test_what_cannot_be_printed_is_one_line_at_most(tried, place, status, line):
    command = f"python -m commands.seeds {place}; exit ${{PIPESTATUS[0]}}"
    done = tried.run("bash", "-c", command, check=False)
    said = [each for each in done.stderr.splitlines() if not each.startswith("left out: ")]
    assert len(said) == bool(line)
    assert "".join(said).startswith(line)
    assert done.returncode == status


def test_a_terminal_that_lacks_a_character_gets_another(tried):
    done = tried.run("python", "-m", "commands.seeds", "--md", PYTHONIOENCODING="ascii")
    assert "Mean \\xb1 standard deviation" in done.stdout


def test_without_git_one_line_says_so(tried):
    done = tried.run(sys.executable, "-m", "commands.seeds", check=False, PATH="/nowhere")
    assert done.stderr.splitlines()[-1] == "error: git: no such program here"


def test_an_interrupt_ends_it_quietly(tried):
    code = "from commands import seeds\ndef finished(shown): raise KeyboardInterrupt\n"
    code += "seeds.finished = finished\nseeds.ending.run(seeds.main)"
    done = tried.run("python", "-c", code, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_an_experiment_whose_predictions_are_gone_is_named(tried, monkeypatch):
    (tip,) = experiments.finished(json.loads(tried.dvc("exp", "show", "--json").stdout))[0]
    monkeypatch.chdir(tried.path)
    monkeypatch.setattr(collection, "PREDICTIONS", Path("data/nowhere"))
    monkeypatch.setattr(collecting, "PREDICTIONS", Path("data/nowhere"))
    with pytest.raises(InputError, match=f"data/nowhere/svm.csv: experiment {tip['rev'][:7]} has"):
        collecting.runs(tip, {"svm": ("c0de", 0)}, {"train": {"reviews": 9}})
