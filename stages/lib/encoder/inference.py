"""Inference over reviews, in which each process runs its share of the batches."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from stages.lib.encoder import batches, processes

if TYPE_CHECKING:
    from peft import PeftModel

# Tokens per batch including padding, for batches without gradients.
TOKENS_PER_BATCH = 2048


@torch.inference_mode()
def run(
    compute: Callable[..., torch.Tensor],
    rows: batches.Reviews,
    *,
    pad_token_id: int,
    tokens_per_batch: int,
    device: torch.device,
    progress: tqdm,
    multiple: int = 1,
) -> np.ndarray:
    """Apply `compute(input_ids=, attention_mask=)` to batches with a token budget.

    `compute` returns [batch, width] in any float dtype. The result is float32 [rows, width] in the
    order of `rows`, the same in every process and for any number of processes. `progress` advances
    by the number of finished rows. Widths of batches are rounded up to a multiple of `multiple`.
    """
    here = processes.state()
    widths = batches.widths([len(row) for row in rows], multiple)
    turns = batches.turns(list(batches.TokenBudget(widths, tokens_per_batch)), here.num_processes)
    values = []
    for turn in turns:
        chosen = turn[here.process_index]
        batch = batches.pad([rows[row] for row in chosen], pad_token_id, widths[chosen].max())
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        values.append(compute(**batch).float())
        progress.update(sum(map(len, turn)))
    shares = [np.concatenate(share) for share in zip(*turns, strict=True)]
    parts = processes.gathered(torch.cat(values), max(map(len, shares))).cpu().numpy()
    result = np.empty((len(rows), parts.shape[-1]), np.float32)
    for share, part in zip(shares, parts, strict=True):
        result[share] = part[: len(share)]
    return result


def logits(
    model: "PreTrainedModel | PeftModel",
    rows: batches.Reviews,
    *,
    description: str,
    multiple: int = 1,
) -> np.ndarray:
    """Compute a classifier's logits for token ids, float32 [rows, labels], with a progress bar.

    The widths of batches are rounded up to a multiple of `multiple`.
    """
    model.eval()
    with tqdm(total=len(rows), desc=description, unit="review", leave=None) as progress:
        return run(
            lambda **batch: model(**batch).logits,
            rows,
            pad_token_id=model.config.pad_token_id,
            tokens_per_batch=TOKENS_PER_BATCH,
            device=model.device,
            progress=progress,
            multiple=multiple,
        )
