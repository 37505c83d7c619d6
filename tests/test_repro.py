"""`make repro` and `make demo`: dvc repro, with what it will do before and what came out after."""

import os
import re
import shutil
import signal
import subprocess

import pytest
from conftest import ROOT
from test_declarations import NAMES
from workspace import start, wait_for

from commands import repro

MARK = "Demonstration on 64 reviews per split"


def run(project, command="repro", **env):
    return project.run("python", "-m", f"commands.{command}", check=False, **env)


def answered(path):
    """The first sentence of the answer in a report."""
    return re.search(r"^\*\*(.+?)\*\* ", path.read_text(), re.M)[1]


def planned(done):
    """The lines of the plan by their stages: the duration and the reasons."""
    lines = done.stdout.partition("because")[2].partition("\n\n")[0].splitlines()[1:]
    return {words[0]: words[1:] for words in (re.split(r"\s{2,}", line.strip()) for line in lines)}


def test_where_nothing_changed_the_answer_is_all(ran):
    done = run(ran)
    first, answer, page = done.stdout.splitlines()
    assert first == "Nothing changed since the last run."
    assert answer == answered(ran.path / "metrics/report.md")
    assert page == f"The report: {ran.path / 'metrics/report.html'}"
    assert (done.returncode, done.stderr) == (0, "")


def test_a_change_names_the_stages_that_it_runs_and_ends_with_the_scores(after):
    after.set(svm__C=0.02)
    measured = after.read("metrics/costs/svm.json")["seconds"]
    done = run(after)
    assert done.returncode == 0, done.stderr
    plan = planned(done)
    assert list(plan) == ["train-svm", "svm", "cards", "report"]
    assert plan["train-svm"] == [f"{measured:.3g} s", "svm modified"]
    assert plan["svm"] == ["not measured", "after train-svm"]
    assert f"To run: 4 of {len(NAMES)} stages; those that were measured take about" in done.stdout
    assert set(re.findall(r"Running stage '(.+)'", done.stdout)) == set(plan)
    accuracy = after.read("metrics/svm.json")["test"]["accuracy"]
    (row,) = re.findall(r"^svm +[\d.]+ +([\d.]+) +33 ", done.stdout.rpartition("model")[2], re.M)
    assert row == f"{accuracy:.3f}"
    assert f"\n{answered(after.path / 'metrics/report.md')}\n" in done.stdout
    assert "\x1b" not in done.stdout


def test_in_a_clone_everything_is_planned_from_the_committed_costs(ran, tmp_path):
    clone = ran.copy(tmp_path / "clone")
    shutil.rmtree(clone.path / "data")
    shutil.rmtree(clone.path / ".dvc/cache")
    clone.set(dataset__path="nowhere.csv")
    done = run(clone)
    plan = planned(done)
    assert len(plan) == len(NAMES)
    assert plan["download"][0] == repro.DOWNLOAD
    assert plan["claims"] == ["not measured", "after train-lora"]
    assert plan["train-lora"][1] == "no data/models/lora and 2 more, after tokenize"
    # The status and the message are DVC's, and no result is shown.
    assert done.returncode == clone.dvc("repro", check=False).returncode != 0
    assert "nowhere.csv" in done.stderr
    assert "The report: " not in done.stdout


def test_a_damaged_lock_comes_with_advice(after):
    (after.path / "dvc.lock").write_text("")
    done = run(after)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: './dvc.lock' validation failed")
    assert line.endswith("'dvc repro' then finds in DVC's cache what was finished since")


@pytest.mark.parametrize(
    "fault",
    [
        "echo '<<<<<<< HEAD' >> dvc.lock",
        "echo dvc.lock >> .gitignore; git rm --quiet dvc.lock",
        "echo 'x: [' >> dvc.yaml",
    ],
)
def test_what_no_kill_has_damaged_is_left_to_dvc(after, fault):
    after.run("bash", "-c", fault)
    done = run(after)
    assert done.returncode == after.dvc("repro", check=False).returncode != 0
    assert "git restore" not in done.stderr


def test_what_the_cache_has_is_restored_and_not_announced(after):
    shutil.rmtree(after.path / "data/models")
    done = run(after)
    assert done.returncode == 0, done.stderr
    assert "To run" not in done.stdout
    assert (after.path / "data/models/lora").is_dir()
    assert "The report: " in done.stdout


def test_what_dvc_cannot_read_dvc_explains(after):
    (after.path / "dvc.yaml").write_text("stages: [")
    done = run(after)
    expected = after.dvc("repro", check=False)
    assert (done.returncode, done.stderr) == (expected.returncode, expected.stderr)
    assert done.returncode != 0


@pytest.fixture
def sleeping(project):
    """A project whose only stage starts and then does not end by itself."""
    started = project.path.parent / "started"
    (project.path / "wait.py").write_text(
        "import pathlib, time\nfrom stages.lib.core import stage\n"
        "def main():\n"
        f"    pathlib.Path({str(started)!r}).write_text('started')\n"
        "    time.sleep(600)\n"
        "stage.run(main)\n"
    )
    (project.path / "dvc.yaml").write_text(
        "stages:\n  lora:\n    cmd: python wait.py\nartifacts: {lora: {path: data}}\n"
    )
    project.git("add", ".")
    project.git("commit", "--quiet", "--message", "sleeping")
    return project


