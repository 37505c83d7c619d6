"""How every stage starts and ends.

A wrong input becomes one line on stderr and exit status 1, a bug keeps its traceback, and what the
stage had written before is put back in either case.
"""

import errno
import os
import re
import sys
from collections.abc import Callable

from stages.lib import pipeline
from stages.lib.errors import InputError

# No bars in logs. tqdm reads this when it is imported, which is after this module.
if not sys.stderr.isatty():
    os.environ.setdefault("TQDM_DISABLE", "1")

_OF_THE_MACHINE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOMEM,
}


def run(main: Callable[[], None]) -> None:
    """Run `main`, the whole of a stage."""
    try:
        try:
            pipeline.check_libraries()
            main()
        except BaseException:
            _put_back()
            raise
    except InputError as error:
        _stop(str(error))
    except KeyboardInterrupt:
        _stop("interrupted; run the same command again to go on", status=130)
    except Exception as error:
        number = _errno(error)
        if number not in _OF_THE_MACHINE:
            raise
        where = f"{error.filename}: " if getattr(error, "filename", None) else ""
        _stop(f"{where}{os.strerror(number).lower()}; what was there before is as it was")


def _put_back() -> None:
    try:
        pipeline.restore_outputs()
    except Exception as error:
        print(f"warning: outputs could not be put back ({error}): dvc checkout", file=sys.stderr)


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
    return _errno(error.__cause__ or (None if error.__suppress_context__ else error.__context__))


def _stop(message: str, status: int = 1) -> None:
    name = os.environ.get("DVC_STAGE", "")
    print(f"error: {name + ': ' if name else ''}{' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
