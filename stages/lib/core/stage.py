"""The start and end of every stage.

An invalid input prints one line to stderr and exits with status 1; a bug keeps its traceback. In
both cases the stage's previous outputs are restored. With several processes (see `launch` in
params.yaml), the first to fail prints the reason, the others exit silently, and the main process
restores the outputs.
"""

import ctypes
import errno
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages.lib.core import declarations, environment, restoring
from stages.lib.core.errors import InputError

# torchrun, which Accelerate uses, sets these variables for the processes that it starts.
_WORLD_SIZE = os.environ.get("WORLD_SIZE", "1")
PROCESSES = int(_WORLD_SIZE) if _WORLD_SIZE.isdecimal() else 1
_PARENT = os.getppid()
IS_MAIN = PROCESSES == 1 or os.environ.get("RANK", "0") == "0"
# Before the libraries that read them are imported; `run` tells.
_MISTAKES = environment.take_out_mistakes()

# Progress bars would clutter logs. tqdm reads this variable on import, after this module's import.
if not (sys.stderr.isatty() and IS_MAIN):
    os.environ.setdefault("TQDM_DISABLE", "1")
# At 16 bit on a CPU, oneDNN keeps a quarter of a megabyte for each shape of each matrix product,
# and PyTorch as much again. A step of training has about 30 products, which PyTorch needs at hand;
# what is dropped is prepared again when it is needed. Both read their limit at the first product.
os.environ.setdefault("LRU_CACHE_CAPACITY", "64")
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "512")
# Tensors of 2 MB or more are put on pages of that size, where Linux leaves the choice to programs:
# fewer pages have to be found and filled. PyTorch reads this at the first tensor.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

_OF_THE_MACHINE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOMEM,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
}
# PyTorch, Arrow, NumPy and the loader report exhausted memory only in the text of the message.
_NO_MEMORY = re.compile(
    r"can't allocate memory|bad_alloc|[Uu]nable to allocate|malloc of size|failed to map segment"
)
_AGAIN = "run the same command again to continue"
# PyTorch reports a lost peer process only in the text of the message.
_LOST = re.compile(r"gloo|NCCL|Connection (closed|reset)|Broken pipe|recvValue failed")


# Maximum length of a message in characters; it may quote a user's text of any length.
_LONGEST = 1000


class _Terminated(BaseException):
    """SIGTERM, sent by the user, a scheduler, or the launcher after another process died."""


