"""Restore every output that is missing, or that differs from what DVC's cache has.

    python -m commands.restore

Use it when DVC itself removed outputs before a stage started: DVC removes a stage's outputs first,
and may then find that a parameter or a dependency is missing. Outputs are restored from DVC's
cache; in a clone without the cache, those that git tracks are restored from the last commit.
`dvc checkout` restores only cached outputs.
"""

import argparse
import sys
from pathlib import Path

from commands import ending, programs
from stages.lib.core import restoring
from stages.lib.core.errors import InputError


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m commands.restore",
        description="Put back every output that is missing or differs from what DVC's cache has.",
    ).parse_args()
    try:
        with programs.repository() as repo:
            if not Path("dvc.lock").is_file():
                raise InputError(
                    "dvc.lock: no such file here, but it says what the outputs were; "
                    f"{programs.RESTORE_LOCK}"
                )
            outs = [out for stage in repo.index.stages for out in stage.outs]
            lost = restoring.restore(outs)
    except FileNotFoundError as error:
        if error.filename != "git":
            raise
        raise InputError(
            "git: no such program here; it is needed for outputs that DVC's cache lacks"
        ) from None
    for path in lost:
        print(f"{path}: in neither DVC's cache nor git; get it with 'dvc pull' or 'dvc repro'")
    sys.exit(bool(lost))


if __name__ == "__main__":
    ending.run(main)
