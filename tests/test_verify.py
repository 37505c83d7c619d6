"""commands.verify: do the committed scores come out here, too?"""

import json
import os
import re
import shutil
import signal

import pytest
import workspace
from conftest import ROOT, Project
from test_declarations import NAMES

from commands import verify
from stages.lib.core.errors import InputError
from stages.lib.report import seeds

ACCURACIES = workspace.ACCURACIES


@pytest.fixture(scope="module")
def _scored(tmp_path_factory):
    directory = tmp_path_factory.mktemp("verify")
    project = Project(directory / "project")
    workspace.score(project.path, directory / "outside")
    # Shared by all who work on the project, as .dvc/config may have it.
    project.dvc("config", "cache.dir", str(directory / "cache"))
    project.dvc("repro")
    project.git("add", ".")
    project.git("commit", "--quiet", "--message", "ran")
    return project


@pytest.fixture
def scored(_scored, tmp_path):
    """A project of two models after `dvc repro`, whose accuracies are those of a file outside."""
    project = _scored.copy(tmp_path / "project")
    project.outside = _scored.path.parent / "outside"
    (project.outside / "accuracies.json").write_text(json.dumps(ACCURACIES))
    (project.outside / "log").write_text("")
    return project


def run(project, *arguments):
    return project.run("python", "-m", "commands.verify", *arguments, check=False)


def measure(project, **accuracies):
    """What the models' stages will find from now on: accuracies on validation and test."""
    (project.outside / "accuracies.json").write_text(json.dumps(ACCURACIES | accuracies))


def commit(project):
    project.git("add", ".")
    project.git("commit", "--quiet", "--message", "another")


def verdicts(done):
    """The verdicts by model."""
    rows = re.split(r"verdict *\n", done.stdout)[-1].partition("\n\n")[0].splitlines()
    return {words[0]: words[-1] for words in (re.split(r"\s{2,}", row.strip()) for row in rows)}


def worktrees(project):
    return project.git("worktree", "list").splitlines()


def assert_nothing_is_left(project):
    assert list(project.path.glob("tmp/*")) == []
    assert len(worktrees(project)) == 1
    assert project.git("status", "--porcelain") == ""


def save_seeds(project, model, accuracies):
    """Collect other seeds of the model with these accuracies, in validation and test."""
    import numpy as np

    fingerprint, _ = seeds.identify(project.read("dvc.lock")["stages"], model, {})
    rows = []
    for seed, accuracy in enumerate(accuracies, start=1):
        right = np.arange(1000) < round(1000 * accuracy)
        scores = {split: {"accuracy": accuracy, "f1": accuracy} for split in seeds.SPLITS}
        both = dict.fromkeys(seeds.SPLITS, right)
        rows.append(
            seeds.row(seeds.Run(model, seed, 1000, fingerprint, "cpu", "fp32", scores, both))
        )
    (project.path / seeds.PATH).write_text(json.dumps({"rows": rows}))
    commit(project)


def test_the_same_bytes_are_computed_anew_and_leave_nothing(scored):
    cache = scored.outside.parent / "cache"
    before = sorted(cache.rglob("*"))
    done = run(scored)
    assert done.returncode == 0, done.stderr
    assert verdicts(done) == dict.fromkeys(ACCURACIES, "same bytes")
    assert done.stdout.endswith("Reproduced: the committed scores of 2 models.\n")
    assert "took 3 s on cpu, fp32\n" in done.stdout
    assert "Committed: cpu, fp32. Here: cpu, fp32." in done.stdout
    # The user's cache would have had all of it.
    assert (scored.outside / "log").read_text().split() == ["svm", "lora"]
    assert re.findall(r"Running stage '(.+)'", done.stdout) == ["download", "svm", "lora"]
    assert sorted(cache.rglob("*")) == before
    assert_nothing_is_left(scored)


def test_an_accuracy_that_differs_is_named_and_the_status_is_1(scored):
    measure(scored, lora=[0.8, 0.75])
    done = run(scored)
    assert done.returncode == 1
    assert verdicts(done) == {
        "svm": "same bytes",
        "lora": "differs by \N{MINUS SIGN}5.0 points on test (limits: \N{MINUS SIGN}2.6 to +2.4)",
    }
    assert re.search(r"^lora +0.800 +0.800 +0.800 +0.750 ", done.stdout, re.M)
    assert done.stdout.endswith("Not reproduced: lora.\n")
    assert_nothing_is_left(scored)


def test_without_seeds_the_interval_of_the_accuracy_is_the_limit(scored):
    measure(scored, lora=[0.821, 0.78])
    done = run(scored)
    assert done.returncode == 0
    assert verdicts(done)["lora"] == "within the 95% interval"


def test_with_seeds_their_spread_is_the_limit(scored):
    # With the committed run, the standard deviation is 0.004.
    save_seeds(scored, "lora", [0.796, 0.804])
    measure(scored, lora=[0.81, 0.79])
    done = run(scored)
    assert done.returncode == 0, done.stderr
    assert verdicts(done)["lora"] == "within the seeds' spread"
    measure(scored, lora=[0.812, 0.8])
    done = run(scored)
    assert done.returncode == 1
    assert verdicts(done)["lora"].startswith("differs by +1.2 points on validation (limits: ")


