"""The Hugging Face Hub as a source, through its official client.

`HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN` and `HF_HUB_OFFLINE` keep their usual meaning, and the client
retries and resumes broken downloads.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pyarrow as pa
import pyarrow.compute as pc
from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
from huggingface_hub.constants import ENDPOINT, is_offline_mode
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
)
from huggingface_hub.utils import get_session, validate_repo_id

from stages.lib.core.errors import InputError
from stages.lib.core.manifest import Provenance
from stages.lib.core.paths import SPLITS
from stages.lib.reviews.reading import ROWS, read, validate
from stages.lib.reviews.splitting import Reviews, assemble
from stages.lib.schema.params import Dataset
from stages.lib.sources import checksums, encoders

DATASET = "cornell-movie-review-data/rotten_tomatoes"
DATASET_REVISION = "aa13bc287fa6fcab6daf52f0dfb9994269ffea28"
DATASET_FILES = tuple(f"{name}.parquet" for name in SPLITS)

BACKBONE = "distilbert/distilbert-base-uncased"
BACKBONE_REVISION = "12040accade4e8a0f71eabdb258fecc2e7e948be"
BACKBONE_SHA256 = {
    "model.safetensors": "5e3f1108e3cb34ee048634875d8482665b65ac713291a7e32396fb18f6ff0063"
}
BACKBONE_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)

# What is said of a token that no header can have.
UNSENDABLE = "the Hub's client cannot ask: the token (HF_TOKEN) has a character that no token has"


class Unreachable(InputError):
    """The Hub cannot be reached. An error response from the Hub is not such a case."""


def check_reachable(*, official: bool = True) -> None:
    """Raise Unreachable unless the Hub responds, with any status.

    With `HF_HUB_OFFLINE`, the local cache replaces the Hub if it has every file. This is only
    checked for the `official` dataset and backbone; for others, the download reports missing files.
    """
    if is_offline_mode():
        if not official:
            return
        cached = [
            try_to_load_from_cache(repository, name, revision=revision, repo_type=kind)
            for repository, revision, kind, names in (
                (DATASET, DATASET_REVISION, "dataset", DATASET_FILES),
                (BACKBONE, BACKBONE_REVISION, "model", BACKBONE_FILES),
            )
            for name in names
        ]
        if not all(isinstance(path, str) for path in cached):
            raise Unreachable("source hub: HF_HUB_OFFLINE is set and the local cache lacks files")
        return
    try:
        session = get_session()
    except (ValueError, OSError, httpx2.InvalidURL) as error:
        raise InputError(
            f"source hub: the connection cannot be set up: {error}; check the environment "
            "variables HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR"
        ) from None
    try:
        session.head(ENDPOINT, timeout=10)
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
        raise Unreachable(f"source hub: no connection to {ENDPOINT} ({error})") from None
    except httpx2.TransportError:
        # The Hub was reached, so the client's retries handle the broken connection.
        return


def is_official(dataset: Dataset) -> bool:
    """Return whether the requested dataset is the one that the embedded source can replace."""
    pinned = (DATASET, f"{DATASET}@{DATASET_REVISION}")
    return dataset.hub in pinned and dataset.config is None


def reviews(dataset: Dataset) -> Reviews:
    """Return the reviews of `dataset.hub` with their provenance.

    Raises InputError for an error response, a checksum mismatch, or invalid reviews.
    """
    return _official_reviews(dataset) if is_official(dataset) else _other_reviews(dataset)


def _official_reviews(dataset: Dataset) -> Reviews:
    where = f"source hub: {DATASET} at revision {DATASET_REVISION[:12]}"
    listed = _listed(DATASET, DATASET_REVISION, "dataset", DATASET_FILES, where)
    paths = _download(DATASET, DATASET_REVISION, "dataset", DATASET_FILES, listed, where)
    files = {
        name: {
            f"{DATASET}: {name}.parquet": read(
                paths[f"{name}.parquet"], dataset.text_column, dataset.label_column
            )
        }
        for name in SPLITS
    }
    splits, labels, facts = assemble(files, seed=dataset.split_seed)
    sha256 = {name: checksums.sha256(path) for name, path in paths.items()}
    provenance = _provenance(DATASET, DATASET_REVISION, sha256)
    return Reviews(splits, labels, {**provenance, **facts})


def _other_reviews(dataset: Dataset) -> Reviews:
    if is_offline_mode():
        raise InputError(
            f"dataset.hub: {dataset.hub} is only on the Hub, but HF_HUB_OFFLINE is set"
        )
    repository, commit = _resolve_dataset(dataset.hub)
    config = f", config {dataset.config}" if dataset.config else ""
    where = f"dataset.hub: {repository} at revision {commit[:12]}{config}"
    with tempfile.TemporaryDirectory() as cache:
        loaded = _load(repository, commit, dataset.config, where, cache)
        if "train" not in loaded:
            raise InputError(f"{where}: no split 'train'; the splits are: {', '.join(loaded)}")
        names = _class_names(loaded["train"].features.get(dataset.label_column))
        found = {name: loaded[name].data.table for name in SPLITS if name in loaded}
        # Benchmarks often withhold the labels of their test split.
        unlabelled = [
            name for name in found if names and _lacks_labels(found[name], dataset.label_column)
        ]
        if "train" in unlabelled:
            raise InputError(f"{where}: train: all labels are -1, which stands for no label")
        places = {name: f"{where}: {name}" for name in found if name not in unlabelled}
        files = {
            name: {
                place: validate(
                    _with_names(found[name], dataset.label_column, names, place),
                    place,
                    dataset.text_column,
                    dataset.label_column,
                )
            }
            for name, place in places.items()
        }
        splits, labels, facts = assemble(files, seed=dataset.split_seed, order=names)
    if unlabelled:
        facts["unlabelled"] = f"{' and '.join(unlabelled)} of the dataset not used: no labels"
    provenance: Provenance = {"source": "hub", "repository": repository, "revision": commit}
    if dataset.config:
        provenance["config"] = dataset.config
    return Reviews(splits, labels, {**provenance, **facts})


def _resolve_dataset(name: str) -> tuple[str, str]:
    """Resolve `id` or `id@revision` to the full id and the commit."""
    repository, _, revision = name.partition("@")
    where = f"dataset.hub: {name}"
    with _told(where):
        try:
            info = HfApi().dataset_info(repository, revision=revision or None)
        except GatedRepoError as error:
            raise _gated(where, error) from None
        except HFValidationError:
            raise InputError(
                f"dataset.hub: {name!r} is not a dataset's id, such as {DATASET} or {DATASET}@main"
            ) from None
    assert info.sha is not None
    return info.id, info.sha


def _load(
    repository: str, commit: str, config: str | None, where: str, cache: str
) -> Mapping[str, Any]:
    """Return the splits that `load_dataset` finds, memory-mapped from files in `cache`.

    Raises InputError when the dataset cannot be loaded.
    """
    # The import takes a second, and most runs do not need it.
    import datasets

    try:
        # Downloads stay in the Hub's cache. The prefix keeps a local folder of that name from being
        # loaded, and the separate cache keeps an older revision from being used after an error.
        return datasets.load_dataset(
            f"hf://datasets/{repository}",
            config,
            revision=commit,
            cache_dir=cache,
        )
    except (
        datasets.exceptions.DatasetsError,
        httpx2.HTTPError,
        OSError,
        RuntimeError,
        ValueError,
        ImportError,
    ) as error:
        raise _unloadable(where, error) from None


def _unloadable(where: str, error: Exception) -> Exception:
    """Convert an error of `load_dataset`, to the Hub's response if that is the cause."""
    for cause in causes(error):
        if isinstance(cause, GatedRepoError):
            return _gated(where, cause)
    for cause in causes(error):
        if isinstance(cause, HfHubHTTPError):
            return refused(where, cause)
    if isinstance(error, OSError) and error.errno:
        return error
    message = ": ".join(filter(None, (str(error), str(error.__cause__ or ""))))
    return InputError(f"{where}: {' '.join(message.split())[:500]}")