def run(main: Callable[[], None]) -> None:
    """Run `main`, the entry point of a stage, and handle its errors."""
    _handle(_terminate)
    try:
        try:
            if PROCESSES > 1 or "DVC_STAGE" in os.environ:
                _end_with_the_parent()
            _check_environment()
            declarations.check_libraries()
            main()
            # All outputs are written, so a signal from here on interrupts nothing.
            _handle(signal.SIG_DFL)
            if PROCESSES > 1:
                # PyTorch's threads sometimes abort the interpreter during shutdown.
                sys.stderr.flush()
                sys.stdout.flush()
                os._exit(0)
        except BaseException:
            # The launcher, or an impatient user, may send a signal before the outputs are restored.
            _handle(signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            if IS_MAIN:
                _put_back()
            raise
    except InputError as error:
        _stop(str(error))
    except KeyboardInterrupt:
        _stop(f"interrupted; {_AGAIN}", status=130)
    except _Terminated:
        _stop(_ended(), status=128 + signal.SIGTERM)
    except Exception as error:
        if PROCESSES > 1 and isinstance(error, RuntimeError) and _LOST.search(str(error)):
            _stop(_ended())
        number, filename = _errno(error), getattr(error, "filename", None)
        if number == errno.ENOENT and _is_of_the_pipeline(filename):
            _stop(f"{filename}: no such file; 'dvc repro' creates it")
        if number not in _OF_THE_MACHINE:
            if not _is_first():
                sys.exit(1)
            raise
        where = f"{filename}: " if filename else ""
        _stop(f"{where}{os.strerror(number).lower()}; the previous outputs are unchanged")


def _handle(handler: Any) -> None:
    """Set what SIGTERM and SIGHUP (a closed terminal) do, except where nohup ignores the latter."""
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _check_environment() -> None:
    if not _WORLD_SIZE.isdecimal():
        raise InputError(
            f"environment variable WORLD_SIZE: {_WORLD_SIZE!r} is wrong: it should be a "
            "number of processes, as torchrun sets it"
        )
    if _MISTAKES:
        raise InputError(_MISTAKES[0])
    environment.check_address_space()


def _terminate(*_: Any) -> None:
    raise _Terminated


def _ended() -> str:
    if PROCESSES == 1:
        return f"terminated; {_AGAIN}"
    return f"one of the {PROCESSES} processes died or was told to end; {_AGAIN}"


def _end_with_the_parent() -> None:
    """Have this process end with SIGTERM when DVC or the launcher dies; otherwise the stage would
    keep running."""
    if sys.platform != "linux":
        return
    die_with_parent()
    if os.getppid() != _PARENT:
        raise _Terminated
    # A launcher, and a shell that waits for its command as dash does, survive DVC.
    child: int | None = os.getpid()
    parent: int | None = _PARENT
    while _is_below_dvc(parent):
        child, parent = parent, _parent_of(parent)
    if parent != _PARENT:
        threading.Thread(target=_end_with, args=(child, parent), daemon=True).start()


def die_with_parent() -> None:
    """Have Linux send SIGTERM to this process when its parent dies; elsewhere, do nothing."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def _end_with(child: int | None, parent: int | None) -> None:
    """Wait until `child` has lost its parent, and terminate this process."""
    while _parent_of(child) == parent:
        time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGTERM)


def _is_below_dvc(pid: int | None) -> bool:
    """Return whether a process was started by DVC, or by a process that was."""
    try:
        return b"\0DVC_STAGE=" in b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def _parent_of(pid: int | None) -> int | None:
    """Return the parent of a process, or None if the process has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _is_of_the_pipeline(filename: object) -> bool:
    """Return whether stages write this file; a file that is missing elsewhere is a bug."""
    return Path(str(filename)).parts[:1] in (("data",), ("metrics",))


def _is_first() -> bool:
    """Return whether this is the first process of the stage on this machine to report an error."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if PROCESSES == 1 or not file:
        return True
    # The path is .../<one run of the launcher>/<process>/error.json.
    try:
        (Path(file).parents[1] / "said").touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:
        pass
    return True


def _put_back() -> None:
    try:
        restoring.restore_running_stage()
    except Exception as error:
        print(
            f"warning: outputs could not be restored ({error}); run python -m commands.restore",
            file=sys.stderr,
        )


def _errno(error: BaseException | None) -> int | None:
    """Return the errno of the operating system error that caused `error`, if there is one."""
    if error is None:
        return None
    if isinstance(error, OSError) and error.errno:
        return error.errno
    # safetensors and tokenizers (Rust) and PyTorch (C++) report it only in the message's text.
    if match := re.search(r"\(os error (\d+)\)", str(error)):
        return int(match[1])
    if "PytorchStreamWriter failed writing" in str(error):
        return errno.ENOSPC
    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        return errno.ENOMEM
    return _errno(error.__cause__ or (None if error.__suppress_context__ else error.__context__))


def printable(text: str) -> str:
    """Return `text` as one line of about 1,000 characters at most, without control characters.

    The middle of a longer text is omitted, and control characters are escaped as in Python.
    """
    line = " ".join(text.split())
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)


def _stop(message: str, status: int = 1) -> None:
    name = os.environ.get("DVC_STAGE", "")
    if not _is_first():
        sys.exit(status)
    print(f"error: {name + ': ' if name else ''}{printable(message)}", file=sys.stderr)
    sys.exit(status)
