"""The contents of the files in metrics/, as types. Costs have types of their own (see `costs`)."""

import json
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar

from stages.lib.core.errors import InputError
from stages.lib.core.manifest import Provenance

Content = TypeVar("Content")
Score = Literal["accuracy", "f1"]


class Scores(TypedDict):
    """Scores on a split, as in metrics/<model>.json.

    {"accuracy": 0.85283, "f1": 0.847358}
    """

    accuracy: float
    f1: float


class AllScores(Scores):
    """Scores on a split, as on the model's card.

    {"accuracy": 0.85283, "f1": 0.847358, "precision": 0.878296, "recall": 0.818526}
    """

    precision: float
    recall: float


class Distribution(TypedDict):
    """The mean and percentiles of a number per review.

    {"mean": 19.2, "p5": 6.0, "p50": 19.0, "p95": 34.0, "p100": 51.0}
    """

    mean: float
    p5: float
    p50: float
    p95: float
    p100: float


class Split(TypedDict):
    """The statistics of a split. `labels` counts the reviews of each label.

    {"reviews": 2, "labels": {"negative": 1, "positive": 1}, "words": {"mean": 19.2, ...},
    "duplicates": 0, "conflicting_labels": 0, "empty": 0}
    """

    reviews: int
    labels: dict[str, int]
    words: Distribution
    duplicates: int
    conflicting_labels: int
    empty: int


class Statistics(TypedDict):
    """The statistics of the reviews; `duplicates_across_splits` counts texts by pair of splits.

    {"train": {"reviews": 8484, ...}, "validation": {...}, "test": {...},
    "duplicates_across_splits": {"train_validation": 0, "train_test": 0, "validation_test": 0}}
    """

    train: Split
    validation: Split
    test: Split
    duplicates_across_splits: dict[str, int]


class Download(Statistics):
    """metrics/download.json: the statistics, and the provenance of reviews and backbone.

    {"reviews": {"source": "pypi", ...}, "backbone": {"source": "pypi", ...}, "train": {...}, ...}
    """

    reviews: Provenance
    backbone: Provenance


class Tokens(TypedDict):
    """Tokens per review of a split before truncation, as in metrics/tokenize.json.

    {"tokens": {"mean": 27.28, ...}, "truncated_share": 0.0}
    """

    tokens: Distribution
    truncated_share: float


class Encoder(TypedDict):
    """metrics/extract-cls-features.json: what was verified about the backbone.

    {"parameters": 22564608, "layers": 6, "dim": 384, "vocabulary": 30522, "embedding_rows": 30522,
    "probe_shape": [2, 10, 384], "probe_dtype": "float32", "probe_finite": true}
    """

    parameters: int
    layers: int
    dim: int
    vocabulary: int
    embedding_rows: int
    probe_shape: list[int]
    probe_dtype: str
    probe_finite: bool


class Merge(TypedDict):
    """The comparison of an adapter on its base with the merged model.

    {"model": "lora", "largest_logit_difference": 4.6e-06, "reviews": 1060}
    """

    model: str
    largest_logit_difference: float
    reviews: int


class Swap(TypedDict):
    """The comparison of adapters that share one base with each model loaded alone.

    {"adapters": ["lora-2e-5", "lora"], "largest_score_difference": 3e-07,
    "predictions_that_differ": 0}
    """

    adapters: list[str]
    largest_score_difference: float
    predictions_that_differ: int


class Claims(TypedDict):
    """metrics/claims.json.

    {"merge": {"model": "lora", ...}, "swap": {"adapters": ["lora-2e-5", "lora"], ...}}
    """

    merge: Merge
    swap: Swap


def by_split(statistics: Statistics) -> dict[str, Split]:
    """Return the statistics of each split."""
    return {
        "train": statistics["train"],
        "validation": statistics["validation"],
        "test": statistics["test"],
    }


def read(path: Path, kind: type[Content]) -> Content:
    """Read a JSON object of the TypedDict `kind`.

    Raises InputError when the file is missing, is not JSON, or lacks a required key.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run the stage that writes it") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}; run the stage that writes it again") from None
    fields: Any = kind
    for key in fields.__annotations__:
        missing = not isinstance(content, dict) or key not in content
        if missing and key in fields.__required_keys__:
            raise InputError(f"{path}: no '{key}'; run the stage that writes it again")
    return content
