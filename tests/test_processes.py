"""Stages in two processes (gloo, on the CPU): results equal those of one; one death ends both."""

import csv
import json
import re
import signal
import time

import psutil
import pytest
import soak
import torch
from conftest import ROOT
from test_dag import SCORES, snapshot, stages_run
from test_docs import BLOCK, commands
from workspace import wait_until

from stages.lib.core import declarations

TWO = "torchrun --nproc_per_node 2"
# Of curves: bfloat16 has eight bits of precision, and two processes round different sums. The norm
# of the gradient, which reaches 2 here, then differs in proportion to its size.
TOLERANCE = {"fp32": 1e-3, "bf16": 1e-2}
# All stages share one interpreter, because starting it takes longer than the stages.
STAGES = """
import os, sys
from stages import extract_cls_features, finetune_full, lora
from stages.lib.encoder import precision, processes
from stages.lib.training import parts

if "WORLD_SIZE" in os.environ and precision.resolve("auto") == "fp32":
    parts.TOKENS["cpu"] = 64
processes.leave_group = lambda: processes.state().is_main_process
for stage in (extract_cls_features, finetune_full, lora):
    sys.argv = [stage.__name__, "lora"]
    stage.main()
os._exit(0)
"""


# What docs/gpus.md says to type for two processes on a CPU: one line a launcher.
TYPED = [
    command.line
    for block in BLOCK.finditer((ROOT / "docs/gpus.md").read_text())
    if "tests/test_processes.py" in (block["reason"] or "")
    for command in commands(block["text"])
]


@pytest.fixture(scope="module")
def one_and_two(ran, tmp_path_factory):
    """Run extraction, full training and LoRA without dropout, in one process and in two.

    Batches have 23 of the 24 reviews: of the first batch, one process has a row more than the
    other, and of the second batch, one process has no row. In fp32, two processes compute gradients
    in parts of a few reviews; at 16 bit, sums of parts would round more than TOLERANCE allows.
    """
    directory = tmp_path_factory.mktemp("processes")
    threads = str(torch.get_num_threads())
    projects = []
    for name, launch in {"one": "python", "two": TWO}.items():
        project = ran.copy(directory / name)
        config = project.path / "data/backbone/config.json"
        dropout = ("dropout", "attention_dropout", "seq_classif_dropout")
        config.write_text(json.dumps(json.loads(config.read_text()) | dict.fromkeys(dropout, 0.0)))
        project.set(lora__dropout=0.0)
        for model in ("lora", "finetune_full"):
            project.set(**{f"{model}__{key}": value for key, value in
                           {"lr": 5e-3, "epochs": 20, "batch_size": 23}.items()})  # fmt: skip
        (project.path / "all_stages.py").write_text(STAGES)
        project.run(*launch.split(), "-m", "all_stages", OMP_NUM_THREADS=threads)
        projects.append(project)
    return projects


def curve(project, model, name):
    path = project.path / f"data/curves/{model}/plots/metrics/{name}.tsv"
    with path.open() as file:
        return [float(row[name.partition("/")[2]]) for row in csv.DictReader(file, delimiter="\t")]


def test_two_processes_extract_the_same_bytes(one_and_two):
    one, two = ((p.path / "data/features").glob("*") for p in one_and_two)
    assert {path.name: path.read_bytes() for path in one} == {
        path.name: path.read_bytes() for path in two
    }


@pytest.mark.precision
@pytest.mark.parametrize("model", ["finetune-full", "lora"])
def test_two_processes_train_as_one(one_and_two, model):
    one, two = one_and_two
    losses = curve(one, model, "train/loss")
    assert len(losses) == 20 * 2
    assert min(losses) < 0.5 < max(losses)
    precision = one.read(f"metrics/costs/{model}.json")["precision"]
    for name in ("train/loss", "train/learning_rate", "train/gradient_norm", "validation/loss"):
        relative = (name, precision) == ("train/gradient_norm", "bf16")
        tolerance = {"rel" if relative else "abs": TOLERANCE[precision]}
        expected = pytest.approx(curve(one, model, name), **tolerance)
        assert curve(two, model, name) == expected
    if precision == "fp32":
        assert two.read(f"metrics/{model}.json") == one.read(f"metrics/{model}.json")


def test_costs_tell_the_number_of_processes(one_and_two):
    count = torch.get_num_threads()
    cpu = "cpu, 1 thread" if count == 1 else f"cpu, {count} threads"
    devices = [p.read("metrics/costs/lora.json")["device"] for p in one_and_two]
    assert devices == [f"{times}{cpu}" for times in ("", "2 x ")]


def process(root, **environment):
    """Find the process below `root` with this environment; None if there is none."""
    for child in psutil.Process(root.pid).children(recursive=True):
        try:
            if environment.items() <= child.environ().items():
                return child
        except psutil.Error:
            pass
    return None


def newest(project):
    """Return the step of the newest checkpoint to which both processes have written their parts."""
    steps = [
        int(path.name.partition("-")[2])
        for path in project.path.glob("tmp/checkpoints/*/*/checkpoint-*")
        if is_written(path)
    ]
    return max(steps, default=0)


