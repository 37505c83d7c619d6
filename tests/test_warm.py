"""tests/warm.py: if programs no longer start warm, only these tests fail, and the suite is slow."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import warm
from conftest import Project
from workspace import wait_for

PROBE = "import sys; print('torch' in sys.modules, 'huggingface_hub' in sys.modules)\n"

pytestmark = pytest.mark.skipif(
    sys.platform != "linux"
    or "TESTS_COLD" in os.environ
    or "PYTEST_XDIST_WORKER" not in os.environ,
    reason="only workers on Linux fork; another process may have several threads",
)


@pytest.fixture
def project(tmp_path):
    """A directory with a program that says whether PyTorch and the Hub's client were there."""
    (tmp_path / "probe.py").write_text(PROBE)
    return Project.at(tmp_path)


@pytest.fixture
def probe(project):
    """What the program says."""
    return lambda **variables: project.run("python", "-m", "probe", **variables).stdout.split()


def test_a_program_starts_with_the_libraries(probe):
    assert probe() == ["True", "True"]


def test_the_client_of_a_hub_is_there_the_second_time_that_its_variables_come(probe):
    assert probe(HF_HOME="/nonexistent") == ["True", "False"]
    assert probe(HF_HOME="/nonexistent") == ["True", "True"]


def test_a_variable_that_a_library_may_read_starts_an_interpreter(probe):
    assert probe(OMP_NUM_THREADS="2") == ["False", "False"]


@pytest.mark.parametrize("program", ["python", "python -u", "env python"])
def test_what_a_shell_starts_is_a_fork_too(project, program):
    done = project.run("bash", "-c", f"{program} -m probe; exit 3", check=False)
    assert (done.returncode, done.stdout.split()) == (3, ["True", "True"])


@pytest.mark.parametrize(
    "other", ["ulimit -n 99", "umask 0123", "trap '' TERM", "taskset -p -c 0 $$"]
)
def test_what_inherits_something_else_is_an_interpreter(project, other):
    done = project.run("bash", "-c", f"{other} > /dev/null; exec python -m probe")
    assert done.stdout.split() == ["False", "False"]


SLEEPER = """
import pathlib, os, signal, sys, time

def stop(*_):
    sys.exit(7)

signal.signal(signal.SIGTERM, stop)
pathlib.Path("started").write_text(str(os.getpid()))
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGTERM, 7), (signal.SIGKILL, -9), (signal.SIGINT, -2)]
)
def test_a_signal_reaches_the_fork_and_its_status_comes_back(project, sent, status):
    directory = project.path
    (directory / "sleeper.py").write_text(SLEEPER)
    # Tests in the background ignore it, and so would what they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    env = warm.environment(os.environ)
    python = [f"{env['PATH'].partition(':')[0]}/python", "-m", "sleeper"]
    process = subprocess.Popen(python, cwd=directory, env=env, stderr=subprocess.DEVNULL)
    wait_for(directory / "started", process)
    fork = psutil.Process(int((directory / "started").read_text()))
    assert fork.pid != process.pid
    process.send_signal(sent)
    assert process.wait(timeout=60) == status
    fork.wait(timeout=60)


@pytest.mark.parametrize("sent", [b"", b"\0", b"\0\0\0\7half"])
def test_one_that_is_killed_while_it_asks_harms_nobody(probe, sent):
    programs = warm.environment(os.environ)["PATH"].partition(":")[0]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(Path(programs).with_name("socket")))
        connection.sendall(sent)
    assert probe() == ["True", "True"]


@pytest.mark.parametrize("time", ["first", "second"])
def test_a_variable_that_a_test_leaves_behind_makes_no_later_one_start_cold(probe, time):
    assert probe() == ["True", "True"]
    os.environ["LEFT_BEHIND"] = time
    assert probe() == ["False", "False"]
