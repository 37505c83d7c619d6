"""Put back every output that is missing or differs from dvc.lock.

    python -m commands.restore

For what DVC itself removed before a stage started: it removes a stage's outputs, and then may find
that a parameter or a dependency is missing. Outputs come from DVC's cache, and what git tracks, in
a clone without the cache, from the last commit. `dvc checkout` does the same for cached outputs
alone.
"""

import argparse
import sys
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo

from stages.lib.core import restoring, stage
from stages.lib.core.errors import InputError


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m commands.restore",
        description="Put back every output that is missing or differs from dvc.lock.",
    ).parse_args()
    try:
        with Repo() as repo:
            if not Path("dvc.lock").is_file():
                raise InputError(
                    "dvc.lock: no such file here, and it says what the outputs were; "
                    "'git restore dvc.lock' brings the last one that was committed"
                )
            outs = [out for stage in repo.index.stages for out in stage.outs]
            lost = restoring.restore(outs)
    except DvcException as error:
        raise InputError(str(error)) from None
    except FileNotFoundError as error:
        if error.filename != "git":
            raise
        raise InputError("git: no such program here; it has what DVC's cache lacks") from None
    for path in lost:
        print(f"{path}: in neither DVC's cache nor git; 'dvc pull' or 'dvc repro' brings it")
    sys.exit(bool(lost))


if __name__ == "__main__":
    stage.run(main)
