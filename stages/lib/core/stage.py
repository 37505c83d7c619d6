"""How every stage starts and ends.

A wrong input becomes one line on stderr and exit status 1, a bug keeps its traceback, and what the
stage had written before is put back in either case. Of several processes (see `launch` in
params.yaml) the first to fail says why, the others end without a word, and the main one puts back.
"""

import ctypes
import errno
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages.lib.core import declarations, environment, restoring
from stages.lib.core.errors import InputError

# As torchrun, which Accelerate uses, tells the processes that it starts.
_WORLD_SIZE = os.environ.get("WORLD_SIZE", "1")
PROCESSES = int(_WORLD_SIZE) if _WORLD_SIZE.isdecimal() else 1
_PARENT = os.getppid()
IS_MAIN = PROCESSES == 1 or os.environ.get("RANK", "0") == "0"
# Before the libraries that read them are imported; `run` tells.
_MISTAKES = environment.take_out_mistakes()

# No bars in logs. tqdm reads this when it is imported, which is after this module.
if not (sys.stderr.isatty() and IS_MAIN):
    os.environ.setdefault("TQDM_DISABLE", "1")

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
# What PyTorch, Arrow and NumPy say, in words alone, when there is no more memory.
_NO_MEMORY = re.compile(r"can't allocate memory|bad_alloc|[Uu]nable to allocate|malloc of size")
_AGAIN = "run the same command again to go on"
# What PyTorch says, in words alone, when the process at the other end is gone.
_LOST = re.compile(r"gloo|NCCL|Connection (closed|reset)|Broken pipe|recvValue failed")


# Characters of a message: more of a user's text than this helps nobody.
_LONGEST = 1000


class _Terminated(BaseException):
    """SIGTERM: of the user, a scheduler, or the launcher after another process died."""


def run(main: Callable[[], None]) -> None:
    """Run `main`, the whole of a stage."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        try:
            if PROCESSES > 1 or "DVC_STAGE" in os.environ:
                _end_with_the_parent()
            _check_environment()
            declarations.check_libraries()
            main()
            # All is written: whoever ends the process now interrupts nothing.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            if PROCESSES > 1:
                # PyTorch's threads now and then abort an interpreter that ends.
                sys.stderr.flush()
                sys.stdout.flush()
                os._exit(0)
        except BaseException:
            # Of a launcher that ends the others, while outputs are put back.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
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
        number = _errno(error)
        if number == errno.ENOENT and _is_of_the_pipeline(error):
            _stop(f"{error.filename}: no such file; 'dvc repro' makes it")
        if number not in _OF_THE_MACHINE:
            if not _is_first():
                sys.exit(1)
            raise
        where = f"{error.filename}: " if getattr(error, "filename", None) else ""
        _stop(f"{where}{os.strerror(number).lower()}; what was there before is as it was")


def _check_environment() -> None:
    if not _WORLD_SIZE.isdecimal():
        raise InputError(
            f"environment variable WORLD_SIZE: {_WORLD_SIZE!r} is wrong: it should be a "
            "number of processes, as torchrun sets it"
        )
    if _MISTAKES:
        raise InputError(_MISTAKES[0])


def _terminate(*_: Any) -> None:
    raise _Terminated


def _ended() -> str:
    if PROCESSES == 1:
        return f"terminated; {_AGAIN}"
    return f"one of the {PROCESSES} processes died or was told to end; {_AGAIN}"


def _end_with_the_parent() -> None:
    """Have Linux send SIGTERM when DVC or the launcher dies: the stage would go on without it."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
        if os.getppid() != _PARENT:
            raise _Terminated


def _is_of_the_pipeline(error: Exception) -> bool:
    """Whether stages make the file of the error: what is missing elsewhere is a bug."""
    parts = Path(str(getattr(error, "filename", ""))).parts
    return parts[:1] in (("data",), ("metrics",))


def _is_first() -> bool:
    """Whether no other process of the stage on this machine has said why it ends."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if PROCESSES == 1 or not file:
        return True
    # .../<one run of the launcher>/<process>/error.json
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
            f"warning: outputs could not be put back ({error}): python -m commands.restore",
            file=sys.stderr,
        )


def _errno(error: BaseException | None) -> int | None:
    """The number of the operating system's error behind `error`, if there is one."""
    if error is None:
        return None
    if isinstance(error, OSError) and error.errno:
        return error.errno
    # safetensors and tokenizers are written in Rust, PyTorch in C++, and say it in words.
    if match := re.search(r"\(os error (\d+)\)", str(error)):
        return int(match[1])
    if "PytorchStreamWriter failed writing" in str(error):
        return errno.ENOSPC
    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        return errno.ENOMEM
    return _errno(error.__cause__ or (None if error.__suppress_context__ else error.__context__))


def printable(text: str) -> str:
    """`text` as one line of at most 1,000 characters that tells the terminal nothing.

    Where it is longer the middle is left out; control characters are written as Python does.
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
