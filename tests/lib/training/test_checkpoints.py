"""stages.lib.training.checkpoints: only complete checkpoints of the same run are resumed."""

import os
import shutil
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
import torch

from stages.lib.training import checkpoints

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/rows").write_text("rows")
    shutil.copy(ROOT / "libraries.yaml", tmp_path)


def directory(tmp_path, settings=("lr", 1)):
    return checkpoints.directory("model", [tmp_path / "data"], list(settings))


def save(directory, step, state="{}", random_states=("rng_state.pth",)):
    """A checkpoint as the Trainer writes it."""
    path = directory / f"checkpoint-{step}"
    path.mkdir(parents=True)
    for name in ["optimizer.pt", "scheduler.pt", *random_states]:
        torch.save({"step": step}, path / name)
    (path / "model.safetensors").write_bytes(b"weights")
    if state is not None:
        (path / "trainer_state.json").write_text(state)
    return path


def test_the_newest_whole_checkpoint_is_the_last(tmp_path):
    here = directory(tmp_path)
    save(here, 90)
    newest = save(here, 100)
    assert checkpoints.last(here, 1) == str(newest)


@pytest.mark.parametrize("state", [None, '{"epoch": 1'])
def test_a_half_written_checkpoint_is_deleted(tmp_path, state):
    here = directory(tmp_path)
    whole, half = save(here, 90), save(here, 100, state)
    assert checkpoints.last(here, 1) == str(whole)
    assert not half.exists()


@pytest.mark.parametrize(
    "name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "model.safetensors"]
)
def test_a_half_deleted_checkpoint_is_deleted(tmp_path, name):
    here = directory(tmp_path)
    (save(here, 100) / name).unlink()
    assert checkpoints.last(here, 1) is None
    assert list(here.iterdir()) == []


def test_a_checkpoint_of_two_processes_has_the_random_state_of_both(tmp_path):
    here = directory(tmp_path)
    whole = save(here, 90, random_states=["rng_state_0.pth", "rng_state_1.pth"])
    save(here, 100, random_states=["rng_state_0.pth"])
    assert checkpoints.last(here, 2) == str(whole)
    assert checkpoints.last(here, 1) is None


@pytest.mark.parametrize("size", [0, 100])
def test_a_checkpoint_with_a_random_state_that_was_cut_off_is_deleted(tmp_path, size):
    """Another process was killed while it wrote its part."""
    here = directory(tmp_path)
    states = ["rng_state_0.pth", "rng_state_1.pth"]
    whole, half = (save(here, step, random_states=states) for step in (90, 100))
    os.truncate(half / "rng_state_1.pth", size)
    assert checkpoints.last(here, 2) == str(whole)
    assert not half.exists()


def test_the_code_is_that_of_all_loaded_modules_of_ours_and_the_script(monkeypatch, tmp_path):
    from stages.lib.core import outputs

    script = tmp_path / "script.py"
    main = ModuleType("__main__")
    main.__file__ = str(script)
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setitem(sys.modules, "stages.without_a_file", ModuleType("without_a_file"))
    code = set(checkpoints._code())
    assert {Path(outputs.__file__), script} <= code
    assert all(path.is_relative_to(ROOT / "stages") for path in code - {script})


def test_without_a_checkpoint_training_starts_anew(tmp_path):
    assert checkpoints.last(directory(tmp_path), 1) is None


def test_other_settings_never_resume_it(tmp_path):
    old = save(directory(tmp_path), 100)
    assert checkpoints.last(directory(tmp_path, ("lr", 2)), 1) is None
    assert not old.exists()


def test_other_data_never_resume_it(tmp_path):
    save(directory(tmp_path), 100)
    (tmp_path / "data/rows").write_text("other")
    assert checkpoints.last(directory(tmp_path), 1) is None


def test_other_code_never_resumes_it(tmp_path, monkeypatch):
    save(directory(tmp_path), 100)
    code = tmp_path / "code.py"
    code.write_text("changed")
    monkeypatch.setattr(checkpoints, "_code", lambda: [code])
    assert checkpoints.last(directory(tmp_path), 1) is None


def test_other_versions_of_libraries_never_resume_it(tmp_path, monkeypatch):
    save(directory(tmp_path), 100)
    monkeypatch.setattr(metadata, "version", lambda name: "0.0.0")
    assert checkpoints.last(directory(tmp_path), 1) is None


def test_files_may_be_listed_in_any_order(tmp_path, monkeypatch):
    (tmp_path / "data/more").write_text("more")
    before = directory(tmp_path)
    listed = checkpoints._files
    monkeypatch.setattr(checkpoints, "_files", lambda inputs: listed(inputs)[::-1])
    assert directory(tmp_path) == before


def test_checkpoints_are_where_neither_git_nor_dvc_looks_until_they_are_removed(tmp_path):
    done, other = (save(checkpoints.directory(name, [], []), 100) for name in ("done", "other"))
    assert done.is_relative_to("tmp/checkpoints/done")
    checkpoints.remove("done")
    assert list(Path("tmp/checkpoints").iterdir()) == [other.parents[1]]


def test_the_same_run_resumes_it(tmp_path):
    save(directory(tmp_path), 100)
    assert checkpoints.last(directory(tmp_path), 1) is not None
