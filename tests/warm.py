"""Programs that start without importing: forks of one process that has the libraries already.

Importing PyTorch, transformers and PEFT takes five seconds of processor time, and tests start
hundreds of stages. Here, a server imports them once; `run` has it fork, and the fork becomes
`dvc ...` or `python -m ...`. The stages that such a DVC starts are forks of the server, too. They
run the code of the project in their directory: the server has imported third-party libraries only.

Real interpreters are started where a test needs a shell, a launcher, a process group or a signal,
or sets a variable that a library reads while it is imported; where the whole pipeline is killed
(tests/soak.py); and everywhere if the variable TESTS_COLD is set, or the system is not Linux.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import multiprocessing.util
import os
import re
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

# The environment of the server. conftest.py fills it after setting the variables of the tests.
ENVIRONMENT: dict[str, str] = {}
LIBRARIES = (
    "PIL.PngImagePlugin", "dulwich.porcelain", "dvc.cli.parser", "dvc.render.convert",
    "dvc.repo.experiments.executor.local", "dvc.repo.experiments.queue.celery", "dvc.repo.plots",
    "dvc.stage.run", "dvc_data.index", "dvc_render", "hydra", "jinja2", "markdown_it",
    "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "matplotlib.figure",
    "networkx", "pandas", "pyarrow.compute", "pyarrow.csv", "pyarrow.parquet",
    "pydantic.root_model", "pygit2", "requests", "rich.console", "rich.table", "ruamel.yaml",
    "safetensors.numpy", "safetensors.torch", "scipy.optimize", "scipy.stats", "scmrepo.git",
    "sklearn.linear_model", "sklearn.metrics", "sklearn.model_selection", "sklearn.pipeline",
    "sklearn.preprocessing", "sklearn.svm", "statsmodels.stats.contingency_tables",
    "statsmodels.stats.multitest", "sympy", "tabulate", "torch", "torch.utils.data",
)  # fmt: skip
# These import huggingface_hub, which reads the variables of the Hub then. (cleanlab does so by way
# of datasets.)
OF_THE_HUB = (
    "accelerate", "cleanlab.filter", "datasets", "dvclive", "peft",
    "transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto",
    "transformers.models.distilbert.modeling_distilbert", "transformers.pipelines",
    "transformers.trainer",
)  # fmt: skip
# Variables that no library reads while it is imported. After a change of another one, a program
# starts in an interpreter of its own.
HARMLESS = re.compile(
    r"AUTO_PRECISION|COLUMNS|DVC_\w+|GIT_\w+|HF_TOKEN|KMP_\w+|LOCAL_RANK|OLDPWD|PATH|PIP_\w+|"
    r"PMI_\w+|PWD|PYTEST_\w+|RANK|SHLVL|TORCHINDUCTOR_\w+|WORLD_SIZE|_"
)
HUBS = re.compile(r"HF_\w+|NO_PROXY|TMPDIR")
# The variables that differ from ENVIRONMENT (None if missing), and how often they were asked for.
Variables = frozenset[tuple[str, str | None]]
ASKED: Counter[Variables] = Counter()
# The command of a stage in dvc.yaml, unless a launcher other than Python starts it.
PROGRAM = re.compile(r"python -m ([\w.]+)((?: [\w.-]+)*)")


class Server:
    """The process that forks, as the tests see it."""

    def __init__(self, libraries: Sequence[str], variables: Variables) -> None:
        # The path of a socket must be short, and those of pytest's directories may be too long.
        self._directory = tempfile.TemporaryDirectory(prefix="warm")
        self._address = f"{self._directory.name}/socket"
        # The server ends when this pipe does, that is with the tests, however they end.
        self._process = subprocess.Popen(
            [sys.executable, __file__, self._address, *libraries],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={k: v for k, v in {**ENVIRONMENT, **dict(variables)}.items() if v is not None},
            cwd=self._directory.name,
        )
        assert self._process.stdout
        self.ready = bool(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()
        self._directory.cleanup()

    def run(
        self, command: Sequence[str], cwd: Path, env: Mapping[str, str]
    ) -> subprocess.CompletedProcess:
        with (
            tempfile.TemporaryFile("w+") as stdout,
            tempfile.TemporaryFile("w+") as stderr,
            Path(os.devnull).open() as stdin,
        ):
            fds = [file.fileno() for file in (stdin, stdout, stderr)]
            status = ask(self._address, command, str(cwd), env, fds)
            stdout.seek(0)
            stderr.seek(0)
            return subprocess.CompletedProcess(command, status, stdout.read(), stderr.read())


def run(
    command: Sequence[str], cwd: Path, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, by a fork where that is the same as a new process."""
    is_ours = command[0] == "dvc" or tuple(command[:2]) == ("python", "-m")
    is_cold = "TESTS_COLD" in env or sys.platform != "linux"
    changed = changes(ENVIRONMENT, env)
    if not is_ours or is_cold or not all(map(HUBS.fullmatch, changed)):
        return run_cold(command, cwd, env)
    warm = server_for(frozenset((name, env.get(name)) for name in changed))
    return warm.run(command, cwd, env) if warm.ready else run_cold(command, cwd, env)


def server_for(variables: Variables) -> Server:
    """Return a server that has imported the client of the Hub with these variables.

    For variables that are asked for the first time, return one that has not imported it, because
    they may never come again.
    """
    ASKED[variables] += 1
    if variables and ASKED[variables] == 1:
        return server(LIBRARIES, frozenset())
    return server(LIBRARIES + OF_THE_HUB, variables)


