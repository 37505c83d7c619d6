"""stages.lib.core.stage: however a stage ends, it says why, and its outputs are as they were."""

import contextlib
import ctypes
import errno
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import LONG, ROOT
from workspace import FILES, content, remove, start, wait_for

from stages.lib.core import declarations, restoring, stage
from stages.lib.core.errors import InputError

AGAIN = "run the same command again to continue"
AS_IT_WAS = "the previous outputs are unchanged"
LOST = f"error: one of the 2 processes died or was told to end; {AGAIN}\n"


@pytest.fixture(autouse=True)
def _signals():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def removed(written, monkeypatch):
    """A workspace in which DVC has removed the outputs of `write` and starts its command."""
    remove(written)
    monkeypatch.setenv("DVC_STAGE", "write")
    # A process runs one stage, except that of the tests, which runs several.
    declarations._declared.cache_clear()
    yield written
    declarations._declared.cache_clear()


@pytest.fixture
def two(monkeypatch, tmp_path):
    """Make this the main one of two; return a function that sets the error file of a process."""
    monkeypatch.setattr(stage, "PROCESSES", 2)
    monkeypatch.setattr(stage, "_end_with_the_parent", lambda: None)
    # os._exit would end the tests as if all had passed.
    monkeypatch.setattr(os, "_exit", lambda status: pytest.fail("it ended as if all were well"))

    def be(launch, process):
        file = tmp_path / launch / process / "error.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))

    return be


def fail(error, cause=None, context=None):
    def main():
        try:
            if context:
                raise context
        finally:
            if cause:
                raise error from (None if cause == "none" else cause)
            raise error

    return main


def ended(capsys, main):
    """The exit status, and what is on stderr."""
    with pytest.raises(SystemExit) as end:
        stage.run(main)
    return end.value.code, capsys.readouterr().err