def causes(error: BaseException) -> list[BaseException]:
    """Return an error and the errors behind it, from the last to the first."""
    found = [error]
    while cause := found[-1].__cause__ or found[-1].__context__:
        found.append(cause)
    return found


def _class_names(feature: Any) -> list[str] | None:
    """Return the names of a ClassLabel, or None for other features."""
    names = getattr(feature, "names", None)
    return names and [name.strip() for name in names]


def _lacks_labels(table: pa.Table, column: str) -> bool:
    return column in table.column_names and pc.all(pc.equal(table[column], -1)).as_py()


def _with_names(
    table: pa.Table, column: str, names: list[str] | None, place: str
) -> Iterator[pa.Table]:
    """Yield `table` in chunks, with the numbers of a ClassLabel replaced by its names."""
    row = 0
    for batch in table.to_batches(ROWS):
        piece = pa.Table.from_batches([batch])
        if names and column in piece.column_names:
            numbers = piece[column]
            unknown = pc.index(pc.less(numbers, 0), True).as_py()
            if unknown >= 0:
                raise InputError(
                    f"{place}: row {row + unknown + 1}: {column} is {numbers[unknown]}, which "
                    "stands for no label"
                )
            index = piece.column_names.index(column)
            piece = piece.set_column(index, column, pc.take(pa.array(names), numbers))
        row += len(batch)
        yield piece


def is_official_backbone(name: str) -> bool:
    """Return whether the requested backbone is the one that the embedded source can replace."""
    return name in (BACKBONE, f"{BACKBONE}@{BACKBONE_REVISION}")


