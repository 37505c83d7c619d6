"""Measure the FLOP/s of extraction and training steps relative to those of a matrix product.

    python -m bench.roofline {fp32,bf16,fp16} [--only STEP ...] [--batches 6] [--products bf16]
                             [--profile]

Run it in a project with data/tokenized and data/backbone. The steps run the code of the
stages; FLOPs are counted by PyTorch's own counter and include padding. `useful` is the share of
the tokens of whole batches that are not padding. The speed of a machine that others use as well
changes within minutes, so a step and the product that it is compared with are measured in turns.
One line of JSON goes to standard output.

With --products, oneDNN rounds the inputs of float32 matrix products to that format (on a CPU with
AMX). With --profile, the operations that take most of each step's time go to standard error.
"""

import argparse
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from stages import lora
from stages.lib.core import declarations, manifest, paths
from stages.lib.encoder import batches, precision, tokens
from stages.lib.encoder.extraction import Extractor
from stages.lib.schema import params
from stages.lib.training import classifier, narrow
from stages.lib.training.parts import Batch
from stages.lib.training.steps import TrainingSteps

NAMES = ("extraction", "full", "lora")
BATCHES = 6
ROUNDS = 3

# The type of what is measured: a step, and the batches to take it on.
Work = tuple[Callable[[Batch], object], list[Batch]]

# The product of packed weights (stages/lib/encoder/packed.py), which PyTorch does not count. It is
# missing where PyTorch was built without oneDNN.
PACKED = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def packed_flops(
    input: torch.Size, weight: torch.Size, *_: object, out_shape: torch.Size, **__: object
) -> int:
    """Count the FLOPs of [..., in] times [out, in]."""
    return 2 * input.numel() * weight[0]


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def best(run: Callable[[], object], times: int) -> float:
    """Return the seconds of the fastest of `times` runs."""
    seconds = []
    for _ in range(times):
        synchronize()
        start = time.perf_counter()
        run()
        synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def matmul_peak(dtype: torch.dtype, times: int = 3) -> float:
    """Measure the FLOP/s of a product of two large square matrices, the fastest of some."""
    size = 8192 if torch.cuda.is_available() else 2048
    one = torch.randn(size, size, device=precision.device()).to(dtype)
    return 2 * size**3 / best(lambda: one @ one, times)


def products(sixteen: str) -> dict[str, float]:
    """Measure the products of fp32 and of a 16-bit precision, between which `auto` chooses."""
    return {name: matmul_peak(precision.DTYPES[name], 7) for name in ("fp32", sixteen)}


@dataclass(frozen=True)
class Achieved:
    """FLOP/s of the step and of the product, and their ratio: medians over the rounds.

    `useful` is the share of tokens that are not padding.
    """

    speed: float
    peak: float
    share: float
    flops_per_review: float
    useful: float

    @property
    def reviews_per_second(self) -> float:
        return self.speed / self.flops_per_review


def achieved(
    step: Callable[[Batch], object],
    data: list[Batch],
    dtype: torch.dtype,
    profile: bool = False,
) -> Achieved:
    """Measure a step over the batches; the pass that counts FLOPs also warms up."""

    def run() -> None:
        for batch in data:
            step(batch)

    counter = FlopCounterMode(display=False, custom_mapping={PACKED: packed_flops})
    with counter:
        run()
    flops = counter.get_total_flops()
    rounds = [in_turns(step, data, dtype, flops) for _ in range(ROUNDS)]
    if profile:
        with torch.profiler.profile() as profiler:
            run()
        order = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        print(profiler.key_averages().table(sort_by=order, row_limit=15), file=sys.stderr)
    masks = torch.cat([batch["attention_mask"].flatten() for batch in data])
    return Achieved(
        statistics.median(speed for _, speed in rounds),
        statistics.median(peak for peak, _ in rounds),
        statistics.median(speed / peak for peak, speed in rounds),
        flops / sum(len(batch["input_ids"]) for batch in data),
        masks.float().mean().item(),
    )


def in_turns(
    step: Callable[[Batch], object],
    data: list[Batch],
    dtype: torch.dtype,
    flops: int,
) -> tuple[float, float]:
    """Return the FLOP/s of the product, which is measured before each batch, and of the steps."""
    peaks, seconds = [], 0.0
    for batch in data:
        peaks.append(matmul_peak(dtype))
        seconds += best(functools.partial(step, batch), 1)
    return statistics.median(peaks), flops / seconds