@pytest.mark.parametrize("command", ["repro", "demo"])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_dvc_too_and_leaves_nothing(sleeping, command, sent):
    """SIGINT as a terminal sends it, to all processes; SIGTERM to the command alone."""
    before = sleeping.git("status", "--porcelain")
    process = start(sleeping.path, "python", "-m", f"commands.{command}")
    wait_for(sleeping.path.parent / "started", process)
    if sent == signal.SIGINT:
        os.killpg(process.pid, sent)
    else:
        process.send_signal(sent)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    assert "commands/" not in stderr  # no traceback of the command itself
    assert "report: " not in stdout
    if sent == signal.SIGTERM:
        assert process.returncode == 143
    if command == "demo":
        assert list(sleeping.path.glob("tmp/*")) == []
        assert sleeping.git("status", "--porcelain") == before


@pytest.fixture
def shown(embedded, tmp_path):
    """A demonstration in a project of the whole data, whose cache has that of 64 reviews."""
    project = embedded.copy(tmp_path / "shown")
    project.git("checkout", "--quiet", "--", "params.yaml")
    project.set(source="pypi")
    (project.path / "dvc.lock").unlink()
    shutil.rmtree(project.path / "data")
    project.before = everything(project)
    project.done = run(project, "demo")
    return project


def everything(project):
    """The bytes of all files but those of git, of DVC and of the demonstration, by their paths."""
    return {
        path.relative_to(project.path): path.read_bytes()
        for path in project.path.rglob("*")
        if path.is_file()
        and path.relative_to(project.path).parts[0] not in (".git", ".dvc", "tmp")
        and path.suffix != ".pyc"
    }


def temporary(project):
    """Name what is in tmp; what trainings leave there is older than the demonstration."""
    return {path.name for path in (project.path / "tmp").iterdir()}


def test_a_demonstration_is_marked_everywhere_and_leaves_the_workspace_as_it_was(shown, ran):
    done = shown.done
    assert done.returncode == 0, done.stderr
    assert everything(shown) == shown.before
    assert temporary(shown) == temporary(ran) | {"demo"}
    assert done.stdout.startswith(f"Demonstration: {len(NAMES)} stages on 64 reviews per split")
    assert MARK in done.stdout
    *_, answer, page = done.stdout.splitlines()
    assert answer == f"Demonstration: {answered(shown.path / 'tmp/demo/report.md')}"
    assert page == f"The demonstration's report: {shown.path / 'tmp/demo/report.html'}"
    markdown = (shown.path / "tmp/demo/report.md").read_text()
    html = (shown.path / "tmp/demo/report.html").read_text()
    assert markdown.startswith("# Demonstration: ")
    assert "**This is a demonstration** on 64 reviews per split" in markdown
    assert "<title>Demonstration: " in html
    assert "<strong>This is a demonstration</strong> on 64 reviews per split" in html
    for picture in re.findall(r"\]\((.+\.png)\)", markdown):
        assert (shown.path / "tmp/demo" / picture).is_file()


def test_a_demonstration_that_fails_keeps_the_last_one_and_dvcs_status(ran, tmp_path):
    project = ran.copy(tmp_path / "project")
    project.set(dataset__path="nowhere.csv")
    kept = project.path / "tmp/demo/report.html"
    kept.parent.mkdir(parents=True)
    kept.write_text("the last one")
    done = run(project, "demo")
    assert done.returncode == 255
    assert "nowhere.csv" in done.stderr
    assert kept.read_text() == "the last one"
    assert temporary(project) == temporary(ran) | {"demo"}


def test_reviews_of_the_users_own_are_read_where_they_are_unless_copied(ran, tmp_path):
    from commands import apart

    project = ran.copy(tmp_path / "project")
    (project.path / "own").mkdir()
    (project.path / "own/train.csv").write_text("text,label\n")
    project.set(dataset__path="own/")
    copy = project.copy(tmp_path / "copy")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.path)
        apart.set_params(copy.path)
        assert copy.read("params.yaml")["dataset"]["path"] == "own/"
        (project.path / "own/.hidden").write_text("")
        apart.set_params(copy.path)
        assert copy.read("params.yaml")["dataset"]["path"] == "own/"
        (project.path / "own/test.csv").write_text("text,label\n")
        apart.set_params(copy.path, dataset__subset=64)
    assert copy.read("params.yaml")["dataset"]["path"] == str(project.path / "own")
    assert copy.read("params.yaml")["dataset"]["subset"] == 64


@pytest.mark.parametrize("value", ["", "1"])
def test_modules_are_compiled_in_advance_where_python_may_not_keep_them(value):
    """Otherwise every stage would compile them again."""
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": value}
    command = ("make", "--dry-run", "--always-make", "setup")
    printed = subprocess.check_output(command, cwd=ROOT, env=environment, text=True)
    (install,) = (line for line in printed.splitlines() if "-r requirements.txt" in line)
    assert ("--no-compile" in install) is (not value)


def test_make_calls_them():
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^repro: .*\n\t@python -m commands.repro$", makefile, re.M)
    assert re.search(r"^demo: .*\n\t@python -m commands.demo$", makefile, re.M)