def backbone(directory: Path, name: str = BACKBONE) -> Provenance:
    """Fill `directory` with the encoder `name` (id or id@revision) and return its provenance.

    Raises InputError for an error response, a checksum mismatch, an unsupported architecture, and a
    repository without safetensors weights; pickled weights are never downloaded.
    """
    repository, _, revision = name.partition("@")
    pinned = {}
    if is_official_backbone(name):
        revision, pinned = BACKBONE_REVISION, BACKBONE_SHA256
    commit, config = _backbone_config(repository, revision)
    where = f"source hub: {repository} at revision {commit[:12]}"
    used = (encoders.CONFIG, encoders.WEIGHTS, *encoders.TOKENIZER_FILES)
    listed = _listed(repository, commit, "model", used, where)
    encoders.check_files(set(listed), where)
    names = [name for name in used if name in listed]
    paths = _download(repository, commit, "model", names, listed | pinned, where)
    encoders.install(paths, config, directory)
    return _provenance(repository, commit, checksums.sha256(paths[encoders.WEIGHTS]))


def _backbone_config(repository: str, revision: str) -> tuple[str, dict[str, Any]]:
    """Return the commit of a revision ("" for the newest) and the config at that commit."""
    try:
        validate_repo_id(repository)
    except HFValidationError:
        raise InputError(
            f"backbone.hub: {repository!r} is not a model's id, such as {BACKBONE} or "
            f"{BACKBONE}@main"
        ) from None
    where = f"source hub: {repository} at revision {revision[:12] or 'main'}"
    with _told(where):
        path = Path(hf_hub_download(repository, encoders.CONFIG, revision=revision or None))
    # The client's cache has one folder per commit, also offline.
    return path.parent.name, encoders.read_config(path, f"{where}: {encoders.CONFIG}")


def _listed(
    repository: str, revision: str, kind: str, used: Sequence[str], where: str
) -> dict[str, str | None]:
    """List the files at the root of a repository, with the SHA-256 that the Hub has of large ones.

    Offline, these are the files in `used` that the local cache has.
    """
    with _told(where):
        try:
            files = list(HfApi().list_repo_tree(repository, revision=revision, repo_type=kind))
        except OfflineModeIsEnabled:
            cached = {
                name: try_to_load_from_cache(repository, name, revision=revision, repo_type=kind)
                for name in used
            }
            return {name: None for name, path in cached.items() if isinstance(path, str)}
    large = {file.path: lfs.sha256 for file in files if (lfs := getattr(file, "lfs", None))}
    return {file.path: large.get(file.path) for file in files}


def _provenance(repository: str, revision: str, sha256: str | dict[str, str]) -> Provenance:
    return {
        "source": "hub",
        "repository": repository,
        "revision": revision,
        "sha256": sha256,
    }


def _download(
    repository: str,
    revision: str,
    kind: str,
    names: Sequence[str],
    sha256: Mapping[str, str | None],
    where: str,
) -> dict[str, Path]:
    """Download files, and check those whose SHA-256 is known."""
    with _told(where):
        paths = {
            name: Path(hf_hub_download(repository, name, repo_type=kind, revision=revision))
            for name in names
        }
    for name, path in paths.items():
        if expected := sha256.get(name):
            _verify(path, expected, f"{where}: {name}")
    return paths


@contextlib.contextmanager
def _told(where: str) -> Iterator[None]:
    """Turn the client's errors into InputErrors."""
    try:
        yield
    except RemoteEntryNotFoundError as error:
        raise InputError(f"{where}: a file is missing: {error}") from None
    except HfHubHTTPError as error:
        raise refused(where, error) from None
    except LocalEntryNotFoundError as error:
        # The client raises this when a file is neither cached nor downloadable.
        if isinstance(error.__cause__, HfHubHTTPError):
            raise refused(where, error.__cause__) from None
        reason = error.__cause__ or "not in the local cache"
        raise InputError(f"{where}: cannot be downloaded: {reason}") from None
    except httpx2.LocalProtocolError:
        # Its message has the header that cannot be sent, and so the token.
        raise InputError(f"{where}: {UNSENDABLE}") from None
    except (ValueError, KeyError, TypeError, FileMetadataError) as error:
        raise InputError(f"{where}: {ENDPOINT} does not answer as a Hub does: {error}") from None
    except (httpx2.TransportError, OSError) as error:
        raise InputError(
            f"{where}: the download was interrupted: {error}; run again to resume"
        ) from None


def _gated(where: str, error: HfHubHTTPError) -> InputError:
    return InputError(
        f"{where}: the Hub answered {error.response.status_code}: it is gated: request access on "
        "its page, then log in (hf auth login) or set HF_TOKEN"
    )


def refused(where: str, error: HfHubHTTPError) -> InputError:
    """Return the line for an answer of the Hub that is an error."""
    reason = error.server_message or str(error).partition("\n")[0]
    return InputError(f"{where}: the Hub answered {error.response.status_code}: {reason}")


def _verify(path: Path, expected: str, name: str) -> None:
    try:
        checksums.verify(checksums.sha256(path), expected, name)
    except InputError:
        # A file left in the client's cache would be used without a check the next time.
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise
