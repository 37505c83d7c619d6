"""A DVC workspace with small stages, made and run within two seconds: for what happens around them.

The outputs of `write` are a folder and a file in DVC's cache, and metrics in git, where the last
commit has an older version than dvc.lock, as between two commits. Those of `draw` are a folder in
git alone, as the report's are.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from conftest import LONG, ROOT

DVC_YAML = """
stages:
  write:
    cmd: python write.py
    deps: [write.py]
    outs: [folder, file.txt]
    metrics: [numbers.json: {cache: false}]
  draw:
    cmd: mkdir pictures && touch pictures/a.svg
    outs: [pictures: {cache: false}]
"""
OUTPUTS = ("folder", "file.txt", "numbers.json")
FILES = {
    "folder/one.txt": "one",
    "folder/inner/two.txt": "two",
    "file.txt": "three",
    "numbers.json": '{"score": 2}',
}
COMMITTED = {"numbers.json": '{"score": 1}', "pictures/a.svg": ""}
# What a test writes into accident.py happens half-way.
SCRIPT = f"""
from pathlib import Path
from stages.lib.core import stage

def main():
    assert not any(Path(path).exists() for path in {OUTPUTS}), "DVC has removed nothing"
    accident = Path("accident.py")
    for name, text in {FILES}.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("half" if accident.exists() else text)
        if accident.exists() and name == "file.txt":
            exec(accident.read_text())

stage.run(main)
"""


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def remove(directory: Path, *outputs: str) -> None:
    """What DVC does with the outputs of `write` before it starts the command."""
    for name in outputs or OUTPUTS:
        path = directory / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def content(directory: Path) -> dict[str, str]:
    """Files of the outputs of `write`, by their paths."""
    files = [directory / name for name in OUTPUTS if (directory / name).is_file()]
    files += (path for path in (directory / "folder").rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_text() for path in files}


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}


def start(directory: Path, *command: str) -> subprocess.Popen:
    """Start a command there, in a process group of its own."""
    # Tests in the background, or under nohup, ignore these, and so would what they start.
    ignored = (signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ignored}
    try:
        return subprocess.Popen(
            command,
            cwd=directory,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_until(condition: Callable[[], object], process: subprocess.Popen) -> None:
    """Wait until the condition holds, while the process runs."""
    deadline = time.monotonic() + LONG
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    """Wait until the process has written something to `path`."""
    wait_until(lambda: path.exists() and path.read_text(), process)


def make(directory: Path) -> None:
    """Make the workspace, and run it for the first time."""
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]

    def run(*command: str) -> None:
        subprocess.run(command, cwd=directory, env=environment(), check=True, capture_output=True)

    directory.mkdir()
    write(directory, {"dvc.yaml": DVC_YAML, "write.py": SCRIPT, "libraries.yaml": "{}\n"})
    write(directory, COMMITTED)
    run("git", "init", "--quiet")
    run("git", "add", ".")
    run(*git, "commit", "--quiet", "--message", "start")
    # In one process, because the start of DVC takes longer than either.
    code = "from dvc.cli import main; main(['init', '-q']) or main(['repro', '-q'])"
    run(sys.executable, "-c", code)
    assert content(directory) == FILES


# A pipeline of two models, each by one small stage, whose accuracies are those of a file outside.
SCORED = """
stages:
  download:
    cmd: python score.py
    deps: [score.py]
    params: [source, dataset]
    plots: [metrics/download.json: {cache: false}]
  svm: &model
    cmd: python score.py svm
    deps: [score.py, metrics/download.json]
    params: [seed, precision]
    outs: [data/predictions/svm.csv]
    metrics: [metrics/svm.json: {cache: false}]
    plots: [metrics/costs/svm.json: {cache: false}]
  lora:
    <<: *model
    cmd: python score.py lora
    outs: [data/predictions/lora.csv]
    metrics: [metrics/lora.json: {cache: false}]
    plots: [metrics/costs/lora.json: {cache: false}]
artifacts:
  svm: {path: data/models/svm, type: model}
  lora: {path: data/models/lora, type: model}
"""
SCORE = """
import json, sys, time
from pathlib import Path

outside = Path(%r)

def write(path, text):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)

with (outside / "log").open("a") as log:
    print(*sys.argv[1:], file=log)
if len(sys.argv) == 1:
    split = {"reviews": 1000}
    parts = {"source": "pypi"}
    write("metrics/download.json", json.dumps({
        "reviews": parts, "backbone": parts, "train": split, "validation": split, "test": split,
        "duplicates_across_splits": {},
    }))
    write(outside / "params.yaml", Path("params.yaml").read_text())
    raise SystemExit
model = sys.argv[1]
found = json.loads((outside / "accuracies.json").read_text())[model]
if found is None:
    from stages.lib.core import stage
    write(outside / "started", "started")
    stage.run(lambda: time.sleep(600))
scores = dict(zip(("validation", "test"), ({"accuracy": one, "f1": one} for one in found)))
write(f"data/predictions/{model}.csv", json.dumps(found))
write(f"metrics/{model}.json", json.dumps(scores))
write(f"metrics/costs/{model}.json", json.dumps({
    "seconds": 1.5, "samples_per_second": 1, "size_bytes": 1, "peak_memory_mb": 1, "device": "cpu",
    "precision": "fp32", "trainable_parameters": 1, "total_parameters": 1,
}))
"""
ACCURACIES = {"svm": [0.7, 0.7], "lora": [0.8, 0.8]}


def score(directory: Path, outside: Path) -> None:
    """Give the project in `directory` this pipeline; `outside` has its accuracies and its log."""
    outside.mkdir(exist_ok=True)
    (outside / "accuracies.json").write_text(json.dumps(ACCURACIES))
    write(directory, {"dvc.yaml": SCORED, "score.py": SCORE % str(outside)})
