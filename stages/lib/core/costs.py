"""What a stage cost, beside its scores: costs differ from run to run, scores do not."""

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

    `seconds` is the wall-clock time of the stage's main loop and `samples` what it took in, over
    all epochs; `size` is what was saved; `trainable` and `total` count parameters; `settings` is
    what a model was trained with; `machine` says what it ran on (see `precision.describe`) and may
    replace the peak of resident memory.
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
    """Bytes, of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
