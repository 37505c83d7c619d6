"""Facts about the reviews: how many, how long, how balanced, what is there twice."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.lib.core import distributions, parquet
from stages.lib.core.paths import SPLITS
from stages.lib.reviews.reading import ROWS
from stages.lib.reviews.splitting import digests


def describe(directory: Path, labels: Sequence[str]) -> dict[str, Any]:
    """Facts by split of data/raw, `labels` counted by name, exact duplicates within and across
    splits (by digest), and texts that are in a split with different labels.

    Lengths are in words; tokens are counted by the tokenize stage.
    """
    facts: dict[str, Any] = {}
    texts: dict[str, np.ndarray] = {}
    for name in SPLITS:
        facts[name], texts[name] = _describe_split(directory / f"{name}.parquet", labels)
    return facts | {
        "duplicates_across_splits": {
            f"{first}_{second}": len(
                np.intersect1d(texts[first], texts[second], assume_unique=True)
            )
            for first, second in (
                ("train", "validation"),
                ("train", "test"),
                ("validation", "test"),
            )
        }
    }


def _describe_split(path: Path, labels: Sequence[str]) -> tuple[dict[str, Any], np.ndarray]:
    """The facts, and the digests of the different texts."""
    found, numbers, words, empty = [], [], [], 0
    with parquet.opened(path) as file:
        for batch in file.iter_batches(ROWS):
            texts = batch["text"].to_pylist()
            found.append(digests(texts))
            words.append(np.array([len(text.split()) for text in texts], np.int32))
            numbers.append(batch["label"].to_numpy())
            empty += sum(not text.strip() for text in texts)
    lengths, all_numbers = np.concatenate(words), np.concatenate(numbers)
    different, places = np.unique(np.concatenate(found), return_inverse=True)
    counts = np.bincount(all_numbers, minlength=len(labels))
    # Pairs of a text and a label, each once: a text of several pairs has several labels.
    pairs = np.unique(places * len(labels) + all_numbers)
    conflicting = np.bincount(pairs // len(labels)) > 1
    return {
        "reviews": len(lengths),
        "labels": {name: int(count) for name, count in zip(labels, counts, strict=True)},
        "words": distributions.summarize(lengths),
        "duplicates": len(lengths) - len(different),
        "conflicting_labels": int(conflicting.sum()),
        "empty": empty,
    }, different
