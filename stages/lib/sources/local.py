"""Local files: a directory with the three splits, a directory with a backbone."""

import json
import shutil
from pathlib import Path
from typing import Any

import safetensors

from stages.lib.errors import InputError
from stages.lib.reviews import Splits, read
from stages.lib.sources import checksums
from stages.lib.splits import SPLITS

SUFFIXES = (".parquet", ".csv")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)


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
    """Copy a DistilBERT from `source` to `directory`; gives where it came from.

    Raises InputError for a directory without config, safetensors weights or tokenizer, and for
    another architecture. Pickled weights are never read.
    """
    if not source.is_dir():
        raise InputError(f"backbone.path: {source} is not a directory")
    config = source / "config.json"
    if not config.is_file():
        raise InputError(f"backbone.path: {source} lacks config.json")
    try:
        kind = json.loads(config.read_text(encoding="utf-8"))["model_type"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"backbone.path: {config} does not say a model_type") from None
    if kind != "distilbert":
        raise InputError(f"backbone.path: {config}: model_type is {kind!r}, expected 'distilbert'")
    weights = source / "model.safetensors"
    if not weights.is_file():
        pickled = sorted(path.name for path in source.glob("*.bin"))
        hint = (
            f"; {pickled[0]} is pickled and is not read: save it as safetensors" if pickled else ""
        )
        raise InputError(f"backbone.path: {source} lacks model.safetensors{hint}")
    tokenizer = [path for name in _TOKENIZER_FILES if (path := source / name).is_file()]
    if not {"tokenizer.json", "vocab.txt"} & {path.name for path in tokenizer}:
        raise InputError(f"backbone.path: {source} lacks tokenizer.json")
    try:
        with safetensors.safe_open(weights, "numpy"):
            pass
    except safetensors.SafetensorError as error:
        raise InputError(f"backbone.path: {weights}: not whole safetensors: {error}") from None
    for path in (config, weights, *tokenizer):
        shutil.copyfile(path, directory / path.name)
    return {"source": "local", "path": str(source), "sha256": checksums.of(weights)}
