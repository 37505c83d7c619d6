"""The processes of a stage: as many as `launch` in params.yaml starts, or just one.

A single process runs the same code, with a share that is the whole.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather, parse_flag_from_env

from stages.lib.core.errors import InputError

T = TypeVar("T")


def state() -> PartialState:
    """Return `process_index`, `num_processes`, `is_main_process` and `device` of this process.

    The device is CUDA if there is one, otherwise the CPU.
    """
    cpu = not torch.cuda.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")
    try:
        here = PartialState(cpu=cpu)
    except ValueError as error:
        # What a launcher has not set, or something else has.
        raise InputError(
            f"environment variables of a launcher (WORLD_SIZE, RANK, LOCAL_RANK, PMI_SIZE, ...) do "
            f"not fit together: {error}"
        ) from None
    if here.device.type == "cuda":
        # PyTorch prefers cuDNN's attention at 16 bit on recent GPUs, although it builds a plan for
        # each shape of a batch.
        torch.backends.cuda.enable_cudnn_sdp(False)
    return here


def from_main(make: Callable[[], T]) -> T:
    """Call `make` in the main process and return its result in all processes."""
    values: list[Any] = [make() if state().is_main_process else None]
    broadcast_object_list(values)
    return values[0]


def gathered(rows: torch.Tensor, most: int) -> torch.Tensor:
    """Gather each process's `rows` [count, width] into [processes, most, width].

    `most` is the largest count of rows in any process; missing rows are zeros.
    """
    padded = torch.nn.functional.pad(rows, (0, 0, 0, most - len(rows)))
    return gather(padded.to(state().device)).view(-1, *padded.shape)


def leave_group() -> bool:
    """End the communication between the processes, after their last collective operation.

    Returns whether this is the main process, which continues alone.
    """
    state().destroy_process_group()
    return state().is_main_process
