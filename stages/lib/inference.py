"""Running a model over reviews without training it."""

import contextlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from tqdm.auto import tqdm

from stages.lib import batches


@torch.inference_mode()
def run(
    compute: Callable[..., torch.Tensor],
    rows: Sequence[torch.Tensor],
    *,
    pad_token_id: int,
    tokens_per_batch: int,
    device: torch.device,
    description: str = "",
    progress: tqdm | None = None,
) -> np.ndarray:
    """`compute(input_ids=, attention_mask=)` over batches by token budget, in the order of `rows`.

    `compute` gives [batch, width] of any float dtype; the result is float32 [rows, width]. The bar
    has the `description`, or is the `progress` of who has one already.
    """
    result: np.ndarray | None = None
    sampler = batches.TokenBudget([len(row) for row in rows], tokens_per_batch)
    with (
        tqdm(total=len(rows), desc=description, unit="review")
        if progress is None
        else contextlib.nullcontext(progress)
    ) as bar:
        for chosen in sampler:
            batch = batches.pad([rows[row] for row in chosen], pad_token_id)
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            values = compute(**batch).float().cpu().numpy()
            if result is None:
                result = np.empty((len(rows), values.shape[1]), np.float32)
            result[chosen] = values
            bar.update(len(chosen))
    assert result is not None, "there are always rows: empty splits are refused at download"
    return result
