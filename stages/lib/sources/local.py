"""Local files: a directory with the three splits, a directory with a backbone."""

from pathlib import Path
from typing import Any

import safetensors

from stages.lib.errors import InputError
from stages.lib.reviews import Splits, read
from stages.lib.sources import checksums, encoders
from stages.lib.splits import SPLITS

SUFFIXES = (".parquet", ".csv")


def is_given(directory: Path) -> bool:
    """Whether a user put data there: as the project comes, there is only a README.md."""
    names = {path.name for path in directory.glob("*") if not path.name.startswith(".")}
    return names != {"README.md"}


def reviews(directory: Path) -> tuple[Splits, dict[str, Any]]:
    """The three splits and their checksums. Raises InputError that names the file at fault."""
    if not directory.is_dir():
        raise InputError(f"dataset.path: {directory} is not a directory")
    paths = {name: _split_file(directory, name) for name in SPLITS}
    splits = {name: read(path) for name, path in paths.items()}
    sha256 = {path.name: checksums.of(path) for path in paths.values()}
    return splits, {"source": "local", "path": str(directory), "sha256": sha256}


def _split_file(directory: Path, split: str) -> Path:
    found = [path for suffix in SUFFIXES if (path := directory / f"{split}{suffix}").is_file()]
    if len(found) != 1:
        wanted = " or ".join(f"{split}{suffix}" for suffix in SUFFIXES)
        problem = "has both of" if found else "lacks"
        raise InputError(f"dataset.path: {directory} {problem} {wanted}")
    return found[0]


def backbone(source: Path, directory: Path) -> dict[str, Any]:
    """Copy an encoder from `source` to `directory`; gives where it came from.

    Raises InputError for a directory without config, safetensors weights or tokenizer, and for
    another architecture. Pickled weights are never read.
    """
    if not source.is_dir():
        raise InputError(f"backbone.path: {source} is not a directory")
    names = {path.name for path in source.iterdir() if path.is_file()}
    encoders.check_files(names, f"backbone.path: {source}")
    config_path, weights = source / encoders.CONFIG, source / encoders.WEIGHTS
    config = encoders.read_config(config_path, f"backbone.path: {config_path}")
    try:
        with safetensors.safe_open(weights, "numpy"):
            pass
    except safetensors.SafetensorError as error:
        raise InputError(f"backbone.path: {weights}: not whole safetensors: {error}") from None
    wanted = (encoders.CONFIG, encoders.WEIGHTS, *encoders.TOKENIZER_FILES)
    encoders.install({name: source / name for name in wanted if name in names}, config, directory)
    return {"source": "local", "path": str(source), "sha256": checksums.of(weights)}
