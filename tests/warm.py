"""Programs that start without importing: forks of one process that has the libraries already.

Importing PyTorch, transformers and PEFT takes five seconds of processor time, and tests start
hundreds of stages. Here, a server imports them once; `run` has it fork, and the fork becomes
`dvc ...` or `python -m ...`. It runs the code of the project in its directory: the server has
imported third-party libraries only. A server that has also imported the client of the Hub, with
some variables, is a fork of one that has not.

What such a program starts, or a shell or a launcher that a test starts, finds `dvc` and `python` in
`Server.programs`: they are proxies of further forks (tests/proxy.py).

Real interpreters are started where a program differs from the server in more than its arguments:
in a variable that a library reads while it is imported, in its limits, umask, mounts or processors,
or in a terminal. They are started where a test needs DVC or a stage to be the very child, and in
the process group, of what it signals (`cold`); where the whole pipeline is killed (`make soak`);
and everywhere if the variable TESTS_COLD is set, or the system is not Linux.
"""

import atexit
import contextlib
import functools
import gc
import importlib
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
from typing import Any, NoReturn

import proxy

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
    r"ACCELERATE_\w+|AUTO_PRECISION|CELERY_\w+|COLUMNS|DVC_\w+|GIT_\w+|GROUP_\w+|HF_TOKEN|KMP_\w+|"
    r"LOCAL_\w+|LRU_CACHE_CAPACITY|MASTER_\w+|OLDPWD|ONEDNN_PRIMITIVE_CACHE_CAPACITY|PATH|PIP_\w+|"
    r"PMI_\w+|PWD|PYTEST_\w+|PYTHON_EXEC|RANK|ROLE_\w+|SHLVL|THP_MEM_ALLOC_ENABLE|TORCHELASTIC_\w+|"
    r"TORCHINDUCTOR_\w+|TORCH_NCCL_\w+|WORLD_SIZE|_|_MP_FORK_\w+"
)
HUBS = re.compile(r"HF_\w+|NO_PROXY|TMPDIR")
# The variables that differ from ENVIRONMENT (None if missing), and how often they were asked for.
Variables = frozenset[tuple[str, str | None]]
ASKED: Counter[Variables] = Counter()
# What a program inherits, as /proc/.../status has it.
INHERITED = re.compile(r"^(?:Umask|Cpus_allowed_list|Uid|Gid):.*$", re.M)
IGNORED = re.compile(r"^SigIgn:\s*(\w+)$", re.M)
PROXY = """#!/bin/sh
exec "{interpreter}" -IS "{proxy}" "{address}" "{path}" {program} "$@"
"""


class Server:
    """The process that forks, as the tests see it."""

    def __init__(self, variables: Variables, first: "Server | None" = None) -> None:
        # The path of a socket must be short, and those of pytest's directories may be too long.
        self._directory = tempfile.TemporaryDirectory(prefix="warm")
        self._address = f"{self._directory.name}/socket"
        self.programs = Path(self._directory.name, "bin")
        self.programs.mkdir()
        paths = {"dvc": Path(sys.executable).with_name("dvc"), "python": sys.executable}
        for program, path in paths.items():
            script = self.programs / program
            script.write_text(
                PROXY.format(
                    interpreter=sys.executable,
                    proxy=proxy.__file__,
                    address=self._address,
                    path=path,
                    program=program,
                )
            )
            script.chmod(0o755)
        env = {k: v for k, v in {**ENVIRONMENT, **dict(variables)}.items() if v is not None}
        # The server ends when this pipe does, that is with the tests, however they end.
        given, self._end = os.pipe()
        said, saying = os.pipe()
        streams = (given, saying, sys.__stderr__.fileno())
        if first:
            command = ["serve", self._address, *OF_THE_HUB]
            self._process = proxy.ask(first._address, command, self._directory.name, env, streams)
        else:
            command = [sys.executable, __file__, self._address, *LIBRARIES]
            self._process = subprocess.Popen(
                command, stdin=given, stdout=saying, env=env, cwd=self._directory.name
            )
        os.close(given)
        os.close(saying)
        with os.fdopen(said) as file:
            self.ready = bool(file.readline())

    def close(self) -> None:
        os.close(self._end)
        if isinstance(self._process, subprocess.Popen):
            self._process.wait()
        else:
            self._process.close()
        self._directory.cleanup()

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """Return the variables of a program, and with them those that make its programs forks."""
        # PyTorch's launcher starts the interpreter that this variable names.
        python = {"PYTHON_EXEC": str(self.programs / "python")}
        return {**env, "PATH": f"{self.programs}{os.pathsep}{env['PATH']}", **python}

    def run(
        self, command: Sequence[str], cwd: Path, env: Mapping[str, str]
    ) -> subprocess.CompletedProcess | None:
        """Run a program to its end; None if the server does not run it."""
        with (
            tempfile.TemporaryFile("w+") as stdout,
            tempfile.TemporaryFile("w+") as stderr,
            Path(os.devnull).open() as stdin,
        ):
            fds = [file.fileno() for file in (stdin, stdout, stderr)]
            with proxy.ask(self._address, command, str(cwd), env, fds) as connection:
                if not proxy.answer(connection):
                    return None
                status = proxy.answer(connection)
            if status is None:
                raise RuntimeError(f"the server of tests/warm.py died while it ran {command}")
            stdout.seek(0)
            stderr.seek(0)
            return subprocess.CompletedProcess(command, status, stdout.read(), stderr.read())


