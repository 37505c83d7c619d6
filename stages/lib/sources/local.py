"""Local files: reviews in a folder or in one file, a folder with a backbone."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import safetensors

from stages.lib.errors import InputError
from stages.lib.params import Dataset
from stages.lib.reviews import READERS, Reviews, assemble, read
from stages.lib.sources import checksums, encoders
from stages.lib.splits import SPLITS


def is_given(path: Path) -> bool:
    """Whether a user put data there: as the project comes, there is only a README.md."""
    names = {file.name for file in path.glob("*") if not file.name.startswith(".")}
    return names != {"README.md"}


def reviews(dataset: Dataset) -> Reviews:
    """The reviews of `dataset.path`, a folder with a file for each split, or one file.

    Raises InputError that names the file at fault.
    """
    path = Path(dataset.path)
    paths = _split_files(path) if path.is_dir() else {"train": _single_file(path)}
    tables = {
        name: read(file, dataset.text_column, dataset.label_column) for name, file in paths.items()
    }
    places = {name: str(file) for name, file in paths.items()}
    splits, labels, facts = assemble(tables, places, seed=dataset.split_seed)
    sha256 = {file.name: checksums.of(file) for file in paths.values()}
    provenance = {"source": "local", "path": str(path), "sha256": sha256}
    return Reviews(splits, labels, provenance | facts)


def _single_file(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"dataset.path: {path}: no such file or folder")
    if path.suffix not in READERS:
        raise InputError(f"dataset.path: {path}: expected {_or(READERS)}")
    return path


def _split_files(directory: Path) -> dict[str, Path]:
    """The file of each split that is there; train must be."""
    files = sorted(path for path in directory.iterdir() if path.suffix in READERS)
    found: dict[str, Path] = {}
    for path in files:
        if path.stem in found:
            names = f"{found[path.stem].name} and {path.name}"
            raise InputError(f"dataset.path: {directory} has both {names}")
        found[path.stem] = path
    missing = [name for name in SPLITS if name not in found]
    others = [path for path in files if path.stem not in SPLITS]
    if missing and others:
        # A validation split by another name must not go unseen.
        raise InputError(
            f"dataset.path: {directory} has {others[0].name} but no {missing[0]}: rename it to one "
            f"of {', '.join(SPLITS)}, or name one file: dataset.path={others[0]}"
        )
    if "train" in missing:
        wanted = _or(f"train{suffix}" for suffix in READERS)
        raise InputError(f"dataset.path: {directory} lacks {wanted}")
    return {name: found[name] for name in SPLITS if name in found}


def _or(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}"


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
