"""Putting back outputs that DVC has removed.

DVC removes a stage's outputs before it starts the command. The content that the last successful run
wrote is in DVC's cache under the hashes in dvc.lock (metrics too: the run cache keeps them). In a
clone that has no cache, what git tracks is in the last commit.
"""

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dvc.output import Output


def restore_running_stage() -> None:
    """Put back the outputs of the stage that DVC is running, if it is running one."""
    if "DVC_STAGE" not in os.environ:
        return
    from dvc.repo import Repo

    with Repo() as repo:
        restore(repo.stage.load_one(name=os.environ["DVC_STAGE"]).outs)


def restore(outs: Iterable["Output"]) -> list[str]:
    """Put back what differs from dvc.lock; gives the paths of what is in neither cache nor git.

    An output that exists with other content is replaced from the cache alone: the last commit may
    be older than dvc.lock.
    """
    lost = []
    for out in outs:
        if not out.hash_info or not out.workspace_status():
            continue
        existed = out.exists
        if not (_from_cache(out) or existed or _from_git(str(out))):
            lost.append(str(out))
    return lost


def _from_cache(out: "Output") -> bool:
    from dvc.exceptions import DvcException

    # Copies, not links: what git tracks must stay an ordinary file that can be edited.
    out.repo.cache.local.cache_types = ["copy"]
    out.use_cache = True
    if out.changed_cache():
        return False
    try:
        out.checkout(force=True)
    except (DvcException, OSError):
        return False
    return True


def _from_git(path: str) -> bool:
    if Path(path).is_dir():
        # What a checkout that failed half-way has left.
        shutil.rmtree(path)
    done = subprocess.run(
        ["git", "restore", "--source", "HEAD", "--worktree", "--", path],
        check=False,
        capture_output=True,
    )
    return done.returncode == 0
