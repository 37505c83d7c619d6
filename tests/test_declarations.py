"""The declarations of a stage in dvc.yaml match what its source uses, in both directions."""

from pathlib import Path

import declarations
import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
yaml = YAML(typ="safe")
STAGES = yaml.load((ROOT / "dvc.yaml").read_text())["stages"]
LIBRARIES = yaml.load((ROOT / "libraries.yaml").read_text())
NAMES = list(STAGES)


def used(name):
    module = STAGES[name]["cmd"].split()[2]
    return declarations.of_stage(name.removeprefix("train-"), module.replace(".", "/") + ".py")


def params_and_libraries(name):
    params, libraries = set(), set()
    for entry in STAGES[name]["params"]:
        if isinstance(entry, dict):
            assert list(entry) == ["libraries.yaml"]
            libraries.update(entry["libraries.yaml"])
        else:
            params.add(entry)
    return params, libraries


def outputs(name):
    stage = STAGES[name]
    entries = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    return {next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries}


@pytest.mark.parametrize("name", NAMES)
def test_deps_has_just_the_script_and_the_rooms_that_it_imports(name):
    declared = {path for path in STAGES[name]["deps"] if path.startswith("stages/")}
    script = STAGES[name]["cmd"].split()[2].replace(".", "/") + ".py"
    assert declared == {script} | declarations.rooms(used(name).modules)


@pytest.mark.parametrize("name", NAMES)
def test_params_has_just_the_sections_that_the_stage_reads(name):
    assert params_and_libraries(name)[0] == used(name).params


@pytest.mark.parametrize("name", NAMES)
def test_libraries_has_just_those_that_the_stage_uses(name):
    assert params_and_libraries(name)[1] == used(name).libraries & set(LIBRARIES)


@pytest.mark.parametrize("name", NAMES)
def test_paths_in_the_source_are_deps_or_outputs(name):
    assert all(f"${{{key}.path}}" in STAGES["download"]["deps"] for key in ("dataset", "backbone"))
    known = set(STAGES[name]["deps"]) | outputs(name)
    for path in used(name).paths:
        assert any(other == path or other.startswith(f"{path}/") for other in known), path


@pytest.mark.parametrize("name", NAMES)
def test_data_in_deps_are_named_in_the_source(name):
    paths = used(name).paths
    for dep in STAGES[name]["deps"]:
        if dep.startswith(("data/", "metrics/")):
            assert any(f"{dep}/".startswith(f"{path}/") for path in paths), dep


def test_each_room_but_the_schema_is_a_dependency():
    declared = {dep for stage in STAGES.values() for dep in stage["deps"]}
    rooms = {f"stages/lib/{path.parent.name}" for path in ROOT.glob("stages/lib/*/__init__.py")}
    assert rooms - declared == {"stages/lib/schema"}


def test_pinned_libraries_are_those_that_are_installed_by_requirements_txt():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pinned = dict(line.partition(" ;")[0].split("==") for line in lines if "==" in line)
    assert {name: pinned[name] for name in LIBRARIES} == LIBRARIES


@pytest.mark.parametrize("name", ["train-svm", "svm", "report"])
def test_stages_that_compute_no_tensors_never_import_torch(name):
    """Importing torch takes seconds."""
    assert "torch" not in used(name).libraries | used(name).modules
    assert "transformers" not in used(name).libraries
