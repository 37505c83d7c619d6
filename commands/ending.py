"""How a command whose output others read ends."""

import os
import sys
from collections.abc import Callable

# As a shell says of a program that the signal has ended.
INTERRUPTED, BROKEN_PIPE = 130, 141


def quietly(main: Callable[[], None]) -> None:
    """`main`, ended by Ctrl-C or by who reads its output without a word.

    What the terminal's encoding lacks is written as Python does.
    """
    if sys.stdout is not None:
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        main()
        if sys.stdout is not None:
            # Here it is one line when the disk is full, at the exit it would be two of Python's.
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
    """Python flushes once more at the exit."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
