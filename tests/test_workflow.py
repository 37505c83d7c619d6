"""The workflow of GitHub's CI: in a fresh clone each job's commands work, in their order.

Actions (`uses`) and the service behind `gh` are GitHub's. Everything else runs as GitHub runs it.
"""

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import workspace
import yaml

from commands import verify

ROOT = Path(__file__).parents[1]
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
JOBS = WORKFLOW["jobs"]
# GitHub's own words for a step's shell; without one there is no pipefail.
SHELLS = {None: ["bash", "-e"], "bash": ["bash", "--noprofile", "--norc", "-eo", "pipefail"]}
# The first entry of the matrix. The interpreter of the tests stands for the Python that it names.
GITHUB = {
    "matrix": JOBS["test"]["strategy"]["matrix"]["include"][0],
    "github": {"base_ref": "main", "token": "secret", "event": {"number": 7}},
}
NARROW = {
    # This test is part of the suite, so `make test` runs only a part of it that takes seconds.
    "ARGS": "tests/lib/core/test_predictions.py",
    # Checking the libraries' types takes a minute, so the cache of the project under test is used.
    "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache"),
    # All is installed: pip has nothing to fetch, and shows that the clone's environment is whole.
    "PIP_NO_INDEX": "1",
}
# What changes a machine or comes from GitHub; `gh` shows what it was told.
STUBS = {
    "actionlint": "echo the workflow is checked",
    "apt-get": "exit 0",
    "sudo": "exit 0",
    "gh": 'echo "$@"; test -n "$GH_TOKEN"; cat "${@: -1}"',
}


def evaluate(text, context):
    """A value of the workflow with its expressions replaced; an unknown name is a KeyError."""

    def value(match):
        found = context
        for name in match[1].split("."):
            found = found[name]
        return str(found)

    return re.sub(r"\$\{\{ *([\w.]+) *\}\}", value, str(text))


def environment(*levels):
    """The variables of workflow, job and step; the last one wins."""
    return {
        name: evaluate(value, GITHUB)
        for level in levels
        for name, value in level.get("env", {}).items()
    }


def shell(*levels):
    """The command that runs a step's script: the step's own shell, or the default nearest to it."""
    *outer, step = levels
    names = [level.get("defaults", {}).get("run", {}).get("shell") for level in outer]
    return SHELLS[next(filter(None, [step.get("shell"), *reversed(names)]), None)]


class Runner:
    """A machine of GitHub's with a fresh clone of this repository."""

    def __init__(self, directory):
        self.path = directory / "clone"
        self.summary = directory / "summary.md"
        self._bin = directory / "bin"
        self._bin.mkdir()
        for name, script in STUBS.items():
            (self._bin / name).write_text(f"#!/bin/bash -e\n{script}\n")
            (self._bin / name).chmod(0o755)
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(self.path)], check=True)
        # `make setup` finds an environment that lacks nothing, in place of two minutes of pip.
        venv.create(self.path / ".venv", with_pip=False)
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        packages = self.path / f".venv/lib/{version}/site-packages"
        (packages / "shared.pth").write_text(sysconfig.get_path("purelib"))

    def git(self, *args):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *identity, *args], cwd=self.path, check=True, capture_output=True)

    def run(self, job):
        """Run the steps of a job in order; gives what they printed."""
        printed = ""
        for step in job["steps"]:
            if "run" in step:
                printed += self._run(job, step)
            else:
                self._look(step)
        return printed

    def _run(self, job, step):
        levels = (WORKFLOW, job, step)
        path = [self._bin, Path(sys.executable).parent, os.environ["PATH"]]
        own = {
            "GITHUB_ACTIONS": "true",
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "PATH": os.pathsep.join(map(str, path)),
        }
        script = self._bin.parent / "step.sh"
        script.write_text(evaluate(step["run"], GITHUB))
        done = subprocess.run(
            [*shell(*levels), script],
            cwd=self.path,
            env=os.environ | own | environment(*levels) | NARROW,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{step['run']}\n{done.stdout}"
        return done.stdout

    def _look(self, step):
        """The files that an action is told of are there."""
        for key in ("path", "cache-dependency-path"):
            for pattern in str(step.get("with", {}).get(key, "")).split():
                assert list(self.path.glob(pattern)), step


@pytest.fixture
def runner(tmp_path):
    return Runner(tmp_path)


def test_the_job_test_lints_and_tests(runner):
    printed = runner.run(JOBS["test"])
    assert "precision: auto is fp32 here" in printed
    assert "All checks passed!" in printed
    assert "the workflow is checked" in printed
    assert re.search(r"^=+ \d+ passed in .*=$", printed, re.M)


def test_the_job_subset_runs_the_pipeline_and_shows_its_report(runner, embedded):
    # The stages ran there on the same reviews: with its cache nothing is trained again.
    (runner.path / ".dvc/config.local").write_text(
        f"[cache]\n    dir = {embedded.path / '.dvc/cache'}\n"
    )
    runner.run(JOBS["subset"])
    summary = runner.summary.read_text()
    assert "64 reviews" in summary
    assert "\n| finetune-full " in summary
    assert "![" not in summary


def test_the_job_report_comments_with_the_results(runner):
    metrics = runner.path / "metrics/svm.json"
    committed = metrics.read_text()
    metrics.write_text(re.sub(r'"accuracy": [\d.]+', '"accuracy": 0.125', committed))
    runner.git("commit", "--all", "--message", "another base")
    runner.git("update-ref", "refs/remotes/origin/main", "HEAD")
    runner.git("reset", "--hard", "HEAD~")
    printed = runner.run(JOBS["report"])
    assert "pr comment 7 --edit-last --create-if-none --body-file comment.md" in printed
    assert "| finetune-full " in printed
    assert re.search(r"\| metrics/svm.json +\| test.accuracy +\| 0.125 ", printed)
    assert runner.summary.read_text() in printed


def test_the_job_verify_compares_with_the_committed_subset(runner, tmp_path):
    """Small stages stand for the pipeline's, which would train for minutes."""
    workspace.score(runner.path, tmp_path / "outside")
    env = workspace.environment()
    subprocess.run(["dvc", "repro"], cwd=runner.path, env=env, check=True, capture_output=True)
    figures = verify.read(runner.path)
    (runner.path / verify.SAVED).write_text(json.dumps({"subset": 256, "models": figures}))
    runner.git("add", ".")
    runner.git("commit", "--message", "small")
    printed = runner.run(JOBS["verify"])
    assert "on 256 reviews per split" in printed
    assert "\nReproduced: the committed scores of 2 models.\n" in printed


def test_jobs_of_the_schedule_are_not_those_of_a_push():
    assert {name: job["if"] for name, job in JOBS.items()} == {
        "test": "github.event_name != 'schedule'",
        "subset": "github.event_name != 'schedule'",
        "report": "github.event_name == 'pull_request'",
        "verify": "github.event_name == 'schedule'",
    }
    # `on` is a truth value in YAML 1.1.
    assert WORKFLOW[True]["schedule"]


def test_every_job_is_run_here():
    assert set(JOBS) == {"test", "subset", "report", "verify"}
