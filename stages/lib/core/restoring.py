"""Restoring outputs that DVC has removed.

DVC removes a stage's outputs before it starts the command. The outputs of the last successful run
are in DVC's cache under the hashes in dvc.lock, including metrics, which the run cache keeps. In a
clone without a cache, the outputs that git tracks are in the last commit.
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
    """Restore the outputs of the stage that DVC is running, if it is running one."""
    if "DVC_STAGE" not in os.environ:
        return
    from dvc.repo import Repo

    with Repo() as repo:
        restore(repo.stage.load_one(name=os.environ["DVC_STAGE"]).outs)


def restore(outs: Iterable["Output"]) -> list[str]:
    """Restore the outputs that differ from dvc.lock.

    Returns the paths of outputs found in neither the cache nor git. An output that exists with
    different content is replaced only from the cache, because the last commit may be older than
    dvc.lock.
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

    # Links would make the files that git tracks read-only or shared with the cache.
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
        # A failed checkout may have left part of the directory.
        shutil.rmtree(path)
    done = subprocess.run(
        ["git", "restore", "--source", "HEAD", "--worktree", "--", path],
        check=False,
        capture_output=True,
    )
    return done.returncode == 0
