"""What dvc.yaml says of the running stage: the parameters and libraries that it declares, and its
outputs, which are put back when the stage fails."""

import functools
import os
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from stages.lib.core.errors import InputError

LIBRARIES = "libraries.yaml"


def read_yaml(path: str) -> Any:
    """The content of a YAML 1.2 file, which is how DVC reads it: `2e-4` is a number.

    Raises InputError when the file is missing or not YAML.
    """
    try:
        return YAML(typ="safe", pure=True).load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file here; run from the project's root") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start})") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" line {mark.line + 1}" if mark else ""
        problem = " ".join((error.problem or "not valid YAML").split())
        raise InputError(f"{path}:{where} {problem}") from None


@functools.cache
def _declared() -> dict[str, set[str]]:
    """Keys that the running stage declares under `params`, by file."""
    name = os.environ["DVC_STAGE"]
    declared: dict[str, set[str]] = {"params.yaml": set(), LIBRARIES: set()}
    for entry in read_yaml("dvc.yaml")["stages"][name].get("params", []):
        for path, keys in entry.items() if isinstance(entry, dict) else [("params.yaml", [entry])]:
            declared.setdefault(path, set()).update(keys)
    return declared


def check_declared(sections: tuple[str, ...]) -> None:
    """Under DVC, refuse a read of sections of params.yaml that the stage does not declare."""
    if "DVC_STAGE" not in os.environ:
        return
    if missing := sorted(set(sections) - _declared()["params.yaml"]):
        raise InputError(
            f"dvc.yaml: stage '{os.environ['DVC_STAGE']}' reads the parameter '{missing[0]}' "
            "but does not declare it under params"
        )


def check_libraries() -> None:
    """Under DVC, refuse installed libraries in other versions than the stage depends on."""
    if "DVC_STAGE" not in os.environ:
        return
    pinned = read_yaml(LIBRARIES)
    for name in sorted(_declared()[LIBRARIES]):
        try:
            found = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            found = "not installed"
        if found != str(pinned[name]):
            raise InputError(
                f"{LIBRARIES}: {name}: {pinned[name]} is pinned but {found} is here; "
                "pip install -r requirements.txt, or write your version there"
            )


def restore_outputs() -> None:
    """Put back what the stage's last successful run wrote.

    DVC removes a stage's outputs before it starts the command. Their content is in DVC's cache
    under the hashes in dvc.lock (metrics and plots too: the run cache keeps them), so a stage that
    fails leaves the workspace as it was.
    """
    if "DVC_STAGE" not in os.environ:
        return
    from dvc.repo import Repo

    with Repo() as repo:
        # Copies, not links: what git tracks must stay an ordinary file that can be edited.
        repo.cache.local.cache_types = ["copy"]
        for out in repo.stage.load_one(name=os.environ["DVC_STAGE"]).outs:
            if not out.hash_info or not out.workspace_status():
                continue
            if out.get_obj():
                out.use_cache = True
                out.checkout(force=True)
            elif not out.use_cache and not out.exists:
                _restore_from_git(str(out))


def _restore_from_git(path: str) -> None:
    # In a clone without DVC's cache, metrics are in the last commit alone.
    found = subprocess.run(["git", "show", f"HEAD:./{path}"], check=False, capture_output=True)
    if found.returncode == 0:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(found.stdout)
