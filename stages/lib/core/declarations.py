"""The parameters and libraries that dvc.yaml declares for the running stage."""

import functools
import os
from importlib import metadata
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from stages.lib.core.errors import InputError

LIBRARIES = "libraries.yaml"


def read_yaml(path: str) -> Any:
    """Read a YAML 1.2 file. DVC uses the same version, in which `2e-4` is a number.

    Raises InputError when the file is missing, not UTF-8 or not YAML.
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
    except RecursionError:
        raise InputError(f"{path}: lists or sections within each other are too deep") from None
    except (YAMLError, ValueError) as error:
        # A character that YAML forbids; a day that no calendar has, an integer of 5,000 digits.
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None


@functools.cache
def _declared() -> dict[str, set[str]]:
    """Return the keys that the running stage declares under `params`, by file."""
    name = os.environ["DVC_STAGE"]
    declared: dict[str, set[str]] = {"params.yaml": set(), LIBRARIES: set()}
    stages = read_yaml("dvc.yaml")["stages"]
    if name not in stages:
        raise InputError(
            f"environment variable DVC_STAGE: {name!r} is wrong: DVC sets it to a stage of dvc.yaml"
        )
    for entry in stages[name].get("params", []):
        for path, keys in entry.items() if isinstance(entry, dict) else [("params.yaml", [entry])]:
            declared.setdefault(path, set()).update(keys)
    return declared


def check_declared(sections: tuple[str, ...]) -> None:
    """Raise InputError if DVC runs the stage and it does not declare one of these sections."""
    if "DVC_STAGE" not in os.environ:
        return
    if missing := sorted(set(sections) - _declared()["params.yaml"]):
        raise InputError(
            f"dvc.yaml: stage '{os.environ['DVC_STAGE']}' reads the parameter '{missing[0]}' "
            "but does not declare it under params"
        )


def check_libraries() -> None:
    """Raise InputError if DVC runs the stage and a library it declares has another version."""
    if "DVC_STAGE" not in os.environ:
        return
    pinned = read_yaml(LIBRARIES) or {}
    for name in sorted(_declared()[LIBRARIES]):
        try:
            found = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            found = "no version"
        if name not in pinned:
            raise InputError(f"{LIBRARIES}: {name}: missing; {found} is installed")
        if found != str(pinned[name]):
            raise InputError(
                f"{LIBRARIES}: {name}: {pinned[name]} is pinned but {found} is installed; "
                "run pip install -r requirements.txt, or enter your version there"
            )
