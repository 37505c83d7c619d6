"""The device, and the floating-point precision that models use on it."""

import os

import torch

from stages.lib.core.costs import Machine
from stages.lib.core.errors import InputError
from stages.lib.encoder import batches, processes

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# An environment variable that sets what 'auto' means, so that one machine can reproduce another's
# choice. A CPU without bf16 in hardware still supports it, slowly.
AUTO = "AUTO_PRECISION"


def device() -> torch.device:
    """Return the CUDA device if there is one (each process has its own), otherwise the CPU."""
    return processes.state().device


def resolve(precision: str, where: str = "params.yaml: precision") -> str:
    """Return 'fp32', 'bf16' or 'fp16' for a `precision` that was set in `where`.

    'auto' is fp16 on CUDA (as published), bf16 on a CPU where it is faster (AMX, or AVX512-BF16 by
    AMD), and fp32 elsewhere; the environment variable AUTO_PRECISION overrides this choice. Raises
    InputError for a precision that the device does not support.
    """
    if precision == "auto" and (precision := os.environ.get(AUTO, "auto")) != "auto":
        where = AUTO
        if precision not in DTYPES:
            raise InputError(f"{AUTO}: {precision!r} is wrong: it should be fp32, bf16 or fp16")
    if device().type == "cuda":
        if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise InputError(
                f"{where}: 'bf16' is wrong: this GPU has no bfloat16; use auto, fp32 or fp16"
            )
        return "fp16" if precision == "auto" else precision
    if precision == "fp16":
        raise InputError(
            f"{where}: 'fp16' is wrong: it needs a CUDA GPU and there is none; "
            "use auto, fp32 or bf16"
        )
    return _on_cpu() if precision == "auto" else precision


def _on_cpu() -> str:
    capabilities = torch.cpu.get_capabilities()
    # Intel's AVX512-BF16 without AMX is slower than fp32.
    amd = str(capabilities.get("cpu_name")).startswith("AMD")
    faster = capabilities.get("amx_tile") or (amd and capabilities.get("avx512_bf16"))
    return "bf16" if faster else "fp32"


def multiple(precision: str) -> int:
    """Return the number of which the widths of batches should be multiples."""
    return 1 if precision == "fp32" else batches.MULTIPLE


def describe(precision: str) -> Machine:
    """Describe the precision and the device for the costs, with threads (CPU) or peak memory (GPU).

    Threads and memory are those of one process; memory is in MB.
    """
    where, count = device(), processes.state().num_processes
    times = f"{count} x " if count > 1 else ""
    if where.type == "cuda":
        peak = round(torch.cuda.max_memory_allocated() / 1e6, 1)
        name = torch.cuda.get_device_name(where)
        return {"precision": precision, "device": times + name, "peak_memory_mb": peak}
    threads = torch.get_num_threads()
    return {
        "precision": precision,
        "device": f"{times}cpu, {threads} thread{'s' * (threads > 1)}",
    }