def python(code, **environment):
    """Run code in an interpreter of its own."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


# What is said.


def test_an_interrupt_is_one_line(capsys):
    assert ended(capsys, fail(KeyboardInterrupt())) == (130, f"error: interrupted; {AGAIN}\n")


def test_a_termination_is_one_line_even_where_all_errors_are_caught(capsys):
    def main():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(LONG)
        except Exception:
            pytest.fail("caught")

    assert ended(capsys, main) == (128 + 15, f"error: terminated; {AGAIN}\n")


def test_a_termination_after_the_end_of_a_stage_is_no_traceback():
    code = "import os\nfrom stages.lib.core import stage\n"
    done = python(code + "stage.run(lambda: None)\nos.kill(os.getpid(), 15)")
    assert done.returncode == -15
    assert done.stderr == ""


def test_a_stage_under_nohup_goes_on_when_the_terminal_closes():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stage.run(lambda: os.kill(os.getpid(), signal.SIGHUP))


def test_a_variable_that_would_stop_a_library_is_named():
    code = "from stages.lib.core import stage\nstage.run(lambda: print('ran'))"
    done = python(code, HF_ENDPOINT="the hub")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: environment variable HF_ENDPOINT: 'the hub' is wrong: ")


def test_a_number_of_processes_that_is_none_is_named():
    code = "from stages.lib.core import stage\nstage.run(lambda: print('ran'))"
    done = python(code, WORLD_SIZE="abc")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: environment variable WORLD_SIZE: 'abc' is wrong: it should be a number of "
        "processes, as torchrun sets it\n"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_too_little_address_space_is_one_line_before_a_library_crashes_or_hangs():
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_AS, ({0} * 10**6,) * 2)\n"
    code = "from stages.lib.core import stage\nstage.run(lambda: print('ran'))"
    done = python(limit.format(600) + code)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: the address space is limited to 600 MB (ulimit -v): it should be at least 1500 MB\n"
    )
    assert python(limit.format(1500) + code).stdout == "ran\n"


@pytest.mark.parametrize(
    "name",
    ["ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "ENOMEM", "EIO", "EMFILE", "ENFILE",
     "ENAMETOOLONG", "ELOOP", "ENOTDIR", "EISDIR", "EEXIST"],
)  # fmt: skip
def test_a_fault_of_the_machine_is_one_line_with_the_file(capsys, name):
    number = getattr(errno, name)
    reason = os.strerror(number).lower()
    assert ended(capsys, fail(OSError(number, "")))[1] == f"error: {reason}; {AS_IT_WAS}\n"
    said = ended(capsys, fail(OSError(number, "", "data/raw")))
    assert said == (1, f"error: data/raw: {reason}; {AS_IT_WAS}\n")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Exception("I/O error: ... (os error 28)"), "no space left on device"),
        (OSError("in words (os error 28)"), "no space left on device"),
        (RuntimeError("PytorchStreamWriter failed writing file"), "no space left on device"),
        (MemoryError(), "cannot allocate memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "cannot allocate memory"),
        (RuntimeError("std::bad_alloc"), "cannot allocate memory"),
        (RuntimeError("Unable to allocate 3 GiB"), "cannot allocate memory"),
        (RuntimeError("unable to allocate 3 GiB"), "cannot allocate memory"),
        (RuntimeError("malloc of size 64 failed"), "cannot allocate memory"),
        (ImportError("libtorch.so: failed to map segment"), "cannot allocate memory"),
    ],
)
def test_a_fault_that_a_library_only_describes_is_one_line(capsys, error, reason):
    assert ended(capsys, fail(error)) == (1, f"error: {reason}; {AS_IT_WAS}\n")


def test_a_fault_behind_another_error_is_one_line(capsys):
    full = OSError(errno.ENOSPC, "")
    said = (1, f"error: no space left on device; {AS_IT_WAS}\n")
    assert ended(capsys, fail(ValueError(), cause=full)) == said
    assert ended(capsys, fail(ValueError(), context=full)) == said


@pytest.mark.parametrize(
    "main",
    [
        fail(OSError("in words")),
        fail(FileNotFoundError(errno.ENOENT, "")),
        fail(ValueError(), cause="none", context=OSError(errno.ENOSPC, "")),
        fail(RuntimeError("gloo: alone, without another process")),
    ],
)
def test_any_other_error_keeps_its_traceback(capsys, main):
    with pytest.raises((OSError, ValueError, RuntimeError)):
        stage.run(main)
    assert capsys.readouterr().err == ""


# Of several processes.


@pytest.mark.parametrize(
    "words",
    ["gloo", "NCCL", "Connection closed", "Connection reset", "Broken pipe", "recvValue failed"],
)
def test_a_lost_connection_is_the_death_of_another_process(two, capsys, words):
    assert ended(capsys, fail(RuntimeError(f"... {words} ..."))) == (1, LOST)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("gloo")])
def test_another_error_in_one_of_two_processes_keeps_its_traceback(two, capsys, error):
    with pytest.raises(type(error)):
        stage.run(fail(error))
    assert capsys.readouterr().err == ""


def test_a_termination_of_one_is_said_as_the_death_of_any(two, capsys):
    assert ended(capsys, lambda: os.kill(os.getpid(), signal.SIGTERM)) == (143, LOST)


def test_the_first_of_a_launch_says_why_and_the_others_end_without_a_word(two, capsys):
    mistake = fail(InputError("a mistake"))
    two("launch-1", "0")
    assert ended(capsys, mistake) == (1, "error: a mistake\n")
    two("launch-1", "1")
    assert ended(capsys, mistake) == (1, "")
    assert ended(capsys, fail(ZeroDivisionError())) == (1, "")
    two("launch-2", "0")
    with pytest.raises(ZeroDivisionError):
        stage.run(fail(ZeroDivisionError()))


def test_where_nobody_can_note_that_it_spoke_everybody_speaks(two, capsys, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", "/nonexistent/launch/0/error.json")
    for _ in range(2):
        assert ended(capsys, fail(InputError("a mistake"))) == (1, "error: a mistake\n")


def test_one_process_alone_speaks_each_time(two, capsys, monkeypatch):
    two("launch", "0")
    monkeypatch.setattr(stage, "PROCESSES", 1)
    for _ in range(2):
        assert ended(capsys, fail(InputError("a mistake"))) == (1, "error: a mistake\n")


AT_THE_END = """
import atexit, sys
from stages.lib.core import stage
atexit.register(print, "waited")
def main():
    sys.stdout.write("all is ")
    sys.stderr.write("said ")
