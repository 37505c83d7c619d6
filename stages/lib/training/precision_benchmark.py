"""A benchmark of a few steps of full fine-tuning, to measure the costs of a precision."""

import itertools
import time
from collections.abc import Iterator

import torch
from tqdm.auto import tqdm
from transformers import set_seed

from stages.lib.core import costs, manifest, paths
from stages.lib.encoder import batches, first_token, precision, tokens
from stages.lib.training import classifier, dropout

BATCH = 32
WARM_UP = 3
STEPS = 20
LR = 5e-5


def measure(float_format: str, seed: int) -> dict[str, float]:
    """Measure reviews per second and the peak memory in MB of this process (on CUDA, of the GPU).

    `float_format` is fp32, bf16 or fp16. At 16 bit, the weights stay in float32 and the computation
    runs under autocast, as in the Trainer.
    """
    device = precision.device()
    train = tokens.load("train")
    set_seed(seed)
    model = classifier.create(manifest.read(paths.TOKENIZED)["labels"])
    # What transformers wraps `to` in hides its arguments' types.
    model.to(device).train()  # type: ignore[arg-type]
    first_token.keep_first(model)
    if device.type == "cpu":
        dropout.make_cheap(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, fused=True)
    scaler = torch.amp.GradScaler(device.type, enabled=float_format == "fp16")
    collate = tokens.Collator(model.config.pad_token_id)
    seen = 0
    for step, rows in enumerate(tqdm(_first_batches(train, seed), f"steps in {float_format}")):
        if step == WARM_UP:
            start, seen = _now(device), 0
        batch = {
            name: tensor.to(device)
            for name, tensor in collate([train[row] for row in rows]).items()
        }
        dtype = precision.DTYPES[float_format]
        with torch.autocast(device.type, dtype, enabled=float_format != "fp32"):
            loss = model(**batch).loss
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        seen += len(rows)
    seconds = _now(device) - start
    peak = precision.describe(float_format).get("peak_memory_mb")
    return {
        "samples_per_second": round(seen / seconds, 1),
        "peak_memory_mb": peak or round(costs.peak_resident_memory() / 1e6, 1),
    }


def _first_batches(train: tokens.Tokens, seed: int) -> list[list[int]]:
    """Return the row indices of the first batches of training."""
    sampler = batches.LengthGrouped(train.lengths, BATCH, seed)

    def epochs() -> Iterator[list[int]]:
        for epoch in itertools.count():
            sampler.set_epoch(epoch)
            yield from sampler

    return list(itertools.islice(epochs(), WARM_UP + STEPS))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