def test_seeds_of_other_code_do_not_count(scored):
    save_seeds(scored, "lora", [0.796, 0.804])
    path = scored.path / seeds.PATH
    path.write_text(re.sub(r'"fingerprint": "\w+"', '"fingerprint": "another"', path.read_text()))
    commit(scored)
    measure(scored, lora=[0.812, 0.8])
    assert verdicts(run(scored))["lora"] == "within the 95% interval"


def test_what_is_not_committed_is_not_verified(scored):
    (scored.path / "score.py").write_text("raise SystemExit(3)")
    done = run(scored)
    assert done.returncode == 0
    assert done.stderr.splitlines()[0] == (
        "warning: score.py: changed since the last commit, so not verified"
    )
    assert verdicts(done) == dict.fromkeys(ACCURACIES, "same bytes")


def test_reviews_in_git_are_read_as_the_commit_has_them(scored):
    (scored.path / "own").mkdir()
    (scored.path / "own/train.csv").write_text("text,label\n")
    scored.set(dataset__path="own")
    commit(scored)
    (scored.path / "own/train.csv").write_text("text,label\nchanged since,good\n")
    run(scored)
    path = Project.at(scored.outside).read("params.yaml")["dataset"]["path"]
    assert path == "own"


def with_own_data(project, source):
    """Commit results that come from `source`, and put reviews beside them that git ignores."""
    facts = project.read("metrics/download.json")
    facts["reviews"]["source"] = source
    (project.path / "metrics/download.json").write_text(json.dumps(facts))
    (project.path / "local/reviews").mkdir(parents=True, exist_ok=True)
    (project.path / "local/reviews/README.md").touch()
    (project.path / ".gitignore").open("a").write("*.csv\n")
    commit(project)
    (project.path / "local/reviews/train.csv").write_text("text,label\n")


def test_reviews_that_came_later_do_not_replace_those_of_the_commit(scored):
    with_own_data(scored, "pypi")
    run(scored)
    path = Project.at(scored.outside).read("params.yaml")["dataset"]["path"]
    assert path == "local/reviews"


def test_reviews_that_git_does_not_track_are_read_where_they_are(scored):
    with_own_data(scored, "local")
    run(scored)
    path = Project.at(scored.outside).read("params.yaml")["dataset"]["path"]
    assert path == str(scored.path / "local/reviews")


def test_without_the_reviews_of_the_committed_results_nothing_is_run(scored):
    with_own_data(scored, "local")
    (scored.path / "local/reviews/train.csv").unlink()
    done = run(scored)
    assert done.returncode == 1
    assert done.stderr == (
        "error: params.yaml: dataset.path: the committed results are of your own data in "
        "local/reviews, which are neither here nor in the commit\n"
    )
    assert (scored.outside / "log").read_text() == ""
    assert_nothing_is_left(scored)


def test_the_source_is_that_of_the_committed_results(scored):
    assert scored.read("params.yaml")["source"] == "auto"
    run(scored)
    assert Project.at(scored.outside).read("params.yaml")["source"] == "pypi"


def test_a_pipeline_that_fails_keeps_dvcs_status(scored):
    (scored.path / "score.py").write_text("raise SystemExit(3)")
    commit(scored)
    done = run(scored)
    assert done.returncode == 255
    assert "failed to run: python score.py" in done.stderr
    assert "Reproduced" not in done.stdout
    assert_nothing_is_left(scored)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_dvc_too_and_leaves_no_worktree(scored, sent):
    """SIGINT as a terminal sends it, to all processes; SIGTERM to the command alone."""
    (scored.outside / "started").unlink(missing_ok=True)
    measure(scored, svm=None, lora=None)
    process = workspace.start(scored.path, "python", "-m", "commands.verify")
    workspace.wait_for(scored.outside / "started", process)
    assert len(worktrees(scored)) == 2
    if sent == signal.SIGINT:
        os.killpg(process.pid, sent)
    else:
        process.send_signal(sent)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode not in (0, 1)
    assert "commands/" not in stderr  # no traceback of the command itself
    assert_nothing_is_left(scored)


def test_a_subset_is_compared_with_the_saved_one(scored):
    assert run(scored, "--subset", "64", "--save").returncode == 0
    commit(scored)
    (scored.path / verify.SAVED).write_text("what is not committed is not compared")
    done = run(scored, "--subset", "64")
    assert done.returncode == 0, done.stderr
    assert verdicts(done) == dict.fromkeys(ACCURACIES, "same bytes")
    there = Project.at(scored.outside).read("params.yaml")
    assert (there["dataset"]["subset"], there["precision"]) == (64, "fp32")
    measure(scored, svm=[0.5, 0.5])
    done = run(scored, "--subset", "64")
    assert (done.returncode, verdicts(done)["lora"]) == (1, "same bytes")
    assert verdicts(done)["svm"].startswith(
        "differs by \N{MINUS SIGN}20.0 points on validation (limits: \N{MINUS SIGN}2.9 to +2.8) "
        "and \N{MINUS SIGN}20.0 points on test"
    )


