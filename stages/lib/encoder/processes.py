"""The processes that a stage runs in: as many as `launch` in params.yaml starts, or just one.

One process is the same code, with a share that is the whole.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather, parse_flag_from_env

from stages.lib.core.errors import InputError

T = TypeVar("T")


def state() -> PartialState:
    """The process among the others: `process_index`, `num_processes`, `is_main_process`, `device`.

    CUDA where there is one, else the CPU.
    """
    cpu = not torch.cuda.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")
    try:
        return PartialState(cpu=cpu)
    except ValueError as error:
        # What a launcher has not set, or something else has.
        raise InputError(
            f"environment variables of a launcher (WORLD_SIZE, RANK, LOCAL_RANK, PMI_SIZE, ...) do "
            f"not fit together: {error}"
        ) from None


def from_main(make: Callable[[], T]) -> T:
    """What `make` gives in the main process, in all of them."""
    values = [make() if state().is_main_process else None]
    broadcast_object_list(values)
    return values[0]


def gathered(rows: torch.Tensor, most: int) -> torch.Tensor:
    """[processes, most, width] of each process's `rows`, [its number, width], with zeros below.

    `most` is the largest number of rows that one of them has.
    """
    padded = torch.nn.functional.pad(rows, (0, 0, 0, most - len(rows)))
    return gather(padded.to(state().device)).view(-1, *padded.shape)


def part() -> bool:
    """End the connection after the last thing that the processes do together.

    Gives whether this is the main process, which goes on alone.
    """
    state().destroy_process_group()
    return state().is_main_process
