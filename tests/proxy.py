"""A process that stands for a fork of the server of tests/warm.py: its signals and its status.

python -IS tests/proxy.py ADDRESS PATH PROGRAM ARGUMENTS...    # PROGRAM: dvc or python, at PATH

It is what a shell, DVC, a launcher or a test starts, kills and waits for. If the server cannot run
the program as a new process would, this process becomes the program itself.
"""

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence

FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1)


def pack(command: Sequence[str], cwd: str, env: Mapping[str, str]) -> bytes:
    """Write a request. (To import json or pickle takes as long as to start this process.)"""
    variables = [f"{name}={value}" for name, value in env.items()]
    return os.fsencode("\0".join([str(len(command)), *command, cwd, *variables]))


def unpack(data: bytes) -> tuple[list[str], str, dict[str, str]]:
    """Read a request: the command, its working directory and its environment."""
    size, *words = os.fsdecode(data).split("\0")
    cwd, *variables = words[int(size) :]
    return words[: int(size)], cwd, dict(variable.split("=", 1) for variable in variables)


def ask(
    address: str,
    command: Sequence[str],
    cwd: str,
    env: Mapping[str, str],
    fds: Sequence[int],
) -> socket.socket:
    """Ask the server to run a program with these standard streams.

    The server answers with a line that has the process ID of its fork, or 0 if it does not run the
    program, and with a second line that has the program's status, as subprocess gives it, when the
    program has ended. When the connection is closed before, the server kills the program.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(address)
    data = pack(command, cwd, env)
    # The file descriptors go with the first bytes.
    socket.send_fds(connection, [len(data).to_bytes(4, "big")], fds)
    connection.sendall(data)
    return connection


def answer(connection: socket.socket) -> int | None:
    """Read a line of the server's; None if it ended without one."""
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            return None
        line += byte
    return int(line)


def forward(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def main(address: str, path: str, program: str, *arguments: str) -> None:
    # A signal that comes early waits until there is somebody to forward it to.
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    cwd = os.getcwd()  # noqa: PTH109  # Importing pathlib takes as long as the rest.
    streams = [0, 1, 2]
    try:
        for stream in streams:
            os.fstat(stream)
        connection = ask(address, [program, *arguments], cwd, os.environ, streams)
        pid = answer(connection)
    except OSError:  # One of the streams is closed, or the server has ended.
        pid = None
    if pid:
        for number in FORWARDED:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda number, _: forward(pid, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    if not pid:
        os.execv(path, [path, *arguments])
    status = answer(connection)
    if status is None:
        os.abort()
    if status < 0:
        with contextlib.suppress(OSError):  # Nobody handles SIGKILL.
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


if __name__ == "__main__":
    main(*sys.argv[1:])
