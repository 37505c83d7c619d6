"""Local files as a source: reviews in a folder or a single file, and a folder with a backbone."""

import re
from pathlib import Path

from stages.lib.core.errors import InputError
from stages.lib.core.manifest import Provenance
from stages.lib.core.paths import SPLITS
from stages.lib.reviews.reading import READERS, either, read
from stages.lib.reviews.splitting import Reviews, assemble
from stages.lib.schema.params import Dataset
from stages.lib.sources import checksums, encoders

# The stem of one shard of a numbered set, as the Hub names them, sometimes with a hash at the end.
SHARD = re.compile(r"(?P<split>.+)-(?P<number>\d+)-of-(?P<count>\d+)(-[0-9a-f]+)?")


def is_given(path: Path) -> bool:
    """Return whether the user has chosen `path`: anything but the folder of a fresh checkout, which
    has only a README.md. A path that does not exist counts, so that a misspelled one is reported.
    """
    names = {file.name for file in path.glob("*") if not file.name.startswith(".")}
    return names != {"README.md"}


def check_copied(path: Path, parameter: str) -> None:
    """Raise InputError in an experiment's copy of a workspace that has data at `path` when the copy
    has none there.

    DVC runs queued experiments in a folder below .dvc/tmp/exps, which has only what git tracks. The
    user's untracked data would silently be replaced by public data.
    """
    copies = Path(".dvc/tmp/exps").parts
    parts = Path.cwd().parts
    for end in range(len(parts) - len(copies)):
        if parts[end : end + len(copies)] == copies:
            original = Path(*parts[:end]) / path
            if original.exists() and is_given(original) and not (path.exists() and is_given(path)):
                raise InputError(
                    f"{parameter}: {path} has data in your workspace that git does not track, so "
                    f"this experiment would not use them: track them ('dvc add {path}/*', then "
                    "'git add' and 'git commit'), or name them by an absolute path"
                )


def reviews(dataset: Dataset) -> Reviews:
    """Return the reviews of `dataset.path`, a folder with the files of each split or a single file.

    Raises InputError that names the file at fault.
    """
    path = Path(dataset.path)
    paths = _split_files(path) if path.is_dir() else {"train": [_single_file(path)]}
    files = {
        name: {
            str(file): read(file, dataset.text_column, dataset.label_column) for file in of_split
        }
        for name, of_split in paths.items()
    }
    splits, labels, facts = assemble(files, seed=dataset.split_seed)
    root = path if path.is_dir() else path.parent
    sha256 = {
        file.relative_to(root).as_posix(): checksums.sha256(file)
        for of_split in paths.values()
        for file in of_split
    }
    provenance: Provenance = {"source": "local", "path": str(path), "sha256": sha256}
    return Reviews(splits, labels, {**provenance, **facts})


def _single_file(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"dataset.path: {path}: no such file or folder")
    if path.suffix not in READERS:
        raise InputError(f"dataset.path: {path}: expected {either(READERS)}")
    return path


def _split_files(directory: Path) -> dict[str, list[Path]]:
    """Find the files of each split, in order. Validation and test may be missing.

    A split is a single file, a numbered set as the Hub names them (train-00000-of-00002.parquet),
    or a folder of files. Raises InputError when train or a shard is missing, and for ambiguous or
    unknown files.
    """
    found: dict[str, dict[str, list[Path]]] = {}
    for path in _in_order(directory):
        shard = SHARD.fullmatch(path.stem)
        name = path.name if path.is_dir() else shard["split"] if shard else path.stem
        group = f"{name}-*-of-{shard['count']}" if shard else path.name
        if files := _readable(path):
            found.setdefault(name, {}).setdefault(group, []).extend(files)
    for groups in found.values():
        if len(groups) > 1:
            raise InputError(f"dataset.path: {directory} has both {' and '.join(groups)}")
    splits = {name: files for name, groups in found.items() for files in groups.values()}
    missing = [name for name in SPLITS if name not in splits]
    others = [name for name in splits if name not in SPLITS]
    if missing and others:
        # A validation split under another name must not be ignored silently.
        file = splits[others[0]][0]
        raise InputError(
            f"dataset.path: {directory} has {file.relative_to(directory)} but no {missing[0]}: "
            f"rename it to one of {', '.join(SPLITS)}, or name one file: dataset.path={file}"
        )
    if "train" in missing:
        wanted = either(f"train{suffix}" for suffix in READERS)
        raise InputError(f"dataset.path: {directory} lacks {wanted}")
    for name in SPLITS:
        _check_whole(splits.get(name, []))
    return {name: splits[name] for name in SPLITS if name in splits}


def _readable(path: Path) -> list[Path]:
    """Return the file, or the files of a folder in order, that have a readable format."""
    paths = _in_order(path) if path.is_dir() else [path]
    return [path for path in paths if path.is_file() and path.suffix in READERS]


def _in_order(directory: Path) -> list[Path]:
    """List a directory without hidden entries, in natural order (2 before 10)."""
    return sorted(
        (path for path in directory.iterdir() if not path.name.startswith(".")),
        key=lambda path: [
            (int(part), "") if part.isdecimal() else (-1, part)
            for part in re.split(r"(\d+)", path.name)
        ],
    )


def _check_whole(paths: list[Path]) -> None:
    """Raise InputError when a shard of a numbered set is missing or duplicated."""
    shards = [(path, SHARD.fullmatch(path.stem)) for path in paths]
    numbered = [(path, shard) for path, shard in shards if shard]
    if not numbered:
        return
    first, shard = numbered[0]
    for number in range(int(shard["count"])):
        of_number = [path for path, other in numbered if int(other["number"]) == number]
        if not of_number:
            digits = f"{number:0{len(shard['number'])}}"
            lacking = f"{shard['split']}-{digits}-of-{shard['count']}{first.suffix}"
            raise InputError(f"dataset.path: {first.parent} lacks {lacking}")
        if len(of_number) > 1:
            names = " and ".join(path.name for path in of_number)
            raise InputError(f"dataset.path: {first.parent} has both {names}")


def backbone(source: Path, directory: Path) -> Provenance:
    """Copy an encoder from `source` to `directory` and return its provenance.

    Raises InputError for a directory without config, safetensors weights or tokenizer, and for an
    unsupported architecture. Pickled weights are never read.
    """
    if not source.is_dir():
        raise InputError(f"backbone.path: {source} is not a directory")
    names = {path.name for path in source.iterdir() if path.is_file()}
    encoders.check_files(names, f"backbone.path: {source}")
    config_path, weights = source / encoders.CONFIG, source / encoders.WEIGHTS
    config = encoders.read_config(config_path, f"backbone.path: {config_path}")
    wanted = (encoders.CONFIG, encoders.WEIGHTS, *encoders.TOKENIZER_FILES)
    encoders.install({name: source / name for name in wanted if name in names}, config, directory)
    return {"source": "local", "path": str(source), "sha256": checksums.sha256(weights)}
