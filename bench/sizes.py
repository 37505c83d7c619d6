"""Measure the steps of extraction and training at growing batch sizes.

    python -m bench.sizes {fp32,bf16,fp16}

Run it in a project with data/tokenized and data/backbone. The steps and their batches are those of
bench/roofline.py. Sizes that do not fit into a GPU's memory are left out. One line of JSON goes to
standard output.
"""

import argparse
import gc
import json
import sys
from contextlib import AbstractContextManager
from typing import Any

import torch
from tqdm import tqdm

from bench import roofline
from stages.lib.encoder import precision
from stages.lib.training import parts

# By the type of the device: tokens per batch of extraction; reviews per batch of training; the most
# tokens for which training computes gradients at a time, which are varied at the largest batch.
SIZES = {
    "cpu": ([512, 2048, 8192], [8, 32], [512, 1024, 2048]),
    "cuda": (
        [2048, 8192, 32768, 131072],
        [32, 128, 512, 2048],
        [4096, 16384, 65536],
    ),
}


def measure(
    work: AbstractContextManager[roofline.Work], float_format: str
) -> dict[str, float | None]:
    """Measure reviews per second, the share of the product, and on a GPU the peak memory in MB."""
    # Otherwise the model of an earlier size may still be there, and would count.
    gc.collect()
    with work as (step, data):
        found = roofline.achieved(step, data, precision.DTYPES[float_format])
        peak = None
        if torch.cuda.is_available():
            # The operands of the product must not count.
            torch.cuda.reset_peak_memory_stats()
            for batch in data:
                step(batch)
            peak = precision.describe(float_format)["peak_memory_mb"]
    return {
        "reviews_per_second": found.reviews_per_second,
        "share": found.share,
        "peak_memory_mb": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.sizes", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("float_format", choices=precision.DTYPES)
    float_format = parser.parse_args().float_format
    split, settings = roofline.inputs()
    device = precision.device().type
    budgets, sizes, parted = SIZES[device]
    asked: list[dict[str, Any]] = [{"step": "extraction", "tokens": budget} for budget in budgets]
    for name in ("full", "lora"):
        trained = [(size, parts.TOKENS[device]) for size in sizes]
        trained += [(sizes[-1], most) for most in parted if most != parts.TOKENS[device]]
        asked += [{"step": name, "reviews": size, "tokens": most} for size, most in trained]
    rows = []
    for row in tqdm(asked):
        if row["step"] == "extraction":
            work = roofline.extraction(split, float_format, row["tokens"])
        else:
            parts.TOKENS[device] = row["tokens"]
            work = roofline.training(row["step"], split, settings, float_format, row["reviews"])
        try:
            rows.append(row | measure(work, float_format))
        except torch.OutOfMemoryError:
            print(f"{row} does not fit into the memory of the GPU", file=sys.stderr)
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
