"""The costs of a stage, kept apart from its scores: costs vary from run to run, scores do not."""

import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from stages.lib.core import outputs
from stages.lib.core.paths import COSTS

if TYPE_CHECKING:
    # In Python 3.10, typing lacks it.
    from typing_extensions import Unpack


class Machine(TypedDict, total=False):
    """The hardware, and the precision of the computation on it.

    {"precision": "bf16", "device": "cpu, 2 threads"}
    """

    precision: str
    device: str
    peak_memory_mb: float  # of the GPU


class Costs(TypedDict):
    """metrics/costs/<name>.json.

    {"seconds": 0.4, "samples_per_second": 26419.6, "size_bytes": 647560, "peak_memory_mb": 605.3,
    "device": "cpu"}
    """

    seconds: float
    samples_per_second: float
    size_bytes: int
    peak_memory_mb: float
    device: str


class _ModelCosts(Costs):
    trainable_parameters: int
    total_parameters: int
    precision: str


class ModelCosts(_ModelCosts, total=False):
    """metrics/costs/<model>.json.

    {"trainable_parameters": 222338, "total_parameters": 22786946, "seconds": 156.28,
    "samples_per_second": 162.9, "size_bytes": 1606343, "peak_memory_mb": 2459.8,
    "device": "cpu, 2 threads", "precision": "bf16", "settings": {"lr": 0.002, "seed": 0}}
    """

    settings: dict[str, Any]


class Steps(TypedDict):
    """The costs of a few steps of full fine-tuning.

    {"samples_per_second": 81.0, "peak_memory_mb": 1332.2, "weights_and_optimizer_mb": ...,
    "saved_activations_mb": ...}
    """

    samples_per_second: float
    peak_memory_mb: float
    weights_and_optimizer_mb: float
    saved_activations_mb: float


class MixedSteps(Steps):
    """The same at 16 bit.

    {"precision": "bf16", "samples_per_second": 139.4, "peak_memory_mb": 1452.8, ...}
    """

    precision: str


class NotMeasured(TypedDict):
    """The reason why there are no costs at 16 bit.

    {"precision": null, "reason": "bf16 is not faster than fp32 on this CPU"}
    """

    precision: None
    reason: str


class Allocation(TypedDict):
    """What PyTorch allocates for a step of training: activations for one part of the batch.

    {"weights_mb": 90.9, "gradients_and_optimizer_mb": 272.6, "saved_activations_mb": 273.9}
    """

    weights_mb: float
    gradients_and_optimizer_mb: float
    saved_activations_mb: float


class AllocatedMemory(TypedDict):
    """The same for full fine-tuning and LoRA on one batch.

    {"precision": "bf16", "reviews": 32, "full": {"weights_mb": 90.9, ...}, "lora": {...}}
    """

    precision: str
    reviews: int
    full: Allocation
    lora: Allocation


class ClaimsCosts(TypedDict):
    """metrics/costs/claims.json.

    {"device": "cpu, 2 threads", "fp32": {"samples_per_second": 81.0, ...},
    "mixed": {"precision": "bf16", ...}, "allocated": {"precision": "bf16", ...}}
    """

    device: str
    fp32: Steps
    mixed: MixedSteps | NotMeasured
    allocated: AllocatedMemory


def write(
    name: str,
    *,
    seconds: float,
    samples: int,
    size: Path,
    trainable: int | None = None,
    total: int | None = None,
    settings: dict[str, Any] | None = None,
    **machine: "Unpack[Machine]",
) -> None:
    """Write metrics/costs/<name>.json.

    `seconds` is the wall-clock time of the stage's main loop, and `samples` is the number of
    samples it processed over all epochs. `size` is the path of the saved output, `trainable` and
    `total` are parameter counts, and `settings` are the hyperparameters of a trained model.
    `machine` describes the hardware (see `precision.describe`); it may override the device and the
    peak resident memory.
    """
    parameters = {"trainable_parameters": trainable, "total_parameters": total}
    outputs.write_json(
        COSTS / f"{name}.json",
        {
            **{key: value for key, value in parameters.items() if value is not None},
            "seconds": round(seconds, 2),
            "samples_per_second": round(samples / seconds, 1),
            "size_bytes": sum(file.stat().st_size for file in size.rglob("*") if file.is_file()),
            "peak_memory_mb": round(peak_resident_memory() / 1e6, 1),
            "device": "cpu",
        }
        | machine
        | ({"settings": settings} if settings else {}),
    )


def peak_resident_memory() -> int:
    """Return the peak resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