stage.run(main)
"""


@pytest.mark.parametrize(("processes", "said"), [("1", "all is waited\n"), ("2", "all is ")])
def test_only_several_processes_end_without_waiting_for_threads(processes, said):
    done = python(AT_THE_END, WORLD_SIZE=processes)
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "said ")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a launcher's death")
@pytest.mark.parametrize("processes", ["1", "2"])
def test_several_processes_end_with_their_launcher_and_one_goes_on(tmp_path, processes):
    process = """
import time
from pathlib import Path
from stages.lib.core import stage

def main():
    Path("started").write_text("yes")
    while not Path("go").exists():
        time.sleep(0.01)
    Path("ended").touch()

stage.run(main)
"""
    launcher = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {process!r}])"
    running = subprocess.Popen(
        [sys.executable, "-c", launcher],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "WORLD_SIZE": processes},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(tmp_path / "started", running)
    running.kill()
    running.wait()
    if processes == "1":
        (tmp_path / "go").touch()
    # The process writes to the launcher's stderr, which ends when both have ended.
    _, stderr = running.communicate(timeout=LONG)
    assert stderr == (LOST if processes == "2" else "")
    assert (tmp_path / "ended").exists() == (processes == "1")


TELL = """
import os, pathlib
from stages.lib.core import stage
pathlib.Path("told").write_text(
    f"{stage.PROCESSES} {stage.IS_MAIN} {os.environ.get('TQDM_DISABLE')}"
)
"""


@pytest.mark.parametrize(
    ("terminal", "environment", "told"),
    [
        (False, {}, "1 True 1"),
        (True, {}, "1 True None"),
        (True, {"RANK": "2"}, "1 True None"),
        (True, {"WORLD_SIZE": "3", "RANK": "0"}, "3 True None"),
        (True, {"WORLD_SIZE": "3"}, "3 True None"),
        (True, {"WORLD_SIZE": "3", "RANK": "2"}, "3 False 1"),
        (False, {"WORLD_SIZE": "x"}, "1 True 1"),
    ],
)
def test_who_a_process_is_and_whether_it_shows_bars(tmp_path, terminal, environment, told):
    ours, theirs = pty.openpty()
    names = {"WORLD_SIZE", "RANK", "TQDM_DISABLE"}
    subprocess.run(
        [sys.executable, "-c", TELL],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name not in names}
        | {"PYTHONPATH": str(ROOT)}
        | environment,
        stderr=theirs if terminal else subprocess.PIPE,
        check=True,
    )
    os.close(ours)
    os.close(theirs)
    assert (tmp_path / "told").read_text() == told


# This process may have the variables of a stage already.
UNSET = """
import os
for name in ("LRU_CACHE_CAPACITY", "THP_MEM_ALLOC_ENABLE"):
    os.environ.pop(name, None)
"""
KEPT = """
import ctypes, torch

class Heap(ctypes.Structure):  # struct mallinfo2
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
        "fordblks", "keepcost",
    )]

heap = ctypes.CDLL(None).mallinfo2
heap.restype = Heap
before = heap().uordblks
weights = torch.ones(64, 64, dtype=torch.bfloat16)
for rows in range(16, 166):
    torch.ones(rows, 64, dtype=torch.bfloat16) @ weights
print(heap().uordblks - before)
"""


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallinfo2")
    or not torch.cpu.get_capabilities().get("avx512_bf16"),
    reason="only glibc tells of its heap; without such products in hardware, nothing is prepared",
)
def test_a_stage_keeps_less_for_each_shape_of_a_16_bit_product_than_pytorch_does():
    alone = python(UNSET + KEPT)
    in_a_stage = python(UNSET + "from stages.lib.core import stage\n" + KEPT)
    assert int(in_a_stage.stdout) < 0.75 * int(alone.stdout)


# What Linux was told of the memory of a tensor: "hg" asks for large pages.
ADVICE = """
import torch
tensor = torch.zeros(1 << 24)
for line in open("/proc/self/smaps"):
    first, _, rest = line.partition(" ")
    if "-" in first:
        low, high = (int(number, 16) for number in first.split("-"))
    elif first == "VmFlags:" and low <= tensor.data_ptr() < high:
        print("hg" in rest.split())
