"""data/tokenized as tensors."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import Dataset

from stages.lib.core import parquet
from stages.lib.core.paths import TOKENIZED
from stages.lib.encoder import batches


class Rows:
    """The token ids of many reviews as int64 tensors, stored in memory as one int32 array."""

    def __init__(self, rows: pa.ListArray) -> None:
        self._flat = torch.from_numpy(rows.flatten().to_numpy().astype(np.int32))
        self.lengths = rows.value_lengths().to_numpy().astype(np.int64)
        self._ends = self.lengths.cumsum()

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, row: int) -> torch.Tensor:
        end = self._ends[row]
        return self._flat[end - self.lengths[row] : end].long()


@dataclass(frozen=True)
class Tokens(Dataset):
    """A split: token ids and labels (int64 [reviews])."""

    input_ids: Rows
    labels: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """The number of tokens of each review, int64 [reviews]."""
        return self.input_ids.lengths

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return self.input_ids[row], self.labels[row]


def load(split: str) -> Tokens:
    """Load a split of data/tokenized."""
    with parquet.opened(TOKENIZED / f"{split}.parquet") as file:
        return _tensors(file.read())


def chunks(split: str, rows: int) -> Iterator[Tokens]:
    """Read a split of data/tokenized in chunks of at most `rows` reviews."""
    with parquet.opened(TOKENIZED / f"{split}.parquet") as file:
        for batch in file.iter_batches(rows):
            yield _tensors(pa.Table.from_batches([batch]))


def _tensors(table: pa.Table) -> Tokens:
    return Tokens(Rows(table["input_ids"].combine_chunks()), table["label"].to_numpy())


class Collator:
    """A function that pads reviews to the batch that a sequence classifier expects.

    Widths are multiples of `multiple`, but no longer than the longest of all reviews.
    """

    def __init__(self, pad_token_id: int, multiple: int = 1, longest: int = 0) -> None:
        self.pad_token_id, self.multiple, self.longest = pad_token_id, multiple, longest

    def __call__(self, rows: list[tuple[torch.Tensor, int]]) -> dict[str, torch.Tensor]:
        width = batches.widths([*(len(ids) for ids, _ in rows), self.longest], self.multiple)[:-1]
        batch = batches.pad([ids for ids, _ in rows], self.pad_token_id, width.max())
        return batch | {"labels": torch.tensor([label for _, label in rows])}
