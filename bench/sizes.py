"""Measure the steps of extraction and training at growing batch sizes, to see which keep a device
busy.

    python -m bench.sizes {fp32,bf16,fp16}

Run it in a project with data/tokenized and data/backbone. The steps and their batches are those of
bench/roofline.py. One line of JSON goes to standard output.
"""

import argparse
import itertools
import json
from contextlib import AbstractContextManager
from typing import Any

import torch
from tqdm import tqdm

from bench import roofline
from stages.lib.core import declarations
from stages.lib.encoder import precision, tokens
from stages.lib.schema import params
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
    split = tokens.load("train")
    settings = params.parse(declarations.read_yaml(params.PATH))
    device = precision.device().type
    budgets, sizes, parted = SIZES[device]
    usual = parts.TOKENS[device]
    trained = [(size, usual) for size in sizes] + [(sizes[-1], most) for most in parted]
    rows: list[dict[str, Any]] = []
    for budget in tqdm(budgets, "extraction"):
        work = roofline.extraction(split, float_format, budget)
        rows.append({"step": "extraction", "tokens": budget} | measure(work, float_format))
    for name, (size, most) in tqdm(
        list(itertools.product(("full", "lora"), dict.fromkeys(trained)))
    ):
        parts.TOKENS[device] = most
        work = roofline.training(name, split, settings, float_format, size)
        rows.append({"step": name, "reviews": size, "tokens": most} | measure(work, float_format))
    print(json.dumps({"usual": usual, "rows": rows}))


if __name__ == "__main__":
    main()
