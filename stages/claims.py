"""Test claims about adapters and mixed precision that training alone does not verify.

    python -m stages.claims

- An adapter merged into its base model, W' = W + BA, gives the same logits.
- One base model serves several adapters, which are swapped in place.
- Mixed precision saves memory and time. This is measured on a few steps of full fine-tuning at fp32
  and at 16 bit, each in a separate process, so that each has its own peak memory. What
  PyTorch allocates is measured too, because it does not depend on the caches of libraries.
- LoRA saves memory. What PyTorch allocates for a step of LoRA and of full fine-tuning is divided
  into weights, gradients and optimizer states, and what is saved for the backward pass.

reads    data/models/lora*, data/backbone, data/tokenized, data/predictions/lora*
         (params: seed, precision)
metrics  metrics/claims.json, metrics/costs/claims.json
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

from stages.lib.core import manifest, outputs, paths, stage
from stages.lib.core.costs import (
    AllocatedMemory,
    Allocation,
    ClaimsCosts,
    MixedSteps,
    NotMeasured,
    Steps,
)
from stages.lib.core.metrics import Claims, Merge, Swap
from stages.lib.core.paths import MODELS, TOKENIZED
from stages.lib.schema import params

if TYPE_CHECKING:
    from peft import PeftModel

    from stages.lib.encoder.tokens import Tokens

ADAPTERS = ("lora-2e-5", "lora-2e-4", "lora")
MERGED = "lora"
# The adapter whose memory is compared with that of full fine-tuning.
COMPARED = "lora-2e-4"
LONGEST = 32  # training reviews, the longest ones, in the batch of that comparison
METRICS = paths.METRICS / "claims.json"
COSTS = paths.COSTS / "claims.json"


def main() -> None:
    p = params.load("seed", "precision")
    # This comes first, while this process is small, because a new process inherits its peak memory.
    measured = {
        kind: _in_a_fresh_process(training_costs, kind, p.precision, p.seed)
        for kind in ("fp32", "mixed")
    }
    from stages.lib.encoder import precision, tokens

    test = tokens.load("test")
    facts: Claims = {"merge": merging(test), "swap": swapping(test)}
    outputs.write_json(METRICS, facts)
    costs: ClaimsCosts = {
        "device": precision.describe("fp32")["device"],
        "fp32": measured["fp32"],
        "mixed": measured["mixed"],
        "allocated": allocated_memory(precision.resolve(p.precision), p.seed),
    }
    outputs.write_json(COSTS, costs)


def _in_a_fresh_process(function: Any, *arguments: Any) -> Any:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def training_costs(kind: str, asked: str, seed: int) -> Steps | MixedSteps | NotMeasured:
    """Measure speed and peak memory of full fine-tuning, for `kind` 'fp32' or 'mixed'.

    `asked` is the parameter precision. If it is not a 16-bit one, 'mixed' uses the choice of
    'auto'. On hardware without a fast 16-bit format, 'mixed' is not measured and the reason is
    returned instead. Raises InputError for a precision that the device does not support.
    """
    from stages.lib.encoder import precision

    precision.resolve(asked)
    if kind == "fp32":
        from stages.lib.training import precision_benchmark

        return precision_benchmark.measure("fp32", seed)
    native = precision.resolve("auto")
    if native == "fp32":
        return {"precision": None, "reason": "bf16 is not faster than fp32 on this CPU"}
    from stages.lib.training import precision_benchmark

    float_format = asked if asked in ("bf16", "fp16") else native
    return {"precision": float_format, **precision_benchmark.measure(float_format, seed)}


def allocated_memory(float_format: str, seed: int) -> AllocatedMemory:
    """Measure what PyTorch allocates for a step of full fine-tuning and of LoRA, each in MB.

    `float_format` is fp32, bf16 or fp16. The batch has the LONGEST longest training reviews. The
    activations are those of its largest part.
    """
    import numpy as np
    from transformers import set_seed

    from stages.lib.encoder import tokens
    from stages.lib.training import classifier, narrow
    from stages.lib.training.steps import TrainingSteps

    train = tokens.load("train")
    rows = [train[int(row)] for row in np.argsort(train.lengths, kind="stable")[-LONGEST:]]

    def allocation(model: Any) -> Allocation:
        steps = TrainingSteps(model, float_format)
        with narrow.narrowed(model, float_format):
            return steps.allocation(steps.batch(rows))

    set_seed(seed)
    full = allocation(classifier.create(manifest.read(TOKENIZED)["labels"]))
    adapter = allocation(_with_adapters(COMPARED, is_trainable=True))
    return {"precision": float_format, "reviews": len(rows), "full": full, "lora": adapter}


def merging(test: "Tokens") -> Merge:
    """Measure the largest logit difference between an adapter on its base and the merged model."""
    from stages.lib.encoder import inference

    model = _with_adapters(MERGED)
    apart = inference.logits(model, test.input_ids, description="test")
    merged = inference.logits(model.merge_and_unload(), test.input_ids, description="test")
    largest = _rounded(abs(merged - apart).max())
    return {"model": MERGED, "largest_logit_difference": largest, "reviews": len(test)}


def swapping(test: "Tokens") -> Swap:
    """Load all adapters on one base, activate each, and compare with the predictions of its stage.

    Returns the largest difference of scores and the number of predictions that differ.
    """
    import numpy as np

    from stages.lib.core import predictions
    from stages.lib.encoder import inference
    from stages.lib.training import classifier

    labels = manifest.read(TOKENIZED)["labels"]
    model = _with_adapters(*ADAPTERS)
    largest, differ = 0.0, 0
    for adapter in ADAPTERS:
        model.set_adapter(_name(adapter))
        probabilities = classifier.probabilities(
            inference.logits(model, test.input_ids, description="test")
        )
        table = predictions.read(adapter)
        reported = table[table["split"] == "test"]
        predicted = np.array([labels.index(label) for label in reported["prediction"]])
        differ += int((probabilities.argmax(-1) != predicted).sum())
        scores = probabilities[np.arange(len(test)), predicted]
        largest = max(largest, abs(scores - reported["score"].to_numpy()).max())
    return {
        "adapters": list(ADAPTERS),
        "largest_score_difference": _rounded(largest),
        "predictions_that_differ": differ,
    }


def _with_adapters(*adapters: str, is_trainable: bool = False) -> "PeftModel":
    """Load the base in float32 with these adapters, of which the first is active."""
    from peft import PeftModel

    from stages.lib.encoder import precision
    from stages.lib.training import classifier

    base = classifier.create(manifest.read(TOKENIZED)["labels"])
    first, *others = adapters
    model = PeftModel.from_pretrained(
        base, MODELS / first, adapter_name=_name(first), is_trainable=is_trainable
    )
    for other in others:
        model.load_adapter(MODELS / other, adapter_name=_name(other))
    return model.to(precision.device()).eval()


def _name(adapter: str) -> str:
    # PEFT would confuse an adapter named "lora" with its own parameter names.
    return f"adapter-{adapter}"


def _rounded(difference: float) -> float:
    return float(f"{difference:.2g}")


if __name__ == "__main__":
    stage.run(main)
