"""Standard output as people see it, in a terminal or through a pipe."""

import os
import sys
from typing import TYPE_CHECKING, Any

from stages.lib.core.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def console() -> "Console":
    """Return a console for standard output: plain and of any width where that is no terminal.

    Raises InputError if standard output is closed.
    """
    from rich.console import Console

    if sys.stdout is None:
        raise InputError("standard output is closed: there is nowhere to print to")
    return Console(
        # A pipe or a file has no width limit.
        width=None if sys.stdout.isatty() else 500,
        # Bold is not a colour, but a user who sets NO_COLOR wants plain text.
        color_system=None if os.environ.get("NO_COLOR") else "auto",
        markup=False,
        highlight=False,
    )


def table(**options: Any) -> "Table":
    """Return a table without lines; `options` are those of rich.table.Table."""
    from rich.table import Table

    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), **options)
