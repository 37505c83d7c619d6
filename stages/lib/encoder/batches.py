"""Reviews in batches of similar length, so that little is computed for padding."""

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import Sampler

# Rows are sorted by length within pools of this many batches: enough to leave little padding,
# while the batches of an epoch still differ from those of the one before.
POOL = 50

# Token ids of a review.
Ids = Sequence[int] | np.ndarray | torch.Tensor


class Reviews(Protocol):
    """Token ids of many reviews: what `tokens.Rows` and any sequence have."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Ids]: ...

    def __getitem__(self, row: int, /) -> Ids: ...


class LengthGrouped(Sampler[list[int]]):
    """Batches of `batch_size` row indices for training, each row once an epoch.

    Rows are shuffled, sorted by length within pools of `POOL` batches, and the batches shuffled
    again. The order follows from `seed` and the epoch alone, so that a resumed run has it too.
    """

    def __init__(self, lengths: Sequence[int] | np.ndarray, batch_size: int, seed: int) -> None:
        self.lengths = np.asarray(lengths)
        # Not "batch_size": Accelerate would take the last batch for the odd one and cut it.
        self._size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self.lengths) / self._size)

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(len(self.lengths))
        pool = POOL * self._size
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
    """Of each batch of `batches` the rows of the process `index` of `count`, which may be none."""

    def __init__(self, batches: LengthGrouped, index: int, count: int) -> None:
        self.batches, self.index, self.count = batches, index, count

    def set_epoch(self, epoch: int) -> None:
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        # Not in blocks: rows are sorted by length, and every process should have as much to do.
        return (batch[self.index :: self.count] for batch in self.batches)


class TokenBudget(Sampler[list[int]]):
    """Batches of row indices for inference, the longest first, each of at most `tokens` tokens with
    padding (or of one row)."""

    def __init__(self, lengths: Sequence[int], tokens: int) -> None:
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
    """`batches` in turns of `count`, one for each process; the last batch again where there are not
    enough, so that every process has one."""
    last = len(batches) - 1
    return [
        [batches[min(first + index, last)] for index in range(count)]
        for first in range(0, len(batches), count)
    ]


def pad(rows: Sequence[Ids], pad_token_id: int) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask`, both int64 [rows, longest], of tensors, arrays or lists of
    token ids, padded on the right."""
    lengths = torch.tensor([len(row) for row in rows])
    input_ids = torch.nn.utils.rnn.pad_sequence(
        [torch.as_tensor(row, dtype=torch.int64) for row in rows],
        batch_first=True,
        padding_value=pad_token_id,
    )
    mask = torch.arange(input_ids.shape[1])[None, :] < lengths[:, None]
    return {"input_ids": input_ids, "attention_mask": mask.long()}
