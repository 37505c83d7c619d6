"""Tabulate what the training steps save for their backward passes, by data type and shape.

    python -m bench.saved {fp32,bf16,fp16}

Run it in a project with data/tokenized and data/backbone. The steps are those of bench/roofline.py,
on a batch of medium length. Kinds of tensors that take less than 0.1 MB are added up.
"""

import argparse
from collections import Counter
from functools import partial

import pandas as pd
import torch

from bench import roofline
from stages.lib.encoder import batches, precision
from stages.lib.training import narrow
from stages.lib.training.steps import saved_tensors


def table(saved: list[torch.Tensor]) -> pd.DataFrame:
    """Count tensors, and their memory in MB, by data type and shape."""
    counts: Counter[tuple[str, str]] = Counter()
    megabytes: Counter[tuple[str, str]] = Counter()
    for tensor in saved:
        kind = (str(tensor.dtype).removeprefix("torch."), " x ".join(map(str, tensor.shape)))
        counts[kind] += 1
        megabytes[kind] += tensor.untyped_storage().nbytes() / 1e6
    small = [kind for kind, size in megabytes.items() if size < 0.1]
    for kind in small:
        counts["all", "others"] += counts.pop(kind)
        megabytes["all", "others"] += megabytes.pop(kind)
    return pd.DataFrame(
        [
            {"type": kind[0], "shape": kind[1], "tensors": counts[kind], "MB": f"{size:.1f}"}
            for kind, size in megabytes.most_common()
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.saved", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("float_format", choices=precision.DTYPES)
    float_format = parser.parse_args().float_format
    split, settings = roofline.inputs()
    sampler = batches.LengthGrouped(split.lengths, settings.lora.batch_size, seed=0)
    (batch,) = roofline.padded(split, sampler, precision.multiple(float_format), 1)
    for name in ("full", "lora"):
        steps = roofline.training_steps(name, settings, float_format)
        with narrow.narrowed(steps.model, float_format):
            saved = saved_tensors(steps.model, partial(steps.take, batch))
        reviews, width = batch["input_ids"].shape
        text = table(saved).to_markdown(index=False, disable_numparse=True)
        print(f"{name}, {reviews} reviews of {width} tokens:\n\n{text}\n")


if __name__ == "__main__":
    main()
