"""Programs that commands run for what they print."""

import subprocess

from stages.lib.core.errors import InputError


def output(*command: str) -> str:
    """Run a program and return its standard output.

    Raises InputError, with the first line of what it says, if there is no such program or it fails.
    """
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        raise InputError(f"{command[0]}: no such program here") from None
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[0]
        raise InputError(f"{' '.join(command[-3:])}: {reason.removeprefix('ERROR: ')}")
    return done.stdout
