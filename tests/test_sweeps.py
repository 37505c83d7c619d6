"""A sweep in the queue: shared stages run once, a failure does not stop the others, and machines
can share a sweep.

The sweep ends at the stage svm, which starts in a second. svm does not read lora.lr, so a sweep
over lora.lr shares it, just as a full sweep shares all but the last stages.
"""

import copy
import json
import re
import statistics
import time

import pytest
from conftest import LONG, write_reviews


def wait_for_the_queue(project, failing):
    deadline = time.monotonic() + LONG
    while time.monotonic() < deadline:
        status = project.dvc("queue", "status").stdout
        if not re.search(r"\b(Running|Queued)$", status, re.M):
            assert len(re.findall(r"\bFailed$", status, re.M)) == failing, status
            return
        time.sleep(1)
    raise AssertionError(f"the queue is not done: {status}")


@pytest.fixture(scope="module")
def swept(ran, tmp_path_factory):
    """The project after a sweep of four experiments and one that fails."""
    directory = tmp_path_factory.mktemp("sweep")
    project = ran.copy(directory / "project")
    project.dvc("remote", "add", "--default", "storage", str(directory / "storage"))
    project.git("commit", "--quiet", "--all", "--message", "remote")
    project.git("clone", "--quiet", "--bare", str(project.path), str(directory / "bare"))
    project.git("remote", "add", "origin", str(directory / "bare"))
    project.dvc("push")
    project.dvc("exp", "run", "--queue", "-S", "svm.C=-1", "svm")
    sweep = ("-S", "lora.lr=1e-4,2e-4", "-S", "seed=1,2")
    project.dvc("exp", "run", "--queue", *sweep, "svm")
    project.dvc("queue", "start")
    wait_for_the_queue(project, failing=1)
    return project


def tasks(project, state):
    """Return the tasks of the queue that ended in this state."""
    return re.findall(rf"^(\w+) .*\b{state}$", project.dvc("queue", "status").stdout, re.M)


def test_one_that_fails_stops_no_other_and_its_log_says_why(swept):
    assert len(tasks(swept, "Success")) == 4
    (failed,) = tasks(swept, "Failed")
    assert "params.yaml: svm.C.0: -1 is wrong" in swept.dvc("queue", "logs", failed).stdout


def test_what_experiments_share_runs_once(swept):
    logs = "".join(swept.dvc("queue", "logs", task).stdout for task in tasks(swept, "Success"))
    assert logs.count("Running stage 'train-svm'") == 2  # one per seed
    assert logs.count("Stage 'train-svm' is cached - skipping run") == 2


def test_the_seeds_tool_reads_them_and_says_what_it_left_out(swept):
    shown = json.loads(swept.dvc("exp", "show", "--json").stdout)
    accuracies = {
        data["params"]["params.yaml"]["data"]["seed"]: data["metrics"]["metrics/svm.json"]["data"]
        for base in shown
        for experiment in base["experiments"] or []
        if (data := experiment["revs"][0]["data"]) and not experiment["revs"][0].get("error")
    }
    assert sorted(accuracies) == [1, 2]
    values = [scores["test"]["accuracy"] for scores in accuracies.values()]
    done = swept.run("python", "-m", "commands.seeds", "--json")
    (row,) = json.loads(done.stdout)
    assert (row["model"], row["seeds"]) == ("svm", 2)
    assert row["test.accuracy mean"] == pytest.approx(statistics.mean(values))
    assert row["test.accuracy std"] == pytest.approx(statistics.stdev(values))
    assert "left out: experiments that are not finished: 1 failed" in done.stderr
    assert "left out: models that no experiment ran: finetune-full, " in done.stderr

    plain = swept.run("python", "-m", "commands.seeds").stdout
    assert plain.splitlines()[1].split()[:2] == ["svm", "2"]
    assert "\x1b" not in plain
    assert swept.run("python", "-m", "commands.seeds", "--md").stdout.startswith("| model ")
    table = swept.run("python", "-m", "commands.seeds", "--csv").stdout
    assert table.startswith("model,settings,seeds,validation.accuracy mean,")