def run(
    command: Sequence[str], cwd: Path, env: Mapping[str, str], cold: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, by a fork where that is the same as a new process.

    If `cold`, neither it nor what it starts is a fork.
    """
    warm = None if cold else server_of(env)
    if not warm:
        return run_cold(command, cwd, env)
    env = warm.environment(env)
    done = warm.run(command, cwd, env) if command[0] in ("dvc", "python") else None
    return done or run_cold(command, cwd, env)


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with which the programs that a real process starts are forks."""
    warm = server_of(env)
    return warm.environment(env) if warm else dict(env)


def server_of(env: Mapping[str, str]) -> Server | None:
    """Return the server of programs with these variables; None if they start cold."""
    changed = changes(ENVIRONMENT, env)
    if "TESTS_COLD" in env or sys.platform != "linux" or not all(map(HUBS.fullmatch, changed)):
        return None
    warm = server_for(frozenset((name, env.get(name)) for name in changed))
    return warm if warm.ready else None


def server_for(variables: Variables) -> Server:
    """Return a server that has imported the client of the Hub with these variables.

    For variables that are asked for the first time, return one that has not imported it, because
    they may never come again.
    """
    ASKED[variables] += 1
    if variables and ASKED[variables] == 1:
        return first_server()
    return server_of_the_hub(variables)


def run_cold(
    command: Sequence[str], cwd: Path, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


@functools.cache
def first_server() -> Server:
    started = Server(frozenset())
    atexit.register(started.close)
    return started


@functools.cache
def server_of_the_hub(variables: Variables) -> Server:
    if not first_server().ready:
        return first_server()
    started = Server(variables, first_server())
    atexit.register(started.close)
    return started


def changes(one: Mapping[str, str], other: Mapping[str, str]) -> set[str]:
    """Return the variables that differ and may matter to a library while it is imported."""
    names = {name for name, _ in one.items() ^ other.items()}
    return {name for name in names if not HARMLESS.fullmatch(name)}


class Request:
    """A program to run, the process that asks for it, and the connection to it."""

    def __init__(self, listener: socket.socket) -> None:
        self.connection, _ = listener.accept()
        first, self.fds, *_ = socket.recv_fds(self.connection, 4, 3)
        size = int.from_bytes(first, "big")
        with self.connection.makefile("rb") as file:
            data = file.read(size)
        # The process that asks may be killed meanwhile.
        self.is_whole = 0 < size == len(data)
        self.command, self.cwd, self.env = proxy.unpack(data) if self.is_whole else ([], "", {})
        credentials = self.connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        self.asking = int.from_bytes(credentials[:4], sys.byteorder)
        # Of the fork, as long as it runs.
        self.pid = 0

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.connection.close()

    def say(self, number: int) -> None:
        # The process that asked may have been killed.
        with contextlib.suppress(OSError):
            self.connection.sendall(b"%d\n" % number)


class Forks:
    """The loop of the server."""

    def __init__(self, address: str, env: Mapping[str, str]) -> None:
        self._env = env
        self._has_read_hubs = "huggingface_hub" in sys.modules
        self._same = inherited("self")
        self._running: dict[int, Request] = {}
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(address)
        self._listener.listen(64)

    def serve(self) -> Request:
        """Fork for each request. Returns the request in the fork, and nothing in the server."""
        for file in (self._listener, sys.stdin):
            self._selector.register(file, selectors.EVENT_READ)
        print("ready", flush=True)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is sys.stdin:
                    for request in self._running.values():
                        kill(request)
                    sys.exit()
                elif key.fileobj is self._listener:
                    request = Request(self._listener)
                    if not self._is_as_new(request):
                        request.say(0)
                        request.close()
                    elif self._fork(request):
                        return request
                elif key.data.pid:
                    if key.fileobj is key.data.connection:
                        # The process that asked is gone, for it has nothing more to say.
                        self._selector.unregister(key.fileobj)
                        kill(key.data)
                    else:
                        self._end(key.fd)

    def _is_as_new(self, request: Request) -> bool:
        """Return whether a fork would be the same as a new process."""
        return (
            request.is_whole
            and is_ours(request)
            and not self._has_read(changes(self._env, request.env))
            and inherited(str(request.asking)) == self._same
            and (request.command[0] == "serve" or not any(map(os.isatty, request.fds)))
        )

    def _has_read(self, variables: set[str]) -> bool:
        """Return whether a library that is imported has read one of these variables."""
        return any(self._has_read_hubs or not HUBS.fullmatch(name) for name in variables)

    def _fork(self, request: Request) -> bool:
        """Fork; returns whether this is the fork."""
        pid = os.fork()
        if pid == 0:
            self._selector.close()
            self._listener.close()
            for pidfd, other in self._running.items():
                os.close(pidfd)
                other.connection.close()
            request.connection.close()
            os.setsid()
            return True
        for fd in request.fds:
            os.close(fd)
        request.fds = []
        request.pid = pid
        request.say(pid)
        pidfd = os.pidfd_open(pid)
        self._running[pidfd] = request
        for file in (pidfd, request.connection):
            self._selector.register(file, selectors.EVENT_READ, data=request)
        return False

    def _end(self, pidfd: int) -> None:
        request = self._running.pop(pidfd)
        self._selector.unregister(pidfd)
        os.close(pidfd)
        with contextlib.suppress(KeyError):
            self._selector.unregister(request.connection)
        request.say(os.waitstatus_to_exitcode(os.waitpid(request.pid, 0)[1]))
        request.close()
        request.pid = 0


def inherited(pid: str) -> list[str]:
    """Return what a process passes on to those that it starts, besides its environment."""
    place = Path("/proc", pid)
    try:
        status = (place / "status").read_text()
        limits = (place / "limits").read_text()
        mounts = (place / "ns/mnt").readlink()
    except OSError:
        return []
    ignored = int(IGNORED.findall(status)[0], 16)
    # Tests in the background ignore these, and a launcher that they start does not.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        ignored &= ~(1 << (number - 1))
    return [*INHERITED.findall(status), f"{ignored:x}", limits, str(mounts)]


def is_ours(request: Request) -> bool:
    """Return whether the command runs DVC, or a module of the project."""
    program, *arguments = request.command
    if program in ("dvc", "serve"):
        return True
    if arguments[:1] == ["-u"]:
        arguments.pop(0)
    if len(arguments) < 2 or arguments[0] != "-m":
        return False
    path = Path(request.cwd, *arguments[1].split("."))
    return arguments[1] == "dvc" or path.is_dir() or path.with_suffix(".py").is_file()


def kill(request: Request) -> None:
    """Kill a fork, and what it has started in its session; another server ends by itself."""
    if request.command[0] == "serve":
        return
    for send in (os.killpg, os.kill):
        with contextlib.suppress(OSError):
            send(request.pid, signal.SIGKILL)


def take_over(request: Request) -> None:
    """Take what this process inherits from the one that asked for it."""
    for number, fd in enumerate(request.fds):
        os.dup2(fd, number)
        os.close(fd)
    os.chdir(request.cwd)
    os.environ.clear()
    os.environ.update(request.env)


def become(address: str, request: Request) -> None:
    """Run the program that was asked for, in this process."""
    interpreter = sys.executable
    sys.executable = str(Path(address).with_name("bin") / "python")
    program, *arguments = request.command
    if program == "python":
        if arguments[0] == "-u":
            arguments.pop(0)
            sys.stdout.reconfigure(write_through=True)
        program, arguments = arguments[1], arguments[2:]
    if program == "dvc":
        sys.path.pop(0)
        sys.argv = [f"{Path(interpreter).parent}/dvc", *arguments]
        from dvc.cli import main

        sys.exit(main())
    spawned_are_forks()
    sys.path[0] = request.cwd
    sys.argv = ["-m", *arguments]
    runpy.run_module(program, run_name="__main__", alter_sys=True)


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
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        os._exit(status)


def main(address: str, *libraries: str) -> None:
    env = dict(os.environ)
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
    request = Forks(address, env).serve()
    try:
        take_over(request)
        if request.command[0] == "serve":
            main(*request.command[1:])
        else:
            become(address, request)
    except BaseException as error:
        finish(error)
    finish(None)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    main(*sys.argv[1:])
