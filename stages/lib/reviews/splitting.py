"""Numbering the labels of reviews, splitting the reviews, and taking stratified subsets.

Texts stay on disk. Only arrays of numbers are held for all rows at once: the row numbers of each
split, the labels, and digests of the texts.
"""

import hashlib
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.lib.core.errors import InputError
from stages.lib.core.manifest import Assembly, Provenance
from stages.lib.core.paths import SPLITS
from stages.lib.reviews.reading import ROWS

SCHEMA = pa.schema([("text", pa.string()), ("label", pa.int64())])

# The names of the labels 0 and 1 if there are no others.
BINARY = ("negative", "positive")
# What people rated the reviews of train, in data/raw.
RATINGS = "ratings.parquet"
# Reviews in a row group of data/raw.
GROUP = 16_384
# Minimum number of reviews per label in train: the SVM's probabilities need cross-validation.
FEWEST = 2
# Minimum number of reviews per label in data that is split here: a tenth must be at least one.
FEWEST_TO_SPLIT = 10

# The tables of a split in the schema `reading.READ`, by the file that they come from.
Files = Mapping[str, Iterable[pa.Table]]


@dataclass(frozen=True)
class Split:
    """Some of the texts of a file, and their labels."""

    file: BinaryIO  # an Arrow stream of texts
    rows: np.ndarray  # int64 [reviews], row numbers in the file, ascending
    labels: np.ndarray  # int64 [reviews], the index of the label's name

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: np.ndarray) -> "Split":
        """Select the reviews at the positions `chosen`, in the order of the file."""
        chosen = np.sort(chosen)
        return Split(self.file, self.rows[chosen], self.labels[chosen])

    def tables(self) -> Iterator[pa.Table]:
        """Yield the reviews in chunks, as tables in the schema SCHEMA."""
        self.file.seek(0)
        first = start = 0
        for batch in pa.ipc.open_stream(self.file):
            end = int(np.searchsorted(self.rows, first + len(batch)))
            texts = batch["text"].take(pa.array(self.rows[start:end] - first))
            yield pa.table([texts, pa.array(self.labels[start:end])], schema=SCHEMA)
            first, start = first + len(batch), end


Splits = dict[str, Split]


class Reviews(NamedTuple):
    """The splits, the label names (the index is the label's number), the provenance, and what
    people rated the reviews of train, where the source has ratings: float64, by row number."""

    splits: Splits
    labels: Sequence[str]
    provenance: Provenance
    ratings: np.ndarray | None = None


@dataclass(frozen=True)
class _Stored:
    """A split as it was read, with labels numbered in order of first appearance."""

    split: Split
    values: list[str]
    sizes: dict[str, int]  # reviews in each file

    @property
    def place(self) -> str:
        """The name of all files together, for messages."""
        first, *others = self.sizes
        return f"{first} and {len(others)} more" if others else first

    def row(self, row: int) -> str:
        """Return the name of a row (counted from 0), for messages."""
        for place, size in self.sizes.items():
            if row < size:
                return f"{place}: row {row + 1}"
            row -= size
        raise AssertionError("all rows are of a file")


def _store(files: Files) -> _Stored:
    """Write the texts to an unnamed temporary file, which disappears with the process."""
    file = tempfile.TemporaryFile(dir=".")  # noqa: SIM115
    numbers: dict[str, int] = {}
    labels: list[np.ndarray] = []
    sizes: dict[str, int] = {}
    with pa.ipc.new_stream(file, SCHEMA.remove(1)) as stream:
        for place, tables in files.items():
            sizes[place] = 0
            for table in tables:
                stream.write_table(table.select(["text"]), max_chunksize=ROWS)
                sizes[place] += table.num_rows
                found = table["label"].combine_chunks().dictionary_encode()
                mine = [numbers.setdefault(x, len(numbers)) for x in found.dictionary.to_pylist()]
                labels.append(np.array(mine)[found.indices.to_numpy()])
    split = Split(file, np.arange(sum(sizes.values())), np.concatenate(labels))
    return _Stored(split, list(numbers), sizes)


def assemble(
    files: Mapping[str, Files], *, seed: int, order: Sequence[str] | None = None
) -> tuple[Splits, list[str], Assembly]:
    """Return the three splits, the label names, and facts about how the splits were made.

    `files` must include train; validation and test are split from it if they are missing. `order`
    lists the labels in the order that the dataset defines, if it defines one. Raises InputError for
    labels that cannot be used and for too few reviews of a label.
    """
    stored = {name: _store(of_split) for name, of_split in files.items()}
    names = _names(stored, order)
    numbers = {value: number for number, value in enumerate(names)}
    splits = {
        name: Split(
            of_split.split.file,
            of_split.split.rows,
            np.array([numbers[value] for value in of_split.values])[of_split.split.labels],
        )
        for name, of_split in stored.items()
    }
    place = stored["train"].place
    facts: Assembly = {"labels": names}
    missing = [name for name in SPLITS[1:] if name not in splits]
    if missing:
        splits |= split(splits["train"], missing, seed, list(names), place)
        shares = "80/10/10" if len(missing) == 2 else "90/10"
        facts["split"] = (
            f"{' and '.join(missing)} split off here: {shares}, stratified by label, "
            f"dataset.split_seed {seed}"
        )
    counts = np.bincount(splits["train"].labels)
    for value, count in zip(names, counts, strict=True):
        if count < FEWEST:
            raise InputError(
                f"{place}: label {value!r} has {count} review, at least {FEWEST} are needed"
            )
    return {name: splits[name] for name in SPLITS}, list(names.values()), facts


