"""tests/warm.py: if programs no longer start warm, only these tests fail, and the suite is slow."""

import os
import sys

import pytest
from conftest import Project

PROBE = "import sys; print('torch' in sys.modules, 'huggingface_hub' in sys.modules)\n"

pytestmark = pytest.mark.skipif(
    sys.platform != "linux"
    or "TESTS_COLD" in os.environ
    or "PYTEST_XDIST_WORKER" not in os.environ,
    reason="only workers on Linux fork; another process may have several threads",
)


@pytest.fixture
def probe(tmp_path):
    """Say whether PyTorch and the Hub's client were there when a program started."""
    (tmp_path / "probe.py").write_text(PROBE)
    project = Project.at(tmp_path)
    return lambda **variables: project.run("python", "-m", "probe", **variables).stdout.split()


def test_a_program_starts_with_the_libraries(probe):
    assert probe() == ["True", "True"]


def test_the_client_of_a_hub_is_there_the_second_time_that_its_variables_come(probe):
    assert probe(HF_HOME="/nonexistent") == ["True", "False"]
    assert probe(HF_HOME="/nonexistent") == ["True", "True"]


def test_a_variable_that_a_library_may_read_starts_an_interpreter(probe):
    assert probe(OMP_NUM_THREADS="2") == ["False", "False"]


@pytest.mark.parametrize("time", ["first", "second"])
def test_a_variable_that_a_test_leaves_behind_makes_no_later_one_start_cold(probe, time):
    assert probe() == ["True", "True"]
    os.environ["LEFT_BEHIND"] = time
    assert probe() == ["False", "False"]
