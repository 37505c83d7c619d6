"""The costs of a stage, kept apart from its scores: costs vary from run to run, scores do not."""

import resource
import sys
from pathlib import Path
from typing import Any

from stages.lib.core import outputs
from stages.lib.core.paths import COSTS


def write(
    name: str,
    *,
    seconds: float,
    samples: int,
    size: Path,
    trainable: int | None = None,
    total: int | None = None,
    settings: dict[str, Any] | None = None,
    **machine: Any,
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
