"""How every stage starts and ends.

A wrong input becomes one line on stderr and exit status 1, a bug keeps its traceback, and what the
stage had written before is put back in either case.
"""

import errno
import os
import sys
from collections.abc import Callable

from stages.lib import pipeline
from stages.lib.errors import InputError

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
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        try:
            pipeline.check_libraries()
            main()
        except BaseException:
            pipeline.restore_outputs()
            raise
    except InputError as error:
        _stop(str(error))
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _stop(f"{where}{os.strerror(error.errno).lower()}; nothing was written")
    except KeyboardInterrupt:
        _stop("interrupted; run the same command again to go on", status=130)


def _stop(message: str, status: int = 1) -> None:
    name = os.environ.get("DVC_STAGE", "")
    print(f"error: {name + ': ' if name else ''}{' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
