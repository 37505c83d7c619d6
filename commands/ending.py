"""The end of a command whose output other programs read."""

import io
import os
import sys
from collections.abc import Callable

from stages.lib.core import stage

# Exit statuses that a shell reports for a program ended by SIGINT or SIGPIPE.
INTERRUPTED, BROKEN_PIPE = 130, 141


def run(main: Callable[[], None]) -> None:
    """Run a command's `main`, report its errors as those of a stage, and end it quietly."""
    stage.run(lambda: quietly(main))


def quietly(main: Callable[[], None]) -> None:
    """Run `main`, and exit without a message when Ctrl-C or the reader of its output ends it.

    Characters that the terminal's encoding lacks are written as Python escapes them.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        main()
        if sys.stdout is not None:
            # A full disk gives one line of error here; at exit, Python would print two of its own.
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        _drop_output()
        sys.exit(BROKEN_PIPE)
    except OSError:
        _drop_output()
        raise


def _drop_output() -> None:
    """Discard what is left, because Python flushes standard output once more at exit."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
