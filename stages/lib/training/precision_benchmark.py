"""A benchmark of a few steps of full fine-tuning, to measure the costs of a precision."""

import itertools
import time

import torch
from tqdm.auto import tqdm
from transformers import set_seed

from stages.lib.core import costs, manifest, paths
from stages.lib.encoder import batches, precision, tokens
from stages.lib.training import classifier, narrow
from stages.lib.training.steps import TrainingSteps

BATCH = 32
STEPS = 20  # at most; an epoch of a small training set has fewer


def measure(float_format: str, seed: int) -> costs.Steps:
    """Measure reviews per second and the memory of a step in MB.

    `float_format` is fp32, bf16 or fp16. Each step runs once before it is timed, because bf16 on a
    CPU compiles its operations for each new shape. The peak memory is that of this process (on
    CUDA, of the GPU) and includes libraries and their caches. The result also has what PyTorch
    allocates for a step: weights, gradients and the optimizer's states, and what is saved
    for the backward pass of the largest part of the longest batch.
    """
    train = tokens.load("train")
    set_seed(seed)
    model = classifier.create(manifest.read(paths.TOKENIZED)["labels"])
    steps = TrainingSteps(model, float_format, int(train.lengths.max()))
    data = [steps.batch([train[row] for row in rows]) for rows in _first_batches(train, seed)]
    with narrow.narrowed(model, float_format):
        for batch in tqdm(data, f"warm-up in {float_format}"):
            steps.take(batch)
        start = _now(steps.device)
        for batch in tqdm(data, f"steps in {float_format}"):
            steps.take(batch)
        seconds = _now(steps.device) - start
        peak = precision.describe(float_format).get("peak_memory_mb")
        peak = peak or round(costs.peak_resident_memory() / 1e6, 1)
        allocated = steps.allocation(max(data, key=lambda batch: batch["input_ids"].numel()))
    return {
        "samples_per_second": round(sum(len(batch["labels"]) for batch in data) / seconds, 1),
        "peak_memory_mb": peak,
        "weights_and_optimizer_mb": round(
            allocated["weights_mb"] + allocated["gradients_and_optimizer_mb"], 1
        ),
        "saved_activations_mb": allocated["saved_activations_mb"],
    }


def _first_batches(train: tokens.Tokens, seed: int) -> list[list[int]]:
    """Return the row indices of the first batches of an epoch."""
    return list(itertools.islice(batches.LengthGrouped(train.lengths, BATCH, seed), STEPS))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
