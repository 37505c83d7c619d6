"""Kill the pipeline at random moments, and check that it ends as if nothing had happened.

python tests/soak.py 20    # kills; on a subset of the embedded source

A `dvc repro` from scratch is killed (SIGKILL to it and all its children) at a random moment,
started again, killed again, and so on until it ends. Then every hash in its dvc.lock, except those
of costs, must be that of an undisturbed run. Prints survived/tried, counted in kills.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import warm
from conftest import Project


def hashes(project: Project) -> dict[str, str]:
    """Return the hashes of outputs in dvc.lock, except costs and the report, which has costs."""
    return {
        out["path"]: out["md5"]
        for stage in project.read("dvc.lock")["stages"].values()
        for out in stage["outs"]
        if not out["path"].startswith(("metrics/costs", "metrics/report"))
    }


def start(project: Project, *stages: str, cold: bool = False) -> subprocess.Popen:
    """Start `dvc repro`, of all stages or up to these; if `cold`, its stages are no forks."""
    programs = Path(sys.executable).parent
    env = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.Popen(
        [programs / "dvc", "repro", *stages],
        cwd=project.path,
        env=env if cold else warm.environment(env),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def kill(process: subprocess.Popen) -> None:
    """Send SIGKILL to the whole process group."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def forget(project: Project) -> None:
    """Delete everything that a run leaves."""
    for path in ("data", "metrics", "tmp", ".dvc/cache", ".dvc/tmp"):
        shutil.rmtree(project.path / path, ignore_errors=True)
    (project.path / "dvc.lock").unlink(missing_ok=True)
    project.git("checkout", "--", "metrics/seeds.json")


def run_and_kill(project: Project, kills: int, longest: float, *stages: str) -> tuple[int, str]:
    """Run these stages to the end, or all if there are none, with at most `kills` kills.

    Returns the number of kills, and stderr, which is empty if the run succeeded.
    """
    done = 0
    while True:
        process = start(project, *stages)
        try:
            timeout = random.uniform(0, longest) if done < kills else None
            _, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            kill(process)
            done += 1
            continue
        if process.returncode and (damaged := _damaged(stderr)):
            # DVC was killed while it wrote the file: do what docs/trust.md says.
            print(f"{damaged} was damaged", flush=True)
            (project.path / damaged).unlink()
            continue
        return done, stderr or "failed" if process.returncode else ""


def _damaged(stderr: str) -> str | None:
    """Return the file of its own that DVC says it cannot read."""
    files = {"./dvc.lock' ": "dvc.lock", "Unable to read RWLock-file": ".dvc/tmp/rwlock"}
    return next((file for said, file in files.items() if said in stderr), None)


def soak(
    project: Project, expected: dict[str, str], kills: int, longest: float, *stages: str
) -> tuple[int, int]:
    """Return the kills survived and tried, in runs that are killed about five times each.

    The runs are of all stages, or up to `stages`, whose outputs have the hashes `expected`.
    """
    survived = tried = 0
    while tried < kills:
        forget(project)
        done, stderr = run_and_kill(project, min(5, kills - tried), longest, *stages)
        tried += done
        same = not stderr and hashes(project) == expected
        survived += done if same else 0
        if not same and not done:
            raise RuntimeError(f"failed without a kill: {stderr}")
        print(f"{survived}/{tried} survived{'' if same else ': ' + stderr[-500:]}", flush=True)
    return survived, tried


def main(kills: int) -> int:
    seed = int(time.time())
    random.seed(seed)
    with tempfile.TemporaryDirectory() as directory:
        project = Project(Path(directory) / "project")
        project.set(source="pypi", dataset__subset=64)
        project.dvc("repro")
        expected = hashes(project)
        print(f"seed {seed}: {len(expected)} outputs to compare", flush=True)
        survived, tried = soak(project, expected, kills, longest=20)
    print(f"survived {survived}/{tried}")
    return 0 if survived == tried else 1


if __name__ == "__main__":
    os.environ["TESTS_COLD"] = "1"
    sys.exit(main(int(sys.argv[1])))
