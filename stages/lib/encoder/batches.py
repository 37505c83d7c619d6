"""Batches of reviews of similar length, so that little computation is spent on padding.

The Trainer's own sampler (`group_by_length`) takes each pool from its longest to its shortest row,
and its batches depend on the number of processes; here they are shuffled, and the same for any
number. DataCollatorWithPadding needs a tokenizer and pads to a multiple even if that is beyond the
last position embedding.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import Sampler

# Rows are sorted by length within pools of this many batches, or of a quarter of all batches where
# that is fewer. This leaves little padding, while the batches still differ from epoch to epoch.
POOL = 50
# Widths of batches are multiples of this at 16 bit. For bf16 on a CPU, oneDNN compiles each
# operation anew for each shape and keeps the result, which costs more time and memory than the
# padding.
MULTIPLE = 4

# Token ids of a review.
Ids = Sequence[int] | np.ndarray | torch.Tensor


class Reviews(Protocol):
    """Token ids of many reviews: what `tokens.Rows` and any sequence have."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Ids]: ...

    def __getitem__(self, row: int, /) -> Ids: ...


class LengthGrouped(Sampler[list[int]]):
    """Batches of `batch_size` row indices for training. An epoch is `passes` passes over the rows.

    In each pass, rows are shuffled and sorted by length within pools of batches, then the batches
    are shuffled. The order depends only on `seed` and the epoch, so a resumed run uses the same
    order.
    """

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        batch_size: int,
        seed: int,
        passes: int = 1,
    ) -> None:
        self.lengths = np.asarray(lengths)
        self.passes = passes
        # If it were named "batch_size", Accelerate would take the last batch for the short one and
        # cut it.
        self._size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.passes * math.ceil(len(self.lengths) / self._size)

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng([self.seed, self.epoch])
        for _ in range(self.passes):
            yield from self._pass(random)

    def _pass(self, random: np.random.Generator) -> Iterator[list[int]]:
        order = random.permutation(len(self.lengths))
        pool = min(POOL, math.ceil(len(order) / self._size / 4)) * self._size
        batches = []
        for start in range(0, len(order), pool):
            rows = order[start : start + pool]
            rows = rows[np.argsort(-self.lengths[rows], kind="stable")]
            batches += [
                rows[first : first + self._size].tolist()
                for first in range(0, len(rows), self._size)
            ]
        yield from (batches[index] for index in random.permutation(len(batches)))


class Share(Sampler[list[int]]):
    """The rows of each batch that belong to process `index` of `count`, possibly none."""

    def __init__(self, batches: LengthGrouped, index: int, count: int) -> None:
        self.batches, self.index, self.count = batches, index, count

    def set_epoch(self, epoch: int) -> None:
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        # Strided rather than in blocks: rows are sorted by length, and each process should have the
        # same amount of work.
        return (batch[self.index :: self.count] for batch in self.batches)


class TokenBudget(Sampler[list[int]]):
    """Batches of row indices for inference, longest rows first.

    Each batch has at most `tokens` tokens including padding, or a single row.
    """

    def __init__(self, lengths: Sequence[int] | np.ndarray, tokens: int) -> None:
        order = np.argsort(-np.asarray(lengths), kind="stable")
        self.batches: list[list[int]] = []
        first = 0
        while first < len(order):
            rows = max(1, tokens // max(1, int(lengths[order[first]])))
            self.batches.append(order[first : first + rows].tolist())
            first += rows

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


def turns(batches: Sequence[list[int]], count: int) -> list[list[list[int]]]:
    """Group `batches` into turns of `count`, one batch per process.

    The last batch is repeated to complete the last turn, so that every process has a batch.
    """
    last = len(batches) - 1
    return [
        [batches[min(first + index, last)] for index in range(count)]
        for first in range(0, len(batches), count)
    ]


def widths(lengths: Sequence[int] | np.ndarray, multiple: int) -> np.ndarray:
    """Round lengths up to a multiple, but not beyond the longest of them.

    A backbone may have no position embedding beyond the longest review.
    """
    lengths = np.asarray(lengths, np.int64)
    return np.minimum(-(-lengths // multiple) * multiple, lengths.max(initial=0))


def pad(rows: Sequence[Ids], pad_token_id: int, width: int = 0) -> dict[str, torch.Tensor]:
    """Pad token ids (tensors, arrays or lists) on the right, up to `width` if all are shorter.

    Returns `input_ids` and `attention_mask`, both int64 [rows, width].
    """
    lengths = torch.tensor([len(row) for row in rows])
    input_ids = torch.nn.utils.rnn.pad_sequence(
        [torch.as_tensor(row, dtype=torch.int64) for row in rows],
        batch_first=True,
        padding_value=pad_token_id,
    )
    missing = max(0, width - input_ids.shape[1])
    input_ids = torch.nn.functional.pad(input_ids, (0, missing), value=pad_token_id)
    mask = torch.arange(input_ids.shape[1])[None, :] < lengths[:, None]
    return {"input_ids": input_ids, "attention_mask": mask.long()}