def run_cold(
    command: Sequence[str], cwd: Path, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


@functools.cache
def server(libraries: Sequence[str], variables: Variables) -> Server:
    started = Server(libraries, variables)
    atexit.register(started.close)
    return started


def changes(one: Mapping[str, str], other: Mapping[str, str]) -> set[str]:
    """Return the variables that differ and may matter to a library while it is imported."""
    names = {name for name, _ in one.items() ^ other.items()}
    return {name for name in names if not HARMLESS.fullmatch(name)}


def ask(
    address: str, command: Sequence[str], cwd: str, env: Mapping[str, str], fds: Sequence[int]
) -> int:
    """Have the server run a command with these standard streams; returns its exit status."""
    request = json.dumps({"command": list(command), "cwd": cwd, "env": dict(env)}).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(address)
        # The file descriptors go with the first bytes.
        socket.send_fds(connection, [len(request).to_bytes(4, "big")], fds)
        connection.sendall(request)
        answer = connection.recv(16)
    if not answer:
        raise RuntimeError(f"the server of tests/warm.py died while it ran {command}")
    return int(answer)


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    size, fds, *_ = socket.recv_fds(connection, 4, 3)
    with connection.makefile("rb") as file:
        return json.loads(file.read(int.from_bytes(size, "big"))), fds


def serve(address: str) -> tuple[dict[str, Any], list[int]]:
    """Fork for each request. Returns the request in the fork, and nothing in the server."""
    running: dict[int, tuple[int, socket.socket]] = {}
    selector = selectors.DefaultSelector()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(address)
    listener.listen(64)
    selector.register(listener, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                sys.exit()
            if key.fileobj is listener:
                connection, _ = listener.accept()
                request, fds = receive(connection)
                pid = os.fork()
                if pid == 0:
                    selector.close()
                    listener.close()
                    connection.close()
                    for pidfd, (_, other) in running.items():
                        os.close(pidfd)
                        other.close()
                    return request, fds
                for fd in fds:
                    os.close(fd)
                pidfd = os.pidfd_open(pid)
                running[pidfd] = pid, connection
                selector.register(pidfd, selectors.EVENT_READ)
            else:
                pidfd = key.fd
                selector.unregister(pidfd)
                os.close(pidfd)
                pid, connection = running.pop(pidfd)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                # The process that asked may have been killed.
                with contextlib.suppress(OSError):
                    connection.sendall(str(status).encode())
                connection.close()


def become(address: str, request: dict[str, Any], fds: list[int]) -> None:
    """Run the program that was asked for, in this process."""
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    program, *arguments = request["command"]
    if program == "dvc":
        stages_are_forks(address, request["env"])
        sys.path.pop(0)
        sys.argv = [f"{Path(sys.executable).parent}/dvc", *arguments]
        from dvc.cli import main

        sys.exit(main())
    spawned_are_forks()
    sys.path[0] = request["cwd"]
    sys.argv = ["-m", *arguments[2:]]
    runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)


def stages_are_forks(address: str, env: dict[str, str]) -> None:
    """Have this DVC ask the server for its stages instead of a shell."""
    import dvc.stage.run

    def start(command: list[str], **options: Any) -> Any:
        match = PROGRAM.fullmatch(command[-1])
        if not match or changes(env, options["env"]):
            return subprocess.Popen(command, **options)
        sys.stdout.flush()
        sys.stderr.flush()
        done = SimpleNamespace()

        def communicate() -> None:
            words = ["python", "-m", match[1], *match[2].split()]
            done.returncode = ask(address, words, options["cwd"], options["env"], (0, 1, 2))

        done.communicate = communicate
        return done

    dvc.stage.run.subprocess = SimpleNamespace(Popen=start)


def spawned_are_forks() -> None:
    """Have this process fork where multiprocessing would start an interpreter."""
    cold = multiprocessing.util.spawnv_passfds

    def start(path: Any, args: Sequence[Any], fds: Sequence[int]) -> int:
        if args[-1] != "--multiprocessing-fork":
            return cold(path, args, fds)
        if pid := os.fork():
            return pid
        sys.argv = ["-c", args[-1]]
        try:
            exec(args[-2])
        except BaseException as error:
            finish(error)
        finish(None)

    multiprocessing.util.spawnv_passfds = start


def finish(error: BaseException | None) -> NoReturn:
    """End the process as the interpreter does, except that it takes no time to free objects."""
    status = 0
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if not isinstance(error.code, int | None):
            print(error.code, file=sys.stderr)
    elif error is not None:
        status = 1
        sys.excepthook(type(error), error, error.__traceback__)
    try:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def main(address: str, *libraries: str) -> None:
    for name in libraries:
        importlib.import_module(name)
    # A fork keeps only one thread. Arrow's allocator, jemalloc, goes on without its own. Libraries
    # that may use several threads (OMP_NUM_THREADS) start them here, and then nothing is forked.
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    if len([name for name in threads if name != "jemalloc_bg_thd"]) > 1:
        return
    # Objects that are never collected stay in pages that all forks share.
    gc.collect()
    gc.freeze()
    request, fds = serve(address)
    try:
        become(address, request, fds)
    except BaseException as error:
        finish(error)
    finish(None)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main(*sys.argv[1:])
