"""Restore every output that is missing or differs from dvc.lock.

    python -m commands.restore

Use it when DVC itself removed outputs before a stage started: DVC removes a stage's outputs first,
and may then find that a parameter or a dependency is missing. Outputs are restored from DVC's
cache; in a clone without the cache, those that git tracks are restored from the last commit.
`dvc checkout` restores only cached outputs.
"""

import sys

from dvc.repo import Repo

from stages.lib.core import restoring


def main() -> None:
    with Repo() as repo:
        outs = [out for stage in repo.index.stages for out in stage.outs]
        lost = restoring.restore(outs)
    for path in lost:
        print(f"{path}: in neither DVC's cache nor git; get it with 'dvc pull' or 'dvc repro'")
    sys.exit(bool(lost))


if __name__ == "__main__":
    main()