def _names(stored: dict[str, _Stored], order: Sequence[str] | None) -> dict[str, str]:
    """Map each label value to its name, in the order of the labels' numbers."""
    values = set(stored["train"].values)
    for of_split in stored.values():
        if len(of_split.values) == 1:
            raise InputError(
                f"{of_split.place}: all reviews have the label {of_split.values[0]}; a split needs "
                "two labels or more"
            )
        lacking = [n for n, value in enumerate(of_split.values) if value not in values]
        if lacking:
            # Values are in order of first appearance, so the first unknown one comes first.
            row = int(np.argmax(of_split.split.labels == lacking[0]))
            known = sorted(values, key=_rank)
            shown = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
            raise InputError(
                f"{of_split.row(row)}: label is {of_split.values[lacking[0]]!r}, which train "
                f"lacks; it has {shown}"
            )
    if values == {"0", "1"}:
        return dict(zip("01", BINARY, strict=True))
    rank = _rank if order is None else order.index
    return {value: value for value in sorted(values, key=rank)}


def _rank(value: str) -> tuple[int, int, str]:
    """Return a sort key that orders integers by value, before other text."""
    # Python converts at most 4,300 digits.
    if re.fullmatch("-?(0|[1-9][0-9]{0,999})", value):
        return 0, int(value), value
    return 1, 0, value


def alike(labels: Iterable[str]) -> list[list[str]]:
    """Return the groups of labels that differ only in case or white space."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(" ".join(label.split()).casefold(), []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def write(split: Split, path: Path) -> None:
    """Write a split as parquet in row groups of GROUP rows. Equal rows give equal bytes."""
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as file:
        waiting = SCHEMA.empty_table()
        for table in split.tables():
            waiting = pa.concat_tables([waiting, table])
            while waiting.num_rows >= GROUP:
                file.write_table(waiting[:GROUP].combine_chunks())
                waiting = waiting[GROUP:]
        if waiting.num_rows:
            file.write_table(waiting.combine_chunks())


def write_ratings(ratings: np.ndarray, directory: Path) -> None:
    """Write ratings [reviews] as the column `rating` of a parquet file."""
    pq.write_table(pa.table({"rating": ratings}), directory / RATINGS, compression="zstd")


def split(
    whole: Split, missing: Sequence[str], seed: int, labels: Sequence[str], place: str
) -> Splits:
    """Take a tenth of each label for each split in `missing` and keep the rest as train.

    Every split keeps the order of the rows. The choice depends only on the seed and the texts
    (SHA-256), not on the order of the rows: adding a review moves few of the others, and copies of
    a text are rarely separated. Raises InputError for a label with fewer than FEWEST_TO_SPLIT
    reviews.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("train", *missing)}
    for number, of_label in _by_digest(whole, f"{seed} ").items():
        count = len(of_label)
        if count < FEWEST_TO_SPLIT:
            raise InputError(
                f"{place}: label {labels[number]!r} has {count} reviews, too few to split: at "
                f"least {FEWEST_TO_SPLIT} are needed"
            )
        ends = [int(count * tenth / 10 + 0.5) for tenth in range(10 - len(missing), 11)]
        for part, (start, end) in zip(parts.values(), pairwise([0, *ends]), strict=True):
            part.append(of_label[start:end])
    return {name: whole.take(np.concatenate(part)) for name, part in parts.items()}


def subset(whole: Split, size: int, parameter: str = "dataset.subset") -> Split:
    """Select `size` reviews in their order, stratified by label, with at least two of each label
    (or all, if a label has fewer).

    The choice depends only on the texts (their SHA-256), not on the order of the rows or on a seed,
    and a larger subset contains every smaller one. Raises InputError, which names `parameter`, when
    `size` is too small for all labels.
    """
    if size >= len(whole):
        return whole
    rows, turns = [], []
    for of_label in _by_digest(whole).values():
        # By the method of Sainte-Laguë, the shares of labels never shrink when the size grows.
        turn = (np.arange(len(of_label)) + 0.5) / len(of_label)
        # The fewest that a label needs come before all others.
        turn[:FEWEST] = -1
        rows.append(of_label)
        turns.append(turn)
    in_turn = np.concatenate(turns)
    least = int((in_turn < 0).sum())
    if size < least:
        raise InputError(
            f"params.yaml: {parameter}: {size} is wrong: it should be at least {least}, for "
            f"{len(rows)} labels"
        )
    return whole.take(np.concatenate(rows)[np.argsort(in_turn, kind="stable")[:size]])


def content(splits: Splits, labels: Sequence[str]) -> str:
    """Return a hash of the labels' names and of the texts and labels of all splits, in order."""
    found = hashlib.sha256(repr(list(labels)).encode())
    for name, split in splits.items():
        found.update(name.encode())
        for table in split.tables():
            found.update(digests(table["text"].to_pylist()).tobytes())
        found.update(split.labels.astype("<i8").tobytes())
    return found.hexdigest()[:16]


def digests(texts: Iterable[str], prefix: str = "") -> np.ndarray:
    """Return the first 64 bits of the SHA-256 of `prefix` plus each text, as uint64 [texts]."""
    found = [hashlib.sha256(f"{prefix}{text}".encode()).digest()[:8] for text in texts]
    return np.frombuffer(b"".join(found), ">u8").astype(np.uint64)


def _by_digest(split: Split, prefix: str = "") -> dict[int, np.ndarray]:
    """Return the positions of each label's reviews, sorted by the digest of `prefix` plus text."""
    found = [digests(table["text"].to_pylist(), prefix) for table in split.tables()]
    order = np.argsort(np.concatenate(found), kind="stable")
    labels = split.labels[order]
    return {int(label): order[labels == label] for label in np.unique(labels)}
