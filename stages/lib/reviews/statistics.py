"""Statistics about the reviews: counts, lengths, label balance and duplicates."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stages.lib.core import distributions, parquet
from stages.lib.core.metrics import Split, Statistics
from stages.lib.core.paths import SPLITS
from stages.lib.reviews.reading import ROWS
from stages.lib.reviews.splitting import digests


def describe(directory: Path, labels: Sequence[str]) -> Statistics:
    """Compute statistics for each split of data/raw: counts by label name, word lengths, exact
    duplicates within and across splits (by digest), and texts with conflicting labels in a split.

    `labels` are the label names. Lengths are in words; the tokenize stage counts tokens.
    """
    facts: dict[str, Split] = {}
    texts: dict[str, np.ndarray] = {}
    for name in SPLITS:
        facts[name], texts[name] = _describe_split(directory / f"{name}.parquet", labels)
    return {
        "train": facts["train"],
        "validation": facts["validation"],
        "test": facts["test"],
        "duplicates_across_splits": {
            f"{first}_{second}": len(
                np.intersect1d(texts[first], texts[second], assume_unique=True)
            )
            for first, second in (
                ("train", "validation"),
                ("train", "test"),
                ("validation", "test"),
            )
        },
    }


def _describe_split(path: Path, labels: Sequence[str]) -> tuple[Split, np.ndarray]:
    """Return the statistics of a split and the digests of its distinct texts."""
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
    # A text that occurs in several distinct (text, label) pairs has conflicting labels.
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
