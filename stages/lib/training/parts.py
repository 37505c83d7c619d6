"""Parts of a large batch, for each of which a training step computes gradients in turn.

The memory of a step grows with the tokens that are computed at a time, not with the batch.
"""

import math

import torch

from stages.lib.encoder import batches

# The most tokens of a part, padding included. On a CPU, larger ones are no faster; on a GPU, they
# pay only in batches of more than 512 reviews (docs/gpus.md).
TOKENS = {"cpu": 1024, "cuda": 16384}

# The inputs of a model, and labels.
Batch = dict[str, torch.Tensor]


def split(batch: Batch, multiple: int) -> list[Batch]:
    """Split a batch into equal parts of reviews of similar length, the longest reviews first.

    The batch has `input_ids` and `attention_mask`, both int64 [reviews, tokens], and `labels`.
    Each part has at most TOKENS tokens, or one review. Its width is a multiple of `multiple`, like
    that of the batch. Parts of equal size have fewer different shapes than parts of TOKENS tokens
    with a rest.
    """
    reviews, longest = batch["input_ids"].shape
    most = max(1, TOKENS[batch["labels"].device.type] // longest)
    if reviews <= most:
        return [batch]
    lengths = batch["attention_mask"].sum(1)
    widths = batches.widths([*lengths.tolist(), longest], multiple)
    order = lengths.argsort(descending=True, stable=True)
    return [
        {
            name: tensor[rows, : widths[rows[0]]] if tensor.ndim > 1 else tensor[rows]
            for name, tensor in batch.items()
        }
        for rows in order.tensor_split(math.ceil(reviews / most))
    ]