def test_saved_seeds_are_used_by_the_report_until_something_else_changes(swept, tmp_path):
    project = swept.copy(tmp_path / "project")
    done = project.run("python", "-m", "commands.seeds", "--save")
    assert "runs in metrics/seeds.json now: 2 of svm; 'dvc repro report' uses" in done.stderr
    assert project.git("diff", "--name-only").split() == ["metrics/seeds.json"]
    rows = {row["seed"]: row for row in project.read("metrics/seeds.json")["rows"]}
    assert sorted(rows) == [1, 2]
    for row in rows.values():
        assert (row["model"], row["device"], row["precision"]) == ("svm", "cpu", "fp64")
        assert row["test"]["reviews"] == row["validation"]["reviews"] == 24
    done = project.dvc("repro")
    assert re.findall("Running stage '(.+)'", done.stdout) == ["report"]
    report = (project.path / "metrics/report.md").read_text()
    assert "Scores are means over seeds (3 of svm; 1 of finetune-head, " in report
    values = [row["test"]["accuracy"] for row in rows.values()]
    values.append(project.read("metrics/svm.json")["test"]["accuracy"])
    cell = f"{statistics.mean(values):.3f} \N{PLUS-MINUS SIGN} {statistics.stdev(values):.3f}"
    assert re.search(rf"^\| svm .*\| +{cell} \(", report, re.M)

    project.git("commit", "--quiet", "--all", "--message", "seeds")
    script = project.path / "stages/svm.py"
    script.write_text(f"{script.read_text()}# This changes no prediction.\n")
    project.dvc("repro")
    unused = "2 rows of `metrics/seeds.json` are not used, because code, data or parameters of svm"
    assert unused in (project.path / "metrics/report.md").read_text()
    done = project.run("python", "-m", "commands.seeds", "--keep")
    assert (
        done.stderr == "runs kept in metrics/seeds.json: 2 of svm; 'dvc repro report' uses them\n"
    )
    project.dvc("repro")
    assert "(3 of svm; 1 of" in (project.path / "metrics/report.md").read_text()

    project.git("commit", "--quiet", "--all", "--message", "a comment")
    project.set(svm__C=0.5)
    project.dvc("repro")
    assert unused in (project.path / "metrics/report.md").read_text()
    done = project.run("python", "-m", "commands.seeds", "--keep")
    assert done.stderr.splitlines() == [
        "runs kept in metrics/seeds.json: none; 'dvc repro report' uses them",
        "not kept: 2 of svm, whose parameters or predictions are others at HEAD",
    ]
    assert [row["seed"] for row in project.read("metrics/seeds.json")["rows"]] == [1, 2]
    done = project.run("python", "-m", "commands.seeds", "--save", "--all-commits")
    assert "not saved: runs of svm whose code, data or parameters differ from those" in done.stderr
    assert project.read("metrics/seeds.json") == {"rows": []}


def test_runs_on_fewer_training_reviews_are_the_reports_learning_curve(swept, tmp_path):
    project = swept.copy(tmp_path / "project")
    project.dvc("exp", "run", "--quiet", "--temp", "-S", "dataset.train=12", "svm")
    project.run("python", "-m", "commands.seeds", "--save")
    rows = project.read("metrics/seeds.json")["rows"]
    whole = project.read("metrics/download.json")["train"]["reviews"]
    assert [(row["model"], row["train"], row["seed"]) for row in rows] == [
        ("svm", 12, 0), ("svm", whole, 1), ("svm", whole, 2),
    ]  # fmt: skip
    # Validation and test are whole.
    assert [rows[0][split]["reviews"] for split in ("validation", "test")] == [24, 24]
    assert project.git("diff", "--name-only").split() == ["metrics/seeds.json"]
    project.dvc("repro", "--quiet")
    report = (project.path / "metrics/report.md").read_text()
    section = report.partition("How many labels do I need?")[2]
    assert re.search(r"^\| +12 +\| ", section, re.M)
    assert re.search(rf"^\| +{whole} +\| .*±", section, re.M)


def test_another_machine_takes_a_share(swept):
    """Two clones of one bare repository, and one DVC remote."""
    other = copy.copy(swept)
    other.path = swept.path.with_name("other")
    swept.git("clone", "--quiet", str(swept.path.with_name("bare")), str(other.path))
    other.dvc("pull")
    other.dvc("exp", "run", "-S", "seed=3", "svm")
    other.dvc("exp", "push", "origin")
    swept.dvc("exp", "pull", "origin")
    (row,) = json.loads(swept.run("python", "-m", "commands.seeds", "--json").stdout)
    assert (row["model"], row["seeds"]) == ("svm", 3)


def test_a_queued_run_does_not_replace_untracked_reviews_by_the_public_ones(ran, tmp_path):
    project = ran.copy(tmp_path / "project")
    project.set(dataset__path="local/reviews")
    project.git("commit", "--quiet", "--all", "--message", "own reviews")
    write_reviews(project.path / "local/reviews")
    project.dvc("exp", "run", "--queue", "download")
    project.dvc("queue", "start")
    wait_for_the_queue(project, failing=1)
    (failed,) = tasks(project, "Failed")
    log = project.dvc("queue", "logs", failed).stdout
    assert "error: download: dataset.path: local/reviews has data in your workspace" in log
    assert "'dvc add local/reviews/*'" in log

    # As the line says.
    files = [f"local/reviews/{split}.csv" for split in ("train", "validation", "test")]
    project.dvc("add", *files)
    project.git("add", "local")
    project.git("commit", "--quiet", "--message", "tracked")
    project.dvc("queue", "remove", "--all")
    project.dvc("exp", "run", "--queue", "download")
    project.dvc("queue", "start")
    wait_for_the_queue(project, failing=0)
    (done,) = tasks(project, "Success")
    project.dvc("exp", "apply", done)
    assert project.read("metrics/download.json")["reviews"]["source"] == "local"
