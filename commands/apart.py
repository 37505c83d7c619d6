"""Runs of the pipeline apart from the workspace, in a directory that is removed at the end."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from commands import programs
from stages.lib.core import declarations
from stages.lib.schema import params
from stages.lib.sources import local

PLACE = Path("tmp")


@contextlib.contextmanager
def directory(name: str) -> Iterator[Path]:
    """Yield a new directory in tmp, which is removed at the end, also after a signal."""
    PLACE.mkdir(exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=PLACE))
    try:
        yield made
    finally:
        with _undisturbed():
            shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def worktree(name: str) -> Iterator[Path]:
    """Yield the project as the last commit has it, in a git worktree that is removed at the end."""
    # The project may be in a folder of the repository.
    inside = programs.output("git", "rev-parse", "--show-prefix").strip()
    with directory(name) as parent:
        tree = parent / "worktree"
        # DVC's hook would check outputs out.
        git = ("git", "-c", f"core.hooksPath={os.devnull}", "worktree")
        try:
            programs.output(*git, "add", "--quiet", "--detach", str(tree), "HEAD")
            yield tree / inside
        finally:
            # With --force twice, git also removes a worktree whose creation was interrupted.
            with _undisturbed():
                subprocess.run(
                    [*git, "remove", "--force", "--force", str(tree)],
                    check=False,
                    capture_output=True,
                )


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore the signals of a user who is impatient while things are removed."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def isolate(project: Path, cache: Path) -> None:
    """Make `project` a DVC repository of its own with this cache."""
    from dvc.repo import Repo

    with Repo(str(project), uninitialized=True) as other, other.config.edit("local") as config:
        config["cache"]["dir"] = str(cache.resolve())
        # DVC must not take the project for a part of the git repository around it.
        config["core"]["no_scm"] = True


def _has_a_copy(project: Path, own: Path) -> bool:
    """Return whether `project` has all of the files at `own`, which is relative to both.

    Hidden files in a folder are no data.
    """
    files = [own] if own.is_file() else [file for file in own.rglob("[!.]*") if file.is_file()]
    return not own.is_absolute() and all((project / file).is_file() for file in files)


def set_params(
    project: Path, own_data: Collection[str] = ("dataset", "backbone"), **changes: Any
) -> None:
    """Change params.yaml in `project`: `dataset__subset=64` sets dataset.subset.

    In the sections `own_data`, the user's own data are read where they are, unless `project` has a
    copy of them.
    """
    path = project / params.PATH
    declarations.read_yaml(str(path))  # raises InputError where it cannot be read
    yaml = YAML()
    content = yaml.load(path.read_text(encoding="utf-8"))
    for section in own_data:
        own = Path(content[section]["path"])
        if own.exists() and local.is_given(own) and not _has_a_copy(project, own):
            content[section]["path"] = str(own.resolve())
    for name, value in changes.items():
        *sections, key = name.split("__")
        place = content
        for section in sections:
            place = place[section]
        place[key] = value
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(content, file)
