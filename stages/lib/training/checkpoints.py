"""The checkpoints of a training run, and the choice of the one to resume from.

The Trainer's own choice is the newest directory, whether or not it is complete and whatever code,
inputs and settings it came from.
"""

import hashlib
import json
import shutil
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

from stages.lib.core.declarations import LIBRARIES, read_yaml

CHECKPOINTS = Path("tmp/checkpoints")
REST = {"optimizer.pt", "scheduler.pt"}


def directory(name: str, inputs: list[Path], settings: list[Any]) -> Path:
    """Return the checkpoint directory for exactly this code, these inputs and these settings.

    Its name contains a fingerprint of all three, so that a run never resumes from a checkpoint of
    anything else. Directories of other runs of the stage `name` are deleted.
    """
    versions = {name: metadata.version(name) for name in read_yaml(LIBRARIES)}
    digest = hashlib.sha256(repr([settings, versions]).encode())
    for path in sorted(_files(inputs) + _code()):
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    chosen = CHECKPOINTS / name / digest.hexdigest()[:16]
    for other in CHECKPOINTS.glob(f"{name}/*"):
        if other != chosen:
            shutil.rmtree(other)
    return chosen


def _files(inputs: list[Path]) -> list[Path]:
    return [
        file
        for path in inputs
        for file in ([path] if path.is_file() else path.rglob("*"))
        if file.is_file()
    ]


def _code() -> list[Path]:
    return [
        Path(file)
        for name, module in list(sys.modules.items())
        # The script itself runs as the main module under `python -m`.
        if name.partition(".")[0] in ("stages", "__main__")
        and (file := getattr(module, "__file__", None))
    ]


def last(directory: Path, processes: int) -> str | None:
    """Return the newest complete checkpoint that this number of processes wrote, or None.

    Incomplete checkpoints of a killed run are deleted.
    """
    whole = []
    for path in directory.glob("checkpoint-*"):
        if _is_whole(path, processes):
            whole.append(path)
        else:
            shutil.rmtree(path)
    return str(max(whole, key=_step)) if whole else None


def files(processes: int) -> set[str]:
    """List the files of a checkpoint of this number of processes, besides weights and state."""
    if processes == 1:
        return REST | {"rng_state.pth"}
    return REST | {f"rng_state_{index}.pth" for index in range(processes)}


def _is_whole(checkpoint: Path, processes: int) -> bool:
    # The Trainer writes its state last, but a checkpoint that it was deleting when it was killed
    # may still have one, and other processes may be killed while they write their random states.
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    # torch.save writes a zip archive, which has its table of contents at the end.
    archives = all(zipfile.is_zipfile(checkpoint / name) for name in files(processes))
    return archives and any(checkpoint.glob("*.safetensors"))


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.partition("-")[2])


def remove(name: str) -> None:
    """Delete the checkpoints of a finished training run."""
    shutil.rmtree(CHECKPOINTS / name)