def test_a_subset_of_another_size_is_refused(scored):
    run(scored, "--subset", "64", "--save")
    commit(scored)
    refused(
        scored,
        "verify-subset.json: has figures of 64 reviews per split, not 32; ",
        "--subset",
        "32",
    )


def refused(project, words, *arguments):
    """The command says why in one line, before anything runs."""
    (project.outside / "log").write_text("")
    done = run(project, *arguments)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert (project.outside / "log").read_text() == ""
    assert list(project.path.glob("tmp/*")) == []


def test_wrong_use_is_one_line(scored):
    refused(scored, "verify-subset.json: not in the last commit; 'python -m", "--subset", "64")
    refused(scored, "--save: only with --subset", "--save")
    for file in ("metrics/lora.json", "dvc.lock"):
        scored.git("rm", "--quiet", file)
        scored.git("commit", "--quiet", "--message", "without")
        refused(scored, f"{file}: not in the last commit, which is what is verified; run 'dvc rep")
    shutil.rmtree(scored.path / ".git")
    refused(scored, "rev-parse --short HEAD: fatal: not a git repository")


def test_the_stages_of_the_pipeline_give_the_same_bytes(ran, tmp_path):
    """One model, because each stage starts an interpreter."""
    project = ran.copy(tmp_path / "project")
    text = (project.path / "dvc.yaml").read_text()
    svm = next(line for line in text.splitlines() if line.startswith("  svm: {path"))
    (project.path / "dvc.yaml").write_text(f"{text.partition('artifacts:')[0]}artifacts:\n{svm}\n")
    project.git("commit", "--quiet", "--all", "--message", "svm alone")
    done = run(project)
    assert done.returncode == 0, done.stderr
    assert verdicts(done) == {"svm": "same bytes"}
    expected = ["download", "tokenize", "extract-cls-features", "train-svm", "svm"]
    assert re.findall(r"Running stage '(.+)'", done.stdout) == expected
    assert set(expected) < set(NAMES)


def test_make_calls_it():
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^verify: .*\n\t@python -m commands.verify \$\(ARGS\)$", makefile, re.M)


def test_figures_of_other_models_are_named_before_anything_runs(tmp_path):
    saved = {"subset": 9, "models": {"svm": {}, "bert": {}}}
    (tmp_path / "metrics").mkdir()
    (tmp_path / verify.SAVED).write_text(json.dumps(saved))
    assert verify.saved(tmp_path, 9, ["bert", "svm"]) == saved["models"]
    with pytest.raises(InputError, match=r"has other models than dvc.yaml \(bert, lora\)"):
        verify.saved(tmp_path, 9, ["svm", "lora"])


# The verdicts


def figures(validation, test, predictions="1", reviews=1000):
    return {
        "predictions": predictions,
        "machine": "cpu, fp32",
        "validation": {"accuracy": validation, "reviews": reviews},
        "test": {"accuracy": test, "reviews": reviews},
    }


COMMITTED = figures(0.8, 0.8)
# With the committed run, the standard deviation is 0.01, and 2.8 times as much is allowed.
SEEDS = {split: [0.79, 0.81] for split in seeds.SPLITS}


def test_equal_hashes_are_the_same_bytes():
    assert verify.judge(COMMITTED, COMMITTED, SEEDS) == ("same bytes", True)


@pytest.mark.parametrize(
    ("accuracies", "holds"),
    [((0.8, 0.8), True), ((0.828, 0.772), True), ((0.829, 0.8), False), ((0.8, 0.771), False)],
)
def test_the_seeds_spread_is_two_standard_deviations_of_a_difference(accuracies, holds):
    said, found = verify.judge(COMMITTED, figures(*accuracies, "2"), SEEDS)
    assert found == holds
    assert said.startswith("within the seeds' spread" if holds else "differs by ")


@pytest.mark.parametrize("others", [[], [0.7], [0.8, 0.8]])
def test_too_few_seeds_and_seeds_that_do_not_vary_leave_the_interval(others):
    by_split = dict.fromkeys(seeds.SPLITS, others)
    near, far = figures(0.823, 0.775, "2"), figures(0.8, 0.772, "2")
    assert verify.judge(COMMITTED, near, by_split) == ("within the 95% interval", True)
    assert verify.judge(COMMITTED, far, by_split) == (
        "differs by \N{MINUS SIGN}2.8 points on test (limits: \N{MINUS SIGN}2.6 to +2.4)",
        False,
    )


def test_fewer_reviews_allow_for_more():
    few, other = figures(0.8, 0.8, reviews=50), figures(0.8, 0.7, "2", reviews=50)
    assert verify.judge(few, other, {}) == ("within the 95% interval", True)