"""


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="this system has one size"
)
def test_a_stage_asks_for_large_pages():
    assert python(UNSET + ADVICE).stdout == "False\n"
    assert python(UNSET + "from stages.lib.core import stage\n" + ADVICE).stdout == "True\n"


@pytest.mark.parametrize(
    "name", ["LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "THP_MEM_ALLOC_ENABLE"]
)
def test_what_a_user_has_set_of_memory_stays(name):
    code = f"import os\nfrom stages.lib.core import stage\nprint(os.environ['{name}'])"
    assert python(code, **{name: "7"}).stdout == "7\n"


# A stage that DVC runs, and that is half-way when something happens.


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("a mistake,\n  in two lines"), "error: write: a mistake, in two lines\n"),
        (OSError(errno.ENOSPC, ""), f"error: write: no space left on device; {AS_IT_WAS}\n"),
    ],
)
def test_after_an_error_outputs_come_back(removed, capsys, error, line):
    assert ended(capsys, fail(error)) == (1, line)
    assert content(removed) == FILES


def test_a_bug_keeps_its_traceback_and_outputs_come_back(removed, capsys):
    with pytest.raises(ZeroDivisionError):
        stage.run(lambda: 1 / 0)
    assert capsys.readouterr().err == ""
    assert content(removed) == FILES


def test_other_libraries_than_declared_are_refused_before_anything_runs(removed, capsys):
    text = (removed / "dvc.yaml").read_text()
    declared = text.replace(
        "    outs: [folder", "    params: [libraries.yaml: [dvc]]\n    outs: [folder"
    )
    (removed / "dvc.yaml").write_text(declared)
    (removed / "libraries.yaml").write_text("dvc: 0.0.0\n")
    status, said = ended(capsys, lambda: pytest.fail("it ran"))
    assert status == 1
    assert said.startswith("error: write: libraries.yaml: dvc: 0.0.0 is pinned but ")
    assert content(removed) == FILES


def test_a_success_puts_nothing_back(removed):
    stage.run(lambda: (removed / "file.txt").write_text("new"))
    assert content(removed) == {"file.txt": "new"}


def test_a_termination_while_outputs_are_put_back_does_not_stop_that(removed, capsys, monkeypatch):
    """A launcher ends the others as soon as one has failed."""
    restore = restoring.restore_running_stage

    def slow():
        os.kill(os.getpid(), signal.SIGTERM)
        restore()

    monkeypatch.setattr(restoring, "restore_running_stage", slow)
    assert ended(capsys, fail(InputError("a mistake"))) == (1, "error: write: a mistake\n")
    assert content(removed) == FILES


def test_what_cannot_be_put_back_is_a_warning_beside_the_error(removed, capsys):
    (removed / "dvc.lock").write_text("not a lock")
    status, said = ended(capsys, fail(InputError("a mistake")))
    assert status == 1
    warning, error = said.strip().rsplit("\n", 1)
    assert warning.startswith("warning: outputs could not be restored (")
    assert warning.endswith("); run python -m commands.restore")
    assert error == "error: write: a mistake"


def test_another_process_than_the_main_one_puts_nothing_back(removed, two, capsys, monkeypatch):
    monkeypatch.setattr(stage, "IS_MAIN", False)
    ended(capsys, fail(InputError("a mistake")))
    assert content(removed) == {}


@pytest.mark.parametrize(
    ("sent", "said", "status"),
    [
        (signal.SIGINT, "interrupted", 130),
        (signal.SIGTERM, "terminated", 143),
        (signal.SIGHUP, "terminated", 143),
    ],
)
@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_after_a_signal_half_way_outputs_come_back(written, sent, said, status, shell, monkeypatch):
    """SIGINT as a terminal sends it, to DVC and all it has started; SIGTERM to the stage."""
    monkeypatch.setenv("SHELL", shutil.which(shell))  # DVC starts the command through it.
    (written / "accident.py").write_text(
        "import os, time\nPath('process').write_text(str(os.getpid()))\ntime.sleep(1200)"
    )
    dvc = start(written, "dvc", "repro", "--force", "--single-item", "write")
    wait_for(written / "process", dvc)
    assert content(written) != FILES
    if sent == signal.SIGINT:
        os.killpg(dvc.pid, sent)
    else:
        os.kill(int((written / "process").read_text()), sent)
    _, stderr = dvc.communicate(timeout=LONG)
    assert [line for line in stderr.splitlines() if line.startswith(("error", "warning"))] == [
        f"error: write: {said}; {AGAIN}"
    ]
    # A shell that waits for the stage, as dash does, dies of the terminal's SIGINT itself.
    allowed = {status, -2} if (sent, shell) == (signal.SIGINT, "sh") else {status}
    assert int(stderr.strip().rpartition("exited with ")[2].split()[0]) in allowed
    assert content(written) == FILES


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of DVC's death")
@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_stage_ends_with_dvc_and_its_outputs_come_back(written, shell, monkeypatch):
    """Also where a shell that waits for the stage, as dash does, survives DVC."""
    monkeypatch.setenv("SHELL", shutil.which(shell))
    (written / "accident.py").write_text(
        "import os, time\nPath('process').write_text(str(os.getpid()))\ntime.sleep(1200)"
    )
    dvc = start(written, "dvc", "repro", "--force", "--single-item", "write")
    wait_for(written / "process", dvc)
    assert content(written) != FILES
    dvc.kill()
    try:
        # The stage writes to DVC's stderr, which ends when both have ended.
        _, stderr = dvc.communicate(timeout=LONG)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(dvc.pid, signal.SIGKILL)
    assert stderr.endswith(f"error: write: terminated; {AGAIN}\n")
    assert content(written) == FILES


def test_a_stage_whose_parent_has_died_before_it_starts_ends(removed, capsys, monkeypatch):
    monkeypatch.setattr(stage, "_PARENT", -1)
    status, said = ended(capsys, lambda: pytest.fail("it ran"))
    assert (status, said) == (143, f"error: write: terminated; {AGAIN}\n")
    assert content(removed) == FILES


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_process_that_has_ended_has_no_parent():
    """A stage that waits for the end of one above it then ends itself."""
    process = subprocess.Popen(["true"])
    # It has its parent until that has taken note of its end.
    assert stage._parent_of(process.pid) == os.getpid()
    process.wait()
    assert stage._parent_of(process.pid) is None


def test_a_stage_runs_where_it_cannot_look_at_processes_above_it(removed, monkeypatch):
    monkeypatch.setattr(os, "getppid", lambda: -1)
    monkeypatch.setattr(stage, "_PARENT", -1)
    stage.run(lambda: (removed / "file.txt").write_text("new"))
    assert content(removed) == {"file.txt": "new"}


def test_a_second_interrupt_does_not_stop_what_is_put_back(removed, capsys, monkeypatch):
    done = []

    def restore():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        done.append(True)

    monkeypatch.setattr(restoring, "restore_running_stage", restore)
    # Python does not set this handler where tests run in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert ended(capsys, fail(KeyboardInterrupt()))[0] == 130
    assert done


@pytest.mark.parametrize("file", ["data/raw/about.json", "metrics/claims.json"])
def test_a_missing_file_of_a_stage_is_one_line_and_another_is_a_bug(
    capsys, tmp_path, monkeypatch, file
):
    monkeypatch.chdir(tmp_path)
    said = ended(capsys, Path(file).read_text)
    assert said == (1, f"error: {file}: no such file; 'dvc repro' creates it\n")
    with pytest.raises(FileNotFoundError):
        stage.run(Path("elsewhere.json").read_text)


def test_a_message_is_one_line_that_tells_the_terminal_nothing():
    assert stage.printable("a\nb \x1b[31mred\x00 \u202e") == "a b \\x1b[31mred\\x00 \\u202e"
    assert stage.printable("grün 映画 \U0001f600") == "grün 映画 \U0001f600"


def test_a_message_of_1000_characters_is_whole():
    assert stage.printable("a" * 1000) == "a" * 1000
    assert stage.printable("a" * 1001) == f"{'a' * 500} ... {'a' * 500}"


def test_a_long_message_keeps_its_ends():
    line = stage.printable(f"start {'a' * 20_000} end")
    assert len(line) < 1010
    assert line.startswith("start a")
    assert line.endswith("a end")