def is_written(checkpoint):
    try:
        sizes = {path.name: path.stat().st_size for path in checkpoint.iterdir()}
    except FileNotFoundError:  # The Trainer is deleting it.
        return False
    return {"trainer_state.json", "rng_state_1.pth"} <= sizes.keys() and all(sizes.values())


def test_a_killed_process_ends_the_stage_and_the_next_run_goes_on(after, tmp_path):
    after.set(launch=TWO, finetune_full__epochs=30)
    whole = after.copy(tmp_path / "whole")
    whole.dvc("repro", "finetune-full")
    before = snapshot(after)
    for rank in ("1", "0"):
        step = newest(after)
        running = soak.start(after, "finetune-full")
        wait_until(lambda step=step: newest(after) > step, running)
        process(running, RANK=rank).kill()
        start = time.monotonic()
        _, stderr = running.communicate(timeout=60)
        assert time.monotonic() - start < 30
        assert running.returncode != 0
        lines = [line for line in stderr.splitlines() if "error: " in line]
        assert lines == [
            "error: train-finetune-full: one of the 2 processes died or was told to end; "
            "run the same command again to continue"
        ]
        if rank != "0":  # Rank 0 is the one that restores outputs.
            assert snapshot(after) == before
    done = after.dvc("repro", "finetune-full")
    assert len(re.findall("resuming from", done.stderr)) == 1
    assert len(re.findall(r"^epoch 30/30", done.stderr, re.M)) == 1
    assert soak.hashes(after) == soak.hashes(whole)


def launch(project, main, cold=False):
    """Run `main`, the body of a stage's main function, in two processes."""
    body = "\n".join(f"    {line}" for line in ["import os, time", *main])
    (project.path / "a_stage.py").write_text(
        "from stages.lib.core import stage\nfrom stages.lib.core.errors import InputError\n"
        "from stages.lib.schema import params\n"
        f"def main():\n{body}\nstage.run(main)\n"
    )
    return project.run(*TWO.split(), "-m", "a_stage", check=False, cold=cold)


def test_a_mistake_in_the_parameters_is_said_once(project):
    project.set(lora__lr=-1.0)
    done = launch(project, ["params.load('lora')"])
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if "error: " in line]
    assert said == ["error: params.yaml: lora.lr: -1.0 is wrong: it should be greater than 0"]


def test_what_one_process_meets_alone_is_said_alone(project):
    main = ["if os.environ['RANK'] == '1': raise InputError('the disk of this node')"]
    done = launch(project, [*main, "time.sleep(1200)"])
    said = [line for line in done.stderr.splitlines() if "error: " in line]
    assert said == ["error: the disk of this node"]


def test_processes_do_not_outlive_their_launcher(project):
    # One that starts after the launcher's death would not notice it.
    started = "open(os.environ['RANK'], 'w').close()"
    both = "while not (os.path.exists('0') and os.path.exists('1')): time.sleep(0.01)"
    kill = "if os.environ['RANK'] == '0': os.kill(os.getppid(), 9)"
    done = launch(project, [started, both, kill, "time.sleep(1200)"], cold=True)
    assert done.returncode == -signal.SIGKILL
    assert "one of the 2 processes died or was told to end" in done.stderr


def test_both_launchers_have_a_line_to_type():
    assert [re.search("torchrun|accelerate launch", line)[0] for line in TYPED] == [
        "torchrun",
        "accelerate launch",
    ]


# Every script that a launcher may start runs under one of them.
@pytest.mark.parametrize(
    ("typed", "names"),
    list(zip(TYPED, (["finetune-full", "lora"], ["finetune-head"]), strict=True)),
    ids=["torchrun", "accelerate"],
)
def test_an_experiment_with_a_launcher_has_two_processes_in_each_stage(after, typed, names):
    done = after.run("bash", "-c", " ".join([typed, "extract-cls-features", *names]))
    assert {f"train-{name}" for name in names} <= set(stages_run(done))
    were_launched(after, names, typed)


def test_every_stage_that_trains_by_steps_has_the_launcher():
    stages = declarations.read_yaml(str(ROOT / "dvc.yaml"))["stages"]
    launched = {name for name, stage in stages.items() if stage["cmd"].startswith("${launch} -m ")}
    trained = {name for name, stage in stages.items() if "min_steps" in stage.get("params", [])}
    assert trained >= {"train-finetune-head", "train-finetune-full", "train-lora"}
    assert launched == {"extract-cls-features"} | trained


def were_launched(project, names, line):
    """Extraction and the training of these models had two processes, and their scores are whole."""
    for name in ("extract-cls-features", *names):
        assert project.read(f"metrics/costs/{name}.json")["device"].startswith("2 x cpu, "), name
    for name in names:
        scores = project.read(f"metrics/{name}.json")
        assert {split: sorted(scores[split]) for split in scores} == {
            "validation": SCORES,
            "test": SCORES,
        }
    assert project.read("params.yaml")["launch"] in line
