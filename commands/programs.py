"""Git and DVC, as commands use them."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stages.lib.core.errors import InputError

if TYPE_CHECKING:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

RESTORE_LOCK = "'git restore dvc.lock' brings back the last committed one"


def output(*command: str) -> str:
    """Run a program and return its standard output.

    Raises InputError, with the first line of what it says that is no warning, if there is no such
    program or it fails.
    """
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        raise InputError(f"{command[0]}: no such program here") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        errors = [line for line in lines if not line.lower().startswith("warning")]
        reason = [*errors, *lines, "no reason given"][0]
        raise InputError(f"{' '.join(command[-3:])}: {reason.removeprefix('ERROR: ')}")
    return done.stdout


def at(revision: str, path: str | Path) -> str:
    """Return the text of a file as a git revision has it."""
    return output("git", "show", f"{revision}:./{path}")


def changed() -> str:
    """Name the tracked files that differ from the last commit: "", "a" or "a and 2 more"."""
    lines = output("git", "status", "--porcelain", "--untracked-files=no").splitlines()
    if not lines:
        return ""
    return lines[0][3:] + (f" and {len(lines) - 1} more" if len(lines) > 1 else "")


@contextlib.contextmanager
def repository() -> Iterator["Repo"]:
    """Open the DVC repository here. Raises InputError for what DVC refuses."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            yield repo
    except DvcException as error:
        raise InputError(reason(error)) from None


def reason(error: "DvcException") -> str:
    """Return what DVC says in one line, with advice where there is some."""
    said = " ".join(str(error).split())
    return f"{said}; {advice(error)}" if advice(error) else said


def advice(error: "DvcException") -> str:
    """Return what to do if DVC's last write of dvc.lock was cut off, and "" for other errors.

    DVC writes dvc.lock in place, so a kill or a Ctrl-C in that moment leaves it damaged. What has
    the marks of a merge conflict is the user's to resolve.
    """
    from dvc.utils.strictyaml import YAMLSyntaxError, YAMLValidationError

    if not isinstance(error, YAMLSyntaxError | YAMLValidationError):
        return ""
    if Path(error.path).name != "dvc.lock" or (isinstance(error, YAMLSyntaxError) and error.hint):
        return ""
    return f"{RESTORE_LOCK}; 'dvc repro' then finds in DVC's cache what was finished since"
