"""about.json: metadata that is stored next to the data and passed on from stage to stage.

The about.json of the backbone holds its provenance, every other one a manifest.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from stages.lib.core.errors import InputError

FILE = "about.json"


class Assembly(TypedDict, total=False):
    """How splits and labels were made from what the source has.

    {"labels": {"0": "negative", "1": "positive"}, "split": "test split off here: 90/10, ..."}
    """

    labels: dict[str, str]  # the name of each value
    split: str
    unlabelled: str


class _Source(TypedDict):
    source: Literal["hub", "local", "pypi"]


class Provenance(_Source, Assembly, total=False):
    """Where the reviews or the backbone came from.

    {"source": "hub", "repository": "distilbert/distilbert-base-uncased", "revision": "12040acc...",
    "sha256": "5e3f1108..."}
    """

    repository: str
    revision: str
    config: str
    package: str
    file: str
    model: str
    path: str
    sha256: str | dict[str, str]  # one, or one for each file
    subset: int
    train: int
    content: str  # a hash of all texts and labels, before `train` of them are chosen


class _Manifest(TypedDict):
    labels: Sequence[str]
    reviews: Provenance


class Manifest(_Manifest, total=False):
    """What the data of a stage are.

    `labels` are the label names, and the index of a name is the label's number. `reviews` is the
    provenance of the reviews. `max_length` is the number of tokens at which they were truncated,
    from data/tokenized on.

    {"labels": ["negative", "positive"], "reviews": {"source": "pypi", ...}, "max_length": 128}
    """

    max_length: int


def write(directory: Path, content: Manifest | Provenance) -> None:
    """Write about.json into `directory`."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    (directory / FILE).write_text(text + "\n", encoding="utf-8")


def read(directory: Path) -> Manifest:
    """Read the manifest in `directory`. Raises InputError if it is not a JSON object."""
    manifest: Manifest = _read(directory)
    return manifest


def read_provenance(directory: Path) -> Provenance:
    """Read the backbone's provenance in `directory`. Raises InputError as `read` does."""
    provenance: Provenance = _read(directory)
    return provenance


def _read(directory: Path) -> Any:
    try:
        content = json.loads((directory / FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{directory / FILE}: not JSON: {error}; 'dvc repro' creates it") from None
    if not isinstance(content, dict):
        raise InputError(f"{directory / FILE}: not a JSON object; 'dvc repro' creates it")
    return content
