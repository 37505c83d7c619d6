"""Trials of a search: DVC experiments of one stage, apart from the workspace."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from commands import programs
from commands.ranges import Values
from stages.lib.core import stage
from stages.lib.core.errors import InputError
from stages.lib.core.paths import COSTS, METRICS

# The log of each trial, and the studies, are here.
DIRECTORY = Path("tmp/tuning")
# Seconds that an interrupted experiment has to clean up before it is killed.
PATIENCE = 30


class Failed(Exception):
    """An experiment that gave no score; the message is its reason in one line."""


def run(model: str, name: str, changes: Values) -> tuple[float, float]:
    """Run an experiment of the model's stage with changed parameters, outside the workspace.

    Returns the validation accuracy and the seconds of training. Raises Failed.
    """
    log = log_of(name)
    settings = [
        part
        for key, value in changes.items()
        for part in ("--set-param", f"{model}.{key}={json.dumps(value)}")
    ]
    command = [
        sys.executable,
        "-m",
        "dvc",
        "exp",
        "run",
        "--temp",
        "--name",
        name,
        *settings,
        model,
    ]
    with log.open("wb") as file, _child(command, file) as child:
        status = child.wait()
    if status != 0:
        raise Failed(f"{_reason(log, status)} ({log})")
    revision = experiments().get(name)
    if revision is None:
        raise Failed(f"DVC kept no experiment ({log})")
    scores = json.loads(programs.at(revision, METRICS / f"{model}.json"))
    return scores["validation"]["accuracy"], _seconds(model, revision)


def _seconds(model: str, revision: str) -> float:
    try:
        costs = json.loads(programs.at(revision, COSTS / f"{model}.json"))
    except InputError:
        return 0
    return costs.get("seconds", 0)


@contextlib.contextmanager
def _child(command: list[str], output: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a process and its children as a group that ends whenever this process does."""
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=stage.die_with_parent,  # noqa: PLW1509  # a single system call
    )
    try:
        yield child
    except BaseException:
        # An impatient user may interrupt again before the experiment has cleaned up.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(PATIENCE)
                break
        raise


def _reason(log: Path, status: int) -> str:
    """Find the line of an experiment's output that best says why it failed."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    for pattern in (r"error: (.*)", r"([\w.]*(?:Error|Exception)\b.*)", r"ERROR: (.*)"):
        found = [match[1] for line in lines if (match := re.match(pattern, line))]
        if found:
            return stage.printable(found[-1])
    return f"exit status {status}"


def log_of(name: str) -> Path:
    return DIRECTORY / f"{name}.log"


def experiments() -> dict[str, str]:
    """Return the revisions of the experiments on the last commit, by name."""
    head = programs.output("git", "rev-parse", "HEAD").strip()
    lines = _references("%(refname:lstrip=4) %(objectname)", f"refs/exps/{head[:2]}/{head[2:]}")
    return dict(line.split() for line in lines)


def next_name(model: str, before: Sequence[str]) -> str:
    """Return the name of the next experiment, with a number that no earlier one has.

    `before` are the names in the study, of which some may have been removed.
    """
    names = [*_references("%(refname:lstrip=4)", "refs/exps"), *before]
    numbers = [int(match[1]) for name in names if (match := _numbered(model).fullmatch(name))]
    return f"tune-{model}-{max(numbers, default=0) + 1:03}"


def _references(form: str, prefix: str) -> list[str]:
    return programs.output("git", "for-each-ref", f"--format={form}", prefix).splitlines()


def _numbered(model: str) -> re.Pattern[str]:
    return re.compile(rf"tune-{re.escape(model)}-(\d+)")


def remove_leftovers(model: str) -> None:
    """Remove the copies of the workspace that killed searches of this model have left.

    `dvc exp show` would list them as running for ever.
    """
    for path in Path(".dvc/tmp/exps/standalone/run").glob("*/*.run"):
        about = json.loads(path.read_text(encoding="utf-8"))
        copy = Path(about["root_dir"])
        if copy.is_dir() and _numbered(model).fullmatch(about["name"] or ""):
            # Its stage may still be ending, and may write there until then.
            shutil.rmtree(copy, ignore_errors=True)
            shutil.rmtree(path.parent, ignore_errors=True)


def check_workspace() -> None:
    """Raise InputError unless experiments would start from what the user sees."""
    if not Path("dvc.lock").is_file():
        raise InputError("dvc.lock: no such file here; run 'dvc repro' and commit its results")
    if changed := programs.changed():
        raise InputError(
            f"{changed}: changed since the last commit, from which experiments start; "
            "'git commit' or 'git stash' it, then run the same command again"
        )


def check_queue() -> None:
    """Raise InputError if DVC's queue is running an experiment, which would compete for cores."""
    if not Path(".dvc/tmp/exps/celery").is_dir():
        return
    with programs.repository() as repo:
        running = [entry.name or "?" for entry in repo.experiments.celery_queue.iter_active()]
    if running:
        raise InputError(
            f"DVC's queue is running {', '.join(running)}; wait for it ('dvc queue status') or "
            "stop it ('dvc queue stop --kill')"
        )
