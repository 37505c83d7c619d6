"""Put back every output that is missing or differs from dvc.lock.

    python -m commands.restore

For what DVC itself removed before a stage started: it removes a stage's outputs, and then may find
that a parameter or a dependency is missing. Outputs come from DVC's cache, and what git tracks, in
a clone without the cache, from the last commit. `dvc checkout` does the same for cached outputs
alone.
"""

import sys

from dvc.repo import Repo

from stages.lib.core import restoring


def main() -> None:
    with Repo() as repo:
        outs = [out for stage in repo.index.stages for out in stage.outs]
        lost = restoring.restore(outs)
    for path in lost:
        print(f"{path}: in neither DVC's cache nor git; 'dvc pull' or 'dvc repro' brings it")
    sys.exit(bool(lost))


if __name__ == "__main__":
    main()