def inputs() -> tuple[tokens.Tokens, params.Params]:
    """Load the training reviews and the parameters of the project."""
    return tokens.load("train"), params.parse(declarations.read_yaml(params.PATH))


def of_all_lengths(
    batches: Iterable[list[int]], lengths: np.ndarray, count: int = BATCHES
) -> list[list[int]]:
    """Choose `count` representative batches.

    The batches are sorted by their longest review and divided into `count` parts of equal size; the
    middle one of each part is taken.
    """
    ordered = sorted(batches, key=lambda rows: lengths[rows].max())
    return [ordered[int((part + 0.5) * len(ordered) / count)] for part in range(count)]


def padded(
    split: tokens.Tokens, sampler: Iterable[list[int]], multiple: int, count: int = BATCHES
) -> list[Batch]:
    collate = tokens.Collator(0, multiple, int(split.lengths.max()))
    chosen = of_all_lengths(sampler, split.lengths, count)
    return [
        {name: tensor.to(precision.device()) for name, tensor in batch.items()}
        for batch in (collate([split[row] for row in rows]) for rows in chosen)
    ]


@contextmanager
def extraction(
    split: tokens.Tokens, float_format: str, tokens_per_batch: int, count: int = BATCHES
) -> Iterator[Work]:
    """Yield a step of extraction, and `count` batches that represent the split."""
    extractor = Extractor(paths.BACKBONE, float_format)
    multiple = precision.multiple(float_format)
    budget = batches.TokenBudget(batches.widths(split.lengths, multiple), tokens_per_batch)

    @torch.inference_mode()
    def extract(batch: Batch) -> None:
        extractor.states(batch["input_ids"], batch["attention_mask"])

    yield extract, padded(split, budget.batches, multiple, count)


def training_steps(name: str, settings: params.Params, float_format: str) -> TrainingSteps:
    """Create a model and its training steps, `full` or `lora`."""
    torch.manual_seed(0)
    model = classifier.create(manifest.read(paths.TOKENIZED)["labels"])
    if name == "lora":
        model = lora.adapt(model, settings.lora)
    return TrainingSteps(model, float_format)


@contextmanager
def training(
    name: str,
    split: tokens.Tokens,
    settings: params.Params,
    float_format: str,
    batch_size: int,
    count: int = BATCHES,
) -> Iterator[Work]:
    """Yield a training step of `full` or `lora`, and `count` batches that represent an epoch."""
    steps = training_steps(name, settings, float_format)
    sampler = batches.LengthGrouped(split.lengths, batch_size, seed=0)
    with narrow.narrowed(steps.model, float_format):
        yield steps.take, padded(split, sampler, precision.multiple(float_format), count)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.roofline", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("float_format", choices=precision.DTYPES)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--batches", type=int, default=BATCHES, help="how many, of all lengths")
    parser.add_argument("--products", choices=["bf16"], help="round inputs of fp32 products")
    parser.add_argument("--profile", action="store_true", help="show where steps spend their time")
    args = parser.parse_args()
    if args.products:
        torch.backends.mkldnn.matmul.fp32_precision = args.products
    split, settings = inputs()
    budget, size = settings.extract_cls_features.tokens_per_batch, settings.lora.batch_size
    steps = {
        "extraction": extraction(split, args.float_format, budget, args.batches),
        **{
            name: training(name, split, settings, args.float_format, size, args.batches)
            for name in ("full", "lora")
        },
    }
    results = {}
    for name in args.only:
        with steps[name] as (step, data):
            results[name] = achieved(step, data, precision.DTYPES[args.float_format], args.profile)
    print(
        json.dumps(
            {
                "peak": statistics.median(result.peak for result in results.values()),
                "shares": {name: result.share for name, result in results.items()},
                "useful": {name: result.useful for name, result in results.items()},
                "flops_per_review": {
                    name: result.flops_per_review for name, result in results.items()
                },
                "reviews_per_second": {
                    name: result.reviews_per_second for name, result in results.items()
                },
            }
        )
    )


if __name__ == "__main__":
    main()
