"""A benchmark of a few steps of full fine-tuning, to measure the costs of a precision."""

import itertools
import time
from collections.abc import Callable, Iterator

import torch
from tqdm.auto import tqdm
from transformers import set_seed

from stages.lib.core import costs, manifest, paths
from stages.lib.encoder import batches, first_token, precision, tokens
from stages.lib.training import classifier, dropout, narrow

BATCH = 32
STEPS = 20
LR = 5e-5


def measure(float_format: str, seed: int) -> costs.Steps:
    """Measure reviews per second and the memory of a step in MB.

    `float_format` is fp32, bf16 or fp16. At 16 bit, the weights stay in float32 and the computation
    runs under autocast, as in training. Each step runs once before it is timed, because bf16 on a
    CPU compiles its operations for each new shape. The peak memory is that of this process (on
    CUDA, of the GPU) and includes libraries and their caches. The result also has what PyTorch
    allocates for a step: weights, gradients and the optimizer's states, and what is saved
    for the backward pass of the longest batch.
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
    collate = tokens.Collator(
        model.config.pad_token_id, precision.multiple(float_format), int(train.lengths.max())
    )
    data = [
        {name: tensor.to(device) for name, tensor in collate([train[row] for row in rows]).items()}
        for rows in _first_batches(train, seed)
    ]

    def forward(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        with torch.autocast(
            device.type, precision.DTYPES[float_format], enabled=float_format != "fp32"
        ):
            return model(**batch).loss

    def step(batch: dict[str, torch.Tensor]) -> None:
        scaler.scale(forward(batch)).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    with narrow.narrowed(model, float_format):
        for batch in tqdm(data, f"warm-up in {float_format}"):
            step(batch)
        start = _now(device)
        for batch in tqdm(data, f"steps in {float_format}"):
            step(batch)
        seconds = _now(device) - start
        peak = precision.describe(float_format).get("peak_memory_mb")
        peak = peak or round(costs.peak_resident_memory() / 1e6, 1)
        longest = max(data, key=lambda batch: batch["input_ids"].numel())
        saved = saved_bytes(model, lambda: forward(longest))
    states = [
        value
        for state in optimizer.state.values()
        for value in state.values()
        if torch.is_tensor(value)
    ]
    # There is one gradient per trained weight.
    kept = sum(tensor.nbytes for tensor in [*model.parameters(), *states]) + sum(
        parameter.nbytes for parameter in model.parameters() if parameter.requires_grad
    )
    return {
        "samples_per_second": round(sum(map(len, (b["labels"] for b in data))) / seconds, 1),
        "peak_memory_mb": peak,
        "weights_and_optimizer_mb": round(kept / 1e6, 1),
        "saved_activations_mb": round(saved / 1e6, 1),
    }


def saved_bytes(model: torch.nn.Module, forward: Callable[[], torch.Tensor]) -> int:
    """Count the bytes that `forward` saves for its backward pass, apart from the weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        # Views of the same memory count once.
        saved.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward().backward()
    model.zero_grad()
    return sum(
        tensor.untyped_storage().nbytes()
        for storage, tensor in saved.items()
        if storage not in weights
    )


def _first_batches(train: tokens.Tokens, seed: int) -> list[list[int]]:
    """Return the row indices of the first batches of training."""
    sampler = batches.LengthGrouped(train.lengths, BATCH, seed)

    def epochs() -> Iterator[list[int]]:
        for epoch in itertools.count():
            sampler.set_epoch(epoch)
            yield from sampler

    return list(itertools.islice(epochs(), STEPS))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
